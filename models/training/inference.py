"""The graphs of a models folder as functions of faces and sound, with onnxruntime and numpy alone.

All constants come from the manifest beside the graphs, so graphs that were retrained with other constants work too. Scoring
recordings needs little installed: no torch.
"""

import subprocess
from pathlib import Path

import numpy as np

from .arguments import MODELS, BadInput
from .manifest import read_graphs
from .onnx_graphs import open_graph
from .preprocessing import face_crop, face_scores, voice_activity
from .preprocessing.log_mel import LogMel


def open_named(models, name, form="int8"):
    """The graph `name` of a models folder, opened; `form` is "int8" or "f32"."""
    return open_graph(Path(models) / f"{name}.{form}.onnx")


class FaceEncoder:
    """Grey faces -> expression probabilities."""

    def __init__(self, models=MODELS, form="int8"):
        entry = read_graphs(models)["face_encoder"]
        self.labels = entry["labels"]
        self.preprocessing = entry["preprocessing"]
        self.size = self.preprocessing["size"]
        self.graph = open_named(models, "face_encoder", form)

    @property
    def framing(self):
        """How faces are framed, a `face_crop.Framing`."""
        p = self.preprocessing
        return face_crop.Framing(p["side_per_eye_distance"], p["side_per_eye_mouth"], tuple(p["eye_mid"]))

    def input(self, face):
        """Luma [size, size] in 0..255 -> the graph's input, f32 [1, 1, size, size] in -1..1."""
        p = self.preprocessing
        return face_crop.normalize(face, p["min_deviation"], p["clamp_deviations"])[None, None]

    def scores(self, faces):
        """Luma [n, size, size] in 0..255 -> scores (preprocessing/face_scores.py), f64 [n, 18]."""
        scores = [self.graph.run(["scores"], {"face": self.input(face)})[0].ravel() for face in faces]
        return np.array(scores, np.float64).reshape(-1, face_scores.SCORES)

    def posteriors(self, faces, head="reported"):
        """Luma [n, size, size] in 0..255 -> probabilities of `labels`, f64 [n, 8], by one of `face_scores.HEADS`."""
        return face_scores.HEADS[head](self.scores(faces))


class VoiceEncoder:
    """Sound -> voice embeddings. `activity` maps samples [n] to voice scores [n // 256]."""

    def __init__(self, models=MODELS, form="int8", activity=voice_activity.activity):
        self.log_mel = LogMel(**read_graphs(models)["voice_encoder"]["preprocessing"])
        self.activity = activity
        self.graph = open_named(models, "voice_encoder", form)

    def input(self, powers, end):
        """Band powers of a recording -> the graph's input at sample `end`, f32 [1, 1, bands, frames]."""
        return self.log_mel.window_ending_at(powers, end).astype(np.float32)[None, None]

    def embeddings(self, samples, ends):
        """{end: embedding [64]} of the windows of samples [n] that end at samples `ends` and hold a voice."""
        powers, scores, ends = self.log_mel.band_powers(samples), self.activity(samples), np.asarray(ends)
        present = voice_activity.voice_present(scores, len(samples), ends, self.log_mel.span, self.log_mel.rate_hz)
        return {
            int(end): self.graph.run(["embedding"], {"log_mel": self.input(powers, int(end))})[0].ravel()
            for end in ends[present]
        }


class Fusion:
    """Face features and voice embeddings of the last steps -> valence and arousal."""

    def __init__(self, models=MODELS, form="int8"):
        entry = read_graphs(models)["fusion"]
        p = entry["preprocessing"]
        self.steps, self.step_s, self.tick_s = p["steps"], p["step_s"], 1 / p["tick_hz"]
        self.shapes = entry["inputs"]
        self.graph = open_named(models, "fusion", form)

    def window(self, faces, voices):
        """The graph's inputs from {step: features} of both modalities. Step 0 is the oldest; absent steps are 0 and masked."""
        feed = {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items()}
        for row, (name, known) in enumerate((("face", faces), ("voice", voices))):
            for step, features in known.items():
                feed[name][0, :, 0, step] = features
                feed["mask"][0, row, 0, step] = 1.0
        return feed

    def affect(self, faces, voices):
        """Valence and arousal in -1..1, [2], from the arguments of `window`."""
        return np.clip(self.graph.run(["affect"], self.window(faces, voices))[0].ravel(), -1.0, 1.0)


def voice_only_estimates(samples, encoder, fusion):
    """affectd's estimates of a recording without faces, unsmoothed, at each tick with a voice in the newest step: [n, 2]."""
    tick, per_step = round(fusion.tick_s * encoder.log_mel.rate_hz), round(fusion.step_s / fusion.tick_s)
    embeddings = encoder.embeddings(samples, range(tick, len(samples) + 1, tick))
    estimates = []
    for end in embeddings:
        ends = {fusion.steps - 1 - back: end - back * per_step * tick for back in range(fusion.steps)}
        known = {step: embeddings[e] for step, e in ends.items() if e in embeddings}
        estimates.append(fusion.affect({}, known))
    return np.array(estimates).reshape(-1, 2)


def decode_sound(content, name, rate=16_000):
    """The bytes of a recording or clip in any format that ffmpeg reads -> mono samples in -1..1, f32 [n]."""
    command = ["ffmpeg", "-v", "error", "-i", "pipe:0", "-vn", "-ac", "1", "-ar", str(rate), "-f", "f32le", "pipe:1"]
    try:
        done = subprocess.run(command, input=content, check=False, capture_output=True)
    except FileNotFoundError:
        raise BadInput("ffmpeg: not installed, but needed to decode recordings: apt-get install ffmpeg") from None
    if done.returncode != 0 or not done.stdout:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise BadInput(f"{name}: ffmpeg cannot decode it ({lines[-1] if lines else 'it contains no sound'})")
    return np.frombuffer(done.stdout, "<f4")
