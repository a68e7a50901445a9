//! Nodes that fall back to f32.
//!
//! They are collected in a [`FallbackSubgraph`] until a QuantizeLinear reads one of their results. Then the subgraph becomes one
//! part of the draft. So neighbouring nodes stay together, and everything between two subgraphs is in integers.

use std::collections::HashSet;

use tract_onnx::pb::{GraphProto, ModelProto, ValueInfoProto};

use super::super::onnx::float_info;
use super::super::operators::kernels::Microkernels;
use super::super::reason::{FallbackNode, Reason};
use super::super::step::{Part, Real, Step};
use super::super::tract_graph::TractSubgraph;
use super::importer::Importer;
use super::value::{FallbackSubgraph, Value};

impl<M: Microkernels> Importer<'_, M> {
    /// Adds a node to the fallback subgraph.
    pub fn fall_back(&mut self, index: usize, reason: Reason) -> Result<(), FallbackNode> {
        let node = &self.graph.node[index];
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            self.supply(name).map_err(|reason| self.fallback_node(index, reason))?;
        }
        if !self.subgraph.nodes.contains(&index) {
            self.subgraph.nodes.push(index);
        }
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
        let output = node.output.first().cloned().unwrap_or_default();
        FallbackNode {
            op: node.op_type.clone(),
            node: if node.name.is_empty() {
                output
            } else {
                node.name.clone()
            },
            reason,
        }
    }

    /// Makes `name` readable for the subgraph. The nodes that make up a constant are copied into it.
    fn supply(&mut self, name: &str) -> Result<(), Reason> {
        let mut names = vec![name.to_string()];
        while let Some(name) = names.pop() {
            let known = self.subgraph.inputs.iter().any(|(input, _)| *input == name);
            if known || self.initializers.contains_key(name.as_str()) {
                continue;
            }
            match self.values.get(&name) {
                None => return Err(Reason::InputNotComputed(name)),
                Some(Value::Fallback) => {}
                Some(Value::Constant(_) | Value::Quantized(_)) => {
                    let Some(index) = self.producers.get(name.as_str()) else {
                        return Err(Reason::ConstantWithoutSource(name));
                    };
                    if !self.subgraph.nodes.contains(index) {
                        self.subgraph.nodes.push(*index);
                        let inputs = self.graph.node[*index].input.iter();
                        names.extend(inputs.filter(|input| !input.is_empty()).cloned());
                    }
                }
                Some(_) => {
                    if let Some(real) = self.real(&name)? {
                        self.subgraph.inputs.push((name, real));
                    }
                }
            }
        }
        Ok(())
    }

    /// The values of `name` as real numbers. Adds a step that computes them if necessary. `None` if the nodes of `name` had to fall
    /// back as well.
    fn real(&mut self, name: &str) -> Result<Option<Real>, Reason> {
        if let Some(real) = self.reals.get(name) {
            return Ok(Some(*real));
        }
        let real = match self.values.get(name).cloned() {
            Some(Value::Float(real)) => real,
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
        let FallbackSubgraph { nodes, inputs } = std::mem::take(&mut self.subgraph);
        let inside: HashSet<usize> = nodes.iter().copied().collect();
        let others = self
            .graph
            .node
            .iter()
            .enumerate()
            .filter(|(index, _)| !inside.contains(index));
        let mut read_outside: HashSet<&str> = others
            .flat_map(|(_, node)| node.input.iter().map(String::as_str))
            .collect();
        read_outside.extend(self.outputs.iter().map(String::as_str));
        let results = nodes.iter().flat_map(|index| &self.graph.node[*index].output);
        let results: Vec<&str> = results
            .map(String::as_str)
            .filter(|name| read_outside.contains(name) && matches!(self.values.get(*name), Some(Value::Fallback)))
            .collect();
        let used = |name: &str| {
            nodes
                .iter()
                .any(|i| self.graph.node[*i].input.iter().any(|input| input == name))
        };
        let dims: Vec<&[usize]> = inputs.iter().map(|(_, real)| self.dims_of(*real)).collect();
        let named: Vec<(&str, &[usize])> = inputs
            .iter()
            .zip(&dims)
            .map(|((name, _), dims)| (&name[..], *dims))
            .collect();
        let piece = ModelProto {
            graph: Some(GraphProto {
                node: nodes.iter().map(|index| self.graph.node[*index].clone()).collect(),
                initializer: self
                    .graph
                    .initializer
                    .iter()
                    .filter(|t| used(&t.name))
                    .cloned()
                    .collect(),
                input: named.iter().map(|(name, dims)| float_info(name, dims)).collect(),
                output: results
                    .iter()
                    .map(|name| ValueInfoProto {
                        name: name.to_string(),
                        ..ValueInfoProto::default()
                    })
                    .collect(),
                ..GraphProto::default()
            }),
            ir_version: self.model.ir_version,
            opset_import: self.model.opset_import.clone(),
            ..ModelProto::default()
        };
        let graph = TractSubgraph::load(&piece, &named, &results, &self.symbols).map_err(|error| {
            let last = nodes.last().copied().unwrap_or_default();
            self.fallback_node(last, Reason::TractRejects(format!("{error:#}")))
        })?;
        let names: Vec<String> = results.iter().map(|name| name.to_string()).collect();
        let mut outputs = Vec::new();
        for (name, dims) in names.into_iter().zip(graph.outputs()) {
            let real = self.draft.add_real(dims.clone());
            self.values.insert(name.clone(), Value::Float(real));
            self.reals.insert(name, real);
            outputs.push(real);
        }
        self.draft.parts.push(Part::Fallback {
            graph,
            inputs: inputs.into_iter().map(|(_, real)| real).collect(),
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
