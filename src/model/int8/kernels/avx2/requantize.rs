//! Sums back to eight bits.

use std::arch::x86_64::*;

use super::super::super::arithmetic::Bounds;
use super::super::{Requantization, Wanted};
use super::NR;

pub fn check_results(wanted: Wanted, to: &Requantization, out: &[i8]) {
    let Wanted { rows, columns, stride } = wanted;
    assert!(to.bias.len() >= NR && to.factor.len() >= NR);
    assert!(rows > 0 && columns <= NR && out.len() >= (rows - 1) * stride + columns);
}

/// # Safety
/// AVX2; there are NR biases.
#[target_feature(enable = "avx2")]
#[inline]
pub unsafe fn bias<const HALVES: usize>(to: &Requantization) -> [__m256i; HALVES] {
    // SAFETY: as the caller promised.
    std::array::from_fn(|half| unsafe { _mm256_loadu_si256(to.bias.as_ptr().add(8 * half).cast()) })
}

/// # Safety
/// AVX2; `acc` points to ROWS × NR values.
#[target_feature(enable = "avx2")]
#[inline]
pub unsafe fn store<const ROWS: usize, const HALVES: usize>(sums: &[[__m256i; HALVES]; ROWS], acc: *mut i32) {
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
pub unsafe fn put<const ROWS: usize, const HALVES: usize>(
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
                continue;
            }
            let mut all = [0i8; NR];
            _mm_storeu_si128(all.as_mut_ptr().cast(), bytes);
            match wanted.columns.checked_sub(8) {
                // The last eight may overlap the first.
                Some(last) => {
                    _mm_storel_epi64(out.cast(), bytes);
                    let eight = all.as_ptr().add(last).cast::<u64>().read_unaligned();
                    out.add(last).cast::<u64>().write_unaligned(eight);
                }
                None => out.copy_from_nonoverlapping(all.as_ptr(), wanted.columns),
            }
        }
    }
}

/// # Safety
/// AVX2; `acc` points to `rows` rows of NR sums, bias and factor to NR values; every `stride` from `out` there is room for NR.
#[target_feature(enable = "avx2")]
pub unsafe fn requantize_rows(
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
pub struct Limits {
    /// The greatest result before the zero point is added.
    high: __m256,
    zero_point: __m256i,
    pub low: __m128i,
}

impl Limits {
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn of(bounds: Bounds) -> Limits {
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
    pub unsafe fn round(self, sums: [__m256i; 2], factor: *const f32) -> __m128i {
        let eight = |half: usize| {
            // SAFETY: half is 0 or 1, of two halves of eight.
            let factor = unsafe { _mm256_loadu_ps(factor.add(8 * half)) };
            self.round_eight(sums[half], factor)
        };
        self.bytes(eight(0), eight(1))
    }

    /// Sixteen integers as results.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn bytes(self, a: __m256i, b: __m256i) -> __m128i {
        // Packing works within 128-bit halves; the permutation puts the four quarters back in order.
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(self.words(a, b));
        let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
        _mm_max_epi8(bytes, self.low)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn round_eight(self, sums: __m256i, factor: __m256) -> __m256i {
        self.integers(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), factor))
    }

    /// Not a number, and what is far below, becomes the least integer, which the rest brings to the lower limit: packing and
    /// the addition of the zero point saturate. Above, that would not do: what is too large to convert becomes the least, too.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn integers(self, scaled: __m256) -> __m256i {
        // The operand order keeps not-a-number.
        _mm256_cvtps_epi32(_mm256_min_ps(self.high, scaled))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn words(self, a: __m256i, b: __m256i) -> __m256i {
        _mm256_adds_epi16(_mm256_packs_epi32(a, b), self.zero_point)
    }
}
