//! The importer's state, and the import of one node after the other.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::rc::Rc;

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};
use tract_onnx::tract_core::internal::SymbolScope;

use super::super::limits::{self, Budget, MAX_CONSTANTS, MAX_ELEMENTS, MAX_WORK};
use super::super::onnx::Constant;
use super::super::operators::arithmetic::Quantization;
use super::super::operators::kernels::Microkernels;
use super::super::reason::{FallbackNode, Reason};
use super::super::step::{Activation, Draft, Real, Slot};
use super::value::{FallbackSubgraph, Value};

/// The most products of two 8-bit values in one sum: 2¹⁷ of them reach 2³¹.
const MAX_DEPTH: usize = 1 << 16;

/// The bits of a scale, a zero point.
pub type QuantizationKey = (u32, i32);

pub struct Importer<'a, M> {
    pub model: &'a ModelProto,
    pub graph: &'a GraphProto,
    /// The node that computes each name.
    pub producers: HashMap<&'a str, usize>,
    pub initializers: HashMap<&'a str, &'a TensorProto>,
    /// How many nodes and graph outputs read each name.
    pub readers: HashMap<&'a str, usize>,
    /// The names of the graph's outputs.
    pub outputs: HashSet<String>,
    pub values: HashMap<String, Value>,
    /// The place of each name's values as real numbers.
    pub reals: HashMap<String, Real>,
    /// Names that are quantized, and the result. Exporters quantize a tensor once for each of its readers.
    pub quantized: HashMap<(String, QuantizationKey), Slot>,
    pub subgraph: FallbackSubgraph,
    /// The nodes that tract runs.
    pub in_float: HashSet<usize>,
    pub draft: Draft,
    pub symbols: SymbolScope,
    /// How many values have been rearranged or repeated.
    rearranged: usize,
    /// How many constant values have been unpacked or repeated.
    constants: Cell<usize>,
    /// Multiply-accumulates of one run, or operations that take as long.
    work: Cell<u64>,
    pub budget: &'a mut Budget,
    microkernels: PhantomData<M>,
}

impl<'a, M: Microkernels> Importer<'a, M> {
    pub fn new(
        model: &'a ModelProto,
        graph: &'a GraphProto,
        outputs: &[&str],
        symbols: &SymbolScope,
        budget: &'a mut Budget,
    ) -> Importer<'a, M> {
        let nodes = || graph.node.iter().enumerate();
        let mut readers: HashMap<&str, usize> = HashMap::new();
        let read = graph.node.iter().flat_map(|node| &node.input);
        for name in read.chain(graph.output.iter().map(|output| &output.name)) {
            *readers.entry(name).or_default() += 1;
        }
        let constants = graph.initializer.iter().filter_map(|tensor| {
            // An initializer of an unsupported type is ignored here; the nodes that read it fall back to f32.
            let constant = Constant::of(tensor)?;
            Some((tensor.name.clone(), Value::Constant(Rc::new(constant))))
        });
        Importer {
            model,
            graph,
            producers: nodes()
                .flat_map(|(index, node)| node.output.iter().map(move |name| (name.as_str(), index)))
                .collect(),
            initializers: graph
                .initializer
                .iter()
                .map(|tensor| (tensor.name.as_str(), tensor))
                .collect(),
            readers,
            outputs: outputs.iter().map(|name| name.to_string()).collect(),
            values: constants.collect(),
            reals: HashMap::new(),
            quantized: HashMap::new(),
            subgraph: FallbackSubgraph::default(),
            in_float: HashSet::new(),
            draft: Draft::default(),
            symbols: symbols.clone(),
            rearranged: 0,
            constants: Cell::new(0),
            work: Cell::new(0),
            budget,
            microkernels: PhantomData,
        }
    }

    /// Imports the node `index`, in integers or as a part of the fallback subgraph.
    pub fn import(&mut self, index: usize) -> Result<(), FallbackNode> {
        let node = &self.graph.node[index];
        let input = node.input.first().and_then(|name| self.values.get(name));
        if node.op_type == "QuantizeLinear" && matches!(input, Some(Value::Fallback)) {
            self.close_subgraph()?;
        }
        match self.import_in_integers(index, node) {
            Ok(()) => Ok(()),
            Err(reason) => self.fall_back(index, reason),
        }
    }

    fn import_in_integers(&mut self, index: usize, node: &NodeProto) -> Result<(), Reason> {
        if node.op_type == "Split" {
            for (output, mut part) in node.output.iter().zip(self.split(node)?) {
                part.nodes.push(index);
                if !output.is_empty() {
                    self.values.insert(output.clone(), Value::Pending(Box::new(part)));
                }
            }
            return Ok(());
        }
        let output = match &node.output[..] {
            [output, others @ ..] if !output.is_empty() && others.iter().all(String::is_empty) => output,
            _ => return Err(Reason::NotOneOutput),
        };
        let value = match node.op_type.as_str() {
            "QuantizeLinear" => self.quantize(node)?,
            "DequantizeLinear" => self.dequantize(node)?,
            "Identity" | "Dropout" => match self.value(node, 0)? {
                Value::Fallback => return Err(Reason::InputInFloat(node.input[0].clone())),
                value => value.clone(),
            },
            "Constant" => {
                let tensor = node.attribute.iter().find_map(|a| a.t.as_ref());
                let constant = tensor.and_then(Constant::of).ok_or(Reason::ConstantType)?;
                Value::Constant(Rc::new(constant))
            }
            _ => match self.folded(node) {
                Some(constant) => Value::Constant(Rc::new(constant)),
                None => {
                    let mut pending = self.operator(node)?;
                    pending.nodes.push(index);
                    self.take_work(check_size(&pending.dims)? as u64)?;
                    Value::Pending(Box::new(pending))
                }
            },
        };
        self.values.insert(output.clone(), value);
        Ok(())
    }

    /// Counts values that are rearranged or repeated, because that takes time and memory for every value.
    pub fn rearrange(&mut self, count: usize) -> Result<(), Reason> {
        self.rearranged = self.rearranged.saturating_add(count);
        match self.rearranged <= MAX_ELEMENTS {
            true => Ok(()),
            false => Err(Reason::TooManyRearranged),
        }
    }

    /// Counts constant values that are unpacked or repeated.
    pub fn take_constants(&self, count: usize) -> Result<(), Reason> {
        self.constants.set(self.constants.get().saturating_add(count));
        match self.constants.get() <= MAX_CONSTANTS {
            true => Ok(()),
            false => Err(Reason::TooManyConstants),
        }
    }

    pub fn take_work(&self, work: u64) -> Result<(), Reason> {
        self.work.set(self.work.get().saturating_add(work));
        match self.work.get() <= MAX_WORK {
            true => Ok(()),
            false => Err(Reason::TooMuchWork),
        }
    }

    /// The value of a required input.
    pub fn value(&self, node: &NodeProto, index: usize) -> Result<&Value, Reason> {
        self.optional(node, index)?.ok_or(Reason::MissingInput(index))
    }

    /// The value of an optional input.
    pub fn optional(&self, node: &NodeProto, index: usize) -> Result<Option<&Value>, Reason> {
        match node.input.get(index) {
            None => Ok(None),
            Some(name) if name.is_empty() => Ok(None),
            Some(name) => match self.values.get(name) {
                Some(value) => Ok(Some(value)),
                None => Err(Reason::InputNotComputed(name.clone())),
            },
        }
    }

    /// An input that must be quantized activations.
    pub fn slot(&self, node: &NodeProto, index: usize) -> Result<Slot, Reason> {
        match self.value(node, index)? {
            Value::Real(slot) => Ok(*slot),
            Value::Fallback => Err(Reason::InputInFloat(node.input[index].clone())),
            _ => Err(Reason::InputNotQuantized(node.input[index].clone())),
        }
    }

    pub fn activation(&self, slot: Slot) -> &Activation {
        &self.draft.activations[slot]
    }

    /// An input that must be constant.
    pub fn constant(&self, node: &NodeProto, index: usize) -> Result<&Constant, Reason> {
        match self.value(node, index)? {
            Value::Constant(constant) => Ok(constant),
            _ => Err(Reason::InputNotConstant(node.input[index].clone())),
        }
    }

    pub fn add_activation(&mut self, dims: Vec<usize>, quantization: Quantization) -> Slot {
        self.draft.activations.push(Activation {
            dims,
            quantization,
            minimum: i8::MIN,
            alias_of: None,
        });
        self.draft.activations.len() - 1
    }

    /// The values of `other`, unchanged in memory, with other dimensions.
    pub fn add_alias(&mut self, dims: Vec<usize>, quantization: Quantization, other: Slot) -> Slot {
        let slot = self.add_activation(dims, quantization);
        let Activation { minimum, alias_of, .. } = *self.activation(other);
        let alias = &mut self.draft.activations[slot];
        alias.minimum = minimum;
        alias.alias_of = Some(alias_of.unwrap_or(other));
        slot
    }

    pub fn dims_of(&self, real: Real) -> &[usize] {
        &self.draft.reals[real].dims
    }
}

/// Rejects tensors without values and those that are too large.
pub fn check_size(dims: &[usize]) -> Result<usize, Reason> {
    limits::size(dims).ok_or_else(|| Reason::TooLarge(dims.to_vec()))
}

/// Rejects sums of more products than 32 bits hold.
pub fn check_depth(depth: usize) -> Result<(), Reason> {
    match depth <= MAX_DEPTH {
        true => Ok(()),
        false => Err(Reason::Depth(depth)),
    }
}
