//! Requantization of 32-bit sums to s8.

use std::arch::x86_64::*;

use super::super::super::arithmetic::Bounds;
use super::super::super::layout::{OutputTile, Requantization};

/// Columns of a tile.
pub const NR: usize = 16;

/// Panics unless bias, factor and `out` are long enough for `tile`.
pub fn check_output(tile: OutputTile, params: &Requantization, out: &[i8]) {
    let OutputTile { rows, columns, stride } = tile;
    assert!(params.bias.len() >= NR && params.factor.len() >= NR);
    assert!(rows > 0 && columns <= NR && out.len() >= (rows - 1) * stride + columns);
}

/// [`Microkernels::requantize_tile`](super::super::Microkernels::requantize_tile).
pub fn requantize_tile(acc: &[i32], tile: OutputTile, params: &Requantization, out: &mut [i8]) {
    let OutputTile { rows, columns, stride } = tile;
    if columns < NR {
        let full_row = OutputTile {
            rows: 1,
            columns: NR,
            stride: NR,
        };
        for (acc, out) in acc.chunks_exact(NR).take(rows).zip(out.chunks_mut(stride)) {
            let mut all = [0i8; NR];
            requantize_tile(acc, full_row, params, &mut all);
            out[..columns].copy_from_slice(&all[..columns]);
        }
        return;
    }
    check_output(tile, params, out);
    assert!(columns == NR && acc.len() >= rows * NR);
    // SAFETY: `Isa` detected AVX2; the slices are as long as asserted.
    unsafe { requantize_rows(acc.as_ptr(), rows, stride, params, out.as_mut_ptr()) }
}

/// The biases of a tile.
///
/// # Safety
/// The processor has AVX2; there are NR biases.
#[target_feature(enable = "avx2")]
#[inline]
pub unsafe fn bias<const HALVES: usize>(params: &Requantization) -> [__m256i; HALVES] {
    // SAFETY: half < HALVES ≤ 2, and the caller promises 16 biases.
    std::array::from_fn(|half| unsafe { _mm256_loadu_si256(params.bias.as_ptr().add(8 * half).cast()) })
}

/// Stores the sums of a tile row by row.
///
/// # Safety
/// The processor has AVX2; `acc` points to ROWS × NR values.
#[target_feature(enable = "avx2")]
#[inline]
pub unsafe fn store<const ROWS: usize, const HALVES: usize>(sums: &[[__m256i; HALVES]; ROWS], acc: *mut i32) {
    for (r, row) in sums.iter().enumerate() {
        for (half, sum) in row.iter().enumerate() {
            // SAFETY: r < ROWS and half < HALVES ≤ 2, so these eight values lie within row r.
            unsafe { _mm256_storeu_si256(acc.add(r * NR + 8 * half).cast(), *sum) }
        }
    }
}

/// Requantizes sums that hold the bias already, and writes the rows and columns of `tile`.
///
/// # Safety
/// The processor has AVX2; factor holds NR values; `out` has room for `tile`, of at most ROWS rows.
#[target_feature(enable = "avx2")]
#[inline]
pub unsafe fn write_rows<const ROWS: usize, const HALVES: usize>(
    sums: &[[__m256i; HALVES]; ROWS],
    tile: OutputTile,
    params: &Requantization,
    out: *mut i8,
) {
    let (limits, factor) = (Limits::of(params.bounds), params.factor.as_ptr());
    for (r, sums) in sums.iter().enumerate().take(tile.rows) {
        // SAFETY: r < tile.rows, and every write stays within the `tile.columns` values of row r.
        unsafe {
            let out = out.add(r * tile.stride);
            // With one half, the second half of the register is computed but not written.
            let bytes = limits.round([sums[0], sums[HALVES - 1]], factor);
            if tile.columns == NR {
                _mm_storeu_si128(out.cast(), bytes);
                continue;
            }
            let mut all = [0i8; NR];
            _mm_storeu_si128(all.as_mut_ptr().cast(), bytes);
            match tile.columns.checked_sub(8) {
                // The last eight may overlap the first eight.
                Some(last) => {
                    _mm_storel_epi64(out.cast(), bytes);
                    let eight = all.as_ptr().add(last).cast::<u64>().read_unaligned();
                    out.add(last).cast::<u64>().write_unaligned(eight);
                }
                None => out.copy_from_nonoverlapping(all.as_ptr(), tile.columns),
            }
        }
    }
}

/// # Safety
/// The processor has AVX2; `acc` points to `rows` rows of NR sums; bias and factor hold NR values; `out` has room for NR values
/// in each of `rows` rows, `stride` apart.
#[target_feature(enable = "avx2")]
unsafe fn requantize_rows(acc: *const i32, rows: usize, stride: usize, params: &Requantization, out: *mut i8) {
    let limits = Limits::of(params.bounds);
    let (bias, factor) = (params.bias.as_ptr(), params.factor.as_ptr());
    for row in 0..rows {
        // SAFETY: row < rows, so all reads and writes lie within what the caller promised.
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

/// [`Bounds`] in registers.
#[derive(Clone, Copy)]
pub struct Limits {
    /// The largest result, before the zero point is added.
    high: __m256,
    zero_point: __m256i,
    /// The smallest result, with the zero point.
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

    /// Requantizes sixteen sums that hold the bias already.
    ///
    /// # Safety
    /// The processor has AVX2; `factor` points to sixteen values.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub unsafe fn round(self, sums: [__m256i; 2], factor: *const f32) -> __m128i {
        let eight = |half: usize| {
            // SAFETY: half is 0 or 1, so these are eight of the sixteen factors.
            let factor = unsafe { _mm256_loadu_ps(factor.add(8 * half)) };
            self.round_eight(sums[half], factor)
        };
        self.bytes(eight(0), eight(1))
    }

    /// Adds the zero point to sixteen integers and saturates them to s8.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn bytes(self, a: __m256i, b: __m256i) -> __m128i {
        // Packing works within 128-bit halves; the permutation restores the order of the four quarters.
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(self.words(a, b));
        let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
        _mm_max_epi8(bytes, self.low)
    }

    /// Eight sums times their factors, limited from above and rounded.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn round_eight(self, sums: __m256i, factor: __m256) -> __m256i {
        self.integers(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), factor))
    }

    /// Rounds eight numbers to integers, ties to even.
    ///
    /// Only the upper limit must be applied before the conversion, because a number too large to convert becomes i32::MIN. NaN
    /// and numbers far below also become i32::MIN; the saturating steps that follow turn that into the lower limit.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn integers(self, scaled: __m256) -> __m256i {
        // MINPS returns its second operand if one is NaN, so this order keeps NaN.
        _mm256_cvtps_epi32(_mm256_min_ps(self.high, scaled))
    }

    /// Packs sixteen integers to s16, interleaved by 128-bit halves, and adds the zero point.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn words(self, a: __m256i, b: __m256i) -> __m256i {
        _mm256_adds_epi16(_mm256_packs_epi32(a, b), self.zero_point)
    }
}
