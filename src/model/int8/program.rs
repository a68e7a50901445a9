//! A quantized network as a list of steps over a few buffers, and one that is ready to run.

use super::arithmetic::{Bounds, Quantization};
use super::convolution::{Convolution, Depthwise};
use super::gemm::{Matrix, Product, Results, Scratches, Weights, multiply};
use super::kernels::{Family, Kind, with_family};
use super::pointwise::{Pairwise, Table, dequantize, quantize};
use super::pool::{AveragePool, MaxPool};
use super::rearrange::{Concat, Gather};

/// One tensor of activations. Four-dimensional ones lie channels last, all others row-major.
#[derive(Debug, Clone)]
pub struct Activation {
    pub dims: Vec<usize>,
    pub quantization: Quantization,
    /// Values are never below this, as after a ReLU.
    pub least: i8,
}

/// An [`Activation`] by its place in [`Draft::activations`].
pub type Slot = usize;

/// Where a matrix product's results go.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    Slot(Slot, Bounds),
    /// A graph output, as real numbers between two limits.
    Output(usize, [f32; 2]),
}

/// An operand that may be constant.
#[derive(Debug, Clone)]
pub enum Operand {
    Slot(Slot),
    Constant(Vec<i8>),
}

impl Operand {
    fn slot(&self) -> Option<Slot> {
        match self {
            Operand::Slot(slot) => Some(*slot),
            Operand::Constant(_) => None,
        }
    }
}

/// One step: what is computed, from which activations, to which.
#[derive(Debug, Clone)]
pub enum Step {
    Quantize {
        input: usize,
        out: Slot,
    },
    Convolution {
        op: Convolution,
        input: Slot,
        out: Target,
    },
    Depthwise {
        op: Depthwise,
        input: Slot,
        bounds: Bounds,
        out: Slot,
    },
    Linear {
        weights: Weights,
        input: Slot,
        out: Target,
    },
    Product {
        op: Box<Product>,
        left: Slot,
        right: Slot,
        out: Target,
    },
    Pairwise {
        op: Pairwise,
        left: Slot,
        right: Operand,
        out: Slot,
    },
    Table {
        op: Box<Table>,
        input: Slot,
        out: Slot,
    },
    MaxPool {
        op: Box<MaxPool>,
        input: Slot,
        out: Slot,
    },
    AveragePool {
        op: AveragePool,
        input: Slot,
        out: Slot,
    },
    Gather {
        op: Box<Gather>,
        input: Slot,
        out: Slot,
    },
    Concat {
        op: Concat,
        inputs: Vec<Operand>,
        out: Slot,
    },
    Dequantize {
        input: Slot,
        output: usize,
    },
}

impl Step {
    fn reads(&self) -> Vec<Slot> {
        match self {
            Step::Quantize { .. } => vec![],
            Step::Product { left, right, .. } => vec![*left, *right],
            Step::Pairwise {
                left,
                right: Operand::Slot(right),
                ..
            } => vec![*left, *right],
            Step::Pairwise { left, .. } => vec![*left],
            Step::Concat { inputs, .. } => inputs.iter().filter_map(Operand::slot).collect(),
            Step::Convolution { input, .. }
            | Step::Depthwise { input, .. }
            | Step::Linear { input, .. }
            | Step::Table { input, .. }
            | Step::MaxPool { input, .. }
            | Step::AveragePool { input, .. }
            | Step::Gather { input, .. }
            | Step::Dequantize { input, .. } => vec![*input],
        }
    }

    fn writes(&self) -> Option<Slot> {
        match self {
            Step::Convolution { out, .. } | Step::Linear { out, .. } | Step::Product { out, .. } => match out {
                Target::Slot(slot, _) => Some(*slot),
                Target::Output(..) => None,
            },
            Step::Dequantize { .. } => None,
            Step::Quantize { out, .. }
            | Step::Depthwise { out, .. }
            | Step::Pairwise { out, .. }
            | Step::Table { out, .. }
            | Step::MaxPool { out, .. }
            | Step::AveragePool { out, .. }
            | Step::Gather { out, .. }
            | Step::Concat { out, .. } => Some(*out),
        }
    }

    /// Makes the room this step needs.
    fn reserve<F: Family>(&self, scratches: &mut Scratches) {
        match self {
            Step::Convolution { op, .. } if op.non_negative => scratches.reserve::<F::NonNegative>(&op.weights),
            Step::Convolution { op, .. } => scratches.reserve::<F>(&op.weights),
            Step::Linear { weights, .. } => scratches.reserve::<F>(weights),
            Step::Product { op, .. } => scratches.reserve::<F>(op.weights()),
            _ => {}
        }
    }

    fn weight_bytes(&self) -> usize {
        match self {
            Step::Convolution { op, .. } => op.weights.bytes(),
            Step::Linear { weights, .. } => weights.bytes(),
            Step::Product { op, .. } => op.weights().bytes(),
            Step::Depthwise { op, .. } => op.bytes(),
            Step::Gather { op, .. } => 4 * op.from.len(),
            _ => 0,
        }
    }
}

/// What the importer makes of a graph.
#[derive(Debug, Default)]
pub struct Draft {
    pub activations: Vec<Activation>,
    pub steps: Vec<Step>,
    /// Dimensions of the graph's inputs and outputs, in order.
    pub inputs: Vec<Vec<usize>>,
    pub outputs: Vec<Vec<usize>>,
}

/// A network that is ready to run, again and again, without allocating.
pub struct Program {
    kind: Kind,
    steps: Vec<Step>,
    activations: Vec<Activation>,
    /// The buffer of each activation.
    placed: Vec<usize>,
    buffers: Vec<Vec<i8>>,
    scratches: Scratches,
    inputs: Vec<usize>,
    outputs: Vec<Vec<f32>>,
}

impl Program {
    /// `draft` must have been made for `kind`: weights are packed for one family.
    pub(super) fn new(kind: Kind, draft: Draft) -> Program {
        let Draft {
            activations,
            steps,
            inputs,
            outputs,
        } = draft;
        let (placed, sizes) = place(&steps, &activations);
        let mut program = Program {
            kind,
            placed,
            buffers: sizes.into_iter().map(|size| vec![0; size]).collect(),
            scratches: Scratches::default(),
            inputs: inputs.iter().map(|dims| dims.iter().product()).collect(),
            outputs: outputs.iter().map(|dims| vec![0.0; dims.iter().product()]).collect(),
            activations,
            steps,
        };
        for step in &program.steps {
            with_family!(kind, F => step.reserve::<F>(&mut program.scratches));
        }
        program
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Multiply-accumulates of one run.
    pub fn macs(&self) -> u64 {
        self.steps.iter().map(|step| self.macs_of(step) as u64).sum()
    }

    fn macs_of(&self, step: &Step) -> usize {
        match step {
            Step::Convolution { op, .. } => op.macs(),
            Step::Depthwise { op, .. } => op.macs(),
            Step::Linear { weights, input, .. } => self.len(*input) * weights.columns(),
            Step::Product { op, left, .. } => self.len(*left) * op.weights().columns(),
            _ => 0,
        }
    }

    fn len(&self, slot: Slot) -> usize {
        self.activations[slot].dims.iter().product()
    }

    /// Bytes held: weights as packed, activations, room for packed rows, outputs.
    pub fn bytes(&self) -> usize {
        let weights: usize = self.steps.iter().map(Step::weight_bytes).sum();
        let buffers: usize = self.buffers.iter().map(Vec::len).sum();
        let outputs: usize = self.outputs.iter().map(|out| 4 * out.len()).sum();
        weights + buffers + outputs + self.scratches.bytes()
    }

    /// Runs the network. `inputs` are f32 in the graph's order and layout; the outputs likewise.
    ///
    /// Panics if an input is not as long as its dimensions say.
    pub fn run(&mut self, inputs: &[&[f32]]) -> &[Vec<f32>] {
        assert!(inputs.iter().map(|x| x.len()).eq(self.inputs.iter().copied()));
        let Program {
            steps,
            activations,
            placed,
            buffers,
            outputs,
            ..
        } = self;
        let memory = Memory {
            activations,
            placed,
            buffers,
            outputs,
        };
        with_family!(self.kind, F => memory.run::<F>(steps, inputs, &mut self.scratches));
        &self.outputs
    }
}

/// Gives every activation a buffer; two that never live at the same time may share one.
fn place(steps: &[Step], activations: &[Activation]) -> (Vec<usize>, Vec<usize>) {
    let mut last_read = vec![0; activations.len()];
    for (i, step) in steps.iter().enumerate() {
        step.reads().into_iter().for_each(|slot| last_read[slot] = i);
    }
    let mut placed = vec![0; activations.len()];
    let mut sizes: Vec<usize> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        if let Some(slot) = step.writes() {
            let size: usize = activations[slot].dims.iter().product();
            // The free buffer that fits with the least to spare, or else the largest, made larger.
            let fit = (0..free.len()).min_by_key(|&f| match sizes[free[f]].checked_sub(size) {
                Some(spare) => (0, spare),
                None => (1, size - sizes[free[f]]),
            });
            placed[slot] = match fit {
                Some(f) => free.swap_remove(f),
                None => {
                    sizes.push(0);
                    sizes.len() - 1
                }
            };
            sizes[placed[slot]] = sizes[placed[slot]].max(size);
        }
        // Only after the step: it must not write what it reads.
        let mut dead: Vec<Slot> = step.reads();
        dead.sort_unstable();
        dead.dedup();
        free.extend(
            dead.into_iter()
                .filter(|slot| last_read[*slot] == i)
                .map(|slot| placed[slot]),
        );
    }
    (placed, sizes)
}

/// What a run reads and writes.
struct Memory<'a> {
    activations: &'a [Activation],
    placed: &'a [usize],
    buffers: &'a mut [Vec<i8>],
    outputs: &'a mut [Vec<f32>],
}

impl Memory<'_> {
    fn len(&self, slot: Slot) -> usize {
        self.activations[slot].dims.iter().product()
    }

    fn read(&self, slot: Slot) -> &[i8] {
        &self.buffers[self.placed[slot]][..self.len(slot)]
    }

    fn operand<'b>(&'b self, operand: &'b Operand) -> &'b [i8] {
        match operand {
            Operand::Slot(slot) => self.read(*slot),
            Operand::Constant(values) => values,
        }
    }

    /// Channels of a channels-last tensor; others have one plane.
    fn channels(&self, slot: Slot) -> usize {
        match self.activations[slot].dims[..] {
            [_, channels, _, _] => channels,
            _ => 1,
        }
    }

    /// Lets `work` write `slot` while it reads others.
    fn write(&mut self, slot: Slot, work: impl FnOnce(&Self, &mut [i8])) {
        let mut buffer = std::mem::take(&mut self.buffers[self.placed[slot]]);
        let len = self.len(slot);
        work(self, &mut buffer[..len]);
        self.buffers[self.placed[slot]] = buffer;
    }

    /// The same, for results that may also be a graph output.
    fn write_results(&mut self, target: Target, work: impl FnOnce(&Self, Results)) {
        match target {
            Target::Slot(slot, bounds) => {
                self.write(slot, |memory, out| work(memory, Results::Quantized { bounds, out }));
            }
            Target::Output(output, limits) => {
                let mut out = std::mem::take(&mut self.outputs[output]);
                work(self, Results::Real { limits, out: &mut out });
                self.outputs[output] = out;
            }
        }
    }

    fn run<F: Family>(mut self, steps: &mut [Step], inputs: &[&[f32]], scratches: &mut Scratches) {
        for step in steps {
            self.step::<F>(step, inputs, scratches);
        }
    }

    fn step<F: Family>(&mut self, step: &mut Step, inputs: &[&[f32]], scratches: &mut Scratches) {
        match step {
            Step::Quantize { input, out } => {
                let (channels, to) = (self.channels(*out), self.activations[*out].quantization);
                self.write(*out, |_, out| quantize::<F>(inputs[*input], channels, to, out));
            }
            Step::Convolution { op, input, out } => {
                self.write_results(*out, |m, results| match op.non_negative {
                    true => op.run::<F::NonNegative>(m.read(*input), scratches, results),
                    false => op.run::<F>(m.read(*input), scratches, results),
                });
            }
            Step::Depthwise { op, input, bounds, out } => {
                self.write(*out, |m, out| op.run::<F>(m.read(*input), *bounds, out));
            }
            Step::Linear { weights, input, out } => self.write_results(*out, |m, results| {
                let rows = Matrix {
                    values: m.read(*input),
                    depth: weights.input_depth(),
                };
                multiply::<F>(&rows, weights, scratches, results);
            }),
            Step::Product { op, left, right, out } => self.write_results(*out, |m, results| {
                op.run::<F>(m.read(*left), m.read(*right), scratches, results);
            }),
            Step::Pairwise { op, left, right, out } => {
                self.write(*out, |m, out| op.run::<F>(m.read(*left), m.operand(right), out));
            }
            Step::Table { op, input, out } => self.write(*out, |m, out| op.run::<F>(m.read(*input), out)),
            Step::MaxPool { op, input, out } => {
                self.write(*out, |m, out| op.run::<F>(m.read(*input), out));
            }
            Step::AveragePool { op, input, out } => {
                self.write(*out, |m, out| op.run::<F>(m.read(*input), out));
            }
            Step::Gather { op, input, out } => self.write(*out, |m, out| op.run(m.read(*input), out)),
            Step::Concat { op, inputs, out } => self.write(*out, |m, out| {
                for (index, input) in inputs.iter().enumerate() {
                    op.run_part::<F>(index, m.operand(input), out);
                }
            }),
            Step::Dequantize { input, output } => {
                let mut out = std::mem::take(&mut self.outputs[*output]);
                let from = self.activations[*input].quantization;
                dequantize(self.read(*input), self.channels(*input), from, &mut out);
                self.outputs[*output] = out;
            }
        }
    }
}
