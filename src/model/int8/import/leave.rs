//! Nodes that are left to f32.
//!
//! They gather in an [`Island`], until something quantizes a result of theirs: then the island becomes one step, a piece of
//! the graph that tract runs. So neighbours stay together, and between two islands everything is in integers.

use std::collections::HashSet;

use tract_onnx::pb::{GraphProto, ModelProto, ValueInfoProto};

use super::super::FallbackNode;
use super::super::float::FloatGraph;
use super::super::kernels::Family;
use super::super::onnx::float_info;
use super::super::program::{Real, Source, Step};
use super::{Importer, Reason, Value};

/// Nodes that are left, and what they read.
#[derive(Default)]
pub struct Island {
    nodes: Vec<usize>,
    /// Names and where their values are.
    inputs: Vec<(String, Source)>,
}

impl<F: Family> Importer<'_, F> {
    /// Leaves a node to f32.
    pub(super) fn leave(&mut self, index: usize, reason: Reason) -> Result<(), FallbackNode> {
        let node = &self.graph.node[index];
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            self.supply(name).map_err(|why| self.about(index, why))?;
        }
        if !self.island.nodes.contains(&index) {
            self.island.nodes.push(index);
        }
        for name in &node.output {
            self.values.insert(name.clone(), Value::Left);
        }
        if node.op_type != "Constant" && self.left.insert(index) {
            let fallback_nodes = self.about(index, reason);
            self.draft.fallback_nodes.push(fallback_nodes);
        }
        Ok(())
    }

    fn about(&self, index: usize, reason: Reason) -> FallbackNode {
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

    /// Sees to it that the island can read `name`.
    fn supply(&mut self, name: &str) -> Result<(), Reason> {
        let known = self.island.inputs.iter().any(|(input, _)| input == name);
        if known || self.initializers.contains_key(name) {
            return Ok(());
        }
        match self.values.get(name) {
            None => Err(format!("its input {name} is not computed before it")),
            Some(Value::Left) => Ok(()),
            Some(Value::Constant(_) | Value::Quantized(_)) => self.copy_constant(name),
            Some(_) => match self.real(name)? {
                Some(source) => {
                    self.island.inputs.push((name.to_string(), source));
                    Ok(())
                }
                None => Ok(()),
            },
        }
    }

    /// Takes the nodes that make up a constant into the island as well.
    fn copy_constant(&mut self, name: &str) -> Result<(), Reason> {
        let index = *self.producers.get(name).ok_or("reads a constant from nowhere")?;
        for input in self.graph.node[index].input.iter().filter(|input| !input.is_empty()) {
            self.supply(input)?;
        }
        if !self.island.nodes.contains(&index) {
            self.island.nodes.push(index);
        }
        Ok(())
    }

    /// Where `name` lies as real numbers, brought there if need be; `None` if its nodes had to be left, too.
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
                            self.leave(index, reason.clone()).map_err(|why| why.reason)?;
                        }
                        return Ok(None);
                    }
                }
            }
            _ => return Err(format!("its input {name} is integers, which f32 does not read")),
        };
        self.reals.insert(name.to_string(), source);
        Ok(Some(source))
    }

    /// A new tensor of real numbers for `name`.
    pub(super) fn add_real(&mut self, name: &str, dims: Vec<usize>) -> Real {
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

    /// Turns what is left so far into a step.
    pub(super) fn close(&mut self) -> Result<(), FallbackNode> {
        let Island { nodes, inputs } = std::mem::take(&mut self.island);
        let inside: HashSet<usize> = nodes.iter().copied().collect();
        let others = self
            .graph
            .node
            .iter()
            .enumerate()
            .filter(|(index, _)| !inside.contains(index));
        let mut wanted: HashSet<&str> = others
            .flat_map(|(_, node)| node.input.iter().map(String::as_str))
            .collect();
        wanted.extend(self.outputs.keys().map(String::as_str));
        let results = nodes.iter().flat_map(|index| &self.graph.node[*index].output);
        let results: Vec<&str> = results
            .map(String::as_str)
            .filter(|name| wanted.contains(name) && matches!(self.values.get(*name), Some(Value::Left)))
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
            self.about(last, format!("tract cannot load it on its own ({error:#})"))
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

    /// Sees to it that the graph output `name` is computed where outputs are.
    pub(super) fn output(&mut self, name: &str) -> Result<(), FallbackNode> {
        let whole = |reason: String| FallbackNode {
            op: "output".into(),
            node: name.into(),
            reason,
        };
        let left = |importer: &Self| matches!(importer.values.get(name), Some(Value::Left));
        if !left(self) {
            self.real(name).map_err(whole)?;
        }
        if left(self) {
            self.close()?;
        }
        let place = self.outputs.get(name).map(|output| Source::Real(*output));
        if self.reals.get(name).copied() != place {
            return Err(whole("is an input or another output over again".into()));
        }
        Ok(())
    }
}
