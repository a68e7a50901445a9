//! An integer subgraph as an operator of tract.

use std::collections::BTreeMap;
use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use super::operators::kernels::Isa;
use super::program::{Program, Scratch};

/// A maximal subgraph that is computed in integers, as one node of a [`TypedModel`].
///
/// Inputs and outputs are f32 in ONNX's layout. Between two of these operators with nodes of tract beside them, activations are also
/// passed on as s8. Clones share the program with its packed weights. Each state of a plan has activations and outputs of its own,
/// and reuses them from run to run: an evaluation allocates nothing, unless something still holds the outputs of the one before.
#[derive(Debug, Clone)]
pub struct IntegerSubgraph {
    program: Arc<Program>,
}

impl IntegerSubgraph {
    pub fn new(program: Program) -> IntegerSubgraph {
        IntegerSubgraph {
            program: Arc::new(program),
        }
    }

    pub fn isa(&self) -> Isa {
        self.program.isa()
    }

    /// Multiply-accumulates of one evaluation.
    pub fn macs(&self) -> u64 {
        self.program.macs()
    }

    /// Bytes held by the operator and one state.
    pub fn bytes(&self) -> usize {
        self.program.bytes()
    }

    /// Bytes of the weights: one byte per weight.
    pub fn weight_bytes(&self) -> usize {
        self.program.weight_bytes()
    }

    /// Bytes of the two largest activations, without inputs and outputs.
    pub fn largest_activations(&self) -> usize {
        self.program.largest_activations()
    }
}

impl PartialEq for IntegerSubgraph {
    fn eq(&self, other: &IntegerSubgraph) -> bool {
        Arc::ptr_eq(&self.program, &other.program)
    }
}

impl Eq for IntegerSubgraph {}

impl Op for IntegerSubgraph {
    fn name(&self) -> StaticName {
        "IntegerSubgraph".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for step in self.program.steps() {
            *kinds.entry(step.kind()).or_default() += 1;
        }
        let kinds = kinds.iter().map(|(kind, count)| format!("{kind} {count}"));
        Ok(vec![
            format!(
                "{} kernels, {:.1} M multiply-accumulates, {} weights",
                self.isa().name(),
                self.macs() as f64 / 1e6,
                self.weight_bytes()
            ),
            format!("steps: {}", kinds.collect::<Vec<_>>().join(", ")),
        ])
    }

    op_as_typed_op!();
}

impl EvalOp for IntegerSubgraph {
    not_out_of_plan!();

    fn state(&self, _: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        let outputs = self.program.outputs().iter().map(|port| port.tensor());
        Ok(Some(Box::new(State {
            scratch: Scratch::of(&self.program),
            outputs: outputs.collect::<TractResult<_>>()?,
        })))
    }
}

impl TypedOp for IntegerSubgraph {
    fn output_facts(&self, _: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let ports = self.program.outputs().iter();
        Ok(ports.map(|port| port.kind.datum_type().fact(&port.dims[..])).collect())
    }

    fn cost(&self, _: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        Ok(tvec![
            (Cost::FMA(i8::datum_type()), self.macs().to_dim()),
            (Cost::Params(i8::datum_type()), self.weight_bytes().to_dim()),
        ])
    }

    as_op!();
}

/// The memory of one state of a plan.
#[derive(Debug, Clone)]
struct State {
    scratch: Scratch,
    outputs: Vec<Arc<Tensor>>,
}

impl OpState for State {
    fn eval(&mut self, _: &EvalContext, op: &dyn Op, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let operator = op.downcast_ref::<IntegerSubgraph>();
        let program = &operator.context("the state belongs to another operator")?.program;
        for (output, port) in self.outputs.iter_mut().zip(program.outputs()) {
            // The caller, or a clone of this state, may still hold the results of the last run.
            if Arc::get_mut(output).is_none() {
                *output = port.tensor()?;
            }
        }
        program.run(&mut self.scratch, &inputs, &mut self.outputs)?;
        Ok(self.outputs.iter().map(|output| output.clone().into_tvalue()).collect())
    }

    fn reset_lanes(&mut self, _: &[LaneId]) -> TractResult<()> {
        // Nothing is kept from one evaluation to the next.
        Ok(())
    }
}
