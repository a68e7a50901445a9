//! Grouped convolutions: each output depends only on the channels of its own group.
//!
//! Neighbouring groups are merged into one part until their outputs fill a tile's columns. The weights between the groups of a
//! part are zero. That costs nothing, because the kernel would compute the unused columns anyway. Each part is a convolution
//! of its own, on a copy of its channels.

use super::arithmetic::{Bounds, InputRange};
use super::convolution::Convolution;
use super::gemm::{PackedWeights, Results};
use super::kernels::Microkernels;
use super::layout::{Workspace, grow};
use super::window::Window;

/// A grouped convolution, with weights packed for one instruction set.
#[derive(Debug, Clone)]
pub struct GroupedConvolution {
    parts: Vec<Convolution>,
    macs: usize,
    /// Values of one part's input and output.
    part_input: usize,
    part_output: usize,
}

impl GroupedConvolution {
    /// `weights` are `[output][input channel of the group][ky][kx]`, as in ONNX. `groups` divides the number of outputs.
    pub fn new<M: Microkernels>(
        window: Window,
        zero_point: i8,
        groups: usize,
        weights: &[i8],
        bias: &[i32],
        factor: &[f32],
    ) -> GroupedConvolution {
        let outputs = bias.len() / groups;
        let per_output = weights.len() / bias.len();
        let groups_per_part = (1..=groups)
            .filter(|n| groups.is_multiple_of(*n) && (n * outputs <= M::NR || *n == 1))
            .max()
            .unwrap_or(1);
        let part = |first: usize| {
            let rows = first * outputs..(first + groups_per_part) * outputs;
            let mut wide = vec![0; rows.len() * groups_per_part * per_output];
            for (row, wide) in rows.clone().zip(wide.chunks_exact_mut(groups_per_part * per_output)) {
                let group = row / outputs - first;
                wide[group * per_output..][..per_output].copy_from_slice(&weights[row * per_output..][..per_output]);
            }
            // All parts share one copy of the input channels, so no minimum is assumed.
            let input = InputRange {
                zero_point,
                minimum: i8::MIN,
            };
            Convolution::new::<M>(window, input, &wide, &bias[rows.clone()], &factor[rows])
        };
        let pixels = |size: [usize; 2]| size[0] * size[1];
        let channels = per_output / window.taps();
        GroupedConvolution {
            parts: (0..groups).step_by(groups_per_part).map(part).collect(),
            macs: pixels(window.output) * weights.len(),
            part_input: pixels(window.input) * channels * groups_per_part,
            part_output: pixels(window.output) * outputs * groups_per_part,
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

    pub fn weights(&self) -> impl Iterator<Item = &PackedWeights> {
        self.parts.iter().map(|part| &part.weights)
    }

    pub fn bytes(&self) -> usize {
        self.weights().map(PackedWeights::bytes).sum()
    }

    /// Makes room in `workspace` for the products and for the channels of one part.
    pub fn reserve<M: Microkernels>(&self, workspace: &mut Workspace) {
        self.weights().for_each(|weights| weights.reserve::<M>(workspace));
        grow(&mut workspace.part_input, self.part_input);
        grow(&mut workspace.part_output, self.part_output);
    }

    pub fn run<M: Microkernels>(&self, input: &[i8], bounds: Bounds, workspace: &mut Workspace, out: &mut [i8]) {
        let mut part_input = std::mem::take(&mut workspace.part_input);
        let mut part_output = std::mem::take(&mut workspace.part_output);
        let copies = (&mut part_input[..self.part_input], &mut part_output[..self.part_output]);
        self.run_parts::<M>(input, bounds, workspace, copies, out);
        workspace.part_input = part_input;
        workspace.part_output = part_output;
    }

    fn run_parts<M: Microkernels>(
        &self,
        input: &[i8],
        bounds: Bounds,
        workspace: &mut Workspace,
        (part_input, part_output): (&mut [i8], &mut [i8]),
        out: &mut [i8],
    ) {
        let channels = self.parts[0].channels;
        let outputs = self.parts[0].weights.columns();
        let [all_channels, all_outputs] = [channels, outputs].map(|n| n * self.parts.len());
        for (index, part) in self.parts.iter().enumerate() {
            let pixels = input.chunks_exact(all_channels);
            for (slice, pixel) in part_input.chunks_exact_mut(channels).zip(pixels) {
                slice.copy_from_slice(&pixel[index * channels..][..channels]);
            }
            let results = Results::Quantized {
                bounds,
                out: &mut *part_output,
            };
            part.run::<M>(part_input, workspace, results);
            let pixels = out.chunks_exact_mut(all_outputs);
            for (result, pixel) in part_output.chunks_exact(outputs).zip(pixels) {
                pixel[index * outputs..][..outputs].copy_from_slice(result);
            }
        }
    }
}
