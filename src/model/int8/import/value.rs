//! What the names in a graph stand for while it is imported.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;

use tract_onnx::pb::NodeProto;

use super::super::onnx::{Attributes, Constant};
use super::super::operators::arithmetic::Quantization;
use super::super::operators::window::Window;
use super::super::step::{Real, Slot};

/// What a name in the graph stands for.
#[derive(Debug, Clone)]
pub enum Value {
    /// Real numbers: a graph input, or the result of a fallback subgraph.
    Float(Real),
    /// The result of a fallback subgraph that is not f32.
    Other(Real),
    /// The result of a node in the fallback subgraph that is still growing.
    Fallback,
    /// s8 values: the result of QuantizeLinear. `unsigned` if they are u8 in the file.
    Integers {
        slot: Slot,
        unsigned: bool,
    },
    /// The result of DequantizeLinear on s8 values.
    Real(Slot),
    Constant(Rc<Constant>),
    /// The result of DequantizeLinear on a constant.
    Quantized(QuantizedConstant),
    Pending(Box<Pending>),
}

/// Constant integers and their scales.
#[derive(Debug, Clone)]
pub struct QuantizedConstant {
    pub dims: Vec<usize>,
    /// With the zero point subtracted.
    pub integers: Rc<[i32]>,
    /// A single scale, or one per entry of `axis`.
    pub scales: Rc<[f32]>,
    pub axis: usize,
    /// The zero point that was subtracted; 0 if there were several.
    pub zero_point: i32,
}

/// The result of an operator: real numbers that no QuantizeLinear has followed yet.
#[derive(Clone)]
pub struct Pending {
    pub operator: Operator,
    pub dims: Vec<usize>,
    /// The limits of a Relu or Clip that followed the operator.
    pub clip: Option<(f32, f32)>,
    /// The nodes that it consists of, in order.
    pub nodes: Vec<usize>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pending({:?})", self.dims)
    }
}

/// What a pending operator computes, and from what.
#[derive(Clone)]
pub enum Operator {
    Convolution {
        input: Slot,
        window: Window,
        weights: QuantizedConstant,
        bias: Option<Rc<[f64]>>,
        groups: usize,
    },
    /// `weights` are transposed: one row per output.
    Linear {
        input: Slot,
        weights: QuantizedConstant,
        bias: Option<Rc<[f64]>>,
    },
    /// The product of two activations.
    MatMul {
        left: Slot,
        right: Slot,
    },
    Pairwise {
        left: Slot,
        right: Input,
        arithmetic: Arithmetic,
    },
    Unary {
        input: Slot,
        function: Function,
    },
    MaxPool {
        input: Slot,
        window: Window,
    },
    AveragePool {
        input: Slot,
        window: Window,
        counts_padding: bool,
    },
    /// `from[i]` is the index of the input value for output value i, both row-major. Every value passes through `function`.
    Move {
        input: Slot,
        from: Rc<[u32]>,
        function: Function,
    },
    Concat {
        inputs: Rc<[Input]>,
        axis: usize,
    },
}

/// A function of activations: its results for all 256 values, in the order of the values as u8. So functions of functions cost no
/// more than one.
pub type Function = Rc<[f32; 256]>;

/// The most nodes that become one function.
pub const MAX_FUNCTION_NODES: usize = 256;

/// A function of activations that is not a step yet.
pub struct PendingFunction {
    pub input: Slot,
    pub function: Function,
    /// The nodes that compute it.
    pub nodes: Vec<usize>,
}

impl PendingFunction {
    /// The real numbers that the activations stand for.
    pub fn identity(input: Slot, quantization: Quantization) -> PendingFunction {
        PendingFunction {
            input,
            function: identity(quantization),
            nodes: vec![],
        }
    }

    /// Applies `function` to the results.
    pub fn then(self, function: impl Fn(f32) -> f32) -> PendingFunction {
        PendingFunction {
            function: Rc::new(self.function.map(function)),
            ..self
        }
    }
}

/// The real numbers that the activations stand for.
pub fn identity(quantization: Quantization) -> Function {
    Rc::new(std::array::from_fn(|i| quantization.real((i as u8).cast_signed())))
}

/// An operand: activations, or a constant with a single scale.
#[derive(Clone)]
pub enum Input {
    Slot(Slot),
    Constant(QuantizedConstant),
}

/// What is computed from two tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    Add,
    /// Left − right.
    Subtract,
    /// Right − left.
    SubtractFrom,
    Multiply,
}

impl Arithmetic {
    /// The same with left and right exchanged.
    pub fn swapped(self) -> Arithmetic {
        match self {
            Arithmetic::Subtract => Arithmetic::SubtractFrom,
            Arithmetic::SubtractFrom => Arithmetic::Subtract,
            other => other,
        }
    }
}

impl Pending {
    pub fn new(operator: Operator, dims: Vec<usize>) -> Pending {
        Pending {
            operator,
            dims,
            clip: None,
            nodes: vec![],
        }
    }

    /// A function of activations.
    pub fn unary(function: PendingFunction, dims: Vec<usize>) -> Pending {
        let PendingFunction { input, function, nodes } = function;
        Pending {
            nodes,
            ..Pending::new(Operator::Unary { input, function }, dims)
        }
    }

    /// Values of the function's input in another order or shape, passed through the function.
    pub fn moved(function: PendingFunction, from: Rc<[u32]>, dims: Vec<usize>) -> Pending {
        let PendingFunction { input, function, nodes } = function;
        Pending {
            nodes,
            ..Pending::new(Operator::Move { input, from, function }, dims)
        }
    }
}

/// Nodes that tract will run together, and what they read.
#[derive(Default)]
pub struct FallbackSubgraph {
    /// Indices of the nodes, in the order of the file.
    nodes: BTreeSet<usize>,
    /// Names of the inputs, and where their values are.
    inputs: Vec<(String, Real)>,
    /// The names of the inputs, and of what `quantizations` compute.
    supplied: HashSet<String>,
    /// Copies of QuantizeLinear nodes that compute integers again from the real numbers they stand for, by the index of the node.
    quantizations: BTreeMap<usize, NodeProto>,
}

impl FallbackSubgraph {
    /// Adds a node, unless it is inside.
    pub fn add_node(&mut self, index: usize) -> bool {
        self.nodes.insert(index)
    }

    pub fn add_input(&mut self, name: String, real: Real) {
        if self.supplied.insert(name.clone()) {
            self.inputs.push((name, real));
        }
    }

    pub fn add_quantization(&mut self, index: usize, copy: NodeProto) {
        self.supplied.extend(copy.output.iter().cloned());
        self.quantizations.insert(index, copy);
    }

    /// Whether an input or a copied quantization gives `name`.
    pub fn supplies(&self, name: &str) -> bool {
        self.supplied.contains(name)
    }

    pub fn nodes(&self) -> &BTreeSet<usize> {
        &self.nodes
    }

    /// All nodes in the order of the file, given the nodes of the file. In that order they can be computed.
    pub fn in_order<'a>(&'a self, file: &'a [NodeProto]) -> Vec<&'a NodeProto> {
        let originals = self.nodes.iter().map(|index| (*index, &file[*index]));
        let copies = self.quantizations.iter().map(|(index, node)| (*index, node));
        let all: BTreeMap<usize, &NodeProto> = originals.chain(copies).collect();
        all.into_values().collect()
    }

    pub fn inputs(&self) -> &[(String, Real)] {
        &self.inputs
    }
}

/// The index of the scale for the value at an index, given a single scale or one per entry of `axis`.
pub fn scale_index(dims: &[usize], axis: usize, scales: usize) -> Option<impl Fn(usize) -> usize + use<>> {
    let inner: usize = dims.iter().skip(axis + 1).product();
    let length = dims.get(axis).copied().unwrap_or(1);
    (scales == 1 || scales == length).then_some(move |i: usize| if scales == 1 { 0 } else { i / inner % length })
}

/// The attribute `axis`, or `default`. A negative axis counts from the end; one that does not exist gives the rank or more.
pub fn axis_of(node: &NodeProto, default: i64, rank: usize) -> usize {
    from_end(node.integer("axis", default), rank).unwrap_or(rank)
}

/// An index that counts from the end if it is negative. `None` if it lies before the start.
pub fn from_end(index: i64, length: usize) -> Option<usize> {
    match usize::try_from(index) {
        Ok(index) => Some(index),
        Err(_) => length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
    }
}

pub fn row_major_strides(dims: &[usize]) -> Vec<usize> {
    (0..dims.len()).map(|k| dims[k + 1..].iter().product()).collect()
}
