//! From the parts of a draft to a model of tract.
//!
//! The steps between two fallback subgraphs become one operator. A part belongs to the level that counts the fallback subgraphs on
//! the longest path before it. All steps of one level form one operator, because none of them needs a result of a later level. So
//! there are as few operators as the order of the graph allows.

use std::collections::{BTreeMap, HashMap, HashSet};

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::SymbolScope;

use super::limits::MAX_ACTIVATION_BYTES;
use super::operator::IntegerSubgraph;
use super::operators::kernels::Isa;
use super::program::{Port, PortKind, Program};
use super::step::{Activation, Draft, Part, Real, Slot, Step};
use super::tract_graph::{OuterTensor, TractSubgraph};
use super::validate::InvalidGraph;

/// Everything that can be computed after as many fallback subgraphs.
#[derive(Default)]
struct Level {
    steps: Vec<Step>,
    fallbacks: Vec<Fallback>,
}

struct Fallback {
    graph: TractSubgraph,
    inputs: Vec<Real>,
    outputs: Vec<Real>,
}

/// The activations of a draft. An alias shares the memory of its root.
struct Activations<'a>(&'a [Activation]);

impl Activations<'_> {
    fn root(&self, slot: Slot) -> Slot {
        self.0[slot].alias_of.unwrap_or(slot)
    }
}

/// Builds the model. `inputs` and `outputs` name the draft's inputs and outputs, in order.
pub fn assemble(
    isa: Isa,
    draft: Draft,
    inputs: &[&str],
    outputs: &[&str],
    symbols: &SymbolScope,
) -> TractResult<TypedModel> {
    let Draft {
        activations,
        parts,
        reals,
        outputs: results,
        ..
    } = draft;
    let activations = Activations(&activations);
    let levels = levels(&activations, parts, reals.len());
    // The last level that reads each activation, by its root.
    let mut last_read: HashMap<Slot, usize> = HashMap::new();
    for (number, level) in &levels {
        for slot in level.steps.iter().flat_map(Step::reads) {
            last_read.insert(activations.root(slot), *number);
        }
    }
    let mut model = TypedModel {
        symbols: symbols.clone(),
        ..TypedModel::default()
    };
    let mut outlets = Outlets::default();
    let mut activation_bytes = 0usize;
    for (real, name) in inputs.iter().enumerate() {
        let outlet = model.add_source(*name, reals[real].fact())?;
        outlets.reals.insert(real, outlet);
    }
    for (number, level) in levels {
        let Level { steps, fallbacks } = level;
        if !steps.is_empty() {
            let is_read_later = |slot: Slot| last_read.get(&slot).is_some_and(|last| *last > number);
            let Subgraph { program, ports } = subgraph(isa, steps, &activations, &reals, is_read_later);
            activation_bytes = activation_bytes.saturating_add(program.activation_bytes());
            if activation_bytes > MAX_ACTIVATION_BYTES {
                let problem = format!("its activations take more than {} MiB", MAX_ACTIVATION_BYTES >> 20);
                return Err(InvalidGraph::new("the graph", problem).into());
            }
            let reads = outlets.of(&ports.inputs)?;
            let name = model.unique_name("integers").into_owned();
            let writes = model.wire_node(name, IntegerSubgraph::new(program), &reads)?;
            outlets.add(ports.outputs, writes);
        }
        for Fallback { graph, inputs, outputs } in fallbacks {
            let reads = outlets.of(&inputs.into_iter().map(Value::Real).collect::<Vec<_>>())?;
            let writes = graph.wire(&mut model, &reads)?;
            outlets.add(outputs.into_iter().map(Value::Real), writes);
        }
    }
    let results = outlets.of(&results.into_iter().map(Value::Real).collect::<Vec<_>>())?;
    for (outlet, name) in results.iter().zip(outputs) {
        model.set_outlet_label(*outlet, name.to_string())?;
    }
    model.select_output_outlets(&results)?;
    Ok(model)
}

fn levels(activations: &Activations, parts: Vec<Part>, reals: usize) -> BTreeMap<usize, Level> {
    let mut slot_levels = vec![0; activations.0.len()];
    let mut real_levels = vec![0; reals];
    let mut levels: BTreeMap<usize, Level> = BTreeMap::new();
    for part in parts {
        match part {
            Part::Integers(step) => {
                let reads = step.reads().into_iter().map(|slot| slot_levels[activations.root(slot)]);
                let level = reads.chain(step.reads_real().map(|real| real_levels[real])).max();
                let level = level.unwrap_or(0);
                if let Some(slot) = step.writes() {
                    slot_levels[slot] = level;
                }
                if let Some(real) = step.writes_real() {
                    real_levels[real] = level;
                }
                levels.entry(level).or_default().steps.push(step);
            }
            Part::Fallback { graph, inputs, outputs } => {
                let level = inputs.iter().map(|real| real_levels[*real]).max().unwrap_or(0);
                for real in &outputs {
                    real_levels[*real] = level + 1;
                }
                levels
                    .entry(level)
                    .or_default()
                    .fallbacks
                    .push(Fallback { graph, inputs, outputs });
            }
        }
    }
    levels
}

/// A value that passes from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Value {
    Real(Real),
    /// The activations of a root.
    Activations(Slot),
}

/// The outlets that are known so far.
#[derive(Default)]
struct Outlets {
    reals: HashMap<Real, OutletId>,
    activations: HashMap<Slot, OutletId>,
}

impl Outlets {
    fn of(&self, values: &[Value]) -> TractResult<TVec<OutletId>> {
        let outlet = |value: &Value| match value {
            Value::Real(real) => self.reals.get(real).copied(),
            Value::Activations(slot) => self.activations.get(slot).copied(),
        };
        let known =
            |value: &Value| outlet(value).ok_or_else(|| anyhow::anyhow!("{value:?} is not computed before it is read"));
        values.iter().map(known).collect()
    }

    fn add(&mut self, values: impl IntoIterator<Item = Value>, outlets: impl IntoIterator<Item = OutletId>) {
        for (value, outlet) in values.into_iter().zip(outlets) {
            match value {
                Value::Real(real) => self.reals.insert(real, outlet),
                Value::Activations(slot) => self.activations.insert(slot, outlet),
            };
        }
    }
}

/// The steps of a level as a program, and what it reads and writes.
struct Subgraph {
    program: Program,
    ports: Ports,
}

struct Ports {
    inputs: Vec<Value>,
    outputs: Vec<Value>,
}

fn subgraph(
    isa: Isa,
    mut steps: Vec<Step>,
    all: &Activations,
    reals: &[OuterTensor],
    is_read_later: impl Fn(Slot) -> bool,
) -> Subgraph {
    let written: Vec<Slot> = steps.iter().filter_map(Step::writes).collect();
    let written_here: HashSet<Slot> = written.iter().copied().collect();
    let read = steps.iter().flat_map(Step::reads).map(|slot| all.root(slot));
    let loaded = distinct(read.filter(|slot| !written_here.contains(slot)));
    let stored: Vec<Slot> = written.into_iter().filter(|slot| is_read_later(*slot)).collect();

    // Activations get new numbers, roots first.
    let roots = loaded.iter().copied().chain(steps.iter().filter_map(Step::writes));
    let slots = distinct(roots.chain(steps.iter().flat_map(Step::reads)));
    let numbers: HashMap<Slot, Slot> = slots.iter().copied().zip(0..).collect();
    let activations: Vec<Activation> = slots
        .iter()
        .map(|slot| Activation {
            alias_of: all.0[*slot].alias_of.map(|root| numbers[&root]),
            ..all.0[*slot].clone()
        })
        .collect();

    let read_reals = distinct(steps.iter().filter_map(Step::reads_real));
    let written_reals: Vec<Real> = steps.iter().filter_map(Step::writes_real).collect();
    let inputs: Vec<Value> = values(&read_reals, &loaded);
    let outputs: Vec<Value> = values(&written_reals, &stored);
    let input_numbers: HashMap<Real, usize> = read_reals.iter().copied().zip(0..).collect();
    let output_numbers: HashMap<Real, usize> = written_reals.iter().copied().zip(0..).collect();

    let loads = loaded.iter().zip(read_reals.len()..);
    let loads: Vec<Step> = loads.map(|(slot, input)| Step::Load { input, out: *slot }).collect();
    let stores = stored.iter().zip(written_reals.len()..);
    let stores: Vec<Step> = stores.map(|(slot, out)| Step::Store { input: *slot, out }).collect();
    steps.splice(0..0, loads);
    steps.extend(stores);
    for step in &mut steps {
        step.renumber(
            |slot| numbers[&slot],
            |real| input_numbers[&real],
            |real| output_numbers[&real],
        );
    }

    let port = |value: &Value| match value {
        Value::Real(real) => Port {
            kind: PortKind::Real,
            dims: reals[*real].dims.clone(),
        },
        Value::Activations(slot) => Port {
            kind: PortKind::Activations,
            dims: memory_order(&all.0[*slot].dims),
        },
    };
    let [input_ports, output_ports] = [&inputs, &outputs].map(|values| values.iter().map(port).collect());
    Subgraph {
        program: Program::new(isa, steps, &activations, input_ports, output_ports),
        ports: Ports { inputs, outputs },
    }
}

fn values(reals: &[Real], activations: &[Slot]) -> Vec<Value> {
    let reals = reals.iter().copied().map(Value::Real);
    reals
        .chain(activations.iter().copied().map(Value::Activations))
        .collect()
}

/// The dimensions in the order of the memory: channels last in four dimensions.
fn memory_order(dims: &[usize]) -> Vec<usize> {
    match dims[..] {
        [batch, channels, height, width] => vec![batch, height, width, channels],
        _ => dims.to_vec(),
    }
}

/// The first of each value, in order.
fn distinct(values: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut seen = HashSet::new();
    values.filter(|value| seen.insert(*value)).collect()
}
