//! A quantized network as a list of steps over a few buffers, and one that is ready to run.

use tract_onnx::prelude::{TVec, TractResult};

use super::FallbackNode;
use super::arithmetic::{Bounds, Quantization};
use super::convolution::{Convolution, Depthwise};
use super::float::FloatGraph;
use super::gemm::{Matrix, Results, Scratches, Weights, multiply};
use super::grouped::Grouped;
use super::kernels::{Family, Kind, with_family};
use super::pointwise::{Pairwise, RealTable, Table, dequantize, quantize};
use super::pool::{AveragePool, MaxPool};
use super::product::Product;
use super::rearrange::{Concat, Gather};

/// One tensor of activations. Four-dimensional ones lie channels last, all others row-major.
#[derive(Debug, Clone)]
pub struct Activation {
    pub dims: Vec<usize>,
    pub quantization: Quantization,
    /// Values are never below this, as after a ReLU.
    pub least: i8,
    /// The activation, itself no alias, that lies in memory in its stead.
    pub same_as: Option<Slot>,
}

/// An [`Activation`] by its place in [`Draft::activations`].
pub type Slot = usize;

/// A tensor of real numbers, by its place in [`Draft::reals`]: f32 in ONNX's own layout. The graph's outputs come first.
pub type Real = usize;

/// Real numbers that a step reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A graph input.
    Input(usize),
    Real(Real),
}

/// Where a matrix product's results go.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    Slot(Slot, Bounds),
    /// As real numbers between two limits.
    Real(Real, [f32; 2]),
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

    /// Keeps only the first of equal runs.
    pub fn keep_one_run(&mut self, run: usize) {
        if let Operand::Constant(values) = self
            && values.chunks(run.max(1)).all(|chunk| *chunk == values[..run])
        {
            values.truncate(run);
            values.shrink_to_fit();
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Operand::Slot(_) => 0,
            Operand::Constant(values) => values.len(),
        }
    }
}

/// One step: what is computed, from which activations, to which.
#[derive(Debug, Clone)]
pub enum Step {
    Quantize {
        input: Source,
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
    Grouped {
        op: Grouped,
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
        out: Real,
    },
    /// A function whose results nothing quantizes.
    RealTable {
        op: Box<RealTable>,
        input: Slot,
        out: Real,
    },
    /// What is not computed in integers.
    Float {
        graph: FloatGraph,
        inputs: Vec<Source>,
        outputs: Vec<Real>,
    },
}

impl Step {
    fn reads(&self) -> Vec<Slot> {
        match self {
            Step::Quantize { .. } | Step::Float { .. } => vec![],
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
            | Step::Grouped { input, .. }
            | Step::Linear { input, .. }
            | Step::Table { input, .. }
            | Step::MaxPool { input, .. }
            | Step::AveragePool { input, .. }
            | Step::Gather { input, .. }
            | Step::Dequantize { input, .. }
            | Step::RealTable { input, .. } => vec![*input],
        }
    }

    fn writes(&self) -> Option<Slot> {
        match self {
            Step::Convolution { out, .. } | Step::Linear { out, .. } | Step::Product { out, .. } => match out {
                Target::Slot(slot, _) => Some(*slot),
                Target::Real(..) => None,
            },
            Step::Dequantize { .. } | Step::RealTable { .. } | Step::Float { .. } => None,
            Step::Quantize { out, .. }
            | Step::Depthwise { out, .. }
            | Step::Grouped { out, .. }
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
            Step::Grouped { op, .. } => op.weights().for_each(|weights| scratches.reserve::<F>(weights)),
            Step::Depthwise { op, .. } => op.reserve(scratches),
            Step::Linear { weights, .. } => scratches.reserve::<F>(weights),
            Step::Product { op, .. } => scratches.reserve::<F>(op.weights()),
            _ => {}
        }
    }

    fn weight_bytes(&self) -> usize {
        match self {
            Step::Convolution { op, .. } => op.weights.bytes(),
            Step::Linear { weights, .. } => weights.bytes(),
            Step::Product { op, .. } => op.bytes(),
            Step::Depthwise { op, .. } => op.bytes(),
            Step::Grouped { op, .. } => op.bytes(),
            Step::Gather { op, .. } => op.bytes(),
            Step::Pairwise { right, .. } => right.bytes(),
            Step::Concat { inputs, .. } => inputs.iter().map(Operand::bytes).sum(),
            Step::RealTable { .. } => size_of::<RealTable>(),
            _ => 0,
        }
    }
}

/// What the importer makes of a graph.
#[derive(Debug, Default)]
pub struct Draft {
    pub activations: Vec<Activation>,
    pub steps: Vec<Step>,
    /// Dimensions of the graph's inputs, in order.
    pub inputs: Vec<Vec<usize>>,
    /// Dimensions of every tensor of real numbers. The first `outputs` of them are the graph's outputs, in order.
    pub reals: Vec<Vec<usize>>,
    pub outputs: usize,
    /// Nodes that compute something, and how many of them do so in integers.
    pub operators: usize,
    pub taken: usize,
    /// Nodes that are not computed in integers, those that quantize among them.
    pub fallback_nodes: Vec<FallbackNode>,
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
    reals: Vec<Vec<f32>>,
    outputs: usize,
    /// Of all nodes that compute something, and of those taken.
    operators: [usize; 2],
    fallback_nodes: Vec<FallbackNode>,
}

impl Program {
    /// `draft` must have been made for `kind`: weights are packed for one family.
    pub(super) fn new(kind: Kind, draft: Draft) -> Program {
        let Draft {
            mut activations,
            mut steps,
            inputs,
            reals,
            outputs,
            operators,
            taken,
            fallback_nodes,
        } = draft;
        activations.shrink_to_fit();
        steps.shrink_to_fit();
        let (placed, sizes) = place(&steps, &activations);
        let mut program = Program {
            kind,
            placed,
            buffers: sizes.into_iter().map(|size| vec![0; size]).collect(),
            scratches: Scratches::default(),
            inputs: inputs.iter().map(|dims| dims.iter().product()).collect(),
            reals: reals.iter().map(|dims| vec![0.0; dims.iter().product()]).collect(),
            outputs,
            operators: [operators, taken],
            fallback_nodes,
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

    /// How many nodes compute something, all but constants, quantizing and dequantizing; and how many of them in integers.
    pub fn operators(&self) -> [usize; 2] {
        self.operators
    }

    /// The nodes that are not computed in integers, and why.
    pub fn fallback_nodes(&self) -> &[FallbackNode] {
        &self.fallback_nodes
    }

    /// Multiply-accumulates of one run that are done in integers.
    pub fn macs(&self) -> u64 {
        self.steps.iter().map(|step| self.macs_of(step) as u64).sum()
    }

    /// Multiply-accumulates of one run that are not.
    pub fn float_macs(&self) -> u64 {
        let floats = self.steps.iter().map(|step| match step {
            Step::Float { graph, .. } => graph.macs(),
            _ => 0,
        });
        floats.sum()
    }

    /// How many pieces of the graph tract runs.
    pub fn pieces_in_f32(&self) -> usize {
        let floats = self.steps.iter().filter(|step| matches!(step, Step::Float { .. }));
        floats.count()
    }

    /// Bytes of the weights, a byte each.
    pub fn weights(&self) -> usize {
        let of_step = |step: &Step| match step {
            Step::Convolution { op, .. } => op.weights.columns() * op.weights.input_depth(),
            Step::Depthwise { op, .. } => op.macs() / op.window.output.iter().product::<usize>().max(1),
            Step::Grouped { op, .. } => op.macs() / op.positions().max(1),
            Step::Linear { weights, .. } => weights.columns() * weights.input_depth(),
            _ => 0,
        };
        self.steps.iter().map(of_step).sum()
    }

    /// Bytes of the two largest activations, the graph's inputs and outputs left out.
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
            Step::Product { op, left, .. } => self.len(*left) * op.weights().columns(),
            _ => 0,
        }
    }

    fn len(&self, slot: Slot) -> usize {
        self.activations[slot].dims.iter().product()
    }

    /// Bytes held: weights as packed, activations, room for packed rows, real numbers. What tract holds is not counted.
    pub fn bytes(&self) -> usize {
        let weights: usize = self.steps.iter().map(Step::weight_bytes).sum();
        let buffers: usize = self.buffers.iter().map(Vec::len).sum();
        let reals: usize = self.reals.iter().map(|out| 4 * out.len()).sum();
        weights + buffers + reals + self.scratches.bytes()
    }

    /// Runs the network. `inputs` are f32 in the graph's order and layout; the outputs likewise.
    ///
    /// Fails only in nodes that are not computed in integers. Panics if an input is not as long as its dimensions say.
    pub fn run(&mut self, inputs: &[&[f32]]) -> TractResult<&[Vec<f32>]> {
        assert!(inputs.iter().map(|x| x.len()).eq(self.inputs.iter().copied()));
        let Program {
            steps,
            activations,
            placed,
            buffers,
            reals,
            ..
        } = self;
        let memory = Memory {
            activations,
            placed,
            buffers,
            inputs,
            reals,
        };
        with_family!(self.kind, F => memory.run::<F>(steps, &mut self.scratches))?;
        Ok(&self.reals[..self.outputs])
    }
}

/// Gives every activation a buffer; two that never live at the same time may share one.
fn place(steps: &[Step], activations: &[Activation]) -> (Vec<usize>, Vec<usize>) {
    let root = |slot: Slot| activations[slot].same_as.unwrap_or(slot);
    let mut last_read = vec![0; activations.len()];
    for (i, step) in steps.iter().enumerate() {
        step.reads().into_iter().for_each(|slot| last_read[root(slot)] = i);
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
        let mut dead: Vec<Slot> = step.reads().into_iter().map(root).collect();
        dead.sort_unstable();
        dead.dedup();
        free.extend(
            dead.into_iter()
                .filter(|slot| last_read[*slot] == i)
                .map(|slot| placed[slot]),
        );
    }
    let placed = (0..placed.len()).map(|slot| placed[root(slot)]).collect();
    (placed, sizes)
}

/// What a run reads and writes.
struct Memory<'a> {
    activations: &'a [Activation],
    placed: &'a [usize],
    buffers: &'a mut [Vec<i8>],
    inputs: &'a [&'a [f32]],
    reals: &'a mut [Vec<f32>],
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

    fn real(&self, source: Source) -> &[f32] {
        match source {
            Source::Input(input) => self.inputs[input],
            Source::Real(real) => &self.reals[real],
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

    /// The same, for results that may also be real numbers.
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

    fn run<F: Family>(mut self, steps: &mut [Step], scratches: &mut Scratches) -> TractResult<()> {
        steps.iter_mut().try_for_each(|step| self.step::<F>(step, scratches))
    }

    fn step<F: Family>(&mut self, step: &mut Step, scratches: &mut Scratches) -> TractResult<()> {
        match step {
            Step::Quantize { input, out } => {
                let (channels, to) = (self.channels(*out), self.activations[*out].quantization);
                self.write(*out, |m, out| quantize::<F>(m.real(*input), channels, to, out));
            }
            Step::Convolution { op, input, out } => {
                self.write_results(*out, |m, results| match op.non_negative {
                    true => op.run::<F::NonNegative>(m.read(*input), scratches, results),
                    false => op.run::<F>(m.read(*input), scratches, results),
                });
            }
            Step::Depthwise { op, input, bounds, out } => {
                self.write(*out, |m, out| op.run::<F>(m.read(*input), scratches, *bounds, out));
            }
            Step::Grouped { op, input, bounds, out } => {
                self.write(*out, |m, out| op.run::<F>(m.read(*input), *bounds, scratches, out));
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
