#![doc = include_str!("README.md")]

mod accepted;
mod assembly;
mod buffers;
mod import;
mod inference;
mod limits;
mod onnx;
mod operator;
pub mod operators;
mod panics;
mod program;
pub mod reason;
mod step;
mod tract_graph;
mod validate;
mod wire_format;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tract_onnx::pb::{GraphProto, ModelProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::SymbolScope;
use tract_onnx::tract_core::plan;

use limits::Budget;
use operators::kernels::with_microkernels;
use step::Draft;

pub use limits::MAX_FILE_BYTES;
pub use operator::IntegerSubgraph;
pub use operators::kernels::Isa;
pub use panics::{Panicked, catch as catch_panics};
pub use reason::{FallbackNode, Reason};
pub use step::OperatorCounts;
pub use validate::InvalidGraph;

/// Decodes an ONNX file. Fails if it is damaged, or larger than a network for a small board.
pub fn read(file: &[u8]) -> Result<ModelProto, InvalidGraph> {
    let invalid = |problem: String| InvalidGraph::new("the file", problem);
    if file.is_empty() {
        return Err(invalid("is empty".into()));
    }
    if file.len() > MAX_FILE_BYTES {
        return Err(invalid(format!("is larger than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    wire_format::check(file).map_err(|error| invalid(error.to_string()))?;
    let decoded = tract_onnx::onnx().proto_model_for_read(&mut &file[..]);
    decoded.map_err(|_| invalid("is not an ONNX file, or damaged".into()))
}

/// The inputs and outputs of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Name and dimensions. Initializers are not inputs.
    pub inputs: Vec<(String, Vec<usize>)>,
    pub outputs: Vec<String>,
}

impl Signature {
    /// Fails if an input is not f32 or has no fixed shape.
    pub fn of(model: &ModelProto) -> Result<Signature, InvalidGraph> {
        let graph = validate::graph(model)?;
        let inputs = validate::inputs(graph).map(|input| Ok((input.name.clone(), validate::input_dims(input)?)));
        Ok(Signature {
            inputs: inputs.collect::<Result<_, _>>()?,
            outputs: graph.output.iter().map(|output| output.name.clone()).collect(),
        })
    }
}

/// An ONNX graph as a model of tract, in which each integer subgraph is one [`IntegerSubgraph`].
#[derive(Debug)]
pub struct IntegerModel {
    /// Not yet decluttered. Inputs and outputs are in the order of the names given to [`load`].
    pub model: TypedModel,
    /// The nodes that tract runs in f32, and why.
    pub fallback_nodes: Vec<FallbackNode>,
    pub operators: OperatorCounts,
}

/// A model that is optimized and ready to run.
#[derive(Debug)]
pub struct IntegerPlan {
    pub plan: Arc<TypedRunnableModel>,
    /// Multiply-accumulates of one run in integers and in f32.
    pub int8_macs: u64,
    pub float_macs: u64,
}

/// Loads `proto` with its integer subgraphs compiled for the instruction set `isa`, or without `isa` as tract alone loads it.
/// `inputs` (name and dimensions) and `outputs` give the order of the model's inputs and outputs. Inputs are f32.
///
/// Nodes that cannot be computed in integers become nodes of tract, one by one. If the graph cannot be divided in this way, tract
/// loads all of it. Fails with an [`InvalidGraph`] if the graph is invalid, exceeds a limit, or if tract rejects it or panics.
pub fn load(
    proto: &ModelProto,
    inputs: &[(&str, &[usize])],
    outputs: &[&str],
    isa: Option<Isa>,
) -> TractResult<IntegerModel> {
    validate::model(proto)?;
    let graph = validate::graph(proto)?;
    validate::expected_inputs(graph, inputs)?;
    let file = File { proto, graph, inputs };
    file.load(outputs, isa).map_err(|error| file.plain(error))
}

/// A valid file.
#[derive(Clone, Copy)]
struct File<'a> {
    proto: &'a ModelProto,
    graph: &'a GraphProto,
    inputs: &'a [(&'a str, &'a [usize])],
}

impl<'a> File<'a> {
    fn load(self, outputs: &[&str], isa: Option<Isa>) -> TractResult<IntegerModel> {
        let symbols = SymbolScope::default();
        let mut fallback_nodes = vec![];
        let mut operators = OperatorCounts::default();
        if let Some(isa) = isa {
            match catch_panics(|| Ok(self.compile(isa, outputs, &symbols)))? {
                Ok(draft) => {
                    fallback_nodes = draft.fallback_nodes.clone();
                    operators = draft.operators;
                    if operators.int8 > 0 {
                        let names: Vec<&str> = self.inputs.iter().map(|(name, _)| *name).collect();
                        let assemble = || assembly::assemble(isa, draft, &names, outputs, &symbols);
                        return Ok(IntegerModel {
                            model: catch_panics(assemble)?,
                            fallback_nodes,
                            operators,
                        });
                    }
                }
                Err(whole_graph) => fallback_nodes = vec![whole_graph],
            }
        }
        Ok(IntegerModel {
            model: tract_graph::load(self.proto, &self.facts(), outputs, &symbols, &mut Budget::default())?,
            fallback_nodes,
            operators: OperatorCounts { int8: 0, ..operators },
        })
    }

    fn compile(self, isa: Isa, outputs: &[&str], symbols: &SymbolScope) -> Result<Draft, FallbackNode> {
        let File { proto, graph, inputs } = self;
        let mut budget = Budget::default();
        with_microkernels!(isa, M => import::compile::<M>(proto, graph, inputs, outputs, symbols, &mut budget))
    }

    fn facts(self) -> Vec<(&'a str, TypedFact)> {
        self.inputs
            .iter()
            .map(|(name, dims)| (*name, f32::fact(*dims)))
            .collect()
    }

    /// The error as one plain line that names the node.
    fn plain(self, error: TractError) -> TractError {
        if error.is::<InvalidGraph>() {
            return error;
        }
        let problem = format!("tract rejects it ({})", error.root_cause());
        let node = tract_graph::named_node(self.graph, &error);
        match node.or_else(|| tract_graph::culprit(self.proto, self.graph, &self.facts())) {
            Some(node) => InvalidGraph::at(node, problem).into(),
            None => InvalidGraph::new("the graph", problem).into(),
        }
    }
}

/// Runs a plan. If an operator fails or panics, the error names its node.
pub fn run(state: &mut TypedSimpleState, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
    state.run_plan_with_eval(inputs, |context, state, node, inputs| {
        catch_panics(|| plan::eval(context, state, node, inputs)).map_err(|error| {
            let place = format!("{} {}", node.op.name(), node.name);
            InvalidGraph::new(place, error.root_cause().to_string())
        })
    })
}

impl IntegerModel {
    /// Lets tract optimize the model, and makes a plan of it.
    pub fn into_plan(self) -> TractResult<IntegerPlan> {
        let optimize = || {
            let model = tract_graph::declutter(self.model)?;
            let [int8_macs, float_macs] = tract_graph::multiply_accumulates(&model);
            Ok(IntegerPlan {
                plan: tract_graph::optimize(model)?.into_runnable()?,
                int8_macs,
                float_macs,
            })
        };
        catch_panics(optimize).map_err(|error| InvalidGraph::new("the graph", error.root_cause().to_string()).into())
    }
}
