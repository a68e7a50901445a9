//! A compiler and executor for quantized networks in integers.
//!
//! # The input
//!
//! [`compile`] takes an ONNX graph in QDQ form, which every toolchain writes: f32 operators with a QuantizeLinear and a
//! DequantizeLinear between any two of them. It computes these operators in 8 bits, fused with bias, activation function and
//! requantization. Inputs and outputs are f32 in ONNX's layout; inside the graph, activations lie channels last.
//!
//! Supported in integers:
//! - Conv (also depthwise and grouped), MatMul and Gemm with constant weights, MatMul of two activations;
//! - Add, Sub, Mul; Div by a constant;
//! - MaxPool, AveragePool, GlobalMaxPool, GlobalAveragePool, ReduceMean over height and width;
//! - Concat, Split, Slice, Transpose, Reshape, Flatten, Squeeze, Unsqueeze;
//! - Relu and Clip, fused; LeakyRelu, Elu, Sigmoid, Tanh, HardSigmoid, HardSwish, Softplus, Exp, Neg, Abs, and combinations of
//!   these with constant numbers, as one table of 256 entries.
//!
//! Activations are u8 or s8 with one scale per tensor and any zero point. Weights are s8 or u8 with one scale per tensor or per
//! output channel and a zero point of 0 (128 for u8). Shapes are static and the batch size is one. Every other node falls back to
//! tract, in f32; [`Program::fallback_nodes`] names it and gives the [`Reason`].
//!
//! # The arithmetic
//!
//! A quantized value q stands for the real number s (q − z), with the scale s and the zero point z. For a layer with input
//! x, weights w, bias b and output y, each with its own scale:
//!
//! ```text
//! sum = Σ w (x − zx) + b = Σ w x + (b − zx Σ w)          exact, in 32 bits; b is in units of sx sw
//! y   = clamp(round(f32(sum) × (sx sw / sy)) + zy, low, high)
//! ```
//!
//! The term in brackets is computed when weights are packed, so zero points cost nothing at run time. `round` goes to the
//! nearest integer, ties to even. `low` and `high` are −128 and 127, narrowed by a fused Relu or Clip. The sum is converted to
//! f32 once and multiplied once, so the result is defined to the bit, and all kernels produce it. Unsigned activations are stored
//! as signed ones, 128 lower. For a MatMul of two activations a and b with zero points z and y:
//!
//! ```text
//! Σ (a − z) (b − y) = Σ a b − y Σ a − z Σ b + depth z y
//! ```
//!
//! # The parts
//!
//! - [`operators`]: the operators on 8-bit tensors and their kernels. It needs neither ONNX nor tract and compiles on its own.
//! - [`onnx`], [`float_graph`]: reading ONNX constants and attributes; a graph or subgraph that tract runs.
//! - [`reason`]: why a node falls back. [`step`]: the steps of a compiled graph.
//! - [`import`]: from ONNX nodes to steps.
//! - [`buffers`], [`program`]: which activations share memory; running the steps.
//!
//! # How to add a kernel
//!
//! Add a folder under `operators/kernels/` with one file per operation, named after the operation and its types, and implement
//! [`Microkernels`](operators::kernels::Microkernels) in its `mod.rs`. Add a variant to [`Isa`] and an arm to `with_microkernels!`;
//! `Isa::available` decides when the processor can run it. The property tests then compare it with the reference. Run them with
//! `cargo test --manifest-path .ci/kernels/Cargo.toml`, under AddressSanitizer with `.ci/asan`, and on emulated processors with
//! `.ci/bochs` (x86-64) and `.ci/qemu` (ARM). `cargo bench --bench kernels` measures it.
//!
//! # How to add an operator
//!
//! 1. Compute it: a type in `operators/` with a constructor, a `run` method that is generic over the instruction set, and a property
//!    test against a definition in plain Rust. A function of one value needs none of this: it becomes a table.
//! 2. Add a [`step::Step`] for it, and complete the matches there, in `program.rs` and in `import/range.rs`.
//! 3. Import it: an `Operator` in `import/value.rs`, a method that reads the node and is called in `import/nodes.rs`, and an arm
//!    in `import/finish.rs` that makes the step. Give every limit a [`Reason`].
//! 4. Use it in a graph in `tests/graphs.rs`, which compares the result with tract.

mod buffers;
pub mod float_graph;
mod import;
mod onnx;
pub mod operators;
pub mod program;
pub mod reason;
mod step;

#[cfg(test)]
mod tests;

use tract_onnx::pb::ModelProto;

use operators::kernels::with_microkernels;

pub use operators::kernels::Isa;
pub use program::Program;
pub use reason::{FallbackNode, Reason};
pub use step::OperatorCounts;

/// The inputs and outputs of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Name and dimensions. Initializers are not inputs.
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

/// Compiles `model` for the instruction set `isa`. Inputs and outputs are in the order of the given names.
///
/// Nodes that cannot be computed in integers fall back to f32, one by one. Fails if even that is impossible: if an input has no
/// static shape, or if tract cannot run a fallback subgraph on its own.
pub fn compile(model: &ModelProto, inputs: &[&str], outputs: &[&str], isa: Isa) -> Result<Program, FallbackNode> {
    with_microkernels!(isa, M => import::compile::<M>(model, inputs, outputs)).map(|draft| Program::new(isa, draft))
}
