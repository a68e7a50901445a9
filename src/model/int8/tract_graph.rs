//! What tract loads itself: a whole graph, or neighbouring nodes that fall back to f32.

use std::collections::HashMap;

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::SymbolScope;
use tract_onnx::tract_core::ops::Cost;
use tract_onnx::tract_core::optim::Optimizer;

use super::limits::{Budget, MAX_NODES_TO_MOVE_AXES};
use super::onnx::{Constant, Values, output_info};
use super::validate::{self, InvalidGraph, node_name};
use super::{inference, panics};

/// The most integers that may stand for a shape.
const MAX_SHAPE: usize = 1024;

/// A tensor outside of the integer subgraphs, in ONNX's layout. They read and write only real numbers, f32. Only nodes of tract read and
/// write other types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OuterTensor {
    pub dims: Vec<usize>,
    pub kind: DatumType,
}

impl OuterTensor {
    pub fn fact(&self) -> TypedFact {
        self.kind.fact(&self.dims[..])
    }
}

/// Neighbouring nodes that fall back to f32, as tract nodes.
#[derive(Debug)]
pub struct TractSubgraph {
    model: TypedModel,
    outputs: Vec<OuterTensor>,
}

impl TractSubgraph {
    /// Loads `model` with these inputs and outputs, in this order.
    pub fn load(
        model: &ModelProto,
        inputs: &[(&str, TypedFact)],
        outputs: &[&str],
        symbols: &SymbolScope,
        budget: &mut Budget,
    ) -> TractResult<TractSubgraph> {
        let model = declutter(load(model, inputs, outputs, symbols, budget)?)?;
        let outputs = outputs.iter().enumerate().map(|(index, name)| {
            let fact = model.output_fact(index)?;
            let dims = fact.shape.as_concrete();
            let dims = dims.ok_or_else(|| anyhow::anyhow!("{name} is {fact:?}, not of a fixed shape"))?;
            Ok(OuterTensor {
                dims: dims.to_vec(),
                kind: fact.datum_type,
            })
        });
        Ok(TractSubgraph {
            outputs: outputs.collect::<TractResult<_>>()?,
            model,
        })
    }

    /// Types and dimensions of the outputs.
    pub fn outputs(&self) -> &[OuterTensor] {
        &self.outputs
    }

    /// The integers of an output, if they do not depend on the inputs: the shape of a tensor, for example.
    pub fn constant_integers(&self, index: usize) -> Option<Constant> {
        let tensor = self.model.output_fact(index).ok()?.konst.clone()?;
        let is_integers = [i64::datum_type(), TDim::datum_type()].contains(&tensor.datum_type());
        if !is_integers || tensor.len() > MAX_SHAPE {
            return None;
        }
        let integers = tensor.cast_to::<i64>().ok()?;
        Some(Constant {
            dims: tensor.shape().to_vec(),
            values: Values::I64(integers.try_as_plain_ram().ok()?.as_slice::<i64>().ok()?.to_vec()),
        })
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

/// Loads a graph with these inputs and outputs, in this order, without any operator of ours.
pub fn load(
    model: &ModelProto,
    inputs: &[(&str, TypedFact)],
    outputs: &[&str],
    symbols: &SymbolScope,
    budget: &mut Budget,
) -> TractResult<TypedModel> {
    let graph = validate::graph(model)?;
    let template = InferenceModel {
        symbols: symbols.clone(),
        ..InferenceModel::default()
    };
    let onnx = tract_onnx::onnx().with_ignore_value_info(true);
    let mut loaded = panics::catch(|| onnx.model_for_proto_model_with_model_template(model, template))?;
    loaded.select_inputs_by_name(inputs.iter().map(|(name, _)| name))?;
    for (index, (_, fact)) in inputs.iter().enumerate() {
        loaded.set_input_fact(index, fact.into())?;
    }
    loaded.select_outputs_by_name(outputs)?;
    inference::analyse(&mut loaded, graph, budget)?;
    let typed = panics::catch(|| loaded.into_typed())?;
    check_sizes(&typed)?;
    Ok(typed)
}

/// Checks the size of everything that tract would compute. One node of the file may be several of tract's.
fn check_sizes(model: &TypedModel) -> Result<(), InvalidGraph> {
    let mut budget = Budget::default();
    for node in model.nodes() {
        for output in &node.outputs {
            let fact = &output.fact;
            let dims = fact.shape.as_concrete();
            let taken = dims.is_some_and(|dims| budget.take_tensor(dims, fact.datum_type.size_of()).is_ok());
            if !taken {
                let problem = format!("its result of {:?} is too large", fact.shape);
                return Err(InvalidGraph::new(format!("{} {}", node.op.name(), node.name), problem));
            }
        }
    }
    Ok(())
}

/// Lets tract simplify a model. With many nodes, axes stay where they are, because to move them takes memory for each pair of nodes.
pub fn declutter(mut model: TypedModel) -> TractResult<TypedModel> {
    let mut optimizer = Optimizer::declutter();
    if model.nodes().len() > MAX_NODES_TO_MOVE_AXES {
        optimizer
            .passes
            .retain(|pass| !format!("{pass:?}").starts_with("ChangeAxes"));
    }
    panics::catch(move || {
        optimizer.optimize(&mut model)?;
        Ok(model)
    })
}

/// The node that an error of tract names in its context.
pub fn named_node<'a>(graph: &'a GraphProto, error: &TractError) -> Option<&'a NodeProto> {
    let contexts: Vec<String> = error.chain().map(ToString::to_string).collect();
    let is_named = |node: &&NodeProto| {
        let name = node_name(node);
        let [quoted, built] = [format!("\"{name}\""), format!("Building node {name} (")];
        let names = |context: &String| context.contains(&quoted) || context.contains(&built);
        !name.is_empty() && contexts.iter().any(names)
    };
    graph.node.iter().find(is_named)
}

/// The first node at which tract panics or fails, although it accepts all shapes.
pub fn culprit<'a>(model: &ModelProto, graph: &'a GraphProto, inputs: &[(&str, TypedFact)]) -> Option<&'a NodeProto> {
    let fails_with = |count: usize| {
        let nodes = &graph.node[..count];
        let results = nodes.iter().flat_map(|node| &node.output);
        let results: Vec<&str> = results.map(String::as_str).filter(|name| !name.is_empty()).collect();
        let start = GraphProto {
            node: nodes.to_vec(),
            output: results.iter().map(|name| output_info(name)).collect(),
            ..graph.clone()
        };
        let start = ModelProto {
            graph: Some(start),
            ..model.clone()
        };
        let loaded = load(
            &start,
            inputs,
            &results,
            &SymbolScope::default(),
            &mut Budget::default(),
        );
        loaded.and_then(optimize).is_err()
    };
    // If the first nodes of the graph fail, then so do more of them.
    let counts: Vec<usize> = (0..=graph.node.len()).collect();
    let count = counts.partition_point(|count| !fails_with(*count));
    graph.node.get(count.checked_sub(1)?)
}

/// Lets tract simplify a model and choose its own kernels.
pub fn optimize(model: TypedModel) -> TractResult<TypedModel> {
    let mut model = declutter(model)?;
    panics::catch(move || {
        model.optimize()?;
        Ok(model)
    })
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
