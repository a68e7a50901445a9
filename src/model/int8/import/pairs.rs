//! Sums and products of two tensors, and concatenations.

use tract_onnx::pb::NodeProto;

use super::super::kernels::Family;
use super::super::onnx::Attributes;
use super::operators::{Arithmetic, Function, Input, Operator, Pending};
use super::shapes::row_major_strides;
use super::{Importer, QuantizedConstant, Reason, Value};

impl<F: Family> Importer<'_, F> {
    pub(super) fn pair(&mut self, node: &NodeProto) -> Result<Pending, Reason> {
        if let Some(function) = self.pair_of_functions(node)? {
            return Ok(function);
        }
        let arithmetic = match node.op_type.as_str() {
            "Add" => Arithmetic::Add,
            "Sub" => Arithmetic::Subtract,
            "Mul" => Arithmetic::Multiply,
            _ => return Err("divides by what is not a single constant".into()),
        };
        let operands = [self.either(node, 0)?, self.either(node, 1)?];
        let dims = broadcast(self.input_dims(&operands[0]), self.input_dims(&operands[1]))?;
        let [a, b] = operands.map(|operand| self.repeated(operand, &dims));
        // What is constant, or repeated by the step itself, goes to the right.
        let whole = |importer: &Self, operand: &Input| importer.input_dims(operand) == dims;
        let (left, right, arithmetic) = match (a?, b?) {
            (Input::Slot(a), b) if whole(self, &Input::Slot(a)) => (a, b, arithmetic),
            (a, Input::Slot(b)) if whole(self, &Input::Slot(b)) => (b, a, arithmetic.swapped()),
            _ => return Err("combines two constants, or what has to be repeated with a constant".into()),
        };
        let operator = Operator::Pair {
            left,
            right,
            arithmetic,
        };
        Ok(Pending::new(operator, dims))
    }

    /// Both operands as functions of the same activations, or one of them and a constant number: x × sigmoid(x), x + 3.
    fn pair_of_functions(&self, node: &NodeProto) -> Result<Option<Pending>, Reason> {
        let operation: fn(f32, f32) -> f32 = match node.op_type.as_str() {
            "Add" => |a, b| a + b,
            "Sub" => |a, b| a - b,
            "Mul" => |a, b| a * b,
            _ => |a, b| a / b,
        };
        let number = |index: usize| -> Result<Option<f32>, Reason> {
            Ok(match self.value(node, index)? {
                Value::Constant(c) => c.floats().filter(|f| f.len() == 1 && c.dims.len() <= 1).map(|f| f[0]),
                Value::Quantized(c) if node.op_type == "Div" && c.integers.len() == 1 && c.dims.len() <= 1 => {
                    Some(c.integers[0] as f32 * c.scales[0])
                }
                _ => None,
            })
        };
        let functions = [self.function(&node.input[0])?, self.function(&node.input[1])?];
        let quantized = |name: &str| matches!(self.values.get(name), Some(Value::Real(_)));
        let both_quantized = quantized(&node.input[0]) && quantized(&node.input[1]);
        let (slot, function, nodes): (_, Function, _) = match (functions, [number(0)?, number(1)?]) {
            // Two tensors have a step of their own, which needs no table.
            ([Some((a, f, mut nodes)), Some((b, g, more))], _) if a == b && !both_quantized => {
                nodes.extend(more);
                nodes.sort_unstable();
                nodes.dedup();
                (a, std::rc::Rc::new(move |x| operation(f(x), g(x))), nodes)
            }
            ([Some((a, f, nodes)), None], [_, Some(n)]) => (a, std::rc::Rc::new(move |x| operation(f(x), n)), nodes),
            ([None, Some((b, g, nodes))], [Some(n), _]) => (b, std::rc::Rc::new(move |x| operation(n, g(x))), nodes),
            _ => return Ok(None),
        };
        let mut pending = Pending::unary(slot, self.activation(slot).dims.clone(), move |x| function(x));
        pending.nodes = nodes;
        Ok(Some(pending))
    }

    /// `operand` repeated to `dims`, unless the step can repeat it: one value for all, or one for each channel.
    fn repeated(&mut self, operand: Input, dims: &[usize]) -> Result<Input, Reason> {
        let own = self.input_dims(&operand).to_vec();
        let single = own.iter().product::<usize>() == 1;
        let per_channel = dims.len() == 4 && own[..] == [1, dims[1], 1, 1];
        if own == dims || single || per_channel {
            return Ok(operand);
        }
        // Missing axes in front are of length 1; an axis of length 1 does not move on.
        let missing = dims.len() - own.len();
        let own_strides = row_major_strides(&own);
        let strides = row_major_strides(dims);
        let from = (0..dims.iter().product()).map(|i| {
            let along = |k: usize| {
                if own[k] == 1 {
                    0
                } else {
                    i / strides[k + missing] % dims[k + missing]
                }
            };
            (0..own.len()).map(|k| along(k) * own_strides[k]).sum::<usize>()
        });
        match operand {
            Input::Slot(input) => {
                let from = from.collect();
                let quantization = self.activation(input).quantization;
                let moved = Pending::moved(input, from, dims.to_vec());
                Ok(Input::Slot(self.finish(moved, quantization)?))
            }
            Input::Constant(constant) => Ok(Input::Constant(QuantizedConstant {
                integers: from.map(|i| constant.integers[i]).collect(),
                dims: dims.to_vec(),
                ..constant
            })),
        }
    }

    pub(super) fn concat(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let inputs = (0..node.input.len())
            .map(|i| self.either(node, i))
            .collect::<Result<Vec<_>, _>>()?;
        let first = inputs.first().ok_or("concatenates nothing")?;
        let mut dims = self.input_dims(first).to_vec();
        let axis = node.integer("axis", 0);
        let axis = if axis < 0 { axis + dims.len() as i64 } else { axis } as usize;
        if axis >= dims.len() || (dims.len() == 4 && axis == 0) {
            return Err("concatenates along the batch, or an axis that is not there".into());
        }
        dims[axis] = inputs.iter().map(|input| self.input_dims(input)[axis]).sum();
        Ok(Pending::new(Operator::Concat { inputs, axis }, dims))
    }
}

impl Arithmetic {
    fn swapped(self) -> Arithmetic {
        match self {
            Arithmetic::Subtract => Arithmetic::SubtractFrom,
            Arithmetic::SubtractFrom => Arithmetic::Subtract,
            other => other,
        }
    }
}

/// The shape that two shapes make together.
fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Reason> {
    let rank = a.len().max(b.len());
    let along = |dims: &[usize], k: usize| (k + dims.len()).checked_sub(rank).map_or(1, |k| dims[k]);
    (0..rank)
        .map(|k| match (along(a, k), along(b, k)) {
            (x, y) if x == y => Ok(x),
            (1, n) | (n, 1) => Ok(n),
            _ => Err(format!("combines {a:?} with {b:?}")),
        })
        .collect()
}
