"""What the fusion learns from: windows of 8 steps cut from performances, as affectd's timeline would have filled them.

A performance is one utterance with, for RAVDESS, the face posteriors of the same performance (another network's, so they
are disturbed in training until the fusion does not depend on whose they are). Its voice embeddings are computed once, on
a grid of 0.1 s, by several passes under different augmentation; faces are sampled at 5 .. 10 frames a second.
"""

import dataclasses

import numpy as np
import torch

import log_mel
import mel_augment
from joint_cross_attention import FACE, STEPS, VOICE
from voice_encoder import batch_input

STEP_S = 0.4
TICK_HZ = 5
GRID_S = 0.1
GRID = int(GRID_S * log_mel.RATE_HZ)
GRIDS_PER_STEP = 4
VIDEO_HZ = 30_000 / 1001
EXPRESSIONS = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear"]
SOURCE_NAMES = ["Neutral", "Happy", "Surprised", "Sad", "Angry", "Disgust", "Fearful"]


@dataclasses.dataclass
class Performance:
    """One recording, its voice at the grid points g * 0.1 s and its faces at video frames."""

    utterance: object
    target: np.ndarray  # [2]
    voice: np.ndarray  # [passes, grid, 64], 0 where not voiced
    voiced: np.ndarray  # [grid] bool
    face: np.ndarray  # [rows, 7] posteriors
    row_of_frame: np.ndarray  # [frames of the video], -1 where no face

    def faces_between(self, begin, end):
        """Whether the video frames captured in (begin, end] hold a face."""
        first, last = int(np.floor(begin * VIDEO_HZ)) + 1, int(np.floor(end * VIDEO_HZ))
        rows = self.row_of_frame[max(0, first) : max(0, last + 1)]
        return bool((rows >= 0).any())


def performance(utterance, target, voice, voiced, frames, face):
    """A Performance whose `face` [rows, 7] were captured at the video frames `frames` [rows]."""
    row_of_frame = np.full(int(utterance.samples / log_mel.RATE_HZ * VIDEO_HZ) + 2, -1)
    known = frames < len(row_of_frame)
    row_of_frame[frames[known]] = np.flatnonzero(known)
    return Performance(utterance, target, voice, voiced, face, row_of_frame)


def read_posteriors(path):
    """{performance (the name without its modality): (frames [n], posteriors [n, 7] in EXPRESSIONS order)}."""
    file = np.load(path)
    order = [list(file["classes"]).index(name) for name in SOURCE_NAMES]
    posterior = file["posterior"].astype(np.float32)[:, order]
    bounds = np.searchsorted(file["clip_index"], np.arange(len(file["clip"]) + 1))
    return {
        str(clip)[3:]: (file["frame"][a:b].astype(int), posterior[a:b])
        for clip, a, b in zip(file["clip"], bounds[:-1], bounds[1:])
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
        powers = corpora.window_powers([utterance] * int(voiced.sum()), ends[voiced])
        for index in range(passes):
            heard = powers if index == 0 else mel_augment.augment(powers, generator)
            out[index, voiced] = encode(batch_input(heard)).flatten(1).numpy()
    return out, voiced


def performances(corpora, data, utterances, encode_of, passes, seed=7):
    """One Performance an utterance; `encode_of(utterance)` gives the encoder to hear it with."""
    posteriors = read_posteriors(data / "av" / "ravdess_fer7.npz")
    generator = torch.Generator().manual_seed(seed)
    result = []
    for utterance in utterances:
        voice, voiced = embed(encode_of(utterance), corpora, utterance, passes, generator)
        frames, face = np.zeros(0, int), np.zeros((0, 7), np.float32)
        if utterance.corpus == "ravdess":
            frames, face = posteriors[utterance.name[3:]]
        target = np.array(corpora.target(utterance), np.float32)
        result.append(performance(utterance, target, voice, voiced, frames, face))
    return result


def face_features(posteriors, ages):
    """Posteriors [n, 7] of the frames that are `ages` [n] s old -> (features [21, 8], present [8]), oldest step first."""
    features, present = np.zeros((FACE, STEPS), np.float32), np.zeros(STEPS, np.float32)
    steps = STEPS - 1 - np.floor(ages / STEP_S).astype(int)
    for step in range(STEPS):
        p = posteriors[steps == step]
        if len(p):
            mean = p.mean(0)
            features[:, step] = np.concatenate([mean, p.max(0), (np.log(mean + 1e-3) + 3) / 4])
            present[step] = 1
    return features, present


def sample_faces(performance, end_s, rate_hz, phase):
    """Posteriors and ages of the faces affectd would have seen in the window ending at `end_s`, at `rate_hz` frames a
    second; with None, of every frame there is."""
    if rate_hz is None:
        last = int(np.floor(end_s * VIDEO_HZ + 1e-6))
        frames = np.arange(last, last - int(STEPS * STEP_S * VIDEO_HZ), -1)
        ages = end_s - frames / VIDEO_HZ
    else:
        ages = (phase + np.arange(int(STEPS * STEP_S * rate_hz) + 1)) / rate_hz
        ages = ages[ages < STEPS * STEP_S - 1e-9]
        frames = np.floor((end_s - ages) * VIDEO_HZ + 1e-6).astype(int)
    inside = (frames >= 0) & (frames < len(performance.row_of_frame))
    rows = np.where(inside, performance.row_of_frame[np.clip(frames, 0, len(performance.row_of_frame) - 1)], -1)
    return performance.face[rows[rows >= 0]], ages[rows >= 0]


def softmax(logits):
    p = np.exp(logits - logits.max(1, keepdims=True))
    return (p / p.sum(1, keepdims=True)).astype(np.float32)


class Disturbance:
    """The same faces as some other network might read them; `translation` leads towards our own (recorded_clips.py)."""

    def __init__(self, translation, rng):
        self.translation, self.rng = translation, rng

    def __call__(self, posteriors):
        """[n, 7] -> [n, 7]: a part of the way to ours, then bias between classes, frame noise, temperature, confusion."""
        rng = self.rng
        logits = self.translation.log_posteriors(posteriors, rng.uniform(0, 1.1))
        logits = logits + rng.normal(0, 0.5, 7) + rng.normal(0, 0.3, posteriors.shape)
        p = softmax(logits * np.exp(rng.uniform(-0.5, 0.4)))
        confusion = rng.dirichlet(np.full(7, 0.3), 7) * rng.uniform(0, 0.15)
        p = p @ (confusion + np.diag(1 - confusion.sum(1)))
        smooth = rng.uniform(0, 0.05)
        return ((1 - smooth) * p + smooth / 7).astype(np.float32)


def cut(performance, grid, index, rate_hz, phase, change=None):
    """The window ending at grid point `grid`: face [21, 8], voice [64, 8], mask [2, 8]. `index` is the pass of the voice;
    `change`, if given, maps posteriors [n, 7] to others."""
    posteriors, ages = sample_faces(performance, grid * GRID_S, rate_hz, phase)
    if change is not None and len(posteriors):
        posteriors = change(posteriors)
    face, face_present = face_features(posteriors, ages)
    points = grid - GRIDS_PER_STEP * np.arange(STEPS - 1, -1, -1)
    known = points >= 0
    heard = np.zeros(STEPS, bool)
    heard[known] = performance.voiced[points[known]]
    voice = np.zeros((VOICE, STEPS), np.float32)
    voice[:, heard] = performance.voice[index][points[heard]].T
    return face, voice, np.stack([face_present, heard.astype(np.float32)])


def absent(window, modality, steps):
    """Clear `steps` (bool [8]) of modality 0 (face) or 1 (voice) in place."""
    window[modality][:, steps] = 0
    window[2][modality, steps] = 0


def drop_modalities(window, rng):
    """Modality dropout: a whole window, single steps, or one side of a moment at which a modality came or went."""
    dropped = tuple(part.copy() for part in window)
    modality, kind, steps = rng.integers(2), rng.random(), np.arange(STEPS)
    if kind < 0.30:
        absent(dropped, modality, steps >= 0)
    elif kind < 0.45:
        absent(dropped, modality, rng.random(STEPS) < rng.uniform(0.1, 0.7))
    elif kind < 0.55:
        absent(dropped, modality, steps < rng.integers(1, STEPS))
    elif kind < 0.65:
        absent(dropped, modality, steps >= rng.integers(1, STEPS))
    # affectd asks only when the newest step has something.
    return dropped if dropped[2][:, -1].any() else window


class TrainingWindows:
    """A bank of random windows with their targets; modality dropout is drawn anew with every batch."""

    def __init__(self, items, translation, seed, count, nemo_share=0.25):
        self.rng = np.random.default_rng(seed)
        self.disturb = Disturbance(translation, self.rng)
        self.items = items
        self.ends = [asked(item, 1) for item in items]
        usable = [row for row, ends in enumerate(self.ends) if len(ends)]
        of_corpus = {c: [r for r in usable if items[r].utterance.corpus == c] for c in ("ravdess", "nemo")}
        self.alike = {}
        for row in usable:
            self.alike.setdefault(self.mood(row), []).append(row)
        from_nemo = self.rng.random(count) < nemo_share
        self.rows = [int(self.rng.choice(of_corpus["nemo" if nemo else "ravdess"])) for nemo in from_nemo]
        self.windows = [self.window(row) for row in self.rows]
        self.targets = np.stack([items[row].target for row in self.rows])

    def mood(self, row):
        u = self.items[row].utterance
        return u.speaker, u.emotion, u.intensity

    def window(self, row):
        """A random window of one performance, half the time going on from an earlier one of the same speaker and mood.

        Recordings are about as long as a window, and without this the network would hardly ever see a full history.
        """
        rng = self.rng
        rate, phase = rng.uniform(5, 10), rng.random()
        newest = self.part(row, self.ends[row], rate, phase)
        if rng.random() < 0.5:
            return newest
        other = int(rng.choice(self.alike[self.mood(row)]))
        late = self.ends[other][2 * len(self.ends[other]) // 3 :]
        earlier = self.part(other, late, rate, phase)
        joint = rng.integers(1, STEPS - 1)  # so many of the newest steps stay
        return tuple(np.concatenate([e[:, joint:], n[:, -joint:]], axis=1) for e, n in zip(earlier, newest))

    def part(self, row, ends, rate, phase):
        item = self.items[row]
        return cut(item, int(self.rng.choice(ends)), self.rng.integers(len(item.voice)), rate, phase, self.disturb)

    def batch(self, size):
        """face [n, 21, 1, 8], voice [n, 64, 1, 8], mask [n, 2, 1, 8], target [n, 2]."""
        picks = self.rng.integers(len(self.windows), size=size)
        windows = [drop_modalities(self.windows[pick], self.rng) for pick in picks]
        parts = [torch.from_numpy(np.stack(part))[:, :, None] for part in zip(*windows)]
        return *parts, torch.from_numpy(self.targets[picks])

    def target_variance(self):
        """Variance of the targets, [2]."""
        return self.targets.var(0)


def asked(item, every, both=False):
    """Grid points, every so many, at which affectd would estimate: the newest step has a face or a voice (or both)."""
    points = []
    for grid in range(GRIDS_PER_STEP, len(item.voiced), every):
        face = item.faces_between(grid * GRID_S - STEP_S, grid * GRID_S)
        voice = bool(item.voiced[grid])
        if (face and voice) if both else (face or voice):
            points.append(grid)
    return np.array(points, int)


def ticks(items, rate_hz=7.5, change=None, seed=11):
    """Every tick with both modalities: (face, voice, mask, target [n, 2], performance index [n])."""
    rng = np.random.default_rng(seed)
    windows, targets, index = [], [], []
    for row, item in enumerate(items):
        phase = rng.random()
        for grid in asked(item, round(1 / (TICK_HZ * GRID_S)), both=True):
            windows.append(cut(item, int(grid), 0, rate_hz, phase, change))
            targets.append(item.target)
            index.append(row)
    parts = [torch.from_numpy(np.stack(part))[:, :, None] for part in zip(*windows)]
    return *parts, torch.from_numpy(np.stack(targets)), torch.tensor(index)
