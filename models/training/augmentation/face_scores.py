"""Scores of our face encoder, estimated from another network's posteriors, and disturbed for training.

For the RAVDESS actors there are posteriors [n, 7] of another FER2013 network, and no frames. For actor 01 there are both, so the
translation to our scores [n, 18] is fitted on him. A resting picture of each actor anchors it: our scores of that picture are
known.
"""

import numpy as np

from ..onnx_graphs import softmax
from ..preprocessing.face_scores import RATED, SCORES, SHOWN, VOTES

FLOOR = 1e-3  # added to a posterior before its logarithm
RIDGE = 10.0
ANCHOR_SHARE = 0.7  # of an actor's offset at rest that is applied: one picture says less than all frames


def log_scores(scores):
    """Scores with their logits as floored log posteriors: comparable between faces, without extremes. [n, 18] -> [n, 18]."""
    result = np.array(scores, np.float32)
    for logits in (VOTES, SHOWN):
        result[:, logits] = np.log(softmax(result[:, logits]) + FLOOR)
    return result


class ScoreMap:
    """Another network's posteriors [n, 7] -> our scores [n, 18]: a ridge regression from log posteriors.

    It shrinks towards the identity: the same expression has the same log posterior.
    """

    def __init__(self, theirs, ours):
        """Fit on posteriors [n, 7] and scores [n, 18] of both networks on the same frames."""
        x = np.log(theirs + FLOOR)
        change = log_scores(ours) - self.identity(x)
        self.mean, self.bias = x.mean(0), change.mean(0)
        centred = x - self.mean
        gram = centred.T @ centred + RIDGE * np.eye(x.shape[1])
        self.weight = np.linalg.solve(gram, centred.T @ (change - self.bias))

    @staticmethod
    def identity(x):
        """Log posteriors of seven expressions as scores; contempt and the ratings are 0."""
        scores = np.zeros((len(x), SCORES), np.float32)
        scores[:, VOTES.start : VOTES.start + x.shape[1]] = x
        scores[:, SHOWN.start : SHOWN.start + x.shape[1]] = x
        return scores

    def __call__(self, posteriors):
        x = np.log(posteriors + FLOOR)
        return (self.identity(x) + (x - self.mean) @ self.weight + self.bias).astype(np.float32)


def anchored(scores, neutral_mean, rest):
    """Translated scores [n, 18] of an actor, moved by what is known of the actor at rest.

    `neutral_mean` [18] is the mean of the actor's translated neutral frames, `rest` [18] our scores of the resting picture.
    """
    return scores + ANCHOR_SHARE * (rest - neutral_mean)


class Disturbance:
    """Scores as they might be for another face, another camera or another moment: offset, sharpness and flicker."""

    def __init__(self, rng):
        self.rng = rng

    def __call__(self, scores, bias):
        """Scores [n, 18] -> the same shape. `bias` is the deviation of the offset of logits, common to all frames."""
        rng = self.rng
        result = np.array(scores, np.float32)
        offset = rng.normal(0, bias, SCORES)
        # What one head reads into a face, the other often does too.
        offset[SHOWN] = 0.6 * offset[VOTES] + 0.8 * offset[SHOWN]
        offset[RATED] *= 0.3
        flicker = rng.normal(0, rng.uniform(0, 0.3), result.shape)
        flicker[:, RATED] *= 0.2
        result += offset + flicker
        for logits in (VOTES, SHOWN):
            result[:, logits] *= np.exp(rng.normal(0, 0.15))
        return result
