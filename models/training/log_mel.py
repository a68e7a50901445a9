"""Log-mel windows of the voice encoder: the Python twin of affectd's `src/voice/mel.rs`.

Everything here is a function of tensors, so that the trainers run it on whole batches and a test can compare it
with Rust frame by frame. The constants are the contract; they go into the manifest as `PREPROCESSING`.
"""

import functools

import torch

RATE_HZ = 16_000
HOP = 160
WINDOW = 400
FFT = 512
BANDS = 64
F_MIN_HZ = 60.0
F_MAX_HZ = 7600.0
LOG_FLOOR = 1e-9
FRAMES = 96
LOUDEST = 48
CLAMP = 8.0
SPAN = (FRAMES - 1) * HOP + WINDOW  # samples under one window: 15600, 0.975 s

PREPROCESSING = {
    "rate_hz": RATE_HZ,
    "hop": HOP,
    "window": WINDOW,
    "fft": FFT,
    "bands": BANDS,
    "f_min": F_MIN_HZ,
    "f_max": F_MAX_HZ,
    "log_floor": LOG_FLOOR,
    "frames": FRAMES,
    "loudest": LOUDEST,
    "clamp": CLAMP,
}


@functools.cache
def filters():
    """Triangular HTK mel filters, peak 1, evaluated at the FFT's bin frequencies: [257, BANDS]."""

    def mel(hz):
        return 2595.0 * torch.log10(1.0 + hz / 700.0)

    low, high = mel(torch.tensor([F_MIN_HZ, F_MAX_HZ], dtype=torch.float64))
    corners_mel = low + (high - low) * torch.arange(BANDS + 2, dtype=torch.float64) / (BANDS + 1)
    corners = 700.0 * (10.0 ** (corners_mel / 2595.0) - 1.0)
    bins = torch.arange(FFT // 2 + 1, dtype=torch.float64)[:, None] * RATE_HZ / FFT
    left, peak, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins - left) / (peak - left)
    falling = (right - bins) / (right - peak)
    return torch.clamp(torch.minimum(rising, falling), min=0.0).float()


@functools.cache
def hann():
    """Periodic Hann window, [WINDOW]."""
    return torch.hann_window(WINDOW, periodic=True, dtype=torch.float64).float()


def frame_count(samples):
    """How many frames lie fully inside the first `samples` samples."""
    return max(0, (samples - WINDOW) // HOP + 1)


def mel_power(samples):
    """Mel band powers of 16 kHz mono samples in -1..1, [n] -> [frames, BANDS]; frame f covers [160 f, 160 f + 400)."""
    if samples.shape[0] < WINDOW:
        return samples.new_zeros((0, BANDS))
    frames = samples.unfold(0, WINDOW, HOP) * hann()
    power = torch.fft.rfft(frames, n=FFT).abs().square() / hann().sum().square()
    return power @ filters()


def log_power(power):
    """Natural log over the floor; a frame that does not exist has power 0 and becomes ln(LOG_FLOOR)."""
    return torch.log(power + LOG_FLOOR)


def normalize(log_mel):
    """Level-normalize windows [..., BANDS, FRAMES]: the loudest half is at 0, one unit is CLAMP nepers of power.

    Only differences to the window's own loud frames remain, so a microphone's gain falls out, except for what the
    log floor has already cut off.
    """
    level = log_mel.mean(dim=-2)
    loud = level.topk(LOUDEST, dim=-1).values.mean(dim=-1)
    return torch.clamp(log_mel - loud[..., None, None], -CLAMP, CLAMP) / CLAMP


def window_ending_at(power, end):
    """The window of a tick at sample `end`, from the source's band powers [frames, BANDS]: normalized [BANDS, FRAMES]."""
    last = min(frame_count(end), power.shape[0])
    first = max(0, last - FRAMES)
    window = power.new_zeros((FRAMES, BANDS))
    if last > first:
        window[FRAMES - (last - first) :] = power[first:last]
    return normalize(log_power(window).T)
