//! From sums back to eight bits, and tables of eight bits.

use std::arch::aarch64::*;

use super::super::super::arithmetic::Bounds;
use super::super::Wanted;
use super::NR;

/// [`Family::requantize_tile`] for tiles of [`NR`] columns.
pub fn requantize_tile(acc: &[i32], wanted: Wanted, bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
    let Wanted { rows, columns, stride } = wanted;
    assert!(rows > 0 && acc.len() >= rows * NR && out.len() >= (rows - 1) * stride + columns);
    assert!(bias.len() >= NR && factor.len() >= NR && columns <= NR);
    // SAFETY: every aarch64 processor has NEON; all slices are as long as asserted.
    unsafe {
        let scale = Scale::load(bias.as_ptr(), factor.as_ptr(), bounds);
        let [low, high] = scale.bias;
        let (mut acc, mut out) = (acc.as_ptr(), out.as_mut_ptr());
        let mut eight = || {
            let sums = [vld1q_s32(acc), vld1q_s32(acc.add(4))];
            acc = acc.wrapping_add(NR);
            scale.round([vaddq_s32(sums[0], low), vaddq_s32(sums[1], high)])
        };
        for _ in 0..rows {
            put(eight(), columns, out);
            out = out.wrapping_add(stride);
        }
    }
}

/// Rounds the first ROWS rows of sums, which hold the bias already, and writes the first `columns` of each, the next row's
/// after `stride`.
///
/// # Safety
/// `to` points to as many.
#[inline(always)]
pub unsafe fn round_rows<const ROWS: usize>(
    sums: &[[int32x4_t; 2]],
    scale: &Scale,
    columns: usize,
    stride: usize,
    to: *mut i8,
) {
    // SAFETY: as the caller promised; every aarch64 processor has NEON.
    unsafe {
        if columns == NR && scale.finite {
            for pair in 0..ROWS / 2 {
                let (first, second) = (to.add(2 * pair * stride), to.add((2 * pair + 1) * stride));
                let both = round_both([scale; 2], [sums[2 * pair], sums[2 * pair + 1]]);
                vst1_s8(first, vget_low_s8(both));
                vst1_s8(second, vget_high_s8(both));
            }
            if ROWS % 2 == 1 {
                vst1_s8(to.add((ROWS - 1) * stride), scale.round(sums[ROWS - 1]));
            }
            return;
        }
        for (row, sums) in sums[..ROWS].iter().enumerate() {
            put(scale.round(*sums), columns, to.add(row * stride));
        }
    }
}

/// [`Scale::round`] for two runs of eight channels within the same bounds, where all factors are finite. Then no sum
/// becomes not-a-number, and the lower limit may come last as well.
#[inline(always)]
pub fn round_both([first, second]: [&Scale; 2], sums: [[int32x4_t; 2]; 2]) -> int8x16_t {
    // SAFETY: every aarch64 processor has NEON.
    unsafe {
        let narrow = |scale: &Scale, sums: [int32x4_t; 2]| {
            let four = |half: usize| vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(sums[half]), scale.factor[half]));
            vqaddq_s16(vqmovn_high_s32(vqmovn_s32(four(0)), four(1)), scale.zero_point)
        };
        let eight = vqmovn_s16(narrow(first, sums[0]));
        let both = vqmovn_high_s16(eight, narrow(second, sums[1]));
        vminq_s8(vmaxq_s8(both, first.least), first.most)
    }
}

/// Writes the first `columns` of eight values.
///
/// # Safety
/// `to` points to as many.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn put(eight: int8x8_t, columns: usize, mut to: *mut i8) {
    // SAFETY: eight values, or the 4, 2 and 1 that `columns` is the sum of.
    unsafe {
        if columns == NR {
            return vst1_s8(to, eight);
        }
        let mut left = vget_lane_u64::<0>(vreinterpret_u64_s8(eight));
        if columns & 4 != 0 {
            to.cast::<u32>().write_unaligned(left as u32);
            (to, left) = (to.wrapping_add(4), left >> 32);
        }
        if columns & 2 != 0 {
            to.cast::<u16>().write_unaligned(left as u16);
            (to, left) = (to.wrapping_add(2), left >> 16);
        }
        if columns & 1 != 0 {
            to.write(left as i8);
        }
    }
}

/// What sums of eight channels start from, and what brings them back to eight bits.
#[derive(Clone, Copy)]
pub struct Scale {
    pub bias: [int32x4_t; 2],
    factor: [float32x4_t; 2],
    low: float32x4_t,
    zero_point: int16x8_t,
    high: int8x8_t,
    /// The limits once more, of sixteen results.
    least: int8x16_t,
    most: int8x16_t,
    /// Whether all factors are.
    pub finite: bool,
}

impl Scale {
    /// # Safety
    /// `bias` and `factor` point to eight values each.
    #[target_feature(enable = "neon")]
    #[inline]
    pub unsafe fn load(bias: *const i32, factor: *const f32, bounds: Bounds) -> Scale {
        // SAFETY: as the caller promised.
        unsafe {
            let factor = [vld1q_f32(factor), vld1q_f32(factor.add(4))];
            // Not-a-number compares as false.
            let finite = factor.map(|factor| vcaltq_f32(factor, vdupq_n_f32(f32::INFINITY)));
            Scale {
                bias: [vld1q_s32(bias), vld1q_s32(bias.add(4))],
                factor,
                least: vdupq_n_s8(bounds.low as i8),
                most: vdupq_n_s8(bounds.high as i8),
                finite: vminvq_u32(vandq_u32(finite[0], finite[1])) != 0,
                low: vdupq_n_f32((bounds.low - bounds.zero_point) as f32),
                zero_point: vdupq_n_s16(bounds.zero_point as i16),
                high: vdup_n_s8(bounds.high as i8),
            }
        }
    }

    /// Sums that hold the bias already, as [`Bounds::round`] has it. FMAXNM makes not-a-number the lower limit. The upper
    /// limit may come last, since every conversion on the way saturates, and none below it: FCVTNS (ties to even) at 2³¹,
    /// SQXTN at 2¹⁵, adding the zero point there too, and SQXTN at 127.
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

/// [`Family::look_up`]: TBL takes 64 entries of a table at once, and gives zero for what is beyond them.
pub fn look_up(table: &[i8; 256], values: &[i8], out: &mut [i8]) {
    let (from, rest) = values.as_chunks::<16>();
    let (to, last) = out.as_chunks_mut::<16>();
    // SAFETY: every aarch64 processor has NEON; the table has four times 64 entries, each chunk sixteen.
    unsafe {
        let quarter: [int8x16x4_t; 4] = std::array::from_fn(|i| vld1q_s8_x4(table.as_ptr().add(64 * i)));
        for (from, to) in from.iter().zip(to) {
            let index = vreinterpretq_u8_s8(vld1q_s8(from.as_ptr()));
            let beyond = |entries: u8| vsubq_u8(index, vdupq_n_u8(entries));
            let low = vorrq_s8(vqtbl4q_s8(quarter[0], index), vqtbl4q_s8(quarter[1], beyond(64)));
            let high = vorrq_s8(vqtbl4q_s8(quarter[2], beyond(128)), vqtbl4q_s8(quarter[3], beyond(192)));
            vst1q_s8(to.as_mut_ptr(), vorrq_s8(low, high));
        }
    }
    for (to, from) in last.iter_mut().zip(rest) {
        *to = table[usize::from(*from as u8)];
    }
}
