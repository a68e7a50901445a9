//! Matrix products of rows of [`OffsetU8`] with s8 weights, by VPDPBUSD in 512 bits.

use std::arch::x86_64::*;

use super::super::super::layout::{OffsetU8, OutputTile, Requantization};
use super::super::requantize_s32::avx512_vnni::{NR, RegisterParams, WIDTH};
use super::super::vnni::KR;

/// Twenty-four of the thirty-two registers hold sums.
pub const MR: usize = 12;

/// The sums of ROWS rows.
///
/// # Safety
/// The processor has AVX-512 VNNI; `rows` points to ROWS × depth values, `panel` to depth × NR weights and NR column sums;
/// `depth` is a multiple of KR.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn sums<const ROWS: usize, const HALVES: usize>(
    depth: usize,
    rows: *const OffsetU8,
    panel: *const i8,
) -> [[__m512i; HALVES]; ROWS] {
    // SAFETY: k + 3 < depth, and the column sums lie behind depth × NR weights, so all reads lie within the rows and the panel
    // that the caller promised.
    unsafe {
        let load = |at: usize, half: usize| _mm512_loadu_si512(panel.add(at * NR).cast::<__m512i>().add(half));
        let column_sums: [__m512i; HALVES] = std::array::from_fn(|half| load(depth, half));
        let mut sums = [column_sums; ROWS];
        let mut k = 0;
        while k < depth {
            let weights: [__m512i; HALVES] = std::array::from_fn(|half| load(k, half));
            // One stride addresses three rows from a pointer without an addition for each.
            for (thirds, sums) in sums.chunks_mut(3).enumerate() {
                let first = rows.add(3 * thirds * depth + k);
                for (r, sums) in sums.iter_mut().enumerate() {
                    let four = _mm512_set1_epi32(first.add(r * depth).cast::<i32>().read_unaligned());
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = _mm512_dpbusd_epi32(*sum, four, weights);
                    }
                }
            }
            k += KR;
        }
        sums
    }
}

/// # Safety
/// As for [`sums`] of MR rows; `acc` points to MR × NR values.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn accumulate_tile<const HALVES: usize>(
    depth: usize,
    rows: *const OffsetU8,
    panel: *const i8,
    acc: *mut i32,
) {
    // SAFETY: the caller promises what `sums` needs; r < MR and half < HALVES ≤ 2, so the writes lie within MR × NR values.
    unsafe {
        for (r, sums) in sums::<MR, HALVES>(depth, rows, panel).iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                _mm512_storeu_si512(acc.add(r * NR + half * WIDTH).cast(), *sum);
            }
        }
    }
}

/// Computes ROWS rows and writes the first `tile.rows` of them.
///
/// # Safety
/// As for [`sums`]; bias and factor hold NR values; `tile.rows` is at most ROWS; `out` has room for `tile`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn quantized_tile<const ROWS: usize, const HALVES: usize>(
    depth: usize,
    rows: *const OffsetU8,
    panel: *const i8,
    tile: OutputTile,
    params: &Requantization,
    out: *mut i8,
) {
    // SAFETY: the caller promises what `sums` and `RegisterParams` need; only rows of `tile` are written.
    unsafe {
        let sums = sums::<ROWS, HALVES>(depth, rows, panel);
        let params: [RegisterParams; HALVES] =
            std::array::from_fn(|half| RegisterParams::load(params, half, tile.columns));
        for (r, sums) in sums.iter().enumerate() {
            if r < tile.rows {
                for (half, (sum, params)) in sums.iter().zip(&params).enumerate() {
                    params.write(*sum, out.add(r * tile.stride + half * WIDTH));
                }
            }
        }
    }
}
