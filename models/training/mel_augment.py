"""What rooms, microphones and other people do to a voice, applied to batches of mel band powers [n, BANDS, FRAMES].

Working on powers (before the logarithm) keeps gain honest: whatever a quiet microphone sinks under the log floor is
lost in training as it will be in use. Each function takes and returns powers; `augment` strings them together.
"""

import math

import torch

import log_mel

GAIN_DB = 20.0
TELEPHONE = (8.0, 46.0)  # the bands at about 270 Hz and 3.6 kHz
QUIETEST = math.log(log_mel.LOG_FLOOR) + 2.5  # mean log power of a window's loudest half


def uniform(n, low, high, generator):
    """n values in low..high, shaped to broadcast over [n, BANDS, FRAMES]."""
    return (low + (high - low) * torch.rand(n, generator=generator))[:, None, None]


def some(power, probability, effect, generator):
    """`effect` on some rows of the batch only: each with this probability, in place."""
    rows = torch.rand(len(power), generator=generator) < probability
    if rows.any():
        power[rows] = effect(power[rows], generator)


def decibels(value):
    return 10.0 ** (value / 10.0)


def warp(power, generator):
    """Another speaker at another pace: shift the mel axis by up to 2 bands, stretch time by up to 12 %, about its end."""
    n = power.shape[0]
    shift = uniform(n, -2.0, 2.0, generator)[:, 0]
    pace = uniform(n, 0.88, 1.12, generator)[:, 0]
    bands = (torch.arange(log_mel.BANDS) + shift).clamp(0, log_mel.BANDS - 1)
    ages = ((log_mel.FRAMES - 1 - torch.arange(log_mel.FRAMES)) * pace).clamp(max=log_mel.FRAMES - 1)
    power = interpolate(power, bands, dim=1)
    return interpolate(power, log_mel.FRAMES - 1 - ages, dim=2)


def interpolate(power, position, dim):
    """Linear interpolation of [n, BANDS, FRAMES] along `dim` at fractional `position` [n, size of dim]."""
    low = position.floor().long().clamp(max=power.shape[dim] - 2)
    part = position - low
    shape = [-1, 1, 1]
    shape[dim] = position.shape[1]
    index = low.reshape(shape).expand_as(power)
    part = part.reshape(shape)
    return power.gather(dim, index) * (1 - part) + power.gather(dim, index + 1) * part


def reverberate(power, generator):
    """Smear each frame into later ones with a decay of 60 dB in 0.2 .. 0.9 s, the tail 3 .. 18 dB under the voice."""
    n = power.shape[0]
    seconds = uniform(n, 0.2, 0.9, generator)
    tail = decibels(-uniform(n, 3.0, 18.0, generator))
    step = log_mel.HOP / log_mel.RATE_HZ
    age = torch.arange(log_mel.FRAMES)[None, :] - torch.arange(log_mel.FRAMES)[:, None]  # [from, to]
    decay = torch.exp(-13.8 * step / seconds * age.clamp(min=0)) * (age > 0)
    return power + tail * torch.matmul(power, decay / decay[:, :1, :].sum(-1, keepdim=True).clamp(min=1e-6))


def noise(power, generator, under=(0.0, 30.0)):
    """Stationary noise between white and brown, so many dB under the window's mean power."""
    n = power.shape[0]
    centre = torch.linspace(0, 1, log_mel.BANDS)[None, :, None]
    # The sum of a filter is the power of white noise in its band; each factor of 10 of tilt is 10 dB from end to end.
    spectrum = log_mel.filters().sum(0)[None, :, None] * decibels(-centre * uniform(n, 0.0, 40.0, generator))
    flicker = torch.empty_like(power).exponential_(generator=generator).add_(0.2).div_(1.2)
    hiss = spectrum * flicker
    return power + hiss * ratio(power, hiss, uniform(n, *under, generator))


def babble(power, others, generator):
    """Two other voices of `others` [m, BANDS, FRAMES] behind each, 5 .. 25 dB under it."""
    n = power.shape[0]
    crowd = sum(others[torch.randint(len(others), (n,), generator=generator)] for _ in range(2))
    return power + crowd * ratio(power, crowd, uniform(n, 5.0, 25.0, generator))


def ratio(voice, unwanted, decibels_under):
    """The factor that puts `unwanted` so many dB under `voice`, [n, 1, 1]."""
    voice, unwanted = (x.sum((1, 2), keepdim=True) for x in (voice, unwanted))
    return voice / unwanted.clamp(min=1e-12) * decibels(-decibels_under)


def colour(power, generator):
    """A microphone's response: a tilt of up to 9 dB each way, and a roll-off below and above (telephone at the extreme)."""
    n = power.shape[0]
    place = torch.linspace(-1, 1, log_mel.BANDS)[None, :, None]
    power = power * decibels(place * uniform(n, -9.0, 9.0, generator))
    low = uniform(n, TELEPHONE[0] - 16.0, TELEPHONE[0], generator)
    return roll_off(power, low, uniform(n, TELEPHONE[1], 80.0, generator))


def roll_off(power, low, high):
    """6 dB less a band below `low` and above `high`."""
    band = torch.arange(log_mel.BANDS)[None, :, None]
    return power * decibels(-6.0 * ((low - band).clamp(min=0) + (band - high).clamp(min=0)))


def gaps(power, generator):
    """SpecAugment: up to 8 neighbouring bands and up to 12 neighbouring frames silent."""
    n = power.shape[0]
    for dim, size, widest in ((1, log_mel.BANDS, 8.0), (2, log_mel.FRAMES, 12.0)):
        shape = [1, 1, 1]
        shape[dim] = size
        place = torch.arange(size).reshape(shape)
        start = uniform(n, 0.0, size - widest, generator)
        width = uniform(n, 0.0, widest, generator)
        power = power * ~((place >= start) & (place < start + width))
    return power


def gain(power, generator):
    """A microphone's gain of -20 .. 20 dB, but down to no level at which most of the voice is under the log floor.

    What lies under the floor says nothing of the speaker, so learning from it would only teach the mean.
    """
    level = log_mel.log_power(power).mean(1).topk(log_mel.LOUDEST, dim=1).values.mean(1)
    room = (10.0 / math.log(10.0)) * (level - QUIETEST)
    lowest = -room.clamp(0.0, GAIN_DB)[:, None, None]
    share = uniform(power.shape[0], 0.0, 1.0, generator)
    return power * decibels(lowest + (GAIN_DB - lowest) * share)


def augment(power, generator):
    """All of it at random, gain last: [n, BANDS, FRAMES] -> the same shape."""
    clean, power = power, power.clone()
    some(power, 0.5, warp, generator)
    some(power, 0.2, reverberate, generator)
    some(power, 0.1, lambda part, _: babble(part, clean, generator), generator)
    some(power, 0.3, noise, generator)
    some(power, 0.4, colour, generator)
    some(power, 0.3, gaps, generator)
    return gain(power, generator)
