//! What runs a graph: our integers, or tract.

use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::Cost;

use super::int8::{self, Kind, Program, Untaken};

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
    macs: u64,
    untaken: Option<Untaken>,
}

enum Runner {
    Int8(Program),
    Tract {
        plan: Arc<TypedRunnableModel>,
        inputs: Vec<Vec<usize>>,
    },
}

impl Engine {
    /// Loads the ONNX graph in `bytes`, with these inputs and outputs in this order. What our kernels do not take runs in
    /// tract.
    pub fn load(bytes: &[u8], inputs: &[Named], outputs: &[&str], kernel: Kernel) -> TractResult<Engine> {
        let onnx = tract_onnx::onnx();
        let proto = onnx.proto_model_for_read(&mut &bytes[..])?;
        let mut untaken = None;
        if let Kernel::Ours(kind) = kernel {
            let names: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
            match int8::compile(&proto, &names, outputs, kind) {
                Ok(program) => {
                    return Ok(Engine {
                        macs: program.macs(),
                        runner: Runner::Int8(program),
                        untaken: None,
                    });
                }
                Err(why) => untaken = Some(why),
            }
        }
        let mut model = onnx.model_for_proto_model(&proto)?;
        model.select_inputs_by_name(inputs.iter().map(|(name, _)| name))?;
        model.select_outputs_by_name(outputs)?;
        let model = model.into_typed()?.into_decluttered()?;
        Ok(Engine {
            macs: multiply_accumulates(&model),
            runner: Runner::Tract {
                plan: model.into_optimized()?.into_runnable()?,
                inputs: inputs.iter().map(|(_, shape)| shape.to_vec()).collect(),
            },
            untaken,
        })
    }

    /// Loads a whole file, and says what its inputs and outputs are.
    pub fn load_file(bytes: &[u8], kernel: Kernel) -> TractResult<(Engine, Vec<Vec<usize>>)> {
        let proto = tract_onnx::onnx().proto_model_for_read(&mut &bytes[..])?;
        let int8::Signature { inputs, outputs } = int8::Signature::of(&proto)
            .ok_or_else(|| anyhow::anyhow!("it has inputs without a static shape: export it with fixed dimensions"))?;
        let named: Vec<Named> = inputs.iter().map(|(name, dims)| (name.as_str(), &dims[..])).collect();
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let engine = Engine::load(bytes, &named, &outputs, kernel)?;
        Ok((engine, inputs.into_iter().map(|(_, dims)| dims).collect()))
    }

    /// Runs the graph once; `read` gets the outputs in order.
    pub fn run<R>(&mut self, inputs: &[&[f32]], read: impl FnOnce(&[&[f32]]) -> R) -> TractResult<R> {
        match &mut self.runner {
            Runner::Int8(program) => {
                let outputs: TVec<&[f32]> = program.run(inputs).iter().map(Vec::as_slice).collect();
                Ok(read(&outputs))
            }
            Runner::Tract { plan, inputs: shapes } => run_tract(plan, shapes, inputs, read),
        }
    }

    /// Multiply-accumulates of one run.
    pub fn macs(&self) -> u64 {
        self.macs
    }

    /// `tract`, or the name of our kernels.
    pub fn kernel(&self) -> &'static str {
        match &self.runner {
            Runner::Int8(program) => program.kind().name(),
            Runner::Tract { .. } => "tract",
        }
    }

    /// Bytes our program holds; unknown for tract.
    pub fn bytes(&self) -> Option<usize> {
        match &self.runner {
            Runner::Int8(program) => Some(program.bytes()),
            Runner::Tract { .. } => None,
        }
    }

    /// Why the graph is not computed in integers, where it was tried.
    pub fn untaken(&self) -> Option<&Untaken> {
        self.untaken.as_ref()
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

fn run_tract<R>(
    plan: &Arc<TypedRunnableModel>,
    shapes: &[Vec<usize>],
    inputs: &[&[f32]],
    read: impl FnOnce(&[&[f32]]) -> R,
) -> TractResult<R> {
    let tensors = shapes
        .iter()
        .zip(inputs)
        .map(|(shape, data)| Ok(Tensor::from_shape(shape, data)?.into_tvalue()))
        .collect::<TractResult<TVec<TValue>>>()?;
    let results = plan.run(tensors)?;
    let slices = results
        .iter()
        .map(|value| value.try_as_plain_ram()?.as_slice::<f32>())
        .collect::<TractResult<Vec<&[f32]>>>()?;
    Ok(read(&slices))
}
