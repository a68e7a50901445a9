//! What a node computes, before it is known how its result is quantized.

use std::rc::Rc;

use tract_onnx::pb::NodeProto;

use super::super::convolution::{MAX_TAPS, Window};
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
        bias: Option<QuantizedConstant>,
        depthwise: bool,
    },
    /// `weights` are transposed: a row for each output.
    Linear {
        input: Slot,
        weights: QuantizedConstant,
        bias: Option<QuantizedConstant>,
    },
    Product {
        left: Slot,
        right: Slot,
    },
    Pair {
        left: Slot,
        right: Input,
        multiply: bool,
    },
    Unary {
        input: Slot,
        function: Rc<dyn Fn(f32) -> f32>,
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
    /// `from[i]` is the row-major place of output value i, row-major too.
    Move {
        input: Slot,
        from: Vec<usize>,
    },
    Concat {
        inputs: Vec<Input>,
        axis: usize,
    },
}

/// An operand: activations or a constant with one scale.
#[derive(Clone)]
pub enum Input {
    Slot(Slot),
    Constant(QuantizedConstant),
}

impl Pending {
    pub fn new(operator: Operator, dims: Vec<usize>) -> Pending {
        Pending {
            operator,
            dims,
            clip: None,
        }
    }

    pub fn unary(input: Slot, dims: Vec<usize>, function: impl Fn(f32) -> f32 + 'static) -> Pending {
        let function = Rc::new(function);
        Pending::new(Operator::Unary { input, function }, dims)
    }
}

impl<F: Family> Importer<F> {
    pub(super) fn operator(&mut self, node: &NodeProto) -> Result<Pending, Reason> {
        match node.op_type.as_str() {
            "Conv" => self.convolution(node),
            "MatMul" => self.matmul(node),
            "Gemm" => self.gemm(node),
            "Add" => self.pair(node, false),
            "Mul" => self.pair(node, true),
            "MaxPool" => {
                let (input, window, channels) = self.pooled(node)?;
                let dims = vec![1, channels, window.output[0], window.output[1]];
                Ok(Pending::new(Operator::MaxPool { input, window }, dims))
            }
            "AveragePool" => {
                let (input, window, channels) = self.pooled(node)?;
                let counts_padding = node.integer("count_include_pad", 0) != 0;
                let dims = vec![1, channels, window.output[0], window.output[1]];
                let operator = Operator::AveragePool {
                    input,
                    window,
                    counts_padding,
                };
                Ok(Pending::new(operator, dims))
            }
            "GlobalAveragePool" => {
                let input = self.slot(node, 0)?;
                let [channels, height, width] = self.picture(input)?;
                let size = [height, width];
                let window = Window {
                    input: size,
                    output: [1, 1],
                    kernel: size,
                    stride: [1, 1],
                    dilation: [1, 1],
                    pad: [0, 0],
                };
                let operator = Operator::AveragePool {
                    input,
                    window,
                    counts_padding: false,
                };
                Ok(Pending::new(operator, vec![1, channels, 1, 1]))
            }
            "Concat" => self.concat(node),
            "Transpose" => self.transpose(node),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => self.reshape(node),
            "Relu" => self.clip(node, 0.0, f32::INFINITY),
            "Clip" => {
                let limit = |index, default| match self.optional(node, index)? {
                    None => Ok(default),
                    Some(Value::Constant(c)) => c.floats().map(|f| f[0]).ok_or("its limits are not f32".to_string()),
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
            "Sigmoid" => self.unary(node, |x| 1.0 / (1.0 + (-x).exp())),
            "Tanh" => self.unary(node, f32::tanh),
            "HardSigmoid" => {
                let (alpha, beta) = (node.float("alpha", 0.2), node.float("beta", 0.5));
                self.unary(node, move |x| (alpha * x + beta).clamp(0.0, 1.0))
            }
            "HardSwish" => self.unary(node, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
            other => Err(format!(
                "{other} is not among the operators that are computed in integers"
            )),
        }
    }

    fn unary(&self, node: &NodeProto, function: impl Fn(f32) -> f32 + 'static) -> Result<Pending, Reason> {
        let input = self.slot(node, 0)?;
        Ok(Pending::unary(input, self.activation(input).dims.clone(), function))
    }

    /// A ReLU or Clip: fused into the operator before it, unless something else reads that one's result too.
    fn clip(&self, node: &NodeProto, low: f32, high: f32) -> Result<Pending, Reason> {
        if low > high || low.is_nan() || high.is_nan() {
            return Err("has its lower limit above the upper one".into());
        }
        match self.value(node, 0)? {
            Value::Pending(before) if self.readers.get(&node.input[0]) == Some(&1) => {
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
    fn picture(&self, slot: Slot) -> Result<[usize; 3], Reason> {
        match self.activation(slot).dims[..] {
            [1, c, h, w] => Ok([c, h, w]),
            ref dims => Err(format!(
                "needs a picture, [1, channels, height, width], and gets {dims:?}"
            )),
        }
    }

    fn weights(&self, node: &NodeProto, index: usize) -> Result<QuantizedConstant, Reason> {
        match self.value(node, index)? {
            Value::Quantized(constant) => Ok(constant.clone()),
            _ => Err(format!("its input {} is not quantized and constant", node.input[index])),
        }
    }

    fn bias(&self, node: &NodeProto, index: usize) -> Result<Option<QuantizedConstant>, Reason> {
        match self.optional(node, index)? {
            None => Ok(None),
            Some(Value::Quantized(constant)) => Ok(Some(constant.clone())),
            Some(_) => Err("its bias is not quantized and constant".into()),
        }
    }

    fn convolution(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let input = self.slot(node, 0)?;
        let [channels, height, width] = self.picture(input)?;
        let weights = self.weights(node, 1)?;
        let [outputs, per_group, kernel_height, kernel_width] = weights.dims[..] else {
            return Err("its weights are not four-dimensional".into());
        };
        let group = node.integer("group", 1);
        let depthwise = group as usize == channels && outputs == channels && per_group == 1 && channels > 1;
        if !depthwise && (group != 1 || per_group != channels) {
            return Err(format!(
                "has {group} groups: only one, and one for each channel, are taken"
            ));
        }
        let kernel = [kernel_height, kernel_width];
        if depthwise && kernel[0] * kernel[1] > MAX_TAPS {
            return Err("has a depthwise kernel of more than 7 × 7".into());
        }
        let window = window(node, [height, width], kernel)?;
        let dims = vec![1, outputs, window.output[0], window.output[1]];
        let operator = Operator::Convolution {
            input,
            window,
            weights,
            bias: self.bias(node, 2)?,
            depthwise,
        };
        Ok(Pending::new(operator, dims))
    }

    fn pooled(&self, node: &NodeProto) -> Result<(Slot, Window, usize), Reason> {
        let input = self.slot(node, 0)?;
        let [channels, height, width] = self.picture(input)?;
        let kernel = pair(node.integers("kernel_shape"), None)?;
        if node.integer("ceil_mode", 0) != 0 {
            return Err("rounds its size up (ceil_mode)".into());
        }
        Ok((input, window(node, [height, width], kernel)?, channels))
    }

    fn matmul(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let left = self.slot(node, 0)?;
        let left_dims = self.activation(left).dims.clone();
        if let Value::Quantized(_) = self.value(node, 1)? {
            let weights = self.weights(node, 1)?;
            return self.linear(left, transposed(&weights)?, None);
        }
        let right = self.slot(node, 1)?;
        let right_dims = &self.activation(right).dims;
        let one_matrix = |dims: &[usize]| dims.len() >= 2 && dims[..dims.len() - 2].iter().all(|d| *d == 1);
        if !one_matrix(&left_dims) || !one_matrix(right_dims) || left_dims.len() != right_dims.len() {
            return Err("multiplies stacks of matrices".into());
        }
        let rank = left_dims.len();
        if left_dims[rank - 1] != right_dims[rank - 2] {
            return Err("multiplies matrices that do not fit".into());
        }
        if [left, right]
            .iter()
            .any(|slot| self.activation(*slot).quantization.zero_point != 0)
        {
            return Err("multiplies activations whose zero point is not 0".into());
        }
        let mut dims = left_dims;
        dims[rank - 1] = right_dims[rank - 1];
        Ok(Pending::new(Operator::Product { left, right }, dims))
    }

    fn gemm(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let plain = node.float("alpha", 1.0) == 1.0 && node.float("beta", 1.0) == 1.0;
        if !plain || node.integer("transA", 0) != 0 {
            return Err("has alpha, beta or transA".into());
        }
        let weights = self.weights(node, 1)?;
        let weights = if node.integer("transB", 0) != 0 {
            weights
        } else {
            transposed(&weights)?
        };
        self.linear(self.slot(node, 0)?, weights, self.bias(node, 2)?)
    }

    fn linear(
        &self,
        input: Slot,
        weights: QuantizedConstant,
        bias: Option<QuantizedConstant>,
    ) -> Result<Pending, Reason> {
        let mut dims = self.activation(input).dims.clone();
        let flat = dims.len() != 4 || dims[1] == 1;
        match (dims.last_mut(), &weights.dims[..]) {
            (Some(last), [outputs, depth]) if *last == *depth && flat => *last = *outputs,
            _ => {
                return Err("its weights do not fit its input, or that has more than one channel".into());
            }
        }
        Ok(Pending::new(Operator::Linear { input, weights, bias }, dims))
    }

    fn pair(&self, node: &NodeProto, multiply: bool) -> Result<Pending, Reason> {
        // What is constant, or repeated, goes to the right: both operations commute.
        let (left, right) = match (self.either(node, 0)?, self.either(node, 1)?) {
            (Input::Slot(a), Input::Slot(b)) if self.len(b) > self.len(a) => (b, Input::Slot(a)),
            (Input::Slot(a), b) => (a, b),
            (a, Input::Slot(b)) => (b, a),
            _ => return Err("combines two constants".into()),
        };
        let dims = self.activation(left).dims.clone();
        let other = self.input_dims(&right).to_vec();
        let single = other.iter().product::<usize>() == 1;
        let per_channel = dims.len() == 4 && other[..] == [1, dims[1], 1, 1];
        if !(other == dims || single || per_channel) {
            return Err(format!("combines {dims:?} with {other:?}"));
        }
        Ok(Pending::new(Operator::Pair { left, right, multiply }, dims))
    }

    fn len(&self, slot: Slot) -> usize {
        self.activation(slot).dims.iter().product()
    }

    fn concat(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let inputs = (0..node.input.len())
            .map(|i| self.either(node, i))
            .collect::<Result<Vec<_>, _>>()?;
        let mut dims = self.input_dims(&inputs[0]).to_vec();
        let axis = node.integer("axis", 0);
        let axis = if axis < 0 { axis + dims.len() as i64 } else { axis } as usize;
        if axis >= dims.len() || (dims.len() == 4 && axis == 0) {
            return Err("concatenates along the batch, or an axis that is not there".into());
        }
        dims[axis] = inputs.iter().map(|input| self.input_dims(input)[axis]).sum();
        Ok(Pending::new(Operator::Concat { inputs, axis }, dims))
    }

    /// An input that is quantized, activations or constant.
    fn either(&self, node: &NodeProto, index: usize) -> Result<Input, Reason> {
        match self.value(node, index)? {
            Value::Quantized(c) if c.scales.len() == 1 => Ok(Input::Constant(c.clone())),
            Value::Quantized(_) => Err("has a constant with more than one scale".into()),
            _ => Ok(Input::Slot(self.slot(node, index)?)),
        }
    }

    fn input_dims<'a>(&'a self, input: &'a Input) -> &'a [usize] {
        match input {
            Input::Slot(slot) => &self.activation(*slot).dims,
            Input::Constant(constant) => &constant.dims,
        }
    }
}

/// [depth][outputs] → [outputs][depth].
fn transposed(weights: &QuantizedConstant) -> Result<QuantizedConstant, Reason> {
    let [depth, outputs] = weights.dims[..] else {
        return Err("its weights are not a matrix".into());
    };
    Ok(QuantizedConstant {
        dims: vec![outputs, depth],
        integers: (0..outputs * depth)
            .map(|i| weights.integers[i % depth * outputs + i / depth])
            .collect(),
        scales: weights.scales.clone(),
        axis: 1 - weights.axis.min(1),
    })
}

fn pair(values: Option<&[i64]>, default: Option<usize>) -> Result<[usize; 2], Reason> {
    match (values, default) {
        (Some([a, b]), _) if *a > 0 && *b > 0 => Ok([*a as usize, *b as usize]),
        (None, Some(d)) => Ok([d, d]),
        _ => Err("has a window that is not two-dimensional".into()),
    }
}

/// The geometry of a Conv or a pool.
fn window(node: &NodeProto, input: [usize; 2], kernel: [usize; 2]) -> Result<Window, Reason> {
    if !matches!(node.text("auto_pad"), None | Some(b"NOTSET" | b"VALID")) {
        return Err("pads by itself (auto_pad)".into());
    }
    let stride = pair(node.integers("strides"), Some(1))?;
    let dilation = pair(node.integers("dilations"), Some(1))?;
    let pads: [usize; 4] = match node.integers("pads") {
        None => [0; 4],
        Some(&[a, b, c, d]) if a >= 0 && b >= 0 && c >= 0 && d >= 0 => [a, b, c, d].map(|p| p as usize),
        Some(_) => return Err("has pads that are negative or not of a picture".into()),
    };
    let mut output = [0; 2];
    for axis in 0..2 {
        let extent = (kernel[axis] - 1) * dilation[axis] + 1;
        output[axis] = (input[axis] + pads[axis] + pads[axis + 2])
            .checked_sub(extent)
            .ok_or("has a window larger than its picture")?
            / stride[axis]
            + 1;
    }
    Ok(Window {
        input,
        output,
        kernel,
        stride,
        dilation,
        pad: [pads[0], pads[1]],
    })
}
