//! x86-64 with AVX2: Haswell, Zen and later.
//!
//! Any values go through VPMADDWD, widened to 16 bits: two exact products a lane, summed into 32 bits. Rows without negative
//! values, which is what a ReLU leaves, go through VPMADDUBSW, twice as many at once: its 16-bit sums saturate, but not for
//! 0..=127 × −128..=127 twice, which is at most 2 × 127 × 128 = 32512. Both come to 32 products a cycle on two multipliers, half
//! of the second's multiplications being by one, to widen. Trained weights are mostly small: where they are, two or four such
//! sums are added before they are widened, for 43 or 51 products a cycle. Which can be is noted when the weights are packed.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::arithmetic::Bounds;
use super::super::convolution::MAX_TAPS;
use super::super::gemm::{Scratch, Scratches};
use super::{DepthwiseRow, Family, Requantization, Wanted, Work};

pub struct Avx2;

pub(super) const MR: usize = 6;
pub(super) const NR: usize = 16;

impl Family for Avx2 {
    type Lane = i16;
    type NonNegative = Avx2NonNegative;
    const MR: usize = MR;
    const NR: usize = NR;
    const KU: usize = 2;

    fn tile(depth: usize, columns: usize, rows: &[i16], panel: &[i8], acc: &mut [i32]) {
        assert!(depth.is_multiple_of(2));
        assert!(rows.len() >= MR * depth && panel.len() >= depth * NR && acc.len() >= MR * NR);
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
        rows: &[i16],
        panel: &[i8],
        _acc: &mut [i32],
        wanted: Wanted,
        to: &Requantization,
        out: &mut [i8],
    ) {
        assert!(depth.is_multiple_of(2));
        assert!(rows.len() >= MR * depth && panel.len() >= depth * NR);
        check_results(wanted, to, out);
        // SAFETY: AVX2 was detected before this family could be chosen; the slices are as long as asserted.
        unsafe {
            match wanted.columns <= NR / 2 {
                true => quantized_tile::<1>(depth, rows.as_ptr(), panel.as_ptr(), wanted, to, out.as_mut_ptr()),
                false => quantized_tile::<2>(depth, rows.as_ptr(), panel.as_ptr(), wanted, to, out.as_mut_ptr()),
            }
        }
    }

    fn requantize(acc: &[i32], bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
        assert!(acc.len() >= NR && bias.len() >= NR && factor.len() >= NR && out.len() <= NR);
        let mut all = [0i8; NR];
        // SAFETY: AVX2 was detected before this family could be chosen; all pointers are to NR values.
        unsafe {
            let (acc, bias, factor) = (acc.as_ptr(), bias.as_ptr(), factor.as_ptr());
            requantize_rows(acc, 1, NR, bias, factor, bounds, all.as_mut_ptr());
        }
        match <&mut [i8; NR]>::try_from(&mut *out) {
            Ok(out) => *out = all,
            Err(_) => out.copy_from_slice(&all[..out.len()]),
        }
    }

    fn requantize_tile(acc: &[i32], wanted: Wanted, bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
        let Wanted { rows, columns, stride } = wanted;
        if columns < NR {
            for (acc, out) in acc.chunks_exact(NR).take(rows).zip(out.chunks_mut(stride)) {
                Self::requantize(acc, bias, factor, bounds, &mut out[..columns]);
            }
            return;
        }
        assert!(acc.len() >= rows * NR && bias.len() >= NR && factor.len() >= NR);
        assert!(rows > 0 && out.len() >= (rows - 1) * stride + NR);
        // SAFETY: AVX2 was detected before this family could be chosen; the slices are as long as asserted.
        unsafe {
            let (bias, factor) = (bias.as_ptr(), factor.as_ptr());
            requantize_rows(acc.as_ptr(), rows, stride, bias, factor, bounds, out.as_mut_ptr());
        }
    }

    fn scratch(scratches: &mut Scratches) -> &mut Scratch<i16> {
        &mut scratches.wide
    }

    /// `[block][pair of taps][channel of 16][tap of the pair]`. The last block may overlap the one before it; fewer than 16
    /// channels stay as they are.
    fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8> {
        if channels < BLOCK {
            return weights.to_vec();
        }
        let taps = weights.len() / channels;
        let weight = |tap: usize, c: usize| if tap < taps { weights[tap * channels + c] } else { 0 };
        blocks(channels)
            .flat_map(|first| (0..taps.div_ceil(2)).map(move |pair| (first, pair)))
            .flat_map(|(first, pair)| (0..2 * BLOCK).map(move |i| (first + i / 2, 2 * pair + i % 2)))
            .map(|(c, tap)| weight(tap, c))
            .collect()
    }

    fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
        depthwise_row(row, out, depthwise);
    }

    fn compiled<W: Work>(work: W) {
        #[target_feature(enable = "avx2")]
        fn call<W: Work>(work: W) {
            work.run();
        }
        // SAFETY: AVX2 was detected before this family could be chosen.
        unsafe { call(work) }
    }
}

/// For rows of 0..=127.
pub struct Avx2NonNegative;

impl Family for Avx2NonNegative {
    type Lane = i8;
    type NonNegative = Avx2NonNegative;
    const MR: usize = FEW;
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
        check_non_negative(depth, rows, panel);
        assert!(acc.len() >= FEW * NR);
        // SAFETY: AVX2 was detected before this family could be chosen; the slices are as long as asserted.
        unsafe {
            match columns <= NR / 2 {
                true => tile_non_negative::<1>(depth, rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr()),
                false => tile_non_negative::<2>(depth, rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr()),
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
        check_non_negative(depth, rows, panel);
        check_results(wanted, to, out);
        let (rows, panel, out) = (rows.as_ptr(), panel.as_ptr(), out.as_mut_ptr());
        // SAFETY: AVX2 was detected before this family could be chosen; the slices are as long as asserted.
        unsafe {
            match wanted.columns <= NR / 2 {
                true => quantized_tile_non_negative::<1>(depth, rows, panel, wanted, to, out),
                false => quantized_tile_non_negative::<2>(depth, rows, panel, wanted, to, out),
            }
        }
    }

    fn scratch(scratches: &mut Scratches) -> &mut Scratch<i8> {
        &mut scratches.narrow
    }

    fn requantize(acc: &[i32], bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
        Avx2::requantize(acc, bias, factor, bounds, out);
    }

    fn requantize_tile(acc: &[i32], wanted: Wanted, bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
        Avx2::requantize_tile(acc, wanted, bias, factor, bounds, out);
    }

    fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8> {
        Avx2::pack_depthwise(weights, channels)
    }

    fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
        depthwise_row(row, out, depthwise_non_negative);
    }

    fn compiled<W: Work>(work: W) {
        Avx2::compiled(work);
    }
}

/// Depths that one column keeps together where rows have no negative values.
const KU: usize = 4;
/// Depths that share a note.
const GROUP: usize = 4 * KU;
/// Rows of a tile without negative values: weights of four steps and what is summed with them take the other registers.
const FEW: usize = 4;

fn check_non_negative(depth: usize, rows: &[i8], panel: &[i8]) {
    assert!(depth.is_multiple_of(KU));
    assert!(rows.len() >= FEW * depth && panel.len() >= depth * NR + Avx2NonNegative::notes(depth));
}

fn check_results(wanted: Wanted, to: &Requantization, out: &[i8]) {
    let Wanted { rows, columns, stride } = wanted;
    assert!(to.bias.len() >= NR && to.factor.len() >= NR);
    assert!(rows > 0 && columns <= NR && out.len() >= (rows - 1) * stride + columns);
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

/// Sums of a tile of any values, from `start` on.
///
/// # Safety
/// AVX2; `rows` points to MR × depth values, `panel` to depth × NR; `depth` is even.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn sums<const HALVES: usize>(
    depth: usize,
    rows: *const i16,
    panel: *const i8,
    start: [__m256i; HALVES],
) -> [[__m256i; HALVES]; MR] {
    let mut sums = [start; MR];
    let mut k = 0;
    while k < depth {
        // SAFETY: k + 1 < depth, so all reads stay within what the caller promised.
        unsafe {
            let weights = panel.add(k * NR).cast::<__m128i>();
            let weights: [__m256i; HALVES] =
                std::array::from_fn(|half| _mm256_cvtepi8_epi16(_mm_loadu_si128(weights.add(half))));
            // Two pointers and one stride reach six rows without an addition for each.
            let halves = [rows.add(k), rows.add(3 * depth + k)];
            for (r, sum) in sums.iter_mut().enumerate() {
                let pair = halves[r / 3].add(r % 3 * depth).cast::<i32>().read_unaligned();
                let pair = _mm256_set1_epi32(pair);
                for (sum, weights) in sum.iter_mut().zip(weights) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pair, weights));
                }
            }
        }
        k += 2;
    }
    sums
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

/// The same for rows without negative values.
///
/// # Safety
/// AVX2; `rows` points to FEW × depth values of 0..=127, `panel` to depth × NR and its notes; `depth` is a multiple of KU.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn sums_non_negative<const HALVES: usize>(
    depth: usize,
    rows: *const i8,
    panel: *const i8,
    start: [__m256i; HALVES],
) -> [[__m256i; HALVES]; FEW] {
    let mut sums = [start; FEW];
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

/// # Safety
/// As for [`sums`], and `acc` points to MR × NR.
#[target_feature(enable = "avx2")]
unsafe fn tile<const HALVES: usize>(depth: usize, rows: *const i16, panel: *const i8, acc: *mut i32) {
    // SAFETY: as the caller promised.
    unsafe { store(&sums(depth, rows, panel, [_mm256_setzero_si256(); HALVES]), acc) }
}

/// # Safety
/// As for [`sums_non_negative`], and `acc` points to FEW × NR.
#[target_feature(enable = "avx2")]
unsafe fn tile_non_negative<const HALVES: usize>(depth: usize, rows: *const i8, panel: *const i8, acc: *mut i32) {
    // SAFETY: as the caller promised.
    unsafe {
        store(
            &sums_non_negative(depth, rows, panel, [_mm256_setzero_si256(); HALVES]),
            acc,
        )
    }
}

/// # Safety
/// As for [`sums`]; bias and factor hold NR values, and there is room at `out` for what is wanted.
#[target_feature(enable = "avx2")]
unsafe fn quantized_tile<const HALVES: usize>(
    depth: usize,
    rows: *const i16,
    panel: *const i8,
    wanted: Wanted,
    to: &Requantization,
    out: *mut i8,
) {
    // SAFETY: as the caller promised.
    unsafe { put(&sums::<HALVES>(depth, rows, panel, bias(to)), wanted, to, out) }
}

/// # Safety
/// As for [`sums_non_negative`]; bias and factor hold NR values, and there is room at `out` for what is wanted.
#[target_feature(enable = "avx2")]
unsafe fn quantized_tile_non_negative<const HALVES: usize>(
    depth: usize,
    rows: *const i8,
    panel: *const i8,
    wanted: Wanted,
    to: &Requantization,
    out: *mut i8,
) {
    // SAFETY: as the caller promised.
    unsafe {
        put(
            &sums_non_negative::<HALVES>(depth, rows, panel, bias(to)),
            wanted,
            to,
            out,
        )
    }
}

/// # Safety
/// AVX2; there are NR biases.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn bias<const HALVES: usize>(to: &Requantization) -> [__m256i; HALVES] {
    // SAFETY: as the caller promised.
    std::array::from_fn(|half| unsafe { _mm256_loadu_si256(to.bias.as_ptr().add(8 * half).cast()) })
}

/// # Safety
/// AVX2; `acc` points to ROWS × NR values.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) unsafe fn store<const ROWS: usize, const HALVES: usize>(sums: &[[__m256i; HALVES]; ROWS], acc: *mut i32) {
    for (r, row) in sums.iter().enumerate() {
        for (half, sum) in row.iter().enumerate() {
            // SAFETY: eight of the NR accumulators of row r, of ROWS.
            unsafe { _mm256_storeu_si256(acc.add(r * NR + 8 * half).cast(), *sum) }
        }
    }
}

/// Brings what is wanted of a tile, bias included, back to eight bits.
///
/// # Safety
/// AVX2; factor holds NR values; there is room at `out`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn put<const ROWS: usize, const HALVES: usize>(
    sums: &[[__m256i; HALVES]; ROWS],
    wanted: Wanted,
    to: &Requantization,
    out: *mut i8,
) {
    let (limits, factor) = (Limits::of(to.bounds), to.factor.as_ptr());
    for (r, sums) in sums.iter().enumerate().take(wanted.rows) {
        // SAFETY: as the caller promised.
        unsafe {
            let out = out.add(r * wanted.stride);
            // Half a tile's other half is not wanted.
            let bytes = limits.round([sums[0], sums[HALVES - 1]], factor);
            if wanted.columns == NR {
                _mm_storeu_si128(out.cast(), bytes);
            } else {
                let mut all = [0i8; NR];
                _mm_storeu_si128(all.as_mut_ptr().cast(), bytes);
                out.copy_from_nonoverlapping(all.as_ptr(), wanted.columns);
            }
        }
    }
}

/// # Safety
/// AVX2; `acc` points to `rows` rows of NR sums, bias and factor to NR values; every `stride` from `out` there is room for NR.
#[target_feature(enable = "avx2")]
unsafe fn requantize_rows(
    acc: *const i32,
    rows: usize,
    stride: usize,
    bias: *const i32,
    factor: *const f32,
    bounds: Bounds,
    out: *mut i8,
) {
    let limits = Limits::of(bounds);
    for row in 0..rows {
        // SAFETY: row < rows, and the rest is as the caller promised. Inlined, so that what is the same for all rows stays
        // in registers.
        unsafe {
            let eight = |half: usize| {
                let load = |from: *const i32| _mm256_loadu_si256(from.add(8 * half).cast());
                _mm256_add_epi32(load(acc.add(row * NR)), load(bias))
            };
            let bytes = limits.round([eight(0), eight(1)], factor);
            _mm_storeu_si128(out.add(row * stride).cast(), bytes);
        }
    }
}

/// [`Bounds`], as [`Limits::round`] needs them.
#[derive(Clone, Copy)]
struct Limits {
    /// The greatest result before the zero point is added.
    high: __m256,
    zero_point: __m256i,
    low: __m128i,
}

impl Limits {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn of(bounds: Bounds) -> Limits {
        Limits {
            high: _mm256_set1_ps((bounds.high - bounds.zero_point) as f32),
            zero_point: _mm256_set1_epi16(bounds.zero_point as i16),
            low: _mm_set1_epi8(bounds.low as i8),
        }
    }

    /// Brings sixteen sums, bias included, back to eight bits.
    ///
    /// # Safety
    /// AVX2; `factor` points to sixteen values.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn round(self, sums: [__m256i; 2], factor: *const f32) -> __m128i {
        let eight = |half: usize| {
            // SAFETY: half is 0 or 1, of two halves of eight.
            let factor = unsafe { _mm256_loadu_ps(factor.add(8 * half)) };
            self.round_eight(sums[half], factor)
        };
        // Packing works within 128-bit halves; the permutation puts the four quarters back in order.
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(self.words(eight(0), eight(1)));
        let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
        _mm_max_epi8(bytes, self.low)
    }

    /// Not a number, and what is far below, becomes the least integer, which the rest brings to the lower limit: packing and
    /// the addition of the zero point saturate. Above, that would not do: what is too large to convert becomes the least, too.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn round_eight(self, sums: __m256i, factor: __m256) -> __m256i {
        let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), factor);
        // The operand order keeps not-a-number.
        _mm256_cvtps_epi32(_mm256_min_ps(self.high, scaled))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn words(self, a: __m256i, b: __m256i) -> __m256i {
        _mm256_adds_epi16(_mm256_packs_epi32(a, b), self.zero_point)
    }
}

/// Channels a depthwise block holds.
const BLOCK: usize = 16;

/// Where the blocks of `channels`, at least [`BLOCK`], begin. The last may overlap the one before it: what they share comes
/// out the same twice.
fn blocks(channels: usize) -> impl Iterator<Item = usize> {
    (0..channels.div_ceil(BLOCK)).map(move |block| (block * BLOCK).min(channels - BLOCK))
}

/// Computes all pixels, block by block, with `block`.
#[inline(always)]
fn depthwise_row(
    row: &DepthwiseRow,
    out: &mut [i8],
    block: unsafe fn(&DepthwiseRow, &[[*const i8; 2]], Block, *mut i8),
) {
    row.check(out);
    let (channels, taps) = (row.channels, row.taps.len());
    if channels < BLOCK {
        for (i, out) in out.iter_mut().enumerate() {
            *out = row.one(row.weights, i / channels, i % channels);
        }
        return;
    }
    let per_block = taps.div_ceil(2) * 2 * BLOCK;
    assert!(taps <= MAX_TAPS && row.weights.len() >= channels.div_ceil(BLOCK) * per_block);
    // Without a second tap, the last pair takes the first one twice: its second weight is zero.
    let mut pairs = [[std::ptr::null(); 2]; MAX_TAPS.div_ceil(2)];
    for (pair, taps) in pairs.iter_mut().zip(row.taps.chunks(2)) {
        *pair = [taps[0].as_ptr(), taps[taps.len() - 1].as_ptr()];
    }
    let pairs = &pairs[..taps.div_ceil(2)];
    for (i, first) in blocks(channels).enumerate() {
        let of = Block {
            first,
            pixels: out.len() / channels,
            weights: row.weights[i * per_block..].as_ptr(),
        };
        // SAFETY: AVX2 was detected before this family could be chosen; the checks above make BLOCK channels from `first` on
        // lie within every tap of every pixel, bias, factor and out, and a block of weights within `weights`.
        unsafe { block(row, pairs, of, out.as_mut_ptr()) }
    }
}

/// Sixteen channels of a row of pixels.
#[derive(Clone, Copy)]
struct Block {
    first: usize,
    pixels: usize,
    weights: *const i8,
}

/// # Safety
/// AVX2; the block's channels lie within every tap of `pairs` at all pixels, in bias and factor, and in `out`; there are 32 weights
/// for every pair of taps.
#[target_feature(enable = "avx2")]
unsafe fn depthwise(row: &DepthwiseRow, pairs: &[[*const i8; 2]], block: Block, out: *mut i8) {
    let limits = Limits::of(row.bounds);
    // SAFETY: as the caller promised; weights move on by 32 for each pair.
    unsafe {
        let load = |from: *const i8| _mm_loadu_si128(from.cast());
        let bias: [__m256i; 2] =
            std::array::from_fn(|half| _mm256_loadu_si256(row.bias.as_ptr().add(block.first + 8 * half).cast()));
        for pixel in 0..block.pixels {
            let at = pixel * row.step + block.first;
            let (mut sums, mut weights) = (bias, block.weights);
            for [a, b] in pairs {
                let (a, b) = (load(a.add(at)), load(b.add(at)));
                let low = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b));
                let high = _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(a, b));
                let (w_low, w_high) = (load(weights), load(weights.add(16)));
                sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(low, _mm256_cvtepi8_epi16(w_low)));
                sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(high, _mm256_cvtepi8_epi16(w_high)));
                weights = weights.add(2 * BLOCK);
            }
            let bytes = limits.round(sums, row.factor.as_ptr().add(block.first));
            _mm_storeu_si128(out.add(pixel * row.channels + block.first).cast(), bytes);
        }
    }
}

/// The same without negative values: two pixels at once, one in each half of the registers.
///
/// # Safety
/// As for [`depthwise`], and no value under the taps is negative.
#[target_feature(enable = "avx2")]
unsafe fn depthwise_non_negative(row: &DepthwiseRow, pairs: &[[*const i8; 2]], block: Block, out: *mut i8) {
    let limits = Limits::of(row.bounds);
    let (ones, zero) = (_mm256_set1_epi16(1), _mm256_setzero_si256());
    let first = block.first;
    // SAFETY: as the caller promised; weights move on by 32 for each pair.
    unsafe {
        let twice = |from: *const i8| _mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast()));
        let bias: [__m256i; 4] = std::array::from_fn(|i| twice(row.bias.as_ptr().add(first + 4 * i).cast()));
        let factor: [__m256; 4] =
            std::array::from_fn(|i| _mm256_castsi256_ps(twice(row.factor.as_ptr().add(first + 4 * i).cast())));
        let mut pixel = 0;
        while pixel < block.pixels {
            let two = pixel + 1 < block.pixels;
            let at = pixel * row.step + first;
            let next = if two { row.step } else { 0 };
            let load = |tap: *const i8| {
                let tap = tap.add(at);
                let (this, next) = (_mm_loadu_si128(tap.cast()), _mm_loadu_si128(tap.add(next).cast()));
                _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(this), next)
            };
            // Sums of a pair of taps, for the first and the last eight channels.
            let products = |[a, b]: [*const i8; 2], weights: *const i8| {
                let (a, b) = (load(a), load(b));
                [
                    _mm256_maddubs_epi16(_mm256_unpacklo_epi8(a, b), twice(weights)),
                    _mm256_maddubs_epi16(_mm256_unpackhi_epi8(a, b), twice(weights.add(BLOCK))),
                ]
            };
            let (mut sums, mut weights) = (bias, block.weights);
            let (fours, rest) = pairs.as_chunks();
            for [ab, cd] in fours {
                let [ab_low, ab_high] = products(*ab, weights);
                let [cd_low, cd_high] = products(*cd, weights.add(2 * BLOCK));
                let quarters = [
                    _mm256_unpacklo_epi16(ab_low, cd_low),
                    _mm256_unpackhi_epi16(ab_low, cd_low),
                    _mm256_unpacklo_epi16(ab_high, cd_high),
                    _mm256_unpackhi_epi16(ab_high, cd_high),
                ];
                for (sum, quarter) in sums.iter_mut().zip(quarters) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(quarter, ones));
                }
                weights = weights.add(4 * BLOCK);
            }
            for ab in rest {
                let [low, high] = products(*ab, weights);
                let quarters = [
                    _mm256_unpacklo_epi16(low, zero),
                    _mm256_unpackhi_epi16(low, zero),
                    _mm256_unpacklo_epi16(high, zero),
                    _mm256_unpackhi_epi16(high, zero),
                ];
                for (sum, quarter) in sums.iter_mut().zip(quarters) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(quarter, ones));
                }
            }
            let four = |i: usize| limits.round_eight(sums[i], factor[i]);
            // Packing works within the same halves and undoes the interleaving.
            let words = [limits.words(four(0), four(1)), limits.words(four(2), four(3))];
            let bytes = _mm256_packs_epi16(words[0], words[1]);
            let out = out.add(pixel * row.channels + first);
            let put = |out: *mut i8, bytes| _mm_storeu_si128(out.cast(), _mm_max_epi8(bytes, limits.low));
            put(out, _mm256_castsi256_si128(bytes));
            if two {
                put(out.add(row.channels), _mm256_extracti128_si256::<1>(bytes));
            }
            pixel += 2;
        }
    }
}
