"""Random rooms, microphones and background voices, applied to batches of mel band powers [n, 64, 96] (torch tensors).

The changes act on powers, before the logarithm, so that gain acts as in use: sound that a quiet microphone puts under the log
floor is lost in training too. Each function takes and returns powers. `augment` combines them.
"""

import math

import torch

from ..preprocessing.log_mel import LOG_MEL

GAIN_DB = 20.0
TELEPHONE = (8.0, 46.0)  # the bands at about 270 Hz and 3.6 kHz
QUIETEST = math.log(LOG_MEL.log_floor) + 2.5  # mean log power of a window's loudest half


def uniform(n, low, high, generator):
    """n values in low..high, shaped to broadcast over [n, 64, 96]."""
    return (low + (high - low) * torch.rand(n, generator=generator))[:, None, None]


def apply_to_some(power, probability, effect, generator):
    """Apply `effect` to each row of the batch with this probability, in place."""
    rows = torch.rand(len(power), generator=generator) < probability
    if rows.any():
        power[rows] = effect(power[rows], generator)


def decibels(value):
    """The power ratio of a number of decibels."""
    return 10.0 ** (value / 10.0)


def warp(power, generator):
    """Another voice and pace: shift the mel axis by up to 2 bands, and stretch time by up to 12 % around its end."""
    n = power.shape[0]
    shift = uniform(n, -2.0, 2.0, generator)[:, 0]
    pace = uniform(n, 0.88, 1.12, generator)[:, 0]
    bands = (torch.arange(LOG_MEL.bands) + shift).clamp(0, LOG_MEL.bands - 1)
    ages = ((LOG_MEL.frames - 1 - torch.arange(LOG_MEL.frames)) * pace).clamp(max=LOG_MEL.frames - 1)
    power = interpolate(power, bands, dim=1)
    return interpolate(power, LOG_MEL.frames - 1 - ages, dim=2)


def interpolate(power, position, dim):
    """Linear interpolation of [n, 64, 96] along `dim` at fractional `position` [n, size of dim]."""
    low = position.floor().long().clamp(max=power.shape[dim] - 2)
    part = position - low
    shape = [-1, 1, 1]
    shape[dim] = position.shape[1]
    index = low.reshape(shape).expand_as(power)
    part = part.reshape(shape)
    return power.gather(dim, index) * (1 - part) + power.gather(dim, index + 1) * part


def reverberate(power, generator):
    """Spread each frame into later ones: a decay of 60 dB in 0.2 to 0.9 s, the tail 3 to 18 dB under the voice."""
    n = power.shape[0]
    seconds = uniform(n, 0.2, 0.9, generator)
    tail = decibels(-uniform(n, 3.0, 18.0, generator))
    step = LOG_MEL.hop / LOG_MEL.rate_hz
    age = torch.arange(LOG_MEL.frames)[None, :] - torch.arange(LOG_MEL.frames)[:, None]  # [from, to]
    decay = torch.exp(-13.8 * step / seconds * age.clamp(min=0)) * (age > 0)
    return power + tail * torch.matmul(power, decay / decay[:, :1, :].sum(-1, keepdim=True).clamp(min=1e-6))


def noise(power, generator, under=(0.0, 30.0)):
    """Stationary noise between white and brown, `under` (least, most) dB under the mean power of the window."""
    n = power.shape[0]
    centre = torch.linspace(0, 1, LOG_MEL.bands)[None, :, None]
    # The sum of a filter is the power of white noise in its band. The random factor tilts it by 0 to 40 dB from end to end.
    spectrum = torch.from_numpy(LOG_MEL.filters.sum(0)).float()[None, :, None] * decibels(
        -centre * uniform(n, 0.0, 40.0, generator)
    )
    flicker = torch.empty_like(power).exponential_(generator=generator).add_(0.2).div_(1.2)
    hiss = spectrum * flicker
    return power + hiss * ratio(power, hiss, uniform(n, *under, generator))


def babble(power, others, generator):
    """Add two other voices from `others` [m, 64, 96] to each, 5 to 25 dB under it."""
    n = power.shape[0]
    background = sum(others[torch.randint(len(others), (n,), generator=generator)] for _ in range(2))
    return power + background * ratio(power, background, uniform(n, 5.0, 25.0, generator))


def ratio(voice, unwanted, decibels_under):
    """The factor [n, 1, 1] that puts `unwanted` `decibels_under` dB under `voice`."""
    voice, unwanted = (x.sum((1, 2), keepdim=True) for x in (voice, unwanted))
    return voice / unwanted.clamp(min=1e-12) * decibels(-decibels_under)


def resonances(n, generator):
    """A smooth response over the bands with up to 6 dB at each of seven places, [n, 64, 1] in dB."""
    knots = 12.0 * torch.rand(n, 1, 7, generator=generator) - 6.0
    return torch.nn.functional.interpolate(knots, LOG_MEL.bands, mode="linear", align_corners=True)[:, 0, :, None]


def colour(power, generator):
    """The response of a microphone: a tilt of up to 9 dB, resonances, and a roll-off at both ends (a telephone band at most)."""
    n = power.shape[0]
    place = torch.linspace(-1, 1, LOG_MEL.bands)[None, :, None]
    power = power * decibels(place * uniform(n, -9.0, 9.0, generator) + resonances(n, generator))
    low = uniform(n, TELEPHONE[0] - 16.0, TELEPHONE[0], generator)
    return roll_off(power, low, uniform(n, TELEPHONE[1], 80.0, generator))


def roll_off(power, low, high):
    """Attenuate by 6 dB for each band below `low` and above `high`."""
    band = torch.arange(LOG_MEL.bands)[None, :, None]
    return power * decibels(-6.0 * ((low - band).clamp(min=0) + (band - high).clamp(min=0)))


def gaps(power, generator):
    """SpecAugment: silence up to 8 neighbouring bands and up to 12 neighbouring frames."""
    n = power.shape[0]
    for dim, size, widest in ((1, LOG_MEL.bands, 8.0), (2, LOG_MEL.frames, 12.0)):
        shape = [1, 1, 1]
        shape[dim] = size
        place = torch.arange(size).reshape(shape)
        start = uniform(n, 0.0, size - widest, generator)
        width = uniform(n, 0.0, widest, generator)
        power = power * ~((place >= start) & (place < start + width))
    return power


def gain(power, generator):
    """A gain of -20 to 20 dB, limited so that most of the voice stays above the log floor.

    Sound under the floor says nothing about the speaker, so it would only teach the mean.
    """
    level = torch.log(power + LOG_MEL.log_floor).mean(1).topk(LOG_MEL.loudest, dim=1).values.mean(1)
    room = (10.0 / math.log(10.0)) * (level - QUIETEST)
    lowest = -room.clamp(0.0, GAIN_DB)[:, None, None]
    share = uniform(power.shape[0], 0.0, 1.0, generator)
    return power * decibels(lowest + (GAIN_DB - lowest) * share)


def augment(power, generator):
    """All changes at random, gain last: [n, 64, 96] -> the same shape."""
    clean, power = power, power.clone()
    apply_to_some(power, 0.5, warp, generator)
    apply_to_some(power, 0.2, reverberate, generator)
    apply_to_some(power, 0.1, lambda part, _: babble(part, clean, generator), generator)
    apply_to_some(power, 0.3, noise, generator)
    apply_to_some(power, 0.4, colour, generator)
    apply_to_some(power, 0.3, gaps, generator)
    return gain(power, generator)
