//! Convolutions in which every output depends on every input channel.

use super::arithmetic::{InputRange, fold_zero_point};
use super::gemm::{PackedWeights, Results, Rows, multiply, widen};
use super::kernels::Microkernels;
use super::layout::Workspace;
use super::window::Window;

/// A convolution, with weights packed for one instruction set.
#[derive(Debug, Clone)]
pub struct Convolution {
    pub window: Window,
    pub channels: usize,
    pub weights: PackedWeights,
    /// The value of the padding.
    pub zero_point: i8,
    /// Whether the weights are packed for [`Microkernels::NonNegative`]: neither input nor zero point is ever negative.
    pub non_negative: bool,
}

impl Convolution {
    /// `weights` are `[output][input channel][ky][kx]`, as in ONNX. `bias` and `factor` have one value per output.
    pub fn new<M: Microkernels>(
        window: Window,
        input: InputRange,
        weights: &[i8],
        bias: &[i32],
        factor: &[f32],
    ) -> Convolution {
        let per_output = weights.len() / bias.len();
        let channels = per_output / window.taps();
        let taps = window.taps();
        let mut channels_last = vec![0; weights.len()];
        for (output, weights) in channels_last
            .chunks_exact_mut(per_output)
            .zip(weights.chunks_exact(per_output))
        {
            for (channel, weights) in weights.chunks_exact(taps).enumerate() {
                let places = output[channel..].iter_mut().step_by(channels);
                places.zip(weights).for_each(|(place, w)| *place = *w);
            }
        }
        let bias = fold_zero_point(weights, bias, input.zero_point);
        let non_negative = input.is_non_negative();
        Convolution {
            window,
            channels,
            weights: match non_negative {
                true => PackedWeights::pack::<M::NonNegative>(&channels_last, &bias, factor),
                false => PackedWeights::pack::<M>(&channels_last, &bias, factor),
            },
            zero_point: input.zero_point,
            non_negative,
        }
    }

    /// Multiply-accumulates of one run, padding included.
    pub fn macs(&self) -> usize {
        let [height, width] = self.window.output;
        height * width * self.weights.columns() * self.weights.input_depth()
    }

    /// `M` is the instruction set that the weights were packed for, or its [`Microkernels::NonNegative`] if
    /// [`non_negative`](Self::non_negative).
    pub fn run<M: Microkernels>(&self, input: &[i8], workspace: &mut Workspace, results: Results) {
        let under = UnderWindow {
            convolution: self,
            input,
        };
        multiply::<M>(&under, &self.weights, workspace, results);
    }
}

/// One row per output pixel: all values under its window, and the zero point in the padding.
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
        // Equal sizes are not enough: padding below and to the right could compensate for a stride.
        let plain = window.stride == [1, 1] && window.pad == [0, 0];
        let pointwise = plain && window.taps() == 1 && window.input == window.output;
        pointwise.then_some(self.input)
    }

    #[inline(always)]
    fn pack_block<L: Copy + From<i8>>(&self, first: usize, depth: usize, out: &mut [L]) {
        let window = &self.convolution.window;
        let (width, full) = (window.output[1], window.full_columns());
        let (mut i, mut rest) = (first, out);
        while rest.len() >= depth {
            let (y, x) = (i / width, i % width);
            // Neighbouring pixels whose columns all lie inside the image are packed together.
            let pixels = match full.contains(&x) && window.dilation[1] == 1 {
                true => (full.end - x).min(rest.len() / depth),
                false => 1,
            };
            let (rows, others) = rest.split_at_mut(pixels * depth);
            match pixels {
                1 => self.pack(i, rows),
                _ => self.pack_run([y, x], depth, rows),
            }
            (i, rest) = (i + pixels, others);
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
                    match (window.input_at(0, y, ky), window.input_at(1, x, kx)) {
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
        // The taps inside the image are the same for every line, and the lines inside it are the same for every tap.
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
    /// Packs neighbouring pixels, starting at (`y`, `x`). All their columns must lie inside the image. It packs the first line of
    /// every pixel, then the second line of every pixel, and so on.
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
            let Some(source_y) = window.input_at(0, y, ky) else {
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

/// Copies one line of every pixel. For lines of at most N values it copies N values where both sides have room. The excess is
/// overwritten by the next line, or lies in the padding of the row.
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
