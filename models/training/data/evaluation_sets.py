"""The data that measure a fusion: people that no network was trained on, encoded by the shipped encoders."""

import numpy as np

from ..augmentation import non_voice
from ..manifest import sha256
from ..networks.quantized import quantized_voice_encoder
from .cache import cached
from .fusion_windows import make_ticks
from .performances import make_performances
from .recorded_clips import clip_performances, fit_posterior_map, read_clips, surface_posteriors
from .speech_corpora import Corpora

VALIDATION = "RAVDESS validation, actors 19-21"
TEST = "RAVDESS test, actors 22-24"
MAPPED = ", another network's face posteriors mapped to affectd's"  # appended to the names of these splits
ACTOR_01 = "RAVDESS actor 01, all four graphs; its faces, not its labels, fitted the mapping of face posteriors"


def voice_encoder_key(models):
    """A short name of the voice encoder in `models`, for cache files that depend on it."""
    return sha256(models / "voice_encoder.f32.onnx")[:12]


class EvaluationSets:
    """Ticks of held-out RAVDESS actors and of recorded clips, with the int8 encoders in `models`; caches are in `work`."""

    def __init__(self, data, work, models):
        self.data, self.work, self.models = data, work, models
        self.corpora = Corpora(data, work)
        self.actors = {}  # {split: speaker of each performance}
        self.encode = quantized_voice_encoder(models / "voice_encoder.int8.onnx")
        self.clips = read_clips(data, work, models)
        self.posterior_map = fit_posterior_map(data, self.clips["actor01"])
        self.validation = self.ticks("validation", VALIDATION)

    def ticks(self, split, name):
        """{name: ticks} of a RAVDESS split: with another network's face posteriors, and with those mapped to ours."""
        performances = cached(
            self.work / f"evaluation_{split}_{voice_encoder_key(self.models)}.pickle",
            lambda: make_performances(
                self.corpora, self.data, self.corpora.select("ravdess", split), lambda _: self.encode, 1
            ),
        )
        self.actors[name] = self.actors[name + MAPPED] = np.array([p.utterance.speaker for p in performances])
        return {
            name: make_ticks(performances),
            name + MAPPED: make_ticks(performances, change=self.posterior_map),
        }

    def clip_ticks(self, which):
        """Ticks of recorded clips ("actor01" or "grid"), through all four graphs."""
        performances = clip_performances(self.corpora, self.clips[which], self.encode)
        return make_ticks(performances, rate_hz=None)

    def non_voice_embeddings(self):
        """Embeddings [n, 64] of sounds without a voice that no training window contained."""
        return self.encode(non_voice.encoder_inputs(200, seed=31)).flatten(1).numpy()

    def surface_posteriors(self):
        """Posteriors [n, 7] of images without a face."""
        return surface_posteriors(self.models)
