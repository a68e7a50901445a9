//! Matrix products of rows widened to s16 with s8 weights, by VPMADDWD.

use std::arch::x86_64::*;

use super::super::super::layout::{OutputTile, Requantization};
use super::super::requantize_s32::avx2::{NR, bias, store, write_rows};

/// Twelve registers hold sums.
pub const MR: usize = 6;
pub const KR: usize = 2;

/// The sums of a tile; each column starts from `start`.
///
/// # Safety
/// The processor has AVX2; `rows` points to MR × depth values, `panel` to depth × NR; `depth` is a multiple of KR.
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
        // SAFETY: k + 1 < depth, so all reads lie within the rows and the panel that the caller promised.
        unsafe {
            let weights = panel.add(k * NR).cast::<__m128i>();
            let weights: [__m256i; HALVES] =
                std::array::from_fn(|half| _mm256_cvtepi8_epi16(_mm_loadu_si128(weights.add(half))));
            // Two pointers and one stride address six rows without an addition for each.
            let halves = [rows.add(k), rows.add(3 * depth + k)];
            for (r, sum) in sums.iter_mut().enumerate() {
                let pair = halves[r / 3].add(r % 3 * depth).cast::<i32>().read_unaligned();
                let pair = _mm256_set1_epi32(pair);
                for (sum, weights) in sum.iter_mut().zip(weights) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pair, weights));
                }
            }
        }
        k += KR;
    }
    sums
}

/// # Safety
/// As for [`sums`]; `acc` points to MR × NR values.
#[target_feature(enable = "avx2")]
pub unsafe fn accumulate_tile<const HALVES: usize>(depth: usize, rows: *const i16, panel: *const i8, acc: *mut i32) {
    // SAFETY: the caller promises what `sums` needs, and room for MR × NR sums.
    unsafe { store(&sums(depth, rows, panel, [_mm256_setzero_si256(); HALVES]), acc) }
}

/// # Safety
/// As for [`sums`]; bias and factor hold NR values; `out` has room for `tile`.
#[target_feature(enable = "avx2")]
pub unsafe fn quantized_tile<const HALVES: usize>(
    depth: usize,
    rows: *const i16,
    panel: *const i8,
    tile: OutputTile,
    params: &Requantization,
    out: *mut i8,
) {
    // SAFETY: the caller promises what `sums`, `bias` and `write_rows` need.
    unsafe { write_rows(&sums::<HALVES>(depth, rows, panel, bias(params)), tile, params, out) }
}
