"""Maps the face posteriors of another network to ours, and disturbs them for training.

The fusion learns from posteriors [n, 7] that another network computed on faces we do not have. For RAVDESS actor 01 we have
both the faces and that network's posteriors, so the mapping is fitted on him.
"""

import numpy as np

from ..onnx_graphs import softmax

FLOOR = 1e-3  # added to a posterior before its logarithm
RIDGE = 10.0


class PosteriorMap:
    """Another network's log posteriors -> ours: a linear map, fitted on the same faces by ridge regression towards identity.

    It is fitted on one actor, so training varies how far it is applied.
    """

    def __init__(self, theirs, ours):
        """Fit on posteriors [n, 7] of both networks on the same frames."""
        x = np.log(theirs + FLOOR)
        change = np.log(ours + FLOOR) - x
        self.mean, self.bias = x.mean(0), change.mean(0)
        centred = x - self.mean
        gram = centred.T @ centred + RIDGE * np.eye(x.shape[1])
        self.weight = np.linalg.solve(gram, centred.T @ (change - self.bias))

    def log_posteriors(self, posteriors, share):
        """Unnormalized log posteriors [n, 7]; `share` 0 leaves them unchanged, 1 maps them fully to ours."""
        x = np.log(posteriors + FLOOR)
        return x + share * ((x - self.mean) @ self.weight + self.bias)

    def __call__(self, posteriors):
        """Our encoder's posteriors, estimated from theirs: [n, 7] -> [n, 7]."""
        return softmax(self.log_posteriors(posteriors, 1.0)).astype(np.float32)


class Disturbance:
    """Posteriors as our own network might compute them: the mapping, plus its uncertainty.

    `shares` (least, most) is how far the mapping goes. In use, the fusion gets posteriors of our network. Our "neutral"
    corresponds to many expressions of another network. Training with shares near one half was tried: the fusion then
    distrusted every face.
    """

    def __init__(self, posterior_map, rng, shares=(0.9, 1.1)):
        self.posterior_map, self.rng, self.shares = posterior_map, rng, shares

    def __call__(self, posteriors, bias):
        """[n, 7] -> [n, 7]: mapped, then class bias of deviation `bias`, frame noise, temperature and confusion, at random.

        On actor 01 the mapping errs by 0.3 to 0.4 over a whole clip and by 0.6 between frames, in log posteriors. Two thirds of
        that was best on validation.
        """
        rng = self.rng
        logits = self.posterior_map.log_posteriors(posteriors, rng.uniform(*self.shares))
        logits = logits + rng.normal(0, bias, 7) + rng.normal(0, 0.4, posteriors.shape)
        p = softmax(logits * np.exp(rng.uniform(-0.2, 0.2))).astype(np.float32)
        confusion = rng.dirichlet(np.full(7, 0.3), 7) * rng.uniform(0, 0.03)
        p = p @ (confusion + np.diag(1 - confusion.sum(1)))
        smooth = rng.uniform(0, 0.05)
        return ((1 - smooth) * p + smooth / 7).astype(np.float32)
