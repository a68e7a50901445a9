//! ARMv8.0 with NEON, as every 64-bit board has it: Cortex-A53, A57, A72.
//!
//! There is no dot product yet. SMULL multiplies eight pairs of bytes into 16 bits, SMLAL adds eight more to them, and
//! SADALP adds neighbours to sums of 32 bits. The more products meet in 16 bits, the fewer SADALP: how many may is known
//! from the weights. An activation is at most 128 in magnitude, so products whose weights' magnitudes sum to at most 255
//! stay within 255 × 128 = 32640, whatever the activations. Two weights always do unless both are −128, four often.
//! Packing notes it for every group of depths, once; the sums are exact in any case.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::arithmetic::Bounds;
use super::super::gemm::{Scratch, Scratches};
use super::{DepthwiseRow, Family, Wanted, Work};

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
        assert!(depth.is_multiple_of(KU));
        assert!(rows.len() >= MR * depth && panel.len() >= depth * NR + Self::notes(depth) && acc.len() >= MR * NR);
        // SAFETY: every aarch64 processor has NEON; the slices are as long as asserted.
        unsafe { tile(depth, rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr()) }
    }

    fn requantize(acc: &[i32], bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
        let (columns, stride) = (out.len(), out.len());
        requantize_tile(
            &acc[..NR],
            Wanted {
                rows: 1,
                columns,
                stride,
            },
            bias,
            factor,
            bounds,
            out,
        );
    }

    fn requantize_tile(acc: &[i32], wanted: Wanted, bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
        requantize_tile(acc, wanted, bias, factor, bounds, out);
    }

    fn scratch(scratches: &mut Scratches) -> &mut Scratch<i8> {
        &mut scratches.narrow
    }

    fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8> {
        pack_depthwise(weights, channels)
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

/// Products of step `$step` of a group with one row, for its four pairs of columns, by `smull` or `smlal`.
macro_rules! products {
    ($multiply:literal, $low:literal, $high:literal, $row:literal) => {
        concat!(
            $multiply,
            " v28.8h, v",
            $low,
            ".8b, v",
            $row,
            ".8b\n",
            $multiply,
            "2 v29.8h, v",
            $low,
            ".16b, v",
            $row,
            ".16b\n",
            $multiply,
            " v30.8h, v",
            $high,
            ".8b, v",
            $row,
            ".8b\n",
            $multiply,
            "2 v31.8h, v",
            $high,
            ".16b, v",
            $row,
            ".16b\n",
        )
    };
}

/// Adds the products to a row's sums.
macro_rules! add {
    ($a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "sadalp v",
            $a,
            ".4s, v28.8h\n",
            "sadalp v",
            $b,
            ".4s, v29.8h\n",
            "sadalp v",
            $c,
            ".4s, v30.8h\n",
            "sadalp v",
            $d,
            ".4s, v31.8h\n",
        )
    };
}

/// One to four steps, whose products meet in 16 bits: loads of the weights, then `$row` for each row.
macro_rules! steps {
    ($row:ident) => {
        concat!(
            $row!("row0", "0", "1", "2", "3"),
            $row!("row1", "4", "5", "6", "7"),
            $row!("row2", "8", "9", "10", "11"),
            $row!("row3", "12", "13", "14", "15"),
        )
    };
}

macro_rules! one {
    ($row:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "ld1r {{v24.4s}}, [{",
            $row,
            "}], #4\n",
            products!("smull", "16", "17", "24"),
            add!($a, $b, $c, $d),
        )
    };
}

macro_rules! two {
    ($row:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "ld1r {{v24.4s}}, [{",
            $row,
            "}], #4\n",
            "ld1r {{v25.4s}}, [{",
            $row,
            "}], #4\n",
            products!("smull", "16", "17", "24"),
            products!("smlal", "18", "19", "25"),
            add!($a, $b, $c, $d),
        )
    };
}

macro_rules! three {
    ($row:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "ld1r {{v24.4s}}, [{",
            $row,
            "}], #4\n",
            "ld1r {{v25.4s}}, [{",
            $row,
            "}], #4\n",
            "ld1r {{v26.4s}}, [{",
            $row,
            "}], #4\n",
            products!("smull", "16", "17", "24"),
            products!("smlal", "18", "19", "25"),
            products!("smlal", "20", "21", "26"),
            add!($a, $b, $c, $d),
        )
    };
}

macro_rules! four {
    ($row:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "ld1r {{v24.4s}}, [{",
            $row,
            "}], #4\n",
            "ld1r {{v25.4s}}, [{",
            $row,
            "}], #4\n",
            "ld1r {{v26.4s}}, [{",
            $row,
            "}], #4\n",
            "ld1r {{v27.4s}}, [{",
            $row,
            "}], #4\n",
            products!("smull", "16", "17", "24"),
            products!("smlal", "18", "19", "25"),
            products!("smlal", "20", "21", "26"),
            products!("smlal", "22", "23", "27"),
            add!($a, $b, $c, $d),
        )
    };
}

/// In assembly, since the compiler does not keep the sums in registers.
///
/// v0 to v15 are sums, four for each row: of two columns each, over the first and second halves of every [`KU`] depths.
/// v16 to v23 hold the weights of up to four steps, eight columns each; v24 to v27 a row's depths of each step, again for
/// every column; v28 to v31 products.
///
/// # Safety
/// `rows` points to MR × depth values, `panel` to depth × NR and their notes, `acc` to MR × NR; `depth` is a multiple of
/// KU.
#[target_feature(enable = "neon")]
unsafe fn tile(depth: usize, rows: *const i8, panel: *const i8, acc: *mut i32) {
    // SAFETY: whole groups, then what is left of one, each with its note: rows, weights and notes are read once each, from
    // the first to the last that the caller promised, and MR × NR sums are written.
    unsafe {
        asm!(
            "movi v0.4s, #0", "movi v1.4s, #0", "movi v2.4s, #0", "movi v3.4s, #0",
            "movi v4.4s, #0", "movi v5.4s, #0", "movi v6.4s, #0", "movi v7.4s, #0",
            "movi v8.4s, #0", "movi v9.4s, #0", "movi v10.4s, #0", "movi v11.4s, #0",
            "movi v12.4s, #0", "movi v13.4s, #0", "movi v14.4s, #0", "movi v15.4s, #0",
            "cbz {groups}, 5f",
            // A whole group, as its note says.
            "2:",
            "ldrb {note:w}, [{notes}], #1",
            "tbz {note:w}, #2, 3f",
            "ldp q16, q17, [{weights}], #128",
            "ldp q18, q19, [{weights}, #-96]",
            "ldp q20, q21, [{weights}, #-64]",
            "ldp q22, q23, [{weights}, #-32]",
            steps!(four),
            "subs {groups}, {groups}, #1",
            "b.ne 2b",
            "b 5f",
            "3:",
            "tbz {note:w}, #1, 4f",
            "ldp q16, q17, [{weights}], #128",
            "ldp q18, q19, [{weights}, #-96]",
            steps!(two),
            "ldp q16, q17, [{weights}, #-64]",
            "ldp q18, q19, [{weights}, #-32]",
            steps!(two),
            "subs {groups}, {groups}, #1",
            "b.ne 2b",
            "b 5f",
            "4:",
            "ldp q16, q17, [{weights}], #128",
            steps!(one),
            "ldp q16, q17, [{weights}, #-96]",
            steps!(one),
            "ldp q16, q17, [{weights}, #-64]",
            steps!(one),
            "ldp q16, q17, [{weights}, #-32]",
            steps!(one),
            "subs {groups}, {groups}, #1",
            "b.ne 2b",
            // Up to three steps are left: all at once, or two and one, or one by one.
            "5:",
            "cbz {left}, 8f",
            "tbz {left}, #1, 7f",
            "ldrb {note:w}, [{notes}]",
            "tbz {note:w}, #1, 7f",
            "tbz {left}, #0, 6f",
            "tbz {note:w}, #2, 6f",
            "ldp q16, q17, [{weights}]",
            "ldp q18, q19, [{weights}, #32]",
            "ldp q20, q21, [{weights}, #64]",
            steps!(three),
            "b 8f",
            "6:",
            "ldp q16, q17, [{weights}], #64",
            "ldp q18, q19, [{weights}, #-32]",
            steps!(two),
            "tbz {left}, #0, 8f",
            "mov {left}, #1",
            "7:",
            "ldp q16, q17, [{weights}], #32",
            steps!(one),
            "subs {left}, {left}, #1",
            "b.ne 7b",
            // The halves of each column's sum.
            "8:",
            "addp v0.4s, v0.4s, v1.4s",
            "addp v1.4s, v2.4s, v3.4s",
            "addp v2.4s, v4.4s, v5.4s",
            "addp v3.4s, v6.4s, v7.4s",
            "addp v4.4s, v8.4s, v9.4s",
            "addp v5.4s, v10.4s, v11.4s",
            "addp v6.4s, v12.4s, v13.4s",
            "addp v7.4s, v14.4s, v15.4s",
            "stp q0, q1, [{acc}]",
            "stp q2, q3, [{acc}, #32]",
            "stp q4, q5, [{acc}, #64]",
            "stp q6, q7, [{acc}, #96]",
            row0 = inout(reg) rows => _,
            row1 = inout(reg) rows.add(depth) => _,
            row2 = inout(reg) rows.add(2 * depth) => _,
            row3 = inout(reg) rows.add(3 * depth) => _,
            weights = inout(reg) panel => _,
            notes = inout(reg) panel.add(depth * NR) => _,
            groups = inout(reg) depth / (GROUP * KU) => _,
            left = inout(reg) depth / KU % GROUP => _,
            note = out(reg) _,
            acc = in(reg) acc,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _,
            out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
            out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _,
            out("v29") _, out("v30") _, out("v31") _,
            options(nostack),
        );
    }
}

/// [`Family::requantize_tile`] for tiles of [`NR`] columns.
pub(super) fn requantize_tile(
    acc: &[i32],
    wanted: Wanted,
    bias: &[i32],
    factor: &[f32],
    bounds: Bounds,
    out: &mut [i8],
) {
    let Wanted { rows, columns, stride } = wanted;
    assert!(rows > 0 && acc.len() >= rows * NR && out.len() >= (rows - 1) * stride + columns);
    assert!(bias.len() >= NR && factor.len() >= NR && columns <= NR);
    // SAFETY: every aarch64 processor has NEON; all slices are as long as asserted.
    unsafe {
        let scale = Scale::load(bias.as_ptr(), factor.as_ptr(), bounds);
        let [low, high] = scale.bias;
        let (mut acc, mut out) = (acc.as_ptr(), out.as_mut_ptr());
        let mut eight = || {
            let sums = [vld1q_s32(acc), vld1q_s32(acc.add(4))];
            acc = acc.wrapping_add(NR);
            scale.round([vaddq_s32(sums[0], low), vaddq_s32(sums[1], high)])
        };
        if columns == NR {
            for _ in 0..rows {
                vst1_s8(out, eight());
                out = out.wrapping_add(stride);
            }
            return;
        }
        for _ in 0..rows {
            let mut left = vget_lane_u64::<0>(vreinterpret_u64_s8(eight()));
            let mut to = out;
            if columns & 4 != 0 {
                to.cast::<u32>().write_unaligned(left as u32);
                (to, left) = (to.wrapping_add(4), left >> 32);
            }
            if columns & 2 != 0 {
                to.cast::<u16>().write_unaligned(left as u16);
                (to, left) = (to.wrapping_add(2), left >> 16);
            }
            if columns & 1 != 0 {
                to.write(left as i8);
            }
            out = out.wrapping_add(stride);
        }
    }
}

/// What sums of eight channels start from, and what brings them back to eight bits.
#[derive(Clone, Copy)]
struct Scale {
    bias: [int32x4_t; 2],
    factor: [float32x4_t; 2],
    low: float32x4_t,
    zero_point: int16x8_t,
    high: int8x8_t,
}

impl Scale {
    /// # Safety
    /// `bias` and `factor` point to eight values each.
    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn load(bias: *const i32, factor: *const f32, bounds: Bounds) -> Scale {
        // SAFETY: as the caller promised.
        unsafe {
            Scale {
                bias: [vld1q_s32(bias), vld1q_s32(bias.add(4))],
                factor: [vld1q_f32(factor), vld1q_f32(factor.add(4))],
                low: vdupq_n_f32((bounds.low - bounds.zero_point) as f32),
                zero_point: vdupq_n_s16(bounds.zero_point as i16),
                high: vdup_n_s8(bounds.high as i8),
            }
        }
    }

    /// Sums that hold the bias already, as [`Bounds::round`] has it. FMAXNM makes not-a-number the lower limit. The upper limit may come last, since every
    /// conversion on the way saturates, and none below it: FCVTNS (ties to even) at 2³¹, SQXTN at 2¹⁵, adding the zero
    /// point there too, and SQXTN at 127.
    #[target_feature(enable = "neon")]
    #[inline]
    fn round(&self, sums: [int32x4_t; 2]) -> int8x8_t {
        let four = |half: usize| {
            let scaled = vmulq_f32(vcvtq_f32_s32(sums[half]), self.factor[half]);
            vcvtnq_s32_f32(vmaxnmq_f32(scaled, self.low))
        };
        let narrow = vqmovn_high_s32(vqmovn_s32(four(0)), four(1));
        vmin_s8(vqmovn_s16(vqaddq_s16(narrow, self.zero_point)), self.high)
    }
}

/// [`Family::look_up`]: TBL takes 64 entries of a table at once, and gives zero for what is beyond them.
pub(super) fn look_up(table: &[i8; 256], values: &[i8], out: &mut [i8]) {
    let (from, rest) = values.as_chunks::<16>();
    let (to, last) = out.as_chunks_mut::<16>();
    // SAFETY: every aarch64 processor has NEON; the table has four times 64 entries, each chunk sixteen.
    unsafe {
        let quarter: [int8x16x4_t; 4] = std::array::from_fn(|i| vld1q_s8_x4(table.as_ptr().add(64 * i)));
        for (from, to) in from.iter().zip(to) {
            let index = vreinterpretq_u8_s8(vld1q_s8(from.as_ptr()));
            let beyond = |entries: u8| vsubq_u8(index, vdupq_n_u8(entries));
            let low = vorrq_s8(vqtbl4q_s8(quarter[0], index), vqtbl4q_s8(quarter[1], beyond(64)));
            let high = vorrq_s8(vqtbl4q_s8(quarter[2], beyond(128)), vqtbl4q_s8(quarter[3], beyond(192)));
            vst1q_s8(to.as_mut_ptr(), vorrq_s8(low, high));
        }
    }
    for (to, from) in last.iter_mut().zip(rest) {
        *to = table[usize::from(*from as u8)];
    }
}

/// Where the blocks of a depthwise convolution of `channels`, at least eight, begin, and how many halves of eight channels
/// each has. The last may overlap the one before it: what they share comes out the same twice.
fn blocks(channels: usize) -> impl Iterator<Item = (usize, usize)> {
    let (whole, left) = (channels / 16, channels % 16);
    let last = match left {
        0 => [None, None],
        1..=8 => [Some((channels - 8, 1)), None],
        _ if whole > 0 => [Some((channels - 16, 2)), None],
        _ => [Some((0, 1)), Some((channels - 8, 1))],
    };
    (0..whole)
        .map(|block| (16 * block, 2))
        .chain(last.into_iter().flatten())
}

/// `[block][tap][channel]`, and behind each block how many products may meet. Fewer than eight channels stay as they are.
pub(super) fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8> {
    if channels < 8 {
        return weights.to_vec();
    }
    let mut packed = Vec::new();
    for (first, halves) in blocks(channels) {
        let start = packed.len();
        for tap in weights.chunks_exact(channels) {
            packed.extend_from_slice(&tap[first..first + 8 * halves]);
        }
        packed.push(together::<false>(8 * halves, &packed[start..]));
    }
    packed
}

/// [`Family::depthwise`] with weights from [`pack_depthwise`].
pub(super) fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
    row.check(out);
    let (channels, taps) = (row.channels, row.taps.len());
    if channels < 8 {
        for (i, out) in out.iter_mut().enumerate() {
            *out = row.one(row.weights, i / channels, i % channels);
        }
        return;
    }
    let mut weights = row.weights;
    for (first, halves) in blocks(channels) {
        let (block, rest) = weights.split_at(taps * 8 * halves + 1);
        weights = rest;
        let meet = block[block.len() - 1];
        // SAFETY: every aarch64 processor has NEON; the checks above make the block's channels lie within every tap of
        // every pixel, bias, factor and out, and `block` holds its weights; `meet` is what they allow.
        unsafe {
            match (halves, taps, meet) {
                (_, 9, together::ONE) | (_, ..9, _) | (_, 10.., _) => {
                    let pairs = meet != together::ONE;
                    match halves {
                        1 => any_taps::<1>(row, first, block, pairs, out),
                        _ => any_taps::<2>(row, first, block, pairs, out),
                    }
                }
                (1, 9, _) => nine_taps_of_8(row, first, block, meet == together::FOUR, out),
                (_, 9, _) => nine_taps_of_16(row, first, block, meet == together::FOUR, out),
            }
        }
    }
}

/// The scales of a block.
///
/// # Safety
/// Bias and factor hold 8 × HALVES values from `first` on.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn scales<const HALVES: usize>(row: &DepthwiseRow, first: usize) -> [Scale; HALVES] {
    // SAFETY: as the caller promised.
    std::array::from_fn(|half| unsafe {
        let at = first + 8 * half;
        Scale::load(row.bias.as_ptr().add(at), row.factor.as_ptr().add(at), row.bounds)
    })
}

/// Loads a tap of `{at}` and multiplies, by `smull` or `smlal`: sixteen channels, or eight.
macro_rules! tap {
    (16, $multiply:literal, $tap:literal) => {
        concat!(
            "ldr {a:q}, [{t",
            $tap,
            "}, {at}]\n",
            $multiply,
            " {low:v}.8h, {a:v}.8b, {w",
            $tap,
            ":v}.8b\n",
            $multiply,
            "2 {high:v}.8h, {a:v}.16b, {w",
            $tap,
            ":v}.16b\n",
        )
    };
    (8, $multiply:literal, $tap:literal) => {
        concat!(
            "ldr {a:d}, [{t",
            $tap,
            "}, {at}]\n",
            $multiply,
            " {low:v}.8h, {a:v}.8b, {w",
            $tap,
            ":v}.8b\n",
        )
    };
}

/// Adds the products to the sums, the first ones to the bias.
macro_rules! flush {
    (16, $from:literal) => {
        concat!(
            "saddw {s0:v}.4s, {",
            $from,
            "0:v}.4s, {low:v}.4h\n",
            "saddw2 {s1:v}.4s, {",
            $from,
            "1:v}.4s, {low:v}.8h\n",
            "saddw {s2:v}.4s, {",
            $from,
            "2:v}.4s, {high:v}.4h\n",
            "saddw2 {s3:v}.4s, {",
            $from,
            "3:v}.4s, {high:v}.8h\n",
        )
    };
    (8, $from:literal) => {
        concat!(
            "saddw {s0:v}.4s, {",
            $from,
            "0:v}.4s, {low:v}.4h\n",
            "saddw2 {s1:v}.4s, {",
            $from,
            "1:v}.4s, {low:v}.8h\n",
        )
    };
}

/// Nine taps whose products meet by fours.
macro_rules! by_fours {
    ($width:tt) => {
        concat!(
            tap!($width, "smull", "0"),
            tap!($width, "smlal", "1"),
            tap!($width, "smlal", "2"),
            tap!($width, "smlal", "3"),
            flush!($width, "b"),
            tap!($width, "smull", "4"),
            tap!($width, "smlal", "5"),
            tap!($width, "smlal", "6"),
            tap!($width, "smlal", "7"),
            flush!($width, "s"),
            tap!($width, "smull", "8"),
            flush!($width, "s"),
        )
    };
}

/// Nine taps whose products meet by twos.
macro_rules! by_twos {
    ($width:tt) => {
        concat!(
            tap!($width, "smull", "0"),
            tap!($width, "smlal", "1"),
            flush!($width, "b"),
            tap!($width, "smull", "2"),
            tap!($width, "smlal", "3"),
            flush!($width, "s"),
            tap!($width, "smull", "4"),
            tap!($width, "smlal", "5"),
            flush!($width, "s"),
            tap!($width, "smull", "6"),
            tap!($width, "smlal", "7"),
            flush!($width, "s"),
            tap!($width, "smull", "8"),
            flush!($width, "s"),
        )
    };
}

/// Sixteen channels of all pixels of a 3 × 3 kernel, whose products may meet by twos, or by fours: weights stay in
/// registers.
///
/// # Safety
/// Sixteen channels from `first` on in each of nine taps of every pixel, in bias, factor and out, and in `weights` for each
/// tap.
#[target_feature(enable = "neon")]
unsafe fn nine_taps_of_16(row: &DepthwiseRow, first: usize, weights: &[i8], fours: bool, out: &mut [i8]) {
    // SAFETY: as the caller promised; the assembly reads sixteen bytes at `at` from each tap, else only registers.
    unsafe {
        let w: [int8x16_t; 9] = std::array::from_fn(|tap| vld1q_s8(weights.as_ptr().add(tap * 16)));
        let t: [*const i8; 9] = std::array::from_fn(|tap| row.taps[tap].as_ptr().add(first));
        let scale = scales::<2>(row, first);
        let [[b0, b1], [b2, b3]] = scale.map(|scale| scale.bias);
        macro_rules! sums {
            ($taps:ident, $at:ident) => {{
                let (s0, s1, s2, s3): (int32x4_t, int32x4_t, int32x4_t, int32x4_t);
                asm!(
                    $taps!(16),
                    t0 = in(reg) t[0], t1 = in(reg) t[1], t2 = in(reg) t[2], t3 = in(reg) t[3], t4 = in(reg) t[4],
                    t5 = in(reg) t[5], t6 = in(reg) t[6], t7 = in(reg) t[7], t8 = in(reg) t[8], at = in(reg) $at,
                    w0 = in(vreg) w[0], w1 = in(vreg) w[1], w2 = in(vreg) w[2], w3 = in(vreg) w[3],
                    w4 = in(vreg) w[4], w5 = in(vreg) w[5], w6 = in(vreg) w[6], w7 = in(vreg) w[7],
                    w8 = in(vreg) w[8], b0 = in(vreg) b0, b1 = in(vreg) b1, b2 = in(vreg) b2, b3 = in(vreg) b3,
                    s0 = out(vreg) s0, s1 = out(vreg) s1, s2 = out(vreg) s2, s3 = out(vreg) s3,
                    a = out(vreg) _, low = out(vreg) _, high = out(vreg) _,
                    options(pure, readonly, nostack, preserves_flags),
                );
                [[s0, s1], [s2, s3]]
            }};
        }
        macro_rules! pixels {
            ($taps:ident) => {
                let (mut at, mut to) = (0, out.as_mut_ptr().wrapping_add(first));
                for _ in 0..out.len() / row.channels {
                    let sums = sums!($taps, at);
                    vst1q_s8(to, vcombine_s8(scale[0].round(sums[0]), scale[1].round(sums[1])));
                    at += row.step;
                    to = to.wrapping_add(row.channels);
                }
            };
        }
        if fours {
            pixels!(by_fours);
        } else {
            pixels!(by_twos);
        }
    }
}

/// The same for eight channels.
///
/// # Safety
/// As for [`nine_taps_of_16`], with eight.
#[target_feature(enable = "neon")]
unsafe fn nine_taps_of_8(row: &DepthwiseRow, first: usize, weights: &[i8], fours: bool, out: &mut [i8]) {
    // SAFETY: as the caller promised; the assembly reads eight bytes at `at` from each tap, else only registers.
    unsafe {
        let w: [int8x8_t; 9] = std::array::from_fn(|tap| vld1_s8(weights.as_ptr().add(tap * 8)));
        let t: [*const i8; 9] = std::array::from_fn(|tap| row.taps[tap].as_ptr().add(first));
        let [scale] = scales::<1>(row, first);
        let [b0, b1] = scale.bias;
        macro_rules! sums {
            ($taps:ident, $at:ident) => {{
                let (s0, s1): (int32x4_t, int32x4_t);
                asm!(
                    $taps!(8),
                    t0 = in(reg) t[0], t1 = in(reg) t[1], t2 = in(reg) t[2], t3 = in(reg) t[3], t4 = in(reg) t[4],
                    t5 = in(reg) t[5], t6 = in(reg) t[6], t7 = in(reg) t[7], t8 = in(reg) t[8], at = in(reg) $at,
                    w0 = in(vreg) w[0], w1 = in(vreg) w[1], w2 = in(vreg) w[2], w3 = in(vreg) w[3],
                    w4 = in(vreg) w[4], w5 = in(vreg) w[5], w6 = in(vreg) w[6], w7 = in(vreg) w[7],
                    w8 = in(vreg) w[8], b0 = in(vreg) b0, b1 = in(vreg) b1,
                    s0 = out(vreg) s0, s1 = out(vreg) s1, a = out(vreg) _, low = out(vreg) _,
                    options(pure, readonly, nostack, preserves_flags),
                );
                [s0, s1]
            }};
        }
        macro_rules! pixels {
            ($taps:ident) => {
                let (mut at, mut to) = (0, out.as_mut_ptr().wrapping_add(first));
                for _ in 0..out.len() / row.channels {
                    vst1_s8(to, scale.round(sums!($taps, at)));
                    at += row.step;
                    to = to.wrapping_add(row.channels);
                }
            };
        }
        if fours {
            pixels!(by_fours);
        } else {
            pixels!(by_twos);
        }
    }
}

/// A block of 8 × HALVES channels of all pixels, for any number of taps.
///
/// # Safety
/// The channels from `first` on lie in every tap of every pixel, in bias, factor and out, and in `weights` for each tap;
/// `pairs` only if two products may meet.
#[target_feature(enable = "neon")]
unsafe fn any_taps<const HALVES: usize>(row: &DepthwiseRow, first: usize, weights: &[i8], pairs: bool, out: &mut [i8]) {
    let meet = if pairs { 2 } else { 1 };
    // SAFETY: as the caller promised.
    unsafe {
        let scale = scales::<HALVES>(row, first);
        for pixel in 0..out.len() / row.channels {
            let at = pixel * row.step + first;
            let mut sums = scale.map(|scale| scale.bias);
            for (taps, w) in row.taps.chunks(meet).zip(weights.chunks(meet * 8 * HALVES)) {
                for (half, sums) in sums.iter_mut().enumerate() {
                    let load = |i: usize| {
                        let a = vld1_s8(taps[i].as_ptr().add(at + 8 * half));
                        (a, vld1_s8(w.as_ptr().add(8 * (HALVES * i + half))))
                    };
                    let (a, b) = load(0);
                    let mut products = vmull_s8(a, b);
                    if taps.len() == 2 {
                        let (a, b) = load(1);
                        products = vmlal_s8(products, a, b);
                    }
                    sums[0] = vaddw_s16(sums[0], vget_low_s16(products));
                    sums[1] = vaddw_high_s16(sums[1], products);
                }
            }
            for (half, (scale, sums)) in scale.iter().zip(sums).enumerate() {
                let to = out.as_mut_ptr().add(pixel * row.channels + first + 8 * half);
                vst1_s8(to, scale.round(sums));
            }
        }
    }
}
