//! x86-64 with AVX2: Haswell, Zen and later.
//!
//! Any values go through VPMADDWD, widened to 16 bits: two exact products a lane, summed into 32 bits. Rows without negative
//! values, which is what a ReLU leaves, go through VPMADDUBSW, twice as many at once: its 16-bit sums saturate, but not for
//! 0..=127 × −128..=127 twice, which is at most 2 × 127 × 128 = 32512. Both come to 32 products a cycle on two multipliers; the
//! second takes two thirds of the instructions and half the cache for its rows.

use std::arch::x86_64::*;

use super::super::arithmetic::Bounds;
use super::super::convolution::MAX_TAPS;
use super::super::gemm::{Scratch, Scratches};
use super::{DepthwiseRow, Family, Wanted, Work};

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

    fn requantize(acc: &[i32], bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
        assert!(acc.len() >= NR && bias.len() >= NR && factor.len() >= NR && out.len() <= NR);
        let mut all = [0i8; NR];
        // SAFETY: AVX2 was detected before this family could be chosen; all pointers are to NR values.
        unsafe {
            let (acc, bias, factor) = (acc.as_ptr(), bias.as_ptr(), factor.as_ptr());
            requantize(acc, bias, factor, bounds, all.as_mut_ptr());
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
        for (block, first) in blocks(channels).enumerate() {
            let weights = row.weights[block * per_block..].as_ptr();
            for pixel in 0..out.len() / channels {
                // SAFETY: AVX2 was detected before this family could be chosen; the checks above make BLOCK channels
                // from `first` on lie within every tap of every pixel, bias, factor and out, and a block of weights
                // within `weights`.
                unsafe {
                    let out = out.as_mut_ptr().add(pixel * channels + first);
                    depthwise(row, pairs, pixel * row.step + first, first, weights, out);
                }
            }
        }
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
    const MR: usize = MR;
    const NR: usize = NR;
    const KU: usize = 4;

    fn tile(depth: usize, columns: usize, rows: &[i8], panel: &[i8], acc: &mut [i32]) {
        assert!(depth.is_multiple_of(4));
        assert!(rows.len() >= MR * depth && panel.len() >= depth * NR && acc.len() >= MR * NR);
        // SAFETY: AVX2 was detected before this family could be chosen; the slices are as long as asserted.
        unsafe {
            match columns <= NR / 2 {
                true => tile_non_negative::<1>(depth, rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr()),
                false => tile_non_negative::<2>(depth, rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr()),
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
        Avx2::depthwise(row, out);
    }

    fn compiled<W: Work>(work: W) {
        Avx2::compiled(work);
    }
}

/// A tile of any values.
///
/// # Safety
/// AVX2; `rows` points to MR × depth values, `panel` to depth × NR, `acc` to MR × NR; `depth` is even.
#[target_feature(enable = "avx2")]
unsafe fn tile<const HALVES: usize>(depth: usize, rows: *const i16, panel: *const i8, acc: *mut i32) {
    let mut sums = [[_mm256_setzero_si256(); HALVES]; MR];
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
    // SAFETY: the caller promised MR × NR accumulators.
    unsafe { store(&sums, acc) }
}

/// The same for rows without negative values.
///
/// # Safety
/// AVX2; `rows` points to MR × depth values of 0..=127, `panel` to depth × NR, `acc` to MR × NR; `depth` is a multiple of 4.
#[target_feature(enable = "avx2")]
unsafe fn tile_non_negative<const HALVES: usize>(depth: usize, rows: *const i8, panel: *const i8, acc: *mut i32) {
    let mut sums = [[_mm256_setzero_si256(); HALVES]; MR];
    let ones = _mm256_set1_epi16(1);
    let mut k = 0;
    while k < depth {
        // SAFETY: k + 3 < depth, so all reads stay within what the caller promised.
        unsafe {
            let weights = panel.add(k * NR).cast::<__m256i>();
            let halves = [rows.add(k), rows.add(3 * depth + k)];
            for (r, sum) in sums.iter_mut().enumerate() {
                let four = halves[r / 3].add(r % 3 * depth).cast::<i32>().read_unaligned();
                let four = _mm256_set1_epi32(four);
                for (half, sum) in sum.iter_mut().enumerate() {
                    let pairs = _mm256_maddubs_epi16(four, _mm256_loadu_si256(weights.add(half)));
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        k += 4;
    }
    // SAFETY: the caller promised MR × NR accumulators.
    unsafe { store(&sums, acc) }
}

/// # Safety
/// AVX2; `acc` points to MR × NR values.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) unsafe fn store<const HALVES: usize>(sums: &[[__m256i; HALVES]; MR], acc: *mut i32) {
    for (r, row) in sums.iter().enumerate() {
        for (half, sum) in row.iter().enumerate() {
            // SAFETY: eight of the NR accumulators of row r, of MR.
            unsafe { _mm256_storeu_si256(acc.add(r * NR + 8 * half).cast(), *sum) }
        }
    }
}

/// # Safety
/// AVX2; all pointers are to NR values.
#[target_feature(enable = "avx2")]
unsafe fn requantize(acc: *const i32, bias: *const i32, factor: *const f32, bounds: Bounds, out: *mut i8) {
    // SAFETY: sixteen values, as the caller promised.
    unsafe {
        let sums = [_mm256_loadu_si256(acc.cast()), _mm256_loadu_si256(acc.add(8).cast())];
        round(sums, bias, factor, bounds, out);
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
    for row in 0..rows {
        // SAFETY: row < rows, and the rest is as the caller promised. Inlined, so that what is the same for all rows stays
        // in registers.
        unsafe {
            let acc = acc.add(row * NR);
            let sums = [_mm256_loadu_si256(acc.cast()), _mm256_loadu_si256(acc.add(8).cast())];
            round(sums, bias, factor, bounds, out.add(row * stride));
        }
    }
}

/// Brings sixteen sums back to eight bits.
///
/// # Safety
/// AVX2; all pointers are to sixteen values.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn round(sums: [__m256i; 2], bias: *const i32, factor: *const f32, bounds: Bounds, out: *mut i8) {
    let low = _mm256_set1_ps((bounds.low - bounds.zero_point) as f32);
    let high = _mm256_set1_ps((bounds.high - bounds.zero_point) as f32);
    let zero_point = _mm256_set1_epi32(bounds.zero_point);
    let eight = |half: usize| {
        // SAFETY: half is 0 or 1, of two halves of eight.
        let (bias, factor) = unsafe {
            let bias = _mm256_loadu_si256(bias.add(8 * half).cast());
            (bias, _mm256_loadu_ps(factor.add(8 * half)))
        };
        let sum = _mm256_add_epi32(sums[half], bias);
        let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), factor);
        // The operand order makes not-a-number the lower limit, as the reference does.
        let limited = _mm256_min_ps(_mm256_max_ps(scaled, low), high);
        _mm256_add_epi32(_mm256_cvtps_epi32(limited), zero_point)
    };
    // Packing works within 128-bit halves; the permutation puts the four quarters back in order.
    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(eight(0), eight(1)));
    let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
    // SAFETY: sixteen bytes.
    unsafe { _mm_storeu_si128(out.cast(), bytes) }
}

/// Channels a depthwise block holds.
const BLOCK: usize = 16;

/// Where the blocks of `channels`, at least [`BLOCK`], begin. The last may overlap the one before it: what they share comes
/// out the same twice.
fn blocks(channels: usize) -> impl Iterator<Item = usize> {
    (0..channels.div_ceil(BLOCK)).map(move |block| (block * BLOCK).min(channels - BLOCK))
}

/// Sixteen channels of one pixel.
///
/// # Safety
/// AVX2; sixteen values from `at` in every tap of `pairs`, from `first` in bias and factor, and at `out`; 32 weights at
/// `weights` for every pair of taps.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn depthwise(
    row: &DepthwiseRow,
    pairs: &[[*const i8; 2]],
    at: usize,
    first: usize,
    mut weights: *const i8,
    out: *mut i8,
) {
    let mut sums = [_mm256_setzero_si256(); 2];
    // SAFETY: as the caller promised; weights move on by 32 for each pair.
    unsafe {
        let load = |from: *const i8| _mm_loadu_si128(from.cast());
        for [a, b] in pairs {
            let (a, b) = (load(a.add(at)), load(b.add(at)));
            let low = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b));
            let high = _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(a, b));
            let (w_low, w_high) = (load(weights), load(weights.add(16)));
            sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(low, _mm256_cvtepi8_epi16(w_low)));
            sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(high, _mm256_cvtepi8_epi16(w_high)));
            weights = weights.add(2 * BLOCK);
        }
        round(
            sums,
            row.bias.as_ptr().add(first),
            row.factor.as_ptr().add(first),
            row.bounds,
            out,
        );
    }
}
