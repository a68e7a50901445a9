//! What tract loads itself: a whole graph, or neighbouring nodes that fall back to f32.

use std::collections::HashMap;

use tract_onnx::pb::{GraphProto, ModelProto, ValueInfoProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::SymbolScope;
use tract_onnx::tract_core::ops::Cost;

use super::panics::{self, Panicked};
use super::validate;

/// Neighbouring nodes that fall back to f32, as tract nodes. Inputs and outputs are f32 in ONNX's layout.
#[derive(Debug)]
pub struct TractSubgraph {
    model: TypedModel,
    outputs: Vec<Vec<usize>>,
}

impl TractSubgraph {
    /// Loads `model` with these inputs (name and dimensions) and outputs, in this order.
    pub fn load(
        model: &ModelProto,
        inputs: &[(&str, &[usize])],
        outputs: &[&str],
        symbols: &SymbolScope,
    ) -> TractResult<TractSubgraph> {
        let model = panics::catch(|| load(model, inputs, outputs, symbols)?.into_decluttered())?;
        let outputs = (0..outputs.len()).map(|index| {
            let fact = model.output_fact(index)?;
            match fact.shape.as_concrete() {
                Some(dims) if fact.datum_type == f32::datum_type() => Ok(dims.to_vec()),
                _ => anyhow::bail!("{} is {fact:?}, not f32 with a fixed shape", outputs[index]),
            }
        });
        Ok(TractSubgraph {
            outputs: outputs.collect::<TractResult<_>>()?,
            model,
        })
    }

    /// Dimensions of the outputs.
    pub fn outputs(&self) -> &[Vec<usize>] {
        &self.outputs
    }

    /// Adds these nodes to `target`, where they read `inputs`. Returns their outputs.
    pub fn wire(&self, target: &mut TypedModel, inputs: &[OutletId]) -> TractResult<Vec<OutletId>> {
        let sources = self.model.input_outlets()?.iter().copied();
        let mut outlets: HashMap<OutletId, OutletId> = sources.zip(inputs.iter().copied()).collect();
        for id in self.model.eval_order()? {
            let node = self.model.node(id);
            if outlets.contains_key(&OutletId::from(id)) {
                continue;
            }
            let reads: TVec<OutletId> = node.inputs.iter().map(|outlet| outlets[outlet]).collect();
            let name = target.unique_name(node.name.as_str()).into_owned();
            let writes = target.wire_node(name, node.op.clone(), &reads)?;
            outlets.extend((0..).map(|slot| OutletId::new(id, slot)).zip(writes));
        }
        let outputs = self.model.output_outlets()?.iter();
        Ok(outputs.map(|outlet| outlets[outlet]).collect())
    }
}

/// Loads a graph with these inputs (name and dimensions) and outputs, in this order, without any operator of ours.
pub fn load(
    model: &ModelProto,
    inputs: &[(&str, &[usize])],
    outputs: &[&str],
    symbols: &SymbolScope,
) -> TractResult<TypedModel> {
    let template = InferenceModel {
        symbols: symbols.clone(),
        ..InferenceModel::default()
    };
    let mut model = tract_onnx::onnx().model_for_proto_model_with_model_template(model, template)?;
    model.select_inputs_by_name(inputs.iter().map(|(name, _)| name))?;
    for (index, (_, dims)) in inputs.iter().enumerate() {
        model.set_input_fact(index, f32::fact(*dims).into())?;
    }
    model.select_outputs_by_name(outputs)?;
    let model = model.into_typed()?;
    validate::sizes(&model)?;
    Ok(model)
}

/// Adds the name of the node at which tract panics. Errors of tract name the node themselves.
pub fn name_culprit(proto: &ModelProto, error: TractError) -> TractError {
    let (true, Some(graph)) = (error.is::<Panicked>(), proto.graph.as_ref()) else {
        return error;
    };
    let panics_with = |count: usize| {
        let nodes = &graph.node[..count];
        let results = nodes
            .iter()
            .flat_map(|node| &node.output)
            .filter(|name| !name.is_empty());
        let outputs = results.map(|name| ValueInfoProto {
            name: name.clone(),
            ..ValueInfoProto::default()
        });
        let start = GraphProto {
            node: nodes.to_vec(),
            output: outputs.collect(),
            ..graph.clone()
        };
        let start = ModelProto {
            graph: Some(start),
            ..proto.clone()
        };
        let load = || {
            tract_onnx::onnx()
                .model_for_proto_model(&start)?
                .into_typed()?
                .into_optimized()
        };
        panics::catch(load).is_err_and(|error| error.is::<Panicked>())
    };
    // If the first nodes of the graph let it panic, then so do more of them.
    let counts: Vec<usize> = (0..=graph.node.len()).collect();
    let count = counts.partition_point(|count| !panics_with(*count));
    match count.checked_sub(1).and_then(|index| graph.node.get(index)) {
        Some(node) => error.context(validate::title(node)),
        None => error,
    }
}

/// Multiply-accumulates of one run, in integers and in f32.
pub fn multiply_accumulates(model: &TypedModel) -> [u64; 2] {
    let of_node = |node: &TypedNode| -> TractResult<[i64; 2]> {
        let facts = model.node_input_facts(node.id)?;
        let mut counts = [0; 2];
        for (cost, count) in node.op.cost(&facts)? {
            match cost {
                Cost::FMA(kind) if kind == i8::datum_type() => counts[0] += count.to_i64()?,
                Cost::FMA(_) => counts[1] += count.to_i64()?,
                _ => {}
            }
        }
        Ok(counts)
    };
    let counts = model.nodes().iter().map(|node| of_node(node).unwrap_or_default());
    let [int8, float] = counts.fold([0i64; 2], |sum, count| [0, 1].map(|i| sum[i].saturating_add(count[i])));
    [int8, float].map(i64::unsigned_abs)
}
