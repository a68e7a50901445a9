"""Cross-layer equalization: rescales channels so that one activation scale fits all channels of a tensor.

A channel may be multiplied by any positive number where it is computed, if every reader divides by it: ReLU, max pooling and
addition commute with positive factors. Without this, a channel of small range loses most of its bits when a neighbour has a
large range, because activations are quantized per tensor. Afterwards all channels of a tensor have about the same range. The
f32 graph computes the same function as before. Kernels lose nothing, because they are quantized per channel.
"""

import numpy as np
import onnx
from onnx import numpy_helper

from ..onnx_graphs import run_graph
from . import quantize


class Channels:
    """Which channels of which tensors must share one factor: a union-find over (tensor, channel)."""

    def __init__(self):
        self.parent = {}

    def root(self, channel):
        self.parent.setdefault(channel, channel)
        while self.parent[channel] != channel:
            channel = self.parent[channel]
        return channel

    def join(self, a, b):
        self.parent[self.root(a)] = self.root(b)


def is_depthwise(node):
    group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return group > 1


def link(graph, widths):
    """Join the channels that each operator passes through. Raises ValueError for other operators."""
    channels = Channels()
    for node in graph.nodes:
        output = node.output[0]
        if node.op_type == "Concat":
            offset = 0
            for name in node.input:
                for c in range(widths[name]):
                    channels.join((name, c), (output, offset + c))
                offset += widths[name]
        elif node.op_type in ("Relu", "MaxPool", "Add"):
            for name in node.input:
                for c in range(widths[name]):
                    channels.join((name, c), (output, c))
        elif node.op_type != "Conv":
            raise ValueError(f"{node.op_type}: a factor cannot pass through it")
    return channels


def channel_ranges(graph, names, feeds, regions):
    """Largest |x| of each channel over the calibration inputs, {name: [channels]}."""
    engine = quantize.probe_session(graph, names)
    largest = dict.fromkeys(names, 0.0)
    for feed, region in zip(feeds, regions, strict=True):
        values = run_graph(engine, feed)
        for name in names:
            largest[name] = np.maximum(largest[name], quantize.magnitudes(values[name], region).max(1, initial=0.0))
    return largest


def equalize(path, feeds, regions=None):
    """Rewrite the f32 graph at `path` in place, equalized on a list of feeds; `regions` as in `quantize.quantize`."""
    graph = quantize.Graph(path)
    widths = {name: value.shape[1] for name, value in graph.constants.items() if value.ndim == 4}
    for value in [*graph.model.graph.input, *graph.model.graph.value_info, *graph.model.graph.output]:
        widths[value.name] = value.type.tensor_type.shape.dim[1].dim_value
    channels = link(graph, widths)
    names = [name for name in graph.activations() if name not in graph.inputs]
    spans = {}
    for name, ranges in channel_ranges(graph, names, feeds, regions or [None] * len(feeds)).items():
        for c, span in enumerate(ranges):
            root = channels.root((name, c))
            spans[root] = max(spans.get(root, 0.0), float(span))
    for name in [*graph.inputs, *graph.outputs]:  # callers see these tensors: they keep their scale
        for c in range(widths[name]):
            spans[channels.root((name, c))] = 1.0

    def factors(name):
        found = [spans.get(channels.root((name, c)), 1.0) for c in range(widths[name])]
        return 1 / np.array([span if span > 0 else 1.0 for span in found])

    weights = {value.name: value for value in graph.model.graph.initializer}
    for node in graph.nodes:
        if node.op_type != "Conv":
            continue
        made, read = factors(node.output[0])[:, None], factors(node.input[0])[None]
        ratio = made / read.T if is_depthwise(node) else made / read
        weight = graph.constants[node.input[1]] * ratio[:, :, None, None]
        bias = graph.constants[node.input[2]] * made[:, 0]
        for name, value in zip(node.input[1:], (weight, bias), strict=True):
            weights[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
    onnx.save(graph.model, path)
