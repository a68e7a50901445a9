"""The speech corpora (corpus_names.py): decoded once, cached as band powers and voice activity, split by speaker.

The cache is a folder `speech` in --work: `utterances.csv`, `log_powers.npy` f16 [all frames, 64] and `vad.npy` f16 [all
activity frames]. Targets are category-derived (see labels.py).
"""

import csv
import dataclasses
import io
import tarfile
from pathlib import Path

import numpy as np
import soundfile
import torch

from ..labels import FURTHER_POINTS, read_targets
from ..preprocessing.log_mel import LOG_MEL
from ..preprocessing.voice_activity import activity, voice_present
from .corpus_names import ARCHIVES, describe_recording

RAVDESS_VALIDATION = {f"{actor:02}" for actor in range(19, 22)}
RAVDESS_TEST = {f"{actor:02}" for actor in range(22, 25)}
NEMO_TEST = {"MK0", "TP0"}  # one woman and one man, both with all six emotions
ASED_VALIDATION = {f"{speaker:02}" for speaker in range(39, 46)}
EMOTION_TTS_VALIDATION = {"emh", "nen", "neo"}
# Of the corpora with many speakers, every seventh speaker is held out.
EVERY_SEVENTH = {"baved", "emogator"}

# Cached powers are stored as ln(power + CACHE_FLOOR): far below the log floor, so that a gain can still be applied.
CACHE_FLOOR = 1e-10


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One recording. `first`/`frames` locate its mel frames in the cache, `first_vad`/`vad_frames` its activity scores."""

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
        """ "train", "validation" or "test", by speaker. All Javanese speakers are for training, see `javanese_fold`."""
        if self.corpus == "nemo":
            return "test" if self.speaker in NEMO_TEST else "train"
        if self.corpus == "ravdess" and self.speaker in RAVDESS_TEST:
            return "test"
        held_out = {
            "ravdess": self.speaker in RAVDESS_VALIDATION,
            "ased": self.speaker in ASED_VALIDATION,
            "emotiontts": self.speaker in EMOTION_TTS_VALIDATION,
        }.get(self.corpus, self.corpus in EVERY_SEVENTH and int(self.speaker) % 7 == 3)
        return "validation" if held_out else "train"


class Corpora:
    """All utterances with their cached frames."""

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
        self.targets = FURTHER_POINTS | read_targets(Path(data) / "circumplex.csv")

    @classmethod
    def of_one_recording(cls, powers, scores, targets):
        """A cache with the band powers [frames, 64] and activity scores of a single recording."""
        one = cls.__new__(cls)
        one.utterances, one.targets = [], targets
        one.log_powers, one.vad = np.log(powers + CACHE_FLOOR), scores
        return one

    def target(self, utterance):
        """(valence, arousal), category-derived."""
        valence, arousal = self.targets[utterance.emotion]
        return valence * utterance.intensity, arousal * utterance.intensity

    def select(self, corpus, split):
        """The utterances of one corpus in one split."""
        return [u for u in self.utterances if u.corpus == corpus and u.split == split]

    def training(self, without=None):
        """The training utterances of all corpora but `without`."""
        return [u for corpus in ARCHIVES if corpus != without for u in self.select(corpus, "train")]

    def window_powers(self, utterances, ends):
        """Band powers of the windows of `utterances` that end at samples `ends`: f32 tensor [n, 64, 96].

        Frames before the recording began, or after it ended, have power 0.
        """
        out = np.zeros((len(utterances), LOG_MEL.frames, LOG_MEL.bands), np.float32)
        for row, (utterance, end) in enumerate(zip(utterances, ends, strict=True)):
            last = LOG_MEL.frame_count(int(end))
            first = last - LOG_MEL.frames
            low, high = max(0, first), min(last, utterance.frames)
            if high > low:
                logs = self.log_powers[utterance.first + low : utterance.first + high]
                out[row, low - first : high - first] = np.exp(logs.astype(np.float32)) - CACHE_FLOOR
        return torch.from_numpy(out).clamp_(min=0).transpose(1, 2)

    def voice_present(self, utterance, ends):
        """Whether windows ending at samples `ends` [n] hold a voice, bool [n]."""
        scores = self.vad[utterance.first_vad : utterance.first_vad + utterance.vad_frames]
        return voice_present(scores, utterance.samples, ends, LOG_MEL.span, LOG_MEL.rate_hz)


def build_cache(data, cache):
    """Decode every recording of all archives and write the cache; `utterances.csv` last, so a partial cache is not used."""
    cache.mkdir(parents=True, exist_ok=True)
    utterances, powers, scores = [], [], []
    first = first_vad = 0
    for corpus, (archive, _) in ARCHIVES.items():
        with tarfile.open(data / "speech" / archive) as tar:
            for member in sorted(tar.getmembers(), key=lambda m: m.name):
                if not member.name.endswith(".opus"):
                    continue
                samples, rate = soundfile.read(io.BytesIO(tar.extractfile(member).read()), dtype="float32")
                if rate != LOG_MEL.rate_hz or samples.ndim != 1:
                    raise ValueError(f"{member.name}: {rate} Hz, shape {samples.shape}: expected 16 kHz mono")
                described = corpus, *describe_recording(corpus, member.name)
                power, score = LOG_MEL.band_powers(torch.from_numpy(samples)).numpy(), activity(samples)
                utterances.append(
                    Utterance(
                        Path(member.name).stem, *described, len(samples), first, len(power), first_vad, len(score)
                    )
                )
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
