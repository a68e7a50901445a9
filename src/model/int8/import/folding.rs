//! Shapes that are computed in the graph. With static dimensions they are constants.

use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;

use super::super::onnx::{Attributes, Constant, Values};
use super::super::operators::kernels::Microkernels;
use super::importer::Importer;
use super::value::{Value, from_end};

/// The most values of a result. A shape has a few.
const MAX_VALUES: usize = 1024;

impl<M: Microkernels> Importer<'_, M> {
    /// The result of a node that computes with shapes (lists of 64-bit integers), if this is one.
    pub fn folded(&self, node: &NodeProto) -> Option<Constant> {
        let input = |index: usize| self.optional(node, index).ok().flatten();
        let list = |index: usize| match input(index) {
            Some(Value::Constant(constant)) => constant.integers(),
            _ => None,
        };
        let (dims, values): (Option<Vec<usize>>, Vec<i64>) = match node.op_type.as_str() {
            "Shape" if node.attribute.is_empty() => (None, self.dims(input(0)?)?.iter().map(|d| *d as i64).collect()),
            "Gather" if node.integer("axis", 0) == 0 => {
                let (from, Some(Value::Constant(index))) = (list(0)?, input(1)) else {
                    return None;
                };
                let picked = index
                    .integers()?
                    .iter()
                    .map(|at| from.get(from_end(*at, from.len())?).copied());
                (Some(index.dims.clone()), picked.collect::<Option<_>>()?)
            }
            "Concat" => {
                let lists = (0..node.input.len()).map(list).collect::<Option<Vec<_>>>()?;
                (None, lists.concat())
            }
            "Slice" if list(4).is_none_or(|steps| steps == [1]) => {
                let (from, [first], [end]) = (list(0)?, list(1)?, list(2)?) else {
                    return None;
                };
                let limit = |at: i64| from_end(at, from.len()).unwrap_or(0).min(from.len());
                (None, from.get(limit(*first)..limit(*end))?.to_vec())
            }
            "Cast" if node.integer("to", 0) != DataType::Int64 as i64 => return None,
            "Unsqueeze" | "Cast" => (None, list(0)?.to_vec()),
            "Squeeze" => match list(0)? {
                [one] => (Some(vec![]), vec![*one]),
                _ => return None,
            },
            _ => return None,
        };
        if values.len() > MAX_VALUES {
            return None;
        }
        Some(Constant {
            dims: dims.unwrap_or_else(|| vec![values.len()]),
            values: Values::I64(values),
        })
    }

    fn dims<'b>(&'b self, value: &'b Value) -> Option<&'b [usize]> {
        match value {
            Value::Float(real) | Value::Other(real) => Some(self.dims_of(*real)),
            Value::Integers { slot, .. } | Value::Real(slot) => Some(&self.activation(*slot).dims),
            Value::Pending(pending) => Some(&pending.dims),
            Value::Constant(constant) => Some(&constant.dims),
            Value::Quantized(constant) => Some(&constant.dims),
            Value::Fallback => None,
        }
    }
}
