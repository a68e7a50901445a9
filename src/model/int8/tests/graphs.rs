//! The shipped graphs, and small graphs with operators that the shipped graphs lack.

use std::collections::BTreeSet;
use std::path::Path;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{ModelProto, TensorProto};
use tract_onnx::prelude::Framework;

use super::super::Isa;
use super::sketch::{Loaded, Sketch, agree, int, ints, tensor, text};

#[test]
fn shipped_graphs_agree_with_tract() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    // The detector is not compared here. On noise, its values are a thousand times larger than on faces, so one value that an early
    // layer rounds differently changes many results. `tests/affectd/run.rs` compares the faces that it finds.
    for name in ["face_encoder", "voice_encoder", "fusion"] {
        let bytes = std::fs::read(models.join(format!("{name}.int8.onnx"))).unwrap();
        let model = tract_onnx::onnx().proto_model_for_read(&mut &bytes[..]).unwrap();
        // The outputs are real numbers. The step is twice what 8 bits would resolve, the largest magnitude / 127, because a value that
        // an early layer rounds differently changes several outputs a little.
        let loaded = agree(&model, |out| {
            out.iter().fold(0.0f32, |m, v| m.max(v.abs())) * 2.0 / 127.0
        });
        assert_eq!(loaded.fallback_nodes, []);
    }
}

/// The results of every instruction set are recorded in `snapshots/`. After a change that is meant to change them, record them anew:
/// `INSTA_UPDATE=always cargo test --release --lib results_keep_their_bits`.
#[test]
fn results_keep_their_bits() {
    let hash = |model: &ModelProto, isa: Isa| {
        // FNV-1a.
        let outputs = Loaded::of(model, Some(isa)).run();
        let bytes = outputs.iter().flatten().flat_map(|value| value.to_le_bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    let graphs = [
        ("varied, signed", varied(false)),
        ("varied, unsigned", varied(true)),
        ("composed, signed", composed(false)),
        ("composed, unsigned", composed(true)),
    ];
    let mut lines = String::new();
    for (name, model) in &graphs {
        let hashes = Isa::available().into_iter().map(|isa| hash(model, isa));
        let hashes: BTreeSet<u64> = hashes.collect();
        assert_eq!(hashes.len(), 1, "{name}: the instruction sets differ");
        lines += &format!("{name}: {:016x}\n", hashes.first().unwrap());
    }
    insta::assert_snapshot!(lines);
}

/// A strided convolution with ReLU6, a depthwise one, HardSwish as a table, a residual, both pools, a concatenation of different
/// scales, a transposition.
pub fn varied(unsigned: bool) -> ModelProto {
    let mut s = Sketch::of([1, 3, 17, 13], unsigned);
    s.requantize("x", 1.0 / 127.0, 3);
    s.weights("w1", &[20, 3, 3, 3], 1);
    s.node(
        "Conv",
        &["x_r", "w1"],
        "c1",
        vec![ints("pads", &[1, 1, 1, 1]), ints("strides", &[2, 2])],
    );
    s.floats("six", &[], &[6.0]);
    s.floats("zero", &[], &[0.0]);
    s.node("Clip", &["c1", "zero", "six"], "c1_6", vec![]);
    s.requantize("c1_6", 0.02, -128);
    s.weights("w2", &[20, 1, 3, 3], 2);
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
    s.finish(&["t_r"])
}

#[test]
fn a_varied_graph_agrees_with_tract_signed_and_unsigned() {
    for unsigned in [false, true] {
        // The output's scale is 0.02.
        let loaded = agree(&varied(unsigned), |_| 0.02);
        assert_eq!(loaded.fallback_nodes, []);
    }
}

/// A grouped convolution, a difference, a slice and a mean over an image, SiLU and a constant added without quantization in between,
/// repeated operands, a linear layer and a batch of matrix products, all with zero points.
pub fn composed(unsigned: bool) -> ModelProto {
    let mut s = Sketch::of([1, 6, 8, 10], unsigned);
    s.requantize("x", 1.0 / 127.0, 9);
    s.weights("w1", &[16, 3, 3, 3], 1);
    let grouped = vec![
        text("auto_pad", "SAME_UPPER"),
        ints("strides", &[2, 2]),
        int("group", 2),
    ];
    s.node("Conv", &["x_r", "w1"], "c", grouped);
    s.requantize("c", 0.03, 20);
    s.node("Sigmoid", &["c_r"], "gate", vec![]);
    s.node("Mul", &["c_r", "gate"], "silu", vec![]);
    s.requantize("silu", 0.02, -90);
    s.floats("three", &[], &[3.0]);
    s.node("Add", &["silu_r", "three"], "more", vec![]);
    s.node("Relu", &["more"], "relu", vec![]);
    s.requantize("relu", 0.03, -128);
    s.node("Sub", &["silu_r", "relu_r"], "d", vec![]);
    s.requantize("d", 0.03, 100);
    s.constants.push(integers("starts", &[4]));
    s.constants.push(integers("ends", &[99]));
    s.constants.push(integers("axes", &[1]));
    s.node("Slice", &["d_r", "starts", "ends", "axes"], "part", vec![]);
    s.requantize("part", 0.03, 100);
    s.node("ReduceMean", &["part_r"], "mean", vec![ints("axes", &[2, 3])]);
    s.requantize("mean", 0.02, 110);
    s.node("Mul", &["mean_r", "part_r"], "weighted", vec![]);
    s.requantize("weighted", 0.05, -100);
    s.floats("row", &[4, 1], &[1.0, -0.5, 0.25, 0.75]);
    s.requantize("row", 0.01, 17);
    s.node("Add", &["weighted_r", "row_r"], "rows", vec![]);
    s.requantize("rows", 0.05, -100);
    s.node("Transpose", &["rows_r"], "turned", vec![ints("perm", &[0, 1, 3, 2])]);
    s.requantize("turned", 0.05, -100);
    s.node("MatMul", &["rows_r", "turned_r"], "product", vec![]);
    s.requantize("product", 0.3, -70);
    s.node("Flatten", &["product_r"], "flat", vec![]);
    s.requantize("flat", 0.3, -70);
    s.weights("w2", &[7, 12 * 16], 2);
    s.node("Gemm", &["flat_r", "w2"], "out", vec![int("transB", 1)]);
    s.requantize("out", 0.5, 30);
    s.finish(&["out_r"])
}

#[test]
fn a_graph_of_composed_operators_agrees_with_tract_signed_and_unsigned() {
    for unsigned in [false, true] {
        let loaded = agree(&composed(unsigned), |_| 0.5);
        assert_eq!(loaded.fallback_nodes, []);
    }
}

pub fn integers(name: &str, values: &[i64]) -> TensorProto {
    let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    tensor(name, &[values.len() as i64], DataType::Int64, raw)
}

/// Exporters add a QuantizeLinear for each reader of a tensor.
#[test]
fn equal_quantizations_of_a_tensor_are_one_step() {
    let graph = |copies: usize| {
        let mut s = Sketch::of([1, 4, 6, 5], false);
        s.requantize("x", 1.0 / 127.0, 3);
        s.weights("w1", &[8, 4, 1, 1], 1);
        s.node("Conv", &["x_r", "w1"], "a", vec![]);
        let mut outputs = vec![];
        for i in 0..copies {
            s.requantize_as("a", &format!("a{i}"), 0.03, 5);
            outputs.push(format!("a{i}_r"));
        }
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        agree(&s.finish(&outputs), |_| 0.03).int8_macs()
    };
    assert_eq!(graph(3), graph(1));
}
