"""Whether a voice is present in a window of sound: affectd's rule, on the scores of a voice activity detector."""

import numpy as np

FRAME = 256  # samples, 16 ms
THRESHOLD = 0.5  # score from which a frame counts as voiced
VOICED_SHARE = 0.25  # of the window's frames
LEAST_AUDIO_S = 0.4
DECIBELS_BELOW_LOUDEST = 30.0


def activity(samples):
    """earshot's score in 0..1 of each whole frame of samples [n], f32 [n // 256]: the detector that affectd uses."""
    import earshot  # here, so that everything except sound works without it

    detector = earshot.Detector()
    frames = samples[: len(samples) // FRAME * FRAME].astype(np.float32).reshape(-1, FRAME)
    return np.array([detector.predict_f32(frame) for frame in frames], np.float32)


def activity_by_loudness(samples):
    """In place of `activity` for clean recordings: 1 where a frame is within 30 dB of the loudest, else 0."""
    frames = samples[: len(samples) // FRAME * FRAME].astype(np.float64).reshape(-1, FRAME)
    power = (frames**2).mean(1)
    least = power.max(initial=0.0) * 10 ** (-DECIBELS_BELOW_LOUDEST / 10)
    return ((power > 0) & (power >= least)).astype(np.float32)


def voice_present(scores, samples, ends, span, rate_hz):
    """Whether the windows of `span` samples ending at samples `ends` [n] hold a voice: bool [n].

    `scores` are of a recording of `samples` samples. A window needs enough audio, and enough voiced frames fully inside it.
    """
    ends = np.asarray(ends)
    voiced = np.concatenate([[0], np.cumsum(scores >= THRESHOLD)])
    begins = np.maximum(ends - span, 0)
    first = np.clip(-(-begins // FRAME), 0, len(scores))
    last = np.clip(ends // FRAME, 0, len(scores))
    count = np.maximum(last - first, 0)
    enough = np.minimum(ends, samples) - begins >= int(LEAST_AUDIO_S * rate_hz)
    return enough & (count > 0) & (voiced[np.maximum(last, first)] - voiced[first] >= VOICED_SHARE * count)
