"""Whether the fusion stays quiet when nobody feels much, doubts what is no voice, and does not jump when one modality goes."""

import numpy as np
import torch

import recorded_clips
from fusion_windows import STEP_S, TICK_HZ
from joint_cross_attention import FACE, STEPS

DIMENSIONS = ("valence", "arousal")
TIME_CONSTANT_S = 0.5  # affectd's smoothing unless configured otherwise
FEWEST = 10  # ticks in a performance that a modality leaves half-way


def flat(outputs):
    return (part.flatten(1) for part in outputs)


@torch.no_grad()
def on_neutral(network, ticks):
    """Mean |valence| and |arousal|, their means, and the mean variances claimed, over `ticks` of neutral people."""
    affect, log_variance = flat(network(*ticks[:3]))
    return affect.abs().mean(0), affect.mean(0), log_variance.exp().mean(0)


@torch.no_grad()
def on_garbage(network, garbage, walls):
    """Mean variances claimed of windows with nothing but sounds that are no voice, and with nothing but walls taken for faces:
    embeddings [n, 64] and posteriors [m, 7]."""
    sounds = torch.from_numpy(garbage)[:, :, None, None].repeat(1, 1, 1, STEPS)
    mask = torch.zeros(len(sounds), 2, 1, STEPS)
    mask[:, 1] = 1
    _, heard = flat(network(torch.zeros(len(sounds), FACE, 1, STEPS), sounds, mask))
    mean = torch.from_numpy(walls)
    features = torch.cat([mean, mean, (torch.log(mean + 1e-3) + 3) / 4], dim=1)[:, :, None, None].repeat(1, 1, 1, STEPS)
    mask = torch.zeros(len(mean), 2, 1, STEPS)
    mask[:, 0] = 1
    _, seen = flat(network(features, torch.zeros(len(mean), sounds.shape[1], 1, STEPS), mask))
    return heard.exp().mean(0), seen.exp().mean(0)


def leaving(ticks, modality):
    """The ticks of each performance, its `modality` gone for good half-way: (face, voice, mask, where it goes [n] bool).

    Performances that are too short are left out; what is there before a step is gone stays in the older steps.
    """
    face, voice, mask, _, index = ticks
    rows, gone_steps, moments = [], [], []
    for name in index.unique():
        own = torch.nonzero(index == name).flatten()
        if len(own) < FEWEST:
            continue
        since = (torch.arange(len(own)) - len(own) // 2) / TICK_HZ
        rows.append(own)
        gone_steps.append(torch.where(since < 0, 0, 1 + torch.floor(since / STEP_S + 1e-6)))
        moments.append(torch.arange(len(own)) == len(own) // 2)
    rows, gone = torch.cat(rows), torch.cat(gone_steps)
    age = torch.arange(STEPS - 1, -1, -1)
    keep = (age[None, :] >= gone[:, None]).float()[:, None, None]
    parts = [part[rows].clone() for part in (face, voice, mask)]
    parts[modality] *= keep
    parts[2][:, modality : modality + 1] *= keep
    return *parts, torch.cat(moments), index[rows]


def smoothed(values, index):
    """affectd's exponential smoothing, afresh for each performance."""
    weight, out = 1 - np.exp(-1 / TICK_HZ / TIME_CONSTANT_S), values.clone()
    for i in range(1, len(values)):
        if index[i] == index[i - 1]:
            out[i] = out[i - 1] + weight * (values[i] - out[i - 1])
    return out


@torch.no_grad()
def jumps(network, ticks, modality):
    """Change from tick to tick after smoothing: ([2] largest where the modality goes, [2] largest anywhere without that)."""
    *batch, moments, index = leaving(ticks, modality)
    affect, _ = flat(network(*batch))
    change = smoothed(affect, index).diff(dim=0).abs()
    inside = index.diff() == 0
    quiet = inside & ~moments[1:]
    return change[moments[1:] & inside].amax(0), change[quiet].amax(0)


def figures(network, material, validation, command):
    """All of it for the manifest, measured on the int8 graph."""
    result = []

    def add(name, values, split):
        print(name, [round(float(v), 3) for v in values], flush=True)
        for dimension, value in zip(DIMENSIONS, values, strict=True):
            result.append(
                {"name": f"{name}, {dimension}", "value": round(float(value), 3), "split": split, "command": command}
            )

    absolute, mean, variance = on_neutral(network, material.clips("grid"))
    grid = "11 GRID clips, all four graphs, without smoothing"
    add("mean of absolute values", absolute, grid)
    add("mean", mean, grid)
    add("claimed variance", variance, grid)
    heard, seen = on_garbage(network, material.heard_garbage(), recorded_clips.walls())
    add("claimed variance", heard, "tones, music, drums and noise")
    add("claimed variance", seen, "walls taken for a face")
    for modality, name in enumerate(("face", "voice")):
        at, elsewhere = jumps(network, validation, modality)
        split = "RAVDESS validation, actors 19-21, face posteriors translated to affectd's, smoothed as affectd does"
        add(f"largest change in a tick when the {name} goes", at, split)
        add(f"largest change in any other tick, {name} gone after half of the clip", elsewhere, split)
    return result
