"""The data that measure a fusion: people that no network was trained on, encoded by the shipped encoders."""

import numpy as np

from ..augmentation import non_voice
from ..manifest import sha256
from ..networks.quantized import quantized_voice_encoder
from .cache import cached
from .fusion_windows import make_ticks
from .performances import Translation, make_performances
from .recorded_clips import clip_voices, faces_of_clip, fit_score_map, read_clips, rest_scores, surface_scores
from .speech_corpora import Corpora

VALIDATION = "RAVDESS validation, actors 19-21, translated faces"
TEST = "RAVDESS test, actors 22-24, translated faces"
ACTOR_01 = "RAVDESS actor 01, all four graphs; the fusion trained on him"
STRANGERS = "Javanese clips, two speakers left out at a time"


def voice_encoder_key(models):
    """A short name of the voice encoder in `models`, for cache files that depend on it."""
    return sha256(models / "voice_encoder.f32.onnx")[:12]


def face_key(models):
    """A short name of both face graphs in `models`."""
    return sha256(models / "face_encoder.int8.onnx")[:8] + sha256(models / "face_detector.int8.onnx")[:4]


class EvaluationSets:
    """Ticks of held-out RAVDESS actors and of recorded clips, with the int8 encoders in `models`; caches are in `work`."""

    def __init__(self, data, work, models):
        self.data, self.work, self.models = data, work, models
        self.corpora = Corpora(data, work)
        self.actors = {}  # {split: speaker of each performance}
        self.encode = quantized_voice_encoder(models / "voice_encoder.int8.onnx")
        self.clips = cached(work / f"clip_scores_{face_key(models)}.pickle", lambda: read_clips(data, work, models))
        self.translation = Translation(data, fit_score_map(data, self.clips["actor01"]), rest_scores(data, models))
        self.validation = {VALIDATION: self.ticks("validation", VALIDATION)}

    def ticks(self, split, name):
        """Ticks of a RAVDESS split, with faces translated to our encoder."""
        voices = cached(
            self.work / f"evaluation_{split}_{voice_encoder_key(self.models)}.pickle",
            lambda: make_performances(self.corpora, self.corpora.select("ravdess", split), lambda _: self.encode, 1),
        )
        self.actors[name] = np.array([p.utterance.speaker for p in voices])
        return make_ticks([self.with_face(p) for p in voices])

    def clip_voices(self, which, encode_of, passes=1):
        """Performances without faces of a set of recorded clips."""
        return clip_voices(self.data, self.corpora.targets, which, encode_of, passes)

    def with_face(self, performance):
        """A performance with its face: translated for RAVDESS, real for recorded clips, none for other corpora.

        Further takes of a Javanese sentence by the same speaker have a voice only: they get the face of the first take.
        """
        utterance = performance.utterance
        if utterance.corpus == "ravdess":
            return performance.with_face(*self.translation.of(utterance))
        if utterance.corpus == "javanese":
            first_take = utterance.name.split("_")[0] + "_01"
            return performance.with_face(*faces_of_clip(self.clips["javanese"], first_take))
        if utterance.corpus in self.clips:
            return performance.with_face(*faces_of_clip(self.clips[utterance.corpus], utterance.name))
        return performance

    def clip_ticks(self, which):
        """Ticks of recorded clips ("actor01" or "grid"), through all four graphs."""
        voices = self.clip_voices(which, lambda _: self.encode)
        return make_ticks([self.with_face(p) for p in voices], rate_hz=None)

    def non_voice_embeddings(self):
        """Embeddings [n, 64] of sounds without a voice that no training window contained."""
        return self.encode(non_voice.encoder_inputs(200, seed=31)).flatten(1).numpy()

    def surface_scores(self):
        """Scores [n, 18] of images without a face."""
        return surface_scores(self.models)
