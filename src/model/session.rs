//! One loaded graph of the bundle.

use log::{debug, info, warn};

use super::bundle::{Bundle, Graph, GraphName, ModelError};
use super::engine::{Engine, Kernel, Named};

/// A graph ready to run: `f32` in, `f32` out, shapes fixed at load.
pub struct Session {
    graph: GraphName,
    engine: Engine,
}

impl Session {
    /// Loads `graph`, whose inputs and outputs must be just `inputs` and `outputs`, in that order: name and shape. What
    /// affectd's own stages produce and expect is fixed, so a graph of another shape is refused here, not halfway
    /// through a picture.
    pub fn load(bundle: &Bundle, graph: GraphName, inputs: &[Named], outputs: &[Named]) -> Result<Session, ModelError> {
        check_signature(graph, bundle.graph(graph)?, inputs, outputs)?;
        let bytes = bundle.read(graph)?;
        let unfit = |reason| ModelError::Unfit { graph, reason };
        let kernel = Kernel::wanted().map_err(unfit)?;
        let names: Vec<&str> = outputs.iter().map(|(name, _)| *name).collect();
        let engine =
            Engine::load(&bytes, inputs, &names, kernel).map_err(|e| unfit(format!("tract cannot load it ({e:#})")))?;
        for node in engine.fallback_nodes() {
            warn!("{graph}: {node}; tract runs it in f32");
        }
        match engine.kernel() {
            "tract" => info!("{graph} runs in tract, in f32"),
            kernel => debug!("{graph}: {kernel} kernels"),
        }
        Ok(Session { graph, engine })
    }

    /// Runs the graph once. `inputs` are in the order given to [`Session::load`], each as long as its shape says;
    /// `read` gets the outputs in order.
    pub fn run<R>(&mut self, inputs: &[&[f32]], read: impl FnOnce(&[&[f32]]) -> R) -> Result<R, ModelError> {
        self.engine.run(inputs, read).map_err(|e| ModelError::Unfit {
            graph: self.graph,
            reason: format!("tract cannot run it ({e:#})"),
        })
    }
}

fn check_signature(graph: GraphName, entry: &Graph, inputs: &[Named], outputs: &[Named]) -> Result<(), ModelError> {
    for (kind, declared, wanted) in [("input", &entry.inputs, inputs), ("output", &entry.outputs, outputs)] {
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
