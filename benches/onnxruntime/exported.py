"""Exports networks to a folder the way users typically do: with PyTorch's exporter, then onnxruntime's quantize_static.

    python -m benches.onnxruntime.exported FOLDER

A MobileNetV2-like network, a MobileNetV3-like one (squeeze-and-excitation, hard-swish), RepVGG-like ones with merged and with
separate branches, a ResNeXt-like one with grouped convolutions and SiLU, and a small attention block. The weights are random,
and the input is 112x112. Each network is written as NAME.f32.onnx, NAME.s8.onnx (symmetric), NAME.s8a.onnx (any zero point)
and NAME.u8.onnx. agree.py runs them in affectd and in onnxruntime, and compares the outputs.
"""

import argparse
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from .graphs import Reader

SEED = 3
SIDE = 112
CLASSES = 32
OPSET = 17
FORMS = {
    "s8": (QuantType.QInt8, {"ActivationSymmetric": True}),
    "s8a": (QuantType.QInt8, {}),
    "u8": (QuantType.QUInt8, {}),
}


def conv(channels_in, channels_out, kernel=1, stride=1, groups=1, activation=None):
    """Convolution with same padding, batch norm, activation."""
    layers = [
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
    ]
    return nn.Sequential(*layers, *([activation] if activation else []))


class Excitation(nn.Module):
    """Squeeze and excitation: a weight for each channel, computed from the means of all channels."""

    def __init__(self, channels):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 4, 1)
        self.excite = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x):
        mean = nn.functional.adaptive_avg_pool2d(x, 1)
        return x * nn.functional.hardsigmoid(self.excite(torch.relu(self.squeeze(mean))))


class InvertedResidual(nn.Module):
    """The block of MobileNetV2 and V3."""

    def __init__(self, channels_in, channels_out, expansion, stride, kernel, activation, excitation):
        super().__init__()
        wide = channels_in * expansion
        self.layers = nn.Sequential(
            conv(channels_in, wide, activation=activation()),
            conv(wide, wide, kernel, stride, wide, activation()),
            Excitation(wide) if excitation else nn.Identity(),
            conv(wide, channels_out),
        )
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x):
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNet(nn.Module):
    """Six inverted residuals and a head of two linear layers."""

    def __init__(self, activation, excitation, kernel):
        super().__init__()
        layers, channels = [conv(3, 16, 3, 2, activation=activation())], 16
        for channels_out, stride in ((24, 2), (24, 1), (40, 2), (40, 1), (80, 2), (80, 1)):
            layers.append(InvertedResidual(channels, channels_out, 4, stride, kernel, activation, excitation))
            channels = channels_out
        self.features = nn.Sequential(*layers, conv(channels, 160, activation=activation()))
        self.head = nn.Sequential(nn.Linear(160, 128), activation(), nn.Dropout(), nn.Linear(128, CLASSES))

    def forward(self, x):
        return self.head(self.features(x).mean([2, 3]))


class Branches(nn.Module):
    """The block of RepVGG in its training form: the sum of 3x3, 1x1 and identity."""

    def __init__(self, channels_in, channels_out, stride):
        super().__init__()
        self.wide = conv(channels_in, channels_out, 3, stride)
        self.narrow = conv(channels_in, channels_out, 1, stride)
        self.identity = nn.BatchNorm2d(channels_in) if stride == 1 and channels_in == channels_out else None

    def forward(self, x):
        total = self.wide(x) + self.narrow(x)
        return torch.relu(total if self.identity is None else total + self.identity(x))


class RepVGG(nn.Module):
    """3x3 convolutions and ReLU, with merged or separate branches."""

    def __init__(self, merged):
        super().__init__()
        layers, channels = [], 3
        for channels_out, stride in ((24, 2), (24, 1), (48, 2), (48, 1), (96, 2), (96, 1)):
            merged_layer = conv(channels, channels_out, 3, stride, activation=nn.ReLU())
            layers.append(merged_layer if merged else Branches(channels, channels_out, stride))
            channels = channels_out
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x):
        x = nn.functional.adaptive_avg_pool2d(self.features(x), 1)
        return torch.tanh(self.head(torch.flatten(x, 1)))


class Grouped(nn.Module):
    """Grouped convolutions and SiLU, pooling, concatenation and a split."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 32, 3, 2, activation=nn.SiLU())
        self.grouped = conv(32, 32, 3, 1, 8, nn.SiLU())
        self.multiplied = conv(32, 64, 3, 2, 32, nn.LeakyReLU(0.1))
        self.head = nn.Conv2d(64 + 32 + 32, CLASSES, 1)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.grouped(x)
        largest, mean = nn.functional.max_pool2d(x, 3, 2, 1), nn.functional.avg_pool2d(x, 2, 2)
        left, right = torch.cat([self.multiplied(x), largest, mean], 1).chunk(2, 1)
        return self.head(torch.cat([right, left], 1)).mean([2, 3])


class Attention(nn.Module):
    """Patches, multi-headed attention over them, a residual, a linear layer. Softmax stays in f32."""

    def __init__(self, width=48, heads=4):
        super().__init__()
        self.heads = heads
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.queries, self.keys, self.values, self.out = (nn.Linear(width, width) for _ in range(4))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        batch, steps, width = x.shape
        q, k, v = (
            layer(x).view(batch, steps, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.queries, self.keys, self.values)
        )
        weights = torch.softmax(q @ k.transpose(2, 3) * (width // self.heads) ** -0.5, -1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(batch, steps, width))
        return self.head(x.mean(1))


NETWORKS = {
    "mobilenet_v2": lambda: MobileNet(nn.ReLU6, False, 3),
    "mobilenet_v3": lambda: MobileNet(nn.Hardswish, True, 5),
    "repvgg": lambda: RepVGG(True),
    "repvgg_branches": lambda: RepVGG(False),
    "grouped": Grouped,
    "attention": Attention,
}


def images(count):
    """Smooth random images, roughly in -1..1."""
    random = np.random.default_rng(SEED)
    for _ in range(count):
        small = torch.from_numpy(random.normal(0, 0.7, (1, 3, 14, 14)).astype(np.float32))
        yield nn.functional.interpolate(small, size=SIDE, mode="bicubic").numpy()


def export(network, path):
    """Write the network to `path`. Its batch norms are fitted to the images, which keeps the activations in a normal range."""
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.from_numpy(np.concatenate(list(images(8)))))
    network.eval()
    sample = torch.zeros(1, 3, SIDE, SIDE)
    torch.onnx.export(
        network, sample, str(path), dynamo=False, opset_version=OPSET, input_names=["image"], output_names=["scores"]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder that receives the graphs")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger().setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name, build in NETWORKS.items():
        torch.manual_seed(SEED)
        f32 = folder / f"{name}.f32.onnx"
        export(build(), f32)
        quant_pre_process(f32, f32)
        for form, (activations, options) in FORMS.items():
            quantize_static(
                f32,
                folder / f"{name}.{form}.onnx",
                Reader([{"image": image} for image in images(8)]),
                quant_format=QuantFormat.QDQ,
                activation_type=activations,
                weight_type=QuantType.QInt8,
                per_channel=True,
                extra_options=options,
            )
        kinds = sorted({node.op_type for node in onnx.load(f32).graph.node})
        print(f"{name:16} {' '.join(kinds)}")


if __name__ == "__main__":
    main()
