"""Fusions to compare joint cross-attention with: same inputs, same outputs, same first and last layers.

All map face [n, 42, 1, 8], voice [n, 64, 1, 8] and mask [n, 2, 1, 8] to affect and log_variance [n, 2, 1, 1].
"""

import math

import torch
from torch import nn

from .joint_cross_attention import FACE, STEPS, VOICE, D, JointCrossAttention


class Readout(nn.Module):
    """Features [n, C, 1, steps] -> affect and log variance, [n, 2, 1, 1] each."""

    def __init__(self, channels, steps, dropout):
        super().__init__()
        self.regress = nn.Conv2d(channels, D, 1)
        self.dropout = nn.Dropout(dropout)
        self.affect = nn.Conv2d(D, 2, (1, steps))
        self.log_variance = nn.Conv2d(D, 2, (1, steps))
        nn.init.zeros_(self.log_variance.weight)
        nn.init.constant_(self.log_variance.bias, -2.0)

    def forward(self, x):
        h = self.dropout(torch.relu(self.regress(x)))
        return self.affect(h), self.log_variance(h)


class Concatenation(nn.Module):
    """The features of both modalities side by side, over all steps or the newest step only."""

    def __init__(self, steps=STEPS, dropout=0.3):
        super().__init__()
        self.steps = steps
        self.face = nn.Conv2d(FACE + 2, D, 1)
        self.voice = nn.Conv2d(VOICE + 2, D, 1)
        self.dropout = nn.Dropout(dropout)
        self.readout = Readout(2 * D, steps, dropout)

    def forward(self, face, voice, mask):
        if self.steps < STEPS:
            face, voice, mask = (part[..., -self.steps :] for part in (face, voice, mask))
        xv = torch.relu(self.face(torch.cat([face, mask], dim=1)))
        xa = torch.relu(self.voice(torch.cat([voice, mask], dim=1)))
        return self.readout(self.dropout(torch.cat([xa, xv], dim=1)))


class CrossAttention(nn.Module):
    """Dot-product cross-attention: the steps of each modality query those of the other; softmax over present steps."""

    def __init__(self, dropout=0.3):
        super().__init__()
        self.face = nn.Conv2d(FACE + 2, D, 1)
        self.voice = nn.Conv2d(VOICE + 2, D, 1)
        self.query = nn.ModuleList(nn.Conv2d(D, D, 1) for _ in range(2))
        self.key = nn.ModuleList(nn.Conv2d(D, D, 1) for _ in range(2))
        self.value = nn.ModuleList(nn.Conv2d(D, D, 1) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.readout = Readout(2 * D, STEPS, dropout)

    def attend(self, side, x, other, present):
        query, key, value = (
            part[:, :, 0] for part in (self.query[side](x), self.key[side](other), self.value[side](other))
        )
        scores = torch.matmul(query.transpose(1, 2), key) / math.sqrt(D) - 1e4 * (1 - present)
        return x + torch.matmul(value, scores.softmax(-1).transpose(1, 2))[:, :, None]

    def forward(self, face, voice, mask):
        xv = self.dropout(torch.relu(self.face(torch.cat([face, mask], dim=1))))
        xa = self.dropout(torch.relu(self.voice(torch.cat([voice, mask], dim=1))))
        attended = [self.attend(0, xa, xv, mask[:, 0]), self.attend(1, xv, xa, mask[:, 1])]
        return self.readout(torch.cat(attended, dim=1))


class Recurrent(nn.Module):
    """A gated recurrent network over the steps, with the features of both modalities side by side."""

    def __init__(self, dropout=0.3):
        super().__init__()
        self.face = nn.Conv2d(FACE + 2, D, 1)
        self.voice = nn.Conv2d(VOICE + 2, D, 1)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(2 * D, D, batch_first=True)
        self.readout = Readout(D, 1, dropout)

    def forward(self, face, voice, mask):
        xv = torch.relu(self.face(torch.cat([face, mask], dim=1)))
        xa = torch.relu(self.voice(torch.cat([voice, mask], dim=1)))
        steps = self.dropout(torch.cat([xa, xv], dim=1))[:, :, 0].transpose(1, 2)
        states, _ = self.gru(steps)
        return self.readout(states[:, -1, :, None, None])


class SingleModality(nn.Module):
    """A head for one modality only: 0 is the face, 1 the voice."""

    def __init__(self, modality, dropout=0.3):
        super().__init__()
        self.modality = modality
        self.face = None if modality else nn.Conv2d(FACE + 1, D, 1)
        self.voice = nn.Conv2d(VOICE + 1, D, 1) if modality else None
        self.dropout = nn.Dropout(dropout)
        self.readout = Readout(D, STEPS, dropout)

    def forward(self, face, voice, mask):
        own = torch.cat([(face, voice)[self.modality], mask[:, self.modality : self.modality + 1]], dim=1)
        x = self.voice(own) if self.modality else self.face(own)
        return self.readout(self.dropout(torch.relu(x)))


class LateAverage(nn.Module):
    """The mean of two SingleModality heads, weighted by inverse variance; an absent modality has weight 0.

    Each head is trained separately. With `plain` all weights are equal.
    """

    def __init__(self, face, voice, plain=False):
        super().__init__()
        self.heads, self.plain = nn.ModuleList([face, voice]), plain

    def forward(self, face, voice, mask):
        outputs = [head(face, voice, mask) for head in self.heads]
        present = [(mask[:, m : m + 1].amax(-1, keepdim=True) > 0).float() for m in range(2)]
        precision = [
            p * (1.0 if self.plain else torch.exp(-variance.clamp(-6, 1)))
            for p, (_, variance) in zip(present, outputs, strict=True)
        ]
        total = (precision[0] + precision[1]).clamp(min=1e-6)
        affect = (precision[0] * outputs[0][0] + precision[1] * outputs[1][0]) / total
        return affect, (precision[0] * outputs[0][1] + precision[1] * outputs[1][1]) / total


HEADS = {
    "joint cross-attention": JointCrossAttention,
    "cross-attention": CrossAttention,
    "concatenation, 8 steps": Concatenation,
    "concatenation, newest step": lambda: Concatenation(1),
    "recurrent": Recurrent,
    "face alone": lambda: SingleModality(0),
    "voice alone": lambda: SingleModality(1),
}
