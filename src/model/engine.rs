//! Runs one graph: in integers, or in tract.

use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;

use super::int8::float_graph::FloatGraph;
use super::int8::{self, FallbackNode, Program};
use super::kernel::KernelChoice;

/// The name and shape of an input or output.
pub type Named<'a> = (&'a str, &'a [usize]);

/// A loaded graph. Inputs and outputs are `f32` in ONNX's layout.
pub struct Engine {
    runner: Runner,
    fallback_nodes: Vec<FallbackNode>,
}

enum Runner {
    Int8(Box<Program>),
    Tract { graph: FloatGraph, outputs: Vec<Vec<f32>> },
}

/// The part of a graph that is computed in integers, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Int8Share {
    /// Of the nodes that compute something.
    pub nodes: f64,
    /// Of the multiply-accumulates.
    pub macs: f64,
}

/// The memory of a graph in integers, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Everything that is held after loading.
    pub loaded: usize,
    /// One byte per weight.
    pub weights: usize,
    /// The two largest activations.
    pub activations: usize,
}

impl Engine {
    /// Loads the ONNX graph in `bytes`, with these inputs and outputs in this order. Nodes that cannot be computed in integers run
    /// in tract. If no node can, the whole graph does.
    pub fn load(bytes: &[u8], inputs: &[Named], outputs: &[&str], kernel: KernelChoice) -> TractResult<Engine> {
        let proto = tract_onnx::onnx().proto_model_for_read(&mut &bytes[..])?;
        Engine::load_proto(&proto, inputs, outputs, kernel)
    }

    /// Loads a graph with the inputs and outputs that the file declares. Also returns the shapes of the inputs.
    pub fn load_file(bytes: &[u8], kernel: KernelChoice) -> TractResult<(Engine, Vec<Vec<usize>>)> {
        let proto = tract_onnx::onnx().proto_model_for_read(&mut &bytes[..])?;
        let int8::Signature { inputs, outputs } = int8::Signature::of(&proto)
            .ok_or_else(|| anyhow::anyhow!("an input has no static shape: export the graph with fixed dimensions"))?;
        let named: Vec<Named> = inputs.iter().map(|(name, dims)| (name.as_str(), &dims[..])).collect();
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let engine = Engine::load_proto(&proto, &named, &outputs, kernel)?;
        Ok((engine, inputs.into_iter().map(|(_, dims)| dims).collect()))
    }

    fn load_proto(proto: &ModelProto, inputs: &[Named], outputs: &[&str], kernel: KernelChoice) -> TractResult<Engine> {
        let mut fallback_nodes = vec![];
        if let KernelChoice::Int8(isa) = kernel {
            let names: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
            match int8::compile(proto, &names, outputs, isa) {
                Ok(program) => {
                    fallback_nodes = program.fallback_nodes().to_vec();
                    if program.operators().int8 > 0 {
                        let runner = Runner::Int8(Box::new(program));
                        return Ok(Engine { runner, fallback_nodes });
                    }
                }
                Err(whole_graph) => fallback_nodes = vec![whole_graph],
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

    /// Runs the graph once and passes the outputs to `read`, in order.
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

    /// `tract`, or the name of the int8 kernels.
    pub fn kernel(&self) -> &'static str {
        match &self.runner {
            Runner::Int8(program) => program.isa().name(),
            Runner::Tract { .. } => "tract",
        }
    }

    pub fn int8_share(&self) -> Int8Share {
        let share = |part: f64, all: f64| if all > 0.0 { part / all } else { 1.0 };
        match &self.runner {
            Runner::Int8(program) => {
                let operators = program.operators();
                Int8Share {
                    nodes: share(operators.int8 as f64, operators.all as f64),
                    macs: share(program.macs() as f64, self.macs() as f64),
                }
            }
            Runner::Tract { .. } => Int8Share { nodes: 0.0, macs: 0.0 },
        }
    }

    /// The memory of the compiled graph; `None` if tract runs any part of it.
    pub fn footprint(&self) -> Option<Footprint> {
        match &self.runner {
            Runner::Int8(program) if self.fallback_nodes.is_empty() => Some(Footprint {
                loaded: program.bytes(),
                weights: program.weight_bytes(),
                activations: program.largest_activations(),
            }),
            _ => None,
        }
    }

    /// The nodes that are not computed in integers. Empty if integers were not requested.
    pub fn fallback_nodes(&self) -> &[FallbackNode] {
        &self.fallback_nodes
    }
}
