//! One loaded graph.

use std::sync::Arc;

use tract_onnx::prelude::*;

use super::bundle::{Bundle, Graph, GraphName, ModelError};

/// A graph ready to run: `f32` in, `f32` out, shapes fixed at load.
pub struct Session {
    graph: GraphName,
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<Vec<usize>>,
}

impl Session {
    /// Loads `graph`, whose inputs and outputs must be just `inputs` and `outputs`, in that order: name and shape. What
    /// affectd's own stages produce and expect is fixed, so a graph of another shape is refused here, not halfway
    /// through a picture.
    pub fn load(
        bundle: &Bundle,
        graph: GraphName,
        inputs: &[(&str, &[usize])],
        outputs: &[(&str, &[usize])],
    ) -> Result<Session, ModelError> {
        let entry = bundle.graph(graph)?;
        check_signature(graph, entry, inputs, outputs)?;
        let bytes = bundle.read(graph)?;
        let plan = Session::plan(&bytes, inputs, outputs).map_err(|e| ModelError::Unfit {
            graph,
            reason: format!("tract cannot load it ({e:#})"),
        })?;
        Ok(Session {
            graph,
            plan,
            inputs: inputs.iter().map(|(_, shape)| shape.to_vec()).collect(),
        })
    }

    fn plan(
        bytes: &[u8],
        inputs: &[(&str, &[usize])],
        outputs: &[(&str, &[usize])],
    ) -> TractResult<Arc<TypedRunnableModel>> {
        let mut model = tract_onnx::onnx().model_for_read(&mut &bytes[..])?;
        let names = |fixed: &[(&str, &[usize])]| -> Vec<String> {
            fixed.iter().map(|(name, _)| name.to_string()).collect()
        };
        model.select_inputs_by_name(names(inputs))?;
        model.select_outputs_by_name(names(outputs))?;
        model.into_optimized()?.into_runnable()
    }

    /// Runs the graph once. `inputs` are in the order given to [`Session::load`], each as long as its shape says;
    /// `read` gets the outputs in order.
    pub fn run<R>(
        &mut self,
        inputs: &[&[f32]],
        read: impl FnOnce(&[&[f32]]) -> R,
    ) -> Result<R, ModelError> {
        self.try_run(inputs, read).map_err(|e| ModelError::Unfit {
            graph: self.graph,
            reason: format!("tract cannot run it ({e:#})"),
        })
    }

    fn try_run<R>(
        &mut self,
        inputs: &[&[f32]],
        read: impl FnOnce(&[&[f32]]) -> R,
    ) -> TractResult<R> {
        let tensors = self
            .inputs
            .iter()
            .zip(inputs)
            .map(|(shape, data)| Ok(Tensor::from_shape(shape, data)?.into_tvalue()))
            .collect::<TractResult<TVec<TValue>>>()?;
        let results = self.plan.run(tensors)?;
        let slices = results
            .iter()
            .map(|value| value.try_as_plain_ram()?.as_slice::<f32>())
            .collect::<TractResult<Vec<&[f32]>>>()?;
        Ok(read(&slices))
    }
}

fn check_signature(
    graph: GraphName,
    entry: &Graph,
    inputs: &[(&str, &[usize])],
    outputs: &[(&str, &[usize])],
) -> Result<(), ModelError> {
    for (kind, declared, wanted) in [
        ("input", &entry.inputs, inputs),
        ("output", &entry.outputs, outputs),
    ] {
        for (name, shape) in wanted {
            if declared.get(*name).map(Vec::as_slice) != Some(*shape) {
                let found = match declared.get(*name) {
                    Some(other) => format!("is {other:?}"),
                    None => "is missing".into(),
                };
                return Err(ModelError::Unfit {
                    graph,
                    reason: format!("{kind} \"{name}\" {found}, affectd needs {shape:?}"),
                });
            }
        }
    }
    Ok(())
}
