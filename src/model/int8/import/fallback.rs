//! Nodes that fall back to f32.
//!
//! They are collected in a [`FallbackSubgraph`] until a QuantizeLinear reads one of their results. Then the subgraph becomes one
//! part of the draft. So neighbouring nodes stay together, and everything between two subgraphs is in integers.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use tract_onnx::pb::{GraphProto, ModelProto};
use tract_onnx::prelude::*;

use super::super::onnx::{input_info, output_info};
use super::super::operators::kernels::Microkernels;
use super::super::reason::{FallbackNode, Reason};
use super::super::step::{Part, Real, Slot, Step};
use super::super::tract_graph::TractSubgraph;
use super::super::validate::node_name;
use super::importer::Importer;
use super::value::Value;

impl<M: Microkernels> Importer<'_, M> {
    /// Adds a node to the fallback subgraph.
    pub fn fall_back(&mut self, index: usize, reason: Reason) -> Result<(), FallbackNode> {
        let node = &self.graph.node[index];
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            self.supply(name).map_err(|reason| self.fallback_node(index, reason))?;
        }
        self.subgraph.add_node(index);
        for name in &node.output {
            self.values.insert(name.clone(), Value::Fallback);
        }
        if node.op_type != "Constant" && self.in_float.insert(index) {
            let node = self.fallback_node(index, reason);
            self.draft.fallback_nodes.push(node);
        }
        Ok(())
    }

    fn fallback_node(&self, index: usize, reason: Reason) -> FallbackNode {
        let node = &self.graph.node[index];
        FallbackNode {
            op: node.op_type.clone(),
            node: node_name(node).into(),
            reason,
        }
    }

    /// Makes `name` readable for the subgraph. The nodes that make up a constant are copied into it.
    fn supply(&mut self, name: &str) -> Result<(), Reason> {
        let mut names = vec![name.to_string()];
        while let Some(name) = names.pop() {
            if self.subgraph.supplies(&name) || self.initializers.contains_key(name.as_str()) {
                continue;
            }
            let value = self.values.get(&name);
            match value.ok_or_else(|| Reason::InputNotComputed(name.clone()))? {
                Value::Fallback => {}
                Value::Constant(_) | Value::Quantized(_) => names.extend(self.copy_producer(&name)?),
                Value::Integers { slot, .. } => {
                    let slot = *slot;
                    let producer = self.producers.get(name.as_str()).copied();
                    match producer.filter(|index| self.graph.node[*index].op_type == "QuantizeLinear") {
                        Some(index) => names.extend(self.quantize_again(index, slot)),
                        None => names.extend(self.copy_producer(&name)?),
                    }
                }
                Value::Float(_) | Value::Other(_) | Value::Real(_) | Value::Pending(_) => {
                    if let Some(real) = self.real(&name)? {
                        self.subgraph.add_input(name, real);
                    }
                }
            }
        }
        Ok(())
    }

    /// Copies the node that computes `name` into the subgraph. Returns what it reads, unless it is there already.
    fn copy_producer(&mut self, name: &str) -> Result<Vec<String>, Reason> {
        let Some(index) = self.producers.get(name) else {
            return Err(Reason::ConstantWithoutSource(name.into()));
        };
        let inputs = self.graph.node[*index].input.iter();
        Ok(match self.subgraph.add_node(*index) {
            true => inputs.filter(|input| !input.is_empty()).cloned().collect(),
            false => vec![],
        })
    }

    /// Lets the subgraph compute the integers of `slot` from the real numbers that they stand for, with a copy of the QuantizeLinear node
    /// `index` that computes them. That is exact. Returns the other inputs of the node.
    fn quantize_again(&mut self, index: usize, slot: Slot) -> Vec<String> {
        let out = self.draft.add_real(self.activation(slot).dims.clone());
        self.draft.push(Step::Dequantize { input: slot, out });
        let mut copy = self.graph.node[index].clone();
        let scales = copy.input.split_off(1);
        let name = format!("{} as real numbers", copy.output[0]);
        self.subgraph.add_input(name.clone(), out);
        copy.input = std::iter::once(name).chain(scales.iter().cloned()).collect();
        self.subgraph.add_quantization(index, copy);
        scales.into_iter().filter(|name| !name.is_empty()).collect()
    }

    /// The values of `name` as real numbers. Adds a step that computes them if necessary. `None` if the nodes of `name` had to fall
    /// back as well.
    fn real(&mut self, name: &str) -> Result<Option<Real>, Reason> {
        if let Some(real) = self.reals.get(name) {
            return Ok(Some(*real));
        }
        let real = match self.values.get(name).cloned() {
            Some(Value::Float(real) | Value::Other(real)) => real,
            Some(Value::Real(input)) => {
                let out = self.draft.add_real(self.activation(input).dims.clone());
                self.draft.push(Step::Dequantize { input, out });
                out
            }
            Some(Value::Pending(pending)) => {
                let nodes = pending.nodes.clone();
                match self.finish_real(*pending) {
                    Ok(out) => out,
                    Err(reason) => {
                        for index in nodes {
                            self.fall_back(index, reason.clone()).map_err(|node| node.reason)?;
                        }
                        return Ok(None);
                    }
                }
            }
            _ => return Err(Reason::InputIsIntegers(name.to_string())),
        };
        self.reals.insert(name.to_string(), real);
        Ok(Some(real))
    }

    /// Turns the subgraph into a part of the draft, and starts an empty one.
    pub fn close_subgraph(&mut self) -> Result<(), FallbackNode> {
        let subgraph = std::mem::take(&mut self.subgraph);
        let nodes = || subgraph.nodes().iter().map(|index| &self.graph.node[*index]);
        let mut reads_inside: HashMap<&str, usize> = HashMap::new();
        for name in nodes().flat_map(|node| &node.input) {
            *reads_inside.entry(name).or_default() += 1;
        }
        // The names that other nodes or the caller read.
        let is_result = |name: &&str| {
            let reads = self.readers.get(name).copied().unwrap_or_default();
            let is_read = reads > reads_inside.get(name).copied().unwrap_or_default() || self.outputs.contains(*name);
            is_read && matches!(self.values.get(*name), Some(Value::Fallback))
        };
        let in_order = subgraph.in_order(&self.graph.node);
        let computed = in_order.iter().flat_map(|node| &node.output);
        let results: Vec<&str> = computed.map(String::as_str).filter(is_result).collect();
        let mut read: HashSet<&str> = HashSet::new();
        let reads = in_order.iter().flat_map(|node| &node.input);
        let constants = reads
            .map(String::as_str)
            .filter(|name| read.insert(name))
            .filter_map(|name| self.initializers.get(name));
        let piece = GraphProto {
            initializer: constants.map(|tensor| (*tensor).clone()).collect(),
            node: in_order.iter().map(|node| (*node).clone()).collect(),
            input: subgraph.inputs().iter().map(|(name, _)| input_info(name)).collect(),
            output: results.iter().map(|name| output_info(name)).collect(),
            ..GraphProto::default()
        };
        let piece = ModelProto {
            graph: Some(piece),
            ir_version: self.model.ir_version,
            opset_import: self.model.opset_import.clone(),
            ..ModelProto::default()
        };
        let facts = subgraph
            .inputs()
            .iter()
            .map(|(name, real)| (name.as_str(), self.draft.reals[*real].fact()));
        let inputs: Vec<(&str, TypedFact)> = facts.collect();
        let loaded = TractSubgraph::load(&piece, &inputs, &results, &self.symbols, self.budget);
        let graph = loaded.map_err(|error| {
            let last = subgraph.nodes().last().copied().unwrap_or_default();
            self.fallback_node(last, Reason::TractRejects(error.root_cause().to_string()))
        })?;
        let names: Vec<String> = results.iter().map(|name| name.to_string()).collect();
        let mut outputs = Vec::new();
        for (index, (name, tensor)) in names.into_iter().zip(graph.outputs()).enumerate() {
            let real = self.draft.add_outer(tensor.clone());
            let value = match graph.constant_integers(index) {
                Some(shape) => Value::Constant(Rc::new(shape)),
                None if tensor.kind == f32::datum_type() => Value::Float(real),
                None => Value::Other(real),
            };
            self.values.insert(name.clone(), value);
            self.reals.insert(name, real);
            outputs.push(real);
        }
        self.draft.parts.push(Part::Fallback {
            graph,
            inputs: subgraph.inputs().iter().map(|(_, real)| *real).collect(),
            outputs,
        });
        Ok(())
    }

    /// Makes the graph output `name` one of the draft's outputs.
    pub fn output(&mut self, name: &str) -> Result<(), FallbackNode> {
        let unusable = |reason: Reason| FallbackNode {
            op: "output".into(),
            node: name.into(),
            reason,
        };
        if let Some(Value::Integers { .. }) = self.values.get(name) {
            self.supply(name).map_err(unusable)?;
            self.values.insert(name.into(), Value::Fallback);
        }
        let falls_back = |importer: &Self| matches!(importer.values.get(name), Some(Value::Fallback));
        let mut real = None;
        if !falls_back(self) {
            real = self.real(name).map_err(unusable)?;
        }
        if falls_back(self) {
            self.close_subgraph()?;
            real = self.reals.get(name).copied();
        }
        let real = real.ok_or_else(|| unusable(Reason::InputNotComputed(name.into())))?;
        self.draft.outputs.push(real);
        Ok(())
    }
}
