"""The steps of a fusion window: their timing, and the face features of a step from the scores of its frames."""

import numpy as np

from ..onnx_graphs import softmax
from .face_scores import RATED, SHOWN, VOTES

STEP_S = 0.4
TICK_HZ = 5  # estimates a second
FEATURES = 42
FLOOR = 1e-3  # added to a posterior before its logarithm


def scaled_log(posteriors):
    """Log posteriors, scaled to about -1..1: the logarithm distinguishes 0.01 from 0.001, which the posterior hardly does."""
    return (np.log(posteriors + FLOOR) + 3) / 4


def step_features(scores):
    """Scores [n, 18] of the frames of one step -> features [42].

    Of the votes: mean, maximum and scaled log mean of each posterior. Of the shown expressions: mean and scaled log mean. Then
    the mean rated valence and arousal.
    """
    votes, shown = softmax(scores[:, VOTES]), softmax(scores[:, SHOWN])
    mean_votes, mean_shown = votes.mean(0), shown.mean(0)
    parts = (
        mean_votes,
        votes.max(0),
        scaled_log(mean_votes),
        mean_shown,
        scaled_log(mean_shown),
        scores[:, RATED].mean(0),
    )
    return np.concatenate(parts)
