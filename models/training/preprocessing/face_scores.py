"""The scores of the face encoder, [18] for each face, and the expression that affectd reports."""

from ..onnx_graphs import softmax

VOTES = slice(0, 8)  # logits of labels.EXPRESSIONS, as the annotators of FER+ vote
SHOWN = slice(8, 16)  # logits of the same, as networks trained on AffectNet see them
RATED = slice(16, 18)  # valence and arousal, as those networks learnt them from people's ratings
SCORES = 18


def expression(scores):
    """Scores [n, 18] -> the reported probabilities of labels.EXPRESSIONS, [n, 8]: the mean of both opinions."""
    return (softmax(scores[:, VOTES]) + softmax(scores[:, SHOWN])) / 2


HEADS = {
    "reported": expression,
    "votes": lambda scores: softmax(scores[:, VOTES]),
    "shown": lambda scores: softmax(scores[:, SHOWN]),
}
