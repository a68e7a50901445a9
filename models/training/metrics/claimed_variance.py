"""The variance that affectd claims for an estimate: the fusion's own log variances, corrected by errors on strangers.

Networks know their training data too well: their own variances say little about people they never saw. So the claimed log
variance of each dimension is a linear function of ten numbers of the estimate (`features`), fitted by maximum likelihood to the
errors on speakers that were left out. The manifest carries the weights, and `src/fusion/estimator.rs` computes the same.
"""

import numpy as np
import torch

LOG_VARIANCE = (-6.0, 1.0)  # limits of the network's own and of the claimed log variance
FEATURES = 10
RIDGE = 0.01
NEWTON_STEPS = 50


def features(affect, log_variance, mask):
    """Features [n, 10] of estimates: affect and own log variance [n, 2], mask [n, 2, 1, steps] of the window.

    1, both log variances, valence, arousal, their squares and product, and the shares of steps with a face and with a voice.
    """
    affect, own = np.clip(affect, -1, 1), np.clip(log_variance, *LOG_VARIANCE)
    valence, arousal = affect.T
    shares = np.reshape(mask, (len(mask), 2, -1)).mean(2)
    products = np.stack([valence**2, arousal**2, valence * arousal], 1)
    return np.concatenate([np.ones((len(affect), 1)), own, affect, products, shares], 1).astype(np.float64)


def fit(x, squared):
    """Weights [2, 10] of the greatest Gaussian likelihood of squared errors [n, 2] at features x [n, 10].

    The likelihood is concave in the weights: Newton's method finds its maximum. A small ridge keeps the weights of standardized
    features finite.
    """
    mean, spread = x.mean(0), x.std(0)
    mean[0], spread[0] = 0, 1
    z = (x - mean) / np.maximum(spread, 1e-6)
    ridge = 2 * RIDGE * np.eye(FEATURES)
    ridge[0, 0] = 0
    weights = []
    for k in range(2):
        w = np.zeros(FEATURES)
        w[0] = np.log(squared[:, k].mean() + 1e-9)
        for _ in range(NEWTON_STEPS):
            ratio = squared[:, k] * np.exp(-np.clip(z @ w, -12, 12))
            gradient = 0.5 * z.T @ (1 - ratio) / len(z) + ridge @ w
            curvature = 0.5 * (z * ratio[:, None]).T @ z / len(z) + ridge + 1e-6 * np.eye(FEATURES)
            step = np.linalg.solve(curvature, gradient)
            w -= step * min(1.0, 1.0 / max(np.abs(step).max(), 1e-12))
        w = w / np.maximum(spread, 1e-6)
        w[0] -= w[1:] @ mean[1:]
        weights.append(w)
    return np.array(weights)


def claimed(weights, x):
    """Claimed variances [n, 2] at features x [n, 10]."""
    return np.exp(np.clip(x @ np.asarray(weights).T, *LOG_VARIANCE))


def calibrated(network, weights):
    """The network with claimed in place of its own log variances: (face, voice, mask) -> two tensors [n, 2, 1, 1]."""

    def estimate(face, voice, mask):
        affect, own = network(face, voice, mask)
        x = features(affect.flatten(1).numpy(), own.flatten(1).numpy(), mask.numpy())
        return affect, torch.from_numpy(np.log(claimed(weights, x)).astype(np.float32))[..., None, None]

    return estimate


def confidence(variance, prior):
    """The reported confidence [n]: 1 - the mean over both dimensions of claimed variance [n, 2] over prior variance [2]."""
    return np.clip(1 - (variance / np.asarray(prior)).mean(1), 0, 1)
