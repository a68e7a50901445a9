//! ARMv8.0 with NEON, as every 64-bit board has it: Cortex-A53, A57, A72.
//!
//! There is no dot product yet. SMULL multiplies eight pairs of bytes into 16 bits, SMLAL adds eight more to them, and
//! SADALP adds neighbours to sums of 32 bits. The more products meet in 16 bits, the fewer SADALP: how many may is known
//! from the weights. An activation is at most 128 in magnitude, so products whose weights' magnitudes sum to at most 255
//! stay within 255 × 128 = 32640, whatever the activations. Two weights always do unless both are −128, four often.
//! Packing notes it for every group of depths, once; the sums are exact in any case.

mod depthwise;
mod requantize;
mod tile;

use std::arch::aarch64::*;

use super::super::arithmetic::Bounds;
use super::super::gemm::{Scratch, Scratches};
use super::{DepthwiseRow, Family, Requantization, Wanted, Work};

pub(super) use depthwise::{depthwise, pack_depthwise};
pub(super) use requantize::{Scale, look_up, requantize_tile, round_rows};
use tile::{spread, tile_of_1, tile_of_2, tile_of_4};

/// For any rows, or for those without negative values: their products are at most 127 × 258 = 32766 if the weights of each
/// sign sum to at most 258, so that twice as many may meet.
pub struct Neon<const NON_NEGATIVE: bool = false>;

const MR: usize = 4;
pub(super) const NR: usize = 8;
const KU: usize = 4;
/// Steps of [`KU`] depths that share a note.
const GROUP: usize = 4;
/// How many products of a group, or of a depthwise block, may meet in 16 bits. The bits are what the assembly looks at.
mod together {
    pub const ONE: i8 = 0b000;
    pub const TWO: i8 = 0b010;
    pub const FOUR: i8 = 0b110;
}

impl<const NON_NEGATIVE: bool> Family for Neon<NON_NEGATIVE> {
    type Lane = i8;
    type NonNegative = Neon<true>;
    const MR: usize = MR;
    const NR: usize = NR;
    const KU: usize = KU;

    fn notes(depth: usize) -> usize {
        depth.div_ceil(GROUP * KU)
    }

    fn note(depth: usize, panel: &mut [i8]) {
        let (weights, notes) = panel.split_at_mut(depth * NR);
        for (group, note) in weights.chunks(GROUP * KU * NR).zip(notes) {
            *note = together::<NON_NEGATIVE>(KU * NR, group);
        }
    }

    fn tile(depth: usize, _columns: usize, rows: &[i8], panel: &[i8], acc: &mut [i32]) {
        assert!(depth.is_multiple_of(KU) && rows.len() >= MR * depth);
        assert!(panel.len() >= depth * NR + Self::notes(depth) && acc.len() >= MR * NR);
        // SAFETY: every aarch64 processor has NEON; the slices are as long as asserted.
        unsafe {
            let start = spread([vdupq_n_s32(0); 2]);
            tile_of_4(depth, rows.as_ptr(), panel.as_ptr(), start, |sums| {
                store(&sums, acc.as_mut_ptr());
            });
        }
    }

    fn quantized_panel(
        depth: usize,
        rows: &[i8],
        panel: &[i8],
        _acc: &mut [i32],
        wanted: Wanted,
        to: &Requantization,
        out: &mut [i8],
    ) {
        let Wanted { columns, stride, .. } = wanted;
        assert!(depth.is_multiple_of(KU) && panel.len() >= depth * NR + Self::notes(depth));
        wanted.check(depth, rows, out, to);
        let panel = panel.as_ptr();
        let (mut row, mut to_row) = (rows.as_ptr(), out.as_mut_ptr());
        // SAFETY: every aarch64 processor has NEON; panel, rows, bias, factor and out are as long as checked, and no more
        // rows than are wanted are read or written.
        unsafe {
            let scale = Scale::load(to.bias.as_ptr(), to.factor.as_ptr(), to.bounds);
            let start = spread(scale.bias);
            for _ in 0..wanted.rows / MR {
                tile_of_4(depth, row, panel, start, |sums| {
                    round_rows::<4>(&sums, &scale, columns, stride, to_row);
                });
                row = row.wrapping_add(MR * depth);
                to_row = to_row.wrapping_add(MR * stride);
            }
            if wanted.rows & 2 != 0 {
                tile_of_2(depth, row, panel, start, |sums| {
                    round_rows::<2>(&sums, &scale, columns, stride, to_row);
                });
                row = row.wrapping_add(2 * depth);
                to_row = to_row.wrapping_add(2 * stride);
            }
            if wanted.rows & 1 != 0 {
                tile_of_1(depth, row, panel, start, |sums| {
                    round_rows::<1>(&sums, &scale, columns, stride, to_row);
                });
            }
        }
    }

    fn reach(rows: usize) -> usize {
        rows
    }

    fn as_packed(rows: &[i8]) -> Option<&[i8]> {
        Some(rows)
    }

    fn requantize_tile(acc: &[i32], wanted: Wanted, bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
        requantize_tile(acc, wanted, bias, factor, bounds, out);
    }

    fn scratch(scratches: &mut Scratches) -> &mut Scratch<i8> {
        &mut scratches.narrow
    }

    fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8> {
        pack_depthwise::<NON_NEGATIVE>(weights, channels)
    }

    fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
        depthwise(row, out);
    }

    fn look_up(table: &[i8; 256], values: &[i8], out: &mut [i8]) {
        look_up(table, values, out);
    }

    fn compiled<W: Work>(work: W) {
        work.run();
    }
}

impl Wanted {
    /// Panics unless rows, output, bias and factor are as long as the kernels take for granted.
    #[inline(always)]
    pub(super) fn check(&self, depth: usize, rows: &[i8], out: &[i8], to: &Requantization) {
        assert!(self.rows > 0 && (1..=NR).contains(&self.columns) && rows.len() >= self.rows * depth);
        assert!(out.len() >= (self.rows - 1) * self.stride + self.columns);
        assert!(to.bias.len() >= NR && to.factor.len() >= NR);
    }
}

/// Stores sums row by row.
///
/// # Safety
/// `acc` points to [`NR`] values for each row.
#[inline(always)]
pub(super) unsafe fn store(sums: &[[int32x4_t; 2]], acc: *mut i32) {
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: as the caller promised.
        unsafe {
            vst1q_s32(acc.add(row * NR), sums[0]);
            vst1q_s32(acc.add(row * NR + 4), sums[1]);
        }
    }
}

/// How many of the products that meet in one lane, `stride` weights from each other, fit 16 bits together.
fn together<const NON_NEGATIVE: bool>(stride: usize, weights: &[i8]) -> i8 {
    let fits = |steps: usize| {
        weights.chunks(steps * stride).all(|run| {
            (0..stride).all(|lane| {
                let of_lane = run.iter().skip(lane).step_by(stride).map(|w| i32::from(*w));
                let (above, below) = of_lane.fold((0, 0), |(above, below), w| (above + w.max(0), below - w.min(0)));
                match NON_NEGATIVE {
                    true => above.max(below) <= 258,
                    false => above + below <= 255,
                }
            })
        })
    };
    if fits(4) {
        together::FOUR
    } else if fits(2) {
        together::TWO
    } else {
        together::ONE
    }
}
