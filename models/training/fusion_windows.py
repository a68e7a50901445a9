"""What the fusion learns from: windows of 8 steps cut from performances, as affectd's timeline would have filled them.

A performance is one utterance with, for RAVDESS, the face posteriors of the same performance (another network's, so they
are disturbed in training until the fusion does not depend on whose they are). Its voice embeddings are computed once, on
a grid of 0.1 s, by several passes under different augmentation; faces are sampled at 5 .. 10 frames a second.
"""

import dataclasses
import functools

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
# Between classes, in log posteriors: how differently faces are made. Of those that rest there are more kinds than two dozen
# actors show, and each of them means the same, nothing: `TrainingWindows` widens it for them.
BIAS = 0.25
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
    """The same faces as our own network might read them, by `translation` (recorded_clips.py) and what that leaves open.

    What ships only ever sees faces as ours reads them, and what ours calls neutral another calls many things: half-way
    readings, tried, taught the fusion to doubt every face. `parts` is how far the translation goes, least and most.
    """

    def __init__(self, translation, rng, parts=(0.9, 1.1)):
        self.translation, self.rng, self.parts = translation, rng, parts

    def __call__(self, posteriors, bias):
        """[n, 7] -> [n, 7]: translated, then a bias of this deviation between classes, frame noise, temperature, confusion.

        On actor 01 the translation errs by .3 to .4 over a whole clip, by .6 from frame to frame, in log posteriors; two
        thirds of that did best on validation.
        """
        rng = self.rng
        logits = self.translation.log_posteriors(posteriors, rng.uniform(*self.parts))
        logits = logits + rng.normal(0, bias, 7) + rng.normal(0, 0.4, posteriors.shape)
        p = softmax(logits * np.exp(rng.uniform(-0.2, 0.2)))
        confusion = rng.dirichlet(np.full(7, 0.3), 7) * rng.uniform(0, 0.03)
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


def kept(n, rng):
    """Modality dropout for n windows, [n, 2, STEPS] of 0 and 1: a whole modality, single steps of it, or one side of a
    moment at which it came or went."""
    keep, steps = np.ones((n, 2, STEPS), np.float32), np.arange(STEPS)
    moment = rng.integers(1, STEPS, (n, 1))
    kinds = (
        (0.30, np.zeros((n, STEPS), bool)),
        (0.15, rng.random((n, STEPS)) >= rng.uniform(0.1, 0.7, (n, 1))),
        (0.10, steps >= moment),
        (0.10, steps < moment),
    )
    kind = np.searchsorted(np.cumsum([share for share, _ in kinds]), rng.random(n))
    modality = rng.integers(2, size=n)
    for number, (_, pattern) in enumerate(kinds):
        rows = np.flatnonzero(kind == number)
        keep[rows, modality[rows]] = pattern[rows]
    return keep


class TrainingWindows:
    """A bank of random windows with their targets; modality dropout is drawn anew with every batch.

    In a part of the windows `garbage`, embeddings [n, 64] of sounds that are no voice, takes the place of a voice. Beside a
    face that keeps the target: it is to be ignored. Alone, the target is anybody's: nothing can be known but how targets
    spread. (The same with walls for faces, tried, made valence worse: to our encoder they look like calm people.) Another part
    holds `stills`, (posteriors [n, 7], targets [n, 2]) of single pictures, as if somebody kept that face for a while.
    """

    def __init__(
        self, items, translation, garbage, stills, seed, count,
        nemo_share=0.25, garbage_share=0.06, still_share=0.12, neutral_weight=4.0, resting=1.2, parts=(0.9, 1.1),
    ):  # fmt: skip
        self.rng = np.random.default_rng(seed)
        self.disturb, self.resting = Disturbance(translation, self.rng, parts), resting
        self.items, self.garbage = items, garbage
        self.ends = [asked(item, 1) for item in items]
        usable = [row for row, ends in enumerate(self.ends) if len(ends)]
        self.alike = {}
        for row in usable:
            self.alike.setdefault(self.mood(row), []).append(row)
        share = {"ravdess": 1 - nemo_share, "nemo": nemo_share}
        weight = np.array([neutral_weight if items[r].utterance.emotion == "neutral" else 1.0 for r in usable])
        of_nemo = np.array([items[r].utterance.corpus == "nemo" for r in usable])
        for corpus, rows in (("ravdess", ~of_nemo), ("nemo", of_nemo)):
            weight[rows] *= share[corpus] / max(weight[rows].sum(), 1e-9)
        self.rows = [int(row) for row in self.rng.choice(usable, count, p=weight / weight.sum())]
        windows = [self.window(row) for row in self.rows]
        self.targets = np.stack([items[row].target for row in self.rows])
        for index in np.flatnonzero(self.rng.random(count) < garbage_share):
            windows[index] = self.spoiled(windows[index], index)
        for index in np.flatnonzero(self.rng.random(count) < still_share):
            windows[index], self.targets[index] = self.still(*stills)
        self.face, self.voice, self.mask = (torch.from_numpy(np.stack(part))[:, :, None] for part in zip(*windows))
        self.targets = torch.from_numpy(self.targets)

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
        bias = self.resting if item.utterance.emotion == "neutral" else BIAS
        disturb = functools.partial(self.disturb, bias=bias)
        return cut(item, int(self.rng.choice(ends)), self.rng.integers(len(item.voice)), rate, phase, disturb)

    def spoiled(self, window, index):
        """The window with sounds that are no voice over some or all of its steps, and the target to match."""
        rng = self.rng
        face, voice, mask = (part.copy() for part in window)
        steps = np.arange(STEPS) >= rng.integers(0, STEPS - 2)
        few = self.garbage[rng.integers(len(self.garbage), size=3)]
        heard = few[rng.integers(3, size=STEPS)].T
        voice[:, steps], mask[1, steps] = heard[:, steps], 1
        if rng.random() < 0.5:
            face[:], mask[0] = 0, 0
            voice[:, ~steps], mask[1, ~steps] = 0, 0
            self.targets[index] = self.targets[rng.integers(len(self.targets))]
        return face, voice, mask

    def still(self, posteriors, targets):
        """A window that one photograph fills, its posteriors flickering, from a random step on; and its target."""
        rng, pick = self.rng, self.rng.integers(len(targets))
        ages = np.arange(0, STEPS * STEP_S - 1e-9, 0.13)
        flicker = rng.normal(0, rng.uniform(0, 0.4), (len(ages), 7))
        face, present = face_features(softmax(np.log(posteriors[pick] + 1e-6) + flicker), ages)
        absent = np.arange(STEPS) < rng.integers(0, STEPS)
        face[:, absent], present[absent] = 0, 0
        mask = np.stack([present, np.zeros(STEPS, np.float32)])
        return (face, np.zeros((VOICE, STEPS), np.float32), mask), targets[pick]

    def batch(self, size):
        """face [n, 21, 1, 8], voice [n, 64, 1, 8], mask [n, 2, 1, 8], target [n, 2]."""
        picks = torch.from_numpy(self.rng.integers(len(self.face), size=size))
        mask, keep = self.mask[picks], torch.from_numpy(kept(size, self.rng))[:, :, None]
        # affectd asks only when the newest step has something.
        asked_for = ((mask * keep)[..., -1].sum((1, 2)) > 0)[:, None, None, None]
        keep = torch.where(asked_for, keep, torch.ones(()))
        return self.face[picks] * keep[:, :1], self.voice[picks] * keep[:, 1:], mask * keep, self.targets[picks]

    def target_variance(self):
        """Variance of the targets, [2]."""
        return self.targets.var(0, unbiased=False)


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
