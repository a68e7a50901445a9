"""Windows of the speech corpora, at random to train with and at a fixed step to measure with."""

import numpy as np
import torch

from ..labels import NEAREST_EMOTION, SPEECH_EMOTIONS
from ..metrics.agreement import ccc, correlation
from ..networks.voice_encoder import network_input
from ..preprocessing.log_mel import LOG_MEL
from ..preprocessing.voice_activity import LEAST_AUDIO_S

# Training windows of each utterance: corpora with fewer utterances count more.
WINDOWS_AN_EPOCH = {"ravdess": 4, "nemo": 1, "javanese": 3, "ased": 2, "emotiontts": 4, "baved": 1, "emogator": 1}
NO_EMOTION = -100  # `cross_entropy` ignores it
STEP = int(0.1 * LOG_MEL.rate_hz)


class WindowSampler:
    """Random windows with a voice, and their targets, from a list of utterances."""

    def __init__(self, corpora, utterances, generator):
        self.corpora, self.generator = corpora, generator
        self.utterances, self.ends, self.targets, self.emotions = [], [], [], []
        for utterance in utterances:
            ends = np.arange(int(LEAST_AUDIO_S * LOG_MEL.rate_hz), utterance.samples + 3 * STEP, STEP)
            ends = ends[corpora.voice_present(utterance, ends)]
            if len(ends):
                self.utterances.append(utterance)
                self.ends.append(ends)
                self.targets.append(corpora.target(utterance))
                emotion = NEAREST_EMOTION.get(utterance.emotion, utterance.emotion)
                self.emotions.append(SPEECH_EMOTIONS.index(emotion) if emotion in SPEECH_EMOTIONS else NO_EMOTION)
        self.targets = torch.tensor(self.targets, dtype=torch.float32)
        self.emotions = torch.tensor(self.emotions)

    def steps(self, batch):
        """Batches of an epoch."""
        return sum(WINDOWS_AN_EPOCH[u.corpus] for u in self.utterances) // batch

    def epoch(self, batch):
        """Yields batches of (powers [n, 64, 96], targets [n, 2], emotion [n]); every utterance WINDOWS_AN_EPOCH times."""
        rows = [row for row, u in enumerate(self.utterances) for _ in range(WINDOWS_AN_EPOCH[u.corpus])]
        order = torch.tensor(rows)[torch.randperm(len(rows), generator=self.generator)]
        for part in order.split(batch):
            if len(part) < batch:
                break
            yield self.batch(part)

    def batch(self, rows):
        """One random window of each utterance in `rows`: (powers, targets, emotion) as in `epoch`."""
        pick = torch.rand(len(rows), generator=self.generator)
        jitter = torch.randint(0, STEP, (len(rows),), generator=self.generator)
        ends = [int(self.ends[r][int(p * len(self.ends[r]))] + j) for r, p, j in zip(rows, pick, jitter, strict=True)]
        powers = self.corpora.window_powers([self.utterances[r] for r in rows], ends)
        return powers, self.targets[rows], self.emotions[rows]


class MeasuredWindows:
    """Every window with a voice of some utterances at a fixed step: inputs on demand, targets, utterance index."""

    def __init__(self, corpora, utterances, step_s=0.4):
        self.corpora = corpora
        step = int(step_s * LOG_MEL.rate_hz)
        self.rows = []
        for index, utterance in enumerate(utterances):
            ends = np.arange(step, utterance.samples + 1, step)
            self.rows += [(index, utterance, int(e)) for e in ends[corpora.voice_present(utterance, ends)]]
        self.index = torch.tensor([row[0] for row in self.rows])
        self.target = torch.tensor([corpora.target(row[1]) for row in self.rows], dtype=torch.float32)

    def inputs(self, change=None, batch=256):
        """Yields network inputs [batch, 1, 64, 96]; `change` maps band powers to others before that."""
        for start in range(0, len(self.rows), batch):
            part = self.rows[start : start + batch]
            powers = self.corpora.window_powers([row[1] for row in part], [row[2] for row in part])
            yield network_input(change(powers) if change else powers)

    def figures(self, prediction):
        """CCC over windows, and over utterances by the mean of their windows: {"window": [2], "utterance": [2]}."""
        means = self.utterance_means(prediction)
        return {"window": ccc(prediction, self.target).tolist(), "utterance": ccc(*means).tolist()}

    def utterance_means(self, prediction):
        """Means over the windows of each utterance, of the prediction and of the target: [utterances, 2] each."""
        names = self.index.unique()
        return tuple(torch.stack([v[self.index == i].mean(0) for i in names]) for v in (prediction, self.target))

    def correlations(self, prediction):
        """Pearson's r over utterances, [2]; nan where the corpus has no such targets."""
        return correlation(*(means.numpy() for means in self.utterance_means(prediction))).tolist()
