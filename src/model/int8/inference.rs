//! Finds the shape of every tensor of tract's model, and checks its size before tract computes it.
//!
//! tract computes a node as soon as its inputs are constant, whatever the size of the result. So the nodes are analysed here one by one,
//! in the order of the file. Of each node, tract first infers the shapes of the results without computing them.

use tract_onnx::pb::{GraphProto, NodeProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid;

use super::limits::{Budget, OverLimit, elements};
use super::onnx::Attributes;
use super::panics;
use super::validate::InvalidGraph;

/// The most values in the matrix of the patches that a convolution multiplies with its weights.
const MAX_PATCHES: usize = 1 << 25;
/// How many multiply-accumulates take as long as one operation of a kind that has no fast kernel in tract.
const SLOW: u64 = 16;

/// Analyses `model`, which tract built from `graph`. All tensors that it computes and holds are taken from `budget`.
pub fn analyse(model: &mut InferenceModel, graph: &GraphProto, budget: &mut Budget) -> TractResult<()> {
    // Inputs and constants come first, and each node of the file is one node after them.
    let first = model.nodes().len().saturating_sub(graph.node.len());
    for id in 0..model.nodes().len() {
        let node = id.checked_sub(first).and_then(|index| graph.node.get(index));
        let result = match node {
            None => take_results(model.node_facts(id)?.1, budget).map(|_| ()),
            Some(node) => panics::catch(|| analyse_node(model, id, node, budget)),
        };
        result.map_err(|error| {
            let problem = match error.is::<OverLimit>() {
                true => error.to_string(),
                false => format!("tract rejects it ({})", error.root_cause()),
            };
            match node {
                Some(node) => InvalidGraph::at(node, problem),
                None => InvalidGraph::new(format!("constant {}", model.node(id).name), problem),
            }
        })?;
    }
    Ok(())
}

fn analyse_node(model: &mut InferenceModel, id: usize, node: &NodeProto, budget: &mut Budget) -> TractResult<()> {
    let (inputs, outputs) = model.node_facts(id)?;
    let inputs: TVec<InferenceFact> = inputs.into_iter().cloned().collect();
    let known: TVec<InferenceFact> = outputs.into_iter().cloned().collect();
    let op = &mut model.node_mut(id).op;
    let outputs = op.nboutputs()?;
    anyhow::ensure!(outputs == known.len(), "it has {outputs} outputs");
    let (_, inferred, _) = op.infer_facts(inputs.iter().collect(), known.iter().collect(), tvec![])?;
    let results = take_results(inferred.iter().collect(), budget)?;
    let input_dims = inputs.iter().map(dims).collect::<TractResult<Vec<_>>>()?;
    let work = work(node, &input_dims, &results)?;
    match !inputs.is_empty() && inputs.iter().all(|fact| fact.value.is_concrete()) {
        true => budget.take_constant(work)?,
        false => budget.take_node(work)?,
    }
    // Now that the size of the results is known to be within the limits, tract may compute them.
    let (_, computed, _) = op.infer(inputs.iter().collect(), known.iter().collect(), tvec![])?;
    for (slot, (computed, known)) in computed.iter().zip(&known).enumerate() {
        model.set_outlet_fact(OutletId::new(id, slot), computed.unify(known)?)?;
    }
    Ok(())
}

/// Takes results from the budget. Returns their dimensions.
fn take_results(facts: TVec<&InferenceFact>, budget: &mut Budget) -> TractResult<Vec<Vec<usize>>> {
    let take = |fact: &InferenceFact| -> TractResult<Vec<usize>> {
        let dims = dims(fact)?;
        let bytes = fact
            .datum_type
            .concretize()
            .map_or(size_of::<u64>(), |kind| kind.size_of());
        budget.take_tensor(&dims, bytes)?;
        Ok(dims)
    };
    facts.into_iter().map(take).collect()
}

fn dims(fact: &InferenceFact) -> TractResult<Vec<usize>> {
    let dims = fact.shape.as_concrete_finite()?;
    Ok(dims.ok_or(OverLimit::NotFixed)?.to_vec())
}

/// How many multiply-accumulates take as long as this node.
fn work(node: &NodeProto, inputs: &[Vec<usize>], results: &[Vec<usize>]) -> Result<u64, OverLimit> {
    let count = |dims: &[usize]| elements(dims).unwrap_or(usize::MAX);
    let result = results.first().map_or(0, |dims| count(dims));
    let positions = |dims: &[usize]| count(dims.get(2..).unwrap_or_default());
    // A convolution: the number of positions of its window, and the weights.
    let convolution = |image: &[usize], positions: usize| {
        let weights = inputs.get(1).map_or(&[][..], Vec::as_slice);
        let taps = count(weights.get(2..).unwrap_or_default());
        let channels = image.get(1).copied().unwrap_or(1);
        let patches = positions.saturating_mul(taps).saturating_mul(channels);
        match patches <= MAX_PATCHES {
            true => Ok((positions as u64).saturating_mul(count(weights) as u64)),
            false => Err(OverLimit::Work),
        }
    };
    Ok(match (node.op_type.as_str(), inputs, results) {
        ("Conv", [image, ..], [result, ..]) => {
            let grouped = node.integer("group", 1) != 1;
            convolution(image, positions(result))?.saturating_mul(if grouped { SLOW } else { 1 })
        }
        ("ConvTranspose", [image, ..], [result, ..]) => convolution(result, positions(image))?.saturating_mul(SLOW),
        ("MatMul" | "Gemm", [left, ..], _) => {
            let depth = match node.integer("transA", 0) {
                0 => left.last(),
                _ => left.first(),
            };
            (result as u64).saturating_mul(*depth.unwrap_or(&1) as u64)
        }
        ("MaxPool" | "AveragePool", ..) => {
            let kernel = node.integers("kernel_shape").unwrap_or_default();
            let taps = kernel.iter().map(|length| length.unsigned_abs());
            taps.fold(result as u64 * SLOW, u64::saturating_mul)
        }
        ("LRN", [image, ..], _) => {
            let size = node.integer("size", 1).unsigned_abs();
            let channels = image.get(1).copied().unwrap_or(1) as u64;
            (result as u64 * SLOW).saturating_mul(size.min(channels))
        }
        // Operators that prepare weights.
        ("Cast" | "DequantizeLinear" | "Identity" | "QuantizeLinear" | "Reshape" | "Transpose", ..) => result as u64,
        _ => inputs.iter().chain(results).map(|dims| count(dims) as u64 * SLOW).sum(),
    })
}
