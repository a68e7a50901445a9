"""Sounds that are no voice, though a voice detector may let them pass: tones, hum, melodies, chords, drums, noise.

The voice encoder learns to tell them apart, and the fusion to be unsure about them. They are synthesized, so that nothing
has to be fetched: a bank of windows is made once and kept.
"""

import numpy as np
import torch

import log_mel

COUNT = 1600
MARGIN = 1600  # samples before the window: a sound that began earlier


def envelope(n, rng):
    """Loudness of one note of n samples: a short attack, then held or dying away."""
    t = np.arange(n) / log_mel.RATE_HZ
    return np.minimum(1.0, t / rng.uniform(0.003, 0.05)) * np.exp(-t * rng.choice([0.0, rng.uniform(1, 12)]))


def note(n, pitch_hz, rng):
    """A harmonic tone of one of many timbres, sometimes with vibrato."""
    t = np.arange(n) / log_mel.RATE_HZ
    bend = rng.choice([0.0, rng.uniform(0.0, 0.012)]) * np.sin(2 * np.pi * rng.uniform(3, 8) * t)
    phase = 2 * np.pi * np.cumsum(pitch_hz * (1 + bend)) / log_mel.RATE_HZ
    partials = np.arange(1, 1 + max(1, min(rng.integers(1, 24), int(7000 / pitch_hz))))
    strengths = partials ** -rng.uniform(0.3, 2.5) * rng.uniform(0.2, 1.0, len(partials))
    return envelope(n, rng) * (strengths[:, None] * np.sin(partials[:, None] * phase)).sum(0)


def coloured(n, rng):
    """Noise with a spectrum that falls by a random power of the frequency."""
    spectrum = np.fft.rfft(rng.normal(size=n))
    spectrum *= np.maximum(np.arange(len(spectrum)), 4.0) ** -rng.uniform(0.0, 1.2)
    sound = np.fft.irfft(spectrum, n)
    return sound / sound.std()


def melody(n, voices, rng):
    """Notes one after another on a tempered scale, several at once."""
    sound = np.zeros(n)
    for _ in range(voices):
        at, base = -rng.integers(0, n), rng.uniform(60, 700)
        while at < n:
            length = int(rng.uniform(0.08, 0.9) * log_mel.RATE_HZ)
            played = rng.uniform(0.4, 1.0) * note(length, base * 2 ** (rng.integers(-7, 13) / 12), rng)
            first, last = max(at, 0), min(at + length, n)
            if last > first:
                sound[first:last] += played[first - at : last - at]
            at += length
    return sound


def drums(n, rng):
    sound, at, beat = np.zeros(n), 0, int(rng.uniform(0.1, 0.5) * log_mel.RATE_HZ)
    while at < n:
        length = min(n - at, int(rng.uniform(0.03, 0.25) * log_mel.RATE_HZ))
        sound[at : at + length] += envelope(length, rng) * coloured(max(length, 8), rng)[:length]
        at += beat
    return sound


def sound(rng):
    """One random sound of a window's length and MARGIN, peak somewhere under 1."""
    n = log_mel.SPAN + MARGIN
    kind = rng.integers(6)
    if kind == 0:
        made = note(n, np.exp(rng.uniform(np.log(50), np.log(3000))), rng)
    elif kind == 1:
        made = melody(n, 1, rng)
    elif kind == 2:
        made = melody(n, int(rng.integers(2, 5)), rng)
    elif kind == 3:
        made = melody(n, int(rng.integers(1, 4)), rng) + rng.uniform(0.1, 1.0) * drums(n, rng)
    elif kind == 4:
        made = coloured(n, rng)
    else:
        made = drums(n, rng)
    made = made / np.abs(made).max() * 10 ** rng.uniform(-1.5, 0.0)
    return made + coloured(n, rng) * 10 ** rng.uniform(-5.0, -2.0)


def bank(work, count=COUNT):
    """Band powers [count, BANDS, FRAMES] of such sounds, made on the first call."""
    kept = work / "non_voice.npy"
    if not kept.exists():
        rng = np.random.default_rng(17)
        made = []
        for _ in range(count):
            power = log_mel.mel_power(torch.from_numpy(sound(rng).astype(np.float32)))
            made.append(power[-log_mel.FRAMES :].T.numpy())
        np.save(kept, np.stack(made))
    return torch.from_numpy(np.load(kept))


def inputs(count, seed=23):
    """Encoder inputs [count, 1, BANDS, FRAMES] of other such sounds."""
    rng = np.random.default_rng(seed)
    sounds = [torch.from_numpy(sound(rng).astype(np.float32)) for _ in range(count)]
    powers = torch.stack([log_mel.mel_power(samples)[-log_mel.FRAMES :].T for samples in sounds])
    return log_mel.normalize(log_mel.log_power(powers))[:, None]
