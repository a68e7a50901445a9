//! Requantization of 32-bit sums to s8.

use std::arch::x86_64::*;

use super::super::super::arithmetic::Bounds;
use super::super::super::layout::{OutputTile, Requantization};

/// Columns of a tile.
pub const NR: usize = 32;
/// Columns (32-bit lanes) of a register.
pub const WIDTH: usize = 16;

/// # Safety
/// The processor has AVX-512; `acc` points to `tile.rows` rows of NR sums; bias and factor hold NR values; `out` has room for
/// `tile`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn requantize_rows(acc: *const i32, tile: OutputTile, params: &Requantization, out: *mut i8) {
    for half in 0..tile.columns.div_ceil(WIDTH) {
        // SAFETY: half × WIDTH < tile.columns ≤ NR and r < tile.rows, so all accesses lie within what the caller promised.
        unsafe {
            let params = RegisterParams::load(params, half, tile.columns);
            for r in 0..tile.rows {
                let sum = _mm512_loadu_si512(acc.add(r * NR + half * WIDTH).cast());
                params.write(sum, out.add(r * tile.stride + half * WIDTH));
            }
        }
    }
}

/// [`Bounds`] in registers, in every lane.
#[derive(Clone, Copy)]
pub struct Limits {
    low: __m512,
    high: __m512,
    zero_point: __m512i,
}

impl Limits {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    pub fn of(bounds: Bounds) -> Limits {
        Limits {
            low: _mm512_set1_ps((bounds.low - bounds.zero_point) as f32),
            high: _mm512_set1_ps((bounds.high - bounds.zero_point) as f32),
            zero_point: _mm512_set1_epi32(bounds.zero_point),
        }
    }

    /// Requantizes sixteen sums that hold the bias already; the results stay in 32 bits.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    pub fn round(&self, sum: __m512i, factor: __m512) -> __m512i {
        let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), factor);
        // MAXPS returns its second operand if one is NaN, so this order turns NaN into the lower limit, as the reference does.
        let limited = _mm512_min_ps(_mm512_max_ps(scaled, self.low), self.high);
        _mm512_add_epi32(_mm512_cvtps_epi32(limited), self.zero_point)
    }
}

/// The parameters for one register of a tile's sums.
#[derive(Clone, Copy)]
pub struct RegisterParams {
    bias: __m512i,
    factor: __m512,
    limits: Limits,
    /// The columns to write.
    mask: __mmask16,
}

impl RegisterParams {
    /// For register `half` (0 or 1) of a tile whose first `columns` columns are written.
    ///
    /// # Safety
    /// The processor has AVX-512; bias and factor hold NR values.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    pub unsafe fn load(params: &Requantization, half: usize, columns: usize) -> RegisterParams {
        // SAFETY: half is 0 or 1, so sixteen values from half × WIDTH on lie within NR.
        unsafe {
            RegisterParams {
                bias: _mm512_loadu_si512(params.bias.as_ptr().add(half * WIDTH).cast()),
                factor: _mm512_loadu_ps(params.factor.as_ptr().add(half * WIDTH)),
                limits: Limits::of(params.bounds),
                mask: mask_of_first(columns - half * WIDTH) as __mmask16,
            }
        }
    }

    /// Adds the bias, requantizes and writes.
    ///
    /// # Safety
    /// The processor has AVX-512; `out` has room for the columns to write.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    pub unsafe fn write(&self, sum: __m512i, out: *mut i8) {
        let results = self.limits.round(_mm512_add_epi32(sum, self.bias), self.factor);
        // SAFETY: the mask limits the write to the columns for which the caller promised room.
        unsafe { _mm_mask_storeu_epi8(out, self.mask, _mm512_cvtepi32_epi8(results)) }
    }
}

/// A mask of the first `count` lanes, of at most 64. `count` is not 0.
pub fn mask_of_first(count: usize) -> u64 {
    u64::MAX >> (64 - count.min(64))
}
