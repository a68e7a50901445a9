//! Runs one graph: a plan of tract, in which [`int8`] put operators of ours for what is computed in integers.

use std::sync::Arc;

use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;

use super::int8::{self, FallbackNode, IntegerModel, IntegerPlan, IntegerSubgraph, OperatorCounts, Signature};
use super::kernel::KernelChoice;

/// The name and shape of an input or output.
pub type Named<'a> = (&'a str, &'a [usize]);

/// A loaded graph. Inputs and outputs are `f32` in ONNX's layout.
pub struct Engine {
    /// The inputs and outputs that the file declares.
    signature: Signature,
    state: TypedSimpleState,
    /// The tensors that the plan reads. They are filled anew for every run.
    inputs: Vec<Arc<Tensor>>,
    int8_macs: u64,
    float_macs: u64,
    operators: OperatorCounts,
    fallback_nodes: Vec<FallbackNode>,
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
    /// Loads the ONNX graph in `bytes`, with these inputs and outputs in this order. Fails if the shapes differ from those in the
    /// file. Nodes that cannot be computed in integers run in f32.
    pub fn load(bytes: &[u8], inputs: &[Named], outputs: &[Named], kernel: KernelChoice) -> TractResult<Engine> {
        let names: Vec<&str> = outputs.iter().map(|(name, _)| *name).collect();
        let proto = int8::read(bytes)?;
        let engine = Engine::load_proto(&proto, inputs, &names, kernel)?;
        for (index, (name, expected)) in outputs.iter().enumerate() {
            let fact = engine.state.model().output_fact(index)?;
            let found = fact.shape.as_concrete().unwrap_or_default();
            anyhow::ensure!(
                found == *expected,
                "output {name}: is {found:?} in the file and not {expected:?}"
            );
        }
        Ok(engine)
    }

    /// Loads a graph with the inputs and outputs that the file declares. Also returns the shapes of the inputs.
    pub fn load_file(bytes: &[u8], kernel: KernelChoice) -> TractResult<(Engine, Vec<Vec<usize>>)> {
        let proto = int8::read(bytes)?;
        let Signature { inputs, outputs } = Signature::of(&proto)?;
        let named: Vec<Named> = inputs.iter().map(|(name, dims)| (name.as_str(), &dims[..])).collect();
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let engine = Engine::load_proto(&proto, &named, &outputs, kernel)?;
        Ok((engine, inputs.into_iter().map(|(_, dims)| dims).collect()))
    }

    fn load_proto(proto: &ModelProto, inputs: &[Named], outputs: &[&str], kernel: KernelChoice) -> TractResult<Engine> {
        let isa = match kernel {
            KernelChoice::Int8(isa) => Some(isa),
            KernelChoice::Tract => None,
        };
        let mut loaded = int8::load(proto, inputs, outputs, isa)?;
        let operators = loaded.operators;
        let fallback_nodes = std::mem::take(&mut loaded.fallback_nodes);
        let IntegerPlan {
            plan,
            int8_macs,
            float_macs,
        } = IntegerModel::into_plan(loaded)?;
        for (index, name) in outputs.iter().enumerate() {
            let fact = plan.model().output_fact(index)?;
            let usable = fact.datum_type == f32::datum_type() && fact.shape.as_concrete().is_some();
            anyhow::ensure!(
                usable,
                "output {name}: is {:?} and not f32 with a fixed shape",
                fact.datum_type
            );
        }
        let tensors = inputs.iter().map(|(_, dims)| Ok(Arc::new(Tensor::zero::<f32>(dims)?)));
        Ok(Engine {
            signature: Signature::of(proto)?,
            state: plan.spawn()?,
            inputs: tensors.collect::<TractResult<_>>()?,
            int8_macs,
            float_macs,
            operators,
            fallback_nodes,
        })
    }

    /// Runs the graph once and passes the outputs to `read`, in order. The lengths of `inputs` must be those that their shapes imply.
    pub fn run<R>(&mut self, inputs: &[&[f32]], read: impl FnOnce(&[&[f32]]) -> R) -> TractResult<R> {
        anyhow::ensure!(
            inputs.len() == self.inputs.len(),
            "the graph has {} inputs",
            self.inputs.len()
        );
        for (tensor, values) in self.inputs.iter_mut().zip(inputs) {
            if Arc::get_mut(tensor).is_none() {
                // A run that failed may have left a copy behind.
                *tensor = Arc::new(Tensor::zero::<f32>(tensor.shape())?);
            }
            if let Some(tensor) = Arc::get_mut(tensor) {
                let mut view = tensor.try_as_plain_ram_mut()?;
                let place = view.as_slice_mut::<f32>()?;
                anyhow::ensure!(
                    place.len() == values.len(),
                    "an input has {} values, not {}",
                    place.len(),
                    values.len()
                );
                place.copy_from_slice(values);
            }
        }
        let tensors: TVec<TValue> = self.inputs.iter().map(|tensor| tensor.clone().into_tvalue()).collect();
        let outputs = int8::run(&mut self.state, tensors)?;
        let values: TVec<&[f32]> = outputs
            .iter()
            .map(|output| output.try_as_plain_ram()?.as_slice::<f32>())
            .collect::<TractResult<_>>()?;
        Ok(read(&values))
    }

    /// The inputs and outputs that the file declares.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The plan that tract runs, one line per node.
    pub fn plan(&self) -> String {
        self.state.model().to_string()
    }

    fn integer_subgraphs(&self) -> impl Iterator<Item = &IntegerSubgraph> {
        let nodes = self.state.model().nodes().iter();
        nodes.filter_map(|node| node.op_as::<IntegerSubgraph>())
    }

    /// Multiply-accumulates of one run.
    pub fn macs(&self) -> u64 {
        self.int8_macs + self.float_macs
    }

    /// `tract`, or the name of the int8 kernels.
    pub fn kernel(&self) -> &'static str {
        self.integer_subgraphs()
            .next()
            .map_or("tract", |operator| operator.isa().name())
    }

    pub fn int8_share(&self) -> Int8Share {
        if self.integer_subgraphs().next().is_none() {
            return Int8Share { nodes: 0.0, macs: 0.0 };
        }
        let share = |part: f64, all: f64| if all > 0.0 { part / all } else { 1.0 };
        Int8Share {
            nodes: share(self.operators.int8 as f64, self.operators.all as f64),
            macs: share(self.int8_macs as f64, self.macs() as f64),
        }
    }

    /// The memory of the loaded graph; `None` if nodes of tract run any part of it.
    pub fn footprint(&self) -> Option<Footprint> {
        let mut operators = self.integer_subgraphs();
        let (operator, None) = (operators.next()?, operators.next()) else {
            return None;
        };
        let inputs: usize = self.inputs.iter().map(|tensor| tensor.len() * size_of::<f32>()).sum();
        self.fallback_nodes.is_empty().then(|| Footprint {
            loaded: operator.bytes() + inputs,
            weights: operator.weight_bytes(),
            activations: operator.largest_activations(),
        })
    }

    /// The nodes that are not computed in integers. Empty if integers were not requested.
    pub fn fallback_nodes(&self) -> &[FallbackNode] {
        &self.fallback_nodes
    }
}
