"""The joint cross-attention fusion of Praveen et al. 2022 (arXiv 2203.14779), in the form of its reference code.

Features of L steps, Xa of the voice and Xv of the face, are projected to D channels a step, and J = [Xa; Xv]. Then

    Ca = tanh(Xa^T Wja J / sqrt(2 D))      correlation between feature channels, [D, 2 D]; Wja acts across the steps
    Ha = ReLU(Wa Xa + Wca Ca^T)            [HIDDEN, D]
    Xatt,a = Wha Ha + Xa                   [L, D]

and the same for the face. It differs from the paper in three ways: the mask of present steps is an input, because modalities can
be absent; one graph computes both dimensions; and each dimension has a variance.

A convolution of a concatenation is written as a sum of convolutions (`convolve`), and the two halves of Ca are computed one by
one: OpenVINO loses the scale of s8 values through a Concat.

Tensors are 4-D and every constant weight is a convolution, so that one graph works in many engines. There are two layouts:
"channels" [n, C, 1, L], and "steps" [n, L, 1, C], in which a 1x1 convolution acts across time.
"""

import math

import numpy as np
import torch
from torch import nn

from ..preprocessing.fusion_features import FEATURES as FACE

VOICE = 64  # channels of a voice embedding
STEPS = 8
D = 64
HIDDEN = 32


def convolve(layer, *parts):
    """`layer` on the parts [n, C, 1, L] side by side, as a sum of convolutions with slices of its weight."""
    if not isinstance(layer, nn.Conv2d):  # while training, the voice has another kind of projection
        return layer(torch.cat(parts, dim=1))
    total, first = 0, 0
    for part in parts:
        last = first + part.shape[1]
        total = total + nn.functional.conv2d(part, layer.weight[:, first:last], None if first else layer.bias)
        first = last
    return total


class Attention(nn.Module):
    """One modality's side: (X [n, D, 1, L], the parts of J [n, D, 1, L] each) -> Xatt [n, D, 1, L]."""

    def __init__(self):
        super().__init__()
        self.joint = nn.Conv2d(STEPS, STEPS, 1, bias=False)  # Wja, with 1 / sqrt(2 D) in it
        nn.init.normal_(self.joint.weight, std=1 / math.sqrt(2 * D * STEPS))
        self.own = nn.Conv2d(STEPS, HIDDEN, 1)  # Wa
        self.correlation = nn.Conv2d(2 * D, HIDDEN, 1, bias=False)  # Wca
        self.back = nn.Conv2d(HIDDEN, STEPS, 1)  # Wha

    def forward(self, x, *j):
        rows = x.permute(0, 2, 1, 3)
        c = []
        for part in j:
            weighted = self.joint(part.permute(0, 3, 2, 1))  # [n, L, 1, D]
            product = torch.matmul(rows, weighted.permute(0, 2, 1, 3))  # [n, 1, D, D]
            c.append(torch.tanh(product).permute(0, 3, 1, 2))  # [n, D, 1, D]
        h = torch.relu(self.own(x.permute(0, 3, 2, 1)) + convolve(self.correlation, *c))  # [n, HIDDEN, 1, D]
        return self.back(h).permute(0, 3, 2, 1) + x


class JointCrossAttention(nn.Module):
    """face [n, 42, 1, 8], voice [n, 64, 1, 8], mask [n, 2, 1, 8] -> affect [n, 2, 1, 1], log_variance [n, 2, 1, 1]."""

    def __init__(self, dropout=0.3):
        super().__init__()
        self.face = nn.Conv2d(FACE + 2, D, 1)
        self.voice = nn.Conv2d(VOICE + 2, D, 1)
        self.to_face = Attention()
        self.to_voice = Attention()
        self.regress = nn.Conv2d(2 * D, D, 1)
        self.dropout = nn.Dropout(dropout)
        self.affect = nn.Conv2d(D, 2, (1, STEPS))
        self.log_variance = nn.Conv2d(D, 2, (1, STEPS))
        nn.init.zeros_(self.log_variance.weight)
        nn.init.constant_(self.log_variance.bias, -2.0)

    def forward(self, face, voice, mask):
        xv = self.dropout(torch.relu(convolve(self.face, face, mask)))
        xa = self.dropout(torch.relu(convolve(self.voice, voice, mask)))
        attended = self.to_voice(xa, xa, xv), self.to_face(xv, xa, xv)
        h = self.dropout(torch.relu(convolve(self.regress, *attended)))
        return self.affect(h), self.log_variance(h)


# Weights that the export writes as slices for the parts of `convolve`, in the order of the graph.
SLICED = ("face", "voice", "to_voice.correlation", "to_face.correlation", "regress")


def exported_weights(constants):
    """The state of a network from the constants of its exported graph, {name: array} in the order of the graph.

    Raises ValueError if they are not those of a joint cross-attention of this form.
    """
    state = {name: value.shape for name, value in JointCrossAttention().state_dict().items()}
    slices = [value for name, value in constants.items() if name not in state]
    sliced = [f"{name}.weight" for name in SLICED]
    if len(slices) != 2 * len(sliced) or state.keys() - set(sliced) - constants.keys():
        raise ValueError("other constants than those of joint_cross_attention.py")
    weights = {name: value for name, value in constants.items() if name in state}
    for name, first, second in zip(sliced, slices[::2], slices[1::2], strict=True):
        weights[name] = np.concatenate([first, second], 1)
    wrong = [name for name, shape in state.items() if weights[name].shape != tuple(shape)]
    if wrong:
        raise ValueError(f"{wrong[0]} has the shape {weights[wrong[0]].shape}")
    return {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}


def macs():
    """Multiply-accumulates of one inference."""
    projections = STEPS * D * (FACE + 2 + VOICE + 2)
    side = STEPS * STEPS * 2 * D + D * STEPS * 2 * D + STEPS * HIDDEN * D + 2 * D * HIDDEN * D + HIDDEN * STEPS * D
    return projections + 2 * side + STEPS * 2 * D * D + 2 * 2 * STEPS * D
