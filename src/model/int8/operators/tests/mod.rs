//! Every instruction set against the definition, bit for bit, over sizes that are no multiples of a tile's size.

mod convolutions;
mod elementwise;
mod matrix_products;
mod pools;
mod requantization;

use proptest::prelude::*;

use super::arithmetic::{Bounds, InputRange};
use super::window::Window;

/// Calls a generic function once for each instruction set that this processor has.
macro_rules! for_each_isa {
    ($check:ident($($argument:expr),*)) => {
        for isa in crate::model::int8::operators::kernels::Isa::available() {
            crate::with_microkernels!(isa, M => $check::<M>($($argument),*))?;
        }
    };
}
use for_each_isa;

type Checked = Result<(), TestCaseError>;

fn windows(kernels: std::ops::Range<usize>) -> impl Strategy<Value = Window> {
    let pair = |range: std::ops::Range<usize>| [range.clone(), range];
    (
        pair(1..9),
        pair(kernels),
        pair(1..4),
        pair(1..3),
        pair(0..4),
        pair(0..4),
    )
        .prop_filter_map(
            "the window must fit",
            |(input, kernel, stride, dilation, pad, after)| {
                let mut output = [0; 2];
                for axis in 0..2 {
                    let extent = (kernel[axis] - 1) * dilation[axis] + 1;
                    output[axis] = (input[axis] + pad[axis] + after[axis]).checked_sub(extent)? / stride[axis] + 1;
                }
                Some(Window {
                    input,
                    output,
                    kernel,
                    stride,
                    dilation,
                    pad,
                })
            },
        )
}

fn bounds() -> impl Strategy<Value = Bounds> {
    (-128i32..=127, -128i32..=127, -128i32..=127).prop_map(|(zero_point, a, b)| Bounds {
        zero_point,
        low: a.min(b),
        high: a.max(b),
    })
}

/// Values with many extremes: only those make sums that come near the limits.
fn bytes(count: usize) -> impl Strategy<Value = Vec<i8>> {
    let one = prop_oneof![2 => any::<i8>(), 1 => Just(-128i8), 1 => Just(127i8)];
    prop::collection::vec(one, count)
}

fn factors(count: usize) -> impl Strategy<Value = Vec<f32>> {
    let one = prop_oneof![4 => 1e-5f32..0.1, 1 => Just(1e-30f32), 1 => Just(1e30f32)];
    prop::collection::vec(one, count)
}

#[derive(Debug, Clone)]
struct Layer {
    window: Window,
    channels: usize,
    outputs: usize,
    zero_point: i8,
    input: Vec<i8>,
    weights: Vec<i8>,
    bias: Vec<i32>,
    factor: Vec<f32>,
    bounds: Bounds,
}

fn layers(depthwise: bool, kernels: std::ops::Range<usize>) -> impl Strategy<Value = Layer> {
    layers_under(depthwise, windows(kernels))
}

/// Windows of one pixel with stride 1: rows for these need no packing.
fn one_pixel_windows() -> impl Strategy<Value = Window> {
    [1..9usize, 1..9].prop_map(|input| Window {
        input,
        output: input,
        kernel: [1, 1],
        stride: [1, 1],
        dilation: [1, 1],
        pad: [0, 0],
    })
}

fn layers_under(depthwise: bool, windows: impl Strategy<Value = Window>) -> impl Strategy<Value = Layer> {
    (windows, 1..37usize, 1..37usize, any::<i8>(), bounds()).prop_flat_map(
        move |(window, channels, outputs, zero_point, bounds)| {
            let (outputs, per_output) = match depthwise {
                true => (channels, window.taps()),
                false => (outputs, channels * window.taps()),
            };
            (
                bytes(window.input[0] * window.input[1] * channels),
                // With smaller weights, kernels may add more products in 16 bits.
                (bytes(outputs * per_output), 0..4u32),
                prop::collection::vec(-1_000_000..1_000_000i32, outputs),
                factors(outputs),
            )
                .prop_map(move |(input, (weights, small), bias, factor)| Layer {
                    window,
                    channels,
                    outputs,
                    zero_point,
                    input,
                    weights: weights.into_iter().map(|w| w >> small).collect(),
                    bias,
                    factor,
                    bounds,
                })
        },
    )
}

impl Layer {
    fn input_range(&self) -> InputRange {
        InputRange {
            zero_point: self.zero_point,
            minimum: self.input.iter().copied().min().unwrap_or(0),
        }
    }

    /// The definition: Σ w (x − z) + b over all taps and the given input channels of one output.
    fn sum(&self, y: usize, x: usize, output: usize, channels: std::ops::Range<usize>) -> i32 {
        let taps = self.window.taps();
        let mut sum = self.bias[output];
        for (i, c) in channels.clone().enumerate() {
            for tap in 0..taps {
                let (ky, kx) = (tap / self.window.kernel[1], tap % self.window.kernel[1]);
                if let (Some(sy), Some(sx)) = (self.window.input_at(0, y, ky), self.window.input_at(1, x, kx)) {
                    let value = self.input[(sy * self.window.input[1] + sx) * self.channels + c];
                    let weight = self.weights[(output * channels.len() + i) * taps + tap];
                    sum += (i32::from(value) - i32::from(self.zero_point)) * i32::from(weight);
                }
            }
        }
        sum
    }

    /// Row, column and channel of every output value.
    fn each_output(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let ([height, width], outputs) = (self.window.output, self.outputs);
        (0..height * width * outputs).map(move |i| (i / outputs / width, i / outputs % width, i % outputs))
    }
}
