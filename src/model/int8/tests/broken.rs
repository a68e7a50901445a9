//! Broken graphs are errors that name the node, and nothing in this module panics.

use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, TensorProto};
use tract_onnx::prelude::*;

use super::super::{Isa, Panicked, Signature, load, read, run};
use super::graphs::{composed, integers, varied};
use super::sketch::{Sketch, int, ints, tensor};

/// Loads and runs a graph as `affectd bench` does.
fn try_graph(model: &ModelProto, isa: Option<Isa>) -> TractResult<()> {
    let Signature { inputs, outputs } = Signature::of(model)?;
    let named: Vec<(&str, &[usize])> = inputs.iter().map(|(name, dims)| (name.as_str(), &dims[..])).collect();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let plan = load(model, &named, &outputs, isa)?.into_plan()?.plan;
    let tensors = named
        .iter()
        .map(|(_, dims)| Ok(Tensor::zero::<f32>(dims)?.into_tvalue()));
    let tensors = tensors.collect::<TractResult<TVec<TValue>>>()?;
    run(&mut plan.spawn()?, tensors).map(|_| ())
}

/// A small convolution, then one node `m`.
fn with_node(op: &str, inputs: &[&str], attributes: Vec<AttributeProto>, constants: &[(&str, &[i64])]) -> ModelProto {
    let mut s = Sketch::of([1, 4, 6, 5], false);
    s.requantize("x", 1.0 / 127.0, 3);
    s.weights("w1", &[8, 4, 3, 3], 1);
    s.node("Conv", &["x_r", "w1"], "a", vec![ints("pads", &[1, 1, 1, 1])]);
    s.requantize("a", 0.03, 5);
    for (name, values) in constants {
        s.constants.push(integers(name, values));
    }
    s.node(op, inputs, "m", attributes);
    s.requantize("m", 0.03, 5);
    s.finish(&["m_r"])
}

/// The error for `model`, which must name node `m` or its weights `w2` and must be no panic of ours.
fn error_at_m(model: &ModelProto) -> String {
    for isa in [Some(Isa::Reference), None] {
        let error = try_graph(model, isa).unwrap_err();
        if let Some(Panicked { place, .. }) = error.downcast_ref() {
            assert!(!place.starts_with("src/"), "{error:#}");
        }
        let text = format!("{error:#}");
        assert!(
            ["m", "w2"]
                .iter()
                .any(|name| text.contains(&format!(" {name}")) || text.contains(&format!("\"{name}\""))),
            "{isa:?}: {text}"
        );
    }
    format!("{:#}", try_graph(model, Some(Isa::Reference)).unwrap_err())
}

#[test]
fn windows_that_do_not_exist_are_rejected() {
    let huge = 1 << 40;
    for (name, values) in [
        ("kernel_shape", [0, 0]),
        ("kernel_shape", [-1, 3]),
        ("kernel_shape", [1 << 31, 1 << 31]),
        ("kernel_shape", [huge, huge]),
    ] {
        error_at_m(&with_node("MaxPool", &["a_r"], vec![ints(name, &values)], &[]));
    }
    let kernel = || ints("kernel_shape", &[2, 2]);
    for (name, values) in [
        ("strides", &[0, 0][..]),
        ("strides", &[i64::MIN, 1]),
        ("dilations", &[0, 0]),
        ("pads", &[huge, huge, huge, huge]),
        ("pads", &[-1, 0, 0, 0]),
    ] {
        error_at_m(&with_node(
            "AveragePool",
            &["a_r"],
            vec![kernel(), ints(name, values)],
            &[],
        ));
    }
}

#[test]
fn nodes_without_their_inputs_are_rejected() {
    for op in [
        "Add",
        "Mul",
        "Sub",
        "Div",
        "MatMul",
        "Concat",
        "Transpose",
        "Sigmoid",
        "Flatten",
        "Reshape",
    ] {
        error_at_m(&with_node(op, &[], vec![], &[]));
        error_at_m(&with_node(op, &[""], vec![], &[]));
    }
    for op in ["Add", "Div", "Sub", "Conv", "MatMul", "Gemm"] {
        error_at_m(&with_node(op, &["a_r"], vec![], &[]));
    }
}

#[test]
fn results_without_bounds_are_rejected() {
    let huge: &[i64] = &[1, 8, 1 << 20, 1 << 20];
    let one: &[i64] = &[1];
    for (op, inputs) in [
        ("ConstantOfShape", &["size"][..]),
        ("Expand", &["one", "size"]),
        ("Tile", &["a_r", "size"]),
        ("Resize", &["a_r", "", "", "size"]),
    ] {
        // The size as a constant of the file, and as one that the graph computes.
        let constants = [("size", huge), ("one", one)];
        let error = error_at_m(&with_node(op, inputs, vec![], &constants));
        assert_eq!(error, format!("{op} m: its result is too large"));
        let mut model = with_node(op, inputs, vec![], &[("given", huge), ("one", one)]);
        let mut s = Sketch::of([1, 1, 1, 1], false);
        s.node("Identity", &["given"], "same", vec![]);
        s.node("Mul", &["same", "one"], "size", vec![]);
        let graph = model.graph.as_mut().unwrap();
        graph.node.splice(0..0, s.finish(&[]).graph.unwrap().node);
        let error = error_at_m(&model);
        assert_eq!(error, format!("{op} m: its result is too large"));
    }
}

/// Each node doubles its result, or multiplies the sizes of its inputs.
#[test]
fn results_that_grow_are_rejected() {
    let mut s = Sketch::of([1, 4, 6, 5], false);
    s.node("Concat", &["x", "x"], "c0", vec![int("axis", 1)]);
    for i in 0..40 {
        let before = format!("c{i}");
        s.node(
            "Concat",
            &[&before, &before],
            &format!("c{}", i + 1),
            vec![int("axis", 1)],
        );
    }
    let error = try_graph(&s.finish(&["c40"]), Some(Isa::Reference)).unwrap_err();
    assert_eq!(error.to_string(), "Concat c17: its result is too large");
    for op in ["Add", "MatMul"] {
        let mut s = Sketch::of([1, 1, 1, 1], false);
        s.floats("column", &[1 << 13, 1], &[0.0; 1 << 13]);
        s.floats("row", &[1, 1 << 13], &[0.0; 1 << 13]);
        s.node(op, &["column", "row"], "m", vec![]);
        s.node("ReduceSum", &["m"], "sum", vec![]);
        s.node("Add", &["x", "sum"], "y", vec![]);
        let error = try_graph(&s.finish(&["y"]), Some(Isa::Reference)).unwrap_err();
        assert_eq!(error.to_string(), format!("{op} m: its result is too large"));
    }
}

#[test]
fn long_computations_are_rejected() {
    let mut s = Sketch::of([1, 1, 1, 1], false);
    s.floats("square", &[512, 512], &[0.0; 1 << 18]);
    s.node("MatMul", &["square", "square"], "m0", vec![]);
    for i in 0..99 {
        s.node("MatMul", &[&format!("m{i}"), "square"], &format!("m{}", i + 1), vec![]);
    }
    s.node("ReduceSum", &["m99"], "sum", vec![]);
    s.node("Add", &["x", "sum"], "y", vec![]);
    let error = try_graph(&s.finish(&["y"]), Some(Isa::Reference)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "MatMul m1: takes too many operations, although its inputs are constant"
    );
    let mut s = Sketch::of([1, 64, 200, 200], false);
    let same = || vec![ints("kernel_shape", &[99, 99]), ints("pads", &[49, 49, 49, 49])];
    s.node("AveragePool", &["x"], "m", same());
    let error = try_graph(&s.finish(&["m"]), Some(Isa::Reference)).unwrap_err();
    assert_eq!(error.to_string(), "AveragePool m: takes too many operations");
}

#[test]
fn operators_that_are_not_accepted_are_named() {
    for op in [
        "If",
        "Loop",
        "Scan",
        "GatherND",
        "Range",
        "RandomNormal",
        "LSTM",
        "Unknown",
    ] {
        let error = error_at_m(&with_node(op, &["a_r"], vec![], &[]));
        assert_eq!(error, format!("{op} m: affectd does not accept this operator"));
    }
    let mut model = with_node("Relu", &["a_r"], vec![], &[]);
    let node = model
        .graph
        .as_mut()
        .unwrap()
        .node
        .iter_mut()
        .find(|node| node.output == ["m"]);
    let node = node.unwrap();
    node.attribute.push(AttributeProto {
        name: "body".into(),
        g: Some(GraphProto::default()),
        ..AttributeProto::default()
    });
    assert_eq!(error_at_m(&model), "Relu m: has a nested graph");
}

#[test]
fn large_counts_are_rejected() {
    let expect = |model: &ModelProto, text: &str| {
        let error = try_graph(model, Some(Isa::Reference)).unwrap_err();
        assert_eq!(error.to_string(), text);
    };
    let chain = |count: usize| {
        let mut s = Sketch::of([1, 1, 1, 1], false);
        s.node("Erf", &["x"], "e0", vec![]);
        for i in 1..count {
            s.node("Erf", &[&format!("e{}", i - 1)], &format!("e{i}"), vec![]);
        }
        s.finish(&[&format!("e{}", count - 1)])
    };
    let nodes = "Erf e1024: is behind 1024 others that are not computed in integers, more than affectd accepts";
    expect(&chain(1500), nodes);
    expect(&chain(10_001), "the graph: has 10001 nodes, more than 10000");
    let mut s = Sketch::of([1, 1, 1, 1], false);
    for i in 0..10_001 {
        s.floats(&format!("c{i}"), &[], &[0.0]);
    }
    s.node("Relu", &["x"], "m", vec![]);
    expect(&s.finish(&["m"]), "the graph: has 10001 constants, more than 10000");
    let mut s = Sketch::of([1, 1, 1, 1], false);
    let zeros = vec![0.0; 1 << 12];
    for i in 0..2000 {
        s.floats(&format!("c{i}"), &[1 << 12], &zeros);
    }
    s.node("Relu", &["x"], "m", vec![]);
    expect(&s.finish(&["m"]), "the graph: has too many constants of one shape");
}

#[test]
fn names_given_twice_are_rejected() {
    let expect = |model: &ModelProto, text: &str| {
        let error = try_graph(model, Some(Isa::Reference)).unwrap_err();
        assert_eq!(error.to_string(), text);
    };
    let mut s = Sketch::of([1, 1, 1, 1], false);
    s.floats("c", &[], &[1.0]);
    s.floats("c", &[], &[2.0]);
    s.node("Add", &["x", "c"], "m", vec![]);
    expect(&s.finish(&["m"]), "constant c: is given twice");
    let mut s = Sketch::of([1, 1, 1, 1], false);
    s.node("Relu", &["x"], "m", vec![]);
    let mut model = s.finish(&["m"]);
    let graph = model.graph.as_mut().unwrap();
    graph.input.push(graph.input[0].clone());
    expect(&model, "input x: is given twice");
}

#[test]
fn attributes_that_an_operator_does_not_have_are_rejected() {
    let error = error_at_m(&with_node("Flatten", &["a_r"], vec![int("axis", 9)], &[]));
    assert_eq!(error, "Flatten m: has axis 9");
    let error = error_at_m(&with_node("Flatten", &["a_r"], vec![int("axis", 5)], &[]));
    assert!(error.starts_with("Flatten m: tract rejects it ("), "{error}");
    let error = error_at_m(&with_node("Conv", &["a_r", "a_r"], vec![int("ceil_mode", 1)], &[]));
    assert_eq!(error, "Conv m: has ceil_mode, which only pools have");
}

#[test]
fn inputs_and_constants_that_cannot_be_read_are_named() {
    let mut s = Sketch::of([1, 0, 4, 4], false);
    s.node("Relu", &["x"], "m", vec![]);
    let error = Signature::of(&s.finish(&["m"])).unwrap_err();
    assert_eq!(error.to_string(), "input x: [1, 0, 4, 4] holds no values");
    let with_constant = |constant: TensorProto| {
        let mut s = Sketch::of([1, 1, 1, 1], false);
        s.constants.push(constant);
        s.node("Add", &["x", "c"], "m", vec![]);
        try_graph(&s.finish(&["m"]), None).unwrap_err().to_string()
    };
    let mut external = tensor("c", &[4], DataType::Float, vec![]);
    external.data_location = Some(DataLocation::External as i32);
    assert_eq!(
        with_constant(external),
        "constant c: its values are in another file: save the graph as one file"
    );
    let mut other_list = tensor("c", &[4], DataType::Float, vec![]);
    other_list.int64_data = vec![1, 2, 3, 4];
    assert_eq!(
        with_constant(other_list),
        "constant c: has 0 values, but the dimensions [4]"
    );
    assert_eq!(read(&[]).unwrap_err().to_string(), "the file: is empty");
}

/// 1,000 copies of 8 MiB would not fit.
#[test]
fn copies_of_a_constant_share_memory_or_are_left_out() {
    let mut s = Sketch::of([1, 1, 1, 1], false);
    let values = vec![0; 1 << 23];
    s.constants.push(tensor("w", &[1 << 23], DataType::Int8, values));
    s.floats("scale", &[], &[1.0]);
    s.node("Identity", &["w"], "w0", vec![]);
    for i in 0..1000 {
        s.node("Identity", &[&format!("w{i}")], &format!("w{}", i + 1), vec![]);
        s.node("DequantizeLinear", &["w", "scale"], &format!("r{i}"), vec![]);
    }
    s.requantize("x", 1.0, 0);
    s.node("Relu", &["x_r"], "m", vec![]);
    s.requantize("m", 1.0, 0);
    let model = s.finish(&["m_r"]);
    try_graph(&model, Some(Isa::Reference)).unwrap();
    let error = try_graph(&model, None).unwrap_err().to_string();
    assert!(
        error.ends_with(": up to here, tract needs more than 256 MiB"),
        "{error}"
    );
}

#[test]
fn parts_and_orders_that_do_not_exist_are_rejected() {
    for perm in [&[0, 1, 1, 2][..], &[0, 1, 2, -1], &[0, 1, 2, 9], &[0]] {
        error_at_m(&with_node("Transpose", &["a_r"], vec![ints("perm", perm)], &[]));
    }
    let out_of_range = vec![int("axis", 9)];
    error_at_m(&with_node("Concat", &["a_r", "a_r"], out_of_range, &[]));
    error_at_m(&with_node(
        "Reshape",
        &["a_r", "to"],
        vec![],
        &[("to", &[i64::MAX, i64::MAX])],
    ));
    error_at_m(&with_node(
        "Split",
        &["a_r", "to"],
        vec![int("axis", 1)],
        &[("to", &[i64::MIN])],
    ));
    error_at_m(&with_node(
        "Split",
        &["a_r", "to"],
        vec![int("axis", 1)],
        &[("to", &[-8])],
    ));
}

#[test]
fn weights_without_values_are_rejected() {
    for dims in [[0, 8, 1, 1], [8, 8, 0, 0], [8, 0, 1, 1]] {
        let mut model = with_node("Conv", &["a_r", "w2"], vec![], &[]);
        let graph = model.graph.as_mut().unwrap();
        let mut s = Sketch::of([1, 1, 1, 1], false);
        s.weights("w2", &dims, 2);
        let weights = s.finish(&[]).graph.unwrap();
        graph.initializer.extend(weights.initializer);
        let last = graph.node.len() - 3;
        graph.node.splice(last..last, weights.node);
        error_at_m(&model);
    }
}

#[test]
fn dimensions_that_do_not_fit_are_rejected() {
    let expect = |model: &ModelProto, text: &str| {
        assert_eq!(
            format!("{:#}", try_graph(model, Some(Isa::Reference)).unwrap_err()),
            text
        );
    };
    for (dims, text) in [
        ([1, 3, 1 << 20, 1 << 14], "input x: [1, 3, 1048576, 16384] is too large"),
        (
            [1, 3, 1 << 33, 1 << 31],
            "input x: [1, 3, 8589934592, 2147483648] is too large",
        ),
    ] {
        let mut s = Sketch::of(dims, false);
        s.node("Relu", &["x"], "m", vec![]);
        expect(&s.finish(&["m"]), text);
    }
    let mut s = Sketch::of([1, 1, 1, 1], false);
    s.constants.push(tensor("c", &[1 << 40], DataType::Float, vec![0; 4]));
    s.node("Add", &["x", "c"], "m", vec![]);
    expect(&s.finish(&["m"]), "constant c: has the dimensions [1099511627776]");
    let mut s = Sketch::of([1, 1, 1, 1], false);
    s.node("Relu", &["later"], "m", vec![]);
    s.node("Relu", &["m"], "later", vec![]);
    expect(&s.finish(&["m"]), "Relu m: its input later is not computed before it");
    let mut s = Sketch::of([1, 1, 1, 1], false);
    s.node("Relu", &["x"], "m", vec![]);
    s.node("Tanh", &["m"], "m", vec![]);
    expect(&s.finish(&["m"]), "Tanh m: m is computed twice");
    let mut s = Sketch::of([1, 1, 1, 1], false);
    s.node("Relu", &["x"], "m", vec![]);
    expect(&s.finish(&["n"]), "output n: no node computes it");
}

#[test]
fn shapes_other_than_those_of_the_file_are_rejected() {
    let model = with_node("Relu", &["a_r"], vec![], &[]);
    let error = load(&model, &[("x", &[1, 4, 6, 6])], &["m_r"], Some(Isa::Reference)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "input x: is [1, 4, 6, 5] in the file and not [1, 4, 6, 6]"
    );
}

/// Each of the sums has two operands that are one function, so 2⁶⁰ evaluations without a table.
#[test]
fn a_function_of_functions_costs_no_more_than_one() {
    let mut s = Sketch::of([1, 1, 2, 2], false);
    s.requantize("x", 0.01, 0);
    s.node("Sigmoid", &["x_r"], "f0", vec![]);
    for i in 0..60 {
        let before = format!("f{i}");
        s.node("Mul", &[&before, &before], &format!("f{}", i + 1), vec![]);
    }
    s.requantize("f60", 0.01, 0);
    try_graph(&s.finish(&["f60_r"]), Some(Isa::Reference)).unwrap();
}

/// Changes of the kind that damaged and hostile files have.
#[test]
fn changed_graphs_never_panic_here() {
    let edges = [
        0,
        1,
        -1,
        2,
        3,
        127,
        255,
        4096,
        65536,
        1 << 24,
        1 << 31,
        1 << 40,
        i64::MAX,
        i64::MIN,
    ];
    let ops = [
        "Relu",
        "Conv",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "Add",
        "Div",
        "Transpose",
        "Reshape",
        "Concat",
        "Split",
        "Slice",
        "MatMul",
        "Gemm",
        "Softmax",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Clip",
        "ReduceMean",
        "Shape",
        "QuantizeLinear",
        "DequantizeLinear",
        "Identity",
        "LRN",
    ];
    let mut state = 1u64;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    for round in 0..400 {
        let mut model = if round % 2 == 0 {
            varied(round % 4 == 0)
        } else {
            composed(round % 4 == 1)
        };
        let graph = model.graph.as_mut().unwrap();
        for _ in 0..1 + next(2) {
            let count = graph.node.len();
            let names: Vec<String> = graph.node.iter().flat_map(|node| node.output.clone()).collect();
            let constants = graph.initializer.len();
            let node = &mut graph.node[next(count)];
            match next(8) {
                0 => node.op_type = ops[next(ops.len())].into(),
                1 if !node.input.is_empty() => {
                    let at = next(node.input.len());
                    node.input[at] = names[next(names.len())].clone();
                }
                2 if !node.input.is_empty() => {
                    node.input.remove(next(node.input.len()));
                }
                3 => {
                    let count = node.attribute.len();
                    if let Some(attribute) = node.attribute.get_mut(next(count)) {
                        attribute.i = edges[next(edges.len())];
                        let length = attribute.ints.len();
                        if let Some(value) = attribute.ints.get_mut(next(length)) {
                            *value = edges[next(edges.len())];
                        }
                    }
                }
                4 => {
                    let tensor = &mut graph.initializer[next(constants)];
                    let rank = tensor.dims.len();
                    match tensor.dims.get_mut(next(rank)) {
                        Some(dim) => *dim = edges[next(edges.len())],
                        None => tensor.dims.push(edges[next(edges.len())]),
                    }
                }
                5 => {
                    let tensor = &mut graph.initializer[next(constants)];
                    let at = next(tensor.raw_data.len());
                    if let Some(byte) = tensor.raw_data.get_mut(at) {
                        *byte = next(256) as u8;
                    }
                }
                6 => {
                    graph.node.remove(next(count));
                }
                _ => graph.initializer[next(constants)].data_type = next(17) as i32,
            }
        }
        if let Err(error) = try_graph(&model, Some(Isa::Reference))
            && let Some(Panicked { place, message }) = error.downcast_ref()
        {
            assert!(!place.starts_with("src/"), "round {round}: {place}: {message}");
        }
    }
}
