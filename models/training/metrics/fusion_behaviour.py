"""How the fusion behaves: near zero on neutral people, uncertain without a real voice or face, smooth when a modality ends."""

import numpy as np
import torch

from ..networks.joint_cross_attention import FACE, STEPS
from ..preprocessing.fusion_features import STEP_S, TICK_HZ, step_features
from .fusion_accuracy import DIMENSIONS

TIME_CONSTANT_S = 0.5  # affectd's smoothing unless configured otherwise
LEAST_TICKS = 10  # in a performance whose modality ends half-way


def flat(outputs):
    """(affect, log variance), [n, 2] each."""
    return (part.flatten(1) for part in outputs)


@torch.no_grad()
def on_neutral(network, ticks):
    """Over `ticks` of neutral people: mean absolute affect, mean affect, mean claimed variance, [2] each."""
    affect, log_variance = flat(network(*ticks[:3]))
    return affect.abs().mean(0), affect.mean(0), log_variance.exp().mean(0)


@torch.no_grad()
def without_person(network, non_voice, surfaces):
    """Mean claimed variances [2] of windows filled with sounds without a voice, and of windows filled with surfaces.

    `non_voice` are embeddings [n, 64], `surfaces` scores [m, 18] of images without a face.
    """
    sounds = torch.from_numpy(non_voice)[:, :, None, None].repeat(1, 1, 1, STEPS)
    mask = torch.zeros(len(sounds), 2, 1, STEPS)
    mask[:, 1] = 1
    _, of_sounds = flat(network(torch.zeros(len(sounds), FACE, 1, STEPS), sounds, mask))
    features = np.stack([step_features(row[None]) for row in surfaces])
    features = torch.from_numpy(features.astype(np.float32))[:, :, None, None].repeat(1, 1, 1, STEPS)
    mask = torch.zeros(len(surfaces), 2, 1, STEPS)
    mask[:, 0] = 1
    _, of_surfaces = flat(network(features, torch.zeros(len(surfaces), sounds.shape[1], 1, STEPS), mask))
    return of_sounds.exp().mean(0), of_surfaces.exp().mean(0)


def end_halfway(ticks, modality):
    """Ticks of performances whose `modality` ends half-way: (face, voice, mask, whether it ends here [n] bool, index [n]).

    Older steps keep the modality. Performances that are too short are left out.
    """
    face, voice, mask, _, index = ticks
    rows, missing_steps, moments = [], [], []
    for name in index.unique():
        own = torch.nonzero(index == name).flatten()
        if len(own) < LEAST_TICKS:
            continue
        since = (torch.arange(len(own)) - len(own) // 2) / TICK_HZ
        rows.append(own)
        missing_steps.append(torch.where(since < 0, 0, 1 + torch.floor(since / STEP_S + 1e-6)))
        moments.append(torch.arange(len(own)) == len(own) // 2)
    rows, missing = torch.cat(rows), torch.cat(missing_steps)
    age = torch.arange(STEPS - 1, -1, -1)
    stays = (age[None, :] >= missing[:, None]).float()[:, None, None]
    parts = [part[rows].clone() for part in (face, voice, mask)]
    parts[modality] *= stays
    parts[2][:, modality : modality + 1] *= stays
    return *parts, torch.cat(moments), index[rows]


def smoothed(values, index):
    """affectd's exponential smoothing of values [n, k], which starts at zero in each performance."""
    weight, out = 1 - np.exp(-1 / TICK_HZ / TIME_CONSTANT_S), values.clone()
    for i in range(len(values)):
        before = out[i - 1] if i and index[i] == index[i - 1] else torch.zeros_like(out[i])
        out[i] = before + weight * (values[i] - before)
    return out


@torch.no_grad()
def jumps(network, ticks, modality):
    """Largest change between ticks after smoothing: ([2] where the modality ends, [2] anywhere else)."""
    *batch, moments, index = end_halfway(ticks, modality)
    affect, _ = flat(network(*batch))
    change = smoothed(affect, index).diff(dim=0).abs()
    inside = index.diff() == 0
    elsewhere = inside & ~moments[1:]
    return change[moments[1:] & inside].amax(0), change[elsewhere].amax(0)


def manifest_figures(network, sets, validation, command):
    """All of it as figures for the manifest, measured on the int8 graph. `sets` are EvaluationSets, `validation` ticks."""
    result = []

    def add(name, values, split):
        print(name, [round(float(v), 3) for v in values], flush=True)
        for dimension, value in zip(DIMENSIONS, values, strict=True):
            result.append(
                {"name": f"{name}, {dimension}", "value": round(float(value), 3), "split": split, "command": command}
            )

    absolute, mean, variance = on_neutral(network, sets.clip_ticks("grid"))
    grid = "11 GRID clips, all four graphs, without smoothing"
    add("mean of absolute values", absolute, grid)
    add("mean", mean, grid)
    add("claimed variance", variance, grid)
    of_sounds, of_surfaces = without_person(network, sets.non_voice_embeddings(), sets.surface_scores())
    add("claimed variance", of_sounds, "tones, music, drums and noise in place of a voice")
    add("claimed variance", of_surfaces, "surfaces in place of a face")
    for modality, name in enumerate(("face", "voice")):
        at_end, elsewhere = jumps(network, validation, modality)
        split = "RAVDESS validation, actors 19-21, translated faces, smoothed as affectd does"
        add(f"largest change between ticks where the {name} ends", at_end, split)
        add(f"largest change between any other ticks, {name} absent after half of the clip", elsewhere, split)
    return result
