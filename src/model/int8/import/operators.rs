//! What a node computes, before it is known how its result is quantized.

use std::rc::Rc;

use tract_onnx::pb::NodeProto;

use super::super::convolution::Window;
use super::super::kernels::Family;
use super::super::onnx::Attributes;
use super::super::program::Slot;
use super::{Importer, QuantizedConstant, Reason, Value};

/// An operator's result, real numbers that nothing has quantized yet.
#[derive(Clone)]
pub struct Pending {
    pub operator: Operator,
    pub dims: Vec<usize>,
    /// Limits of a ReLU or Clip that came after.
    pub clip: Option<(f32, f32)>,
    /// The nodes that make it up, in order.
    pub nodes: Vec<usize>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pending({:?})", self.dims)
    }
}

#[derive(Clone)]
pub enum Operator {
    Convolution {
        input: Slot,
        window: Window,
        weights: QuantizedConstant,
        bias: Option<Vec<f64>>,
        groups: usize,
    },
    /// `weights` are transposed: a row for each output.
    Linear {
        input: Slot,
        weights: QuantizedConstant,
        bias: Option<Vec<f64>>,
    },
    Product {
        left: Slot,
        right: Slot,
    },
    Pair {
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
    /// `from[i]` is the row-major place of output value i, row-major too; every value goes through `function`.
    Move {
        input: Slot,
        from: Vec<usize>,
        function: Function,
    },
    Concat {
        inputs: Vec<Input>,
        axis: usize,
    },
}

/// A function of one real number.
pub type Function = Rc<dyn Fn(f32) -> f32>;

/// An operand: activations or a constant with one scale.
#[derive(Clone)]
pub enum Input {
    Slot(Slot),
    Constant(QuantizedConstant),
}

/// What is done to two tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    Add,
    /// Left − right.
    Subtract,
    /// Right − left.
    SubtractFrom,
    Multiply,
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

    /// Values of `input` as they are, in another order or shape.
    pub fn moved(input: Slot, from: Vec<usize>, dims: Vec<usize>) -> Pending {
        let function = Rc::new(|x| x);
        Pending::new(Operator::Move { input, from, function }, dims)
    }

    pub fn unary(input: Slot, dims: Vec<usize>, function: impl Fn(f32) -> f32 + 'static) -> Pending {
        let function = Rc::new(function);
        Pending::new(Operator::Unary { input, function }, dims)
    }
}

impl<F: Family> Importer<'_, F> {
    pub(super) fn operator(&mut self, node: &NodeProto) -> Result<Pending, Reason> {
        match node.op_type.as_str() {
            "Conv" => self.convolution(node),
            "MatMul" => self.matmul(node),
            "Gemm" => self.gemm(node),
            "Add" | "Sub" | "Mul" | "Div" => self.pair(node),
            "MaxPool" | "AveragePool" | "GlobalMaxPool" | "GlobalAveragePool" | "ReduceMean" => self.pool(node),
            "Concat" => self.concat(node),
            "Transpose" => self.transpose(node),
            "Slice" => self.slice(node),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => self.reshape(node),
            "Relu" => self.clip(node, 0.0, f32::INFINITY),
            "Clip" => {
                let limit = |index, default| match self.optional(node, index)? {
                    None => Ok(default),
                    Some(Value::Constant(c)) => {
                        let first = c.floats().and_then(<[f32]>::first);
                        first.copied().ok_or("its limits are not f32".to_string())
                    }
                    Some(Value::Quantized(c)) if c.integers.len() == 1 => Ok(c.integers[0] as f32 * c.scales[0]),
                    Some(_) => Err("its limits are not constant".into()),
                };
                let low = limit(1, node.float("min", f32::NEG_INFINITY))?;
                let high = limit(2, node.float("max", f32::INFINITY))?;
                self.clip(node, low, high)
            }
            "LeakyRelu" => {
                let alpha = node.float("alpha", 0.01);
                self.unary(node, move |x| if x < 0.0 { alpha * x } else { x })
            }
            "Elu" => {
                let alpha = node.float("alpha", 1.0);
                self.unary(node, move |x| if x < 0.0 { alpha * x.exp_m1() } else { x })
            }
            "Sigmoid" => self.unary(node, |x| 1.0 / (1.0 + (-x).exp())),
            "Tanh" => self.unary(node, f32::tanh),
            "HardSigmoid" => {
                let (alpha, beta) = (node.float("alpha", 0.2), node.float("beta", 0.5));
                self.unary(node, move |x| (alpha * x + beta).clamp(0.0, 1.0))
            }
            "HardSwish" => self.unary(node, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
            "Softplus" => self.unary(node, |x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
            "Exp" => self.unary(node, f32::exp),
            "Neg" => self.unary(node, |x| -x),
            "Abs" => self.unary(node, f32::abs),
            _ => Err("is not among the operators that are computed in integers".into()),
        }
    }

    /// A function of one value: as a table, one for itself and the functions before it that nothing has quantized.
    fn unary(&self, node: &NodeProto, function: impl Fn(f32) -> f32 + 'static) -> Result<Pending, Reason> {
        let Some((slot, before, nodes)) = self.function(&node.input[0])? else {
            // As slot() says why.
            return Err(self.slot(node, 0).err().unwrap_or_default());
        };
        let mut pending = Pending::unary(slot, self.activation(slot).dims.clone(), move |x| function(before(x)));
        pending.nodes = nodes;
        Ok(pending)
    }

    /// `name` as a function of activations, with the nodes that compute it, if it is one.
    pub(super) fn function(&self, name: &str) -> Result<Option<(Slot, Function, Vec<usize>)>, Reason> {
        Ok(match self.values.get(name) {
            Some(Value::Real(slot)) => Some((*slot, Rc::new(|x| x), vec![])),
            Some(Value::Pending(pending)) => match (&pending.operator, pending.clip) {
                (Operator::Unary { input, function }, None) => Some((*input, function.clone(), pending.nodes.clone())),
                (Operator::Unary { input, function }, Some((low, high))) => {
                    let function = function.clone();
                    let clipped = move |x| function(x).max(low).min(high);
                    Some((*input, Rc::new(clipped), pending.nodes.clone()))
                }
                _ => None,
            },
            _ => None,
        })
    }

    /// A ReLU or Clip: fused into the operator before it, unless something else reads that one's result too.
    fn clip(&self, node: &NodeProto, low: f32, high: f32) -> Result<Pending, Reason> {
        if low > high || low.is_nan() || high.is_nan() {
            return Err("has its lower limit above the upper one".into());
        }
        match self.value(node, 0)? {
            Value::Pending(before) if self.readers.get(node.input[0].as_str()) == Some(&1) => {
                let (a, b) = before.clip.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
                let clip = Some((low.max(a).min(b), high.min(b).max(a)));
                Ok(Pending {
                    clip,
                    ..(**before).clone()
                })
            }
            _ => self.unary(node, move |x| x.max(low).min(high)),
        }
    }

    /// Channels, height and width of a four-dimensional tensor.
    pub(super) fn picture(&self, slot: Slot) -> Result<[usize; 3], Reason> {
        match self.activation(slot).dims[..] {
            [1, c, h, w] => Ok([c, h, w]),
            ref dims => Err(format!(
                "needs a picture, [1, channels, height, width], and gets {dims:?}"
            )),
        }
    }

    pub(super) fn weights(&self, node: &NodeProto, index: usize) -> Result<QuantizedConstant, Reason> {
        match self.value(node, index)? {
            Value::Quantized(constant) => Ok(constant.clone()),
            _ => Err(format!("its input {} is not quantized and constant", node.input[index])),
        }
    }

    /// A bias as real numbers, quantized in the file or not.
    pub(super) fn bias(&self, node: &NodeProto, index: usize) -> Result<Option<Vec<f64>>, Reason> {
        match self.optional(node, index)? {
            None => Ok(None),
            Some(Value::Quantized(bias)) => {
                let scale = super::per_entry(&bias.dims, 0, bias.scales.len())
                    .ok_or("its bias has another number of scales than of values")?;
                let integers = bias.integers.iter().enumerate();
                Ok(Some(
                    integers
                        .map(|(i, v)| f64::from(*v) * f64::from(bias.scales[scale(i)]))
                        .collect(),
                ))
            }
            Some(Value::Constant(bias)) => {
                let reals = bias.floats().ok_or("its bias is not f32")?;
                Ok(Some(reals.iter().map(|v| f64::from(*v)).collect()))
            }
            Some(_) => Err("its bias is not constant".into()),
        }
    }

    /// An input that is quantized, activations or constant.
    pub(super) fn either(&self, node: &NodeProto, index: usize) -> Result<Input, Reason> {
        match self.value(node, index)? {
            Value::Quantized(c) if c.scales.len() == 1 => Ok(Input::Constant(c.clone())),
            Value::Quantized(_) => Err("has a constant with more than one scale".into()),
            _ => Ok(Input::Slot(self.slot(node, index)?)),
        }
    }

    pub(super) fn input_dims<'b>(&'b self, input: &'b Input) -> &'b [usize] {
        match input {
            Input::Slot(slot) => &self.activation(*slot).dims,
            Input::Constant(constant) => &constant.dims,
        }
    }
}
