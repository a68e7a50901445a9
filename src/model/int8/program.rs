//! An integer subgraph that is ready to run: the steps in [`Program`], the memory of a run in [`Scratch`].

use std::sync::Arc;

use tract_onnx::prelude::*;

use super::buffers::{Placement, place};
use super::operators::arithmetic::Quantization;
use super::operators::elementwise::{dequantize, quantize};
use super::operators::gemm::{Matrix, Results, multiply};
use super::operators::kernels::{Isa, Microkernels, with_microkernels};
use super::operators::layout::Workspace;
use super::step::{Activation, Operand, Slot, Step, Target};

/// An integer subgraph: steps with packed weights. It does not change when it runs.
#[derive(Debug)]
pub struct Program {
    isa: Isa,
    steps: Vec<Step>,
    activations: Vec<Placed>,
    /// Bytes of each buffer.
    buffers: Vec<usize>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

/// An input or output of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub kind: PortKind,
    /// In the order of the memory: activations with four dimensions lie channels last.
    pub dims: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortKind {
    /// Real numbers, as f32.
    Real,
    /// Activations for or from another program, as s8.
    Activations,
}

impl PortKind {
    pub fn datum_type(self) -> DatumType {
        match self {
            PortKind::Real => f32::datum_type(),
            PortKind::Activations => i8::datum_type(),
        }
    }
}

impl Port {
    /// A new tensor for the values of this port.
    pub fn tensor(&self) -> TractResult<Arc<Tensor>> {
        Ok(Arc::new(Tensor::zero_dt(self.kind.datum_type(), &self.dims)?))
    }

    fn bytes(&self) -> usize {
        self.dims.iter().product::<usize>() * self.kind.datum_type().size_of()
    }
}

/// Where the values of an activation are.
#[derive(Debug)]
struct Placed {
    buffer: usize,
    len: usize,
    /// Channels of a channels-last tensor, 1 for any other.
    channels: usize,
    quantization: Quantization,
}

/// The memory that one state of a plan needs to run a [`Program`].
#[derive(Debug, Clone)]
pub struct Scratch {
    buffers: Vec<Vec<i8>>,
    workspace: Workspace,
}

impl Program {
    /// The weights in `steps` must have been packed for `isa`.
    pub fn new(
        isa: Isa,
        mut steps: Vec<Step>,
        activations: &[Activation],
        inputs: Vec<Port>,
        outputs: Vec<Port>,
    ) -> Program {
        steps.shrink_to_fit();
        let Placement { buffer_of, sizes } = place(&steps, activations);
        let placed = activations.iter().zip(buffer_of).map(|(activation, buffer)| Placed {
            buffer,
            len: activation.dims.iter().product(),
            channels: match activation.dims[..] {
                [_, channels, _, _] => channels,
                _ => 1,
            },
            quantization: activation.quantization,
        });
        Program {
            isa,
            activations: placed.collect(),
            steps,
            buffers: sizes,
            inputs,
            outputs,
        }
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Multiply-accumulates of one run.
    pub fn macs(&self) -> u64 {
        self.steps.iter().map(|step| self.macs_of(step) as u64).sum()
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

    /// Bytes of the two largest activations, without the program's inputs and outputs.
    pub fn largest_activations(&self) -> usize {
        let mut sizes: Vec<usize> = self.activations.iter().map(|placed| placed.len).collect();
        sizes.sort_unstable();
        sizes.iter().rev().take(2).sum()
    }

    /// Bytes of the activations and outputs of one state.
    pub fn activation_bytes(&self) -> usize {
        let ports: usize = self.outputs.iter().map(Port::bytes).sum();
        self.buffers.iter().sum::<usize>().saturating_add(ports)
    }

    fn macs_of(&self, step: &Step) -> usize {
        let len = |slot: &Slot| self.activations[*slot].len;
        match step {
            Step::Convolution { op, .. } => op.macs(),
            Step::Depthwise { op, .. } => op.macs(),
            Step::Grouped { op, .. } => op.macs(),
            Step::Linear { weights, input, .. } => len(input) * weights.columns(),
            Step::MatMul { op, left, .. } => len(left) * op.columns(),
            _ => 0,
        }
    }

    /// Bytes held by the program and by one state: packed weights, activations, packed rows and outputs.
    pub fn bytes(&self) -> usize {
        let weights: usize = self.steps.iter().map(Step::bytes).sum();
        let outputs: usize = self.outputs.iter().map(Port::bytes).sum();
        weights + outputs + Scratch::of(self).bytes()
    }

    /// Runs the program. `inputs` and `outputs` must be as [`inputs`](Self::inputs) and [`outputs`](Self::outputs) declare, and
    /// nothing else may hold the outputs.
    pub fn run(&self, scratch: &mut Scratch, inputs: &[TValue], outputs: &mut [Arc<Tensor>]) -> TractResult<()> {
        let Scratch { buffers, workspace } = scratch;
        let memory = Memory {
            program: self,
            buffers,
            inputs,
        };
        with_microkernels!(self.isa, M => memory.run::<M>(workspace, outputs))
    }
}

impl Scratch {
    pub fn of(program: &Program) -> Scratch {
        let mut workspace = Workspace::default();
        for step in &program.steps {
            with_microkernels!(program.isa, M => step.reserve::<M>(&mut workspace));
        }
        Scratch {
            buffers: program.buffers.iter().map(|size| vec![0; *size]).collect(),
            workspace,
        }
    }

    fn bytes(&self) -> usize {
        self.buffers.iter().map(Vec::len).sum::<usize>() + self.workspace.bytes()
    }
}

/// The tensors of one run, without the outputs.
struct Memory<'a> {
    program: &'a Program,
    buffers: &'a mut [Vec<i8>],
    inputs: &'a [TValue],
}

impl Memory<'_> {
    fn placed(&self, slot: Slot) -> &Placed {
        &self.program.activations[slot]
    }

    fn read(&self, slot: Slot) -> &[i8] {
        let Placed { buffer, len, .. } = *self.placed(slot);
        &self.buffers[buffer][..len]
    }

    fn operand<'b>(&'b self, operand: &'b Operand) -> &'b [i8] {
        match operand {
            Operand::Slot(slot) => self.read(*slot),
            Operand::Constant(values) => values,
        }
    }

    fn input<T: Datum>(&self, input: usize) -> TractResult<&[T]> {
        self.inputs[input].try_as_plain_ram()?.as_slice::<T>()
    }

    /// Calls `work` with the buffer of `slot`, while the other buffers can be read.
    fn write<R>(&mut self, slot: Slot, work: impl FnOnce(&Self, &mut [i8]) -> R) -> R {
        let Placed { buffer, len, .. } = *self.placed(slot);
        let mut values = std::mem::take(&mut self.buffers[buffer]);
        let result = work(self, &mut values[..len]);
        self.buffers[buffer] = values;
        result
    }

    /// As [`write`](Self::write), for a target that may be one of the outputs.
    fn write_results(
        &mut self,
        target: Target,
        outputs: &mut [Arc<Tensor>],
        work: impl FnOnce(&Self, Results),
    ) -> TractResult<()> {
        match target {
            Target::Slot(slot, bounds) => {
                self.write(slot, |memory, out| work(memory, Results::Quantized { bounds, out }));
                Ok(())
            }
            Target::Real(real, limits) => output(outputs, real, |out| work(self, Results::Real { limits, out })),
        }
    }

    fn run<M: Microkernels>(mut self, workspace: &mut Workspace, outputs: &mut [Arc<Tensor>]) -> TractResult<()> {
        let steps = &self.program.steps;
        steps
            .iter()
            .try_for_each(|step| self.step::<M>(step, workspace, outputs))
    }

    fn step<M: Microkernels>(
        &mut self,
        step: &Step,
        workspace: &mut Workspace,
        outputs: &mut [Arc<Tensor>],
    ) -> TractResult<()> {
        match step {
            Step::Quantize { input, out } => {
                let Placed {
                    channels, quantization, ..
                } = *self.placed(*out);
                self.write(*out, |m, out| -> TractResult<()> {
                    quantize::<M>(m.input(*input)?, channels, quantization, out);
                    Ok(())
                })?;
            }
            Step::Load { input, out } => self.write(*out, |m, out| -> TractResult<()> {
                out.copy_from_slice(m.input(*input)?);
                Ok(())
            })?,
            Step::Store { input, out } => output(outputs, *out, |out| out.copy_from_slice(self.read(*input)))?,
            Step::Convolution { op, input, out } => {
                self.write_results(*out, outputs, |m, results| match op.non_negative {
                    true => op.run::<M::NonNegative>(m.read(*input), workspace, results),
                    false => op.run::<M>(m.read(*input), workspace, results),
                })?;
            }
            Step::Depthwise { op, input, bounds, out } => {
                self.write(*out, |m, out| op.run::<M>(m.read(*input), workspace, *bounds, out));
            }
            Step::Grouped { op, input, bounds, out } => {
                self.write(*out, |m, out| op.run::<M>(m.read(*input), *bounds, workspace, out));
            }
            Step::Linear { weights, input, out } => self.write_results(*out, outputs, |m, results| {
                let rows = Matrix {
                    values: m.read(*input),
                    depth: weights.input_depth(),
                };
                multiply::<M>(&rows, weights, workspace, results);
            })?,
            Step::MatMul { op, left, right, out } => self.write_results(*out, outputs, |m, results| {
                op.run::<M>(m.read(*left), m.read(*right), workspace, results);
            })?,
            Step::Pairwise { op, left, right, out } if self.placed(*left).buffer == self.placed(*out).buffer => {
                self.write(*out, |m, values| op.run_in_place::<M>(values, m.operand(right)));
            }
            Step::Pairwise { op, left, right, out } => {
                self.write(*out, |m, out| op.run::<M>(m.read(*left), m.operand(right), out));
            }
            Step::Table { op, input, out } => self.write(*out, |m, out| op.run::<M>(m.read(*input), out)),
            Step::MaxPool { op, input, out } => {
                self.write(*out, |m, out| op.run::<M>(m.read(*input), out));
            }
            Step::AveragePool { op, input, out } => {
                self.write(*out, |m, out| op.run::<M>(m.read(*input), workspace, out));
            }
            Step::Gather { op, input, out } => self.write(*out, |m, out| op.run(m.read(*input), out)),
            Step::Concat { op, inputs, out } => self.write(*out, |m, out| {
                for (index, input) in inputs.iter().enumerate() {
                    op.run_part::<M>(index, m.operand(input), out);
                }
            }),
            Step::Dequantize { input, out } => {
                let Placed {
                    channels, quantization, ..
                } = *self.placed(*input);
                output(outputs, *out, |out| {
                    dequantize(self.read(*input), channels, quantization, out)
                })?;
            }
            Step::RealTable { op, input, out } => {
                let channels = self.placed(*input).channels;
                output(outputs, *out, |out| op.run(self.read(*input), channels, out))?;
            }
        }
        Ok(())
    }
}

/// Calls `work` with the values of an output.
fn output<T: Datum>(outputs: &mut [Arc<Tensor>], index: usize, work: impl FnOnce(&mut [T])) -> TractResult<()> {
    let tensor = Arc::get_mut(&mut outputs[index]).expect("nothing else holds the outputs");
    work(tensor.try_as_plain_ram_mut()?.as_slice_mut::<T>()?);
    Ok(())
}
