"""How accurate a fusion is: CCC with both modalities and with either alone, and whether its variances match its errors.

Ticks are (face, voice, mask, target [n, 2], performance index [n]), as `data.fusion_windows.make_ticks` returns them. A network
is any function of (face, voice, mask) to (affect, log variance).
"""

import torch

from .agreement import ccc
from .claimed_variance import LOG_VARIANCE

DIMENSIONS = ("valence", "arousal")
CONDITIONS = {"face and voice": (), "face only": (1,), "voice only": (0,)}  # name: modalities that are removed


def without(batch, modalities):
    """(face, voice, mask) with whole modalities removed: 0 is the face, 1 the voice."""
    face, voice, mask = (part.clone() for part in batch)
    for modality in modalities:
        (face, voice)[modality].zero_()
        mask[:, modality] = 0
    return face, voice, mask


def clip_means(values, index):
    """Means of values [n, k] over each performance, [performances, k]."""
    return torch.stack([values[index == i].mean(0) for i in index.unique()])


@torch.no_grad()
def measure(network, ticks):
    """{condition: {"tick", "clip" and "end": CCC [2], "variance": [2]}} of a network at ticks with both modalities.

    "end" is the CCC of each clip's last tick, which has seen the whole performance; most ticks have seen little. "variance"
    is the mean squared error over the mean claimed variance.
    """
    *batch, target, index = ticks
    result, outputs = {}, {}
    for condition, dropped in CONDITIONS.items():
        affect, log_variance = (part.flatten(1) for part in network(*without(batch, dropped)))
        outputs[condition] = affect, log_variance.clamp(*LOG_VARIANCE).exp()
        result[condition] = agreement(affect, target, index)
        claimed = outputs[condition][1].mean(0)
        result[condition]["variance"] = ((affect - target).square().mean(0) / claimed).tolist()
    (face, face_variance), (voice, voice_variance) = outputs["face only"], outputs["voice only"]
    late = (face / face_variance + voice / voice_variance) / (1 / face_variance + 1 / voice_variance)
    result["late, inverse variance"] = agreement(late, target, index)
    return result


def agreement(affect, target, index):
    """CCC of estimates [n, 2]: of ticks, of the means of clips, and of the last tick of each clip."""
    last = torch.stack([(index == i).nonzero().max() for i in index.unique()])
    return {
        "tick": ccc(affect, target).tolist(),
        "clip": ccc(clip_means(affect, index), clip_means(target, index)).tolist(),
        "end": ccc(affect[last], target[last]).tolist(),
    }


def score(result):
    """Mean CCC per tick; both modalities together weigh as much as the two single ones."""
    both, face, voice = (sum(result[c]["tick"]) / 2 for c in CONDITIONS)
    return 0.5 * both + 0.25 * face + 0.25 * voice


def report(label, result):
    """Print the result of `measure` on one line."""
    parts = [
        f"{condition}: " + " ".join(f"{kind} {values[0]:.3f}/{values[1]:.3f}" for kind, values in kinds.items())
        for condition, kinds in result.items()
    ]
    print(label, "; ".join(parts), flush=True)


def manifest_figures(results, command):
    """The figures for the manifest from {split: result of `measure`}."""
    entries = []
    for split, result in results.items():
        for condition, kinds in result.items():
            for kind in ("tick", "clip"):
                for dimension, value in zip(DIMENSIONS, kinds[kind], strict=True):
                    name = f"CCC {dimension}, {condition}, per {kind}"
                    entries.append({"name": name, "value": round(value, 3), "split": split, "command": command})
            if "variance" not in kinds:  # late fusion claims none
                continue
            for dimension, value in zip(DIMENSIONS, kinds["variance"], strict=True):
                name = f"squared error over claimed variance, {dimension}, {condition}"
                entries.append({"name": name, "value": round(value, 2), "split": split, "command": command})
    return entries
