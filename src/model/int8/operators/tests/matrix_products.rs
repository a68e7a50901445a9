//! Matrix products, and the extremes of their sums.

use proptest::prelude::*;

use super::super::arithmetic::{Bounds, InputRange};
use super::super::batched_matmul::{BatchedMatmul, MatrixSize};
use super::super::depthwise::DepthwiseConvolution;
use super::super::gemm::{Matrix, MatrixProduct, PackedWeights, Results, multiply};
use super::super::kernels::{Isa, Microkernels, with_microkernels};
use super::super::layout::Workspace;
use super::super::window::Window;
use super::{Checked, bounds, bytes, for_each_isa};

fn check_matrices<M: Microkernels>(left: &[i8], right: &[i8], columns: usize, bounds: Bounds) -> Checked {
    let depth = right.len() / columns;
    let rows = left.len() / depth;
    let sum = |r: usize, c: usize| -> i32 {
        (0..depth)
            .map(|k| i32::from(left[r * depth + k]) * i32::from(right[k * columns + c]))
            .sum()
    };
    let expected: Vec<i8> = (0..rows * columns)
        .map(|i| bounds.round(sum(i / columns, i % columns) as f32 * 0.01))
        .collect();

    let product = MatrixProduct::new::<M>(depth, columns, 0.01);
    let mut workspace = Workspace::default();
    product.reserve::<M>(&mut workspace);
    let mut out = vec![0; expected.len()];
    product.run::<M>(
        left,
        right,
        &mut workspace,
        Results::Quantized { bounds, out: &mut out },
    );
    prop_assert_eq!(&expected, &out);

    let transposed: Vec<i8> = (0..right.len())
        .map(|i| right[i % depth * columns + i / depth])
        .collect();
    let weights = PackedWeights::pack::<M>(&transposed, &vec![0; columns], &vec![0.01; columns]);
    out.fill(0);
    let results = Results::Quantized { bounds, out: &mut out };
    multiply::<M>(&Matrix { values: left, depth }, &weights, &mut workspace, results);
    prop_assert_eq!(&expected, &out);
    Ok(())
}

#[derive(Debug, Clone)]
struct Matrices {
    batch: usize,
    size: MatrixSize,
    left: Vec<i8>,
    right: Vec<i8>,
}

fn matrices() -> impl Strategy<Value = Matrices> {
    (1..4usize, 1..9usize, 1..40usize, 1..20usize).prop_flat_map(|(batch, rows, depth, columns)| {
        let size = MatrixSize { rows, depth, columns };
        (bytes(batch * rows * depth), bytes(batch * depth * columns)).prop_map(move |(left, right)| Matrices {
            batch,
            size,
            left,
            right,
        })
    })
}

fn check_batched_matmul<M: Microkernels>(matrices: &Matrices, zero_points: [i32; 2], bounds: Bounds) -> Checked {
    let Matrices {
        batch,
        size,
        left,
        right,
    } = matrices;
    let MatrixSize { rows, depth, columns } = *size;
    let sum = |i: usize| -> i32 {
        let (matrix, row, column) = (i / columns / rows, i / columns % rows, i % columns);
        let products = (0..depth).map(|k| {
            let a = left[(matrix * rows + row) * depth + k];
            let b = right[(matrix * depth + k) * columns + column];
            (i32::from(a) - zero_points[0]) * (i32::from(b) - zero_points[1])
        });
        products.sum()
    };
    let expected: Vec<i8> = (0..batch * rows * columns)
        .map(|i| bounds.round(sum(i) as f32 * 0.003))
        .collect();
    let product = BatchedMatmul::new::<M>(*batch, *size, zero_points, 0.003);
    let mut workspace = Workspace::default();
    product.reserve::<M>(&mut workspace);
    let mut out = vec![0; expected.len()];
    let results = Results::Quantized { bounds, out: &mut out };
    product.run::<M>(left, right, &mut workspace, results);
    prop_assert_eq!(expected, out);
    Ok(())
}

proptest! {
    #[test]
    fn matrix_products_equal_the_definition(
        (left, right, columns) in (1..20usize, 1..40usize, 1..40usize).prop_flat_map(|(rows, depth, columns)| {
            (bytes(rows * depth), bytes(depth * columns), Just(columns))
        }),
        bounds in bounds(),
    ) {
        for_each_isa!(check_matrices(&left, &right, columns, bounds));
    }

    #[test]
    fn batched_products_with_zero_points_equal_the_definition(
        matrices in matrices(),
        zero_points in prop_oneof![Just([0, 0]), [-128i32..=127, -128i32..=127]],
        bounds in bounds(),
    ) {
        for_each_isa!(check_batched_matmul(&matrices, zero_points, bounds));
    }
}

/// Equal extreme values times weights. The sum of two or four products just fits into 16 bits, or just exceeds them.
#[test]
fn sums_at_the_limit_of_16_bits_do_not_overflow() {
    fn check<M: Microkernels>(a: i8, four: [i8; 4]) {
        let bounds = Bounds {
            zero_point: 0,
            low: -128,
            high: 127,
        };
        // Kernels add products whose weights lie 1, 2, 4 or 8 apart.
        for apart in [1, 2, 4, 8] {
            let weight = |k: usize| four[k / apart % 4];
            let (left, right): (Vec<i8>, Vec<i8>) = (vec![a; 64], (0..64).map(weight).collect());
            let expected: i32 = right.iter().map(|w| i32::from(a) * i32::from(*w)).sum();
            let product = MatrixProduct::new::<M>(64, 1, 1.0);
            let mut workspace = Workspace::default();
            product.reserve::<M>(&mut workspace);
            let (limits, mut out) = ([f32::NEG_INFINITY, f32::INFINITY], [0.0]);
            let results = Results::Real { limits, out: &mut out };
            product.run::<M>(&left, &right, &mut workspace, results);
            assert_eq!(expected as f32, out[0], "{a} × {four:?}");
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
        let input = InputRange {
            zero_point: 0,
            minimum: a,
        };
        let op = DepthwiseConvolution::new::<M>(window, input, &weights, &[0; 16], &[1e-3; 16]);
        let (mut out, mut workspace) = ([0; 16], Workspace::default());
        op.reserve(&mut workspace);
        op.run::<M>(&[a; 16 * 9], &mut workspace, bounds, &mut out);
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
        for isa in Isa::available() {
            with_microkernels!(isa, M => {
                check::<M>(-128, four);
                check::<M>(127, four);
                check::<<M as Microkernels>::NonNegative>(127, four);
            });
        }
    }
}

/// Every product has the largest magnitude, at a depth that no network here reaches.
#[test]
fn long_sums_of_extremes_do_not_overflow() {
    let depth = 60_000;
    for (a, b) in [(-128i8, -128i8), (-128, 127), (127, 127)] {
        let check = |out: &[i8]| assert_eq!(out[0], if a == b { 127 } else { -128 });
        let (left, right) = (vec![a; depth], vec![b; depth]);
        let bounds = Bounds {
            zero_point: 0,
            low: -128,
            high: 127,
        };
        fn product<M: Microkernels>(left: &[i8], right: &[i8], bounds: Bounds) -> Vec<i8> {
            let product = MatrixProduct::new::<M>(right.len(), 1, 1.0);
            let mut workspace = Workspace::default();
            product.reserve::<M>(&mut workspace);
            let mut out = vec![0];
            product.run::<M>(
                left,
                right,
                &mut workspace,
                Results::Quantized { bounds, out: &mut out },
            );
            out
        }
        for isa in Isa::available() {
            check(&with_microkernels!(isa, M => product::<M>(&left, &right, bounds)));
        }
    }
}
