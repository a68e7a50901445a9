//! The steps of a compiled graph, and the tensors between them.

use super::float_graph::FloatGraph;
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

/// The index of a tensor of real numbers in [`Draft::reals`]: f32 in ONNX's layout. The graph's outputs come first.
pub type Real = usize;

/// A tensor of real numbers that a step reads.
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
        input: Source,
        out: Slot,
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
    /// A fallback subgraph, which tract runs in f32.
    Float {
        graph: FloatGraph,
        inputs: Vec<Source>,
        outputs: Vec<Real>,
    },
}

impl Step {
    /// The activations that this step reads.
    pub fn reads(&self) -> Vec<Slot> {
        match self {
            Step::Quantize { .. } | Step::Float { .. } => vec![],
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
            | Step::Dequantize { input, .. }
            | Step::RealTable { input, .. } => vec![*input],
        }
    }

    /// The activation that this step writes, if it does not write real numbers.
    pub fn writes(&self) -> Option<Slot> {
        match self {
            Step::Convolution { out, .. } | Step::Linear { out, .. } | Step::MatMul { out, .. } => match out {
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

    /// Makes room in `workspace` for this step.
    pub fn reserve<M: Microkernels>(&self, workspace: &mut Workspace) {
        match self {
            Step::Convolution { op, .. } if op.non_negative => op.weights.reserve::<M::NonNegative>(workspace),
            Step::Convolution { op, .. } => op.weights.reserve::<M>(workspace),
            Step::Grouped { op, .. } => op.weights().for_each(|weights| weights.reserve::<M>(workspace)),
            Step::Depthwise { op, .. } => op.reserve(workspace),
            Step::Linear { weights, .. } => weights.reserve::<M>(workspace),
            Step::MatMul { op, .. } => op.weights().reserve::<M>(workspace),
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
    pub steps: Vec<Step>,
    /// Dimensions of the graph's inputs, in order.
    pub inputs: Vec<Vec<usize>>,
    /// Dimensions of every tensor of real numbers. The first `outputs` of them are the graph's outputs, in order.
    pub reals: Vec<Vec<usize>>,
    pub outputs: usize,
    pub operators: OperatorCounts,
    /// Nodes that are not computed in integers, QuantizeLinear and DequantizeLinear among them.
    pub fallback_nodes: Vec<FallbackNode>,
}
