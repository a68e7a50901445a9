//! Requantization of 32-bit sums to s8.

use std::arch::aarch64::*;

use super::super::super::arithmetic::Bounds;
use super::super::super::layout::{OutputTile, Requantization};

/// Columns of a tile.
pub const NR: usize = 8;

/// Panics unless bias, factor and `out` are long enough for `tile`.
#[inline(always)]
pub fn check_output(tile: OutputTile, params: &Requantization, out: &[i8]) {
    let OutputTile { rows, columns, stride } = tile;
    assert!(rows > 0 && (1..=NR).contains(&columns) && out.len() >= (rows - 1) * stride + columns);
    assert!(params.bias.len() >= NR && params.factor.len() >= NR);
}

/// [`Microkernels::requantize_tile`](super::super::Microkernels::requantize_tile) for tiles of [`NR`] columns.
pub fn requantize_tile(acc: &[i32], tile: OutputTile, params: &Requantization, out: &mut [i8]) {
    check_output(tile, params, out);
    let OutputTile { rows, columns, stride } = tile;
    assert!(acc.len() >= rows * NR);
    // SAFETY: every aarch64 processor has NEON; all slices are as long as asserted.
    unsafe {
        let scale = Scale::load(params);
        let [low, high] = scale.bias;
        let (mut acc, mut out) = (acc.as_ptr(), out.as_mut_ptr());
        let mut eight = || {
            let sums = [vld1q_s32(acc), vld1q_s32(acc.add(4))];
            acc = acc.wrapping_add(NR);
            scale.round([vaddq_s32(sums[0], low), vaddq_s32(sums[1], high)])
        };
        for _ in 0..rows {
            write(eight(), columns, out);
            out = out.wrapping_add(stride);
        }
    }
}

/// Stores the sums of a tile row by row.
///
/// # Safety
/// `acc` points to [`NR`] values for each row.
#[inline(always)]
pub unsafe fn store(sums: &[[int32x4_t; 2]], acc: *mut i32) {
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: the caller promises NR values for each row; every aarch64 processor has NEON.
        unsafe {
            vst1q_s32(acc.add(row * NR), sums[0]);
            vst1q_s32(acc.add(row * NR + 4), sums[1]);
        }
    }
}

/// Requantizes the first ROWS rows of sums, which hold the bias already, and writes the first `columns` of each. Rows are
/// `stride` apart in the output.
///
/// # Safety
/// `out` has room for ROWS rows of `columns` values; `columns` is at most NR.
#[inline(always)]
pub unsafe fn write_rows<const ROWS: usize>(
    sums: &[[int32x4_t; 2]],
    scale: &Scale,
    columns: usize,
    stride: usize,
    out: *mut i8,
) {
    // SAFETY: the caller promises room for ROWS rows; every aarch64 processor has NEON.
    unsafe {
        if columns == NR && scale.finite {
            for pair in 0..ROWS / 2 {
                let (first, second) = (out.add(2 * pair * stride), out.add((2 * pair + 1) * stride));
                let both = round_both([scale; 2], [sums[2 * pair], sums[2 * pair + 1]]);
                vst1_s8(first, vget_low_s8(both));
                vst1_s8(second, vget_high_s8(both));
            }
            if ROWS % 2 == 1 {
                vst1_s8(out.add((ROWS - 1) * stride), scale.round(sums[ROWS - 1]));
            }
            return;
        }
        for (row, sums) in sums[..ROWS].iter().enumerate() {
            write(scale.round(*sums), columns, out.add(row * stride));
        }
    }
}

/// [`Scale::round`] for two groups of eight channels with the same bounds, if all factors are finite. Then no product is NaN, and
/// the lower limit may be applied last as well.
#[inline(always)]
pub fn round_both([first, second]: [&Scale; 2], sums: [[int32x4_t; 2]; 2]) -> int8x16_t {
    // SAFETY: every aarch64 processor has NEON; the intrinsics access registers only.
    unsafe {
        let narrow = |scale: &Scale, sums: [int32x4_t; 2]| {
            let four = |half: usize| vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(sums[half]), scale.factor[half]));
            vqaddq_s16(vqmovn_high_s32(vqmovn_s32(four(0)), four(1)), scale.zero_point)
        };
        let eight = vqmovn_s16(narrow(first, sums[0]));
        let both = vqmovn_high_s16(eight, narrow(second, sums[1]));
        vminq_s8(vmaxq_s8(both, first.clamp_min), first.clamp_max)
    }
}

/// Writes the first `columns` of eight values.
///
/// # Safety
/// `out` has room for `columns` values, at most eight.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn write(eight: int8x8_t, columns: usize, mut out: *mut i8) {
    // SAFETY: writes eight values, or the 4, 2 and 1 that add up to `columns`.
    unsafe {
        if columns == NR {
            return vst1_s8(out, eight);
        }
        let mut left = vget_lane_u64::<0>(vreinterpret_u64_s8(eight));
        if columns & 4 != 0 {
            out.cast::<u32>().write_unaligned(left as u32);
            (out, left) = (out.wrapping_add(4), left >> 32);
        }
        if columns & 2 != 0 {
            out.cast::<u16>().write_unaligned(left as u16);
            (out, left) = (out.wrapping_add(2), left >> 16);
        }
        if columns & 1 != 0 {
            out.write(left as i8);
        }
    }
}

/// [`Requantization`] of eight channels in registers.
#[derive(Clone, Copy)]
pub struct Scale {
    pub bias: [int32x4_t; 2],
    factor: [float32x4_t; 2],
    low: float32x4_t,
    zero_point: int16x8_t,
    high: int8x8_t,
    /// Both limits, for sixteen results.
    clamp_min: int8x16_t,
    clamp_max: int8x16_t,
    /// Whether all factors are finite.
    pub finite: bool,
}

impl Scale {
    /// For the first eight channels of `params`.
    ///
    /// # Safety
    /// Bias and factor hold eight values.
    #[target_feature(enable = "neon")]
    #[inline]
    pub unsafe fn load(params: &Requantization) -> Scale {
        // SAFETY: the caller promises eight values of each.
        unsafe { Scale::load_from(params.bias.as_ptr(), params.factor.as_ptr(), params.bounds) }
    }

    /// # Safety
    /// `bias` and `factor` point to eight values.
    #[target_feature(enable = "neon")]
    #[inline]
    pub unsafe fn load_from(bias: *const i32, factor: *const f32, bounds: Bounds) -> Scale {
        // SAFETY: the caller promises eight values of each.
        unsafe {
            let factor = [vld1q_f32(factor), vld1q_f32(factor.add(4))];
            // A comparison with NaN is false.
            let finite = factor.map(|factor| vcaltq_f32(factor, vdupq_n_f32(f32::INFINITY)));
            Scale {
                bias: [vld1q_s32(bias), vld1q_s32(bias.add(4))],
                factor,
                clamp_min: vdupq_n_s8(bounds.low as i8),
                clamp_max: vdupq_n_s8(bounds.high as i8),
                finite: vminvq_u32(vandq_u32(finite[0], finite[1])) != 0,
                low: vdupq_n_f32((bounds.low - bounds.zero_point) as f32),
                zero_point: vdupq_n_s16(bounds.zero_point as i16),
                high: vdup_n_s8(bounds.high as i8),
            }
        }
    }

    /// Requantizes eight sums that hold the bias already, as [`Bounds::round`] does.
    ///
    /// FMAXNM turns NaN into the lower limit. The upper limit may be applied last: every step before it saturates, and only at a
    /// larger value: FCVTNS (ties to even) at 2³¹, SQXTN and the addition of the zero point at 2¹⁵, SQXTN at 127.
    #[target_feature(enable = "neon")]
    #[inline]
    pub fn round(&self, sums: [int32x4_t; 2]) -> int8x8_t {
        let four = |half: usize| {
            let scaled = vmulq_f32(vcvtq_f32_s32(sums[half]), self.factor[half]);
            vcvtnq_s32_f32(vmaxnmq_f32(scaled, self.low))
        };
        let narrow = vqmovn_high_s32(vqmovn_s32(four(0)), four(1));
        vmin_s8(vqmovn_s16(vqaddq_s16(narrow, self.zero_point)), self.high)
    }
}
