//! x86-64 with AVX2: Haswell, Zen and later.
//!
//! Any values go through VPMADDWD, widened to 16 bits: two exact products a lane, summed into 32 bits, 32 products a cycle on
//! two multipliers. Rows without negative values, which is what a ReLU leaves, have [`non_negative`] kernels.

mod depthwise;
mod non_negative;
mod pairwise;
mod requantize;

use std::arch::x86_64::*;

use super::super::arithmetic::Bounds;
use super::super::gemm::{Scratch, Scratches};
use super::super::pointwise::Pairs;
use super::{DepthwiseRow, Family, Requantization, Wanted, Work};
use requantize::{bias, check_results, put, requantize_rows};

pub use non_negative::Avx2NonNegative;
pub(super) use requantize::store;

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

    fn requantize_tile(acc: &[i32], wanted: Wanted, bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
        let Wanted { rows, columns, stride } = wanted;
        if columns < NR {
            let whole = Wanted {
                rows: 1,
                columns: NR,
                stride: NR,
            };
            for (acc, out) in acc.chunks_exact(NR).take(rows).zip(out.chunks_mut(stride)) {
                let mut all = [0i8; NR];
                Self::requantize_tile(acc, whole, bias, factor, bounds, &mut all);
                out[..columns].copy_from_slice(&all[..columns]);
            }
            return;
        }
        assert!(columns == NR && acc.len() >= rows * NR && bias.len() >= NR && factor.len() >= NR);
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

    fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8> {
        depthwise::pack(weights, channels)
    }

    fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
        depthwise::row(row, out, depthwise::any);
    }

    fn pairwise(pairs: Pairs) {
        pairwise::run(pairs);
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

/// # Safety
/// As for [`sums`], and `acc` points to MR × NR.
#[target_feature(enable = "avx2")]
unsafe fn tile<const HALVES: usize>(depth: usize, rows: *const i16, panel: *const i8, acc: *mut i32) {
    // SAFETY: as the caller promised.
    unsafe { store(&sums(depth, rows, panel, [_mm256_setzero_si256(); HALVES]), acc) }
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
