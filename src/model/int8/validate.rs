//! What every graph must satisfy before it is imported, here or by tract. All checks take time in proportion to the file.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

use super::accepted::least_inputs;
use super::limits::{MAX_ELEMENTS, MAX_LINKS, MAX_NODES, MAX_RANK, MAX_WINDOW, elements, size};
use super::onnx::{Attributes, input_type, static_dims};

/// Why a graph cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", printable(place), printable(problem))]
pub struct InvalidGraph {
    /// A node, with its operator, or a tensor.
    place: String,
    problem: String,
}

/// The most characters of a name or a problem in a message.
const MAX_TEXT: usize = 200;

/// The most bytes that tract compares to find equal constants.
const MAX_COMPARED_BYTES: u64 = 1 << 33;

/// Names come from the file: a message shows them on one line, without control and direction characters, and not at any length.
fn printable(text: &str) -> String {
    let direction = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == MAX_TEXT {
            shown.push('…');
            break;
        }
        match c.is_control() || direction(c) {
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
    }
    shown
}

impl InvalidGraph {
    pub fn new(place: impl Into<String>, problem: impl Into<String>) -> InvalidGraph {
        InvalidGraph {
            place: place.into(),
            problem: problem.into(),
        }
    }

    pub fn at(node: &NodeProto, problem: impl Into<String>) -> InvalidGraph {
        InvalidGraph::new(title(node), problem)
    }
}

/// The operator and the name of a node, or the name of its first output.
fn title(node: &NodeProto) -> String {
    format!("{} {}", node.op_type, node_name(node))
}

/// The name of a node, or the name of its first output.
pub fn node_name(node: &NodeProto) -> &str {
    match node.name.is_empty() {
        true => match node.output.iter().find(|name| !name.is_empty()) {
            Some(output) => output,
            None => "without a name",
        },
        false => &node.name,
    }
}

/// Checks a file before anything is computed from it.
pub fn model(model: &ModelProto) -> Result<(), InvalidGraph> {
    let graph = graph(model)?;
    let counts = [
        (graph.node.len(), "nodes"),
        (graph.input.len(), "inputs"),
        (graph.output.len(), "outputs"),
        (graph.initializer.len(), "constants"),
    ];
    for (count, what) in counts {
        if count > MAX_NODES {
            let problem = format!("has {count} {what}, more than {MAX_NODES}");
            return Err(InvalidGraph::new("the graph", problem));
        }
    }
    let links: usize = graph.node.iter().map(|node| node.input.len() + node.output.len()).sum();
    if links > MAX_LINKS {
        let problem = format!("its nodes have {links} inputs and outputs, more than {MAX_LINKS}");
        return Err(InvalidGraph::new("the graph", problem));
    }
    names(graph)?;
    for tensor in &graph.initializer {
        check_tensor(tensor, &format!("constant {}", tensor.name))?;
    }
    for node in &graph.node {
        check_node(node)?;
    }
    check_comparisons(graph)
}

pub fn graph(model: &ModelProto) -> Result<&GraphProto, InvalidGraph> {
    let graph = model.graph.as_ref();
    graph.ok_or_else(|| InvalidGraph::new("the file", "has no graph"))
}

/// The inputs of a graph, without those that stand for constants.
pub fn inputs(graph: &GraphProto) -> impl Iterator<Item = &ValueInfoProto> {
    let constants: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    graph
        .input
        .iter()
        .filter(move |input| !constants.contains(input.name.as_str()))
}

/// The dimensions of an input, which must be fixed and within the limits.
pub fn input_dims(input: &ValueInfoProto) -> Result<Vec<usize>, InvalidGraph> {
    let invalid = |problem: String| InvalidGraph::new(format!("input {}", input.name), problem);
    let dims = static_dims(input)
        .ok_or_else(|| invalid("has no fixed shape: export the graph with fixed dimensions".into()))?;
    if input_type(input) != Some(DataType::Float) {
        return Err(invalid("is not f32".into()));
    }
    if dims.contains(&0) {
        return Err(invalid(format!("{dims:?} holds no values")));
    }
    match size(&dims) {
        Some(_) => Ok(dims),
        None => Err(invalid(format!("{dims:?} is too large"))),
    }
}

/// Checks the dimensions that a caller expects of the inputs against those in the file.
pub fn expected_inputs(graph: &GraphProto, expected: &[(&str, &[usize])]) -> Result<(), InvalidGraph> {
    let declared: HashMap<&str, &ValueInfoProto> = inputs(graph).map(|input| (input.name.as_str(), input)).collect();
    let mut total = 0usize;
    for (name, dims) in expected {
        let invalid = |problem: String| InvalidGraph::new(format!("input {name}"), problem);
        let input = declared
            .get(name)
            .ok_or_else(|| invalid("the file has no such input".into()))?;
        let found = input_dims(input)?;
        if found != *dims {
            return Err(invalid(format!("is {found:?} in the file and not {dims:?}")));
        }
        total = total.saturating_add(size(dims).unwrap_or_default());
        if total > MAX_ELEMENTS {
            return Err(invalid("all inputs together are too large".into()));
        }
    }
    Ok(())
}

/// Every name must be given once, and before it is read.
fn names(graph: &GraphProto) -> Result<(), InvalidGraph> {
    let mut known: HashSet<&str> = HashSet::new();
    for tensor in &graph.initializer {
        if !known.insert(&tensor.name) {
            return Err(InvalidGraph::new(format!("constant {}", tensor.name), "is given twice"));
        }
    }
    let mut inputs: HashSet<&str> = HashSet::new();
    for input in &graph.input {
        if !inputs.insert(&input.name) {
            return Err(InvalidGraph::new(format!("input {}", input.name), "is given twice"));
        }
    }
    known.extend(inputs);
    for node in &graph.node {
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            if !known.contains(name.as_str()) {
                return Err(InvalidGraph::at(
                    node,
                    format!("its input {name} is not computed before it"),
                ));
            }
        }
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if !known.insert(name) {
                return Err(InvalidGraph::at(node, format!("{name} is computed twice")));
            }
        }
    }
    for output in &graph.output {
        if !known.contains(output.name.as_str()) {
            return Err(InvalidGraph::new(
                format!("output {}", output.name),
                "no node computes it",
            ));
        }
    }
    Ok(())
}

/// A tensor must have as many values as its dimensions need.
fn check_tensor(tensor: &TensorProto, place: &str) -> Result<(), InvalidGraph> {
    let invalid = |problem: String| Err(InvalidGraph::new(place, problem));
    if !tensor.external_data.is_empty() || tensor.data_location == Some(DataLocation::External as i32) {
        return invalid("its values are in another file: save the graph as one file".into());
    }
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
    let count = dims
        .filter(|dims| dims.len() <= MAX_RANK)
        .and_then(|dims| elements(&dims))
        .filter(|count| *count <= MAX_ELEMENTS);
    let Some(count) = count else {
        return invalid(format!("has the dimensions {:?}", tensor.dims));
    };
    // An empty list may stand for an input that is not given. Weights may not be empty.
    if count == 0 && tensor.dims.len() > 1 {
        return invalid(format!("has the dimensions {:?}", tensor.dims));
    }
    // Bytes of one value, and how many values there are outside of `raw_data`.
    let (bytes, listed) = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float) => (4, tensor.float_data.len()),
        Ok(DataType::Double) => (8, tensor.double_data.len()),
        Ok(DataType::Int64) => (8, tensor.int64_data.len()),
        Ok(DataType::Uint64) => (8, tensor.uint64_data.len()),
        Ok(DataType::Uint32) => (4, tensor.uint64_data.len()),
        Ok(DataType::Int32) => (4, tensor.int32_data.len()),
        Ok(DataType::Int16 | DataType::Uint16 | DataType::Float16) => (2, tensor.int32_data.len()),
        Ok(DataType::Int8 | DataType::Uint8 | DataType::Bool) => (1, tensor.int32_data.len()),
        _ => return invalid(format!("has the unsupported data type {}", tensor.data_type)),
    };
    let values = match tensor.raw_data.len() {
        0 => listed,
        raw if raw % bytes == 0 => raw / bytes,
        _ => return invalid("ends within a value".into()),
    };
    match values == count {
        true => Ok(()),
        false => invalid(format!("has {values} values, but the dimensions {:?}", tensor.dims)),
    }
}

fn check_node(node: &NodeProto) -> Result<(), InvalidGraph> {
    if !matches!(node.domain.as_str(), "" | "ai.onnx" | "com.microsoft") {
        return Err(InvalidGraph::at(node, format!("is of the domain {}", node.domain)));
    }
    let Some(least) = least_inputs(&node.op_type) else {
        return Err(InvalidGraph::at(node, "affectd does not accept this operator"));
    };
    if node.input.iter().take_while(|name| !name.is_empty()).count() < least {
        return Err(InvalidGraph::at(node, format!("has fewer than {least} inputs")));
    }
    let mut names = HashSet::new();
    for attribute in &node.attribute {
        if !names.insert(&attribute.name) {
            return Err(InvalidGraph::at(node, format!("has {} twice", attribute.name)));
        }
        check_attribute(node, attribute)?;
    }
    if let Some(perm) = node.integers("perm") {
        let mut axes = perm.to_vec();
        axes.sort_unstable();
        if !axes.into_iter().eq(0..perm.len() as i64) {
            return Err(InvalidGraph::at(
                node,
                format!("has perm {perm:?}, which is not a permutation"),
            ));
        }
    }
    Ok(())
}

fn check_attribute(node: &NodeProto, attribute: &AttributeProto) -> Result<(), InvalidGraph> {
    let invalid = |problem: String| Err(InvalidGraph::at(node, problem));
    for tensor in attribute.t.iter().chain(&attribute.tensors) {
        check_tensor(tensor, &attribute.name).or_else(|error| invalid(error.to_string()))?;
    }
    if attribute.g.is_some() || !attribute.graphs.is_empty() {
        return invalid("has a nested graph".into());
    }
    let (name, ranks) = (attribute.name.as_str(), MAX_RANK as i64);
    let limits = match name {
        "kernel_shape" | "strides" | "dilations" | "group" | "num_groups" | "blocksize" | "size" => 1..=MAX_WINDOW,
        "pads" if node.op_type == "Pad" => -MAX_WINDOW..=MAX_WINDOW,
        "pads" | "output_padding" | "output_shape" => 0..=MAX_WINDOW,
        "axis" | "axes" => -ranks..=ranks,
        "ceil_mode" if node.op_type == "Conv" && attribute.i != 0 => {
            return invalid("has ceil_mode, which only pools have".into());
        }
        _ => return Ok(()),
    };
    match name {
        "group" | "num_groups" | "blocksize" | "size" | "axis" if !limits.contains(&attribute.i) => {
            invalid(format!("has {name} {}", attribute.i))
        }
        _ if attribute.ints.len() > 2 * MAX_RANK || attribute.ints.iter().any(|value| !limits.contains(value)) => {
            invalid(format!("has {name} {:?}", attribute.ints))
        }
        _ => Ok(()),
    }
}

/// tract compares every constant with all others of its shape before it adds one. That must not take long.
fn check_comparisons(graph: &GraphProto) -> Result<(), InvalidGraph> {
    let of_nodes = graph.node.iter().flat_map(|node| &node.attribute);
    let tensors = graph
        .initializer
        .iter()
        .chain(of_nodes.filter_map(|attribute| attribute.t.as_ref()));
    let mut counts: HashMap<(i32, &[i64]), u64> = HashMap::new();
    let mut compared = 0u64;
    for tensor in tensors {
        let others = counts.entry((tensor.data_type, &tensor.dims)).or_default();
        let bytes = tensor.dims.iter().product::<i64>().unsigned_abs() * 8;
        compared = compared.saturating_add(*others * bytes);
        *others += 1;
    }
    match compared <= MAX_COMPARED_BYTES {
        true => Ok(()),
        false => Err(InvalidGraph::new("the graph", "has too many constants of one shape")),
    }
}
