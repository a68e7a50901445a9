//! Depthwise convolutions, 64 channels and four taps at a time, by VPDPBUSD.

use std::arch::x86_64::*;

use super::super::super::layout::{DepthwiseRow, MAX_TAPS};
use super::super::requantize_s32::avx512_vnni::{Limits, mask_of_first};
use super::super::vnni::{KR, column_sum, column_sums_bytes};

/// Channels of a block.
const BLOCK: usize = 64;

/// Interleaving the bytes and then the words of four registers works within 128-bit quarters. It leaves four registers, each with
/// four channels of every quarter. This is the channel at position `i` of the four registers.
fn interleaved_channel(i: usize) -> usize {
    i / 16 * 4 + i / 4 % 4 * 16 + i % 4
}

fn block_bytes(taps: usize) -> usize {
    taps.div_ceil(KR) * KR * BLOCK + column_sums_bytes(BLOCK)
}

/// Packs weights as `[block of channels][four taps][channel in the order of interleaved_channel][tap of the four]`. Behind each
/// block are its column sums, in the same order of channels.
pub fn pack(weights: &[i8], channels: usize) -> Vec<i8> {
    let taps = weights.len() / channels.max(1);
    let weight = |tap: usize, c: usize| {
        if tap < taps && c < channels {
            weights[tap * channels + c]
        } else {
            0
        }
    };
    let mut packed = Vec::new();
    for first in (0..channels).step_by(BLOCK) {
        for four in (0..taps).step_by(KR) {
            packed.extend((0..KR * BLOCK).map(|i| weight(four + i % KR, first + interleaved_channel(i / KR))));
        }
        for i in 0..BLOCK {
            let sum = column_sum((0..taps).map(|tap| weight(tap, first + interleaved_channel(i))));
            packed.extend(sum.to_ne_bytes().map(|byte| byte as i8));
        }
    }
    packed
}

/// [`Microkernels::depthwise`](super::super::Microkernels::depthwise).
pub fn row(row: &DepthwiseRow, out: &mut [i8]) {
    row.check(out);
    let taps = row.taps.len();
    assert!(taps <= MAX_TAPS);
    assert!(row.weights.len() >= row.channels.div_ceil(BLOCK) * block_bytes(taps));
    // The last four taps are completed with the first tap; the weights there are zero.
    let mut fours = [[row.taps[0].as_ptr(); KR]; MAX_TAPS.div_ceil(KR)];
    for (pointer, tap) in fours.as_flattened_mut().iter_mut().zip(row.taps) {
        *pointer = tap.as_ptr();
    }
    let fours = &fours[..taps.div_ceil(KR)];
    for first in (0..row.channels).step_by(BLOCK) {
        // SAFETY: `Isa` detected AVX-512 VNNI. By the checks above, all channels lie within every tap of every pixel, bias,
        // factor and out, and all blocks of weights lie within `row.weights`.
        unsafe { block(row, fours, first, out) }
    }
}

/// All pixels of one block: 64 channels from `first` on, or as many as are left.
///
/// # Safety
/// The processor has AVX-512 VNNI; all channels of every pixel lie within every tap and within `out`; bias and factor hold all
/// channels, and the weights all blocks; `first` is the first channel of a block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn block(row: &DepthwiseRow, fours: &[[*const i8; KR]], first: usize, out: &mut [i8]) {
    let count = BLOCK.min(row.channels - first);
    let mask = mask_of_first(count);
    let limits = Limits::of(row.bounds);
    let offset = _mm512_set1_epi8(-128);
    // SAFETY: the masks limit every access to the channels that exist, and the caller promises those; the weights and column sums
    // of a whole block exist.
    unsafe {
        let weights = row.weights.as_ptr().add(first / BLOCK * block_bytes(fours.len() * KR));
        let load = |at: usize| _mm512_loadu_si512(weights.add(at * BLOCK).cast());
        let quarter = |i: usize| {
            (
                mask_of_first(count.saturating_sub(16 * i).max(1)) as __mmask16,
                first + 16 * i,
            )
        };
        let bias = transpose_quarters(std::array::from_fn(|i| match quarter(i) {
            (mask, at) if at < row.channels => _mm512_maskz_loadu_epi32(mask, row.bias.as_ptr().add(at)),
            _ => _mm512_setzero_si512(),
        }));
        let factor = transpose_quarters(std::array::from_fn(|i| match quarter(i) {
            (mask, at) if at < row.channels => {
                _mm512_castps_si512(_mm512_maskz_loadu_ps(mask, row.factor.as_ptr().add(at)))
            }
            _ => _mm512_setzero_si512(),
        }));
        let start: [__m512i; 4] = std::array::from_fn(|i| _mm512_add_epi32(load(fours.len() * KR + i), bias[i]));
        for pixel in 0..out.len() / row.channels {
            let at = pixel * row.step + first;
            let mut sums = start;
            for (four, taps) in fours.iter().enumerate() {
                let [a, b, c, d] = taps.map(|tap| _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, tap.add(at)), offset));
                let pairs = [
                    [_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d)],
                    [_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d)],
                ];
                for (i, [ab, cd]) in pairs.into_iter().enumerate() {
                    let (low, high) = (_mm512_unpacklo_epi16(ab, cd), _mm512_unpackhi_epi16(ab, cd));
                    sums[2 * i] = _mm512_dpbusd_epi32(sums[2 * i], low, load(KR * four + 2 * i));
                    sums[2 * i + 1] = _mm512_dpbusd_epi32(sums[2 * i + 1], high, load(KR * four + 2 * i + 1));
                }
            }
            let [a, b, c, d]: [__m512i; 4] =
                std::array::from_fn(|i| limits.round(sums[i], _mm512_castsi512_ps(factor[i])));
            // Packing works within 128-bit quarters, which undoes the interleaving.
            let bytes = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            _mm512_mask_storeu_epi8(out.as_mut_ptr().add(pixel * row.channels + first), mask, bytes);
        }
    }
}

/// Transposes the 4 × 4 matrix of the 128-bit quarters of four registers: from ascending channels to the order of
/// [`interleaved_channel`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn transpose_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    const LOW: i32 = 0b01_00_01_00;
    const HIGH: i32 = 0b11_10_11_10;
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    let (ab_low, ab_high) = (_mm512_shuffle_i32x4::<LOW>(a, b), _mm512_shuffle_i32x4::<HIGH>(a, b));
    let (cd_low, cd_high) = (_mm512_shuffle_i32x4::<LOW>(c, d), _mm512_shuffle_i32x4::<HIGH>(c, d));
    [
        _mm512_shuffle_i32x4::<EVEN>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<ODD>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<EVEN>(ab_high, cd_high),
        _mm512_shuffle_i32x4::<ODD>(ab_high, cd_high),
    ]
}
