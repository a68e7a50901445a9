//! From an ONNX graph in QDQ form to the steps of a program.
//!
//! The graph's nodes come in the order in which they can be computed. An operator's result stays [`Pending`] until the
//! QuantizeLinear after it says how it is to be kept; then it becomes a step, with the activation between fused in.

mod finish;
mod operators;
mod range;
mod shapes;

use std::collections::HashMap;
use std::marker::PhantomData;

use tract_onnx::pb::{ModelProto, NodeProto};

use super::Untaken;
use super::arithmetic::Quantization;
use super::kernels::Family;
use super::onnx::{Attributes, Constant, Values, static_dims};
use super::program::{Activation, Draft, Slot, Step};
use operators::Pending;

/// What a name in the graph stands for.
#[derive(Debug, Clone)]
enum Value {
    /// A graph input, f32.
    Input(usize),
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
}

type Reason = String;

pub fn compile<F: Family>(model: &ModelProto, inputs: &[&str], outputs: &[&str]) -> Result<Draft, Untaken> {
    let mut importer = Importer::<F>::default();
    let about = |node: &str, reason: &str| Untaken {
        node: node.to_string(),
        reason: reason.to_string(),
    };
    let graph = model.graph.as_ref().ok_or_else(|| about("graph", "there is none"))?;
    for tensor in &graph.initializer {
        let constant =
            Constant::of(tensor).ok_or_else(|| about(&tensor.name, "a constant of a type that is not read"))?;
        importer.values.insert(tensor.name.clone(), Value::Constant(constant));
    }
    for name in inputs {
        let dims = graph
            .input
            .iter()
            .find(|input| input.name == *name)
            .and_then(static_dims)
            .ok_or_else(|| about(name, "not an input with a static shape"))?;
        importer
            .values
            .insert(name.to_string(), Value::Input(importer.draft.inputs.len()));
        importer.draft.inputs.push(dims);
    }
    for node in &graph.node {
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            *importer.readers.entry(name.clone()).or_default() += 1;
        }
    }
    for node in &graph.node {
        importer.take(node).map_err(|reason| {
            let name = if node.name.is_empty() {
                &node.output[0]
            } else {
                &node.name
            };
            about(&format!("{} {name}", node.op_type), &reason)
        })?;
    }
    for name in outputs {
        importer.output(name).map_err(|reason| about(name, &reason))?;
    }
    Ok(importer.draft)
}

struct Importer<F> {
    values: HashMap<String, Value>,
    /// How many nodes read each name.
    readers: HashMap<String, usize>,
    draft: Draft,
    family: PhantomData<F>,
}

impl<F> Default for Importer<F> {
    fn default() -> Self {
        Importer {
            values: HashMap::new(),
            readers: HashMap::new(),
            draft: Draft::default(),
            family: PhantomData,
        }
    }
}

impl<F: Family> Importer<F> {
    fn take(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let [output] = &node.output[..] else {
            return Err("has more than one output".into());
        };
        let value = match node.op_type.as_str() {
            "QuantizeLinear" => self.quantize(node)?,
            "DequantizeLinear" => self.dequantize(node)?,
            "Constant" => {
                let tensor = node.attribute.iter().find_map(|a| a.t.as_ref());
                let constant = tensor
                    .and_then(Constant::of)
                    .ok_or("a constant of a type that is not read")?;
                Value::Constant(constant)
            }
            _ => Value::Pending(Box::new(self.operator(node)?)),
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
        let to = self.quantization(node)?;
        let slot = match self.value(node, 0)?.clone() {
            Value::Input(input) => {
                let dims = self.draft.inputs[input].clone();
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
            _ => return Err("quantizes a constant".into()),
        };
        Ok(Value::Integers(slot))
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
        let rank = constant.dims.len() as i64;
        let axis = node.integer("axis", 1);
        let axis = if axis < 0 { axis + rank } else { axis } as usize;
        let entry = per_entry(&constant.dims, axis, scales.len())
            .ok_or("has another number of scales than its axis is long")?;
        // 32-bit constants, biases, have no zero point.
        if !matches!(constant.values, Values::I32(_)) {
            for (i, v) in integers.iter_mut().enumerate() {
                *v -= zero_points[entry(i)];
            }
        }
        Ok(Value::Quantized(QuantizedConstant {
            dims: constant.dims,
            integers,
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
        });
        self.draft.activations.len() - 1
    }

    /// Makes `name` the next graph output.
    fn output(&mut self, name: &str) -> Result<(), Reason> {
        let output = self.draft.outputs.len();
        match self.values.get(name).cloned() {
            Some(Value::Real(input)) => {
                self.draft.outputs.push(self.activation(input).dims.clone());
                self.draft.steps.push(Step::Dequantize { input, output });
                Ok(())
            }
            Some(Value::Pending(pending)) => {
                self.draft.outputs.push(pending.dims.clone());
                self.finish_real(*pending, output)
            }
            Some(_) => Err("is not computed".into()),
            None => Err("is not in the graph".into()),
        }
    }
}

/// Which scale belongs to the value at a place, given one for all or one for each entry of `axis`.
fn per_entry(dims: &[usize], axis: usize, scales: usize) -> Option<impl Fn(usize) -> usize + use<>> {
    let inner: usize = dims.iter().skip(axis + 1).product();
    let length = dims.get(axis).copied().unwrap_or(1);
    (scales == 1 || scales == length).then_some(move |i: usize| if scales == 1 { 0 } else { i / inner % length })
}
