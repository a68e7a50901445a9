//! What is made of several convolutions or products, against the definition: groups, stacks, zero points.

use proptest::prelude::*;

use super::super::arithmetic::Bounds;
use super::super::gemm::{Results, Scratches};
use super::super::grouped::Grouped;
use super::super::kernels::{Family, Kind, with_family};
use super::super::product::Product;
use super::{Checked, Layer, bounds, bytes, factors, windows};

/// A layer of groups, and how many they are.
fn grouped_layers() -> impl Strategy<Value = (usize, Layer)> {
    let sizes = (1..7usize, 1..7usize, 1..7usize);
    (windows(1..4), sizes, any::<i8>(), bounds()).prop_flat_map(
        |(window, (groups, channels, outputs), zero_point, bounds)| {
            let outputs = outputs * groups;
            let input = window.input[0] * window.input[1] * channels * groups;
            (
                (bytes(input), bytes(outputs * channels * window.taps())),
                prop::collection::vec(-1_000_000..1_000_000i32, outputs),
                factors(outputs),
            )
                .prop_map(move |((input, weights), bias, factor)| {
                    let layer = Layer {
                        window,
                        channels: channels * groups,
                        outputs,
                        zero_point,
                        input,
                        weights,
                        bias,
                        factor,
                        bounds,
                    };
                    (groups, layer)
                })
        },
    )
}

fn check_grouped<F: Family>(groups: usize, layer: &Layer) -> Checked {
    let Layer {
        window,
        zero_point,
        weights,
        bias,
        factor,
        bounds,
        ..
    } = layer;
    let mut op = Grouped::new::<F>(*window, *zero_point, groups, weights, bias, factor);
    let (channels, outputs) = (layer.channels / groups, layer.outputs / groups);
    let wanted: Vec<i8> = layer
        .each_output()
        .map(|(y, x, o)| {
            let first = o / outputs * channels;
            bounds.round(layer.sum(y, x, o, first..first + channels) as f32 * factor[o])
        })
        .collect();
    let mut scratches = Scratches::default();
    op.weights().for_each(|weights| scratches.reserve::<F>(weights));
    let mut out = vec![0; wanted.len()];
    op.run::<F>(&layer.input, *bounds, &mut scratches, &mut out);
    prop_assert_eq!(wanted, out);
    Ok(())
}

#[derive(Debug, Clone)]
struct Matrices {
    stack: usize,
    /// Rows, depth, columns.
    size: [usize; 3],
    left: Vec<i8>,
    right: Vec<i8>,
}

fn matrices() -> impl Strategy<Value = Matrices> {
    (1..4usize, [1..9usize, 1..40usize, 1..20usize]).prop_flat_map(|(stack, size)| {
        let [rows, depth, columns] = size;
        (bytes(stack * rows * depth), bytes(stack * depth * columns)).prop_map(move |(left, right)| Matrices {
            stack,
            size,
            left,
            right,
        })
    })
}

fn check_product<F: Family>(matrices: &Matrices, zero_points: [i32; 2], bounds: Bounds) -> Checked {
    let Matrices {
        stack,
        size,
        left,
        right,
    } = matrices;
    let [rows, depth, columns] = *size;
    let sum = |i: usize| -> i32 {
        let (matrix, row, column) = (i / columns / rows, i / columns % rows, i % columns);
        let products = (0..depth).map(|k| {
            let a = left[(matrix * rows + row) * depth + k];
            let b = right[(matrix * depth + k) * columns + column];
            (i32::from(a) - zero_points[0]) * (i32::from(b) - zero_points[1])
        });
        products.sum()
    };
    let wanted: Vec<i8> = (0..stack * rows * columns)
        .map(|i| bounds.round(sum(i) as f32 * 0.003))
        .collect();
    let mut product = Product::new::<F>(*stack, *size, zero_points, 0.003);
    let mut scratches = Scratches::default();
    scratches.reserve::<F>(product.weights());
    let mut out = vec![0; wanted.len()];
    let results = Results::Quantized { bounds, out: &mut out };
    product.run::<F>(left, right, &mut scratches, results);
    prop_assert_eq!(wanted, out);
    Ok(())
}

proptest! {
    #[test]
    fn convolutions_in_groups_equal_the_definition((groups, layer) in grouped_layers()) {
        for kind in Kind::available() {
            with_family!(kind, F => check_grouped::<F>(groups, &layer))?;
        }
    }

    #[test]
    fn stacked_products_with_zero_points_equal_the_definition(
        matrices in matrices(),
        zero_points in prop_oneof![Just([0, 0]), [-128i32..=127, -128i32..=127]],
        bounds in bounds(),
    ) {
        for kind in Kind::available() {
            with_family!(kind, F => check_product::<F>(&matrices, zero_points, bounds))?;
        }
    }
}
