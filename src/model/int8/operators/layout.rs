//! The data types that operators and kernels exchange. A leaf: it imports only [`arithmetic`](super::arithmetic).

use super::arithmetic::{Bounds, Pairwise};

/// The largest tile of any instruction set, in accumulators.
pub const MAX_TILE: usize = 384;
/// The most columns (output channels) that any instruction set requantizes at once.
pub const MAX_NR: usize = 32;
/// The largest depthwise kernel: 7 × 7.
pub const MAX_TAPS: usize = 49;

const _: () = assert!(MAX_NR <= MAX_TILE);

/// An s8 value plus 128, as u8: 0..=255. VPDPBUSD takes one unsigned operand.
#[derive(Debug, Clone, Copy, Default)]
#[repr(transparent)]
pub struct OffsetU8(u8);

impl From<i8> for OffsetU8 {
    #[inline(always)]
    fn from(value: i8) -> OffsetU8 {
        OffsetU8(value as u8 ^ 0x80)
    }
}

impl From<OffsetU8> for i8 {
    fn from(OffsetU8(value): OffsetU8) -> i8 {
        (value ^ 0x80) as i8
    }
}

/// The part of a tile that is written to the output.
#[derive(Debug, Clone, Copy)]
pub struct OutputTile {
    pub rows: usize,
    pub columns: usize,
    /// Distance in the output from one row to the next, in values.
    pub stride: usize,
}

/// The parameters that turn a panel's 32-bit sums into 8 bits: `NR` values of `bias` and of `factor`.
#[derive(Debug, Clone, Copy)]
pub struct Requantization<'a> {
    pub bias: &'a [i32],
    pub factor: &'a [f32],
    pub bounds: Bounds,
}

/// Neighbouring output pixels of a depthwise convolution. Every tap of every pixel lies in memory.
#[derive(Debug, Clone, Copy)]
pub struct DepthwiseRow<'a> {
    /// For each tap, the input from the first pixel's channel 0 on.
    pub taps: &'a [&'a [i8]],
    /// Distance in the input from one output pixel to the next, in values.
    pub step: usize,
    pub channels: usize,
    /// As packed by [`Microkernels::pack_depthwise`](super::kernels::Microkernels::pack_depthwise).
    pub weights: &'a [i8],
    /// One value per channel, padded to a multiple of [`MAX_NR`].
    pub bias: &'a [i32],
    pub factor: &'a [f32],
    pub bounds: Bounds,
}

impl DepthwiseRow<'_> {
    /// Panics unless taps, bias and factor are as long as the kernels need to fill `out`.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub fn check(&self, out: &[i8]) {
        let pixels = out.len() / self.channels;
        assert!(pixels > 0 && out.len() == pixels * self.channels);
        let needed = (pixels - 1) * self.step + self.channels;
        assert!(self.taps.iter().all(|tap| tap.len() >= needed));
        assert!(self.bias.len() >= self.channels.next_multiple_of(MAX_NR));
        assert!(self.factor.len() >= self.channels.next_multiple_of(MAX_NR));
    }

    /// The definition: channel `c` of pixel `pixel`. `weights` are `[tap][channel]`.
    pub fn scalar(&self, weights: &[i8], pixel: usize, c: usize) -> i8 {
        let taps = self.taps.iter().enumerate();
        let products =
            taps.map(|(t, tap)| i32::from(tap[pixel * self.step + c]) * i32::from(weights[t * self.channels + c]));
        let sum = products.sum::<i32>().wrapping_add(self.bias[c]);
        self.bounds.round(sum as f32 * self.factor[c])
    }
}

/// The operands of an element-wise sum or product. The shortest slice decides how many values are computed.
pub struct PairwiseOperands<'a> {
    pub operation: Pairwise,
    pub left: &'a [i8],
    pub right: &'a [i8],
    pub out: &'a mut [i8],
}

/// Buffers that all layers of a graph share. They grow once, to what the largest layer needs.
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    /// A block of packed rows, in the form that the instruction set multiplies.
    pub s8_rows: Vec<i8>,
    pub s16_rows: Vec<i16>,
    pub offset_u8_rows: Vec<OffsetU8>,
    /// Input lines of a depthwise convolution with the padding beside them.
    pub padded_lines: Vec<i8>,
    /// The right-hand side of a product of two activations, packed as weights are.
    pub panels: Vec<i8>,
    /// Sums of the columns or rows of activations.
    pub sums: Vec<i32>,
    /// Products before the correction for zero points.
    pub products: Vec<f32>,
    /// The channels of one part of a grouped convolution: a copy of the input, and the output.
    pub part_input: Vec<i8>,
    pub part_output: Vec<i8>,
}

/// Makes a buffer at least `length` values long.
pub fn grow<T: Clone + Default>(buffer: &mut Vec<T>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, T::default());
    }
}

impl Workspace {
    pub fn bytes(&self) -> usize {
        let Workspace {
            s8_rows,
            s16_rows,
            offset_u8_rows,
            padded_lines,
            panels,
            sums,
            products,
            part_input,
            part_output,
        } = self;
        let bytes = [s8_rows, padded_lines, panels, part_input, part_output].map(Vec::len);
        bytes.iter().sum::<usize>()
            + offset_u8_rows.len()
            + size_of_val(&s16_rows[..])
            + size_of_val(&sums[..])
            + size_of_val(&products[..])
    }
}
