//! What every graph must satisfy before it is imported, here or by tract.
//!
//! A file may be damaged or made to do harm. So names, constants, attributes and sizes are checked first. The limits are far above
//! what a network for a small board needs.

use std::collections::HashSet;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::DimLike;

use super::onnx::{Attributes, Constant, Values, elements, static_dims};

/// The most values of one tensor.
pub const MAX_ELEMENTS: usize = 1 << 24;
/// The most dimensions of a tensor.
pub const MAX_RANK: usize = 8;
/// The most nodes of a graph.
const MAX_NODES: usize = 1 << 14;
/// The largest kernel, stride, dilation or pad, and the largest number of groups.
pub const MAX_WINDOW: i64 = 1 << 15;
/// The most multiply-accumulates or comparisons of one node.
pub const MAX_WORK: u64 = 1 << 33;
/// The most values of all tensors that tract computes.
const MAX_TOTAL_ELEMENTS: usize = 1 << 26;

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

fn invalid(place: impl Into<String>, problem: impl Into<String>) -> InvalidGraph {
    InvalidGraph {
        place: place.into(),
        problem: problem.into(),
    }
}

fn invalid_node(node: &NodeProto, problem: impl Into<String>) -> InvalidGraph {
    invalid(title(node), problem)
}

/// The operator and the name of a node, or the name of its first output.
pub fn title(node: &NodeProto) -> String {
    let name = match node.name.is_empty() {
        true => node.output.first().map_or("without a name", String::as_str),
        false => &node.name,
    };
    format!("{} {name}", node.op_type)
}

/// The number of values of a tensor, if it is within the limits.
pub fn size(dims: &[usize]) -> Option<usize> {
    let size = elements(dims)?;
    (dims.len() <= MAX_RANK && (1..=MAX_ELEMENTS).contains(&size)).then_some(size)
}

/// Checks a file before anything is computed from it.
pub fn model(model: &ModelProto) -> Result<(), InvalidGraph> {
    let graph = model
        .graph
        .as_ref()
        .ok_or_else(|| invalid("the file", "has no graph"))?;
    if graph.node.len() > MAX_NODES {
        return Err(invalid("the graph", format!("has more than {MAX_NODES} nodes")));
    }
    let known = names(graph, &HashSet::new())?;
    for output in &graph.output {
        if !known.contains(output.name.as_str()) {
            return Err(invalid(format!("output {}", output.name), "no node computes it"));
        }
    }
    let constant = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    for input in graph.input.iter().filter(|input| !constant(&input.name)) {
        if let Some(dims) = static_dims(input)
            && size(&dims).is_none()
        {
            return Err(invalid(
                format!("input {}", input.name),
                format!("{dims:?} is too large"),
            ));
        }
    }
    for tensor in &graph.initializer {
        check_tensor(tensor, &format!("constant {}", tensor.name))?;
    }
    for node in &graph.node {
        check_node(node, graph)?;
    }
    Ok(())
}

/// Checks the dimensions that a caller expects of an input against those in the file.
pub fn input(model: &ModelProto, name: &str, expected: &[usize]) -> Result<(), InvalidGraph> {
    let place = format!("input {name}");
    let inputs = model.graph.iter().flat_map(|graph| &graph.input);
    let Some(declared) = inputs.into_iter().find(|input| input.name == name) else {
        return Err(invalid(place, "the file has no such input"));
    };
    match static_dims(declared) {
        Some(dims) if dims != expected => Err(invalid(place, format!("is {dims:?} in the file and not {expected:?}"))),
        _ => Ok(()),
    }
}

/// All names of a graph. Every name must be given once, and before it is read.
fn names<'a>(graph: &'a GraphProto, outer: &HashSet<&'a str>) -> Result<HashSet<&'a str>, InvalidGraph> {
    let mut known = outer.clone();
    known.extend(graph.initializer.iter().map(|tensor| tensor.name.as_str()));
    known.extend(graph.input.iter().map(|input| input.name.as_str()));
    let mut given: HashSet<&str> = known.clone();
    for node in &graph.node {
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            if !known.contains(name.as_str()) {
                return Err(invalid_node(
                    node,
                    format!("its input {name} is not computed before it"),
                ));
            }
        }
        for body in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
            if body.node.len() > MAX_NODES {
                return Err(invalid_node(node, format!("has more than {MAX_NODES} nodes")));
            }
            names(body, &known)?;
            for node in &body.node {
                check_node(node, body)?;
            }
        }
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if !given.insert(name) {
                return Err(invalid_node(node, format!("{name} is computed twice")));
            }
            known.insert(name);
        }
    }
    Ok(known)
}

/// A tensor must have as many values as its dimensions say.
fn check_tensor(tensor: &TensorProto, place: &str) -> Result<(), InvalidGraph> {
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
    let count = dims
        .filter(|dims| dims.len() <= MAX_RANK)
        .and_then(|dims| elements(&dims))
        .filter(|count| *count <= 4 * MAX_ELEMENTS)
        .ok_or_else(|| invalid(place, format!("has the dimensions {:?}", tensor.dims)))?;
    // An empty list may stand for an input that is not given. Weights may not be empty.
    if count == 0 && tensor.dims.len() > 1 {
        return Err(invalid(place, format!("has the dimensions {:?}", tensor.dims)));
    }
    let bytes = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float | DataType::Int32 | DataType::Uint32) => 4,
        Ok(DataType::Int64 | DataType::Double | DataType::Uint64 | DataType::Complex64) => 8,
        Ok(DataType::Int8 | DataType::Uint8 | DataType::Bool) => 1,
        Ok(DataType::Int16 | DataType::Uint16 | DataType::Float16 | DataType::Bfloat16) => 2,
        Ok(DataType::String) if tensor.string_data.len() == count => return Ok(()),
        _ => {
            return Err(invalid(
                place,
                format!("has the unsupported data type {}", tensor.data_type),
            ));
        }
    };
    let values = match tensor.raw_data.len() {
        0 => [
            tensor.float_data.len(),
            tensor.int32_data.len(),
            tensor.int64_data.len(),
            tensor.double_data.len(),
            tensor.uint64_data.len(),
        ]
        .into_iter()
        .max()
        .unwrap_or(0),
        raw if raw % bytes == 0 => raw / bytes,
        _ => return Err(invalid(place, "ends within a value")),
    };
    if values != count {
        let problem = format!("has {values} values, but the dimensions {:?}", tensor.dims);
        return Err(invalid(place, problem));
    }
    Ok(())
}

fn check_node(node: &NodeProto, graph: &GraphProto) -> Result<(), InvalidGraph> {
    for attribute in &node.attribute {
        for tensor in attribute.t.iter().chain(&attribute.tensors) {
            check_tensor(tensor, &format!("{} {}", node.op_type, attribute.name))
                .map_err(|error| invalid_node(node, error.to_string()))?;
        }
    }
    let least = |name: &str| match name {
        "kernel_shape" | "strides" | "dilations" | "group" => 1,
        _ => 0,
    };
    for name in [
        "kernel_shape",
        "strides",
        "dilations",
        "pads",
        "output_padding",
        "output_shape",
    ] {
        let values = node.integers(name).unwrap_or_default();
        if values.len() > 2 * MAX_RANK || values.iter().any(|v| !(least(name)..=MAX_WINDOW).contains(v)) {
            // Reflecting and cutting Pad nodes aside, no operator has negative pads.
            return Err(invalid_node(node, format!("has {name} {values:?}")));
        }
    }
    if let Some(perm) = node.integers("perm") {
        let mut axes = perm.to_vec();
        axes.sort_unstable();
        if !axes.into_iter().eq(0..perm.len() as i64) {
            return Err(invalid_node(
                node,
                format!("has perm {perm:?}, which is not a permutation"),
            ));
        }
    }
    let group = node.integer("group", 1);
    if !(1..=MAX_WINDOW).contains(&group) {
        return Err(invalid_node(node, format!("has {group} groups")));
    }
    match least_inputs(&node.op_type) {
        Some(least) if node.input.iter().take_while(|name| !name.is_empty()).count() < least => {
            Err(invalid_node(node, format!("has fewer than {least} inputs")))
        }
        _ => check_size_of_result(node, graph),
    }
}

/// How many inputs an operator needs at least, for operators with which tract trusts the file.
fn least_inputs(op: &str) -> Option<usize> {
    Some(match op {
        "Constant" | "RandomNormal" | "RandomUniform" | "If" | "Loop" => return None,
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "And" | "Or" | "Xor" | "Equal" | "Less" | "Greater"
        | "LessOrEqual" | "GreaterOrEqual" | "MatMul" | "MatMulInteger" | "Conv" | "ConvInteger" | "ConvTranspose"
        | "Gemm" | "PRelu" | "BitShift" | "Gather" | "GatherElements" | "GatherND" | "Expand" | "QuantizeLinear"
        | "DequantizeLinear" | "Tile" => 2,
        "Where" | "ScatterElements" | "ScatterND" | "OneHot" | "Range" => 3,
        _ => 1,
    })
}

/// Some operators make a tensor of any size from a few numbers. tract would compute it before anything could check its size.
fn check_size_of_result(node: &NodeProto, graph: &GraphProto) -> Result<(), InvalidGraph> {
    let constant = |index: usize| constant_input(node, graph, index);
    let integers = |index: usize| constant(index)?.integers().map(<[i64]>::to_vec);
    let too_large = || invalid_node(node, "its result is too large");
    let dims = match node.op_type.as_str() {
        "ConstantOfShape" => integers(0),
        "Expand" => integers(1),
        "Tile" => integers(1),
        "Resize" | "Upsample" => {
            // The sizes, or how many times as large the result is.
            let sizes = integers(3);
            let scales = constant(2)
                .or_else(|| constant(1))
                .and_then(|c| c.floats().map(<[f32]>::to_vec));
            if let Some(scales) = scales.filter(|_| sizes.is_none()) {
                let product: f32 = scales.iter().map(|scale| scale.max(1.0)).product();
                return match product.is_finite() && product <= 4096.0 {
                    true => Ok(()),
                    false => Err(too_large()),
                };
            }
            sizes
        }
        "Pad" => integers(1).map(|pads| pads.iter().map(|pad| pad.saturating_abs().saturating_add(1)).collect()),
        "OneHot" => integers(1),
        "EyeLike" => None,
        "Range" => {
            let bound = |index: usize| -> Option<f64> {
                let constant = constant(index)?;
                match &constant.values {
                    Values::F32(v) => v.first().map(|v| f64::from(*v)),
                    Values::I64(v) => v.first().map(|v| *v as f64),
                    Values::I32(v) => v.first().map(|v| f64::from(*v)),
                    _ => None,
                }
            };
            if let (Some(start), Some(end), Some(step)) = (bound(0), bound(1), bound(2)) {
                let count = (end - start) / step;
                if count.is_nan() || count > MAX_ELEMENTS as f64 {
                    return Err(too_large());
                }
            }
            None
        }
        _ => None,
    };
    let Some(dims) = dims else { return Ok(()) };
    let product = dims
        .iter()
        .map(|d| usize::try_from(*d).unwrap_or(1).max(1))
        .try_fold(1usize, usize::checked_mul);
    match product {
        Some(product) if product <= MAX_ELEMENTS && dims.len() <= 2 * MAX_RANK => Ok(()),
        _ => Err(too_large()),
    }
}

/// An input that is a constant of the graph.
fn constant_input(node: &NodeProto, graph: &GraphProto, index: usize) -> Option<Constant> {
    let name = node.input.get(index).filter(|name| !name.is_empty())?;
    if let Some(tensor) = graph.initializer.iter().find(|tensor| tensor.name == *name) {
        return Constant::of(tensor);
    }
    let source = graph.node.iter().find(|node| node.output.contains(name))?;
    let tensor = source.attribute.iter().find_map(|attribute| attribute.t.as_ref());
    tensor.filter(|_| source.op_type == "Constant").and_then(Constant::of)
}

/// Checks the size of everything that tract would compute.
pub fn sizes(model: &TypedModel) -> Result<(), InvalidGraph> {
    let mut total = 0usize;
    for node in model.nodes() {
        for output in &node.outputs {
            let count = output
                .fact
                .shape
                .iter()
                .try_fold(1usize, |size, dim| size.checked_mul(dim.to_usize().unwrap_or(1)))
                .filter(|count| *count <= 4 * MAX_ELEMENTS);
            total = total.saturating_add(count.unwrap_or(usize::MAX));
            if total > MAX_TOTAL_ELEMENTS {
                let shape = format!("{:?}", output.fact.shape);
                return Err(invalid(
                    format!("{} {}", node.op.name(), node.name),
                    format!("its result of {shape} is too large"),
                ));
            }
        }
    }
    Ok(())
}
