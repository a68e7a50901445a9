//! Depthwise convolutions, sixteen channels at a time.

use std::arch::x86_64::*;

use super::super::super::layout::{DepthwiseRow, MAX_TAPS};
use super::super::requantize_s32::avx2::Limits;

/// Channels of a block.
const BLOCK: usize = 16;

/// The first channel of each block, for at least [`BLOCK`] channels. The last block may overlap the one before it: the shared
/// channels are computed twice, with the same result.
fn blocks(channels: usize) -> impl Iterator<Item = usize> {
    (0..channels.div_ceil(BLOCK)).map(move |block| (block * BLOCK).min(channels - BLOCK))
}

/// Packs weights as `[block][pair of taps][channel of 16][tap of the pair]`. Fewer than 16 channels stay unpacked.
pub fn pack(weights: &[i8], channels: usize) -> Vec<i8> {
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

/// Computes one block of channels of all pixels of a row: [`any`] or [`non_negative`].
type ComputeBlock = unsafe fn(&DepthwiseRow, &[[*const i8; 2]], Block, *mut i8);

/// [`Microkernels::depthwise`](super::super::Microkernels::depthwise), block by block.
#[inline(always)]
pub fn row(row: &DepthwiseRow, out: &mut [i8], compute_block: ComputeBlock) {
    row.check(out);
    let (channels, taps) = (row.channels, row.taps.len());
    if channels < BLOCK {
        for (i, out) in out.iter_mut().enumerate() {
            *out = row.scalar(row.weights, i / channels, i % channels);
        }
        return;
    }
    let per_block = taps.div_ceil(2) * 2 * BLOCK;
    assert!(taps <= MAX_TAPS && row.weights.len() >= channels.div_ceil(BLOCK) * per_block);
    // An odd last tap is paired with itself; the second weight of that pair is zero.
    let mut pairs = [[std::ptr::null(); 2]; MAX_TAPS.div_ceil(2)];
    for (pair, taps) in pairs.iter_mut().zip(row.taps.chunks(2)) {
        *pair = [taps[0].as_ptr(), taps[taps.len() - 1].as_ptr()];
    }
    let pairs = &pairs[..taps.div_ceil(2)];
    for (i, first) in blocks(channels).enumerate() {
        let block = Block {
            first,
            pixels: out.len() / channels,
            weights: row.weights[i * per_block..].as_ptr(),
        };
        // SAFETY: `Isa` detected AVX2. By the checks above, BLOCK channels from `first` on lie within every tap of every pixel,
        // bias, factor and out, and the block's weights lie within `row.weights`.
        unsafe { compute_block(row, pairs, block, out.as_mut_ptr()) }
    }
}

/// Sixteen channels of a row of pixels.
#[derive(Clone, Copy)]
pub struct Block {
    first: usize,
    pixels: usize,
    weights: *const i8,
}

/// For any s8 values.
///
/// # Safety
/// The processor has AVX2; the block's channels lie within every tap of `pairs` at all pixels, within bias and factor, and within
/// `out`; the block has 32 weights for every pair of taps.
#[target_feature(enable = "avx2")]
pub unsafe fn any(row: &DepthwiseRow, pairs: &[[*const i8; 2]], block: Block, out: *mut i8) {
    let limits = Limits::of(row.bounds);
    // SAFETY: the caller promises the block's channels in taps, bias, factor and out; `weights` advances by 32 for each pair.
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

/// For values of 0..=127: two pixels at once, one in each half of the registers.
///
/// # Safety
/// As for [`any`]. (A negative value would give a wrong sum, but no invalid access.)
#[target_feature(enable = "avx2")]
pub unsafe fn non_negative(row: &DepthwiseRow, pairs: &[[*const i8; 2]], block: Block, out: *mut i8) {
    let limits = Limits::of(row.bounds);
    let (ones, zero) = (_mm256_set1_epi16(1), _mm256_setzero_si256());
    let first = block.first;
    // SAFETY: the caller promises the block's channels in taps, bias, factor and out; `weights` advances by 32 for each pair.
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
            // The products of a pair of taps, added: for the first and the last eight channels.
            let pairwise_multiply_add = |[a, b]: [*const i8; 2], weights: *const i8| {
                let (a, b) = (load(a), load(b));
                [
                    _mm256_maddubs_epi16(_mm256_unpacklo_epi8(a, b), twice(weights)),
                    _mm256_maddubs_epi16(_mm256_unpackhi_epi8(a, b), twice(weights.add(BLOCK))),
                ]
            };
            let (mut sums, mut weights) = (bias, block.weights);
            let (fours, rest) = pairs.as_chunks();
            for [ab, cd] in fours {
                let [ab_low, ab_high] = pairwise_multiply_add(*ab, weights);
                let [cd_low, cd_high] = pairwise_multiply_add(*cd, weights.add(2 * BLOCK));
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
                let [low, high] = pairwise_multiply_add(*ab, weights);
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
            // Packing works within 128-bit halves, which undoes the interleaving.
            let words = [limits.words(four(0), four(1)), limits.words(four(2), four(3))];
            let bytes = _mm256_packs_epi16(words[0], words[1]);
            let out = out.add(pixel * row.channels + first);
            let write = |out: *mut i8, bytes| _mm_storeu_si128(out.cast(), _mm_max_epi8(bytes, limits.low));
            write(out, _mm256_castsi256_si128(bytes));
            if two {
                write(out.add(row.channels), _mm256_extracti128_si256::<1>(bytes));
            }
            pixel += 2;
        }
    }
}
