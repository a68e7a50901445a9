//! Rows without negative values: VPMADDUBSW multiplies twice as many bytes at once.
//!
//! Its 16-bit sums of two products saturate, but not for 0..=127 × −128..=127 twice, which is at most 2 × 127 × 128 = 32512. A
//! second multiplication, by one, widens them: 32 products a cycle again. But trained weights are mostly small: where they are,
//! two or four such sums are added before they are widened, for 43 or 51 products a cycle at best. Which can be is noted when
//! the weights are packed.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::super::arithmetic::Bounds;
use super::super::super::gemm::{Scratch, Scratches};
use super::super::super::pointwise::Pairs;
use super::super::{DepthwiseRow, Family, Requantization, Wanted, Work};
use super::requantize::{bias, check_results, put, store};
use super::{Avx2, NR, depthwise};

/// For rows of 0..=127.
pub struct Avx2NonNegative;

impl Family for Avx2NonNegative {
    type Lane = i8;
    type NonNegative = Avx2NonNegative;
    const MR: usize = MR;
    const NR: usize = NR;
    const KU: usize = KU;

    fn notes(depth: usize) -> usize {
        depth.div_ceil(GROUP)
    }

    /// For each group of depths, how many steps of [`KU`] come to sums that fit 16 bits together.
    fn note(depth: usize, panel: &mut [i8]) {
        let (weights, notes) = panel.split_at_mut(depth * NR);
        for (group, note) in weights.chunks(GROUP * NR).zip(notes) {
            *note = [4, 2]
                .into_iter()
                .find(|steps| fit_together(group, *steps))
                .unwrap_or(1) as i8;
        }
    }

    fn tile(depth: usize, columns: usize, rows: &[i8], panel: &[i8], acc: &mut [i32]) {
        check(depth, rows, panel);
        assert!(acc.len() >= MR * NR);
        // SAFETY: AVX2 was detected before this family could be chosen; the slices are as long as asserted.
        unsafe {
            match columns <= NR / 2 {
                true => tile::<1>(depth, rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr()),
                false => tile::<2>(depth, rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr()),
            }
        }
    }

    fn quantized_tile(
        depth: usize,
        rows: &[i8],
        panel: &[i8],
        _acc: &mut [i32],
        wanted: Wanted,
        to: &Requantization,
        out: &mut [i8],
    ) {
        check(depth, rows, panel);
        check_results(wanted, to, out);
        let (rows, panel, out) = (rows.as_ptr(), panel.as_ptr(), out.as_mut_ptr());
        // SAFETY: AVX2 was detected before this family could be chosen; the slices are as long as asserted.
        unsafe {
            match wanted.columns <= NR / 2 {
                true => quantized_tile::<1>(depth, rows, panel, wanted, to, out),
                false => quantized_tile::<2>(depth, rows, panel, wanted, to, out),
            }
        }
    }

    fn as_packed(rows: &[i8]) -> Option<&[i8]> {
        Some(rows)
    }

    fn scratch(scratches: &mut Scratches) -> &mut Scratch<i8> {
        &mut scratches.narrow
    }

    fn requantize_tile(acc: &[i32], wanted: Wanted, bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
        Avx2::requantize_tile(acc, wanted, bias, factor, bounds, out);
    }

    fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8> {
        Avx2::pack_depthwise(weights, channels)
    }

    fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
        depthwise::row(row, out, depthwise::non_negative);
    }

    fn pairwise(pairs: Pairs) {
        Avx2::pairwise(pairs);
    }

    fn compiled<W: Work>(work: W) {
        Avx2::compiled(work);
    }
}

/// Depths that one column keeps together.
const KU: usize = 4;
/// Depths that share a note.
const GROUP: usize = 4 * KU;
/// Eight registers of sums: weights of four steps and what is summed with them take the other registers.
const MR: usize = 4;

fn check(depth: usize, rows: &[i8], panel: &[i8]) {
    assert!(depth.is_multiple_of(KU));
    assert!(rows.len() >= MR * depth && panel.len() >= depth * NR + Avx2NonNegative::notes(depth));
}

/// Whether 16 bits hold the products of a pair of depths with values of 0..=127, summed over any so many steps of a group.
fn fit_together(group: &[i8], steps: usize) -> bool {
    const STEP: usize = KU * NR;
    // Fewer are noted as fewer.
    group.len() >= steps * STEP
        && group.chunks(steps * STEP).all(|group| {
            (0..STEP).step_by(2).all(|lane| {
                let weights = || {
                    group
                        .chunks(STEP)
                        .flat_map(|step| &step[lane..lane + 2])
                        .map(|w| i32::from(*w))
                };
                let up: i32 = weights().filter(|w| *w > 0).sum();
                let down: i32 = weights().filter(|w| *w < 0).sum();
                127 * up <= i32::from(i16::MAX) && 127 * down >= i32::from(i16::MIN)
            })
        })
}

/// Loads eight columns' weights of a step, `$half` (0 or 32) bytes into it.
macro_rules! load_weights {
    ($register:literal, $step:literal, $half:literal) => {
        concat!(
            "vmovdqu ",
            $register,
            ", ymmword ptr [{weights} + 64 * ",
            $step,
            " + ",
            $half,
            "]\n"
        )
    };
}

/// Products of one row's depths of a step with the weights in `$register`.
macro_rules! products {
    ($into:literal, $row:literal, $step:literal, $register:literal) => {
        concat!(
            "vpbroadcastd ",
            $into,
            ", dword ptr [",
            $row,
            " + 4 * ",
            $step,
            "]\n",
            "vpmaddubsw ",
            $into,
            ", ",
            $into,
            ", ",
            $register,
            "\n",
        )
    };
}

/// Products of another step, added in 16 bits.
macro_rules! more_products {
    ($row:literal, $step:literal, $register:literal) => {
        concat!(products!("ymm10", $row, $step, $register), "vpaddw ymm9, ymm9, ymm10\n")
    };
}

/// One row's products of all steps, added to its eight sums.
macro_rules! row {
    (1, $row:literal, $sum:literal) => {
        concat!(products!("ymm9", $row, "0", "ymm11"), row!($sum))
    };
    (2, $row:literal, $sum:literal) => {
        concat!(
            products!("ymm9", $row, "0", "ymm11"),
            more_products!($row, "1", "ymm12"),
            row!($sum)
        )
    };
    (4, $row:literal, $sum:literal) => {
        concat!(
            products!("ymm9", $row, "0", "ymm11"),
            more_products!($row, "1", "ymm12"),
            more_products!($row, "2", "ymm13"),
            more_products!($row, "3", "ymm14"),
            row!($sum),
        )
    };
    ($sum:literal) => {
        concat!(
            "vpmaddwd ymm9, ymm9, {ones}\n",
            "vpaddd {",
            $sum,
            "}, {",
            $sum,
            "}, ymm9\n"
        )
    };
}

/// Eight columns of all rows.
macro_rules! rows {
    ($steps:tt, $sum0:literal, $sum1:literal, $sum2:literal, $sum3:literal) => {
        concat!(
            row!($steps, "{row}", $sum0),
            row!($steps, "{row} + {depth}", $sum1),
            row!($steps, "{row} + 2 * {depth}", $sum2),
            row!($steps, "{row3}", $sum3),
        )
    };
}

macro_rules! half {
    (1, $half:literal, $($sum:literal),*) => {
        concat!(load_weights!("ymm11", "0", $half), rows!(1, $($sum),*))
    };
    (2, $half:literal, $($sum:literal),*) => {
        concat!(load_weights!("ymm11", "0", $half), load_weights!("ymm12", "1", $half), rows!(2, $($sum),*))
    };
    (4, $half:literal, $($sum:literal),*) => {
        concat!(
            load_weights!("ymm11", "0", $half),
            load_weights!("ymm12", "1", $half),
            load_weights!("ymm13", "2", $half),
            load_weights!("ymm14", "3", $half),
            rows!(4, $($sum),*),
        )
    };
}

/// Adds the products of `$steps` steps from depth `$k` on, which fit 16 bits together, to `$sums`.
///
/// In assembly, for its order: each value is used right after it is made. Compilers put loads first, which was a quarter slower
/// on Zen 3.
macro_rules! add_steps {
    ($steps:tt, $sums:ident, $k:expr, $rows:ident, $depth:ident, $panel:ident, $ones:ident) => {
        match HALVES {
            1 => asm!(
                half!($steps, "0", "s0", "s1", "s2", "s3"),
                row = in(reg) $rows.add($k),
                row3 = in(reg) $rows.add(3 * $depth + $k),
                depth = in(reg) $depth,
                weights = in(reg) $panel.add($k * NR),
                s0 = inout(ymm_reg) $sums[0][0],
                s1 = inout(ymm_reg) $sums[1][0],
                s2 = inout(ymm_reg) $sums[2][0],
                s3 = inout(ymm_reg) $sums[3][0],
                ones = in(ymm_reg) $ones,
                out("ymm9") _, out("ymm10") _, out("ymm11") _, out("ymm12") _, out("ymm13") _, out("ymm14") _,
                options(pure, readonly, nostack, preserves_flags),
            ),
            _ => asm!(
                half!($steps, "0", "s0", "s1", "s2", "s3"),
                half!($steps, "32", "t0", "t1", "t2", "t3"),
                row = in(reg) $rows.add($k),
                row3 = in(reg) $rows.add(3 * $depth + $k),
                depth = in(reg) $depth,
                weights = in(reg) $panel.add($k * NR),
                s0 = inout(ymm_reg) $sums[0][0],
                s1 = inout(ymm_reg) $sums[1][0],
                s2 = inout(ymm_reg) $sums[2][0],
                s3 = inout(ymm_reg) $sums[3][0],
                t0 = inout(ymm_reg) $sums[0][1],
                t1 = inout(ymm_reg) $sums[1][1],
                t2 = inout(ymm_reg) $sums[2][1],
                t3 = inout(ymm_reg) $sums[3][1],
                ones = in(ymm_reg) $ones,
                out("ymm9") _, out("ymm10") _, out("ymm11") _, out("ymm12") _, out("ymm13") _, out("ymm14") _,
                options(pure, readonly, nostack, preserves_flags),
            ),
        }
    };
}

/// Sums of a tile, from `start` on.
///
/// # Safety
/// AVX2; `rows` points to MR × depth values of 0..=127, `panel` to depth × NR and its notes; `depth` is a multiple of KU.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn sums<const HALVES: usize>(
    depth: usize,
    rows: *const i8,
    panel: *const i8,
    start: [__m256i; HALVES],
) -> [[__m256i; HALVES]; MR] {
    let mut sums = [start; MR];
    let ones = _mm256_set1_epi16(1);
    // SAFETY: every step begins before `depth`, and notes are to be trusted: all reads stay within what the caller promised.
    unsafe {
        let mut notes = panel.add(depth * NR);
        let mut k = 0;
        while k < depth {
            let end = depth.min(k + GROUP);
            let note = *notes;
            notes = notes.add(1);
            if note == 4 {
                add_steps!(4, sums, k, rows, depth, panel, ones);
                k = end;
                continue;
            }
            while note == 2 && k + 2 * KU <= end {
                add_steps!(2, sums, k, rows, depth, panel, ones);
                k += 2 * KU;
            }
            while k < end {
                add_steps!(1, sums, k, rows, depth, panel, ones);
                k += KU;
            }
        }
    }
    sums
}

/// Sums of one row without negative values: what squares of odd sides leave over, and linear layers.
///
/// # Safety
/// As for [`sums`], with one row.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn sums_of_row<const HALVES: usize>(
    depth: usize,
    row: *const i8,
    panel: *const i8,
    start: [__m256i; HALVES],
) -> [[__m256i; HALVES]; 1] {
    let mut sums = start;
    let ones = _mm256_set1_epi16(1);
    let mut k = 0;
    while k < depth {
        // SAFETY: k + 3 < depth, so all reads stay within what the caller promised.
        unsafe {
            let weights = panel.add(k * NR).cast::<__m256i>();
            let four = _mm256_set1_epi32(row.add(k).cast::<i32>().read_unaligned());
            for (half, sum) in sums.iter_mut().enumerate() {
                let pairs = _mm256_maddubs_epi16(four, _mm256_loadu_si256(weights.add(half)));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        k += KU;
    }
    [sums]
}

/// # Safety
/// As for [`sums`], and `acc` points to MR × NR.
#[target_feature(enable = "avx2")]
unsafe fn tile<const HALVES: usize>(depth: usize, rows: *const i8, panel: *const i8, acc: *mut i32) {
    // SAFETY: as the caller promised.
    unsafe { store(&sums(depth, rows, panel, [_mm256_setzero_si256(); HALVES]), acc) }
}

/// # Safety
/// As for [`sums`]; bias and factor hold NR values, and there is room at `out` for what is wanted.
#[target_feature(enable = "avx2")]
unsafe fn quantized_tile<const HALVES: usize>(
    depth: usize,
    rows: *const i8,
    panel: *const i8,
    wanted: Wanted,
    to: &Requantization,
    out: *mut i8,
) {
    // SAFETY: as the caller promised.
    unsafe {
        match wanted.rows {
            1 => put(&sums_of_row::<HALVES>(depth, rows, panel, bias(to)), wanted, to, out),
            _ => put(&sums::<HALVES>(depth, rows, panel, bias(to)), wanted, to, out),
        }
    }
}
