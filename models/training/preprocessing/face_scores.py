"""The scores of the face encoder, [18] for each face, and the expression that affectd reports."""

import numpy as np

from ..labels import EXPRESSIONS
from ..onnx_graphs import softmax

VOTES = slice(0, 8)  # logits of labels.EXPRESSIONS, as the annotators of FER+ vote
SHOWN = slice(8, 16)  # logits of the same, as networks trained on AffectNet see them
RATED = slice(16, 18)  # valence and arousal, as those networks learnt them from people's ratings
SCORES = 18
CONTEMPT = EXPRESSIONS.index("contempt")


def expression(scores):
    """Scores [n, 18] -> the reported probabilities of labels.EXPRESSIONS, [n, 8].

    They are the mean of both opinions. Contempt has the larger probability of both, because annotators of FER+ hardly ever vote
    for it, and a mean would never have it on top.
    """
    votes, shown = softmax(scores[:, VOTES]), softmax(scores[:, SHOWN])
    merged = (votes + shown) / 2
    merged[:, CONTEMPT] = np.maximum(votes[:, CONTEMPT], shown[:, CONTEMPT])
    return merged / merged.sum(axis=1, keepdims=True)


HEADS = {
    "reported": expression,
    "votes": lambda scores: softmax(scores[:, VOTES]),
    "shown": lambda scores: softmax(scores[:, SHOWN]),
}
