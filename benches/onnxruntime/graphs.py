"""Writes the graphs that compare.py measures into a folder.

    python -m benches.onnxruntime.graphs FOLDER [--models DIR]

Two encoders of the kinds that boards run, with random weights: a MobileNetV2-like one (1x1 and depthwise 3x3 convolutions,
ReLU6, residuals) and a RepVGG-like one (3x3 convolutions and ReLU only). Input 112x112, about 65 M multiply-accumulates each.
Every network is written as NAME.f32.onnx, NAME.int8.onnx (symmetric s8, the form that affectd ships) and NAME.u8.onnx
(by onnxruntime's own quantizer, the form for its x86 kernels). Of the graphs in --models only the u8 form is written, because
the other two exist there.

Weights and calibration data are random: the outputs have no meaning, and only the time is measured.
"""

import argparse
import logging
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from models.training.arguments import ROOT
from models.training.onnx_graphs import count_macs
from models.training.quantization.quantize import quantize

SEED = 3
CALIBRATION_INPUTS = 8
INPUT = ("image", [1, 3, 112, 112])
OUTPUT = ("embedding", [1, 128, 1, 1])


class Network:
    """Builds an f32 graph: each method adds one operator and returns the name of its output."""

    def __init__(self, name):
        self.name = name
        self.random = np.random.default_rng(SEED)
        self.nodes, self.constants = [], {}

    def add(self, kind, inputs, **attributes):
        """Add an operator of this kind."""
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, name, value):
        """Add a constant; returns its name."""
        self.constants[name] = np.asarray(value, np.float32)
        return name

    def conv(self, source, channels_in, channels_out, kernel=3, stride=1, groups=1, gain=2.0):
        """A convolution with same padding. `gain` is 2 before a ReLU (He) and 1 otherwise, so that values keep their size."""
        name = f"conv_{len(self.nodes)}"
        shape = (channels_out, channels_in // groups, kernel, kernel)
        weight = self.random.normal(0, np.sqrt(gain / np.prod(shape[1:])), shape)
        bias = self.random.normal(0, 0.05, channels_out)
        return self.add(
            "Conv",
            [source, self.constant(f"{name}_weight", weight), self.constant(f"{name}_bias", bias)],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=groups,
        )

    def relu(self, source):
        """Add a ReLU."""
        return self.add("Relu", [source])

    def relu6(self, source):
        """Add a ReLU6."""
        return self.add("Clip", [source, self.constant("zero", 0), self.constant("six", 6)])

    def write(self, path):
        """Write the graph to `path`. The output of the last operator becomes the output of the graph."""
        self.nodes[-1].output[0] = OUTPUT[0]
        values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in (INPUT, OUTPUT)]
        initializers = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, self.name, values[:1], values[1:], initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="affectd")
        model.ir_version = 8
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)


def mobilenet_v2(path):
    """The published stages at half the usual resolution, without the two widest layers, which serve 1000 classes."""
    net = Network("mobilenet_v2")
    x = net.relu6(net.conv(INPUT[0], 3, 32, stride=2))
    channels = 32
    for expansion, channels_out, blocks, first_stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
    ):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            wide = channels * expansion
            y = net.relu6(net.conv(x, channels, wide, kernel=1)) if expansion > 1 else x
            y = net.relu6(net.conv(y, wide, wide, stride=stride, groups=wide))
            y = net.conv(y, wide, channels_out, kernel=1, gain=1.0)
            x = net.add("Add", [x, y]) if stride == 1 and channels == channels_out else y
            channels = channels_out
    x = net.add("GlobalAveragePool", [x])
    net.conv(x, channels, OUTPUT[1][1], kernel=1, gain=1.0)
    net.write(path)


def repvgg(path):
    """RepVGG in its inference form, with the branches of a layer merged into one 3x3 convolution, and with narrow stages."""
    net = Network("repvgg")
    x, channels = INPUT[0], 3
    for channels_out, layers in ((32, 1), (32, 2), (64, 4), (128, 3), (192, 1)):
        for layer in range(layers):
            x = net.relu(net.conv(x, channels, channels_out, stride=2 if layer == 0 else 1))
            channels = channels_out
    x = net.add("GlobalAveragePool", [x])
    net.conv(x, channels, OUTPUT[1][1], kernel=1, gain=1.0)
    net.write(path)


def make_feeds(path, count):
    """Random inputs for a graph file, uniform in -1..1: a list of `count` {name: array}."""
    random = np.random.default_rng(SEED)
    inputs = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in onnx.load(path).graph.input
    }
    return [
        {name: random.uniform(-1, 1, shape).astype(np.float32) for name, shape in inputs.items()} for _ in range(count)
    ]


class Reader(CalibrationDataReader):
    """A list of feeds in the interface of onnxruntime's quantizer."""

    def __init__(self, inputs):
        self.inputs = iter(inputs)

    def get_next(self):
        """The next feed, or None at the end."""
        return next(self.inputs, None)


def write_s8(f32, s8):
    """Quantize to s8, without a pair between a convolution and the ReLU6 after it, so that values are rounded once.

    `quantize` does that on its own for ReLU.
    """
    nodes = onnx.load(f32).graph.node
    before_relu6 = [node.input[0] for node in nodes if node.op_type == "Clip"]
    quantize(f32, s8, make_feeds(f32, CALIBRATION_INPUTS), keep_f32=before_relu6)


def write_u8(f32, u8):
    """Quantize to u8 with onnxruntime."""
    quantize_static(
        f32,
        u8,
        Reader(make_feeds(f32, CALIBRATION_INPUTS)),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=Path, default=ROOT / "models", metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    # onnxruntime warns that its preprocessing is missing, which would fold constants that are already folded.
    logging.getLogger().setLevel(logging.ERROR)

    for build in (mobilenet_v2, repvgg):
        f32 = arguments.folder / f"{build.__name__}.f32.onnx"
        build(f32)
        write_s8(f32, arguments.folder / f"{build.__name__}.int8.onnx")

    for f32 in sorted([*arguments.folder.glob("*.f32.onnx"), *arguments.models.glob("*.f32.onnx")]):
        name = f32.name.removesuffix(".f32.onnx")
        write_u8(f32, arguments.folder / f"{name}.u8.onnx")
        print(f"{name:16} {count_macs(f32) / 1e6:6.1f} M MAC")


if __name__ == "__main__":
    main()
