//! Matrix products of rows of [`OffsetU8`] with s8 weights, by VPDPBUSD in 256 bits.

use std::arch::x86_64::*;

use super::super::super::layout::OffsetU8;
use super::super::gemm_s16s8::avx2_6x16::MR;
use super::super::requantize_s32::avx2::{NR, store};
use super::super::vnni::KR;

/// # Safety
/// The processor has AVX-VNNI; `rows` points to MR × depth values, `panel` to depth × NR weights and NR column sums, `acc` to
/// MR × NR values; `depth` is a multiple of KR.
#[target_feature(enable = "avx2,avxvnni")]
pub unsafe fn accumulate_tile<const HALVES: usize>(
    depth: usize,
    rows: *const OffsetU8,
    panel: *const i8,
    acc: *mut i32,
) {
    // SAFETY: k + 3 < depth, and the column sums lie behind depth × NR weights, so all reads lie within the rows and the panel
    // that the caller promised.
    unsafe {
        let load = |at: usize, half: usize| _mm256_loadu_si256(panel.add(at * NR).cast::<__m256i>().add(half));
        let column_sums: [__m256i; HALVES] = std::array::from_fn(|half| load(depth, half));
        let mut sums = [column_sums; MR];
        let mut k = 0;
        while k < depth {
            let weights: [__m256i; HALVES] = std::array::from_fn(|half| load(k, half));
            // Two pointers and one stride address six rows without an addition for each.
            let halves = [rows.add(k), rows.add(3 * depth + k)];
            for (r, sums) in sums.iter_mut().enumerate() {
                let four = halves[r / 3].add(r % 3 * depth).cast::<i32>().read_unaligned();
                let four = _mm256_set1_epi32(four);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm256_dpbusd_avx_epi32(*sum, four, weights);
                }
            }
            k += KR;
        }
        store(&sums, acc);
    }
}
