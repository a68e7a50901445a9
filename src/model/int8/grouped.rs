//! Convolutions in groups: each output sees only the channels of its own group.
//!
//! Groups are taken together until their outputs fill what a kernel computes at once, with zeros for the weights between one
//! group and another: that costs nothing, as the kernel would leave those outputs unused. Each such part is a convolution of
//! its own, on a copy of its channels.

use super::arithmetic::Bounds;
use super::convolution::{Convolution, Window};
use super::gemm::{Results, Scratches, Weights};
use super::kernels::Family;

/// A convolution of `groups` groups.
#[derive(Debug, Clone)]
pub struct Grouped {
    parts: Vec<Convolution>,
    macs: usize,
    /// One part's channels of the input, and of the output.
    slice: Vec<i8>,
    result: Vec<i8>,
}

impl Grouped {
    /// Weights come `[output][input channel of the group][ky][kx]` as in ONNX; `groups` divides the outputs.
    pub fn new<F: Family>(
        window: Window,
        zero_point: i8,
        groups: usize,
        weights: &[i8],
        bias: &[i32],
        factor: &[f32],
    ) -> Grouped {
        let outputs = bias.len() / groups;
        let per_output = weights.len() / bias.len();
        let together = (1..=groups)
            .filter(|n| groups.is_multiple_of(*n) && (n * outputs <= F::NR || *n == 1))
            .max()
            .unwrap_or(1);
        let part = |first: usize| {
            let rows = first * outputs..(first + together) * outputs;
            let mut wide = vec![0; rows.len() * together * per_output];
            for (row, wide) in rows.clone().zip(wide.chunks_exact_mut(together * per_output)) {
                let group = row / outputs - first;
                wide[group * per_output..][..per_output].copy_from_slice(&weights[row * per_output..][..per_output]);
            }
            // Parts share one copy of the input, so nothing is known about the sign of their values.
            Convolution::new::<F>(window, [zero_point, i8::MIN], &wide, &bias[rows.clone()], &factor[rows])
        };
        let pixels = |size: [usize; 2]| size[0] * size[1];
        let channels = per_output / window.taps();
        Grouped {
            parts: (0..groups).step_by(together).map(part).collect(),
            macs: pixels(window.output) * weights.len(),
            slice: vec![0; pixels(window.input) * channels * together],
            result: vec![0; pixels(window.output) * outputs * together],
        }
    }

    /// Multiply-accumulates of one run, padding included.
    pub fn macs(&self) -> usize {
        self.macs
    }

    /// Pixels of the output.
    pub fn positions(&self) -> usize {
        self.parts[0].window.output.iter().product()
    }

    pub fn weights(&self) -> impl Iterator<Item = &Weights> {
        self.parts.iter().map(|part| &part.weights)
    }

    pub fn bytes(&self) -> usize {
        let weights: usize = self.weights().map(Weights::bytes).sum();
        weights + self.slice.len() + self.result.len()
    }

    pub fn run<F: Family>(&mut self, input: &[i8], bounds: Bounds, scratches: &mut Scratches, out: &mut [i8]) {
        let channels = self.parts[0].channels;
        let outputs = self.parts[0].weights.columns();
        let [all_channels, all_outputs] = [channels, outputs].map(|n| n * self.parts.len());
        for (index, part) in self.parts.iter().enumerate() {
            let pixels = input.chunks_exact(all_channels);
            for (slice, pixel) in self.slice.chunks_exact_mut(channels).zip(pixels) {
                slice.copy_from_slice(&pixel[index * channels..][..channels]);
            }
            let results = Results::Quantized {
                bounds,
                out: &mut self.result,
            };
            part.run::<F>(&self.slice, scratches, results);
            let pixels = out.chunks_exact_mut(all_outputs);
            for (result, pixel) in self.result.chunks_exact(outputs).zip(pixels) {
                pixel[index * outputs..][..outputs].copy_from_slice(result);
            }
        }
    }
}
