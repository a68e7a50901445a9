//! One loaded graph of a bundle.

use std::collections::BTreeSet;

use log::{debug, info, warn};

use super::bundle::{Bundle, Graph, GraphName, ModelError};
use super::engine::{Engine, Named};
use super::int8::{Isa, Signature};

/// A loaded graph of the bundle. Inputs and outputs are `f32`, with fixed shapes.
pub struct Session {
    graph: GraphName,
    engine: Engine,
}

impl Session {
    /// Loads `graph`. Its inputs and outputs must include `inputs` and `outputs`, with exactly these shapes. The stages of affectd
    /// produce and expect fixed shapes, so a graph that differs is rejected here and not at the first frame.
    pub fn load(bundle: &Bundle, graph: GraphName, inputs: &[Named], outputs: &[Named]) -> Result<Session, ModelError> {
        check_signature(graph, bundle.graph(graph)?, inputs, outputs)?;
        let bytes = bundle.read(graph)?;
        let unusable = |reason| ModelError::Unusable { graph, reason };
        let engine = Engine::load(&bytes, inputs, outputs, bundle.kernel())
            .map_err(|e| unusable(format!("cannot be loaded ({e:#})")))?;
        check_names(bundle.graph(graph)?, engine.signature()).map_err(unusable)?;
        for node in engine.fallback_nodes() {
            warn!("{graph}: {node}; tract runs it in f32");
        }
        match (engine.kernel(), Isa::fastest()) {
            ("tract", None) => warn!("{graph}: this processor has no int8 kernels; tract runs the graph in f32"),
            ("tract", Some(_)) => info!("{graph} runs in tract, in f32"),
            (kernel, _) => debug!("{graph}: {kernel} kernels"),
        }
        Ok(Session { graph, engine })
    }

    /// Runs the graph once and passes the outputs to `read`, in order. `inputs` are in the order given to [`Session::load`], with the
    /// lengths that their shapes imply.
    pub fn run<R>(&mut self, inputs: &[&[f32]], read: impl FnOnce(&[&[f32]]) -> R) -> Result<R, ModelError> {
        self.engine.run(inputs, read).map_err(|e| ModelError::Unusable {
            graph: self.graph,
            reason: format!("cannot be run ({e:#})"),
        })
    }
}

fn check_signature(graph: GraphName, entry: &Graph, inputs: &[Named], outputs: &[Named]) -> Result<(), ModelError> {
    for (role, declared, expected) in [("input", &entry.inputs, inputs), ("output", &entry.outputs, outputs)] {
        for (name, shape) in expected {
            if declared.get(*name).map(Vec::as_slice) != Some(*shape) {
                let found = match declared.get(*name) {
                    Some(other) => format!("is {other:?}"),
                    None => "is missing".into(),
                };
                return Err(ModelError::Unusable {
                    graph,
                    reason: format!("{role} \"{name}\" {found}, affectd needs {shape:?}"),
                });
            }
        }
    }
    Ok(())
}

/// Checks that the manifest and the file name the same inputs, and that the file has all outputs of the manifest.
fn check_names(entry: &Graph, file: &Signature) -> Result<(), String> {
    let inputs: BTreeSet<&str> = file.inputs.iter().map(|(name, _)| name.as_str()).collect();
    let outputs: BTreeSet<&str> = file.outputs.iter().map(String::as_str).collect();
    if let Some(name) = entry.inputs.keys().find(|name| !inputs.contains(name.as_str())) {
        return Err(format!("input {name:?} is in the manifest but not in the file"));
    }
    if let Some(name) = inputs.iter().find(|name| !entry.inputs.contains_key(**name)) {
        return Err(format!("input {name:?} is in the file but not in the manifest"));
    }
    match entry.outputs.keys().find(|name| !outputs.contains(name.as_str())) {
        Some(name) => Err(format!("output {name:?} is in the manifest but not in the file")),
        None => Ok(()),
    }
}
