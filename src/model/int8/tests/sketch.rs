//! Builds small ONNX graphs, and compares their results with those of tract.

#![expect(clippy::cast_possible_truncation, reason = "small constants of these tests")]

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};
use tract_onnx::prelude::*;

use super::super::onnx::float_info;
use super::super::{FallbackNode, IntegerPlan, IntegerSubgraph, Isa, OperatorCounts, Signature, load};

fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / f32::from(2u8).powi(23) - 1.0
        })
        .collect()
}

/// All outputs of one run.
type Outputs = Vec<Vec<f32>>;

/// A loaded sketch.
pub struct Loaded {
    plan: IntegerPlan,
    pub fallback_nodes: Vec<FallbackNode>,
    pub operators: OperatorCounts,
}

impl Loaded {
    pub fn of(model: &ModelProto, isa: Option<Isa>) -> Loaded {
        let Signature { inputs, outputs } = Signature::of(model).unwrap();
        let named: Vec<(&str, &[usize])> = inputs.iter().map(|(name, dims)| (name.as_str(), &dims[..])).collect();
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let mut loaded = load(model, &named, &outputs, isa).unwrap_or_else(|e| panic!("{e:#}"));
        Loaded {
            fallback_nodes: std::mem::take(&mut loaded.fallback_nodes),
            operators: loaded.operators,
            plan: loaded.into_plan().unwrap(),
        }
    }

    pub fn int8_macs(&self) -> u64 {
        self.plan.int8_macs
    }

    /// How many operators of the plan are ours.
    pub fn integer_subgraphs(&self) -> usize {
        let nodes = self.plan.plan.model().nodes().iter();
        nodes.filter(|node| node.op_is::<IntegerSubgraph>()).count()
    }

    /// The outputs of the same noise as for every other call.
    pub fn run(&self) -> Outputs {
        let model = self.plan.plan.model();
        let dims = (0..model.inputs.len()).map(|i| model.input_fact(i).unwrap().shape.as_concrete().unwrap());
        let tensors: TVec<TValue> = dims
            .zip(1..)
            .map(|(dims, seed)| {
                let values = noise(dims.iter().product(), seed);
                Tensor::from_shape(dims, &values).unwrap().into_tvalue()
            })
            .collect();
        let mut state = self.plan.plan.spawn().unwrap();
        // Twice, because the first run must not change the results of the second.
        state.run(tensors.clone()).unwrap();
        let outputs = state.run(tensors).unwrap();
        let values = |tensor: &TValue| tensor.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec();
        outputs.iter().map(values).collect()
    }
}

/// Asserts that all instruction sets agree exactly, and that all but 0.1 % of the values are within `step` of tract's: where f32
/// arithmetic falls on the other side of a tie, a value differs by one step. Returns the graph for the fastest instruction set.
pub fn agree(model: &ModelProto, step: impl Fn(&[f32]) -> f32) -> Loaded {
    let mut loaded: Vec<Loaded> = Isa::available()
        .into_iter()
        .map(|isa| Loaded::of(model, Some(isa)))
        .collect();
    let ours: Vec<Outputs> = loaded.iter().map(Loaded::run).collect();
    for outputs in &ours[1..] {
        assert_eq!(outputs, &ours[0]);
    }
    let theirs = Loaded::of(model, None).run();
    for (a, b) in ours[0].iter().zip(&theirs) {
        assert_eq!(a.len(), b.len());
        let step = step(b);
        let off = a.iter().zip(b).filter(|(a, b)| (*a - *b).abs() > step * 1.001).count();
        assert!(
            off * 1000 <= a.len(),
            "{off} of {} are off by more than {step}",
            a.len()
        );
    }
    loaded.remove(0)
}

pub fn tensor(name: &str, dims: &[i64], data_type: DataType, raw: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: data_type as i32,
        raw_data: raw,
        ..TensorProto::default()
    }
}

pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        ints: values.to_vec(),
        r#type: tract_onnx::pb::attribute_proto::AttributeType::Ints as i32,
        ..AttributeProto::default()
    }
}

pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        i: value,
        r#type: tract_onnx::pb::attribute_proto::AttributeType::Int as i32,
        ..AttributeProto::default()
    }
}

pub fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        s: value.into(),
        r#type: tract_onnx::pb::attribute_proto::AttributeType::String as i32,
        ..AttributeProto::default()
    }
}

/// A graph under construction, with one input `x` of four dimensions.
pub struct Sketch {
    nodes: Vec<NodeProto>,
    pub constants: Vec<TensorProto>,
    dims: [i64; 4],
    unsigned: bool,
}

impl Sketch {
    pub fn of(dims: [i64; 4], unsigned: bool) -> Sketch {
        Sketch {
            nodes: vec![],
            constants: vec![],
            dims,
            unsigned,
        }
    }

    pub fn node(&mut self, op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) {
        self.nodes.push(NodeProto {
            op_type: op.into(),
            input: inputs.iter().map(|i| i.to_string()).collect(),
            output: vec![output.into()],
            attribute,
            ..NodeProto::default()
        });
    }

    /// Appends QuantizeLinear and DequantizeLinear to `name`. The result is called `name` + "_r".
    pub fn requantize(&mut self, name: &str, scale: f32, zero_point: i8) {
        self.requantize_as(name, name, scale, zero_point);
    }

    /// As [`requantize`](Self::requantize), with the result called `prefix` + "_r".
    pub fn requantize_as(&mut self, name: &str, prefix: &str, scale: f32, zero_point: i8) {
        let (s, z, q) = (format!("{prefix}_s"), format!("{prefix}_z"), format!("{prefix}_q"));
        self.constants
            .push(tensor(&s, &[], DataType::Float, scale.to_le_bytes().to_vec()));
        let zero_point = match self.unsigned {
            true => tensor(&z, &[], DataType::Uint8, vec![(i16::from(zero_point) + 128) as u8]),
            false => tensor(&z, &[], DataType::Int8, vec![zero_point as u8]),
        };
        self.constants.push(zero_point);
        self.node("QuantizeLinear", &[name, &s, &z], &q, vec![]);
        self.node("DequantizeLinear", &[&q, &s, &z], &format!("{prefix}_r"), vec![]);
    }

    /// Adds constant weights with one scale per output, called `name`.
    pub fn weights(&mut self, name: &str, dims: &[i64], seed: u32) {
        let count = dims.iter().product::<i64>() as usize;
        let raw = noise(count, seed).iter().map(|v| (v * 127.0) as i8 as u8).collect();
        let scales = (0..dims[0])
            .flat_map(|o| (0.002 + 0.0001 * o as f32).to_le_bytes())
            .collect();
        let (q, s, z) = (format!("{name}_q"), format!("{name}_s"), format!("{name}_z"));
        self.constants.push(tensor(&q, dims, DataType::Int8, raw));
        self.constants.push(tensor(&s, &[dims[0]], DataType::Float, scales));
        self.constants
            .push(tensor(&z, &[dims[0]], DataType::Int8, vec![0; dims[0] as usize]));
        self.node("DequantizeLinear", &[&q, &s, &z], name, vec![int("axis", 0)]);
    }

    /// Adds an f32 constant.
    pub fn floats(&mut self, name: &str, dims: &[i64], values: &[f32]) {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constants.push(tensor(name, dims, DataType::Float, raw));
    }

    pub fn finish(self, outputs: &[&str]) -> ModelProto {
        let dims = self.dims.map(|d| d as usize);
        let output = |name: &&str| ValueInfoProto {
            name: name.to_string(),
            ..ValueInfoProto::default()
        };
        ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: 14,
            }],
            graph: Some(GraphProto {
                node: self.nodes,
                initializer: self.constants,
                input: vec![float_info("x", &dims)],
                output: outputs.iter().map(output).collect(),
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        }
    }
}
