//! From an ONNX graph in QDQ form to the parts of a draft.
//!
//! ONNX lists nodes in an order in which they can be computed. The result of an operator stays pending until the
//! QuantizeLinear after it tells how to store it. Then the operator becomes a step, with the activation function between
//! fused into it. A node that cannot be computed in integers falls back to f32: see [`fallback`].
//!
//! - [`value`]: the meaning of a name. [`importer`]: the state, and the import of one node after the other.
//! - [`nodes`] finds the method for each operator; [`windows`], [`matrices`], [`pairs`] and [`shapes`] implement them.
//! - [`quantize`], [`folding`] (shapes computed in the graph), [`finish`] (from pending to step), [`range`].

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "ONNX dimensions, axes and lengths are i64 and are checked where they are read; quantized values are brought into range"
)]

mod fallback;
mod finish;
mod folding;
mod importer;
mod matrices;
mod nodes;
mod pairs;
mod quantize;
mod range;
mod shapes;
mod value;
mod windows;

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};
use tract_onnx::tract_core::internal::SymbolScope;

use super::limits::Budget;
use super::operators::kernels::Microkernels;
use super::reason::FallbackNode;
use super::step::Draft;
use importer::Importer;
use value::Value;

/// Compiles `graph`, which is that of `model`, for the kernels `M`. Inputs and outputs are in the order of `inputs` and `outputs`.
pub fn compile<M: Microkernels>(
    model: &ModelProto,
    graph: &GraphProto,
    inputs: &[(&str, &[usize])],
    outputs: &[&str],
    symbols: &SymbolScope,
    budget: &mut Budget,
) -> Result<Draft, FallbackNode> {
    let mut importer = Importer::<M>::new(model, graph, outputs, symbols, budget);
    for (name, dims) in inputs {
        let input = importer.draft.add_real(dims.to_vec());
        importer.values.insert(name.to_string(), Value::Float(input));
    }
    for index in 0..graph.node.len() {
        importer.import(index)?;
    }
    for name in outputs {
        importer.output(name)?;
    }
    let operators = (0..graph.node.len()).filter(|index| computes(&graph.node[*index]));
    for index in operators {
        importer.draft.operators.all += 1;
        if !importer.in_float.contains(&index) {
            importer.draft.operators.int8 += 1;
        }
    }
    Ok(importer.draft)
}

/// Whether a node computes something: not a constant, not a quantization.
fn computes(node: &NodeProto) -> bool {
    !matches!(
        node.op_type.as_str(),
        "Constant" | "QuantizeLinear" | "DequantizeLinear" | "Identity" | "Dropout"
    )
}
