//! Every kernel, for every family this processor can run:
//!
//!     cargo bench --bench kernels [-- PART OF A NAME]
//!
//! Sizes are those of a small encoder on a board. Items are multiply-accumulates, or values where there are none.

use affectd::model::int8::arithmetic::{Bounds, Quantization};
use affectd::model::int8::convolution::{Convolution, Depthwise, Window};
use affectd::model::int8::gemm::{Matrix, Results, Scratches, Weights, multiply};
use affectd::model::int8::grouped::Grouped;
use affectd::model::int8::kernels::{Family, Kind};
use affectd::model::int8::pointwise::{Operation, Pairwise, Table, quantize};
use affectd::model::int8::pool::{AveragePool, MaxPool};
use affectd::model::int8::product::Product;
use affectd::with_family;
use divan::Bencher;
use divan::counter::ItemsCount;

const SIDE: usize = 28;
const CHANNELS: usize = 64;
const BOUNDS: Bounds = Bounds {
    zero_point: 0,
    low: -128,
    high: 127,
};

fn main() {
    divan::main();
}

fn noise(count: usize) -> Vec<i8> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as i8
    };
    (0..count).map(next).collect()
}

fn square(kernel: usize, stride: usize) -> Window {
    Window {
        input: [SIDE; 2],
        output: [SIDE / stride; 2],
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [1; 2],
        pad: [kernel / 2; 2],
    }
}

fn picture() -> Vec<i8> {
    noise(SIDE * SIDE * CHANNELS)
}

/// A convolution after a ReLU, or after what leaves negative values too.
fn convolve<F: Family>(bencher: Bencher, window: Window, least: i8) {
    let weights = noise(CHANNELS * CHANNELS * window.taps());
    let op = Convolution::new::<F>(window, [0, least], &weights, &[0; CHANNELS], &[1e-4; CHANNELS]);
    match op.non_negative {
        true => convolve_with::<F::NonNegative>(bencher, &op),
        false => convolve_with::<F>(bencher, &op),
    }
}

fn convolve_with<F: Family>(bencher: Bencher, op: &Convolution) {
    let input: Vec<i8> = match op.non_negative {
        true => picture().into_iter().map(|q| q & 127).collect(),
        false => picture(),
    };
    let mut scratches = Scratches::default();
    scratches.reserve::<F>(&op.weights);
    let mut out = vec![0; op.window.output[0] * op.window.output[1] * CHANNELS];
    bencher.counter(ItemsCount::new(op.macs())).bench_local(|| {
        let results = Results::Quantized {
            bounds: BOUNDS,
            out: &mut out,
        };
        op.run::<F>(&input, &mut scratches, results);
    });
}

#[divan::bench(args = Kind::available())]
fn convolution_3x3(bencher: Bencher, kind: Kind) {
    with_family!(kind, F => convolve::<F>(bencher, square(3, 1), -128));
}

#[divan::bench(args = Kind::available())]
fn convolution_3x3_after_relu(bencher: Bencher, kind: Kind) {
    with_family!(kind, F => convolve::<F>(bencher, square(3, 1), 0));
}

#[divan::bench(args = Kind::available())]
fn convolution_3x3_stride_2_after_relu(bencher: Bencher, kind: Kind) {
    with_family!(kind, F => convolve::<F>(bencher, square(3, 2), 0));
}

#[divan::bench(args = Kind::available())]
fn convolution_1x1(bencher: Bencher, kind: Kind) {
    with_family!(kind, F => convolve::<F>(bencher, square(1, 1), -128));
}

#[divan::bench(args = Kind::available())]
fn convolution_1x1_after_relu(bencher: Bencher, kind: Kind) {
    with_family!(kind, F => convolve::<F>(bencher, square(1, 1), 0));
}

#[divan::bench(args = Kind::available())]
fn convolution_3x3_in_8_groups(bencher: Bencher, kind: Kind) {
    fn run<F: Family>(bencher: Bencher) {
        let (window, input) = (square(3, 1), picture());
        let weights = noise(CHANNELS * CHANNELS / 8 * window.taps());
        let mut op = Grouped::new::<F>(window, 0, 8, &weights, &[0; CHANNELS], &[1e-4; CHANNELS]);
        let mut scratches = Scratches::default();
        op.weights().for_each(|weights| scratches.reserve::<F>(weights));
        let mut out = picture();
        let bencher = bencher.counter(ItemsCount::new(op.macs()));
        bencher.bench_local(|| op.run::<F>(&input, BOUNDS, &mut scratches, &mut out));
    }
    with_family!(kind, F => run::<F>(bencher));
}

/// A depthwise convolution after a ReLU (`least` 0), or after what leaves negative values too (-128).
fn depthwise<F: Family>(bencher: Bencher, window: Window, least: i8) {
    let weights = noise(CHANNELS * window.taps());
    let op = Depthwise::new::<F>(window, [0, least], &weights, &[0; CHANNELS], &[1e-3; CHANNELS]);
    let input: Vec<i8> = picture()
        .into_iter()
        .map(|q| if least < 0 { q } else { q & 127 })
        .collect();
    let mut out = vec![0; window.output[0] * window.output[1] * CHANNELS];
    let mut scratches = Scratches::default();
    op.reserve(&mut scratches);
    let bencher = bencher.counter(ItemsCount::new(op.macs()));
    bencher.bench_local(|| op.run::<F>(&input, &mut scratches, BOUNDS, &mut out));
}

#[divan::bench(args = Kind::available())]
fn depthwise_3x3(bencher: Bencher, kind: Kind) {
    with_family!(kind, F => depthwise::<F>(bencher, square(3, 1), -128));
}

#[divan::bench(args = Kind::available())]
fn depthwise_3x3_after_relu(bencher: Bencher, kind: Kind) {
    with_family!(kind, F => depthwise::<F>(bencher, square(3, 1), 0));
}

#[divan::bench(args = Kind::available())]
fn depthwise_3x3_stride_2_after_relu(bencher: Bencher, kind: Kind) {
    with_family!(kind, F => depthwise::<F>(bencher, square(3, 2), 0));
}

#[divan::bench(args = Kind::available())]
fn depthwise_5x5_after_relu(bencher: Bencher, kind: Kind) {
    with_family!(kind, F => depthwise::<F>(bencher, square(5, 1), 0));
}

#[divan::bench(args = Kind::available())]
fn linear_1_row(bencher: Bencher, kind: Kind) {
    fn run<F: Family>(bencher: Bencher) {
        let (depth, columns) = (512, 128);
        let weights = Weights::pack::<F>(&noise(depth * columns), &vec![0; columns], &vec![1e-4; columns]);
        let mut scratches = Scratches::default();
        scratches.reserve::<F>(&weights);
        let (values, mut out) = (noise(depth), vec![0; columns]);
        bencher.counter(ItemsCount::new(depth * columns)).bench_local(|| {
            let rows = Matrix { values: &values, depth };
            let results = Results::Quantized {
                bounds: BOUNDS,
                out: &mut out,
            };
            multiply::<F>(&rows, &weights, &mut scratches, results);
        });
    }
    with_family!(kind, F => run::<F>(bencher));
}

/// Two activations, as in attention; with zero points the sums are corrected after.
fn product<F: Family>(bencher: Bencher, zero_points: [i32; 2]) {
    let size @ [rows, depth, columns] = [64, 32, 64];
    let mut op = Product::new::<F>(1, size, zero_points, 1e-3);
    let mut scratches = Scratches::default();
    scratches.reserve::<F>(op.weights());
    let (left, right) = (noise(rows * depth), noise(depth * columns));
    let mut out = vec![0; rows * columns];
    bencher
        .counter(ItemsCount::new(rows * depth * columns))
        .bench_local(|| {
            let results = Results::Quantized {
                bounds: BOUNDS,
                out: &mut out,
            };
            op.run::<F>(&left, &right, &mut scratches, results);
        });
}

#[divan::bench(args = Kind::available())]
fn product_of_activations(bencher: Bencher, kind: Kind) {
    with_family!(kind, F => product::<F>(bencher, [0, 0]));
}

#[divan::bench(args = Kind::available())]
fn product_of_activations_with_zero_points(bencher: Bencher, kind: Kind) {
    with_family!(kind, F => product::<F>(bencher, [3, -5]));
}

fn pairwise<F: Family>(bencher: Bencher, operation: Operation, repeated: bool) {
    let op = Pairwise {
        operation,
        zero_points: [3, -5],
        bounds: BOUNDS,
    };
    let (left, mut out) = (picture(), picture());
    let right = noise(if repeated { CHANNELS } else { left.len() });
    let bencher = bencher.counter(ItemsCount::new(left.len()));
    bencher.bench_local(|| op.run::<F>(&left, &right, &mut out));
}

#[divan::bench(args = Kind::available())]
fn add(bencher: Bencher, kind: Kind) {
    with_family!(kind, F => pairwise::<F>(bencher, Operation::Add { factors: [0.7, 0.9] }, false));
}

#[divan::bench(args = Kind::available())]
fn multiply_each_channel(bencher: Bencher, kind: Kind) {
    with_family!(kind, F => pairwise::<F>(bencher, Operation::Multiply { factor: 0.01 }, true));
}

#[divan::bench(args = Kind::available())]
fn table(bencher: Bencher, kind: Kind) {
    fn run<F: Family>(bencher: Bencher) {
        let quantization = Quantization {
            scale: 0.05,
            zero_point: 0,
        };
        let op = Table::of(quantization, quantization, f32::tanh);
        let (input, mut out) = (picture(), picture());
        let bencher = bencher.counter(ItemsCount::new(input.len()));
        bencher.bench_local(|| op.run::<F>(&input, &mut out));
    }
    with_family!(kind, F => run::<F>(bencher));
}

#[divan::bench(args = Kind::available())]
fn max_pool_2x2(bencher: Bencher, kind: Kind) {
    fn run<F: Family>(bencher: Bencher) {
        let window = Window {
            pad: [0; 2],
            ..square(2, 2)
        };
        let op = MaxPool {
            window,
            channels: CHANNELS,
            table: None,
        };
        let (input, mut out) = (picture(), noise(SIDE * SIDE / 4 * CHANNELS));
        let bencher = bencher.counter(ItemsCount::new(input.len()));
        bencher.bench_local(|| op.run::<F>(&input, &mut out));
    }
    with_family!(kind, F => run::<F>(bencher));
}

#[divan::bench(args = Kind::available())]
fn global_average_pool(bencher: Bencher, kind: Kind) {
    fn run<F: Family>(bencher: Bencher) {
        let window = Window {
            output: [1; 2],
            pad: [0; 2],
            ..square(SIDE, 1)
        };
        let mut op = AveragePool {
            window,
            channels: CHANNELS,
            zero_point: 0,
            factor: 1.0,
            counts_padding: false,
            bounds: BOUNDS,
            sums: vec![0; CHANNELS],
        };
        let (input, mut out) = (picture(), vec![0; CHANNELS]);
        let bencher = bencher.counter(ItemsCount::new(input.len()));
        bencher.bench_local(|| op.run::<F>(&input, &mut out));
    }
    with_family!(kind, F => run::<F>(bencher));
}

#[divan::bench(args = Kind::available())]
fn quantize_a_picture(bencher: Bencher, kind: Kind) {
    fn run<F: Family>(bencher: Bencher) {
        let to = Quantization {
            scale: 1.0 / 127.0,
            zero_point: 0,
        };
        let input: Vec<f32> = noise(112 * 112 * 3).into_iter().map(|q| f32::from(q) / 128.0).collect();
        let mut out = vec![0; input.len()];
        let bencher = bencher.counter(ItemsCount::new(input.len()));
        bencher.bench_local(|| quantize::<F>(&input, 3, to, &mut out));
    }
    with_family!(kind, F => run::<F>(bencher));
}
