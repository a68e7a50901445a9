//! Graphs with nodes that fall back to f32: those are reported and run in tract, all others in integers.

use tract_onnx::pb::tensor_proto::DataType;

use super::super::{Isa, OperatorCounts, load};
use super::graphs::integers;
use super::sketch::{Loaded, Sketch, agree, int, ints, tensor, text};

fn fallback_nodes(loaded: &Loaded) -> Vec<String> {
    loaded.fallback_nodes.iter().map(ToString::to_string).collect()
}

/// A graph that starts with x → convolution → `a_r`.
fn start(unsigned: bool) -> Sketch {
    let mut s = Sketch::of([1, 4, 6, 5], unsigned);
    s.requantize("x", 1.0 / 127.0, 3);
    s.weights("w1", &[8, 4, 3, 3], 1);
    s.node("Conv", &["x_r", "w1"], "a", vec![ints("pads", &[1, 1, 1, 1])]);
    s.requantize("a", 0.03, 5);
    s
}

#[test]
fn a_node_in_the_middle_falls_back() {
    for unsigned in [false, true] {
        let mut s = start(unsigned);
        // Not Softmax: between quantizations, tract itself computes it differently from onnxruntime.
        s.node("LRN", &["a_r"], "weights", vec![int("size", 3)]);
        s.requantize("weights", 0.03, -20);
        s.weights("w2", &[6, 8, 1, 1], 2);
        s.node("Conv", &["weights_r", "w2"], "b", vec![]);
        s.requantize("b", 0.02, 0);
        let loaded = agree(&s.finish(&["b_r"]), |_| 0.02);
        let expected = "LRN weights: this operator is not supported in integers";
        assert_eq!(fallback_nodes(&loaded), [expected]);
        assert_eq!(loaded.operators, OperatorCounts { all: 3, int8: 2 });
        assert_eq!(loaded.int8_macs(), 6 * 5 * (8 * 4 * 9 + 6 * 8));
    }
}

#[test]
fn neighbouring_fallback_nodes_form_one_subgraph() {
    let mut s = start(false);
    s.node("LRN", &["a_r"], "normal", vec![int("size", 3)]);
    s.floats("twice", &[4], &[1.0, 1.0, 2.0, 2.0]);
    let nearest = vec![
        text("mode", "nearest"),
        text("coordinate_transformation_mode", "asymmetric"),
        text("nearest_mode", "floor"),
    ];
    s.node("Relu", &["a_r"], "relu", vec![]);
    s.requantize("relu", 0.03, -128);
    s.node("Resize", &["normal", "", "twice"], "large", nearest);
    s.requantize("large", 0.03, 5);
    let halves = vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
    s.node("MaxPool", &["large_r"], "small", halves);
    s.requantize("small", 0.03, 5);
    s.node("Add", &["small_r", "relu_r"], "sum", vec![]);
    s.requantize("sum", 0.05, -20);
    let loaded = agree(&s.finish(&["sum_r"]), |_| 0.05);
    assert_eq!(loaded.operators, OperatorCounts { all: 6, int8: 4 });
    let names: Vec<&str> = loaded.fallback_nodes.iter().map(|node| &node.op[..]).collect();
    assert_eq!(names, ["LRN", "Resize"]);
    // One before the fallback subgraph and one after it.
    assert_eq!(loaded.integer_subgraphs(), 2);
}

#[test]
fn nodes_before_the_first_quantize_and_after_the_last_dequantize_fall_back() {
    let mut s = Sketch::of([1, 4, 6, 5], false);
    s.node("Softmax", &["x"], "p", vec![int("axis", 3)]);
    s.requantize("p", 1.0 / 127.0, 0);
    s.weights("w1", &[8, 4, 3, 3], 1);
    s.node("Conv", &["p_r", "w1"], "a", vec![]);
    s.requantize("a", 0.01, 0);
    s.node("Softmax", &["a_r"], "y", vec![int("axis", 1)]);
    s.node("LRN", &["x"], "z", vec![int("size", 3)]);
    let loaded = agree(&s.finish(&["z", "y", "a_r"]), |out| match out.len() {
        96 => 0.01,
        _ => 1e-6,
    });
    assert_eq!(loaded.operators, OperatorCounts { all: 4, int8: 1 });
}

#[test]
fn sums_that_are_not_quantized_fall_back() {
    let mut s = start(false);
    s.weights("w2", &[8, 8, 1, 1], 2);
    s.node("Conv", &["a_r", "w2"], "b", vec![]);
    s.node("Add", &["b", "a_r"], "sum", vec![]);
    s.node("Relu", &["sum"], "relu", vec![]);
    s.requantize("relu", 0.05, -128);
    // The sums of a convolution are exact without quantization, so the convolution itself stays in integers.
    let loaded = agree(&s.finish(&["relu_r"]), |_| 0.05);
    assert_eq!(
        fallback_nodes(&loaded),
        [
            "Add sum: its input b is not quantized",
            "Relu relu: its input sum is computed in f32"
        ]
    );
    assert_eq!(loaded.operators, OperatorCounts { all: 4, int8: 2 });
}

#[test]
fn functions_that_are_not_quantized_stay_in_integers() {
    let mut s = start(false);
    s.node("Tanh", &["a_r"], "tanh", vec![]);
    s.node("Transpose", &["tanh"], "turned", vec![ints("perm", &[0, 2, 3, 1])]);
    s.requantize("turned", 1.0 / 127.0, 0);
    let loaded = agree(&s.finish(&["turned_r", "tanh"]), |_| 1.0 / 127.0);
    assert_eq!(fallback_nodes(&loaded), [""; 0]);
}

#[test]
fn several_scales_per_activation_tensor_fall_back() {
    let mut s = start(false);
    s.floats("each", &[8], &[0.03, 0.02, 0.04, 0.03, 0.03, 0.02, 0.01, 0.05]);
    s.constants.push(tensor("none", &[8], DataType::Int8, vec![0; 8]));
    s.node("Relu", &["a_r"], "b", vec![]);
    s.node("QuantizeLinear", &["b", "each", "none"], "b_q", vec![int("axis", 1)]);
    s.node(
        "DequantizeLinear",
        &["b_q", "each", "none"],
        "b_r",
        vec![int("axis", 1)],
    );
    s.node("MaxPool", &["b_r"], "c", vec![ints("kernel_shape", &[2, 2])]);
    s.requantize("c", 0.05, 0);
    let loaded = agree(&s.finish(&["c_r"]), |_| 0.05);
    let fallback_nodes = fallback_nodes(&loaded);
    let expected = "QuantizeLinear b_q: quantizes activations with more than one scale";
    assert!(fallback_nodes.contains(&expected.to_string()), "{fallback_nodes:?}");
    assert!(loaded.operators.int8 >= 1);
}

#[test]
fn activations_pass_by_a_fallback_subgraph_as_integers() {
    let mut s = start(false);
    s.node("LRN", &["a_r"], "normal", vec![int("size", 3)]);
    s.requantize("normal", 0.03, -20);
    s.node("Transpose", &["a_r"], "turned", vec![ints("perm", &[0, 1, 3, 2])]);
    s.requantize("turned", 0.03, 5);
    s.node("Transpose", &["turned_r"], "back", vec![ints("perm", &[0, 1, 3, 2])]);
    s.requantize("back", 0.03, 5);
    s.node("Add", &["normal_r", "back_r"], "sum", vec![]);
    s.requantize("sum", 0.05, -20);
    let loaded = agree(&s.finish(&["sum_r", "back_r"]), |_| 0.05);
    assert_eq!(loaded.integer_subgraphs(), 2);
    assert_eq!(fallback_nodes(&loaded).len(), 1);
}

#[test]
fn an_output_may_be_given_twice_or_be_an_input() {
    let mut s = start(false);
    s.node("Identity", &["a_r"], "same", vec![]);
    let loaded = agree(&s.finish(&["a_r", "same", "x"]), |_| 0.03);
    assert_eq!(loaded.operators, OperatorCounts { all: 1, int8: 1 });
}

#[test]
fn a_graph_without_a_static_shape_is_rejected() {
    let mut model = start(false).finish(&["a_r"]);
    model.graph.as_mut().unwrap().input[0].r#type = None;
    let error = load(&model, &[("x", &[1, 4, 6, 5])], &["a_r"], Some(Isa::Reference)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "input x: has no fixed shape: export the graph with fixed dimensions"
    );
}

#[test]
fn a_batch_made_by_broadcasting_falls_back() {
    let mut s = start(false);
    s.floats("two", &[2, 1, 1, 1], &[0.5, -0.25]);
    s.requantize("two", 0.01, 0);
    s.node("Add", &["a_r", "two_r"], "sum", vec![]);
    s.requantize("sum", 0.05, 0);
    let loaded = agree(&s.finish(&["sum_r"]), |_| 0.05);
    assert!(
        fallback_nodes(&loaded)[0].starts_with("Add sum: "),
        "{:?}",
        fallback_nodes(&loaded)
    );
}

#[test]
fn a_bias_beyond_32_bits_falls_back() {
    for bias in [1.0e9, -1.0e9, 1.0e30] {
        let mut s = start(false);
        s.weights("w2", &[1, 8, 1, 1], 2);
        s.floats("bias", &[1], &[bias]);
        s.node("Conv", &["a_r", "w2", "bias"], "b", vec![]);
        s.requantize("b", 0.02, 0);
        let loaded = agree(&s.finish(&["b_r"]), |_| 0.02);
        let expected = "Conv b: a bias is too large for 32 bits at the scales of its input and its weights";
        assert_eq!(fallback_nodes(&loaded)[0], expected);
    }
}

#[test]
fn integers_may_be_dequantized_with_other_scales() {
    for unsigned in [false, true] {
        let mut s = start(unsigned);
        s.floats("other", &[], &[0.02]);
        s.node("DequantizeLinear", &["a_q", "other", "a_z"], "again", vec![]);
        s.node("Sub", &["a_r", "again"], "difference", vec![]);
        s.requantize("difference", 0.02, 0);
        s.node("MaxPool", &["again"], "largest", vec![ints("kernel_shape", &[2, 2])]);
        s.requantize("largest", 0.02, 9);
        let loaded = agree(&s.finish(&["difference_r", "largest_r"]), |_| 0.02);
        assert_eq!(fallback_nodes(&loaded), [""; 0]);
    }
}

#[test]
fn fallback_nodes_may_read_and_write_integers() {
    let mut s = start(false);
    // tract reads the quantized values, and the graph goes on in integers.
    s.node("Cast", &["a_q"], "numbers", vec![int("to", DataType::Float as i64)]);
    s.requantize("numbers", 1.0, 0);
    // A result of tract that is not f32 and that a later node of tract reads.
    s.node("ArgMax", &["a_r"], "places", vec![int("axis", 1)]);
    s.node("LRN", &["a_r"], "normal", vec![int("size", 3)]);
    s.requantize("normal", 0.03, 0);
    s.node("Cast", &["places"], "places_f", vec![int("to", DataType::Float as i64)]);
    s.node("Add", &["normal_r", "numbers_r"], "sum", vec![]);
    s.requantize("sum", 1.0, 0);
    let loaded = agree(&s.finish(&["sum_r", "places_f"]), |_| 1.0);
    let names: Vec<&str> = loaded.fallback_nodes.iter().map(|node| &node.op[..]).collect();
    assert_eq!(names, ["Cast", "ArgMax", "LRN", "Cast"]);
    assert!(loaded.integer_subgraphs() >= 2);
    assert_eq!(loaded.operators.int8, 2);
}

/// Shapes as PyTorch writes them: the batch size from Shape, the rest computed, and an Expand of a parameter.
#[test]
fn shapes_that_exporters_compute_are_constants() {
    for opset in [11, 13] {
        let mut s = start(false);
        s.constants.push(integers("zero", &[0]));
        s.constants.push(integers("minus_one", &[-1]));
        s.constants.push(tensor("first", &[], DataType::Int64, vec![0; 8]));
        s.node("Shape", &["a_r"], "shape", vec![]);
        s.node("Gather", &["shape", "first"], "batch", vec![int("axis", 0)]);
        match opset {
            11 => s.node("Unsqueeze", &["batch"], "batch_1", vec![ints("axes", &[0])]),
            _ => s.node("Unsqueeze", &["batch", "zero"], "batch_1", vec![]),
        }
        s.node("Concat", &["batch_1", "minus_one"], "flat_shape", vec![int("axis", 0)]);
        s.node("Reshape", &["a_r", "flat_shape"], "flat", vec![]);
        s.requantize("flat", 0.03, 5);
        s.weights("w2", &[6, 240], 2);
        s.node("Gemm", &["flat_r", "w2"], "b", vec![int("transB", 1)]);
        s.requantize("b", 0.05, 0);
        // A parameter repeated to the shape of the activations, by nodes that tract runs.
        s.floats("parameter", &[1, 1], &[0.5]);
        s.node("Shape", &["b_r"], "b_shape", vec![]);
        s.node("ConstantOfShape", &["b_shape"], "zeros", vec![]);
        s.node("Shape", &["zeros"], "zeros_shape", vec![]);
        s.node("Expand", &["parameter", "zeros_shape"], "parameters", vec![]);
        s.requantize("parameters", 0.01, 0);
        s.node("Add", &["b_r", "parameters_r"], "sum", vec![]);
        s.requantize("sum", 0.05, 0);
        let mut model = s.finish(&["sum_r"]);
        model.opset_import[0].version = opset;
        let loaded = agree(&model, |_| 0.05);
        let names: Vec<&str> = loaded.fallback_nodes.iter().map(|node| &node.op[..]).collect();
        assert_eq!(names, ["ConstantOfShape", "Shape", "Expand"]);
    }
}

#[test]
fn the_shape_of_a_fallback_result_is_constant() {
    let mut s = start(false);
    s.node("LRN", &["a_r"], "normal", vec![int("size", 3)]);
    s.node("Shape", &["normal"], "shape", vec![]);
    s.requantize("normal", 0.03, 5);
    s.constants.push(integers("first", &[0]));
    s.constants.push(integers("minus_one", &[-1]));
    s.node("Gather", &["shape", "first"], "batch", vec![int("axis", 0)]);
    s.node("Concat", &["batch", "minus_one"], "flat_shape", vec![int("axis", 0)]);
    s.node("Reshape", &["normal_r", "flat_shape"], "flat", vec![]);
    s.requantize("flat", 0.03, 5);
    // tract needs the shape once more.
    s.node("Cast", &["shape"], "numbers", vec![int("to", DataType::Float as i64)]);
    let loaded = agree(&s.finish(&["flat_r", "numbers"]), |_| 0.03);
    let names: Vec<&str> = loaded.fallback_nodes.iter().map(|node| &node.op[..]).collect();
    assert_eq!(names, ["LRN", "Shape", "Cast"]);
    assert_eq!(loaded.integer_subgraphs(), 2);
}
