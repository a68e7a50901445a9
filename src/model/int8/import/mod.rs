//! From an ONNX graph in QDQ form to the steps of a program.
//!
//! The graph's nodes come in the order in which they can be computed. An operator's result stays [`Pending`] until the
//! QuantizeLinear after it says how it is to be kept; then it becomes a step, with the activation between fused in. A node
//! that cannot be taken is left to f32: see [`leave`].

mod finish;
mod folding;
mod leave;
mod matrices;
mod operators;
mod pairs;
mod range;
mod shapes;
mod windows;

use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

use super::FallbackNode;
use super::arithmetic::Quantization;
use super::kernels::Family;
use super::onnx::{Attributes, Constant, Values, static_dims};
use super::program::{Activation, Draft, Slot, Source, Step};
use leave::Island;
use operators::Pending;

/// What a name in the graph stands for.
#[derive(Debug, Clone)]
enum Value {
    /// Real numbers: a graph input, or what was computed in f32.
    Float(Source),
    /// What nodes compute that are left to f32 and not closed yet.
    Left,
    /// s8 values.
    Integers(Slot),
    /// What DequantizeLinear makes of s8 values.
    Real(Slot),
    Constant(Constant),
    /// What DequantizeLinear makes of constants.
    Quantized(QuantizedConstant),
    Pending(Box<Pending>),
}

/// Constant integers and their scales.
#[derive(Debug, Clone)]
struct QuantizedConstant {
    dims: Vec<usize>,
    /// Zero point taken off.
    integers: Vec<i32>,
    /// One, or one for each entry of `axis`.
    scales: Vec<f32>,
    axis: usize,
    /// What was taken off, if it is one for all.
    zero_point: i32,
}

type Reason = String;

pub fn compile<F: Family>(model: &ModelProto, inputs: &[&str], outputs: &[&str]) -> Result<Draft, FallbackNode> {
    let whole = |name: &str, reason: &str| FallbackNode {
        op: "graph".into(),
        node: name.into(),
        reason: reason.into(),
    };
    let graph = model.graph.as_ref().ok_or_else(|| whole("-", "there is none"))?;
    let mut importer = Importer::<F>::of(model, graph, outputs);
    for name in inputs {
        let dims = graph
            .input
            .iter()
            .find(|input| input.name == *name)
            .and_then(static_dims)
            .ok_or_else(|| whole(name, "not an input with a static shape"))?;
        let source = Source::Input(importer.draft.inputs.len());
        importer.values.insert(name.to_string(), Value::Float(source));
        importer.draft.inputs.push(dims);
    }
    for index in 0..graph.node.len() {
        importer.next(index)?;
    }
    for name in outputs {
        importer.output(name)?;
    }
    let left = |index: &usize| importer.left.contains(index);
    let operators = (0..graph.node.len()).filter(|index| computes(&graph.node[*index]));
    let (left, taken): (Vec<usize>, Vec<usize>) = operators.partition(left);
    importer.draft.taken = taken.len();
    importer.draft.operators = left.len() + taken.len();
    Ok(importer.draft)
}

struct Importer<'a, F> {
    model: &'a ModelProto,
    graph: &'a GraphProto,
    /// Which node computes a name.
    producers: HashMap<&'a str, usize>,
    initializers: HashMap<&'a str, &'a TensorProto>,
    /// How many nodes read each name, graph outputs counted too.
    readers: HashMap<&'a str, usize>,
    /// The graph's outputs, by name.
    outputs: HashMap<String, usize>,
    values: HashMap<String, Value>,
    /// Where names lie as real numbers, those that do.
    reals: HashMap<String, Source>,
    island: Island,
    /// Nodes left to f32.
    left: HashSet<usize>,
    draft: Draft,
    family: PhantomData<F>,
}

impl<'a, F: Family> Importer<'a, F> {
    fn of(model: &'a ModelProto, graph: &'a GraphProto, outputs: &[&str]) -> Importer<'a, F> {
        let nodes = || graph.node.iter().enumerate();
        let mut readers: HashMap<&str, usize> = HashMap::new();
        let read = graph.node.iter().flat_map(|node| &node.input);
        for name in read.chain(graph.output.iter().map(|output| &output.name)) {
            *readers.entry(name).or_default() += 1;
        }
        let constants = graph.initializer.iter().filter_map(|tensor| {
            // What is of a type that is not read is as good as not there; who needs it is left to f32.
            let constant = Constant::of(tensor)?;
            Some((tensor.name.clone(), Value::Constant(constant)))
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
            outputs: outputs.iter().map(|name| name.to_string()).zip(0..).collect(),
            values: constants.collect(),
            reals: HashMap::new(),
            island: Island::default(),
            left: HashSet::new(),
            draft: Draft {
                reals: vec![vec![]; outputs.len()],
                outputs: outputs.len(),
                ..Draft::default()
            },
            family: PhantomData,
        }
    }

    /// Takes the next node, or leaves it.
    fn next(&mut self, index: usize) -> Result<(), FallbackNode> {
        let node = &self.graph.node[index];
        let quantizes = node.op_type == "QuantizeLinear";
        if quantizes
            && matches!(
                node.input.first().and_then(|name| self.values.get(name)),
                Some(Value::Left)
            )
        {
            self.close()?;
        }
        match self.take(index, node) {
            Ok(()) => Ok(()),
            Err(reason) => self.leave(index, reason),
        }
    }

    fn take(&mut self, index: usize, node: &NodeProto) -> Result<(), Reason> {
        if node.op_type == "Split" {
            for (output, mut part) in node.output.iter().zip(self.split(node)?) {
                part.nodes.push(index);
                self.values.insert(output.clone(), Value::Pending(Box::new(part)));
            }
            return Ok(());
        }
        let (Some(output), true) = (node.output.first(), node.output.iter().skip(1).all(String::is_empty)) else {
            return Err("has more than one output".into());
        };
        let value = match node.op_type.as_str() {
            "QuantizeLinear" => self.quantize(node)?,
            "DequantizeLinear" => self.dequantize(node)?,
            "Identity" | "Dropout" => match self.value(node, 0)? {
                Value::Left => return Err("what it passes on is computed in f32".into()),
                value => value.clone(),
            },
            "Constant" => {
                let tensor = node.attribute.iter().find_map(|a| a.t.as_ref());
                Value::Constant(tensor.and_then(Constant::of).ok_or("is of a type that is not read")?)
            }
            _ => match self.folded(node) {
                Some(constant) => Value::Constant(constant),
                None => {
                    let mut pending = self.operator(node)?;
                    pending.nodes.push(index);
                    Value::Pending(Box::new(pending))
                }
            },
        };
        self.values.insert(output.clone(), value);
        Ok(())
    }

    fn value(&self, node: &NodeProto, index: usize) -> Result<&Value, Reason> {
        self.optional(node, index)?
            .ok_or_else(|| format!("lacks input {index}"))
    }

    fn optional(&self, node: &NodeProto, index: usize) -> Result<Option<&Value>, Reason> {
        match node.input.get(index) {
            None => Ok(None),
            Some(name) if name.is_empty() => Ok(None),
            Some(name) => match self.values.get(name) {
                Some(value) => Ok(Some(value)),
                None => Err(format!("its input {name} is not computed before it")),
            },
        }
    }

    /// An input that must be quantized activations.
    fn slot(&self, node: &NodeProto, index: usize) -> Result<Slot, Reason> {
        match self.value(node, index)? {
            Value::Real(slot) => Ok(*slot),
            Value::Left => Err(format!("its input {} is computed in f32", node.input[index])),
            _ => Err(format!("its input {} is not quantized", node.input[index])),
        }
    }

    fn activation(&self, slot: Slot) -> &Activation {
        &self.draft.activations[slot]
    }

    fn constant(&self, node: &NodeProto, index: usize) -> Result<&Constant, Reason> {
        match self.value(node, index)? {
            Value::Constant(constant) => Ok(constant),
            _ => Err(format!("its input {} is not constant", node.input[index])),
        }
    }

    /// Scales and zero points, s8 ones: whether the integers are unsigned decides what is taken off them.
    fn scales(&self, node: &NodeProto) -> Result<(Vec<f32>, Vec<i32>, bool), Reason> {
        let scales = self.constant(node, 1)?.floats().ok_or("its scale is not f32")?.to_vec();
        if scales.iter().any(|s| !(*s > 0.0 && s.is_finite())) {
            return Err("has a scale that is not a positive number".into());
        }
        let (zero_points, unsigned) = match self.optional(node, 2)? {
            // QuantizeLinear without a zero point is u8 with 0.
            None => (vec![-128; scales.len()], true),
            Some(Value::Constant(zero_point)) => match &zero_point.values {
                Values::I8(z) => (z.iter().map(|z| i32::from(*z)).collect(), false),
                Values::U8(z) => (z.iter().map(|z| i32::from(*z) - 128).collect(), true),
                Values::I32(z) if z.iter().all(|z| *z == 0) => (vec![0; z.len()], false),
                _ => return Err("its zero point is not s8 or u8".into()),
            },
            Some(_) => return Err("its zero point is not constant".into()),
        };
        if zero_points.len() != scales.len() {
            return Err("has another number of zero points than of scales".into());
        }
        Ok((scales, zero_points, unsigned))
    }

    fn quantization(&self, node: &NodeProto) -> Result<Quantization, Reason> {
        match self.scales(node)? {
            (scales, zero_points, _) if scales.len() == 1 => Ok(Quantization {
                scale: scales[0],
                zero_point: zero_points[0],
            }),
            _ => Err("quantizes activations with more than one scale".into()),
        }
    }

    fn quantize(&mut self, node: &NodeProto) -> Result<Value, Reason> {
        if let Value::Constant(constant) = self.value(node, 0)? {
            return self.quantized_constant(node, constant);
        }
        let to = self.quantization(node)?;
        let slot = match self.value(node, 0)?.clone() {
            Value::Float(input) => {
                let dims = self.dims_of(input).to_vec();
                if dims.len() == 4 && dims[0] != 1 {
                    return Err("has a batch of more than one".into());
                }
                let out = self.add_activation(dims, to);
                self.draft.steps.push(Step::Quantize { input, out });
                out
            }
            Value::Pending(pending) => self.finish(*pending, to)?,
            Value::Real(slot) => {
                let same = operators::Pending::unary(slot, self.activation(slot).dims.clone(), |x| x);
                self.finish(same, to)?
            }
            _ => return Err("quantizes integers".into()),
        };
        Ok(Value::Integers(slot))
    }

    /// QuantizeLinear of a constant: networks that were trained quantized keep their weights as real numbers.
    fn quantized_constant(&self, node: &NodeProto, constant: &Constant) -> Result<Value, Reason> {
        let reals = constant.floats().ok_or("quantizes a constant that is not f32")?;
        let (scales, zero_points, unsigned) = self.scales(node)?;
        let entry = per_entry(&constant.dims, axis_of(node, constant.dims.len()), scales.len())
            .ok_or("has another number of scales than its axis is long")?;
        let quantize = |(i, x): (usize, &f32)| {
            let (scale, zero_point) = (scales[entry(i)], zero_points[entry(i)]);
            Quantization { scale, zero_point }.quantize(*x)
        };
        let integers = reals.iter().enumerate().map(quantize);
        Ok(Value::Constant(Constant {
            dims: constant.dims.clone(),
            values: match unsigned {
                true => Values::U8(integers.map(|q| (q as u8) ^ 128).collect()),
                false => Values::I8(integers.collect()),
            },
        }))
    }

    fn dequantize(&mut self, node: &NodeProto) -> Result<Value, Reason> {
        let constant = match self.value(node, 0)? {
            Value::Integers(slot) => {
                let (slot, from) = (*slot, self.quantization(node)?);
                if self.activation(slot).quantization != from {
                    return Err("undoes another quantization than was done".into());
                }
                return Ok(Value::Real(slot));
            }
            Value::Constant(constant) => constant.clone(),
            _ => return Err("its input is not integers".into()),
        };
        let (scales, zero_points, _) = self.scales(node)?;
        let mut integers: Vec<i32> = match &constant.values {
            Values::I8(v) => v.iter().map(|v| i32::from(*v)).collect(),
            Values::U8(v) => v.iter().map(|v| i32::from(*v) - 128).collect(),
            Values::I32(v) => v.clone(),
            _ => return Err("its constant is not integers".into()),
        };
        let axis = axis_of(node, constant.dims.len());
        let entry = per_entry(&constant.dims, axis, scales.len())
            .ok_or("has another number of scales than its axis is long")?;
        // 32-bit constants, biases, have no zero point.
        let eight_bits = !matches!(constant.values, Values::I32(_));
        if eight_bits {
            for (i, v) in integers.iter_mut().enumerate() {
                *v -= zero_points[entry(i)];
            }
        }
        Ok(Value::Quantized(QuantizedConstant {
            dims: constant.dims,
            integers,
            zero_point: if eight_bits && scales.len() == 1 {
                zero_points[0]
            } else {
                0
            },
            scales,
            axis,
        }))
    }

    fn add_activation(&mut self, dims: Vec<usize>, quantization: Quantization) -> Slot {
        let least = i8::MIN;
        self.draft.activations.push(Activation {
            dims,
            quantization,
            least,
            same_as: None,
        });
        self.draft.activations.len() - 1
    }

    /// The same values in memory under other dimensions.
    fn add_alias(&mut self, dims: Vec<usize>, quantization: Quantization, other: Slot) -> Slot {
        let slot = self.add_activation(dims, quantization);
        let Activation { least, same_as, .. } = *self.activation(other);
        let alias = &mut self.draft.activations[slot];
        alias.least = least;
        alias.same_as = Some(same_as.unwrap_or(other));
        slot
    }

    fn dims_of(&self, source: Source) -> &[usize] {
        match source {
            Source::Input(input) => &self.draft.inputs[input],
            Source::Real(real) => &self.draft.reals[real],
        }
    }
}

/// Whether a node computes something: all but constants, quantizing and dequantizing.
fn computes(node: &NodeProto) -> bool {
    !matches!(
        node.op_type.as_str(),
        "Constant" | "QuantizeLinear" | "DequantizeLinear" | "Identity" | "Dropout"
    )
}

fn axis_of(node: &NodeProto, rank: usize) -> usize {
    let axis = node.integer("axis", 1);
    (if axis < 0 { axis + rank as i64 } else { axis }) as usize
}

/// Which scale belongs to the value at a place, given one for all or one for each entry of `axis`.
fn per_entry(dims: &[usize], axis: usize, scales: usize) -> Option<impl Fn(usize) -> usize + use<>> {
    let inner: usize = dims.iter().skip(axis + 1).product();
    let length = dims.get(axis).copied().unwrap_or(1);
    (scales == 1 || scales == length).then_some(move |i: usize| if scales == 1 { 0 } else { i / inner % length })
}
