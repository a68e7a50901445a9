"""Sounds without a voice that a voice activity detector may accept: tones, hum, melodies, chords, drums, noise.

The voice encoder learns to tell them from voices, and the fusion learns to claim a large variance for them. They are
synthesized, so no recordings are needed.
"""

import numpy as np
import torch

from ..preprocessing.log_mel import LOG_MEL

COUNT = 1600
MARGIN = 1600  # samples before the window, for sounds that began earlier


def envelope(n, rng):
    """Loudness of one note of n samples: a short attack, then constant or decaying."""
    t = np.arange(n) / LOG_MEL.rate_hz
    return np.minimum(1.0, t / rng.uniform(0.003, 0.05)) * np.exp(-t * rng.choice([0.0, rng.uniform(1, 12)]))


def tone(n, pitch_hz, rng):
    """A harmonic tone of one of many timbres, sometimes with vibrato."""
    t = np.arange(n) / LOG_MEL.rate_hz
    bend = rng.choice([0.0, rng.uniform(0.0, 0.012)]) * np.sin(2 * np.pi * rng.uniform(3, 8) * t)
    phase = 2 * np.pi * np.cumsum(pitch_hz * (1 + bend)) / LOG_MEL.rate_hz
    partials = np.arange(1, 1 + max(1, min(rng.integers(1, 24), int(7000 / pitch_hz))))
    strengths = partials ** -rng.uniform(0.3, 2.5) * rng.uniform(0.2, 1.0, len(partials))
    return envelope(n, rng) * (strengths[:, None] * np.sin(partials[:, None] * phase)).sum(0)


def coloured_noise(n, rng):
    """Noise with a spectrum that falls by a random power of the frequency."""
    spectrum = np.fft.rfft(rng.normal(size=n))
    spectrum *= np.maximum(np.arange(len(spectrum)), 4.0) ** -rng.uniform(0.0, 1.2)
    sound = np.fft.irfft(spectrum, n)
    return sound / sound.std()


def melody(n, voices, rng):
    """`voices` sequences of notes on a tempered scale, at once."""
    sound = np.zeros(n)
    for _ in range(voices):
        at, base = -rng.integers(0, n), rng.uniform(60, 700)
        while at < n:
            length = int(rng.uniform(0.08, 0.9) * LOG_MEL.rate_hz)
            played = rng.uniform(0.4, 1.0) * tone(length, base * 2 ** (rng.integers(-7, 13) / 12), rng)
            first, last = max(at, 0), min(at + length, n)
            if last > first:
                sound[first:last] += played[first - at : last - at]
            at += length
    return sound


def drums(n, rng):
    """Short bursts of noise at a steady beat."""
    sound, at, beat = np.zeros(n), 0, int(rng.uniform(0.1, 0.5) * LOG_MEL.rate_hz)
    while at < n:
        length = min(n - at, int(rng.uniform(0.03, 0.25) * LOG_MEL.rate_hz))
        sound[at : at + length] += envelope(length, rng) * coloured_noise(max(length, 8), rng)[:length]
        at += beat
    return sound


def sound(rng):
    """One random sound: f64 samples [span + MARGIN] with a peak of at most about 1."""
    n = LOG_MEL.span + MARGIN
    kind = rng.integers(6)
    if kind == 0:
        made = tone(n, np.exp(rng.uniform(np.log(50), np.log(3000))), rng)
    elif kind == 1:
        made = melody(n, 1, rng)
    elif kind == 2:
        made = melody(n, int(rng.integers(2, 5)), rng)
    elif kind == 3:
        made = melody(n, int(rng.integers(1, 4)), rng) + rng.uniform(0.1, 1.0) * drums(n, rng)
    elif kind == 4:
        made = coloured_noise(n, rng)
    else:
        made = drums(n, rng)
    made = made / np.abs(made).max() * 10 ** rng.uniform(-1.5, 0.0)
    return made + coloured_noise(n, rng) * 10 ** rng.uniform(-5.0, -2.0)


def random_window(rng):
    """Band powers of one random sound, f32 tensor [64, 96]."""
    return LOG_MEL.band_powers(torch.from_numpy(sound(rng).astype(np.float32)))[-LOG_MEL.frames :].T


def training_windows(work, count=COUNT):
    """Band powers of such sounds, f32 tensor [count, 64, 96]; made once and cached in `work`."""
    cache = work / "non_voice.npy"
    if not cache.exists():
        rng = np.random.default_rng(17)
        np.save(cache, torch.stack([random_window(rng) for _ in range(count)]).numpy())
    return torch.from_numpy(np.load(cache))


def encoder_inputs(count, seed=23):
    """Encoder inputs of other such sounds, f32 tensor [count, 1, 64, 96]."""
    rng = np.random.default_rng(seed)
    return LOG_MEL.normalize(torch.stack([random_window(rng) for _ in range(count)]))[:, None]
