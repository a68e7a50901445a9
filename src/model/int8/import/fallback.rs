//! Nodes that fall back to f32.
//!
//! They are collected in a [`FallbackSubgraph`] until a QuantizeLinear reads one of their results. Then the subgraph becomes one
//! step that tract runs. So neighbouring nodes stay together, and everything between two subgraphs is in integers.

use std::collections::HashSet;

use tract_onnx::pb::{GraphProto, ModelProto, ValueInfoProto};

use super::super::float_graph::FloatGraph;
use super::super::onnx::float_info;
use super::super::operators::kernels::Microkernels;
use super::super::reason::{FallbackNode, Reason};
use super::super::step::{Real, Source, Step};
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

    /// Makes `name` readable for the subgraph.
    fn supply(&mut self, name: &str) -> Result<(), Reason> {
        let known = self.subgraph.inputs.iter().any(|(input, _)| input == name);
        if known || self.initializers.contains_key(name) {
            return Ok(());
        }
        match self.values.get(name) {
            None => Err(Reason::InputNotComputed(name.to_string())),
            Some(Value::Fallback) => Ok(()),
            Some(Value::Constant(_) | Value::Quantized(_)) => self.copy_constant(name),
            Some(_) => match self.real(name)? {
                Some(source) => {
                    self.subgraph.inputs.push((name.to_string(), source));
                    Ok(())
                }
                None => Ok(()),
            },
        }
    }

    /// Copies the nodes that make up a constant into the subgraph.
    fn copy_constant(&mut self, name: &str) -> Result<(), Reason> {
        let index = *self
            .producers
            .get(name)
            .ok_or_else(|| Reason::ConstantWithoutSource(name.to_string()))?;
        for input in self.graph.node[index].input.iter().filter(|input| !input.is_empty()) {
            self.supply(input)?;
        }
        if !self.subgraph.nodes.contains(&index) {
            self.subgraph.nodes.push(index);
        }
        Ok(())
    }

    /// The place of the values of `name` as real numbers. Adds a step that computes them if necessary. `None` if the nodes of
    /// `name` had to fall back as well.
    fn real(&mut self, name: &str) -> Result<Option<Source>, Reason> {
        if let Some(source) = self.reals.get(name) {
            return Ok(Some(*source));
        }
        let source = match self.values.get(name).cloned() {
            Some(Value::Float(source)) => source,
            Some(Value::Real(input)) => {
                let out = self.add_real(name, self.activation(input).dims.clone());
                self.draft.steps.push(Step::Dequantize { input, out });
                Source::Real(out)
            }
            Some(Value::Pending(pending)) => {
                let nodes = pending.nodes.clone();
                match self.finish_real(*pending, name) {
                    Ok(out) => Source::Real(out),
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
        self.reals.insert(name.to_string(), source);
        Ok(Some(source))
    }

    /// A new tensor of real numbers for `name`.
    pub fn add_real(&mut self, name: &str, dims: Vec<usize>) -> Real {
        match self.outputs.get(name) {
            Some(output) => {
                self.draft.reals[*output] = dims;
                *output
            }
            None => {
                self.draft.reals.push(dims);
                self.draft.reals.len() - 1
            }
        }
    }

    /// Turns the subgraph into a step, and starts an empty one.
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
        read_outside.extend(self.outputs.keys().map(String::as_str));
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
        let dims: Vec<&[usize]> = inputs.iter().map(|(_, source)| self.dims_of(*source)).collect();
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
        let graph = FloatGraph::load(&piece, &named, &results).map_err(|error| {
            let last = nodes.last().copied().unwrap_or_default();
            self.fallback_node(last, Reason::TractRejects(format!("{error:#}")))
        })?;
        let names: Vec<String> = results.iter().map(|name| name.to_string()).collect();
        let shapes = graph.outputs().to_vec();
        let outputs: Vec<Real> = names
            .iter()
            .zip(shapes)
            .map(|(name, dims)| self.add_real(name, dims))
            .collect();
        for (name, real) in names.into_iter().zip(&outputs) {
            self.values.insert(name.clone(), Value::Float(Source::Real(*real)));
            self.reals.insert(name, Source::Real(*real));
        }
        self.draft.steps.push(Step::Float {
            graph,
            inputs: inputs.into_iter().map(|(_, source)| source).collect(),
            outputs,
        });
        Ok(())
    }

    /// Makes the step that computes the graph output `name` write to the output's place.
    pub fn output(&mut self, name: &str) -> Result<(), FallbackNode> {
        let unusable = |reason: Reason| FallbackNode {
            op: "output".into(),
            node: name.into(),
            reason,
        };
        let falls_back = |importer: &Self| matches!(importer.values.get(name), Some(Value::Fallback));
        if !falls_back(self) {
            self.real(name).map_err(unusable)?;
        }
        if falls_back(self) {
            self.close_subgraph()?;
        }
        let place = self.outputs.get(name).map(|output| Source::Real(*output));
        if self.reals.get(name).copied() != place {
            return Err(unusable(Reason::OutputIsAlias));
        }
        Ok(())
    }
}
