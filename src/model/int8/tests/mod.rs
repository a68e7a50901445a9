//! Every family against the definition, bit for bit, over shapes that are multiples of nothing.

mod composed;
mod fallback;
mod graphs;
mod sketch;

use proptest::prelude::*;

use super::arithmetic::Bounds;
use super::convolution::{Convolution, Depthwise, Window};
use super::gemm::{Matrix, Product, Results, Scratches, Weights, multiply};
use super::kernels::{Family, Kind, MAX_NR, MAX_TILE, Wanted, with_family};
use super::pointwise::{Operation, Pairwise, Table};
use super::pool::{AveragePool, MaxPool};

/// Calls a generic function once for each family that this processor can run.
macro_rules! for_each_family {
    ($check:ident($($argument:expr),*)) => {
        for kind in Kind::available() {
            with_family!(kind, F => $check::<F>($($argument),*))?;
        }
    };
}

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

/// Values that make extremes likely: sums that come near what 32 bits hold are made of nothing else.
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

/// One pixel under each, and nothing else: the layers whose rows need not be packed.
fn pointwise() -> impl Strategy<Value = Window> {
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
                // Kernels may take other ways with weights of which more fit 16 bits.
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
    /// Σ w (x − z) + b over the taps and `channels` of one output, straight from the definition.
    fn sum(&self, y: usize, x: usize, output: usize, channels: std::ops::Range<usize>) -> i32 {
        let taps = self.window.taps();
        let mut sum = self.bias[output];
        for (i, c) in channels.clone().enumerate() {
            for tap in 0..taps {
                let (ky, kx) = (tap / self.window.kernel[1], tap % self.window.kernel[1]);
                if let (Some(sy), Some(sx)) = (self.window.under(0, y, ky), self.window.under(1, x, kx)) {
                    let value = self.input[(sy * self.window.input[1] + sx) * self.channels + c];
                    let weight = self.weights[(output * channels.len() + i) * taps + tap];
                    sum += (i32::from(value) - i32::from(self.zero_point)) * i32::from(weight);
                }
            }
        }
        sum
    }

    fn each_output(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let ([height, width], outputs) = (self.window.output, self.outputs);
        (0..height * width * outputs).map(move |i| (i / outputs / width, i / outputs % width, i % outputs))
    }
}

fn check_convolution<F: Family>(layer: &Layer) -> Checked {
    let Layer {
        window,
        zero_point,
        weights,
        bias,
        factor,
        ..
    } = layer;
    let least = layer.input.iter().copied().min().unwrap_or(0);
    let op = Convolution::new::<F>(*window, [*zero_point, least], weights, bias, factor);
    match op.non_negative {
        true => check_run::<F::NonNegative>(layer, &op),
        false => check_run::<F>(layer, &op),
    }
}

fn check_run<F: Family>(layer: &Layer, op: &Convolution) -> Checked {
    let factor = &layer.factor;
    let mut scratches = Scratches::default();
    scratches.reserve::<F>(&op.weights);
    let wanted: Vec<i32> = layer
        .each_output()
        .map(|(y, x, o)| layer.sum(y, x, o, 0..layer.channels))
        .collect();

    let mut out = vec![0; wanted.len()];
    let bounds = layer.bounds;
    op.run::<F>(
        &layer.input,
        &mut scratches,
        Results::Quantized { bounds, out: &mut out },
    );
    for (i, (sum, out)) in wanted.iter().zip(out).enumerate() {
        prop_assert_eq!(bounds.round(*sum as f32 * factor[i % layer.outputs]), out);
    }

    let mut real = vec![0.0; wanted.len()];
    let limits = [f32::NEG_INFINITY, 1e6];
    op.run::<F>(&layer.input, &mut scratches, Results::Real { limits, out: &mut real });
    let plane = wanted.len() / layer.outputs;
    for (i, sum) in wanted.iter().enumerate() {
        let (pixel, o) = (i / layer.outputs, i % layer.outputs);
        prop_assert_eq!((*sum as f32 * factor[o]).min(1e6), real[o * plane + pixel]);
    }
    Ok(())
}

fn check_depthwise<F: Family>(layer: &Layer) -> Checked {
    let Layer {
        window,
        zero_point,
        weights,
        bias,
        factor,
        bounds,
        ..
    } = layer;
    let least = layer.input.iter().copied().min().unwrap_or(0);
    let op = Depthwise::new::<F>(*window, [*zero_point, least], weights, bias, factor);
    let wanted: Vec<i8> = layer
        .each_output()
        .map(|(y, x, c)| bounds.round(layer.sum(y, x, c, c..c + 1) as f32 * factor[c]))
        .collect();
    let mut out = vec![0; wanted.len()];
    let mut scratches = Scratches::default();
    op.reserve(&mut scratches);
    op.run::<F>(&layer.input, &mut scratches, *bounds, &mut out);
    prop_assert_eq!(wanted, out);
    Ok(())
}

fn check_matrices<F: Family>(left: &[i8], right: &[i8], columns: usize, bounds: Bounds) -> Checked {
    let depth = right.len() / columns;
    let rows = left.len() / depth;
    let sum = |r: usize, c: usize| -> i32 {
        (0..depth)
            .map(|k| i32::from(left[r * depth + k]) * i32::from(right[k * columns + c]))
            .sum()
    };
    let wanted: Vec<i8> = (0..rows * columns)
        .map(|i| bounds.round(sum(i / columns, i % columns) as f32 * 0.01))
        .collect();

    let mut product = Product::new::<F>(depth, columns, 0.01);
    let mut scratches = Scratches::default();
    scratches.reserve::<F>(product.weights());
    let mut out = vec![0; wanted.len()];
    product.run::<F>(
        left,
        right,
        &mut scratches,
        Results::Quantized { bounds, out: &mut out },
    );
    prop_assert_eq!(&wanted, &out);

    let transposed: Vec<i8> = (0..right.len())
        .map(|i| right[i % depth * columns + i / depth])
        .collect();
    let weights = Weights::pack::<F>(&transposed, &vec![0; columns], &vec![0.01; columns]);
    out.fill(0);
    let results = Results::Quantized { bounds, out: &mut out };
    multiply::<F>(&Matrix { values: left, depth }, &weights, &mut scratches, results);
    prop_assert_eq!(&wanted, &out);
    Ok(())
}

fn check_requantization<F: Family>(
    acc: &[i32],
    bias: &[i32],
    factor: &[f32],
    bounds: Bounds,
    wanted: Wanted,
) -> Checked {
    let Wanted { rows, columns, stride } = wanted;
    // As many as the family can take at most, or few.
    for columns in [columns.min(F::NR), F::NR, F::NR - 1] {
        let wanted = Wanted {
            rows,
            columns,
            stride: stride.max(columns),
        };
        let untouched = 77;
        let mut out = vec![untouched; (rows - 1) * wanted.stride + columns];
        F::requantize_tile(acc, wanted, bias, factor, bounds, &mut out);
        for (i, out) in out.into_iter().enumerate() {
            let (r, c) = (i / wanted.stride, i % wanted.stride);
            let sum = || acc[r * F::NR + c].wrapping_add(bias[c]) as f32;
            let right = if c < columns {
                bounds.round(sum() * factor[c])
            } else {
                untouched
            };
            prop_assert_eq!(right, out);
        }
    }
    Ok(())
}

/// Nine values of each channel times weights one: as a matrix product and as a depthwise convolution.
fn check_factors<F: Family>(values: &[i8], factor: &[f32], bounds: Bounds) -> Checked {
    let channels = factor.len();
    let mut scratches = Scratches::default();
    let sum = |values: &mut dyn Iterator<Item = &i8>| values.map(|q| i32::from(*q)).sum::<i32>() as f32;

    let weights = Weights::pack::<F>(&vec![1; 9 * channels], &vec![0; channels], factor);
    scratches.reserve::<F>(&weights);
    let mut out = vec![0; channels * channels];
    let results = Results::Quantized { bounds, out: &mut out };
    multiply::<F>(&Matrix { values, depth: 9 }, &weights, &mut scratches, results);
    for (values, out) in values.chunks(9).zip(out.chunks(channels)) {
        let sum = sum(&mut values.iter());
        let wanted: Vec<i8> = factor.iter().map(|factor| bounds.round(sum * factor)).collect();
        prop_assert_eq!(wanted, out);
    }

    let window = Window {
        input: [3, 3],
        output: [1, 1],
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        pad: [0, 0],
    };
    let op = Depthwise::new::<F>(window, [0, i8::MIN], &vec![1; 9 * channels], &vec![0; channels], factor);
    op.reserve(&mut scratches);
    let mut out = vec![0; channels];
    op.run::<F>(values, &mut scratches, bounds, &mut out);
    let wanted: Vec<i8> = (0..channels)
        .map(|c| bounds.round(sum(&mut values.iter().skip(c).step_by(channels)) * factor[c]))
        .collect();
    prop_assert_eq!(wanted, out);
    Ok(())
}

fn check_pairs<F: Family>(pairwise: Pairwise, left: &[i8], right: &[i8]) -> Checked {
    let mut out = vec![0; left.len()];
    pairwise.run::<F>(left, right, &mut out);
    let centred = |q: i8, side: usize| (i32::from(q) - pairwise.zero_points[side]) as f32;
    for (i, out) in out.iter().enumerate() {
        let (l, r) = (centred(left[i], 0), centred(right[i % right.len()], 1));
        let wanted = match pairwise.operation {
            Operation::Add { factors: [a, b] } => l * a + r * b,
            Operation::Multiply { factor } => l * r * factor,
        };
        prop_assert_eq!(pairwise.bounds.round(wanted), *out);
    }
    Ok(())
}

fn check_pools<F: Family>(layer: &Layer, counts_padding: bool) -> Checked {
    let Layer {
        window,
        channels,
        zero_point,
        input,
        bounds,
        ..
    } = layer;
    let (zero_point, channels) = (i32::from(*zero_point), *channels);
    let under = |y: usize, x: usize, c: usize| -> Vec<i8> {
        (0..window.taps())
            .filter_map(|tap| {
                let (ky, kx) = (tap / window.kernel[1], tap % window.kernel[1]);
                let (sy, sx) = (window.under(0, y, ky)?, window.under(1, x, kx)?);
                Some(input[(sy * window.input[1] + sx) * channels + c])
            })
            .collect()
    };
    let [height, width] = window.output;
    let mut largest = vec![0; height * width * channels];
    let table = Some(Table::of(
        super::arithmetic::Quantization {
            scale: 1.0,
            zero_point: 0,
        },
        super::arithmetic::Quantization {
            scale: 1.5,
            zero_point: 3,
        },
        |x| x,
    ));
    MaxPool {
        window: *window,
        channels,
        table: table.clone(),
    }
    .run::<F>(input, &mut largest);
    let mut mean = vec![0; largest.len()];
    let mut average = AveragePool {
        window: *window,
        channels,
        zero_point,
        factor: 0.7,
        counts_padding,
        bounds: *bounds,
        sums: vec![0; channels],
    };
    average.run::<F>(input, &mut mean);
    for i in 0..largest.len() {
        let values = under(i / channels / width, i / channels % width, i % channels);
        let top = values.iter().copied().max().unwrap_or(i8::MIN);
        prop_assert_eq!(table.as_ref().map(|t| t.at(top)), Some(largest[i]));
        let sum: i32 = values.iter().map(|v| i32::from(*v) - zero_point).sum();
        let count = if counts_padding { window.taps() } else { values.len() };
        prop_assert_eq!(bounds.round(sum as f32 * (0.7 / count.max(1) as f32)), mean[i]);
    }
    Ok(())
}

proptest! {
    #[test]
    fn convolutions_equal_the_definition(layer in layers(false, 1..5)) {
        for_each_family!(check_convolution(&layer));
    }

    #[test]
    fn convolutions_after_a_relu_equal_the_definition(mut layer in layers(false, 1..5)) {
        layer.input.iter_mut().for_each(|q| *q &= 127);
        layer.zero_point &= 127;
        for_each_family!(check_convolution(&layer));
    }

    #[test]
    fn pointwise_convolutions_equal_the_definition(layer in layers_under(false, pointwise())) {
        for_each_family!(check_convolution(&layer));
    }

    #[test]
    fn pointwise_convolutions_after_a_relu_equal_the_definition(mut layer in layers_under(false, pointwise())) {
        layer.input.iter_mut().for_each(|q| *q &= 127);
        layer.zero_point &= 127;
        for_each_family!(check_convolution(&layer));
    }

    #[test]
    fn depthwise_convolutions_equal_the_definition(layer in layers(true, 1..5)) {
        for_each_family!(check_depthwise(&layer));
    }

    #[test]
    fn depthwise_convolutions_after_a_relu_equal_the_definition(mut layer in layers(true, 1..5)) {
        layer.input.iter_mut().for_each(|q| *q &= 127);
        layer.zero_point &= 127;
        for_each_family!(check_depthwise(&layer));
    }

    #[test]
    fn depthwise_convolutions_of_nine_taps_equal_the_definition(layer in layers(true, 3..4)) {
        for_each_family!(check_depthwise(&layer));
    }

    #[test]
    fn requantization_equals_the_definition_whatever_the_factors(
        (acc, bias) in (prop::collection::vec(any::<i32>(), MAX_TILE), prop::collection::vec(any::<i32>(), MAX_NR)),
        factor in prop::collection::vec(prop::num::f32::ANY, MAX_NR),
        bounds in bounds(),
        rows in 1..5usize,
        (columns, apart) in (1..5usize, 0..9usize),
    ) {
        let wanted = Wanted { rows, columns, stride: columns + apart };
        for_each_family!(check_requantization(&acc, &bias, &factor, bounds, wanted));
    }

    #[test]
    fn products_equal_the_definition_whatever_the_factors(
        (values, factor) in (1..40usize).prop_flat_map(|channels| {
            // Most of them usual, so that those that are not stand among others.
            let factor = prop_oneof![9 => 1e-4f32..1.0, 1 => prop::num::f32::ANY];
            (bytes(9 * channels), prop::collection::vec(factor, channels))
        }),
        bounds in bounds(),
    ) {
        for_each_family!(check_factors(&values, &factor, bounds));
    }

    #[test]
    fn matrix_products_equal_the_definition(
        (left, right, columns) in (1..20usize, 1..40usize, 1..40usize).prop_flat_map(|(rows, depth, columns)| {
            (bytes(rows * depth), bytes(depth * columns), Just(columns))
        }),
        bounds in bounds(),
    ) {
        for_each_family!(check_matrices(&left, &right, columns, bounds));
    }

    #[test]
    fn sums_and_products_of_tensors_equal_the_definition(
        (left, right) in (1..5usize, 1..40usize).prop_flat_map(|(times, n)| (bytes(times * n), bytes(n))),
        zero_points in [-128i32..=127, -128i32..=127],
        bounds in bounds(),
        multiply in any::<bool>(),
        factors in [1e-4f32..10.0, 1e-4f32..10.0],
    ) {
        let operation = match multiply {
            true => Operation::Multiply { factor: factors[0] },
            false => Operation::Add { factors },
        };
        let pairwise = Pairwise { operation, zero_points, bounds };
        for_each_family!(check_pairs(pairwise, &left, &right));
    }

    #[test]
    fn pools_equal_the_definition(layer in layers(true, 1..5), counts_padding in any::<bool>()) {
        for_each_family!(check_pools(&layer, counts_padding));
    }
}

/// Equal extremes under weights of which two or four just fit 16 bits together, or just do not.
#[test]
fn sums_of_products_at_the_edge_of_sixteen_bits_do_not_overflow() {
    fn check<F: Family>(a: i8, four: [i8; 4]) {
        let bounds = Bounds {
            zero_point: 0,
            low: -128,
            high: 127,
        };
        // Weights that lie 1, 2, 4 and so on from each other are those that meet.
        for apart in [1, 2, 4, 8] {
            let weight = |k: usize| four[k / apart % 4];
            let (left, right): (Vec<i8>, Vec<i8>) = (vec![a; 64], (0..64).map(weight).collect());
            let wanted: i32 = right.iter().map(|w| i32::from(a) * i32::from(*w)).sum();
            let mut product = Product::new::<F>(64, 1, 1.0);
            let mut scratches = Scratches::default();
            scratches.reserve::<F>(product.weights());
            let (limits, mut out) = ([f32::NEG_INFINITY, f32::INFINITY], [0.0]);
            let results = Results::Real { limits, out: &mut out };
            product.run::<F>(&left, &right, &mut scratches, results);
            assert_eq!(wanted as f32, out[0], "{a} × {four:?}");
        }
        let window = Window {
            input: [3, 3],
            output: [1, 1],
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            pad: [0, 0],
        };
        let weights: Vec<i8> = (0..16 * 9).map(|i| four[i % 9 % 4]).collect();
        let sum: i32 = weights[..9].iter().map(|w| i32::from(a) * i32::from(*w)).sum();
        let op = Depthwise::new::<F>(window, [0, a], &weights, &[0; 16], &[1e-3; 16]);
        let (mut out, mut scratches) = ([0; 16], Scratches::default());
        op.reserve(&mut scratches);
        op.run::<F>(&[a; 16 * 9], &mut scratches, bounds, &mut out);
        assert_eq!([bounds.round(sum as f32 * 1e-3); 16], out, "{a} × {four:?}");
    }
    let edges = [
        [63, 64, 64, 64],
        [64, 64, 64, 64],
        [64, 64, 65, 65],
        [64, 65, 65, 65],
        [127, 127, -1, -1],
        [-127, -128, 0, 0],
        [-128, -128, -128, -128],
        [127, 127, 127, 127],
    ];
    for four in edges.into_iter().flat_map(|four| [four, four.map(i8::saturating_neg)]) {
        for kind in Kind::available() {
            with_family!(kind, F => {
                check::<F>(-128, four);
                check::<F>(127, four);
                check::<<F as Family>::NonNegative>(127, four);
            });
        }
    }
}

/// The longest sums there are: every product as large as can be, at a depth no network of ours reaches.
#[test]
fn sums_of_extremes_do_not_overflow() {
    let depth = 60_000;
    for (a, b) in [(-128i8, -128i8), (-128, 127), (127, 127)] {
        let check = |out: &[i8]| assert_eq!(out[0], if a == b { 127 } else { -128 });
        let (left, right) = (vec![a; depth], vec![b; depth]);
        let bounds = Bounds {
            zero_point: 0,
            low: -128,
            high: 127,
        };
        fn product<F: Family>(left: &[i8], right: &[i8], bounds: Bounds) -> Vec<i8> {
            let mut product = Product::new::<F>(right.len(), 1, 1.0);
            let mut scratches = Scratches::default();
            scratches.reserve::<F>(product.weights());
            let mut out = vec![0];
            product.run::<F>(
                left,
                right,
                &mut scratches,
                Results::Quantized { bounds, out: &mut out },
            );
            out
        }
        for kind in Kind::available() {
            check(&with_family!(kind, F => product::<F>(&left, &right, bounds)));
        }
    }
}
