//! Convolutions over channels-last pictures, depthwise ones and all others.

use std::ops::Range;

use super::arithmetic::Bounds;
use super::gemm::{Results, Rows, Scratches, Weights, multiply, widen};
use super::kernels::{DepthwiseRow, Family, MAX_NR};

/// The geometry of a window that slides over a picture. Batch is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Height and width of input and output.
    pub input: [usize; 2],
    pub output: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Rows above, columns to the left; what is missing below and to the right follows from the output's size.
    pub pad: [usize; 2],
}

impl Window {
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Whether every output pixel has a tap inside the picture.
    pub fn always_sees(&self) -> bool {
        (0..2).all(|axis| {
            let sees = |o: usize| (0..self.kernel[axis]).any(|k| self.under(axis, o, k).is_some());
            (0..self.output[axis]).all(sees)
        })
    }

    /// The output columns that have all their taps inside the picture.
    pub fn inside(&self) -> Range<usize> {
        let reach = (self.kernel[1] - 1) * self.dilation[1];
        let start = self.pad[1].div_ceil(self.stride[1]).min(self.output[1]);
        let end = (self.input[1] + self.pad[1])
            .checked_sub(reach + 1)
            .map_or(0, |last| last / self.stride[1] + 1)
            .min(self.output[1]);
        start..end.max(start)
    }

    /// Input row (axis 0) or column (axis 1) under tap `k` of output `o`; `None` in the padding.
    #[inline(always)]
    pub fn under(&self, axis: usize, o: usize, k: usize) -> Option<usize> {
        (o * self.stride[axis] + k * self.dilation[axis])
            .checked_sub(self.pad[axis])
            .filter(|i| *i < self.input[axis])
    }
}

/// A convolution in which every output sees every input channel.
#[derive(Debug, Clone)]
pub struct Convolution {
    pub window: Window,
    pub channels: usize,
    pub weights: Weights,
    /// Stands for zero in the input, and so in the padding.
    pub zero_point: i8,
    /// Neither input nor zero point is ever negative, and the weights are packed for that.
    pub non_negative: bool,
}

impl Convolution {
    /// Weights come `[output][input channel][ky][kx]` as in ONNX and are packed in the order pictures lie in memory. `least`
    /// is what no input is below.
    pub fn new<F: Family>(
        window: Window,
        [zero_point, least]: [i8; 2],
        weights: &[i8],
        bias: &[i32],
        factor: &[f32],
    ) -> Convolution {
        let per_output = weights.len() / bias.len();
        let channels = per_output / window.taps();
        let channels_last: Vec<i8> = weights
            .chunks_exact(per_output)
            .flat_map(|w| {
                let at = move |i: usize| w[i % channels * (per_output / channels) + i / channels];
                (0..per_output).map(at)
            })
            .collect();
        let bias = without_zero_point(weights, bias, zero_point);
        let non_negative = least >= 0 && zero_point >= 0;
        Convolution {
            window,
            channels,
            weights: match non_negative {
                true => Weights::pack::<F::NonNegative>(&channels_last, &bias, factor),
                false => Weights::pack::<F>(&channels_last, &bias, factor),
            },
            zero_point,
            non_negative,
        }
    }

    /// Multiply-accumulates of one run, padding included.
    pub fn macs(&self) -> usize {
        let [height, width] = self.window.output;
        height * width * self.weights.columns() * self.weights.input_depth()
    }

    /// `input` must be without negative values where `F` is for such.
    pub fn run<F: Family>(&self, input: &[i8], scratches: &mut Scratches, results: Results) {
        let under = UnderWindow {
            convolution: self,
            input,
        };
        multiply::<F>(&under, &self.weights, scratches, results);
    }
}

/// A row for each output pixel: everything under its window, zero point where that reaches into the padding.
struct UnderWindow<'a> {
    convolution: &'a Convolution,
    input: &'a [i8],
}

impl Rows for UnderWindow<'_> {
    fn count(&self) -> usize {
        let [height, width] = self.convolution.window.output;
        height * width
    }

    fn consecutive(&self) -> Option<&[i8]> {
        let window = &self.convolution.window;
        // With another stride, the padding behind the picture could make up for it.
        let plain = window.stride == [1, 1] && window.pad == [0, 0];
        let pointwise = plain && window.taps() == 1 && window.input == window.output;
        pointwise.then_some(self.input)
    }

    #[inline(always)]
    fn pack_block<L: Copy + From<i8>>(&self, first: usize, depth: usize, out: &mut [L]) {
        let window = &self.convolution.window;
        let (width, inside) = (window.output[1], window.inside());
        let (mut i, mut rest) = (first, out);
        while rest.len() >= depth {
            let (y, x) = (i / width, i % width);
            // Pixels with all their columns in the picture go together.
            let together = match inside.contains(&x) && window.dilation[1] == 1 {
                true => (inside.end - x).min(rest.len() / depth),
                false => 1,
            };
            let (rows, others) = rest.split_at_mut(together * depth);
            match together {
                1 => self.pack(i, rows),
                _ => self.pack_run([y, x], depth, rows),
            }
            (i, rest) = (i + together, others);
        }
    }

    #[inline(always)]
    fn pack<L: Copy + From<i8>>(&self, i: usize, row: &mut [L]) {
        let Convolution {
            window,
            channels,
            zero_point,
            ..
        } = self.convolution;
        let (channels, zero) = (*channels, L::from(*zero_point));
        let (input, pitch) = (self.input, window.input[1] * channels);
        let (y, x) = (i / window.output[1], i % window.output[1]);
        let line = window.kernel[1] * channels;
        if window.dilation != [1, 1] {
            let lines = row.chunks_exact_mut(line).take(window.kernel[0]);
            for (ky, line) in lines.enumerate() {
                for (kx, pixel) in line.chunks_exact_mut(channels).enumerate() {
                    match (window.under(0, y, ky), window.under(1, x, kx)) {
                        (Some(y), Some(x)) => {
                            widen(&input[(y * window.input[1] + x) * channels..][..channels], pixel);
                        }
                        _ => pixel.fill(zero),
                    }
                }
            }
            return;
        }
        let [top, left] = [(0, y), (1, x)].map(|(axis, o)| (o * window.stride[axis]).wrapping_sub(window.pad[axis]));
        let whole =
            |axis: usize, first: usize| first < window.input[axis] && first + window.kernel[axis] <= window.input[axis];
        if whole(0, top) && whole(1, left) {
            let mut from = (top * window.input[1] + left) * channels;
            for line in row.chunks_exact_mut(line).take(window.kernel[0]) {
                widen(&input[from..][..line.len()], line);
                from += pitch;
            }
            return;
        }
        // Which taps lie in the picture is the same for every line, and which lines do for every tap.
        let [(start_y, taps_y), (start_x, taps_x)] = [(0, y), (1, x)].map(|(axis, o)| {
            let (start, pad, taps) = (o * window.stride[axis], window.pad[axis], window.kernel[axis]);
            let first = pad.saturating_sub(start).min(taps);
            let end = (window.input[axis] + pad).saturating_sub(start).clamp(first, taps);
            (start, first..end)
        });
        let (from, to) = (taps_x.start * channels, taps_x.end * channels);
        for (ky, line) in row.chunks_exact_mut(line).take(window.kernel[0]).enumerate() {
            if from == to || !taps_y.contains(&ky) {
                line.fill(zero);
                continue;
            }
            let source_y = start_y + ky - window.pad[0];
            let source_x = start_x + taps_x.start - window.pad[1];
            let source = &input[(source_y * window.input[1] + source_x) * channels..];
            if from > 0 {
                line[..from].fill(zero);
            }
            widen(&source[..to - from], &mut line[from..to]);
            if to < line.len() {
                line[to..].fill(zero);
            }
        }
    }
}

impl UnderWindow<'_> {
    /// Neighbouring pixels from (`y`, `x`) on that have all their columns in the picture, a line of each after the other.
    #[inline(always)]
    fn pack_run<L: Copy + From<i8>>(&self, [y, x]: [usize; 2], depth: usize, rows: &mut [L]) {
        let Convolution {
            window,
            channels,
            zero_point,
            ..
        } = self.convolution;
        let line = window.kernel[1] * channels;
        let step = window.stride[1] * channels;
        for ky in 0..window.kernel[0] {
            let lines = rows.chunks_exact_mut(depth).map(|row| &mut row[ky * line..]);
            let Some(source_y) = window.under(0, y, ky) else {
                lines.for_each(|to| to[..line].fill(L::from(*zero_point)));
                continue;
            };
            let source_x = x * window.stride[1] - window.pad[1];
            let source = &self.input[(source_y * window.input[1] + source_x) * channels..];
            match line {
                3..=4 => copy_lines::<L, 4>(source, step, line, lines),
                5..=8 => copy_lines::<L, 8>(source, step, line, lines),
                _ => copy_lines::<L, 16>(source, step, line, lines),
            }
        }
    }
}

/// Copies a line of every pixel, N values at a time. Behind short lines, what follows is copied with them where there is
/// room: the next line, packed later, or the padding of the row takes its place.
#[inline(always)]
fn copy_lines<'a, L: Copy + From<i8> + 'a, const N: usize>(
    source: &[i8],
    step: usize,
    line: usize,
    lines: impl Iterator<Item = &'a mut [L]>,
) {
    for (i, to) in lines.enumerate() {
        let from = &source[i * step..];
        if line <= N && from.len() >= N && to.len() >= N {
            copy::<L, N>(from, to);
        } else {
            widen(&from[..line], to);
        }
    }
}

/// The first N values.
#[inline(always)]
fn copy<L: Copy + From<i8>, const N: usize>(from: &[i8], to: &mut [L]) {
    if let (Some(from), Some(to)) = (from.first_chunk::<N>(), to.first_chunk_mut::<N>()) {
        *to = from.map(L::from);
    }
}

/// Σ w (x − z) + b = Σ w x + (b − z Σ w): the zero point goes into the bias.
fn without_zero_point(weights: &[i8], bias: &[i32], zero_point: i8) -> Vec<i32> {
    let per_output = weights.len() / bias.len().max(1);
    bias.iter()
        .zip(weights.chunks_exact(per_output.max(1)))
        .map(|(b, w)| b - i32::from(zero_point) * w.iter().map(|w| i32::from(*w)).sum::<i32>())
        .collect()
}

/// A convolution of every channel with a kernel of its own.
#[derive(Debug, Clone)]
pub struct Depthwise {
    pub window: Window,
    channels: usize,
    /// Neither input nor zero point is ever negative, and the weights are packed for that.
    non_negative: bool,
    weights: Vec<i8>,
    /// Padded so that every run of channels a family takes at once is there.
    bias: Vec<i32>,
    factor: Vec<f32>,
    /// Stands for zero in the input, and so in the padding.
    zero_point: i8,
}

impl Depthwise {
    /// Weights come `[channel][ky][kx]`. `least` is what no input is below.
    pub fn new<F: Family>(
        window: Window,
        [zero_point, least]: [i8; 2],
        weights: &[i8],
        bias: &[i32],
        factor: &[f32],
    ) -> Depthwise {
        let (channels, taps) = (bias.len(), window.taps());
        let padded = channels.next_multiple_of(MAX_NR);
        let mut bias = without_zero_point(weights, bias, zero_point);
        bias.resize(padded, 0);
        let mut factor = factor.to_vec();
        factor.resize(padded, 0.0);
        let by_tap: Vec<i8> = (0..taps * channels)
            .map(|i| weights[i % channels * taps + i / channels])
            .collect();
        let non_negative = least >= 0 && zero_point >= 0;
        Depthwise {
            window,
            channels,
            non_negative,
            weights: match non_negative {
                true => F::NonNegative::pack_depthwise(&by_tap, channels),
                false => F::pack_depthwise(&by_tap, channels),
            },
            bias,
            factor,
            zero_point,
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

    /// Values in a line of the picture as far as output pixels see it, padding included.
    fn seen(&self) -> usize {
        let Window {
            output,
            kernel,
            stride,
            dilation,
            ..
        } = self.window;
        self.channels * ((output[1] - 1) * stride[1] + (kernel[1] - 1) * dilation[1] + 1)
    }

    /// How many lines of the picture one output line spans.
    fn span(&self) -> usize {
        self.window.kernel[0] * self.window.dilation[0]
    }

    /// Makes the room a run needs: for the lines of the picture under an output line, and one of padding.
    pub fn reserve(&self, scratches: &mut Scratches) {
        let needed = (self.span() + 1) * self.seen();
        scratches.lines.resize(scratches.lines.len().max(needed), 0);
    }

    /// Lines of the picture are copied to stand between the padding at their sides, so that no pixel lacks a tap and a whole
    /// line of output is computed at once.
    pub fn run<F: Family>(&self, input: &[i8], scratches: &mut Scratches, bounds: Bounds, out: &mut [i8]) {
        let depthwise = match self.non_negative {
            true => F::NonNegative::depthwise,
            false => F::depthwise,
        };
        let (window, channels) = (&self.window, self.channels);
        let (seen, span, pitch) = (self.seen(), self.span(), window.input[1] * channels);
        let (lines, nothing) = scratches.lines[..(span + 1) * seen].split_at_mut(span * seen);
        lines.fill(self.zero_point);
        nothing.fill(self.zero_point);
        // What of a line is seen; with more padding than that, nothing is.
        let before = (window.pad[1] * channels).min(seen);
        let within = pitch.min(seen - before);
        // The first line of the picture that has not been copied yet.
        let mut next = 0;
        for (y, out) in out.chunks_exact_mut(window.output[1] * channels).enumerate() {
            let below = y * window.stride[0] + (window.kernel[0] - 1) * window.dilation[0] + 1;
            let end = below.saturating_sub(window.pad[0]).min(window.input[0]);
            for source in next.max(end.saturating_sub(span))..end {
                let line = &mut lines[source % span * seen + before..][..within];
                line.copy_from_slice(&input[source * pitch..][..within]);
            }
            next = next.max(end);
            let mut taps: [&[i8]; MAX_TAPS] = [&[]; MAX_TAPS];
            let taps = &mut taps[..window.taps()];
            for (ky, taps) in taps.chunks_exact_mut(window.kernel[1]).enumerate() {
                let line = match window.under(0, y, ky) {
                    Some(source) => &lines[source % span * seen..][..seen],
                    None => &*nothing,
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

/// The largest depthwise kernel: 7 × 7.
pub const MAX_TAPS: usize = 49;
