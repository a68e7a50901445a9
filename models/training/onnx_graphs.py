"""Opens ONNX graphs in onnxruntime, runs them, and reads their shapes and cost."""

from pathlib import Path

import numpy as np
import onnxruntime

from .arguments import BadInput


def open_graph(path_or_model):
    """An onnxruntime session on one thread that computes a graph (a path or an onnx.ModelProto) exactly as written.

    Without optimizations a QDQ graph runs as f32 between its pairs: the integer arithmetic, up to f32 rounding.
    The fused int8 kernels of onnxruntime are not used, because they saturate 16-bit sums on x86 processors without VNNI.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if isinstance(path_or_model, str | Path):
        if not Path(path_or_model).exists():
            raise BadInput(f"{path_or_model}: no such graph: name the folder with manifest.json and *.int8.onnx")
        source = str(path_or_model)
    else:
        source = path_or_model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run_graph(session, inputs):
    """One inference: {input name: array} -> {output name: array}."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def compare_graphs(f32_path, int8_path, inputs):
    """Distance of the int8 graph from the f32 graph over an iterable of feeds: {output: {"cosine", "max_difference"}}."""
    exact, quantized = open_graph(f32_path), open_graph(int8_path)
    pairs = {}
    for feed in inputs:
        ours = run_graph(quantized, feed)
        for name, value in run_graph(exact, feed).items():
            pairs.setdefault(name, []).append((value.ravel().astype(np.float64), ours[name].ravel().astype(np.float64)))
    report = {}
    for name, values in pairs.items():
        a, b = (np.concatenate(side) for side in zip(*values, strict=True))
        report[name] = {"cosine": cosine(a, b), "max_difference": float(np.abs(a - b).max())}
    return report


def cosine(a, b):
    """Cosine of the angle between two f64 vectors; 0 if one of them is zero."""
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30))


def shapes(path):
    """({input: shape}, {output: shape}) of a graph file."""
    import onnx

    graph = onnx.load(path).graph
    return tuple(
        {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in values}
        for values in (graph.input, graph.output)
    )


def count_macs(path_or_model):
    """Multiply-accumulates of one inference: convolutions and matrix products."""
    import onnx

    is_path = isinstance(path_or_model, str | Path)
    model = onnx.shape_inference.infer_shapes(onnx.load(path_or_model) if is_path else path_or_model, strict_mode=True)
    sizes = {value.name: list(value.dims) for value in model.graph.initializer}
    for value in [*model.graph.input, *model.graph.value_info, *model.graph.output]:
        sizes[value.name] = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            total += int(np.prod(sizes[node.output[0]]) * np.prod(sizes[node.input[1]][1:]))
        elif node.op_type == "MatMul":
            total += int(np.prod(sizes[node.output[0]]) * sizes[node.input[0]][-1])
    return total


def softmax(logits):
    """Rows of logits [n, k] -> rows that sum to 1, in the precision of the input."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
