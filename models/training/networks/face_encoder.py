"""The face encoder: a plain convolutional net from a normalized face [n, 1, 48, 48] to scores [n, 18].

The scores (preprocessing/face_scores.py) are one layer, because some toolchains refuse two heads that read one quantized tensor.
"""

import math

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn
from torch.nn import functional as F

from ..preprocessing.face_crop import CLAMP_DEVIATIONS, MIN_DEVIATION, SIZE
from ..preprocessing.face_scores import SCORES, SHOWN, VOTES

NAME = "face_encoder"

# (output channels, stride) of the 3x3 convolutions, and the size of their output.
LAYERS = [
    (32, 2),  # 24x24
    (32, 1),
    (64, 2),  # 12x12
    (64, 1),
    (64, 1),
    (128, 2),  # 6x6
    (128, 1),
    (128, 1),
    (192, 2),  # 3x3
    (192, 1),
]


def standardize(faces):
    """Luma [n, 1, 48, 48] in 0..255 -> the network's input in -1..1: `face_crop.normalize` for a torch batch."""
    mean = faces.mean((2, 3), keepdim=True)
    deviation = faces.std((2, 3), keepdim=True, correction=0).clamp_min(MIN_DEVIATION)
    return ((faces - mean) / deviation).clamp(-CLAMP_DEVIATIONS, CLAMP_DEVIATIONS) / CLAMP_DEVIATIONS


class PlainConv(nn.Module):
    """3x3 convolution, batch norm, ReLU.

    Where shapes allow, the kernel is learnt as a difference from the identity. That trains like a residual block, and is one
    plain convolution afterwards, without an addition to run or quantize.
    """

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3) * math.sqrt(2 / (9 * inputs)))
        self.norm = nn.BatchNorm2d(outputs)
        identity = torch.zeros(outputs, inputs, 3, 3)
        if stride == 1 and inputs == outputs:
            nn.init.dirac_(identity)
        self.register_buffer("identity", identity, persistent=False)

    def forward(self, x):
        return F.relu(self.norm(F.conv2d(x, self.weight + self.identity, stride=self.stride, padding=1)))

    @torch.no_grad()
    def folded(self):
        """Kernel and bias with the identity and the batch norm folded in, numpy f32."""
        scale = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        weight = (self.weight + self.identity) * scale.view(-1, 1, 1, 1)
        return weight.numpy(), (self.norm.bias - self.norm.running_mean * scale).numpy()


class FaceEncoder(nn.Module):
    """Normalized faces [n, 1, 48, 48] -> scores [n, 18]."""

    def __init__(self):
        super().__init__()
        channels = [1] + [outputs for outputs, _ in LAYERS]
        self.body = nn.Sequential(
            *(
                PlainConv(inputs, outputs, stride)
                for inputs, (outputs, stride) in zip(channels[:-1], LAYERS, strict=True)
            )
        )
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(channels[-1], SCORES)

    def forward(self, faces):
        return self.head(self.dropout(self.body(faces).mean((2, 3))))


def macs():
    """Multiply-accumulates of one inference."""
    total, inputs, side = 0, 1, SIZE
    for outputs, stride in LAYERS:
        side //= stride
        total += 9 * inputs * outputs * side * side
        inputs = outputs
    return total + inputs * SCORES


def export(net, temperatures, path):
    """Write the net as a static ONNX graph, face [1, 1, 48, 48] -> scores [1, 18, 1, 1].

    Batch norms are folded into the convolutions, and the softmax `temperatures` of VOTES and SHOWN into the head.
    """
    nodes, constants, last = [], {}, "face"
    for i, layer in enumerate(net.body):
        constants[f"conv_{i}_weight"], constants[f"conv_{i}_bias"] = layer.folded()
        inputs = [last, f"conv_{i}_weight", f"conv_{i}_bias"]
        attributes = {"kernel_shape": [3, 3], "strides": [layer.stride] * 2, "pads": [1, 1, 1, 1]}
        nodes.append(helper.make_node("Conv", inputs, [f"conv_{i}"], f"conv_{i}", **attributes))
        nodes.append(helper.make_node("Relu", [f"conv_{i}"], [f"relu_{i}"], f"relu_{i}"))
        last = f"relu_{i}"
    scale = np.ones(SCORES, np.float32)
    for logits, temperature in zip((VOTES, SHOWN), temperatures, strict=True):
        scale[logits] /= temperature
    constants["head_weight"] = net.head.weight.detach().numpy()[:, :, None, None] * scale[:, None, None, None]
    constants["head_bias"] = net.head.bias.detach().numpy() * scale
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"], "pool"))
    inputs = ["pooled", "head_weight", "head_bias"]
    nodes.append(helper.make_node("Conv", inputs, ["scores"], "head", kernel_shape=[1, 1]))
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("face", kind, [1, 1, SIZE, SIZE])],
        [helper.make_tensor_value_info("scores", kind, [1, SCORES, 1, 1])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="affectd")
    model.ir_version = 8
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
