"""Log-mel windows of the voice encoder: the Python form of `src/voice/mel.rs`.

16 kHz mono samples in -1..1 become band powers [frames, 64], a frame every 10 ms, and a window of 96 frames (0.975 s)
becomes the encoder's input [64, 96] in -1..1. Works on numpy arrays without torch, and on torch tensors.
"""

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True)
class LogMel:
    """The constants of the preprocessing, as the manifest carries them, and the functions that they define."""

    rate_hz: int = 16_000
    hop: int = 160  # samples from one frame to the next
    window: int = 400  # samples in a frame
    fft: int = 512
    bands: int = 64
    f_min: float = 60.0  # Hz
    f_max: float = 7600.0  # Hz
    log_floor: float = 1e-9  # added to a power before its logarithm
    frames: int = 96  # in a window
    loudest: int = 48  # frames that set the level of a window
    clamp: float = 8.0  # nepers of power that become 1

    @property
    def span(self):
        """Samples under one window: 15,600, that is 0.975 s."""
        return (self.frames - 1) * self.hop + self.window

    @functools.cached_property
    def filters(self):
        """Triangular HTK mel filters with peak 1, evaluated at the FFT's bin frequencies: f64 [257, bands]."""
        low, high = 2595.0 * np.log10(1.0 + np.array([self.f_min, self.f_max]) / 700.0)
        corners_mel = low + (high - low) * np.arange(self.bands + 2) / (self.bands + 1)
        corners = 700.0 * (10.0 ** (corners_mel / 2595.0) - 1.0)
        bins = np.arange(self.fft // 2 + 1)[:, None] * self.rate_hz / self.fft
        left, peak, right = corners[:-2], corners[1:-1], corners[2:]
        return np.maximum(np.minimum((bins - left) / (peak - left), (right - bins) / (right - peak)), 0.0)

    @functools.cached_property
    def hann(self):
        """Periodic Hann window, f64 [window]."""
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)

    def frame_count(self, samples):
        """How many frames lie fully inside the first `samples` samples."""
        return max(0, (samples - self.window) // self.hop + 1)

    def band_powers(self, samples):
        """Mel band powers of samples [n] in -1..1, [frames, bands]; frame f covers [hop f, hop f + window).

        A numpy array gives f64. A torch tensor gives f32: training and the figures of the manifest use that.
        """
        if len(samples) < self.window:
            return np.zeros((0, self.bands)) if isinstance(samples, np.ndarray) else samples.new_zeros((0, self.bands))
        if isinstance(samples, np.ndarray):
            framed = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), self.window)[:: self.hop]
            fft, hann, filters = np.fft, self.hann, self.filters
        else:
            import torch

            framed, fft = samples.unfold(0, self.window, self.hop), torch.fft
            hann, filters = (torch.from_numpy(constant).float() for constant in (self.hann, self.filters))
        return (abs(fft.rfft(framed * hann, self.fft)) ** 2 / hann.sum() ** 2) @ filters

    def normalize(self, powers):
        """Band powers [..., bands, frames] -> the encoder's input of the same shape in -1..1; numpy or torch.

        The loudest half of the window is at 0, one unit is `clamp` nepers. Only differences to the window's own loud frames
        remain. This removes the gain of the microphone, except for sound that the log floor cuts off.
        """
        if isinstance(powers, np.ndarray):
            logs = np.log(powers + self.log_floor)
            loud = np.sort(logs.mean(-2), axis=-1)[..., -self.loudest :].mean(-1)
        else:
            logs = (powers + self.log_floor).log()
            loud = logs.mean(-2).topk(self.loudest, -1).values.mean(-1)
        return (logs - loud[..., None, None]).clip(-self.clamp, self.clamp) / self.clamp

    def window_ending_at(self, powers, end):
        """The encoder's input [bands, frames] at sample `end`, from band powers [all frames, bands].

        Frames before the recording began are silent.
        """
        last = min(self.frame_count(end), len(powers))
        first = max(0, last - self.frames)
        window = np.zeros((self.frames, self.bands), powers.dtype)
        if last > first:
            window[self.frames - (last - first) :] = powers[first:last]
        return self.normalize(window.T)


LOG_MEL = LogMel()
