//! Convolutions, depthwise and grouped ones.

use proptest::prelude::*;

use super::super::convolution::Convolution;
use super::super::depthwise::DepthwiseConvolution;
use super::super::gemm::Results;
use super::super::grouped_convolution::GroupedConvolution;
use super::super::kernels::Microkernels;
use super::super::layout::Workspace;
use super::{Checked, Layer, bounds, bytes, factors, for_each_isa, layers, layers_under, one_pixel_windows, windows};

fn check_convolution<M: Microkernels>(layer: &Layer) -> Checked {
    let Layer {
        window,
        weights,
        bias,
        factor,
        ..
    } = layer;
    let op = Convolution::new::<M>(*window, layer.input_range(), weights, bias, factor);
    match op.non_negative {
        true => check_run::<M::NonNegative>(layer, &op),
        false => check_run::<M>(layer, &op),
    }
}

fn check_run<M: Microkernels>(layer: &Layer, op: &Convolution) -> Checked {
    let factor = &layer.factor;
    let mut workspace = Workspace::default();
    op.weights.reserve::<M>(&mut workspace);
    let expected: Vec<i32> = layer
        .each_output()
        .map(|(y, x, o)| layer.sum(y, x, o, 0..layer.channels))
        .collect();

    let mut out = vec![0; expected.len()];
    let bounds = layer.bounds;
    op.run::<M>(
        &layer.input,
        &mut workspace,
        Results::Quantized { bounds, out: &mut out },
    );
    for (i, (sum, out)) in expected.iter().zip(out).enumerate() {
        prop_assert_eq!(bounds.round(*sum as f32 * factor[i % layer.outputs]), out);
    }

    let mut real = vec![0.0; expected.len()];
    let limits = [f32::NEG_INFINITY, 1e6];
    op.run::<M>(&layer.input, &mut workspace, Results::Real { limits, out: &mut real });
    let plane = expected.len() / layer.outputs;
    for (i, sum) in expected.iter().enumerate() {
        let (pixel, o) = (i / layer.outputs, i % layer.outputs);
        prop_assert_eq!((*sum as f32 * factor[o]).min(1e6), real[o * plane + pixel]);
    }
    Ok(())
}

fn check_depthwise<M: Microkernels>(layer: &Layer) -> Checked {
    let Layer {
        window,
        weights,
        bias,
        factor,
        bounds,
        ..
    } = layer;
    let op = DepthwiseConvolution::new::<M>(*window, layer.input_range(), weights, bias, factor);
    let expected: Vec<i8> = layer
        .each_output()
        .map(|(y, x, c)| bounds.round(layer.sum(y, x, c, c..c + 1) as f32 * factor[c]))
        .collect();
    let mut out = vec![0; expected.len()];
    let mut workspace = Workspace::default();
    op.reserve(&mut workspace);
    op.run::<M>(&layer.input, &mut workspace, *bounds, &mut out);
    prop_assert_eq!(expected, out);
    Ok(())
}

/// A grouped layer and its number of groups.
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

fn check_grouped<M: Microkernels>(groups: usize, layer: &Layer) -> Checked {
    let Layer {
        window,
        zero_point,
        weights,
        bias,
        factor,
        bounds,
        ..
    } = layer;
    let op = GroupedConvolution::new::<M>(*window, *zero_point, groups, weights, bias, factor);
    let (channels, outputs) = (layer.channels / groups, layer.outputs / groups);
    let expected: Vec<i8> = layer
        .each_output()
        .map(|(y, x, o)| {
            let first = o / outputs * channels;
            bounds.round(layer.sum(y, x, o, first..first + channels) as f32 * factor[o])
        })
        .collect();
    let mut workspace = Workspace::default();
    op.reserve::<M>(&mut workspace);
    let mut out = vec![0; expected.len()];
    op.run::<M>(&layer.input, *bounds, &mut workspace, &mut out);
    prop_assert_eq!(expected, out);
    Ok(())
}

proptest! {
    #[test]
    fn convolutions_equal_the_definition(layer in layers(false, 1..5)) {
        for_each_isa!(check_convolution(&layer));
    }

    #[test]
    fn convolutions_after_a_relu_equal_the_definition(mut layer in layers(false, 1..5)) {
        layer.input.iter_mut().for_each(|q| *q &= 127);
        layer.zero_point &= 127;
        for_each_isa!(check_convolution(&layer));
    }

    #[test]
    fn pointwise_convolutions_equal_the_definition(layer in layers_under(false, one_pixel_windows())) {
        for_each_isa!(check_convolution(&layer));
    }

    #[test]
    fn pointwise_convolutions_after_a_relu_equal_the_definition(mut layer in layers_under(false, one_pixel_windows())) {
        layer.input.iter_mut().for_each(|q| *q &= 127);
        layer.zero_point &= 127;
        for_each_isa!(check_convolution(&layer));
    }

    #[test]
    fn depthwise_convolutions_equal_the_definition(layer in layers(true, 1..5)) {
        for_each_isa!(check_depthwise(&layer));
    }

    #[test]
    fn depthwise_convolutions_after_a_relu_equal_the_definition(mut layer in layers(true, 1..5)) {
        layer.input.iter_mut().for_each(|q| *q &= 127);
        layer.zero_point &= 127;
        for_each_isa!(check_depthwise(&layer));
    }

    #[test]
    fn depthwise_convolutions_of_nine_taps_equal_the_definition(layer in layers(true, 3..4)) {
        for_each_isa!(check_depthwise(&layer));
    }

    #[test]
    fn grouped_convolutions_equal_the_definition((groups, layer) in grouped_layers()) {
        for_each_isa!(check_grouped(groups, &layer));
    }
}
