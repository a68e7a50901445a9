//! Every family against the definition, bit for bit, over shapes that are multiples of nothing.

mod graphs;

use proptest::prelude::*;

use super::arithmetic::Bounds;
use super::convolution::{Convolution, Depthwise, Window};
use super::gemm::{Matrix, Product, Results, Scratches, Weights, multiply};
use super::kernels::reference::Reference;
use super::kernels::{Family, Kind};
use super::pointwise::{Operation, Pairwise, Table};
use super::pool::{AveragePool, MaxPool};

/// Calls a generic function once for each family that this processor can run.
macro_rules! for_each_family {
    ($check:ident($($argument:expr),*)) => {
        for kind in Kind::available() {
            match kind {
                Kind::Reference => $check::<Reference>($($argument),*)?,
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => $check::<super::kernels::avx2::Avx2>($($argument),*)?,
            }
        }
    };
}

type Checked = Result<(), TestCaseError>;

fn windows() -> impl Strategy<Value = Window> {
    let pair = |range: std::ops::Range<usize>| [range.clone(), range];
    (pair(1..9), pair(1..5), pair(1..4), pair(1..3), pair(0..4), pair(0..4)).prop_filter_map(
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

fn layers(depthwise: bool) -> impl Strategy<Value = Layer> {
    (windows(), 1..37usize, 1..37usize, any::<i8>(), bounds()).prop_flat_map(
        move |(window, channels, outputs, zero_point, bounds)| {
            let (outputs, per_output) = match depthwise {
                true => (channels, window.taps()),
                false => (outputs, channels * window.taps()),
            };
            (
                bytes(window.input[0] * window.input[1] * channels),
                bytes(outputs * per_output),
                prop::collection::vec(-1_000_000..1_000_000i32, outputs),
                factors(outputs),
            )
                .prop_map(move |(input, weights, bias, factor)| Layer {
                    window,
                    channels,
                    outputs,
                    zero_point,
                    input,
                    weights,
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
    let op = Depthwise::new::<F>(*window, *zero_point, weights, bias, factor);
    let wanted: Vec<i8> = layer
        .each_output()
        .map(|(y, x, c)| bounds.round(layer.sum(y, x, c, c..c + 1) as f32 * factor[c]))
        .collect();
    let mut out = vec![0; wanted.len()];
    op.run::<F>(&layer.input, *bounds, &mut out);
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
    fn convolutions_equal_the_definition(layer in layers(false)) {
        for_each_family!(check_convolution(&layer));
    }

    #[test]
    fn convolutions_after_a_relu_equal_the_definition(mut layer in layers(false)) {
        layer.input.iter_mut().for_each(|q| *q &= 127);
        layer.zero_point &= 127;
        for_each_family!(check_convolution(&layer));
    }

    #[test]
    fn depthwise_convolutions_equal_the_definition(layer in layers(true)) {
        for_each_family!(check_depthwise(&layer));
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
    fn pools_equal_the_definition(layer in layers(true), counts_padding in any::<bool>()) {
        for_each_family!(check_pools(&layer, counts_padding));
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
        fn product<F: Family>(left: &[i8], right: &[i8], bounds: Bounds) -> Result<Vec<i8>, ()> {
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
            Ok(out)
        }
        check(&product::<Reference>(&left, &right, bounds).unwrap());
        #[cfg(target_arch = "x86_64")]
        if Kind::named("avx2").is_some() {
            check(&product::<super::kernels::avx2::Avx2>(&left, &right, bounds).unwrap());
        }
    }
}
