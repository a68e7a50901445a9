//! Depthwise convolutions: every channel has a kernel of its own.

use super::arithmetic::{Bounds, InputRange, fold_zero_point};
use super::kernels::Microkernels;
use super::layout::{DepthwiseRow, MAX_NR, MAX_TAPS, Workspace, grow};
use super::window::Window;

/// A depthwise convolution of at most [`MAX_TAPS`] taps, with weights packed for one instruction set.
#[derive(Debug, Clone)]
pub struct DepthwiseConvolution {
    pub window: Window,
    channels: usize,
    /// Whether the weights are packed for [`Microkernels::NonNegative`]: neither input nor zero point is ever negative.
    non_negative: bool,
    weights: Vec<i8>,
    /// Padded to a multiple of [`MAX_NR`] channels, as the factors are.
    bias: Vec<i32>,
    factor: Vec<f32>,
    /// The value of the padding.
    zero_point: i8,
}

impl DepthwiseConvolution {
    /// `weights` are `[channel][ky][kx]`. `bias` and `factor` have one value per channel.
    pub fn new<M: Microkernels>(
        window: Window,
        input: InputRange,
        weights: &[i8],
        bias: &[i32],
        factor: &[f32],
    ) -> DepthwiseConvolution {
        let (channels, taps) = (bias.len(), window.taps());
        let padded = channels.next_multiple_of(MAX_NR);
        let mut bias = fold_zero_point(weights, bias, input.zero_point);
        bias.resize(padded, 0);
        let mut factor = factor.to_vec();
        factor.resize(padded, 0.0);
        let by_tap: Vec<i8> = (0..taps * channels)
            .map(|i| weights[i % channels * taps + i / channels])
            .collect();
        let non_negative = input.is_non_negative();
        DepthwiseConvolution {
            window,
            channels,
            non_negative,
            weights: match non_negative {
                true => M::NonNegative::pack_depthwise(&by_tap, channels),
                false => M::pack_depthwise(&by_tap, channels),
            },
            bias,
            factor,
            zero_point: input.zero_point,
        }
    }

    /// Multiply-accumulates of one run, padding included.
    pub fn macs(&self) -> usize {
        let [height, width] = self.window.output;
        height * width * self.window.taps() * self.channels
    }

    pub fn bytes(&self) -> usize {
        self.weights.len() + 4 * (self.bias.len() + self.factor.len())
    }

    /// Values of an input line under the windows of all output pixels, padding included.
    fn line_length(&self) -> usize {
        let Window {
            output,
            kernel,
            stride,
            dilation,
            ..
        } = self.window;
        self.channels * ((output[1] - 1) * stride[1] + (kernel[1] - 1) * dilation[1] + 1)
    }

    /// Input lines under one output line.
    fn span(&self) -> usize {
        self.window.kernel[0] * self.window.dilation[0]
    }

    /// Makes room in `workspace` for the input lines under an output line, and for one line of padding.
    pub fn reserve(&self, workspace: &mut Workspace) {
        grow(&mut workspace.padded_lines, (self.span() + 1) * self.line_length());
    }

    /// Copies each input line between its padding, so that every pixel has all its taps and a whole output line is computed at
    /// once.
    pub fn run<M: Microkernels>(&self, input: &[i8], workspace: &mut Workspace, bounds: Bounds, out: &mut [i8]) {
        let depthwise = match self.non_negative {
            true => M::NonNegative::depthwise,
            false => M::depthwise,
        };
        let (window, channels) = (&self.window, self.channels);
        let (length, span, pitch) = (self.line_length(), self.span(), window.input[1] * channels);
        let (lines, padding) = workspace.padded_lines[..(span + 1) * length].split_at_mut(span * length);
        lines.fill(self.zero_point);
        padding.fill(self.zero_point);
        // The part of an input line that lies under a window; empty if the padding covers all of it.
        let before = (window.pad[1] * channels).min(length);
        let within = pitch.min(length - before);
        // The first input line that has not been copied yet.
        let mut next = 0;
        for (y, out) in out.chunks_exact_mut(window.output[1] * channels).enumerate() {
            let below = y * window.stride[0] + (window.kernel[0] - 1) * window.dilation[0] + 1;
            let end = below.saturating_sub(window.pad[0]).min(window.input[0]);
            for source in next.max(end.saturating_sub(span))..end {
                let line = &mut lines[source % span * length + before..][..within];
                line.copy_from_slice(&input[source * pitch..][..within]);
            }
            next = next.max(end);
            let mut taps: [&[i8]; MAX_TAPS] = [&[]; MAX_TAPS];
            let taps = &mut taps[..window.taps()];
            for (ky, taps) in taps.chunks_exact_mut(window.kernel[1]).enumerate() {
                let line = match window.input_at(0, y, ky) {
                    Some(source) => &lines[source % span * length..][..length],
                    None => &*padding,
                };
                for (kx, tap) in taps.iter_mut().enumerate() {
                    *tap = &line[kx * window.dilation[1] * channels..];
                }
            }
            let row = DepthwiseRow {
                taps,
                step: window.stride[1] * channels,
                channels,
                weights: &self.weights,
                bias: &self.bias,
                factor: &self.factor,
                bounds,
            };
            depthwise(&row, out);
        }
    }
}
