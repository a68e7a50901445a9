"""Post-training quantization of an f32 ONNX graph to symmetric s8 in QDQ form.

Input: a static graph of opset 13, with constant-weight linear layers written as Conv and batch norms folded, and feeds
{input name: array} to calibrate on. Output: the same graph with a QuantizeLinear/DequantizeLinear pair of zero point 0 on
every value between two operators, s8 weights with a scale for each output channel, and s32 biases at (input scale x weight
scale). It differs from the quantizer of onnxruntime in five ways:

- There is no pair between Conv or Add and the ReLU after it. An engine can fuse both and rounds once.
- Operators that only move values (Concat, MaxPool, Reshape, ...) have one scale on all sides and need no arithmetic.
- Graph outputs stay f32, directly from the last accumulator. An s8 grid would cost the boxes of a detector a pixel.
- A Conv that computes a graph output gets a pair of its own if a quantized operator reads the same tensor: RKNN rejects a pair
  that both share.
- A range is the one with the least squared error on the calibration data, not the extreme: one outlier would cost all other
  values a bit.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..onnx_graphs import open_graph, run_graph

MOVES_VALUES = {
    "Concat", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
}  # fmt: skip
# Operators whose constant operands are values of the same kind as their other operand, and are quantized with it.
TAKES_CONSTANT_VALUES = {"Add", "Sub", "Mul", "Div", "Concat", "MatMul"}
BINS = 2048


class Graph:
    """An f32 graph, with its constants and the readers of each tensor."""

    def __init__(self, path):
        self.model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
        opset = {entry.domain: entry.version for entry in self.model.opset_import}.get("")
        if opset != 13:
            raise ValueError(f"{path}: opset {opset}, must be 13")
        graph = self.model.graph
        self.constants = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
        self.nodes = []
        for node in graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(helper.get_node_attr_value(node, "value"))
            elif node.op_type in ("BatchNormalization", "Gemm"):
                raise ValueError(f"{path}: {node.op_type} {node.name}: fold it into a Conv or write it as one")
            else:
                self.nodes.append(node)
        self.inputs = [value.name for value in graph.input if value.name not in self.constants]
        self.outputs = [value.name for value in graph.output]
        self.readers = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.floats = set()
        for value in [*graph.input, *graph.value_info, *graph.output]:
            kind = value.type.tensor_type
            if any(not dimension.dim_value for dimension in kind.shape.dim):
                raise ValueError(f"{path}: {value.name} has no static shape")
            if kind.elem_type == onnx.TensorProto.FLOAT:
                self.floats.add(value.name)

    def is_before_relu(self, name):
        readers = self.readers.get(name, [])
        return len(readers) == 1 and readers[0].op_type == "Relu" and name not in self.outputs

    def is_head(self, node):
        return node.op_type == "Conv" and node.output[0] in self.outputs

    def needs_own_pair(self, node, name):
        """Whether `node` needs a pair for its input `name` besides the one that other readers use."""
        return self.is_head(node) and not all(self.is_head(reader) for reader in self.readers[name])

    def activations(self):
        """Names of the tensors that get a pair: graph inputs, and operator outputs that another operator reads."""
        names = [name for name in self.inputs if name in self.floats]
        for node in self.nodes:
            fused = node.op_type in ("Conv", "Add")
            names += [
                name
                for name in node.output
                if name in self.floats and name in self.readers and not (fused and self.is_before_relu(name))
            ]
        return names

    def is_value_constant(self, node, name):
        """Whether `name` is a constant operand of `node` that stands for activations, not for weights or parameters."""
        constant = self.constants.get(name)
        return constant is not None and constant.dtype == np.float32 and node.op_type in TAKES_CONSTANT_VALUES


def best_range(histogram, limit):
    """The clipping range of least squared error, rounding and clipping together, for |x| histogrammed in 0..limit."""
    centres = (np.arange(BINS) + 0.5) * limit / BINS
    best, least = limit, np.inf
    for bins in range(BINS // 16, BINS + 1, 8):
        threshold = bins * limit / BINS
        rounding = histogram[:bins].sum() * (threshold / 127) ** 2 / 12
        clipping = histogram[bins:] @ (centres[bins:] - threshold) ** 2
        if rounding + clipping < least:
            best, least = threshold, rounding + clipping
    return best


def probe_session(graph, names):
    """A session of the f32 graph that also outputs the tensors `names`."""
    probe = onnx.ModelProto()
    probe.CopyFrom(graph.model)
    present = {*graph.outputs, *graph.inputs}
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in present)
    return open_graph(probe)


def magnitudes(value, region):
    """|x| of a tensor: [channels, positions] for [1, C, H, W], only where `region(H, W)` is true (None: everywhere)."""
    value = np.abs(value)
    if value.ndim != 4:
        return value.reshape(1, -1)
    return value[0].reshape(value.shape[1], -1) if region is None else value[0][:, region(*value.shape[2:])]


def calibrate(graph, names, feeds, regions, clip):
    """Range of |x| of each tensor over the calibration feeds, {name: range}. Exact zeros are not counted: they round to zero."""
    engine = probe_session(graph, names)
    limits = dict.fromkeys(names, 0.0)
    for feed, region in zip(feeds, regions, strict=True):
        values = {**run_graph(engine, feed), **feed}
        for name in names:
            limits[name] = max(limits[name], float(magnitudes(values[name], region).max(initial=0.0)))
    clipped = [name for name in names if clip and name not in graph.inputs and limits[name] > 0]
    histograms = {name: np.zeros(BINS) for name in clipped}
    for feed, region in zip(feeds, regions, strict=True) if clipped else ():
        values = run_graph(engine, feed)
        for name in clipped:
            seen = magnitudes(values[name], region)
            histograms[name] += np.histogram(seen[seen != 0], BINS, (0, limits[name]))[0]
    return limits | {name: best_range(histograms[name], limits[name]) for name in clipped}


def share_ranges(graph, ranges):
    """Give all sides of an operator that only moves values the widest of their ranges, in place."""
    group = {name: name for name in ranges}

    def root(name):
        while group[name] != name:
            name = group[name]
        return name

    for node in graph.nodes:
        if node.op_type in MOVES_VALUES:
            sides = [root(name) for name in [*node.input, *node.output] if name in ranges]
            for side in sides[1:]:
                group[root(side)] = root(sides[0])
    widest = {}
    for name, value in ranges.items():
        widest[root(name)] = max(widest.get(root(name), 0.0), value)
    for name in ranges:
        ranges[name] = widest[root(name)]


class Writer:
    """Collects the nodes and constants of the quantized graph."""

    def __init__(self):
        self.nodes, self.constants = [], {}

    def constant(self, name, value):
        self.constants[name] = value
        return name

    def pair(self, name, scale, reader=None):
        """Add a pair for tensor `name`, or for one `reader` of it; returns the name that later nodes read."""
        scale = self.constant(f"{name}_scale", np.float32(scale))
        zero = self.constant(f"{name}_zero_point", np.int8(0))
        own = name if reader is None else f"{name}_for_{reader}"
        self.nodes.append(helper.make_node("QuantizeLinear", [name, scale, zero], [f"{own}_s8"], f"{own}_quantize"))
        return self.dequantize(own, f"{own}_s8", scale, zero)

    def dequantize(self, name, integers, scale, zero, axis=None):
        attributes = {} if axis is None else {"axis": axis}
        output = f"{name}_dq"
        self.nodes.append(
            helper.make_node("DequantizeLinear", [integers, scale, zero], [output], f"{name}_dequantize", **attributes)
        )
        return output

    def fixed(self, name, value, scale, kind=np.int8, axis=None):
        """Store a constant as integers of `kind`; `scale` is one number, or one for each entry of `axis`."""
        scale = np.asarray(scale, np.float32)
        top = np.iinfo(kind).max
        shape = [-1 if i == axis else 1 for i in range(value.ndim)] if axis is not None else []
        integers = np.clip(np.rint(value.astype(np.float64) / scale.astype(np.float64).reshape(shape)), -top, top)
        return self.dequantize(
            name,
            self.constant(f"{name}_integers", integers.astype(kind)),
            self.constant(f"{name}_scale", scale),
            self.constant(f"{name}_zero_point", np.zeros(scale.shape, kind)),
            axis,
        )


def quantize(f32_path, int8_path, calibration, clip=True, keep_f32=(), regions=None):
    """Write the s8 QDQ form of `f32_path` to `int8_path`.

    `calibration` yields feeds {input name: array}. `clip=False` takes ranges from the extremes instead of the least squared
    error. Tensors named in `keep_f32` get no pair. `regions`, one function for each feed, selects the positions of a feature
    map that count (see `magnitudes`).
    """
    graph = Graph(f32_path)
    feeds = list(calibration)
    names = [name for name in graph.activations() if name not in keep_f32]
    ranges = calibrate(graph, names, feeds, regions or [None] * len(feeds), clip)
    for node in graph.nodes:
        if node.op_type == "Concat":
            ranges |= {
                name: float(np.abs(graph.constants[name]).max())
                for name in node.input
                if graph.is_value_constant(node, name)
            }
    share_ranges(graph, ranges)
    scales = {name: (value if value > 0 else 1.0) / 127 for name, value in ranges.items()}

    writer, reads = Writer(), {}
    for name in graph.inputs:
        if name in scales:
            reads[name] = writer.pair(name, scales[name])
    for node in graph.nodes:
        inputs = [reads.get(name, name) for name in node.input]
        if node.op_type == "Conv":
            if node.input[0] in scales and graph.needs_own_pair(node, node.input[0]):
                inputs[0] = writer.pair(node.input[0], scales[node.input[0]], node.output[0])
            inputs[1:] = quantized_weights(writer, graph, node, scales.get(node.input[0]), reads)
        for i, name in enumerate(node.input):
            if graph.is_value_constant(node, name):
                value = graph.constants[name]
                scale = scales.get(name, max(float(np.abs(value).max()), 1e-9) / 127)
                if name not in reads:
                    reads[name] = writer.fixed(name, value, scale)
                inputs[i] = reads[name]
            elif name in graph.constants and inputs[i] == name:
                writer.constant(name, graph.constants[name])
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = inputs
        writer.nodes.append(copy)
        for name in node.output:
            if name in scales:
                reads[name] = writer.pair(name, scales[name])
    save(graph, writer, int8_path)


def quantized_weights(writer, graph, node, input_scale, reads):
    """Names of the dequantized weight and bias of a Conv; `reads` has what was written before."""
    weight = graph.constants[node.input[1]]
    bias = graph.constants[node.input[2]] if len(node.input) > 2 else None
    scale = np.abs(weight).max(axis=tuple(range(1, weight.ndim))).astype(np.float64) / 127
    scale = np.maximum(scale, 1e-9)
    if bias is not None and input_scale is not None:
        # For a channel with tiny weights and a large bias, widen the weight scale until the bias fits 32 bits.
        scale = np.maximum(scale, np.abs(bias) / (input_scale * 2.0**30))
    if bias is None:
        if node.input[1] not in reads:  # several convolutions may share a weight
            reads[node.input[1]] = writer.fixed(node.input[1], weight, scale, axis=0)
        return [reads[node.input[1]]]
    names = [writer.fixed(node.input[1], weight, scale, axis=0)]
    if input_scale is None:
        return [*names, writer.constant(node.input[2], bias)]
    return [*names, writer.fixed(node.input[2], bias, scale * input_scale, np.int32, axis=0)]


def save(graph, writer, path):
    """Write the collected nodes as a checked model with the inputs and outputs of `graph`."""
    used = {name for node in writer.nodes for name in node.input}
    initializers = [numpy_helper.from_array(np.asarray(v), n) for n, v in writer.constants.items() if n in used]
    source = graph.model.graph
    built = helper.make_graph(writer.nodes, source.name, list(source.input), list(source.output), initializers)
    model = helper.make_model(built, opset_imports=[helper.make_opsetid("", 13)], producer_name="affectd")
    model.ir_version = 8
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
