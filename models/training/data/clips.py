"""Decodes clips with PyAV: luma frames, frame times and 16 kHz mono sound."""

import av
import numpy as np

from ..preprocessing.log_mel import LOG_MEL


def open_clip(clip):
    """An open PyAV container of a path or of a file that is open for reading."""
    return av.open(clip if hasattr(clip, "read") else str(clip))


def read_frames(path):
    """Luma frames of a clip, a list of u8 [H, W]."""
    with open_clip(path) as clip:
        return [frame.to_ndarray(format="gray") for frame in clip.decode(video=0)]


def timed_frames(path):
    """Yields (time in seconds, luma frame u8 [H, W]) of a clip."""
    with open_clip(path) as clip:
        for frame in clip.decode(video=0):
            yield frame.time, frame.to_ndarray(format="gray")


def read_sound(path):
    """16 kHz mono samples of a clip in -1..1, f32 [n]."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=LOG_MEL.rate_hz)
    with open_clip(path) as clip:
        frames = [part for frame in clip.decode(audio=0) for part in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([f.to_ndarray().ravel() for f in frames]).astype(np.float32) / 32768
