"""Lin's concordance correlation coefficient (CCC), the measure of every valence and arousal figure of this project.

It is 1 for equal series, 0 without agreement, and unlike a correlation it falls with a wrong scale or offset.
"""

import numpy as np

SMALLEST_SPREAD = 1e-8  # keeps the quotient defined for constant columns


def ccc(estimates, targets):
    """CCC of each column with population moments: numpy arrays or torch tensors [n, k] -> [k], or [n] -> a scalar."""
    mean_e, mean_t = estimates.mean(0), targets.mean(0)
    centred_e, centred_t = estimates - mean_e, targets - mean_t
    covariance = (centred_e * centred_t).mean(0)
    spread = (centred_e**2).mean(0) + (centred_t**2).mean(0) + (mean_e - mean_t) ** 2
    return 2 * covariance / (spread + SMALLEST_SPREAD)


def correlation(a, b):
    """Pearson correlation of each column, numpy arrays [n, k] -> [k]."""
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).mean(0) / (a.std(0) * b.std(0) + SMALLEST_SPREAD)


def ccc_or_none(estimates, targets):
    """CCC of two series as a float, or None where it is undefined: fewer than two values, or both constant and equal."""
    estimates, targets = np.asarray(estimates, np.float64), np.asarray(targets, np.float64)
    if len(estimates) < 2 or np.ptp(np.concatenate([estimates, targets])) == 0:
        return None
    return float(ccc(estimates, targets))


def affect_ccc(estimates, targets):
    """CCC of valence and arousal [n, 2] as reports show it: {"ccc_valence": float or None, "ccc_arousal": ...}."""
    estimates, targets = np.reshape(estimates, (-1, 2)), np.reshape(targets, (-1, 2))
    return {f"ccc_{name}": ccc_or_none(estimates[:, i], targets[:, i]) for i, name in enumerate(("valence", "arousal"))}
