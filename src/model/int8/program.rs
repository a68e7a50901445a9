//! A compiled graph that is ready to run.

use tract_onnx::prelude::{TVec, TractResult};

use super::buffers::{Placement, place};
use super::operators::elementwise::{dequantize, quantize};
use super::operators::gemm::{Matrix, Results, multiply};
use super::operators::kernels::{Isa, Microkernels, with_microkernels};
use super::operators::layout::Workspace;
use super::reason::FallbackNode;
use super::step::{Activation, Draft, Operand, OperatorCounts, Slot, Source, Step, Target};

/// A compiled graph. It runs any number of times without allocating.
pub struct Program {
    isa: Isa,
    steps: Vec<Step>,
    activations: Vec<Activation>,
    /// The buffer of each activation.
    buffer_of: Vec<usize>,
    buffers: Vec<Vec<i8>>,
    workspace: Workspace,
    inputs: Vec<usize>,
    reals: Vec<Vec<f32>>,
    outputs: usize,
    operators: OperatorCounts,
    fallback_nodes: Vec<FallbackNode>,
}

impl Program {
    /// `draft` must have been compiled for `isa`, because weights are packed for one instruction set.
    pub(super) fn new(isa: Isa, draft: Draft) -> Program {
        let Draft {
            mut activations,
            mut steps,
            inputs,
            reals,
            outputs,
            operators,
            fallback_nodes,
        } = draft;
        activations.shrink_to_fit();
        steps.shrink_to_fit();
        let Placement { buffer_of, sizes } = place(&steps, &activations);
        let mut program = Program {
            isa,
            buffer_of,
            buffers: sizes.into_iter().map(|size| vec![0; size]).collect(),
            workspace: Workspace::default(),
            inputs: inputs.iter().map(|dims| dims.iter().product()).collect(),
            reals: reals.iter().map(|dims| vec![0.0; dims.iter().product()]).collect(),
            outputs,
            operators,
            fallback_nodes,
            activations,
            steps,
        };
        for step in &program.steps {
            with_microkernels!(isa, M => step.reserve::<M>(&mut program.workspace));
        }
        program
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    pub fn operators(&self) -> OperatorCounts {
        self.operators
    }

    /// The nodes that are not computed in integers, and why.
    pub fn fallback_nodes(&self) -> &[FallbackNode] {
        &self.fallback_nodes
    }

    /// Multiply-accumulates of one run in integers.
    pub fn macs(&self) -> u64 {
        self.steps.iter().map(|step| self.macs_of(step) as u64).sum()
    }

    /// Multiply-accumulates of one run in f32.
    pub fn float_macs(&self) -> u64 {
        let floats = self.steps.iter().map(|step| match step {
            Step::Float { graph, .. } => graph.macs(),
            _ => 0,
        });
        floats.sum()
    }

    /// How many fallback subgraphs tract runs.
    pub fn fallback_subgraphs(&self) -> usize {
        let floats = self.steps.iter().filter(|step| matches!(step, Step::Float { .. }));
        floats.count()
    }

    /// Bytes of the weights: one byte per weight.
    pub fn weight_bytes(&self) -> usize {
        let of_step = |step: &Step| match step {
            Step::Convolution { op, .. } => op.weights.columns() * op.weights.input_depth(),
            Step::Depthwise { op, .. } => op.macs() / op.window.output.iter().product::<usize>().max(1),
            Step::Grouped { op, .. } => op.macs() / op.positions().max(1),
            Step::Linear { weights, .. } => weights.columns() * weights.input_depth(),
            _ => 0,
        };
        self.steps.iter().map(of_step).sum()
    }

    /// Bytes of the two largest activations, without the graph's inputs and outputs.
    pub fn largest_activations(&self) -> usize {
        let mut sizes: Vec<usize> = (0..self.activations.len()).map(|slot| self.len(slot)).collect();
        sizes.sort_unstable();
        sizes.iter().rev().take(2).sum()
    }

    fn macs_of(&self, step: &Step) -> usize {
        match step {
            Step::Convolution { op, .. } => op.macs(),
            Step::Depthwise { op, .. } => op.macs(),
            Step::Grouped { op, .. } => op.macs(),
            Step::Linear { weights, input, .. } => self.len(*input) * weights.columns(),
            Step::MatMul { op, left, .. } => self.len(*left) * op.weights().columns(),
            _ => 0,
        }
    }

    fn len(&self, slot: Slot) -> usize {
        self.activations[slot].dims.iter().product()
    }

    /// Bytes held: packed weights, activations, packed rows and real numbers, but not what tract holds.
    pub fn bytes(&self) -> usize {
        let weights: usize = self.steps.iter().map(Step::bytes).sum();
        let buffers: usize = self.buffers.iter().map(Vec::len).sum();
        let reals: usize = self.reals.iter().map(|real| size_of_val(&real[..])).sum();
        weights + buffers + reals + self.workspace.bytes()
    }

    /// Runs the graph. Inputs and outputs are f32, in the graph's order and layout.
    ///
    /// Fails only in a fallback subgraph. Panics if the length of an input differs from its dimensions.
    pub fn run(&mut self, inputs: &[&[f32]]) -> TractResult<&[Vec<f32>]> {
        assert!(inputs.iter().map(|x| x.len()).eq(self.inputs.iter().copied()));
        let Program {
            steps,
            activations,
            buffer_of,
            buffers,
            reals,
            ..
        } = self;
        let memory = Memory {
            activations,
            buffer_of,
            buffers,
            inputs,
            reals,
        };
        with_microkernels!(self.isa, M => memory.run::<M>(steps, &mut self.workspace))?;
        Ok(&self.reals[..self.outputs])
    }
}

/// The tensors of one run.
struct Memory<'a> {
    activations: &'a [Activation],
    buffer_of: &'a [usize],
    buffers: &'a mut [Vec<i8>],
    inputs: &'a [&'a [f32]],
    reals: &'a mut [Vec<f32>],
}

impl Memory<'_> {
    fn len(&self, slot: Slot) -> usize {
        self.activations[slot].dims.iter().product()
    }

    fn read(&self, slot: Slot) -> &[i8] {
        &self.buffers[self.buffer_of[slot]][..self.len(slot)]
    }

    fn operand<'b>(&'b self, operand: &'b Operand) -> &'b [i8] {
        match operand {
            Operand::Slot(slot) => self.read(*slot),
            Operand::Constant(values) => values,
        }
    }

    fn real(&self, source: Source) -> &[f32] {
        match source {
            Source::Input(input) => self.inputs[input],
            Source::Real(real) => &self.reals[real],
        }
    }

    /// Channels of a channels-last tensor, 1 for any other.
    fn channels(&self, slot: Slot) -> usize {
        match self.activations[slot].dims[..] {
            [_, channels, _, _] => channels,
            _ => 1,
        }
    }

    /// Calls `work` with the buffer of `slot`, while the other buffers can be read.
    fn write(&mut self, slot: Slot, work: impl FnOnce(&Self, &mut [i8])) {
        let mut buffer = std::mem::take(&mut self.buffers[self.buffer_of[slot]]);
        let len = self.len(slot);
        work(self, &mut buffer[..len]);
        self.buffers[self.buffer_of[slot]] = buffer;
    }

    /// As [`write`](Self::write), for a target that may be real numbers.
    fn write_results(&mut self, target: Target, work: impl FnOnce(&Self, Results)) {
        match target {
            Target::Slot(slot, bounds) => {
                self.write(slot, |memory, out| work(memory, Results::Quantized { bounds, out }));
            }
            Target::Real(real, limits) => {
                let mut out = std::mem::take(&mut self.reals[real]);
                work(self, Results::Real { limits, out: &mut out });
                self.reals[real] = out;
            }
        }
    }

    fn run<M: Microkernels>(mut self, steps: &mut [Step], workspace: &mut Workspace) -> TractResult<()> {
        steps.iter_mut().try_for_each(|step| self.step::<M>(step, workspace))
    }

    fn step<M: Microkernels>(&mut self, step: &mut Step, workspace: &mut Workspace) -> TractResult<()> {
        match step {
            Step::Quantize { input, out } => {
                let (channels, to) = (self.channels(*out), self.activations[*out].quantization);
                self.write(*out, |m, out| quantize::<M>(m.real(*input), channels, to, out));
            }
            Step::Convolution { op, input, out } => {
                self.write_results(*out, |m, results| match op.non_negative {
                    true => op.run::<M::NonNegative>(m.read(*input), workspace, results),
                    false => op.run::<M>(m.read(*input), workspace, results),
                });
            }
            Step::Depthwise { op, input, bounds, out } => {
                self.write(*out, |m, out| op.run::<M>(m.read(*input), workspace, *bounds, out));
            }
            Step::Grouped { op, input, bounds, out } => {
                self.write(*out, |m, out| op.run::<M>(m.read(*input), *bounds, workspace, out));
            }
            Step::Linear { weights, input, out } => self.write_results(*out, |m, results| {
                let rows = Matrix {
                    values: m.read(*input),
                    depth: weights.input_depth(),
                };
                multiply::<M>(&rows, weights, workspace, results);
            }),
            Step::MatMul { op, left, right, out } => self.write_results(*out, |m, results| {
                op.run::<M>(m.read(*left), m.read(*right), workspace, results);
            }),
            Step::Pairwise { op, left, right, out } => {
                self.write(*out, |m, out| op.run::<M>(m.read(*left), m.operand(right), out));
            }
            Step::Table { op, input, out } => self.write(*out, |m, out| op.run::<M>(m.read(*input), out)),
            Step::MaxPool { op, input, out } => {
                self.write(*out, |m, out| op.run::<M>(m.read(*input), out));
            }
            Step::AveragePool { op, input, out } => {
                self.write(*out, |m, out| op.run::<M>(m.read(*input), out));
            }
            Step::Gather { op, input, out } => self.write(*out, |m, out| op.run(m.read(*input), out)),
            Step::Concat { op, inputs, out } => self.write(*out, |m, out| {
                for (index, input) in inputs.iter().enumerate() {
                    op.run_part::<M>(index, m.operand(input), out);
                }
            }),
            Step::Dequantize { input, out } => {
                let mut values = std::mem::take(&mut self.reals[*out]);
                let from = self.activations[*input].quantization;
                dequantize(self.read(*input), self.channels(*input), from, &mut values);
                self.reals[*out] = values;
            }
            Step::RealTable { op, input, out } => {
                let mut values = std::mem::take(&mut self.reals[*out]);
                op.run(self.read(*input), self.channels(*input), &mut values);
                self.reals[*out] = values;
            }
            Step::Float { graph, inputs, outputs } => {
                let mut values: TVec<Vec<f32>> = outputs
                    .iter()
                    .map(|real| std::mem::take(&mut self.reals[*real]))
                    .collect();
                let result = {
                    let read: TVec<&[f32]> = inputs.iter().map(|source| self.real(*source)).collect();
                    graph.run(&read, &mut values)
                };
                for (real, values) in outputs.iter().zip(values) {
                    self.reals[*real] = values;
                }
                result?;
            }
        }
        Ok(())
    }
}
