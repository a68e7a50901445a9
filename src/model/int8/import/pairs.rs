//! Sums and products of two tensors, and concatenations.

use std::rc::Rc;

use tract_onnx::pb::NodeProto;

use super::super::operators::kernels::Microkernels;
use super::super::reason::Reason;
use super::importer::{Importer, check_size};
use super::value::{
    Arithmetic, Input, MAX_FUNCTION_NODES, Operator, Pending, PendingFunction, QuantizedConstant, Value, axis_of,
    row_major_strides,
};

impl<M: Microkernels> Importer<'_, M> {
    pub fn pairwise_operator(&mut self, node: &NodeProto) -> Result<Pending, Reason> {
        if let Some(function) = self.function_of_pair(node)? {
            return Ok(function);
        }
        let arithmetic = match node.op_type.as_str() {
            "Add" => Arithmetic::Add,
            "Sub" => Arithmetic::Subtract,
            "Mul" => Arithmetic::Multiply,
            _ => return Err(Reason::Division),
        };
        let operands = [self.quantized_input(node, 0)?, self.quantized_input(node, 1)?];
        let dims = broadcast(self.input_dims(&operands[0]), self.input_dims(&operands[1]))?;
        check_size(&dims)?;
        if dims.len() == 4 && dims[0] != 1 {
            return Err(Reason::Batch);
        }
        let [a, b] = operands.map(|operand| self.repeated(operand, &dims));
        // A constant, or a tensor that the step itself repeats, goes to the right.
        let whole = |importer: &Self, operand: &Input| importer.input_dims(operand) == dims;
        let (left, right, arithmetic) = match (a?, b?) {
            (Input::Slot(a), b) if whole(self, &Input::Slot(a)) => (a, b, arithmetic),
            (a, Input::Slot(b)) if whole(self, &Input::Slot(b)) => (b, a, arithmetic.swapped()),
            _ => return Err(Reason::ConstantOperands),
        };
        let operator = Operator::Pairwise {
            left,
            right,
            arithmetic,
        };
        Ok(Pending::new(operator, dims))
    }

    /// Two functions of the same activations, or one and a constant number, as one function: x × sigmoid(x), x + 3.
    fn function_of_pair(&self, node: &NodeProto) -> Result<Option<Pending>, Reason> {
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
        let functions = [self.function(node, 0), self.function(node, 1)];
        let quantized = |index: usize| matches!(self.optional(node, index), Ok(Some(Value::Real(_))));
        let both_quantized = quantized(0) && quantized(1);
        let combined = match (functions, [number(0)?, number(1)?]) {
            // Two quantized tensors have a step of their own, which needs no table.
            ([Some(a), Some(b)], _) if a.input == b.input && !both_quantized => {
                let mut nodes = a.nodes;
                nodes.extend(b.nodes);
                nodes.sort_unstable();
                nodes.dedup();
                let results = std::array::from_fn(|i| operation(a.function[i], b.function[i]));
                PendingFunction {
                    input: a.input,
                    function: Rc::new(results),
                    nodes,
                }
            }
            ([Some(a), None], [_, Some(n)]) => a.then(|x| operation(x, n)),
            ([None, Some(b)], [Some(n), _]) => b.then(|x| operation(n, x)),
            _ => return Ok(None),
        };
        if combined.nodes.len() >= MAX_FUNCTION_NODES {
            return Err(Reason::FunctionTooLong);
        }
        let dims = self.activation(combined.input).dims.clone();
        Ok(Some(Pending::unary(combined, dims)))
    }

    /// `operand` repeated to `dims`, unless the step itself can repeat it: a single value, or one per channel.
    fn repeated(&mut self, operand: Input, dims: &[usize]) -> Result<Input, Reason> {
        let own = self.input_dims(&operand).to_vec();
        let single = own.iter().product::<usize>() == 1;
        let per_channel = dims.len() == 4 && own[..] == [1, dims[1], 1, 1];
        if own == dims || single || per_channel {
            return Ok(operand);
        }
        // Axes that are missing in front have the length 1. Along an axis of length 1, the same value is repeated.
        let missing = dims.len() - own.len();
        let own_strides = row_major_strides(&own);
        let strides = row_major_strides(dims);
        let count = check_size(dims)?;
        self.rearrange(count)?;
        let from = (0..count).map(|i| {
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
                let from = from.map(|i| i as u32).collect();
                let quantization = self.activation(input).quantization;
                let moved = Pending::moved(self.identity(input), from, dims.to_vec());
                Ok(Input::Slot(self.finish(moved, quantization)?))
            }
            Input::Constant(constant) => Ok(Input::Constant(QuantizedConstant {
                integers: from.map(|i| constant.integers[i]).collect(),
                dims: dims.to_vec(),
                ..constant
            })),
        }
    }

    pub fn concat(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let inputs = (0..node.input.len())
            .map(|i| self.quantized_input(node, i))
            .collect::<Result<Rc<[Input]>, _>>()?;
        let first = inputs.first().ok_or(Reason::NoInputs)?;
        let mut dims = self.input_dims(first).to_vec();
        let axis = axis_of(node, 0, dims.len());
        if axis >= dims.len() || (dims.len() == 4 && axis == 0) {
            return Err(Reason::ConcatAxis);
        }
        let others = |dims: &[usize]| {
            let mut dims = dims.to_vec();
            dims.remove(axis);
            dims
        };
        let mut length = 0usize;
        for input in inputs.iter() {
            let part = self.input_dims(input);
            if part.len() != dims.len() || others(part) != others(&dims) {
                return Err(Reason::ConcatShapes);
            }
            check_size(part)?;
            length = length.saturating_add(part[axis]);
        }
        dims[axis] = length;
        Ok(Pending::new(Operator::Concat { inputs, axis }, dims))
    }
}

/// The shape to which both shapes are broadcast.
fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Reason> {
    let rank = a.len().max(b.len());
    let along = |dims: &[usize], k: usize| (k + dims.len()).checked_sub(rank).map_or(1, |k| dims[k]);
    (0..rank)
        .map(|k| match (along(a, k), along(b, k)) {
            (x, y) if x == y => Ok(x),
            (1, n) | (n, 1) => Ok(n),
            _ => Err(Reason::Broadcast(a.to_vec(), b.to_vec())),
        })
        .collect()
}
