"""How a fusion reads the voice embedding while it trains.

The embedding goes in twice: scaled down, and as the outputs of the voice encoder's heads, which generalize to new speakers
better than single channels do. Both are linear, so they fold into one 1x1 convolution after training.
"""

import torch
from torch import nn

from .joint_cross_attention import VOICE

OWN = 0.3  # scale of the embedding itself
EMOTION = 0.3  # scale of the emotion logits, which makes them about as large as valence and arousal


def readout_of(heads):
    """The heads of the voice encoder as the weight of a 1x1 convolution, [11, VOICE, 1, 1]."""
    return torch.cat([heads.affect.weight, EMOTION * heads.emotion.weight]).detach()[:, :, None, None]


class VoiceProjection(nn.Module):
    """Voice embedding and mask, [n, VOICE + masks, 1, L] -> [n, channels, 1, L], in place of `convolution`."""

    def __init__(self, convolution, readout):
        super().__init__()
        self.register_buffer("readout", readout)
        self.masks = convolution.in_channels - VOICE
        self.project = nn.Conv2d(VOICE + len(readout) + self.masks, convolution.out_channels, 1)

    def forward(self, x):
        voice, mask = x.split([VOICE, self.masks], dim=1)
        return self.project(torch.cat([OWN * voice, nn.functional.conv2d(voice, self.readout), mask], dim=1))

    @torch.no_grad()
    def start_as(self, convolution):
        """Start with weights that compute the same as `convolution`."""
        own, mask = convolution.weight.split([VOICE, self.masks], dim=1)
        read = torch.zeros_like(self.project.weight[:, VOICE : VOICE + len(self.readout)])
        self.project.weight.copy_(torch.cat([own / OWN, read, mask], dim=1))
        self.project.bias.copy_(convolution.bias)

    @torch.no_grad()
    def folded(self):
        """The equivalent 1x1 convolution."""
        own, read, mask = self.project.weight.split([VOICE, len(self.readout), self.masks], dim=1)
        convolution = nn.Conv2d(VOICE + self.masks, self.project.out_channels, 1)
        through = torch.einsum("dr,rv->dv", read[..., 0, 0], self.readout[..., 0, 0])[..., None, None]
        convolution.weight.copy_(torch.cat([OWN * own + through, mask], dim=1))
        convolution.bias.copy_(self.project.bias)
        return convolution


def install(network, readout, trained=False):
    """Replace the layer `voice` of the network, if it has one, by a VoiceProjection; returns the network.

    The projection of a `trained` layer starts with the same function; that of an untrained one starts at random.
    """
    convolution = getattr(network, "voice", None)
    if convolution is not None:
        network.voice = VoiceProjection(convolution, readout)
        if trained:
            network.voice.start_as(convolution)
    return network


def fold(network):
    """Undo `install` after training, with the learnt weights; returns the network."""
    if isinstance(getattr(network, "voice", None), VoiceProjection):
        network.voice = network.voice.folded()
    return network
