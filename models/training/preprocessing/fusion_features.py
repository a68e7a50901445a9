"""The steps of a fusion window: their timing, and the face features of a step from the posteriors of its frames."""

import numpy as np

STEP_S = 0.4
TICK_HZ = 5  # estimates a second
EXPRESSIONS = 7  # contempt, the eighth, is left out
FEATURES = 3 * EXPRESSIONS
FLOOR = 1e-3  # added to a posterior before its logarithm


def without_contempt(posteriors):
    """Posteriors [n, 7 or 8] -> [n, 7], rows sum to 1."""
    return posteriors[:, :EXPRESSIONS] / posteriors[:, :EXPRESSIONS].sum(1, keepdims=True)


def step_features(posteriors):
    """Posteriors [n, 7] of the frames of one step -> features [21]: mean, maximum, and scaled logarithm of the mean."""
    mean = posteriors.mean(0)
    return np.concatenate([mean, posteriors.max(0), (np.log(mean + FLOOR) + 3) / 4])
