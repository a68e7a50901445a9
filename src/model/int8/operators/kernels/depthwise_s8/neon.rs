//! Depthwise convolutions, in blocks of eight or sixteen channels.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::super::layout::DepthwiseRow;
use super::super::neon_i16_products::{self as i16_products, products_that_fit};
use super::super::requantize_s32::neon::{Scale, round_both};

/// The blocks of at least eight channels: the first channel of each, and its halves of eight channels. The last block may overlap
/// the one before it: the shared channels are computed twice, with the same result.
fn blocks(channels: usize) -> impl Iterator<Item = (usize, usize)> {
    let (whole, left) = (channels / 16, channels % 16);
    let last = match left {
        0 => [None, None],
        1..=8 => [Some((channels - 8, 1)), None],
        _ if whole > 0 => [Some((channels - 16, 2)), None],
        _ => [Some((0, 1)), Some((channels - 8, 1))],
    };
    (0..whole)
        .map(|block| (16 * block, 2))
        .chain(last.into_iter().flatten())
}

/// Packs weights as `[block][tap][channel]`. Behind each block is the number of its products that fit 16 bits. Fewer than eight
/// channels stay unpacked.
pub fn pack_depthwise<const NON_NEGATIVE: bool>(weights: &[i8], channels: usize) -> Vec<i8> {
    if channels < 8 {
        return weights.to_vec();
    }
    let mut packed = Vec::new();
    for (first, halves) in blocks(channels) {
        let start = packed.len();
        for tap in weights.chunks_exact(channels) {
            packed.extend_from_slice(&tap[first..first + 8 * halves]);
        }
        packed.push(products_that_fit::<NON_NEGATIVE>(8 * halves, &packed[start..]));
    }
    packed
}

/// [`Microkernels::depthwise`](super::super::Microkernels::depthwise).
pub fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
    row.check(out);
    let (channels, taps) = (row.channels, row.taps.len());
    if channels < 8 {
        for (i, out) in out.iter_mut().enumerate() {
            *out = row.scalar(row.weights, i / channels, i % channels);
        }
        return;
    }
    let mut weights = row.weights;
    for (first, halves) in blocks(channels) {
        let (block, rest) = weights.split_at(taps * 8 * halves + 1);
        weights = rest;
        let products = block[block.len() - 1];
        // SAFETY: every aarch64 processor has NEON. By the checks above, the block's channels lie within every tap of every
        // pixel, bias, factor and out; `block` holds its weights, and `products` is what packing computed for them.
        unsafe {
            match (halves, taps, products) {
                (_, 9, i16_products::ONE) | (_, ..9, _) | (_, 10.., _) => {
                    let pairs = products != i16_products::ONE;
                    match halves {
                        1 => any_taps::<1>(row, first, block, pairs, out),
                        _ => any_taps::<2>(row, first, block, pairs, out),
                    }
                }
                (1, 9, _) => nine_taps_of_8(row, first, block, products == i16_products::FOUR, out),
                (_, 9, _) => nine_taps_of_16(row, first, block, products == i16_products::FOUR, out),
            }
        }
    }
}

/// The scales of a block.
///
/// # Safety
/// Bias and factor hold 8 × HALVES values from `first` on.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn scales<const HALVES: usize>(row: &DepthwiseRow, first: usize) -> [Scale; HALVES] {
    // SAFETY: half < HALVES, and the caller promises 8 × HALVES values from `first` on.
    std::array::from_fn(|half| unsafe {
        let at = first + 8 * half;
        Scale::load_from(row.bias.as_ptr().add(at), row.factor.as_ptr().add(at), row.bounds)
    })
}

/// Loads sixteen or eight channels of a tap at offset `{at}` and multiplies them by the tap's weights: `smull` starts 16-bit
/// sums, `smlal` adds to them.
macro_rules! tap {
    (16, $multiply:literal, $tap:literal) => {
        concat!(
            "ldr {a:q}, [{t",
            $tap,
            "}, {at}]\n",
            $multiply,
            " {low:v}.8h, {a:v}.8b, {w",
            $tap,
            ":v}.8b\n",
            $multiply,
            "2 {high:v}.8h, {a:v}.16b, {w",
            $tap,
            ":v}.16b\n",
        )
    };
    (8, $multiply:literal, $tap:literal) => {
        concat!(
            "ldr {a:d}, [{t",
            $tap,
            "}, {at}]\n",
            $multiply,
            " {low:v}.8h, {a:v}.8b, {w",
            $tap,
            ":v}.8b\n",
        )
    };
}

/// Adds the 16-bit sums to the 32-bit sums, or to the bias at first.
macro_rules! reduce {
    (16, $from:literal) => {
        concat!(
            "saddw {s0:v}.4s, {",
            $from,
            "0:v}.4s, {low:v}.4h\n",
            "saddw2 {s1:v}.4s, {",
            $from,
            "1:v}.4s, {low:v}.8h\n",
            "saddw {s2:v}.4s, {",
            $from,
            "2:v}.4s, {high:v}.4h\n",
            "saddw2 {s3:v}.4s, {",
            $from,
            "3:v}.4s, {high:v}.8h\n",
        )
    };
    (8, $from:literal) => {
        concat!(
            "saddw {s0:v}.4s, {",
            $from,
            "0:v}.4s, {low:v}.4h\n",
            "saddw2 {s1:v}.4s, {",
            $from,
            "1:v}.4s, {low:v}.8h\n",
        )
    };
}

/// Nine taps, four products per 16-bit sum.
macro_rules! by_fours {
    ($width:tt) => {
        concat!(
            tap!($width, "smull", "0"),
            tap!($width, "smlal", "1"),
            tap!($width, "smlal", "2"),
            tap!($width, "smlal", "3"),
            reduce!($width, "b"),
            tap!($width, "smull", "4"),
            tap!($width, "smlal", "5"),
            tap!($width, "smlal", "6"),
            tap!($width, "smlal", "7"),
            reduce!($width, "s"),
            tap!($width, "smull", "8"),
            reduce!($width, "s"),
        )
    };
}

/// Nine taps, two products per 16-bit sum.
macro_rules! by_twos {
    ($width:tt) => {
        concat!(
            tap!($width, "smull", "0"),
            tap!($width, "smlal", "1"),
            reduce!($width, "b"),
            tap!($width, "smull", "2"),
            tap!($width, "smlal", "3"),
            reduce!($width, "s"),
            tap!($width, "smull", "4"),
            tap!($width, "smlal", "5"),
            reduce!($width, "s"),
            tap!($width, "smull", "6"),
            tap!($width, "smlal", "7"),
            reduce!($width, "s"),
            tap!($width, "smull", "8"),
            reduce!($width, "s"),
        )
    };
}

/// Sixteen channels of all pixels, for a 3 × 3 kernel. The weights stay in registers.
///
/// # Safety
/// Sixteen channels from `first` on lie within each of nine taps of every pixel, within bias, factor and `out`; `weights` has sixteen
/// per tap, of which two products fit 16 bits, or four if `fours`.
#[target_feature(enable = "neon")]
unsafe fn nine_taps_of_16(row: &DepthwiseRow, first: usize, weights: &[i8], fours: bool, out: &mut [i8]) {
    // SAFETY: the assembly reads sixteen bytes at offset `at` of each tap and otherwise uses registers only. The caller promises these
    // bytes, the parameters, and room for sixteen channels of each pixel.
    unsafe {
        let w: [int8x16_t; 9] = std::array::from_fn(|tap| vld1q_s8(weights.as_ptr().add(tap * 16)));
        let t: [*const i8; 9] = std::array::from_fn(|tap| row.taps[tap].as_ptr().add(first));
        let scale = scales::<2>(row, first);
        let [[b0, b1], [b2, b3]] = scale.map(|scale| scale.bias);
        let finite = scale[0].finite && scale[1].finite;
        macro_rules! sums {
            ($taps:ident, $at:ident) => {{
                let (s0, s1, s2, s3): (int32x4_t, int32x4_t, int32x4_t, int32x4_t);
                asm!(
                    $taps!(16),
                    t0 = in(reg) t[0], t1 = in(reg) t[1], t2 = in(reg) t[2], t3 = in(reg) t[3], t4 = in(reg) t[4],
                    t5 = in(reg) t[5], t6 = in(reg) t[6], t7 = in(reg) t[7], t8 = in(reg) t[8], at = in(reg) $at,
                    w0 = in(vreg) w[0], w1 = in(vreg) w[1], w2 = in(vreg) w[2], w3 = in(vreg) w[3],
                    w4 = in(vreg) w[4], w5 = in(vreg) w[5], w6 = in(vreg) w[6], w7 = in(vreg) w[7],
                    w8 = in(vreg) w[8], b0 = in(vreg) b0, b1 = in(vreg) b1, b2 = in(vreg) b2, b3 = in(vreg) b3,
                    s0 = out(vreg) s0, s1 = out(vreg) s1, s2 = out(vreg) s2, s3 = out(vreg) s3,
                    a = out(vreg) _, low = out(vreg) _, high = out(vreg) _,
                    options(pure, readonly, nostack, preserves_flags),
                );
                [[s0, s1], [s2, s3]]
            }};
        }
        macro_rules! pixels {
            ($taps:ident) => {
                let (mut at, mut to) = (0, out.as_mut_ptr().wrapping_add(first));
                for _ in 0..out.len() / row.channels {
                    let sums = sums!($taps, at);
                    let rounded = match finite {
                        true => round_both([&scale[0], &scale[1]], sums),
                        false => vcombine_s8(scale[0].round(sums[0]), scale[1].round(sums[1])),
                    };
                    vst1q_s8(to, rounded);
                    at += row.step;
                    to = to.wrapping_add(row.channels);
                }
            };
        }
        if fours {
            pixels!(by_fours);
        } else {
            pixels!(by_twos);
        }
    }
}

/// As [`nine_taps_of_16`], for eight channels.
///
/// # Safety
/// As for [`nine_taps_of_16`], with eight channels.
#[target_feature(enable = "neon")]
unsafe fn nine_taps_of_8(row: &DepthwiseRow, first: usize, weights: &[i8], fours: bool, out: &mut [i8]) {
    // SAFETY: the assembly reads eight bytes at offset `at` of each tap and otherwise uses registers only. The caller promises these
    // bytes, the parameters, and room for eight channels of each pixel.
    unsafe {
        let w: [int8x8_t; 9] = std::array::from_fn(|tap| vld1_s8(weights.as_ptr().add(tap * 8)));
        let t: [*const i8; 9] = std::array::from_fn(|tap| row.taps[tap].as_ptr().add(first));
        let [scale] = scales::<1>(row, first);
        let [b0, b1] = scale.bias;
        macro_rules! sums {
            ($taps:ident, $at:ident) => {{
                let (s0, s1): (int32x4_t, int32x4_t);
                asm!(
                    $taps!(8),
                    t0 = in(reg) t[0], t1 = in(reg) t[1], t2 = in(reg) t[2], t3 = in(reg) t[3], t4 = in(reg) t[4],
                    t5 = in(reg) t[5], t6 = in(reg) t[6], t7 = in(reg) t[7], t8 = in(reg) t[8], at = in(reg) $at,
                    w0 = in(vreg) w[0], w1 = in(vreg) w[1], w2 = in(vreg) w[2], w3 = in(vreg) w[3],
                    w4 = in(vreg) w[4], w5 = in(vreg) w[5], w6 = in(vreg) w[6], w7 = in(vreg) w[7],
                    w8 = in(vreg) w[8], b0 = in(vreg) b0, b1 = in(vreg) b1,
                    s0 = out(vreg) s0, s1 = out(vreg) s1, a = out(vreg) _, low = out(vreg) _,
                    options(pure, readonly, nostack, preserves_flags),
                );
                [s0, s1]
            }};
        }
        macro_rules! pixels {
            ($taps:ident) => {
                let (mut at, mut to) = (0, out.as_mut_ptr().wrapping_add(first));
                for _ in 0..out.len() / row.channels {
                    vst1_s8(to, scale.round(sums!($taps, at)));
                    at += row.step;
                    to = to.wrapping_add(row.channels);
                }
            };
        }
        if fours {
            pixels!(by_fours);
        } else {
            pixels!(by_twos);
        }
    }
}

/// A block of 8 × HALVES channels of all pixels, for any number of taps. With `pairs`, two products are added in 16 bits.
///
/// # Safety
/// The block's channels lie within every tap of every pixel, within bias, factor and `out`; `weights` has 8 × HALVES per tap.
#[target_feature(enable = "neon")]
unsafe fn any_taps<const HALVES: usize>(row: &DepthwiseRow, first: usize, weights: &[i8], pairs: bool, out: &mut [i8]) {
    let products_per_i16 = if pairs { 2 } else { 1 };
    // SAFETY: every access is to eight channels of the block, which the caller promises.
    unsafe {
        let scale = scales::<HALVES>(row, first);
        for pixel in 0..out.len() / row.channels {
            let at = pixel * row.step + first;
            let mut sums = scale.map(|scale| scale.bias);
            for (taps, w) in row
                .taps
                .chunks(products_per_i16)
                .zip(weights.chunks(products_per_i16 * 8 * HALVES))
            {
                for (half, sums) in sums.iter_mut().enumerate() {
                    let load = |i: usize| {
                        let a = vld1_s8(taps[i].as_ptr().add(at + 8 * half));
                        (a, vld1_s8(w.as_ptr().add(8 * (HALVES * i + half))))
                    };
                    let (a, b) = load(0);
                    let mut products = vmull_s8(a, b);
                    if taps.len() == 2 {
                        let (a, b) = load(1);
                        products = vmlal_s8(products, a, b);
                    }
                    sums[0] = vaddw_s16(sums[0], vget_low_s16(products));
                    sums[1] = vaddw_high_s16(sums[1], products);
                }
            }
            for (half, (scale, sums)) in scale.iter().zip(sums).enumerate() {
                let to = out.as_mut_ptr().add(pixel * row.channels + first + 8 * half);
                vst1_s8(to, scale.round(sums));
            }
        }
    }
}
