"""How a fusion does on people that were left out: clips of networks that were trained without their speakers.

A fold is (network, ticks of the clips of its left-out speakers), ticks as in fusion_accuracy.py. All figures are of the clips
of all folds together.
"""

import dataclasses

import numpy as np
import torch

from ..networks.joint_cross_attention import STEPS
from ..preprocessing.fusion_features import FEATURES
from . import claimed_variance, risk_coverage
from .agreement import ccc
from .fusion_accuracy import CONDITIONS, DIMENSIONS, without
from .fusion_behaviour import smoothed


@dataclasses.dataclass
class Estimates:
    """Estimates of one or several folds, by tick."""

    affect: np.ndarray  # [n, 2]
    features: np.ndarray  # [n, 10], of claimed_variance.py
    target: np.ndarray  # [n, 2]
    clip: np.ndarray  # [n] the clip of each tick

    @property
    def squared(self):
        """Squared errors [n, 2]."""
        return (self.affect - self.target) ** 2

    def clip_means(self):
        """Means of affect and target over the ticks of each clip, [clips, 2] each."""
        return tuple(
            np.stack([v[self.clip == c].mean(0) for c in np.unique(self.clip)]) for v in (self.affect, self.target)
        )


@torch.no_grad()
def estimates(fold, dropped=()):
    """The Estimates of a fold without some modalities."""
    network, (*batch, target, index) = fold
    face, voice, mask = without(batch, dropped)
    affect, own = (part.flatten(1).numpy() for part in network(face, voice, mask))
    x = claimed_variance.features(affect, own, mask.numpy())
    return Estimates(np.clip(affect, -1, 1), x, target.numpy(), index.numpy())


def join(parts):
    """Estimates of several folds together; clips stay apart."""
    first, result = 0, []
    for part in parts:
        result.append(dataclasses.replace(part, clip=part.clip + first))
        first += int(part.clip.max()) + 1
    columns = ("affect", "features", "target", "clip")
    return Estimates(*(np.concatenate([getattr(part, name) for part in result]) for name in columns))


@torch.no_grad()
def without_person(network, non_voice, targets, seed=41):
    """Estimates of windows that hold a sound without a voice and no face; their targets are random ones of `targets` [m, 2].

    Nothing can be known of them but the spread of targets. `non_voice` are embeddings [n, 64].
    """
    rng = np.random.default_rng(seed)
    sounds = torch.from_numpy(non_voice)[:, :, None, None].repeat(1, 1, 1, STEPS)
    mask = torch.zeros(len(sounds), 2, 1, STEPS)
    mask[:, 1] = 1
    face = torch.zeros(len(sounds), FEATURES, 1, STEPS)
    affect, own = (part.flatten(1).numpy() for part in network(face, sounds, mask))
    picked = targets[rng.integers(len(targets), size=len(sounds))]
    x = claimed_variance.features(affect, own, mask.numpy())
    return Estimates(np.clip(affect, -1, 1), x, picked, np.arange(len(sounds)))


def fit_variance(folds, non_voice):
    """Weights of claimed_variance.py from the errors of folds, with both modalities and with either, and without a person."""
    parts = [estimates(fold, dropped) for fold in folds for dropped in CONDITIONS.values()]
    targets = np.concatenate([part.target for part in parts])
    parts += [without_person(network, non_voice, targets) for network, _ in folds]
    rows = join(parts)
    return claimed_variance.fit(rows.features, rows.squared)


def measure(folds):
    """{condition: {"clip" and "tick": CCC [2]}} over all folds."""
    result = {}
    for condition, dropped in CONDITIONS.items():
        all_folds = join([estimates(fold, dropped) for fold in folds])
        result[condition] = {
            "tick": ccc(all_folds.affect, all_folds.target).tolist(),
            "clip": ccc(*all_folds.clip_means()).tolist(),
        }
    return result


def ranks(values):
    """Ranks of a series [n]; equal values have the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def rank_correlation(a, b):
    """Spearman's rank correlation of two series [n]."""
    return float(np.corrcoef(ranks(np.asarray(a)), ranks(np.asarray(b)))[0, 1])


def cross_fitted(folds, non_voice):
    """(Estimates, claimed variances [n, 2]) of all folds; the variance of a fold is fitted to the errors of the other folds."""
    parts, variances = [], []
    for k, fold in enumerate(folds):
        weights = fit_variance([other for j, other in enumerate(folds) if j != k], non_voice)
        part = estimates(fold)
        parts.append(part)
        variances.append(claimed_variance.claimed(weights, part.features))
    return join(parts), np.concatenate(variances)


def confidence_figures(known, variance, prior):
    """{figure: [2]}: how well the reported confidence and the claimed variances know the errors.

    "rank" correlates the reported confidence with the absolute error, by tick. "rank, smoothed" does so for what affectd
    sends: both smoothed, from neutral and from a confidence of zero. "ratio" is the mean squared error over the mean claimed
    variance.
    """
    reported = claimed_variance.confidence(variance, prior)
    clip = torch.from_numpy(known.clip)
    sent = smoothed(torch.from_numpy(np.column_stack([known.affect, reported])), clip).numpy()
    raw_error, sent_error = np.abs(known.affect - known.target), np.abs(sent[:, :2] - known.target)
    return {
        "rank": [rank_correlation(reported, raw_error[:, k]) for k in range(2)],
        "rank, smoothed": [rank_correlation(sent[:, 2], sent_error[:, k]) for k in range(2)],
        "ratio": (known.squared.mean(0) / variance.mean(0)).tolist(),
    }


def manifest_figures(folds, non_voice, prior, split, command):
    """(figures for the manifest, risk-coverage curves)."""
    figures = []

    def add(name, values):
        print(name, [round(float(v), 3) for v in values], flush=True)
        for dimension, value in zip(DIMENSIONS, values, strict=True):
            entry = {"name": f"{name}, {dimension}", "value": round(float(value), 3)}
            figures.append(entry | {"split": split, "command": command})

    for condition, kinds in measure(folds).items():
        for kind in ("tick", "clip"):
            add(f"CCC, {condition}, per {kind}", kinds[kind])
    known, variance = cross_fitted(folds, non_voice)
    found = confidence_figures(known, variance, prior)
    add("rank correlation of confidence and absolute error", found["rank"])
    add("rank correlation of confidence and absolute error, smoothed as affectd sends them", found["rank, smoothed"])
    add("squared error over claimed variance", found["ratio"])
    curves, halves = risk_coverage.of_errors(known.squared, variance, split, command)
    return figures + halves, curves
