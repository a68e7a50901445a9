"""Performances: acted recordings with a voice embedding every 0.1 s and face scores at their video frames.

Of the RAVDESS actors there are no frames here. Their scores are translated from the posteriors of another public network on the
same performances (`Translation`). Other speech corpora have a voice only.
"""

import dataclasses

import numpy as np
import torch

from .. import labels
from ..augmentation import voices
from ..augmentation.face_scores import anchored
from ..networks.joint_cross_attention import VOICE
from ..networks.voice_encoder import network_input
from ..preprocessing.face_scores import SCORES
from ..preprocessing.log_mel import LOG_MEL

GRID_S = 0.1  # from one voice embedding to the next
GRID = int(GRID_S * LOG_MEL.rate_hz)
VIDEO_HZ = 30_000 / 1001
EXPRESSIONS = labels.EXPRESSIONS[:7]  # of that network: without contempt
SOURCE_NAMES = ["Neutral", "Happy", "Surprised", "Sad", "Angry", "Disgust", "Fearful"]  # in the files of that network


@dataclasses.dataclass
class Performance:
    """One recording, its voice at the grid points g * 0.1 s and its faces at video frames."""

    utterance: object
    target: np.ndarray  # [2]
    voice: np.ndarray  # [passes, grid, 64], 0 where not voiced
    voiced: np.ndarray  # [grid] bool
    face: np.ndarray  # [rows, 18] scores
    row_of_frame: np.ndarray  # [frames of the video], -1 where there is no face

    def has_face_between(self, begin, end):
        """Whether any video frame captured in (begin, end] seconds holds a face."""
        first, last = int(np.floor(begin * VIDEO_HZ)) + 1, int(np.floor(end * VIDEO_HZ))
        rows = self.row_of_frame[max(0, first) : max(0, last + 1)]
        return bool((rows >= 0).any())

    def with_face(self, frames, face):
        """The same voice with the scores `face` [rows, 18], captured at the video frames `frames` [rows]."""
        row_of_frame = np.full(int(self.utterance.samples / LOG_MEL.rate_hz * VIDEO_HZ) + 2, -1)
        known = frames < len(row_of_frame)
        row_of_frame[frames[known]] = np.flatnonzero(known)
        return dataclasses.replace(self, face=face, row_of_frame=row_of_frame)


NO_FACE = np.zeros(0, int), np.zeros((0, SCORES), np.float32)


def voice_only(utterance, target, voice, voiced):
    """A Performance without a face."""
    return Performance(utterance, target, voice, voiced, NO_FACE[1], NO_FACE[0]).with_face(*NO_FACE)


def read_posteriors(path):
    """{performance (its name without the modality): (frames [n], posteriors [n, 7] in EXPRESSIONS order)} of an .npz file."""
    file = np.load(path)
    order = [list(file["classes"]).index(name) for name in SOURCE_NAMES]
    posterior = file["posterior"].astype(np.float32)[:, order]
    bounds = np.searchsorted(file["clip_index"], np.arange(len(file["clip"]) + 1))
    return {
        str(clip)[3:]: (file["frame"][a:b].astype(int), posterior[a:b])
        for clip, a, b in zip(file["clip"], bounds[:-1], bounds[1:], strict=True)
    }


@torch.no_grad()
def embed(encode, corpora, utterance, passes, generator):
    """Voice embeddings on the grid, [passes, grid, 64] (0 where no voice is present), and presence [grid].

    `encode` maps [n, 1, 64, 96] to [n, 64, 1, 1]. The first pass is clean, the others are augmented.
    """
    ends = np.arange(0, utterance.samples + 1, GRID)
    voiced = corpora.voice_present(utterance, ends)
    out = np.zeros((passes, len(ends), VOICE), np.float32)
    if voiced.any():
        clean = corpora.window_powers([utterance] * int(voiced.sum()), ends[voiced])
        for index in range(passes):
            powers = clean if index == 0 else voices.augment(clean, generator)
            out[index, voiced] = encode(network_input(powers)).flatten(1).numpy()
    return out, voiced


class Translation:
    """Face scores of the RAVDESS actors, translated from another network's posteriors."""

    def __init__(self, data, score_map, rest):
        """`rest` is {actor: our scores [18] of the actor's resting picture}."""
        posteriors = read_posteriors(data / "av" / "ravdess_fer7.npz")
        translated = {name: (frames, score_map(p)) for name, (frames, p) in posteriors.items()}
        self.faces = {}
        for actor, scores in rest.items():
            own = {name: value for name, value in translated.items() if name.endswith(f"-{actor}")}
            neutral = [value for name, (_, value) in own.items() if name.split("-")[1] == "01"]
            if neutral:
                mean = np.concatenate(neutral).mean(0)
                self.faces |= {name: (frames, anchored(value, mean, scores)) for name, (frames, value) in own.items()}

    def of(self, utterance):
        """(frames [n], scores [n, 18]) of the RAVDESS performance with this voice."""
        return self.faces[utterance.name[3:]]


def make_performances(corpora, utterances, encode_of, passes, seed=7):
    """One Performance without a face for each utterance; `encode_of(utterance)` is the voice encoder to use for it."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for utterance in utterances:
        voice, voiced = embed(encode_of(utterance), corpora, utterance, passes, generator)
        result.append(voice_only(utterance, np.array(corpora.target(utterance), np.float32), voice, voiced))
    return result
