#![doc = include_str!("README.md")]

mod assembly;
mod buffers;
mod import;
mod onnx;
mod operator;
pub mod operators;
mod panics;
mod program;
pub mod reason;
mod step;
mod tract_graph;
mod validate;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::SymbolScope;

use operators::kernels::with_microkernels;

pub use operator::IntegerSubgraph;
pub use operators::kernels::Isa;
pub use panics::{Panicked, catch as catch_panics};
pub use reason::{FallbackNode, Reason};
pub use step::OperatorCounts;
pub use validate::InvalidGraph;

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
/// `inputs` (name and dimensions) and `outputs` give the order of the model's inputs and outputs; all are f32.
///
/// Nodes that cannot be computed in integers become nodes of tract, one by one. If the graph cannot be divided in this way, tract
/// loads all of it. Fails if the graph is invalid or if tract rejects it. A panic of tract is an error, too.
pub fn load(
    proto: &ModelProto,
    inputs: &[(&str, &[usize])],
    outputs: &[&str],
    isa: Option<Isa>,
) -> TractResult<IntegerModel> {
    validate::model(proto)?;
    for (name, dims) in inputs {
        validate::input(proto, name, dims)?;
    }
    catch_panics(|| load_checked(proto, inputs, outputs, isa)).map_err(|error| tract_graph::name_culprit(proto, error))
}

fn load_checked(
    proto: &ModelProto,
    inputs: &[(&str, &[usize])],
    outputs: &[&str],
    isa: Option<Isa>,
) -> TractResult<IntegerModel> {
    let symbols = SymbolScope::default();
    let mut fallback_nodes = vec![];
    let mut operators = OperatorCounts::default();
    if let Some(isa) = isa {
        let names: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
        match with_microkernels!(isa, M => import::compile::<M>(proto, &names, outputs, &symbols)) {
            Ok(draft) => {
                fallback_nodes = draft.fallback_nodes.clone();
                operators = draft.operators;
                if operators.int8 > 0 {
                    let model = assembly::assemble(isa, draft, &names, outputs, &symbols)?;
                    return Ok(IntegerModel {
                        model,
                        fallback_nodes,
                        operators,
                    });
                }
            }
            Err(whole_graph) => fallback_nodes = vec![whole_graph],
        }
    }
    Ok(IntegerModel {
        model: tract_graph::load(proto, inputs, outputs, &symbols)?,
        fallback_nodes,
        operators: OperatorCounts { int8: 0, ..operators },
    })
}

impl IntegerModel {
    /// Lets tract optimize the model, and makes a plan of it.
    pub fn into_plan(self) -> TractResult<IntegerPlan> {
        catch_panics(|| {
            let model = self.model.into_decluttered()?;
            let [int8_macs, float_macs] = tract_graph::multiply_accumulates(&model);
            Ok(IntegerPlan {
                plan: model.into_optimized()?.into_runnable()?,
                int8_macs,
                float_macs,
            })
        })
    }
}
