//! Requantization with any factors, NaN and infinities among them.

use proptest::prelude::*;

use super::super::arithmetic::{Bounds, InputRange};
use super::super::depthwise::DepthwiseConvolution;
use super::super::gemm::{Matrix, PackedWeights, Results, multiply};
use super::super::kernels::Microkernels;
use super::super::layout::{MAX_NR, MAX_TILE, OutputTile, Requantization, Workspace};
use super::super::window::Window;
use super::{Checked, bounds, bytes, for_each_isa};

fn check_requantization<M: Microkernels>(acc: &[i32], params: &Requantization, tile: OutputTile) -> Checked {
    let Requantization { bias, factor, bounds } = *params;
    let OutputTile { rows, columns, stride } = tile;
    // Few columns, all columns of a tile, and all but one.
    for columns in [columns.min(M::NR), M::NR, M::NR - 1] {
        let tile = OutputTile {
            rows,
            columns,
            stride: stride.max(columns),
        };
        let untouched = 77;
        let mut out = vec![untouched; (rows - 1) * tile.stride + columns];
        M::requantize_tile(acc, tile, params, &mut out);
        for (i, out) in out.into_iter().enumerate() {
            let (r, c) = (i / tile.stride, i % tile.stride);
            let sum = || acc[r * M::NR + c].wrapping_add(bias[c]) as f32;
            let expected = if c < columns {
                bounds.round(sum() * factor[c])
            } else {
                untouched
            };
            prop_assert_eq!(expected, out);
        }
    }
    Ok(())
}

/// Sums of nine values (all weights are 1) times each factor, as a matrix product and as a depthwise convolution.
fn check_factors<M: Microkernels>(values: &[i8], factor: &[f32], bounds: Bounds) -> Checked {
    let channels = factor.len();
    let mut workspace = Workspace::default();
    let sum = |values: &mut dyn Iterator<Item = &i8>| values.map(|q| i32::from(*q)).sum::<i32>() as f32;

    let weights = PackedWeights::pack::<M>(&vec![1; 9 * channels], &vec![0; channels], factor);
    weights.reserve::<M>(&mut workspace);
    let mut out = vec![0; channels * channels];
    let results = Results::Quantized { bounds, out: &mut out };
    multiply::<M>(&Matrix { values, depth: 9 }, &weights, &mut workspace, results);
    for (values, out) in values.chunks(9).zip(out.chunks(channels)) {
        let sum = sum(&mut values.iter());
        let expected: Vec<i8> = factor.iter().map(|factor| bounds.round(sum * factor)).collect();
        prop_assert_eq!(expected, out);
    }

    let window = Window {
        input: [3, 3],
        output: [1, 1],
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        pad: [0, 0],
    };
    let input = InputRange {
        zero_point: 0,
        minimum: i8::MIN,
    };
    let op = DepthwiseConvolution::new::<M>(window, input, &vec![1; 9 * channels], &vec![0; channels], factor);
    op.reserve(&mut workspace);
    let mut out = vec![0; channels];
    op.run::<M>(values, &mut workspace, bounds, &mut out);
    let expected: Vec<i8> = (0..channels)
        .map(|c| bounds.round(sum(&mut values.iter().skip(c).step_by(channels)) * factor[c]))
        .collect();
    prop_assert_eq!(expected, out);
    Ok(())
}

proptest! {
    #[test]
    fn requantization_equals_the_definition_for_any_factors(
        (acc, bias) in (prop::collection::vec(any::<i32>(), MAX_TILE), prop::collection::vec(any::<i32>(), MAX_NR)),
        factor in prop::collection::vec(prop::num::f32::ANY, MAX_NR),
        bounds in bounds(),
        rows in 1..5usize,
        (columns, apart) in (1..5usize, 0..9usize),
    ) {
        let params = Requantization { bias: &bias, factor: &factor, bounds };
        let tile = OutputTile { rows, columns, stride: columns + apart };
        for_each_isa!(check_requantization(&acc, &params, tile));
    }

    #[test]
    fn products_equal_the_definition_for_any_factors(
        (values, factor) in (1..40usize).prop_flat_map(|channels| {
            // Most factors are ordinary, so that the others stand among them.
            let factor = prop_oneof![9 => 1e-4f32..1.0, 1 => prop::num::f32::ANY];
            (bytes(9 * channels), prop::collection::vec(factor, channels))
        }),
        bounds in bounds(),
    ) {
        for_each_isa!(check_factors(&values, &factor, bounds));
    }
}
