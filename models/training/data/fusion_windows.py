"""Windows of 8 steps of 0.4 s, cut from performances the way affectd's timeline fills them.

A window is face features [21, 8], voice embeddings [64, 8] and a mask [2, 8] of present steps, oldest step first.
"""

import functools

import numpy as np
import torch

from ..augmentation.face_posteriors import Disturbance
from ..networks.joint_cross_attention import FACE, STEPS, VOICE
from ..onnx_graphs import softmax
from ..preprocessing.fusion_features import STEP_S, TICK_HZ, step_features
from .performances import GRID_S, VIDEO_HZ

GRIDS_PER_STEP = 4
# Deviation of the bias between expressions, in log posteriors: how differently faces are built. For neutral faces
# `TrainingWindows` uses more, because there are more kinds of resting faces than two dozen actors show.
BIAS = 0.25


def face_steps(posteriors, ages):
    """Posteriors [n, 7] of frames that are `ages` [n] seconds old -> (features [21, 8], present [8]), oldest step first."""
    features, present = np.zeros((FACE, STEPS), np.float32), np.zeros(STEPS, np.float32)
    steps = STEPS - 1 - np.floor(ages / STEP_S).astype(int)
    for step in range(STEPS):
        p = posteriors[steps == step]
        if len(p):
            features[:, step], present[step] = step_features(p), 1
    return features, present


def sample_faces(performance, end_s, rate_hz, phase):
    """Posteriors [n, 7] and ages [n] of the faces in the window ending at `end_s`.

    `rate_hz` is how many frames a second affectd analyzes, None means every frame. `phase` 0..1 shifts them.
    """
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


def cut_window(performance, grid, index, rate_hz, phase, change=None):
    """The window ending at grid point `grid`: face [21, 8], voice [64, 8], mask [2, 8].

    `index` is the pass of the voice. `change`, if given, maps posteriors [n, 7] to others.
    """
    posteriors, ages = sample_faces(performance, grid * GRID_S, rate_hz, phase)
    if change is not None and len(posteriors):
        posteriors = change(posteriors)
    face, face_present = face_steps(posteriors, ages)
    points = grid - GRIDS_PER_STEP * np.arange(STEPS - 1, -1, -1)
    known = points >= 0
    voiced = np.zeros(STEPS, bool)
    voiced[known] = performance.voiced[points[known]]
    voice = np.zeros((VOICE, STEPS), np.float32)
    voice[:, voiced] = performance.voice[index][points[voiced]].T
    return face, voice, np.stack([face_present, voiced.astype(np.float32)])


def modality_dropout(n, rng):
    """Which steps of n windows stay, f32 [n, 2, STEPS] of 0 and 1.

    About two thirds of the windows lose steps of one modality: all of them, single ones, or all before or after a moment.
    """
    stays, steps = np.ones((n, 2, STEPS), np.float32), np.arange(STEPS)
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
        stays[rows, modality[rows]] = pattern[rows]
    return stays


class TrainingWindows:
    """A bank of random windows with their targets. Modality dropout is drawn anew for every batch.

    `performances` are the recordings, `posterior_map` a PosteriorMap for their faces, `count` the size of the bank. The shares
    and weights decide how often kinds of windows are drawn:

    - `non_voice` [n, 64] are embeddings of sounds without a voice. In a share of the windows they replace the voice. Beside
      a face the target stays: the sound must be ignored. Alone, the target is that of a random other window: nothing can be
      known except the spread of targets. (Surfaces in place of faces were tried too. They made valence worse, because our
      encoder reads them as calm people.)
    - `photographs` is (posteriors [n, 7], targets [n, 2]) of single images. In a share of the windows one of them fills the
      face steps, as if a person held that expression.
    - `neutral_weight` is how much more often neutral recordings are drawn, `neutral_bias` the bias of their faces (see BIAS).
    """

    def __init__(
        self, performances, posterior_map, non_voice, photographs, seed, count, nemo_share=0.25, non_voice_share=0.06,
        photograph_share=0.12, neutral_weight=4.0, neutral_bias=1.2, shares=(0.9, 1.1),
    ):  # fmt: skip
        self.rng = np.random.default_rng(seed)
        self.disturb, self.neutral_bias = Disturbance(posterior_map, self.rng, shares), neutral_bias
        self.performances, self.non_voice = performances, non_voice
        self.ends = [estimate_points(performance, 1) for performance in performances]
        usable = [row for row, ends in enumerate(self.ends) if len(ends)]
        self.rows_of_mood = {}
        for row in usable:
            self.rows_of_mood.setdefault(self.mood(row), []).append(row)
        share = {"ravdess": 1 - nemo_share, "nemo": nemo_share}
        utterances = [performances[row].utterance for row in usable]
        weight = np.array([neutral_weight if u.emotion == "neutral" else 1.0 for u in utterances])
        of_nemo = np.array([u.corpus == "nemo" for u in utterances])
        for corpus, rows in (("ravdess", ~of_nemo), ("nemo", of_nemo)):
            weight[rows] *= share[corpus] / max(weight[rows].sum(), 1e-9)
        self.rows = [int(row) for row in self.rng.choice(usable, count, p=weight / weight.sum())]
        windows = [self.window(row) for row in self.rows]
        self.targets = np.stack([performances[row].target for row in self.rows])
        for index in np.flatnonzero(self.rng.random(count) < non_voice_share):
            windows[index] = self.with_non_voice(windows[index], index)
        for index in np.flatnonzero(self.rng.random(count) < photograph_share):
            windows[index], self.targets[index] = self.photograph_window(*photographs)
        self.face, self.voice, self.mask = (
            torch.from_numpy(np.stack(part))[:, :, None] for part in zip(*windows, strict=True)
        )
        self.targets = torch.from_numpy(self.targets)

    def mood(self, row):
        """(speaker, emotion, intensity) of a performance."""
        u = self.performances[row].utterance
        return u.speaker, u.emotion, u.intensity

    def window(self, row):
        """A random window of one performance. Half of the time an earlier one of the same speaker and mood precedes it.

        Recordings are about as long as a window, so without this the network would hardly ever see a full history.
        """
        rng = self.rng
        rate, phase = rng.uniform(5, 10), rng.random()
        newest = self.part(row, self.ends[row], rate, phase)
        if rng.random() < 0.5:
            return newest
        other = int(rng.choice(self.rows_of_mood[self.mood(row)]))
        late = self.ends[other][2 * len(self.ends[other]) // 3 :]
        earlier = self.part(other, late, rate, phase)
        newest_steps = rng.integers(1, STEPS - 1)
        return tuple(
            np.concatenate([e[:, newest_steps:], n[:, -newest_steps:]], axis=1)
            for e, n in zip(earlier, newest, strict=True)
        )

    def part(self, row, ends, rate, phase):
        """A window of one performance that ends at a random one of the grid points `ends`."""
        performance = self.performances[row]
        bias = self.neutral_bias if performance.utterance.emotion == "neutral" else BIAS
        disturb = functools.partial(self.disturb, bias=bias)
        end, index = int(self.rng.choice(ends)), self.rng.integers(len(performance.voice))
        return cut_window(performance, end, index, rate, phase, disturb)

    def with_non_voice(self, window, index):
        """The window with sounds without a voice over some or all of its steps; changes the target where nothing is known."""
        rng = self.rng
        face, voice, mask = (part.copy() for part in window)
        steps = np.arange(STEPS) >= rng.integers(0, STEPS - 2)
        few = self.non_voice[rng.integers(len(self.non_voice), size=3)]
        sounds = few[rng.integers(3, size=STEPS)].T
        voice[:, steps], mask[1, steps] = sounds[:, steps], 1
        if rng.random() < 0.5:
            face[:], mask[0] = 0, 0
            voice[:, ~steps], mask[1, ~steps] = 0, 0
            self.targets[index] = self.targets[rng.integers(len(self.targets))]
        return face, voice, mask

    def photograph_window(self, posteriors, targets):
        """(window, target): one photograph from a random step on, with noise between its frames."""
        rng, pick = self.rng, self.rng.integers(len(targets))
        ages = np.arange(0, STEPS * STEP_S - 1e-9, 0.13)
        noise = rng.normal(0, rng.uniform(0, 0.4), (len(ages), 7))
        flickering = softmax(np.log(posteriors[pick] + 1e-6) + noise).astype(np.float32)
        face, present = face_steps(flickering, ages)
        absent = np.arange(STEPS) < rng.integers(0, STEPS)
        face[:, absent], present[absent] = 0, 0
        mask = np.stack([present, np.zeros(STEPS, np.float32)])
        return (face, np.zeros((VOICE, STEPS), np.float32), mask), targets[pick]

    def batch(self, size):
        """A random batch: face [n, 21, 1, 8], voice [n, 64, 1, 8], mask [n, 2, 1, 8], target [n, 2]."""
        picks = torch.from_numpy(self.rng.integers(len(self.face), size=size))
        mask, stays = self.mask[picks], torch.from_numpy(modality_dropout(size, self.rng))[:, :, None]
        # affectd estimates only when the newest step has a face or a voice: dropout must not remove both.
        newest_present = ((mask * stays)[..., -1].sum((1, 2)) > 0)[:, None, None, None]
        stays = torch.where(newest_present, stays, torch.ones(()))
        return self.face[picks] * stays[:, :1], self.voice[picks] * stays[:, 1:], mask * stays, self.targets[picks]

    def target_variance(self):
        """Variance of the targets, [2]."""
        return self.targets.var(0, unbiased=False)


def estimate_points(performance, every, both=False):
    """Every so many grid points, those at which affectd would estimate: the newest step has a face or a voice (or both)."""
    points = []
    for grid in range(GRIDS_PER_STEP, len(performance.voiced), every):
        face = performance.has_face_between(grid * GRID_S - STEP_S, grid * GRID_S)
        voice = bool(performance.voiced[grid])
        if (face and voice) if both else (face or voice):
            points.append(grid)
    return np.array(points, int)


def make_ticks(performances, rate_hz=7.5, change=None, seed=11):
    """Every tick with both modalities: (face, voice, mask, target [n, 2], performance index [n]), tensors as in a batch."""
    rng = np.random.default_rng(seed)
    windows, targets, index = [], [], []
    for row, performance in enumerate(performances):
        phase = rng.random()
        for grid in estimate_points(performance, round(1 / (TICK_HZ * GRID_S)), both=True):
            windows.append(cut_window(performance, int(grid), 0, rate_hz, phase, change))
            targets.append(performance.target)
            index.append(row)
    parts = [torch.from_numpy(np.stack(part))[:, :, None] for part in zip(*windows, strict=True)]
    return *parts, torch.from_numpy(np.stack(targets)), torch.tensor(index)
