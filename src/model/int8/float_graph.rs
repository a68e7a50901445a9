//! A graph, or a subgraph, that tract runs in f32.

use std::sync::Arc;

use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::Cost;

/// A graph in tract. Inputs and outputs are f32 in ONNX's layout.
#[derive(Clone)]
pub struct FloatGraph {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<Vec<usize>>,
    outputs: Vec<Vec<usize>>,
    macs: u64,
}

impl std::fmt::Debug for FloatGraph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FloatGraph({:?} -> {:?})", self.inputs, self.outputs)
    }
}

impl FloatGraph {
    /// Loads `model` with these inputs (name and dimensions) and outputs, in this order.
    pub fn load(model: &ModelProto, inputs: &[(&str, &[usize])], outputs: &[&str]) -> TractResult<FloatGraph> {
        let mut model = tract_onnx::onnx().model_for_proto_model(model)?;
        model.select_inputs_by_name(inputs.iter().map(|(name, _)| name))?;
        model.select_outputs_by_name(outputs)?;
        let model = model.into_typed()?.into_decluttered()?;
        let output_dims = |index: usize| -> TractResult<Vec<usize>> {
            let fact = model.output_fact(index)?;
            let dims = fact.shape.as_concrete();
            match dims {
                Some(dims) if fact.datum_type == f32::datum_type() => Ok(dims.to_vec()),
                _ => anyhow::bail!("{} is {fact:?}, not f32 with a fixed shape", outputs[index]),
            }
        };
        let output_dims = (0..outputs.len()).map(output_dims).collect::<TractResult<_>>()?;
        let macs = multiply_accumulates(&model);
        Ok(FloatGraph {
            plan: model.into_optimized()?.into_runnable()?,
            inputs: inputs.iter().map(|(_, dims)| dims.to_vec()).collect(),
            outputs: output_dims,
            macs,
        })
    }

    /// Dimensions of the outputs.
    pub fn outputs(&self) -> &[Vec<usize>] {
        &self.outputs
    }

    /// Multiply-accumulates of one run.
    pub fn macs(&self) -> u64 {
        self.macs
    }

    /// Runs the graph once. The lengths of `outputs` must be those that [`outputs`](Self::outputs) implies.
    pub fn run(&self, inputs: &[&[f32]], outputs: &mut [Vec<f32>]) -> TractResult<()> {
        let tensors = self.inputs.iter().zip(inputs);
        let tensors = tensors
            .map(|(dims, values)| Ok(Tensor::from_shape(dims, values)?.into_tvalue()))
            .collect::<TractResult<TVec<TValue>>>()?;
        for (value, out) in self.plan.run(tensors)?.iter().zip(outputs) {
            out.copy_from_slice(value.try_as_plain_ram()?.as_slice::<f32>()?);
        }
        Ok(())
    }
}

fn multiply_accumulates(model: &TypedModel) -> u64 {
    let of_node = |node: &TypedNode| -> TractResult<i64> {
        let facts = model.node_input_facts(node.id)?;
        let costs = node.op.cost(&facts)?;
        let products = costs.into_iter().filter(|(cost, _)| matches!(cost, Cost::FMA(_)));
        products.map(|(_, count)| Ok(count.to_i64()?)).sum()
    };
    let counts = model.nodes().iter().map(|node| of_node(node).unwrap_or(0));
    counts.sum::<i64>().max(0) as u64
}
