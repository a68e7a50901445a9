"""The acted-speech corpora (RAVDESS, nEMO): decode once, cache band powers and voice activity, split by speaker.

Targets are category-derived: the category's point in circumplex.csv times an intensity. RAVDESS states its intensity
(normal 0.7, strong 1.0); nEMO does not, and gets the middle, 0.85.
"""

import csv
import dataclasses
import io
import tarfile
from pathlib import Path

import earshot
import numpy as np
import soundfile
import torch

import log_mel

VAD_FRAME = 256
VAD_THRESHOLD = 0.5
VOICED_SHARE = 0.25
LEAST_AUDIO = int(0.4 * log_mel.RATE_HZ)

CLASSES = ["neutral", "calm", "happiness", "surprise", "sadness", "anger", "disgust", "fear"]
RAVDESS_EMOTIONS = ["neutral", "calm", "happiness", "sadness", "anger", "fear", "disgust", "surprise"]
NORMAL, STRONG, UNSTATED = 0.7, 1.0, 0.85

RAVDESS_VALIDATION = {f"{actor:02}" for actor in range(19, 22)}
RAVDESS_TEST = {f"{actor:02}" for actor in range(22, 25)}
NEMO_TEST = {"MK0", "TP0"}  # one woman, one man, all six emotions in full

# Cached powers are stored as ln(power + CACHE_FLOOR): far below LOG_FLOOR, so that a gain can still be applied.
CACHE_FLOOR = 1e-10


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One recording; `first`/`frames` locate its mel frames in the cache, `first_vad`/`vad_frames` its VAD scores."""

    name: str
    corpus: str
    speaker: str
    emotion: str
    intensity: float
    samples: int
    first: int
    frames: int
    first_vad: int
    vad_frames: int

    @property
    def split(self):
        if self.corpus == "nemo":
            return "test" if self.speaker in NEMO_TEST else "train"
        if self.speaker in RAVDESS_TEST:
            return "test"
        return "validation" if self.speaker in RAVDESS_VALIDATION else "train"


class Corpora:
    """All utterances with their cached frames. `log_powers` is f16 [all frames, BANDS], `vad` f16 scores [all VAD frames]."""

    def __init__(self, data, work):
        self.work = Path(work)
        cache = self.work / "speech"
        if not (cache / "utterances.csv").exists():
            build_cache(Path(data), cache)
        with open(cache / "utterances.csv", newline="") as file:
            fields = {field.name: field.type for field in dataclasses.fields(Utterance)}
            self.utterances = [
                Utterance(**{key: fields[key](value) for key, value in row.items()}) for row in csv.DictReader(file)
            ]
        self.log_powers = np.load(cache / "log_powers.npy", mmap_mode="r")
        self.vad = np.load(cache / "vad.npy")
        self.points = circumplex(data)

    @classmethod
    def of_one(cls, power, vad):
        """A cache that holds a single recording's band powers [frames, BANDS] and VAD scores, and no targets."""
        one = cls.__new__(cls)
        one.utterances, one.points = [], {}
        one.log_powers, one.vad = np.log(power + CACHE_FLOOR), vad
        return one

    def target(self, utterance):
        """(valence, arousal), category-derived."""
        valence, arousal = self.points[utterance.emotion]
        return valence * utterance.intensity, arousal * utterance.intensity

    def select(self, corpus, split):
        return [u for u in self.utterances if u.corpus == corpus and u.split == split]

    def power(self, utterance):
        """Band powers of a whole utterance, [frames, BANDS] f32."""
        logs = self.log_powers[utterance.first : utterance.first + utterance.frames]
        return torch.from_numpy(logs.astype(np.float32)).exp_().sub_(CACHE_FLOOR).clamp_(min=0)

    def window_powers(self, utterances, ends):
        """Un-normalized powers of the windows of `utterances` that end at samples `ends`: [n, BANDS, FRAMES] f32.

        Frames before the recording began, or after it ended, have power 0.
        """
        out = np.zeros((len(utterances), log_mel.FRAMES, log_mel.BANDS), np.float32)
        for row, (utterance, end) in enumerate(zip(utterances, ends)):
            last = log_mel.frame_count(int(end))
            first = last - log_mel.FRAMES
            low, high = max(0, first), min(last, utterance.frames)
            if high > low:
                logs = self.log_powers[utterance.first + low : utterance.first + high]
                out[row, low - first : high - first] = np.exp(logs.astype(np.float32)) - CACHE_FLOOR
        return torch.from_numpy(out).clamp_(min=0).transpose(1, 2)

    def voice_present(self, utterance, ends):
        """affectd's rule for steps ending at samples `ends` [n]: enough audio, and enough of its VAD frames voiced."""
        ends = np.asarray(ends)
        scores = self.vad[utterance.first_vad : utterance.first_vad + utterance.vad_frames]
        voiced = np.concatenate([[0], np.cumsum(scores >= VAD_THRESHOLD)])
        # VAD frame k covers [256 k, 256 k + 256); those fully inside [end - SPAN, end) are low..high.
        low = np.clip(-(-(ends - log_mel.SPAN) // VAD_FRAME), 0, utterance.vad_frames)
        high = np.clip(ends // VAD_FRAME, 0, utterance.vad_frames)
        count = np.maximum(high - low, 0)
        enough = np.minimum(ends, utterance.samples) - np.maximum(ends - log_mel.SPAN, 0) >= LEAST_AUDIO
        return enough & (count > 0) & (voiced[np.maximum(high, low)] - voiced[low] >= VOICED_SHARE * count)


def circumplex(data):
    """{emotion: (valence, arousal)}, each in -1..1."""
    with open(Path(data) / "circumplex.csv", newline="") as file:
        return {row["emotion"]: (float(row["valence"]), float(row["arousal"])) for row in csv.DictReader(file)}


def describe(member):
    """(corpus, speaker, emotion, intensity) from a recording's file name."""
    name = Path(member).stem
    if name[0].isdigit():
        _, _, emotion, intensity, _, _, actor = name.split("-")
        return "ravdess", actor, RAVDESS_EMOTIONS[int(emotion) - 1], STRONG if intensity == "02" else NORMAL
    speaker, emotion, _ = name.split("_")
    return "nemo", speaker, {"surprised": "surprise"}.get(emotion, emotion), UNSTATED


def voice_activity(samples):
    """earshot's score of each whole 256-sample frame, [n // 256] f32."""
    detector = earshot.Detector()
    frames = samples[: len(samples) // VAD_FRAME * VAD_FRAME].reshape(-1, VAD_FRAME)
    return np.array([detector.predict_f32(frame) for frame in frames], np.float32)


def build_cache(data, cache):
    """Decode every recording of both tars and write the cache; utterances.csv last, as the sign that it is whole."""
    cache.mkdir(parents=True, exist_ok=True)
    utterances, powers, scores = [], [], []
    first = first_vad = 0
    for archive in ("ravdess.tar", "nemo.tar"):
        with tarfile.open(data / "speech" / archive) as tar:
            for member in sorted(tar.getmembers(), key=lambda m: m.name):
                if not member.name.endswith(".opus"):
                    continue
                samples, rate = soundfile.read(io.BytesIO(tar.extractfile(member).read()), dtype="float32")
                if rate != log_mel.RATE_HZ or samples.ndim != 1:
                    raise ValueError(f"{member.name}: {rate} Hz, shape {samples.shape}; expected 16 kHz mono")
                power = log_mel.mel_power(torch.from_numpy(samples)).numpy()
                score = voice_activity(samples)
                corpus, speaker, emotion, intensity = describe(member.name)
                utterances.append(
                    Utterance(
                        Path(member.name).stem, corpus, speaker, emotion, intensity,
                        len(samples), first, len(power), first_vad, len(score),
                    )
                )  # fmt: skip
                powers.append(np.log(power + CACHE_FLOOR).astype(np.float16))
                scores.append(score.astype(np.float16))
                first, first_vad = first + len(power), first_vad + len(score)
        print(f"{archive}: {len(utterances)} utterances so far", flush=True)
    np.save(cache / "log_powers.npy", np.concatenate(powers))
    np.save(cache / "vad.npy", np.concatenate(scores))
    with open(cache / "utterances.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Utterance)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(u) for u in utterances)
