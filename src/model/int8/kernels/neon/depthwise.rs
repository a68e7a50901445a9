//! Depthwise convolutions: each channel with weights of its own.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::DepthwiseRow;
use super::requantize::{Scale, round_both};
use super::together;

/// Where the blocks of a depthwise convolution of `channels`, at least eight, begin, and how many halves of eight channels
/// each has. The last may overlap the one before it: what they share comes out the same twice.
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

/// `[block][tap][channel]`, and behind each block how many products may meet. Fewer than eight channels stay as they are.
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
        packed.push(together::<NON_NEGATIVE>(8 * halves, &packed[start..]));
    }
    packed
}

/// [`Family::depthwise`] with weights from [`pack_depthwise`].
pub fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
    row.check(out);
    let (channels, taps) = (row.channels, row.taps.len());
    if channels < 8 {
        for (i, out) in out.iter_mut().enumerate() {
            *out = row.one(row.weights, i / channels, i % channels);
        }
        return;
    }
    let mut weights = row.weights;
    for (first, halves) in blocks(channels) {
        let (block, rest) = weights.split_at(taps * 8 * halves + 1);
        weights = rest;
        let meet = block[block.len() - 1];
        // SAFETY: every aarch64 processor has NEON; the checks above make the block's channels lie within every tap of
        // every pixel, bias, factor and out, and `block` holds its weights; `meet` is what they allow.
        unsafe {
            match (halves, taps, meet) {
                (_, 9, together::ONE) | (_, ..9, _) | (_, 10.., _) => {
                    let pairs = meet != together::ONE;
                    match halves {
                        1 => any_taps::<1>(row, first, block, pairs, out),
                        _ => any_taps::<2>(row, first, block, pairs, out),
                    }
                }
                (1, 9, _) => nine_taps_of_8(row, first, block, meet == together::FOUR, out),
                (_, 9, _) => nine_taps_of_16(row, first, block, meet == together::FOUR, out),
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
    // SAFETY: as the caller promised.
    std::array::from_fn(|half| unsafe {
        let at = first + 8 * half;
        Scale::load(row.bias.as_ptr().add(at), row.factor.as_ptr().add(at), row.bounds)
    })
}

/// Loads a tap of `{at}` and multiplies, by `smull` or `smlal`: sixteen channels, or eight.
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

/// Adds the products to the sums, the first ones to the bias.
macro_rules! flush {
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

/// Nine taps whose products meet by fours.
macro_rules! by_fours {
    ($width:tt) => {
        concat!(
            tap!($width, "smull", "0"),
            tap!($width, "smlal", "1"),
            tap!($width, "smlal", "2"),
            tap!($width, "smlal", "3"),
            flush!($width, "b"),
            tap!($width, "smull", "4"),
            tap!($width, "smlal", "5"),
            tap!($width, "smlal", "6"),
            tap!($width, "smlal", "7"),
            flush!($width, "s"),
            tap!($width, "smull", "8"),
            flush!($width, "s"),
        )
    };
}

/// Nine taps whose products meet by twos.
macro_rules! by_twos {
    ($width:tt) => {
        concat!(
            tap!($width, "smull", "0"),
            tap!($width, "smlal", "1"),
            flush!($width, "b"),
            tap!($width, "smull", "2"),
            tap!($width, "smlal", "3"),
            flush!($width, "s"),
            tap!($width, "smull", "4"),
            tap!($width, "smlal", "5"),
            flush!($width, "s"),
            tap!($width, "smull", "6"),
            tap!($width, "smlal", "7"),
            flush!($width, "s"),
            tap!($width, "smull", "8"),
            flush!($width, "s"),
        )
    };
}

/// Sixteen channels of all pixels of a 3 × 3 kernel, whose products may meet by twos, or by fours: weights stay in
/// registers.
///
/// # Safety
/// Sixteen channels from `first` on in each of nine taps of every pixel, in bias, factor and out, and in `weights` for each
/// tap.
#[target_feature(enable = "neon")]
unsafe fn nine_taps_of_16(row: &DepthwiseRow, first: usize, weights: &[i8], fours: bool, out: &mut [i8]) {
    // SAFETY: as the caller promised; the assembly reads sixteen bytes at `at` from each tap, else only registers.
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

/// The same for eight channels.
///
/// # Safety
/// As for [`nine_taps_of_16`], with eight.
#[target_feature(enable = "neon")]
unsafe fn nine_taps_of_8(row: &DepthwiseRow, first: usize, weights: &[i8], fours: bool, out: &mut [i8]) {
    // SAFETY: as the caller promised; the assembly reads eight bytes at `at` from each tap, else only registers.
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

/// A block of 8 × HALVES channels of all pixels, for any number of taps.
///
/// # Safety
/// The channels from `first` on lie in every tap of every pixel, in bias, factor and out, and in `weights` for each tap;
/// `pairs` only if two products may meet.
#[target_feature(enable = "neon")]
unsafe fn any_taps<const HALVES: usize>(row: &DepthwiseRow, first: usize, weights: &[i8], pairs: bool, out: &mut [i8]) {
    let meet = if pairs { 2 } else { 1 };
    // SAFETY: as the caller promised.
    unsafe {
        let scale = scales::<HALVES>(row, first);
        for pixel in 0..out.len() / row.channels {
            let at = pixel * row.step + first;
            let mut sums = scale.map(|scale| scale.bias);
            for (taps, w) in row.taps.chunks(meet).zip(weights.chunks(meet * 8 * HALVES)) {
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
