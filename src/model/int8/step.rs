//! The steps of integer subgraphs, and the tensors between them.

use tract_onnx::prelude::*;

use super::operators::arithmetic::{Bounds, Pairwise, Quantization};
use super::operators::batched_matmul::BatchedMatmul;
use super::operators::convolution::Convolution;
use super::operators::depthwise::DepthwiseConvolution;
use super::operators::elementwise::{RealTable, Table};
use super::operators::gemm::PackedWeights;
use super::operators::grouped_convolution::GroupedConvolution;
use super::operators::kernels::Microkernels;
use super::operators::layout::Workspace;
use super::operators::pool::{AveragePool, MaxPool};
use super::operators::rearrange::{Concat, Gather};
use super::reason::FallbackNode;
use super::tract_graph::{OuterTensor, TractSubgraph};

/// One tensor of activations. With four dimensions it lies channels last in memory, otherwise row-major.
#[derive(Debug, Clone)]
pub struct Activation {
    pub dims: Vec<usize>,
    pub quantization: Quantization,
    /// A lower bound of the values. After a ReLU it is the zero point.
    pub minimum: i8,
    /// The activation whose memory this one shares. It is not an alias itself.
    pub alias_of: Option<Slot>,
}

/// The index of an [`Activation`] in [`Draft::activations`].
pub type Slot = usize;

/// The index of a tensor of real numbers, f32 in ONNX's layout. In a draft, it is an index in [`Draft::reals`]. In a
/// [`Program`](super::program::Program), it is an index among the program's inputs for a step that reads it, and among the
/// outputs for a step that writes it.
pub type Real = usize;

/// Where a matrix product's results go.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    Slot(Slot, Bounds),
    /// As real numbers within limits (minimum, maximum).
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

    /// Shortens a constant that consists of equal runs to the first of them.
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

/// One step: an operator, what it reads and what it writes.
#[derive(Debug, Clone)]
pub enum Step {
    Quantize {
        input: Real,
        out: Slot,
    },
    /// Copies activations that another program stored. `input` is an index among this program's inputs.
    Load {
        input: usize,
        out: Slot,
    },
    /// Copies activations for other programs. `out` is an index among this program's outputs.
    Store {
        input: Slot,
        out: usize,
    },
    Convolution {
        op: Convolution,
        input: Slot,
        out: Target,
    },
    Depthwise {
        op: DepthwiseConvolution,
        input: Slot,
        bounds: Bounds,
        out: Slot,
    },
    Grouped {
        op: GroupedConvolution,
        input: Slot,
        bounds: Bounds,
        out: Slot,
    },
    Linear {
        weights: PackedWeights,
        input: Slot,
        out: Target,
    },
    MatMul {
        op: Box<BatchedMatmul>,
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
    /// A function whose results are not quantized.
    RealTable {
        op: Box<RealTable>,
        input: Slot,
        out: Real,
    },
}

impl Step {
    /// The name of the operation.
    pub fn kind(&self) -> &'static str {
        match self {
            Step::Quantize { .. } => "quantize",
            Step::Load { .. } => "load",
            Step::Store { .. } => "store",
            Step::Convolution { .. } => "convolution",
            Step::Depthwise { .. } => "depthwise convolution",
            Step::Grouped { .. } => "grouped convolution",
            Step::Linear { .. } => "linear",
            Step::MatMul { .. } => "product of activations",
            Step::Pairwise { .. } => "pairwise",
            Step::Table { .. } | Step::RealTable { .. } => "table",
            Step::MaxPool { .. } => "max pool",
            Step::AveragePool { .. } => "average pool",
            Step::Gather { .. } => "rearrange",
            Step::Concat { .. } => "concatenate",
            Step::Dequantize { .. } => "dequantize",
        }
    }

    /// The activations that this step reads.
    pub fn reads(&self) -> Vec<Slot> {
        match self {
            Step::Quantize { .. } | Step::Load { .. } => vec![],
            Step::MatMul { left, right, .. } => vec![*left, *right],
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
            | Step::Store { input, .. }
            | Step::Dequantize { input, .. }
            | Step::RealTable { input, .. } => vec![*input],
        }
    }

    /// The activation that this step can replace by its result, if nothing reads it later.
    pub fn replaces(&self) -> Option<Slot> {
        match self {
            Step::Pairwise { left, .. } => Some(*left),
            _ => None,
        }
    }

    /// The real numbers that this step reads.
    pub fn reads_real(&self) -> Option<Real> {
        match self {
            Step::Quantize { input, .. } => Some(*input),
            _ => None,
        }
    }

    /// The real numbers that this step writes.
    pub fn writes_real(&self) -> Option<Real> {
        match self {
            Step::Dequantize { out, .. }
            | Step::RealTable { out, .. }
            | Step::Convolution {
                out: Target::Real(out, _),
                ..
            }
            | Step::Linear {
                out: Target::Real(out, _),
                ..
            }
            | Step::MatMul {
                out: Target::Real(out, _),
                ..
            } => Some(*out),
            _ => None,
        }
    }

    /// Replaces every slot by `slot` of it, and every index of real numbers by `input` or `output` of it.
    pub fn renumber(
        &mut self,
        slot: impl Fn(Slot) -> Slot,
        input: impl Fn(Real) -> usize,
        output: impl Fn(Real) -> usize,
    ) {
        let renumber_slot = |at: &mut Slot| *at = slot(*at);
        let renumber_operand = |operand: &mut Operand| {
            if let Operand::Slot(at) = operand {
                renumber_slot(at);
            }
        };
        let renumber_target = |target: &mut Target| match target {
            Target::Slot(at, _) => renumber_slot(at),
            Target::Real(real, _) => *real = output(*real),
        };
        match self {
            Step::Quantize { input: real, out } => {
                *real = input(*real);
                renumber_slot(out);
            }
            // Loads and stores belong to programs and not to drafts. Their ports already have the right numbers.
            Step::Load { out, .. } => renumber_slot(out),
            Step::Store { input, .. } => renumber_slot(input),
            Step::Convolution { input, out, .. } | Step::Linear { input, out, .. } => {
                renumber_slot(input);
                renumber_target(out);
            }
            Step::MatMul { left, right, out, .. } => {
                renumber_slot(left);
                renumber_slot(right);
                renumber_target(out);
            }
            Step::Pairwise { left, right, out, .. } => {
                renumber_slot(left);
                renumber_operand(right);
                renumber_slot(out);
            }
            Step::Concat { inputs, out, .. } => {
                inputs.iter_mut().for_each(renumber_operand);
                renumber_slot(out);
            }
            Step::Dequantize { input, out } | Step::RealTable { input, out, .. } => {
                renumber_slot(input);
                *out = output(*out);
            }
            Step::Depthwise { input, out, .. }
            | Step::Grouped { input, out, .. }
            | Step::Table { input, out, .. }
            | Step::MaxPool { input, out, .. }
            | Step::AveragePool { input, out, .. }
            | Step::Gather { input, out, .. } => {
                renumber_slot(input);
                renumber_slot(out);
            }
        }
    }

    /// The activation that this step writes, if it does not write real numbers.
    pub fn writes(&self) -> Option<Slot> {
        match self {
            Step::Convolution { out, .. } | Step::Linear { out, .. } | Step::MatMul { out, .. } => match out {
                Target::Slot(slot, _) => Some(*slot),
                Target::Real(..) => None,
            },
            Step::Store { .. } | Step::Dequantize { .. } | Step::RealTable { .. } => None,
            Step::Quantize { out, .. }
            | Step::Load { out, .. }
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

    /// Makes room in `workspace` for this step.
    pub fn reserve<M: Microkernels>(&self, workspace: &mut Workspace) {
        match self {
            Step::Convolution { op, .. } if op.non_negative => op.weights.reserve::<M::NonNegative>(workspace),
            Step::Convolution { op, .. } => op.weights.reserve::<M>(workspace),
            Step::Grouped { op, .. } => op.reserve::<M>(workspace),
            Step::Depthwise { op, .. } => op.reserve(workspace),
            Step::Linear { weights, .. } => weights.reserve::<M>(workspace),
            Step::MatMul { op, .. } => op.reserve::<M>(workspace),
            Step::AveragePool { op, .. } => op.reserve(workspace),
            _ => {}
        }
    }

    /// Bytes of packed weights, constants and tables.
    pub fn bytes(&self) -> usize {
        match self {
            Step::Convolution { op, .. } => op.weights.bytes(),
            Step::Linear { weights, .. } => weights.bytes(),
            Step::MatMul { op, .. } => op.bytes(),
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

/// How many nodes compute something (all but constants and quantizations), and how many of these do so in integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OperatorCounts {
    pub all: usize,
    pub int8: usize,
}

/// What the importer makes of a graph.
#[derive(Debug, Default)]
pub struct Draft {
    pub activations: Vec<Activation>,
    /// In an order in which they can be computed.
    pub parts: Vec<Part>,
    /// The graph's inputs come first, in order.
    pub reals: Vec<OuterTensor>,
    /// The graph's outputs, in order.
    pub outputs: Vec<Real>,
    pub operators: OperatorCounts,
    /// Nodes that are not computed in integers, QuantizeLinear and DequantizeLinear among them.
    pub fallback_nodes: Vec<FallbackNode>,
}

impl Draft {
    pub fn push(&mut self, step: Step) {
        self.parts.push(Part::Integers(step));
    }

    /// A new tensor of real numbers.
    pub fn add_real(&mut self, dims: Vec<usize>) -> Real {
        self.add_outer(OuterTensor {
            dims,
            kind: f32::datum_type(),
        })
    }

    pub fn add_outer(&mut self, tensor: OuterTensor) -> Real {
        self.reals.push(tensor);
        self.reals.len() - 1
    }
}

/// A part of a draft.
#[derive(Debug)]
pub enum Part {
    Integers(Step),
    /// Neighbouring nodes that fall back to f32.
    Fallback {
        graph: TractSubgraph,
        inputs: Vec<Real>,
        outputs: Vec<Real>,
    },
}
