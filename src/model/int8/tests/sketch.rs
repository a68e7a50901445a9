//! Builds small ONNX graphs, and compares their results with those of tract.

#![expect(clippy::cast_possible_truncation, reason = "small constants of these tests")]

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};
use tract_onnx::prelude::*;

use super::super::onnx::float_info;
use super::super::{Isa, Program, Signature, compile};

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

/// The outputs of `model` on the same noise from every instruction set and from tract, and the program for the fastest one.
fn run(model: &ModelProto) -> (Vec<Outputs>, Outputs, Program) {
    let Signature { inputs, outputs } = Signature::of(model).unwrap();
    let names: Vec<&str> = inputs.iter().map(|(name, _)| name.as_str()).collect();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let values: Vec<Vec<f32>> = inputs
        .iter()
        .zip(1..)
        .map(|((_, dims), seed)| noise(dims.iter().product(), seed))
        .collect();
    let slices: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
    let compiled = |isa| compile(model, &names, &outputs, isa).unwrap_or_else(|e| panic!("{e}"));
    let mut programs: Vec<Program> = Isa::available().into_iter().map(compiled).collect();
    let run = |program: &mut Program| {
        // Twice, because the first run must not change the results of the second.
        program.run(&slices).unwrap();
        program.run(&slices).unwrap().to_vec()
    };
    let ours = programs.iter_mut().map(run).collect();
    let plan = tract_onnx::onnx().model_for_proto_model(model).unwrap();
    let plan = plan.into_optimized().unwrap().into_runnable().unwrap();
    let tensors = inputs
        .iter()
        .zip(&values)
        .map(|((_, dims), v)| Tensor::from_shape(dims, v).unwrap().into_tvalue());
    let theirs = plan.run(tensors.collect()).unwrap();
    let theirs = theirs
        .iter()
        .map(|t| t.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec())
        .collect();
    (ours, theirs, programs.remove(0))
}

/// Asserts that all instruction sets agree exactly, and that all but 0.1 % of the values are within `step` of tract's: where f32
/// arithmetic falls on the other side of a tie, a value differs by one step. Returns the program for the fastest instruction set.
pub fn agree(model: &ModelProto, step: impl Fn(&[f32]) -> f32) -> Program {
    let (ours, theirs, program) = run(model);
    for outputs in &ours[1..] {
        assert_eq!(outputs, &ours[0]);
    }
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
    program
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
        let (s, z, q) = (format!("{name}_s"), format!("{name}_z"), format!("{name}_q"));
        self.constants
            .push(tensor(&s, &[], DataType::Float, scale.to_le_bytes().to_vec()));
        let zero_point = match self.unsigned {
            true => tensor(&z, &[], DataType::Uint8, vec![(i16::from(zero_point) + 128) as u8]),
            false => tensor(&z, &[], DataType::Int8, vec![zero_point as u8]),
        };
        self.constants.push(zero_point);
        self.node("QuantizeLinear", &[name, &s, &z], &q, vec![]);
        self.node("DequantizeLinear", &[&q, &s, &z], &format!("{name}_r"), vec![]);
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
