"""The voice encoder: a plain strided convolution net from a log-mel window [n, 1, 64, 96] to an embedding [n, 64, 1, 1].

While it trains, two heads read the embedding. They are not exported.
"""

import torch
from torch import nn

from ..labels import SPEECH_EMOTIONS
from ..preprocessing.log_mel import LOG_MEL

EMBEDDING = 64
# (input channels, output channels, kernel, stride, padding) from [1, 64, 96] down to [128, 1, 6].
LAYERS = [
    (1, 16, (3, 3), (2, 2), (1, 1)),
    (16, 32, (3, 3), (2, 2), (1, 1)),
    (32, 64, (3, 3), (2, 2), (1, 1)),
    (64, 80, (3, 3), (2, 2), (1, 1)),
    (80, 96, (3, 3), (2, 1), (1, 1)),
    (96, 128, (2, 1), (1, 1), (0, 0)),
]
DROPOUT = 0.2


def layer_sizes():
    """(height, width) of each layer's output."""
    height, width, result = LOG_MEL.bands, LOG_MEL.frames, []
    for _, _, kernel, stride, padding in LAYERS:
        height = (height + 2 * padding[0] - kernel[0]) // stride[0] + 1
        width = (width + 2 * padding[1] - kernel[1]) // stride[1] + 1
        result.append((height, width))
    return result


class VoiceEncoder(nn.Module):
    """[n, 1, 64, 96] -> embedding [n, 64, 1, 1], never negative."""

    def __init__(self):
        super().__init__()
        layers = []
        for inputs, outputs, kernel, stride, padding in LAYERS:
            layers += [
                nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.convolutions = nn.Sequential(*layers)
        _, frames = layer_sizes()[-1]
        self.mean = nn.AvgPool2d((1, frames))
        self.max = nn.MaxPool2d((1, frames))
        self.dropout = nn.Dropout(DROPOUT)
        self.embedding = nn.Conv2d(2 * LAYERS[-1][1], EMBEDDING, 1)

    def forward(self, window):
        x = self.convolutions(window)
        pooled = torch.cat([self.mean(x), self.max(x)], dim=1)
        return torch.relu(self.embedding(self.dropout(pooled)))


class Heads(nn.Module):
    """Embedding [n, 64, 1, 1] -> (valence and arousal [n, 2], emotion logits [n, 9]). The ninth class is "not a voice"."""

    def __init__(self):
        super().__init__()
        self.affect = nn.Linear(EMBEDDING, 2)
        self.emotion = nn.Linear(EMBEDDING, len(SPEECH_EMOTIONS) + 1)

    def forward(self, embedding):
        flat = embedding.flatten(1)
        return self.affect(flat), self.emotion(flat)


def network_input(powers):
    """Band powers, a tensor [n, 64, 96] -> the network's input [n, 1, 64, 96]."""
    windows = LOG_MEL.normalize(powers)[:, None]
    return windows.contiguous(memory_format=torch.channels_last)  # 1.5 times as fast on a CPU


def macs():
    """Multiply-accumulates of one inference."""
    layers = zip(LAYERS, layer_sizes(), strict=True)
    total = sum(i * o * k[0] * k[1] * height * width for (i, o, k, _, _), (height, width) in layers)
    return total + 2 * LAYERS[-1][1] * EMBEDDING
