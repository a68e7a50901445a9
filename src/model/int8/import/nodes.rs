//! Which method imports which operator; functions of one value; and the inputs that several operators have in common.

use std::rc::Rc;

use tract_onnx::pb::NodeProto;

use super::super::onnx::Attributes;
use super::super::operators::kernels::Microkernels;
use super::super::reason::Reason;
use super::super::step::Slot;
use super::importer::Importer;
use super::value::{
    Input, MAX_FUNCTION_NODES, Operator, Pending, PendingFunction, QuantizedConstant, Value, scale_index,
};

impl<M: Microkernels> Importer<'_, M> {
    /// The result of a node, pending until it is known how it is quantized.
    pub fn operator(&mut self, node: &NodeProto) -> Result<Pending, Reason> {
        match node.op_type.as_str() {
            "Conv" => self.convolution(node),
            "MatMul" => self.matmul(node),
            "Gemm" => self.gemm(node),
            "Add" | "Sub" | "Mul" | "Div" => self.pairwise_operator(node),
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
                        first.copied().ok_or(Reason::LimitsNotF32)
                    }
                    Some(Value::Quantized(c)) if c.integers.len() == 1 => Ok(c.integers[0] as f32 * c.scales[0]),
                    Some(_) => Err(Reason::LimitsNotConstant),
                };
                let low = limit(1, node.float("min", f32::NEG_INFINITY))?;
                let high = limit(2, node.float("max", f32::INFINITY))?;
                self.clip(node, low, high)
            }
            "LeakyRelu" => {
                let alpha = node.float("alpha", 0.01);
                self.unary(node, |x| if x < 0.0 { alpha * x } else { x })
            }
            "Elu" => {
                let alpha = node.float("alpha", 1.0);
                self.unary(node, |x| if x < 0.0 { alpha * x.exp_m1() } else { x })
            }
            "Sigmoid" => self.unary(node, |x| 1.0 / (1.0 + (-x).exp())),
            "Tanh" => self.unary(node, f32::tanh),
            "HardSigmoid" => {
                let (alpha, beta) = (node.float("alpha", 0.2), node.float("beta", 0.5));
                self.unary(node, |x| (alpha * x + beta).clamp(0.0, 1.0))
            }
            "HardSwish" => self.unary(node, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
            "Softplus" => self.unary(node, |x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
            "Exp" => self.unary(node, f32::exp),
            "Neg" => self.unary(node, |x| -x),
            "Abs" => self.unary(node, f32::abs),
            _ => Err(Reason::UnsupportedOperator),
        }
    }

    /// A function of one value. It becomes one table together with the functions before it that are not quantized.
    fn unary(&self, node: &NodeProto, function: impl Fn(f32) -> f32) -> Result<Pending, Reason> {
        let before = self.input_function(node, 0)?;
        let dims = self.activation(before.input).dims.clone();
        Ok(Pending::unary(before.then(function), dims))
    }

    /// An input that must be a function of activations, or activations themselves.
    pub fn input_function(&self, node: &NodeProto, index: usize) -> Result<PendingFunction, Reason> {
        match self.function(node, index) {
            Some(function) if function.nodes.len() < MAX_FUNCTION_NODES => Ok(function),
            Some(_) => Err(Reason::FunctionTooLong),
            None => Ok(self.identity(self.slot(node, index)?)),
        }
    }

    pub fn identity(&self, input: Slot) -> PendingFunction {
        PendingFunction::identity(input, self.activation(input).quantization)
    }

    /// An input as a function of activations, if it is one.
    pub fn function(&self, node: &NodeProto, index: usize) -> Option<PendingFunction> {
        match self.values.get(node.input.get(index)?)? {
            Value::Real(slot) => Some(self.identity(*slot)),
            Value::Pending(pending) => {
                let Operator::Unary { input, function } = &pending.operator else {
                    return None;
                };
                let function = PendingFunction {
                    input: *input,
                    function: function.clone(),
                    nodes: pending.nodes.clone(),
                };
                Some(match pending.clip {
                    None => function,
                    Some((low, high)) => function.then(|x| x.max(low).min(high)),
                })
            }
            _ => None,
        }
    }

    /// A Relu or Clip: fused into the operator before it, unless something else also reads that operator's result.
    fn clip(&self, node: &NodeProto, low: f32, high: f32) -> Result<Pending, Reason> {
        if low > high || low.is_nan() || high.is_nan() {
            return Err(Reason::LimitsReversed);
        }
        match self.value(node, 0)? {
            Value::Pending(before) if self.readers.get(node.input[0].as_str()) == Some(&1) => {
                if before.nodes.len() >= MAX_FUNCTION_NODES {
                    return Err(Reason::FunctionTooLong);
                }
                let (a, b) = before.clip.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
                let clip = Some((low.max(a).min(b), high.min(b).max(a)));
                Ok(Pending {
                    clip,
                    ..(**before).clone()
                })
            }
            _ => self.unary(node, |x| x.max(low).min(high)),
        }
    }

    /// Channels, height and width of a four-dimensional tensor.
    pub fn image_size(&self, slot: Slot) -> Result<[usize; 3], Reason> {
        match self.activation(slot).dims[..] {
            [1, c, h, w] => Ok([c, h, w]),
            ref dims => Err(Reason::NotAnImage(dims.to_vec())),
        }
    }

    /// An input that must be a quantized constant.
    pub fn weights(&self, node: &NodeProto, index: usize) -> Result<QuantizedConstant, Reason> {
        match self.value(node, index)? {
            Value::Quantized(constant) => Ok(constant.clone()),
            _ => Err(Reason::InputNotQuantizedConstant(node.input[index].clone())),
        }
    }

    /// A bias as real numbers, whether or not it is quantized in the file.
    pub fn bias(&self, node: &NodeProto, index: usize) -> Result<Option<Rc<[f64]>>, Reason> {
        match self.optional(node, index)? {
            None => Ok(None),
            Some(Value::Quantized(bias)) => {
                let scale = scale_index(&bias.dims, 0, bias.scales.len()).ok_or(Reason::BiasCount)?;
                let integers = bias.integers.iter().enumerate();
                Ok(Some(
                    integers
                        .map(|(i, v)| f64::from(*v) * f64::from(bias.scales[scale(i)]))
                        .collect(),
                ))
            }
            Some(Value::Constant(bias)) => {
                let reals = bias.floats().ok_or(Reason::BiasNotF32)?;
                Ok(Some(reals.iter().map(|v| f64::from(*v)).collect()))
            }
            Some(_) => Err(Reason::BiasNotConstant),
        }
    }

    /// An input that must be quantized: activations or a constant.
    pub fn quantized_input(&self, node: &NodeProto, index: usize) -> Result<Input, Reason> {
        match self.value(node, index)? {
            Value::Quantized(c) if c.scales.len() == 1 => Ok(Input::Constant(c.clone())),
            Value::Quantized(_) => Err(Reason::SeveralConstantScales),
            _ => Ok(Input::Slot(self.slot(node, index)?)),
        }
    }

    pub fn input_dims<'b>(&'b self, input: &'b Input) -> &'b [usize] {
        match input {
            Input::Slot(slot) => &self.activation(*slot).dims,
            Input::Constant(constant) => &constant.dims,
        }
    }
}
