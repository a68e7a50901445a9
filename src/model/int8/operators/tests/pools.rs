//! Pools.

use proptest::prelude::*;

use super::super::arithmetic::Quantization;
use super::super::elementwise::Table;
use super::super::kernels::Microkernels;
use super::super::layout::Workspace;
use super::super::pool::{AveragePool, MaxPool};
use super::{Checked, Layer, for_each_isa, layers};

fn check_pools<M: Microkernels>(layer: &Layer, counts_padding: bool) -> Checked {
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
                let (sy, sx) = (window.input_at(0, y, ky)?, window.input_at(1, x, kx)?);
                Some(input[(sy * window.input[1] + sx) * channels + c])
            })
            .collect()
    };
    let [height, width] = window.output;
    let mut largest = vec![0; height * width * channels];
    let table = Some(Table::of(
        Quantization {
            scale: 1.0,
            zero_point: 0,
        },
        Quantization {
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
    .run::<M>(input, &mut largest);
    let mut mean = vec![0; largest.len()];
    let average = AveragePool {
        window: *window,
        channels,
        zero_point,
        factor: 0.7,
        counts_padding,
        bounds: *bounds,
    };
    let mut workspace = Workspace::default();
    average.reserve(&mut workspace);
    average.run::<M>(input, &mut workspace, &mut mean);
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
    fn pools_equal_the_definition(layer in layers(true, 1..5), counts_padding in any::<bool>()) {
        for_each_isa!(check_pools(&layer, counts_padding));
    }
}
