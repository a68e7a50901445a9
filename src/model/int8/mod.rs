//! Quantized networks in integers.
//!
//! [`compile`] takes an ONNX graph in QDQ form, the one every toolchain writes: f32 operators with a QuantizeLinear and a
//! DequantizeLinear between any two. What stands between them is computed in eight bits, fused with bias, activation and
//! requantization, on activations that lie channels last from the first quantize to the last dequantize; weights are packed
//! once. [`arithmetic`] defines the results, [`kernels`] compute them, all to the same bits.
//!
//! Taken: Conv, MatMul and Gemm with constant weights, MatMul of two activations, Add, Sub, Mul, MaxPool, AveragePool and the
//! global ones, ReduceMean of pictures, Concat, Split, Slice, Transpose, Reshape and its kin, and, fused or as tables, Relu,
//! Clip, LeakyRelu, Elu, Sigmoid, Tanh, HardSigmoid, HardSwish, what is made of these and constant numbers, and a few more.
//! Activations u8 or s8, one scale a tensor, any zero point; weights s8 or u8, a scale a tensor or a channel, zero point 0 (128
//! for u8). Static shapes, batch 1. Every other node is left to tract, in f32, and named in [`Program::fallback_nodes`].
//!
//! This module knows nothing of affectd and could be a crate of its own.

pub mod arithmetic;
pub mod convolution;
pub mod float;
pub mod gemm;
pub mod grouped;
mod import;
pub mod kernels;
mod onnx;
pub mod pointwise;
pub mod pool;
pub mod product;
pub mod program;
pub mod rearrange;

#[cfg(test)]
mod tests;

use tract_onnx::pb::ModelProto;

use kernels::with_family;

pub use kernels::Kind;
pub use program::Program;

/// What a graph takes and gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Name and dimensions; initializers are no inputs.
    pub inputs: Vec<(String, Vec<usize>)>,
    pub outputs: Vec<String>,
}

impl Signature {
    /// `None` if an input has no static shape.
    pub fn of(model: &ModelProto) -> Option<Signature> {
        let graph = model.graph.as_ref()?;
        let constant = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
        let inputs = graph
            .input
            .iter()
            .filter(|input| !constant(&input.name))
            .map(|input| Some((input.name.clone(), onnx::static_dims(input)?)))
            .collect::<Option<_>>()?;
        let outputs = graph.output.iter().map(|output| output.name.clone()).collect();
        Some(Signature { inputs, outputs })
    }
}

/// A node that is not computed in integers, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[error("{op} {node}: {reason}")]
pub struct FallbackNode {
    pub op: String,
    /// Its name, or that of its first output.
    pub node: String,
    pub reason: String,
}

/// Compiles `model` for the kernels `kind`. Inputs and outputs are in the order of `inputs` and `outputs`, by name.
///
/// What cannot be computed in integers is left to f32, node by node. Fails if not even that is possible: if an input has no
/// static shape, or if what is left cannot be run apart from the rest.
pub fn compile(model: &ModelProto, inputs: &[&str], outputs: &[&str], kind: Kind) -> Result<Program, FallbackNode> {
    with_family!(kind, F => import::compile::<F>(model, inputs, outputs)).map(|draft| Program::new(kind, draft))
}
