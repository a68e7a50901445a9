//! Whole graphs: those that ship, and small ones made here of what those lack.

use std::path::Path;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};
use tract_onnx::prelude::*;

use super::super::{Kind, Signature, compile};

fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / f32::from(2u8).powi(23) - 1.0
        })
        .collect()
}

/// Outputs of `model` on the same noise, from each of our families and from tract.
fn run(model: &ModelProto) -> (Vec<Vec<Vec<f32>>>, Vec<Vec<f32>>) {
    let Signature { inputs, outputs } = Signature::of(model).unwrap();
    let names: Vec<&str> = inputs.iter().map(|(name, _)| name.as_str()).collect();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let values: Vec<Vec<f32>> = inputs
        .iter()
        .zip(1..)
        .map(|((_, dims), seed)| noise(dims.iter().product(), seed))
        .collect();
    let slices: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
    let ours = Kind::available()
        .into_iter()
        .map(|kind| {
            let mut program = compile(model, &names, &outputs, kind).unwrap_or_else(|e| panic!("{e}"));
            // Twice: nothing may be left over from the first run.
            program.run(&slices);
            program.run(&slices).to_vec()
        })
        .collect();
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
    (ours, theirs)
}

/// All families alike, and all but a few values within `step` of tract: where tract's f32 arithmetic falls on the other side
/// of a tie, a value moves by one.
fn agree(model: &ModelProto, step: impl Fn(&[f32]) -> f32) {
    let (ours, theirs) = run(model);
    for family in &ours[1..] {
        assert_eq!(family, &ours[0]);
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
}

#[test]
fn the_shipped_graphs_agree_with_tract() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    // Not the detector: on what is no face its values are a thousandfold, and one rounding to the other side of a tie
    // early on moves many. `tests/` compares the faces it finds.
    for name in ["face_encoder", "voice_encoder", "fusion"] {
        let bytes = std::fs::read(models.join(format!("{name}.int8.onnx"))).unwrap();
        let model = tract_onnx::onnx().proto_model_for_read(&mut &bytes[..]).unwrap();
        // Their outputs are real numbers; a step is what eight bits over their range would have.
        agree(&model, |out| out.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0);
    }
}

fn tensor(name: &str, dims: &[i64], data_type: DataType, raw: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: data_type as i32,
        raw_data: raw,
        ..TensorProto::default()
    }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        ints: values.to_vec(),
        r#type: tract_onnx::pb::attribute_proto::AttributeType::Ints as i32,
        ..AttributeProto::default()
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        i: value,
        r#type: tract_onnx::pb::attribute_proto::AttributeType::Int as i32,
        ..AttributeProto::default()
    }
}

/// A graph under construction, of one picture.
struct Sketch {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    dims: [i64; 4],
    unsigned: bool,
}

impl Sketch {
    fn of(dims: [i64; 4], unsigned: bool) -> Sketch {
        Sketch {
            nodes: vec![],
            constants: vec![],
            dims,
            unsigned,
        }
    }

    fn node(&mut self, op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) {
        self.nodes.push(NodeProto {
            op_type: op.into(),
            input: inputs.iter().map(|i| i.to_string()).collect(),
            output: vec![output.into()],
            attribute,
            ..NodeProto::default()
        });
    }

    /// Puts a quantize and a dequantize after `name`; the result is `name` + "_r".
    fn requantize(&mut self, name: &str, scale: f32, zero_point: i8) {
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

    /// Constant weights with a scale for each output; the result is `name`.
    fn weights(&mut self, name: &str, dims: [i64; 4], seed: u32) {
        let count = dims.iter().product::<i64>() as usize;
        let raw = noise(count, seed).iter().map(|v| (v * 127.0) as i8 as u8).collect();
        let scales = (0..dims[0])
            .flat_map(|o| (0.002 + 0.0001 * o as f32).to_le_bytes())
            .collect();
        let (q, s, z) = (format!("{name}_q"), format!("{name}_s"), format!("{name}_z"));
        self.constants.push(tensor(&q, &dims, DataType::Int8, raw));
        self.constants.push(tensor(&s, &[dims[0]], DataType::Float, scales));
        self.constants
            .push(tensor(&z, &[dims[0]], DataType::Int8, vec![0; dims[0] as usize]));
        self.node("DequantizeLinear", &[&q, &s, &z], name, vec![int("axis", 0)]);
    }

    fn finish(self, output: &str) -> ModelProto {
        let dim = |n: &i64| Dimension {
            value: Some(dimension::Value::DimValue(*n)),
            ..Dimension::default()
        };
        let tensor_type = type_proto::Tensor {
            elem_type: DataType::Float as i32,
            shape: Some(TensorShapeProto {
                dim: self.dims.iter().map(dim).collect(),
            }),
        };
        let picture = TypeProto {
            value: Some(type_proto::Value::TensorType(tensor_type)),
            ..TypeProto::default()
        };
        let named = |name: &str, r#type| ValueInfoProto {
            name: name.into(),
            r#type,
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
                input: vec![named("x", Some(picture))],
                output: vec![named(output, None)],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        }
    }
}

/// A little of everything: a strided convolution with ReLU6, a depthwise one, hard-swish as a table, a residual, both pools,
/// a concatenation of unequal scales, a transposition.
fn varied(unsigned: bool) -> ModelProto {
    let mut s = Sketch::of([1, 3, 17, 13], unsigned);
    s.requantize("x", 1.0 / 127.0, 3);
    s.weights("w1", [20, 3, 3, 3], 1);
    s.node(
        "Conv",
        &["x_r", "w1"],
        "c1",
        vec![ints("pads", &[1, 1, 1, 1]), ints("strides", &[2, 2])],
    );
    let six = tensor("six", &[], DataType::Float, 6f32.to_le_bytes().to_vec());
    let zero = tensor("zero", &[], DataType::Float, 0f32.to_le_bytes().to_vec());
    s.constants.extend([six, zero]);
    s.node("Clip", &["c1", "zero", "six"], "c1_6", vec![]);
    s.requantize("c1_6", 0.02, -128);
    s.weights("w2", [20, 1, 3, 3], 2);
    s.node(
        "Conv",
        &["c1_6_r", "w2"],
        "c2",
        vec![ints("pads", &[1, 1, 1, 1]), int("group", 20)],
    );
    s.requantize("c2", 0.01, 5);
    s.node("HardSwish", &["c2_r"], "h", vec![]);
    s.requantize("h", 0.008, -60);
    s.node("Add", &["h_r", "c1_6_r"], "a", vec![]);
    s.requantize("a", 0.02, -100);
    s.node(
        "MaxPool",
        &["a_r"],
        "m",
        vec![ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2])],
    );
    s.requantize("m", 0.02, -100);
    let halves = vec![ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2])];
    s.node("AveragePool", &["a_r"], "v", halves);
    s.requantize("v", 0.015, -90);
    s.node("Concat", &["m_r", "v_r"], "both", vec![int("axis", 1)]);
    s.requantize("both", 0.02, -100);
    s.node("Transpose", &["both_r"], "t", vec![ints("perm", &[0, 2, 1, 3])]);
    s.requantize("t", 0.02, -100);
    s.finish("t_r")
}

#[test]
fn a_graph_of_everything_agrees_with_tract_signed_and_unsigned() {
    for unsigned in [false, true] {
        // The output's scale is 0.02.
        agree(&varied(unsigned), |_| 0.02);
    }
}

#[test]
fn what_cannot_be_taken_is_named() {
    let refusal = |s: Sketch, output: &str| {
        let error = compile(&s.finish(output), &["x"], &[output], Kind::Reference);
        error.err().map(|e| e.to_string()).unwrap_or_default()
    };
    let mut s = Sketch::of([1, 4, 5, 5], false);
    s.requantize("x", 0.01, 0);
    s.node("Softmax", &["x_r"], "y", vec![]);
    assert_eq!(
        refusal(s, "y"),
        "Softmax y: Softmax is not among the operators that are computed in integers"
    );

    let mut s = Sketch::of([1, 4, 5, 5], false);
    s.requantize("x", 0.01, 0);
    s.weights("w", [4, 2, 1, 1], 1);
    s.node("Conv", &["x_r", "w"], "y", vec![int("group", 2)]);
    assert_eq!(
        refusal(s, "y"),
        "Conv y: has 2 groups: only one, and one for each channel, are taken"
    );

    let mut s = Sketch::of([1, 4, 5, 5], false);
    s.weights("w", [4, 4, 1, 1], 1);
    s.node("Conv", &["x", "w"], "y", vec![]);
    assert_eq!(refusal(s, "y"), "Conv y: its input x is not quantized");
}
