"""How a fusion does on people that were left out: clips of networks that were trained without their speakers.

A fold is (network, ticks of the clips of its left-out speakers), ticks as in fusion_accuracy.py. All figures are of the clips
of all folds together.
"""

import numpy as np
import torch

from . import risk_coverage
from .agreement import ccc
from .fusion_accuracy import CONDITIONS, DIMENSIONS, LOG_VARIANCE, clip_means, without


@torch.no_grad()
def outputs(folds, dropped=()):
    """Affect, claimed variance and target of all ticks, [n, 2] each, and the clip of each tick [n], without some modalities."""
    parts, clips = [], 0
    for network, (*batch, target, index) in folds:
        affect, log_variance = (part.flatten(1) for part in network(*without(batch, dropped)))
        parts.append((affect.clamp(-1, 1), log_variance.clamp(*LOG_VARIANCE).exp(), target, index + clips))
        clips += int(index.max()) + 1
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def ranks(values):
    """Ranks of a series [n]; equal values have the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def rank_correlation(a, b):
    """Spearman's rank correlation of two series [n]."""
    return float(np.corrcoef(ranks(np.asarray(a)), ranks(np.asarray(b)))[0, 1])


def cross_calibrated(folds, fit):
    """The folds' outputs with variances calibrated by the errors of the *other* folds: a list of `outputs` of single folds.

    `fit(logs, errors)` gives the factor and the offset of log variances.
    """
    each = [outputs([fold]) for fold in folds]
    result = []
    for k, (affect, variance, target, index) in enumerate(each):
        others = [part for j, part in enumerate(each) if j != k]
        logs = torch.cat([part[1].log() for part in others])
        errors = torch.cat([(part[0] - part[2]).square() for part in others])
        fitted = [fit(logs[:, d], errors[:, d]) for d in range(2)]
        scaled = torch.stack(
            [(slope * variance[:, d].log() + shift).exp() for d, (slope, shift) in enumerate(fitted)], 1
        )
        result.append((affect, scaled, target, index))
    return result


def measure(folds):
    """{condition: {"clip" and "tick": CCC [2]}} over all folds."""
    result = {}
    for condition, dropped in CONDITIONS.items():
        affect, _, target, index = outputs(folds, dropped)
        result[condition] = {
            "tick": ccc(affect, target).tolist(),
            "clip": ccc(clip_means(affect, index), clip_means(target, index)).tolist(),
        }
    return result


def confidence(folds, fit, prior):
    """{"rank" and "ratio": [2], "valence" and "arousal" rank of the reported confidence} of cross-calibrated variances.

    "rank" correlates the reported confidence (mean over both dimensions of 1 - variance / prior) with the absolute error.
    "ratio" is the mean squared error over the mean claimed variance.
    """
    affect, variance, target, _ = (torch.cat(part) for part in zip(*cross_calibrated(folds, fit), strict=True))
    error = (affect - target).abs()
    reported = (1 - (variance / torch.as_tensor(prior)).mean(1)).clamp(0, 1)
    return {
        "rank": [rank_correlation(reported, error[:, d]) for d in range(2)],
        "rank of own variance": [rank_correlation(-variance[:, d], error[:, d]) for d in range(2)],
        "ratio": (error.square().mean(0) / variance.mean(0)).tolist(),
    }


def manifest_figures(folds, split, command, fit=None, prior=None):
    """Figures for the manifest."""
    figures = []

    def add(name, values):
        print(name, [round(float(v), 3) for v in values], flush=True)
        for dimension, value in zip(DIMENSIONS, values, strict=True):
            entry = {"name": name.format(dimension=dimension), "value": round(float(value), 3)}
            figures.append(entry | {"split": split, "command": command})

    for condition, kinds in measure(folds).items():
        for kind in ("tick", "clip"):
            add(f"CCC {{dimension}}, {condition}, per {kind}", kinds[kind])
    if fit is not None:
        known = confidence(folds, fit, prior)
        add("rank correlation of confidence and absolute error, {dimension}", known["rank"])
        add("squared error over claimed variance, {dimension}", known["ratio"])
    return figures


def risk(folds, fit, split, command):
    """(curves, figures) of risk_coverage.py on cross-calibrated variances."""
    affect, variance, target, _ = (torch.cat(part).numpy() for part in zip(*cross_calibrated(folds, fit), strict=True))
    return risk_coverage.of_errors((affect - target) ** 2, variance, split, command)
