//! What runs a graph: our integers, or tract.

use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;

use super::int8::float::FloatGraph;
use super::int8::{self, FallbackNode, Kind, Program};

/// Forces the kernels, for comparison: `tract` for none of ours, or a name that `affectd bench` shows.
pub const KERNEL_VARIABLE: &str = "AFFECTD_KERNEL";

/// An input or output: name and shape.
pub type Named<'a> = (&'a str, &'a [usize]);

/// Which kernels to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    Tract,
    Ours(Kind),
}

impl Kernel {
    /// The best this processor has, tract where none are made for it, unless [`KERNEL_VARIABLE`] names another.
    pub fn wanted() -> Result<Kernel, String> {
        match std::env::var(KERNEL_VARIABLE).as_deref() {
            Err(_) | Ok("") => Ok(Kind::best().map_or(Kernel::Tract, Kernel::Ours)),
            Ok("tract") => Ok(Kernel::Tract),
            Ok(name) => Kind::named(name).map(Kernel::Ours).ok_or_else(|| {
                let able: Vec<_> = Kind::available().iter().map(|kind| kind.name()).collect();
                format!(
                    "{KERNEL_VARIABLE}={name}: this processor runs {} or tract",
                    able.join(", ")
                )
            }),
        }
    }
}

/// A graph that is ready to run: `f32` in, `f32` out, in ONNX's own layouts.
pub struct Engine {
    runner: Runner,
    fallback_nodes: Vec<FallbackNode>,
}

enum Runner {
    Int8(Box<Program>),
    Tract { graph: FloatGraph, outputs: Vec<Vec<f32>> },
}

/// How much of a graph is computed in integers: 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Of the nodes that compute something.
    pub nodes: f64,
    /// Of the multiply-accumulates.
    pub macs: f64,
}

/// Bytes of a graph in integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// All that is held once it is loaded.
    pub loaded: usize,
    /// The weights, a byte each.
    pub weights: usize,
    /// The two largest activations.
    pub activations: usize,
}

impl Engine {
    /// Loads the ONNX graph in `bytes`, with these inputs and outputs in this order. Nodes that our kernels do not take run
    /// in tract; so does the whole graph where they take none.
    pub fn load(bytes: &[u8], inputs: &[Named], outputs: &[&str], kernel: Kernel) -> TractResult<Engine> {
        let proto = tract_onnx::onnx().proto_model_for_read(&mut &bytes[..])?;
        Engine::of(&proto, inputs, outputs, kernel)
    }

    /// Loads a whole file, and says what its inputs and outputs are.
    pub fn load_file(bytes: &[u8], kernel: Kernel) -> TractResult<(Engine, Vec<Vec<usize>>)> {
        let proto = tract_onnx::onnx().proto_model_for_read(&mut &bytes[..])?;
        let int8::Signature { inputs, outputs } = int8::Signature::of(&proto)
            .ok_or_else(|| anyhow::anyhow!("it has inputs without a static shape: export it with fixed dimensions"))?;
        let named: Vec<Named> = inputs.iter().map(|(name, dims)| (name.as_str(), &dims[..])).collect();
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let engine = Engine::of(&proto, &named, &outputs, kernel)?;
        Ok((engine, inputs.into_iter().map(|(_, dims)| dims).collect()))
    }

    fn of(proto: &ModelProto, inputs: &[Named], outputs: &[&str], kernel: Kernel) -> TractResult<Engine> {
        let mut fallback_nodes = vec![];
        if let Kernel::Ours(kind) = kernel {
            let names: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
            match int8::compile(proto, &names, outputs, kind) {
                Ok(program) => {
                    fallback_nodes = program.fallback_nodes().to_vec();
                    if program.operators()[1] > 0 {
                        let runner = Runner::Int8(Box::new(program));
                        return Ok(Engine { runner, fallback_nodes });
                    }
                }
                Err(why) => fallback_nodes = vec![why],
            }
        }
        let graph = FloatGraph::load(proto, inputs, outputs)?;
        let sizes = graph.outputs().iter().map(|dims| dims.iter().product());
        Ok(Engine {
            runner: Runner::Tract {
                outputs: sizes.map(|size| vec![0.0; size]).collect(),
                graph,
            },
            fallback_nodes,
        })
    }

    /// Runs the graph once; `read` gets the outputs in order.
    pub fn run<R>(&mut self, inputs: &[&[f32]], read: impl FnOnce(&[&[f32]]) -> R) -> TractResult<R> {
        let outputs = match &mut self.runner {
            Runner::Int8(program) => program.run(inputs)?,
            Runner::Tract { graph, outputs } => {
                graph.run(inputs, outputs)?;
                outputs
            }
        };
        let outputs: TVec<&[f32]> = outputs.iter().map(Vec::as_slice).collect();
        Ok(read(&outputs))
    }

    /// Multiply-accumulates of one run.
    pub fn macs(&self) -> u64 {
        match &self.runner {
            Runner::Int8(program) => program.macs() + program.float_macs(),
            Runner::Tract { graph, .. } => graph.macs(),
        }
    }

    /// `tract`, or the name of our kernels.
    pub fn kernel(&self) -> &'static str {
        match &self.runner {
            Runner::Int8(program) => program.kind().name(),
            Runner::Tract { .. } => "tract",
        }
    }

    pub fn int8_share(&self) -> Share {
        let share = |part: f64, all: f64| if all > 0.0 { part / all } else { 1.0 };
        match &self.runner {
            Runner::Int8(program) => {
                let [all, taken] = program.operators();
                Share {
                    nodes: share(taken as f64, all as f64),
                    macs: share(program.macs() as f64, self.macs() as f64),
                }
            }
            Runner::Tract { .. } => Share { nodes: 0.0, macs: 0.0 },
        }
    }

    /// What our program holds; unknown where tract runs any of it.
    pub fn footprint(&self) -> Option<Footprint> {
        match &self.runner {
            Runner::Int8(program) if self.fallback_nodes.is_empty() => Some(Footprint {
                loaded: program.bytes(),
                weights: program.weights(),
                activations: program.largest_activations(),
            }),
            _ => None,
        }
    }

    /// The nodes that are not computed in integers, where that was tried.
    pub fn fallback_nodes(&self) -> &[FallbackNode] {
        &self.fallback_nodes
    }
}
