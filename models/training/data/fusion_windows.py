"""Windows of 8 steps of 0.4 s, cut from performances the way affectd's timeline fills them.

A window is face features [42, 8], voice embeddings [64, 8] and a mask [2, 8] of present steps, oldest step first.
"""

import numpy as np
import torch

from ..augmentation.face_scores import Disturbance, log_scores
from ..labels import EXPRESSIONS
from ..networks.joint_cross_attention import FACE, STEPS, VOICE
from ..preprocessing.fusion_features import STEP_S, TICK_HZ, step_features
from .performances import GRID_S, VIDEO_HZ

GRIDS_PER_STEP = 4
# Deviation of the offset between expressions, in log posteriors: how differently faces are built. Neutral faces get more, because
# there are more kinds of resting faces than two dozen actors show.
BIAS = {"translated": 0.6, "real": 0.8, "neutral": 1.0}
# Shares of the sources among the windows. "voices" are corpora without faces; some of their windows get a photograph.
SHARES = {"ravdess": 0.5, "javanese": 0.2, "actor01": 0.04, "voices": 0.26}
VOICES_WITH_PHOTOGRAPH = 0.5
# Categories of voices, and the expression of the photographs that are paired with them.
PHOTOGRAPHED = {name: name for name in EXPRESSIONS} | {"calm": "neutral"}


def face_steps(scores, ages):
    """Scores [n, 18] of frames that are `ages` [n] seconds old -> (features [42, 8], present [8]), oldest step first."""
    features, present = np.zeros((FACE, STEPS), np.float32), np.zeros(STEPS, np.float32)
    steps = STEPS - 1 - np.floor(ages / STEP_S).astype(int)
    for step in range(STEPS):
        inside = scores[steps == step]
        if len(inside):
            features[:, step], present[step] = step_features(inside), 1
    return features, present


def sample_faces(performance, end_s, rate_hz, phase):
    """Scores [n, 18] and ages [n] of the faces in the window ending at `end_s`.

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
    """The window ending at grid point `grid`: face [42, 8], voice [64, 8], mask [2, 8].

    `index` is the pass of the voice. `change`, if given, maps scores [n, 18] to others.
    """
    scores, ages = sample_faces(performance, grid * GRID_S, rate_hz, phase)
    if change is not None and len(scores):
        scores = change(scores)
    face, face_present = face_steps(scores, ages)
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

    `performances` are the recordings, `count` is the size of the bank. The shares and weights decide how often kinds of windows
    are drawn:

    - SHARES of the sources.
    - `non_voice` [n, 64] are embeddings of sounds without a voice. In a share of the windows they replace the voice. Beside
      a face the target stays: the sound must be ignored. Alone, the target is that of a random other window: nothing can be
      known except the spread of targets. (Surfaces in place of faces were tried too. They made valence worse, because our
      encoder reads them as calm people.)
    - `photographs` is (scores [n, 18], targets [n, 2], expression [n]) of single images. In a share of the windows one of them
      fills the face steps, as if a person held that expression. VOICES_WITH_PHOTOGRAPH of the windows from corpora without
      faces get a photograph of the same category beside the voice, and the mean of both targets.
    - `neutral_weight` is how much more often neutral recordings are drawn.
    """

    def __init__(
        self, performances, non_voice, photographs, seed, count, non_voice_share=0.06, photograph_share=0.10, neutral_weight=3.0,
        shares=SHARES,
    ):  # fmt: skip
        self.rng = np.random.default_rng(seed)
        self.disturbance = Disturbance(self.rng)
        self.performances, self.non_voice = performances, non_voice
        scores, self.photograph_targets, expressions = photographs
        self.photographs = log_scores(scores)
        self.rows_of_expression = {name: np.flatnonzero(expressions == i) for i, name in enumerate(EXPRESSIONS)}
        self.ends = [estimate_points(performance, 1) for performance in performances]
        usable = [row for row, ends in enumerate(self.ends) if len(ends)]
        self.rows_of_mood = {}
        for row in usable:
            self.rows_of_mood.setdefault(self.mood(row), []).append(row)
        weight = np.array(
            [neutral_weight if performances[row].utterance.emotion == "neutral" else 1.0 for row in usable]
        )
        sources = np.array([self.source(row) for row in usable])
        for source, share in shares.items():
            weight[sources == source] *= share / max(weight[sources == source].sum(), 1e-9)
        self.rows = [int(row) for row in self.rng.choice(usable, count, p=weight / weight.sum())]
        self.targets = np.stack([performances[row].target for row in self.rows])
        windows = [self.window(row) for row in self.rows]
        for index in range(count):
            if self.source(self.rows[index]) == "voices" and self.rng.random() < VOICES_WITH_PHOTOGRAPH:
                windows[index] = self.with_photograph(windows[index], index)
        for index in np.flatnonzero(self.rng.random(count) < non_voice_share):
            windows[index] = self.with_non_voice(windows[index], index)
        for index in np.flatnonzero(self.rng.random(count) < photograph_share):
            windows[index], self.targets[index] = self.photograph_window(self.rng.integers(len(self.photographs)))
        self.face, self.voice, self.mask = (
            torch.from_numpy(np.stack(part))[:, :, None] for part in zip(*windows, strict=True)
        )
        self.targets = torch.from_numpy(self.targets)
        # Four people's faces are too few to learn faces from: a network would learn the people. They teach only beside a voice.
        self.face_teaches = torch.tensor([self.source(row) != "javanese" for row in self.rows])

    def source(self, row):
        """The key of SHARES of a performance."""
        corpus = self.performances[row].utterance.corpus
        return corpus if corpus in SHARES else "voices"

    def mood(self, row):
        """(corpus, speaker, category, intensity) of a performance."""
        u = self.performances[row].utterance
        return u.corpus, u.speaker, u.emotion, u.intensity

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
        bias = BIAS["translated" if performance.utterance.corpus == "ravdess" else "real"]
        if performance.utterance.emotion == "neutral":
            bias = BIAS["neutral"]
        end, index = int(self.rng.choice(ends)), self.rng.integers(len(performance.voice))
        return cut_window(performance, end, index, rate, phase, lambda scores: self.disturbance(scores, bias))

    def held_expression(self, pick):
        """Face features [42, 8] and presence [8] of a photograph, as if a person held that expression, from a random step on."""
        ages = np.arange(0, STEPS * STEP_S - 1e-9, 0.13)
        scores = self.disturbance(np.repeat(self.photographs[pick : pick + 1], len(ages), 0), 0.1)
        face, present = face_steps(scores, ages)
        absent = np.arange(STEPS) < self.rng.integers(0, STEPS)
        face[:, absent], present[absent] = 0, 0
        return face, present

    def with_photograph(self, window, index):
        """The window of a voice with a photograph of the same category; changes the target to the mean of both."""
        emotion = PHOTOGRAPHED.get(self.performances[self.rows[index]].utterance.emotion)
        if emotion is None:
            return window
        pick = int(self.rng.choice(self.rows_of_expression[emotion]))
        face, present = self.held_expression(pick)
        self.targets[index] = (self.targets[index] + self.photograph_targets[pick]) / 2
        _, voice, mask = window
        return face, voice, np.stack([present, mask[1]])

    def photograph_window(self, pick):
        """(window, target) of a photograph without a voice."""
        face, present = self.held_expression(pick)
        mask = np.stack([present, np.zeros(STEPS, np.float32)])
        return (face, np.zeros((VOICE, STEPS), np.float32), mask), self.photograph_targets[pick]

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

    def batch(self, size):
        """A random batch: face [n, 42, 1, 8], voice [n, 64, 1, 8], mask [n, 2, 1, 8], target [n, 2], face_teaches [n] bool.

        `face_teaches` is whether the face may teach the network without the voice.
        """
        picks = torch.from_numpy(self.rng.integers(len(self.face), size=size))
        mask, stays = self.mask[picks], torch.from_numpy(modality_dropout(size, self.rng))[:, :, None]
        # affectd estimates only when the newest step has a face or a voice: dropout must not remove both.
        newest_present = ((mask * stays)[..., -1].sum((1, 2)) > 0)[:, None, None, None]
        stays = torch.where(newest_present, stays, torch.ones(()))
        face, voice = self.face[picks] * stays[:, :1], self.voice[picks] * stays[:, 1:]
        return face, voice, mask * stays, self.targets[picks], self.face_teaches[picks]

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
