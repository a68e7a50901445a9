//! Benchmarks of every operator, for every instruction set of this processor:
//!
//!     cargo bench --bench kernels [-- PART OF A NAME]
//!
//! The sizes are those of a small encoder on a board. The throughput counts multiply-accumulates, or values where there are none.

use affectd::model::int8::Isa;
use affectd::model::int8::operators::arithmetic::{Bounds, InputRange, Operation, Pairwise, Quantization};
use affectd::model::int8::operators::batched_matmul::{BatchedMatmul, MatrixSize};
use affectd::model::int8::operators::convolution::Convolution;
use affectd::model::int8::operators::depthwise::DepthwiseConvolution;
use affectd::model::int8::operators::elementwise::{Table, quantize};
use affectd::model::int8::operators::gemm::{Matrix, PackedWeights, Results, multiply};
use affectd::model::int8::operators::grouped_convolution::GroupedConvolution;
use affectd::model::int8::operators::kernels::Microkernels;
use affectd::model::int8::operators::layout::Workspace;
use affectd::model::int8::operators::pool::{AveragePool, MaxPool};
use affectd::model::int8::operators::window::Window;
use affectd::with_microkernels;
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

fn image() -> Vec<i8> {
    noise(SIDE * SIDE * CHANNELS)
}

/// The input of a layer after a ReLU.
const AFTER_RELU: InputRange = InputRange {
    zero_point: 0,
    minimum: 0,
};
/// The input of a layer with values of any sign.
const ANY_SIGN: InputRange = InputRange {
    zero_point: 0,
    minimum: i8::MIN,
};

/// The values of an input with this range.
fn image_in(range: InputRange) -> Vec<i8> {
    let mask = if range.is_non_negative() { 127 } else { -1 };
    image().into_iter().map(|q| q & mask).collect()
}

fn convolve<M: Microkernels>(bencher: Bencher, window: Window, input: InputRange) {
    let weights = noise(CHANNELS * CHANNELS * window.taps());
    let op = Convolution::new::<M>(window, input, &weights, &[0; CHANNELS], &[1e-4; CHANNELS]);
    match op.non_negative {
        true => run_convolution::<M::NonNegative>(bencher, &op, &image_in(input)),
        false => run_convolution::<M>(bencher, &op, &image_in(input)),
    }
}

fn run_convolution<M: Microkernels>(bencher: Bencher, op: &Convolution, input: &[i8]) {
    let mut workspace = Workspace::default();
    op.weights.reserve::<M>(&mut workspace);
    let mut out = vec![0; op.window.output[0] * op.window.output[1] * CHANNELS];
    bencher.counter(ItemsCount::new(op.macs())).bench_local(|| {
        let results = Results::Quantized {
            bounds: BOUNDS,
            out: &mut out,
        };
        op.run::<M>(input, &mut workspace, results);
    });
}

#[divan::bench(args = Isa::available())]
fn convolution_3x3(bencher: Bencher, isa: Isa) {
    with_microkernels!(isa, M => convolve::<M>(bencher, square(3, 1), ANY_SIGN));
}

#[divan::bench(args = Isa::available())]
fn convolution_3x3_after_relu(bencher: Bencher, isa: Isa) {
    with_microkernels!(isa, M => convolve::<M>(bencher, square(3, 1), AFTER_RELU));
}

#[divan::bench(args = Isa::available())]
fn convolution_3x3_stride_2_after_relu(bencher: Bencher, isa: Isa) {
    with_microkernels!(isa, M => convolve::<M>(bencher, square(3, 2), AFTER_RELU));
}

#[divan::bench(args = Isa::available())]
fn convolution_1x1(bencher: Bencher, isa: Isa) {
    with_microkernels!(isa, M => convolve::<M>(bencher, square(1, 1), ANY_SIGN));
}

#[divan::bench(args = Isa::available())]
fn convolution_1x1_after_relu(bencher: Bencher, isa: Isa) {
    with_microkernels!(isa, M => convolve::<M>(bencher, square(1, 1), AFTER_RELU));
}

#[divan::bench(args = Isa::available())]
fn grouped_convolution_3x3(bencher: Bencher, isa: Isa) {
    fn run<M: Microkernels>(bencher: Bencher) {
        let (window, input) = (square(3, 1), image());
        let weights = noise(CHANNELS * CHANNELS / 8 * window.taps());
        let op = GroupedConvolution::new::<M>(window, 0, 8, &weights, &[0; CHANNELS], &[1e-4; CHANNELS]);
        let mut workspace = Workspace::default();
        op.reserve::<M>(&mut workspace);
        let mut out = image();
        let bencher = bencher.counter(ItemsCount::new(op.macs()));
        bencher.bench_local(|| op.run::<M>(&input, BOUNDS, &mut workspace, &mut out));
    }
    with_microkernels!(isa, M => run::<M>(bencher));
}

fn depthwise<M: Microkernels>(bencher: Bencher, window: Window, range: InputRange) {
    let weights = noise(CHANNELS * window.taps());
    let op = DepthwiseConvolution::new::<M>(window, range, &weights, &[0; CHANNELS], &[1e-3; CHANNELS]);
    let input = image_in(range);
    let mut out = vec![0; window.output[0] * window.output[1] * CHANNELS];
    let mut workspace = Workspace::default();
    op.reserve(&mut workspace);
    let bencher = bencher.counter(ItemsCount::new(op.macs()));
    bencher.bench_local(|| op.run::<M>(&input, &mut workspace, BOUNDS, &mut out));
}

#[divan::bench(args = Isa::available())]
fn depthwise_3x3(bencher: Bencher, isa: Isa) {
    with_microkernels!(isa, M => depthwise::<M>(bencher, square(3, 1), ANY_SIGN));
}

#[divan::bench(args = Isa::available())]
fn depthwise_3x3_after_relu(bencher: Bencher, isa: Isa) {
    with_microkernels!(isa, M => depthwise::<M>(bencher, square(3, 1), AFTER_RELU));
}

#[divan::bench(args = Isa::available())]
fn depthwise_3x3_stride_2_after_relu(bencher: Bencher, isa: Isa) {
    with_microkernels!(isa, M => depthwise::<M>(bencher, square(3, 2), AFTER_RELU));
}

#[divan::bench(args = Isa::available())]
fn depthwise_5x5_after_relu(bencher: Bencher, isa: Isa) {
    with_microkernels!(isa, M => depthwise::<M>(bencher, square(5, 1), AFTER_RELU));
}

#[divan::bench(args = Isa::available())]
fn linear_1_row(bencher: Bencher, isa: Isa) {
    fn run<M: Microkernels>(bencher: Bencher) {
        let (depth, columns) = (512, 128);
        let weights = PackedWeights::pack::<M>(&noise(depth * columns), &vec![0; columns], &vec![1e-4; columns]);
        let mut workspace = Workspace::default();
        weights.reserve::<M>(&mut workspace);
        let (values, mut out) = (noise(depth), vec![0; columns]);
        bencher.counter(ItemsCount::new(depth * columns)).bench_local(|| {
            let rows = Matrix { values: &values, depth };
            let results = Results::Quantized {
                bounds: BOUNDS,
                out: &mut out,
            };
            multiply::<M>(&rows, &weights, &mut workspace, results);
        });
    }
    with_microkernels!(isa, M => run::<M>(bencher));
}

/// A product of two activations, as in attention.
fn product<M: Microkernels>(bencher: Bencher, zero_points: [i32; 2]) {
    let (rows, depth, columns) = (64, 32, 64);
    let size = MatrixSize { rows, depth, columns };
    let op = BatchedMatmul::new::<M>(1, size, zero_points, 1e-3);
    let mut workspace = Workspace::default();
    op.reserve::<M>(&mut workspace);
    let (left, right) = (noise(rows * depth), noise(depth * columns));
    let mut out = vec![0; rows * columns];
    bencher
        .counter(ItemsCount::new(rows * depth * columns))
        .bench_local(|| {
            let results = Results::Quantized {
                bounds: BOUNDS,
                out: &mut out,
            };
            op.run::<M>(&left, &right, &mut workspace, results);
        });
}

#[divan::bench(args = Isa::available())]
fn product_of_activations(bencher: Bencher, isa: Isa) {
    with_microkernels!(isa, M => product::<M>(bencher, [0, 0]));
}

#[divan::bench(args = Isa::available())]
fn product_of_activations_with_zero_points(bencher: Bencher, isa: Isa) {
    with_microkernels!(isa, M => product::<M>(bencher, [3, -5]));
}

fn pairwise<M: Microkernels>(bencher: Bencher, operation: Operation, repeated: bool) {
    let op = Pairwise {
        operation,
        zero_points: [3, -5],
        bounds: BOUNDS,
    };
    let (left, mut out) = (image(), image());
    let right = noise(if repeated { CHANNELS } else { left.len() });
    let bencher = bencher.counter(ItemsCount::new(left.len()));
    bencher.bench_local(|| op.run::<M>(&left, &right, &mut out));
}

#[divan::bench(args = Isa::available())]
fn add(bencher: Bencher, isa: Isa) {
    with_microkernels!(isa, M => pairwise::<M>(bencher, Operation::Add { factors: [0.7, 0.9] }, false));
}

#[divan::bench(args = Isa::available())]
fn multiply_each_channel(bencher: Bencher, isa: Isa) {
    with_microkernels!(isa, M => pairwise::<M>(bencher, Operation::Multiply { factor: 0.01 }, true));
}

#[divan::bench(args = Isa::available())]
fn table(bencher: Bencher, isa: Isa) {
    fn run<M: Microkernels>(bencher: Bencher) {
        let quantization = Quantization {
            scale: 0.05,
            zero_point: 0,
        };
        let op = Table::of(quantization, quantization, f32::tanh);
        let (input, mut out) = (image(), image());
        let bencher = bencher.counter(ItemsCount::new(input.len()));
        bencher.bench_local(|| op.run::<M>(&input, &mut out));
    }
    with_microkernels!(isa, M => run::<M>(bencher));
}

#[divan::bench(args = Isa::available())]
fn max_pool_2x2(bencher: Bencher, isa: Isa) {
    fn run<M: Microkernels>(bencher: Bencher) {
        let window = Window {
            pad: [0; 2],
            ..square(2, 2)
        };
        let op = MaxPool {
            window,
            channels: CHANNELS,
            table: None,
        };
        let (input, mut out) = (image(), noise(SIDE * SIDE / 4 * CHANNELS));
        let bencher = bencher.counter(ItemsCount::new(input.len()));
        bencher.bench_local(|| op.run::<M>(&input, &mut out));
    }
    with_microkernels!(isa, M => run::<M>(bencher));
}

#[divan::bench(args = Isa::available())]
fn global_average_pool(bencher: Bencher, isa: Isa) {
    fn run<M: Microkernels>(bencher: Bencher) {
        let window = Window {
            output: [1; 2],
            pad: [0; 2],
            ..square(SIDE, 1)
        };
        let op = AveragePool {
            window,
            channels: CHANNELS,
            zero_point: 0,
            factor: 1.0,
            counts_padding: false,
            bounds: BOUNDS,
        };
        let (input, mut out) = (image(), vec![0; CHANNELS]);
        let mut workspace = Workspace::default();
        op.reserve(&mut workspace);
        let bencher = bencher.counter(ItemsCount::new(input.len()));
        bencher.bench_local(|| op.run::<M>(&input, &mut workspace, &mut out));
    }
    with_microkernels!(isa, M => run::<M>(bencher));
}

#[divan::bench(args = Isa::available())]
fn quantize_an_image(bencher: Bencher, isa: Isa) {
    fn run<M: Microkernels>(bencher: Bencher) {
        let to = Quantization {
            scale: 1.0 / 127.0,
            zero_point: 0,
        };
        let input: Vec<f32> = noise(112 * 112 * 3).into_iter().map(|q| f32::from(q) / 128.0).collect();
        let mut out = vec![0; input.len()];
        let bencher = bencher.counter(ItemsCount::new(input.len()));
        bencher.bench_local(|| quantize::<M>(&input, 3, to, &mut out));
    }
    with_microkernels!(isa, M => run::<M>(bencher));
}
