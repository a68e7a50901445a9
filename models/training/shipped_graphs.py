"""The int8 graphs that ship, as functions of pictures and sound: with onnxruntime and numpy alone.

What the trainers do with tensors is done here without torch, so that scoring needs little installed. All constants come
from the manifest beside the graphs: graphs retrained with other constants are fed by them.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime

MODELS = Path(__file__).resolve().parent.parent
VAD_FRAME = 256
VAD_THRESHOLD = 0.5
VOICED_SHARE = 0.25
LEAST_AUDIO_S = 0.4
LEVEL_BELOW_LOUDEST_DB = 30.0
POSTERIOR_FLOOR = 1e-3


class BadInput(Exception):
    """What the user gave cannot be used; one line that says why and what would mend it."""


def session(path):
    """An onnxruntime session that computes the graph as it is written.

       QDQ fusion stays off: onnxruntime's fused int8 kernels saturate 16-bit sums on x86 processors without VNNI, and would
    XX
    """
    if not Path(path).exists():
        raise BadInput(f"{path}: no such graph; --models must name the folder with manifest.json and *.int8.onnx")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def manifest(models):
    """{graph: its entry}, of the folder `models`."""
    path = Path(models) / "manifest.json"
    try:
        return json.loads(path.read_text())["graphs"]
    except FileNotFoundError:
        raise BadInput(
            f"{path}: no such file; --models must name the folder with manifest.json and *.int8.onnx"
        ) from None
    except (ValueError, KeyError) as error:
        raise BadInput(f"{path}: not a manifest of affectd's models ({error})") from None


def softmax(logits):
    """[n, k] -> [n, k], rows sum to 1."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


class FaceEncoder:
    def __init__(self, models=MODELS, form="int8"):
        entry = manifest(models)["face_encoder"]
        self.labels = entry["labels"]
        self.size = entry["preprocessing"]["size"]
        self.least_deviation = entry["preprocessing"]["min_deviation"]
        self.clamp = entry["preprocessing"]["clamp_deviations"]
        self.engine = session(Path(models) / f"face_encoder.{form}.onnx")

    def input(self, face):
        """Luma [size, size] in 0..255 -> what the graph reads, f32 [1, 1, size, size] in -1..1."""
        face = face.astype(np.float64)
        scaled = (face - face.mean()) / max(face.std(), self.least_deviation)
        return (np.clip(scaled, -self.clamp, self.clamp) / self.clamp).astype(np.float32)[None, None]

    def posteriors(self, faces):
        """Luma [n, size, size] in 0..255 -> probabilities of `labels`, f64 [n, 8]."""
        logits = [self.engine.run(["logits"], {"face": self.input(face)})[0].ravel() for face in faces]
        return softmax(np.array(logits, np.float64))


class VoiceEncoder:
    """`activity` scores the frames of [n] samples for voice, [n // 256]; by default `voice_activity`."""

    def __init__(self, models=MODELS, form="int8", activity=None):
        p = manifest(models)["voice_encoder"]["preprocessing"]
        self.rate, self.hop, self.window, self.fft = p["rate_hz"], p["hop"], p["window"], p["fft"]
        self.bands, self.frames, self.loudest = p["bands"], p["frames"], p["loudest"]
        self.floor, self.clamp = p["log_floor"], p["clamp"]
        self.span = (self.frames - 1) * self.hop + self.window
        self.filters = mel_filters(p["f_min"], p["f_max"], self.bands, self.fft, self.rate)
        # Periodic, not symmetric: as torch's default.
        self.hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)
        self.activity = activity or voice_activity
        self.engine = session(Path(models) / f"voice_encoder.{form}.onnx")

    def band_powers(self, samples):
        """Mel band powers of [n] samples in -1..1, f64 [frames, bands]; frame f covers [hop f, hop f + window)."""
        if len(samples) < self.window:
            return np.zeros((0, self.bands))
        framed = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), self.window)[:: self.hop]
        spectrum = np.fft.rfft(framed * self.hann, self.fft)
        return (np.abs(spectrum) ** 2 / self.hann.sum() ** 2) @ self.filters

    def input(self, powers, end):
        """The window of the sound up to sample `end`, f32 [1, 1, bands, frames]: its loudest half is at 0, one unit is
        `clamp` nepers. Frames before the sound began are silent."""
        last = min(max(0, (end - self.window) // self.hop + 1), len(powers))
        first = max(0, last - self.frames)
        window = np.zeros((self.frames, self.bands))
        window[self.frames - (last - first) :] = powers[first:last]
        logs = np.log(window + self.floor)
        loud = np.sort(logs.mean(1))[-self.loudest :].mean()
        return (np.clip(logs - loud, -self.clamp, self.clamp) / self.clamp).T.astype(np.float32)[None, None]

    def present(self, scores, samples, end):
        """Whether the window that ends at sample `end` has enough sound, and enough voice in it."""
        begin = max(0, end - self.span)
        first, last = -(-begin // VAD_FRAME), min(end // VAD_FRAME, len(scores))
        if min(end, samples) - begin < LEAST_AUDIO_S * self.rate or last <= first:
            return False
        return bool((scores[first:last] >= VAD_THRESHOLD).mean() >= VOICED_SHARE)

    def embeddings(self, samples, ends):
        """{end: embedding [64]} of the windows of [n] samples that end at sample `ends` and have a voice in them."""
        powers, scores = self.band_powers(samples), self.activity(samples)
        voiced = [int(end) for end in ends if self.present(scores, len(samples), int(end))]
        return {end: self.engine.run(["embedding"], {"log_mel": self.input(powers, end)})[0].ravel() for end in voiced}


def mel_filters(low_hz, high_hz, bands, fft, rate):
    """Triangular HTK mel filters, peak 1, evaluated at the FFT's bin frequencies: [fft / 2 + 1, bands]."""
    low, high = 2595.0 * np.log10(1.0 + np.array([low_hz, high_hz]) / 700.0)
    corners_mel = low + (high - low) * np.arange(bands + 2) / (bands + 1)
    corners = 700.0 * (10.0 ** (corners_mel / 2595.0) - 1.0)
    bins = np.arange(fft // 2 + 1)[:, None] * rate / fft
    left, peak, right = corners[:-2], corners[1:-1], corners[2:]
    return np.maximum(np.minimum((bins - left) / (peak - left), (right - bins) / (right - peak)), 0.0)


def voice_activity(samples):
    """earshot's score of each whole 256-sample frame, as affectd asks it."""
    import earshot  # so that everything but sound works without it

    detector = earshot.Detector()
    whole = samples[: len(samples) // VAD_FRAME * VAD_FRAME].astype(np.float32).reshape(-1, VAD_FRAME)
    return np.array([detector.predict_f32(frame) for frame in whole], np.float32)


def loudness_activity(samples):
    """In place of `voice_activity` for clean recordings: 1 where a frame is within 30 dB of the loudest, else 0."""
    whole = samples[: len(samples) // VAD_FRAME * VAD_FRAME].astype(np.float64).reshape(-1, VAD_FRAME)
    power = (whole**2).mean(1)
    least = power.max(initial=0.0) * 10 ** (-LEVEL_BELOW_LOUDEST_DB / 10)
    return ((power > 0) & (power >= least)).astype(np.float32)


class Fusion:
    def __init__(self, models=MODELS, form="int8"):
        entry = manifest(models)["fusion"]
        p = entry["preprocessing"]
        self.steps, self.step_s, self.tick_s = p["steps"], p["step_s"], 1 / p["tick_hz"]
        self.shapes = entry["inputs"]
        self.engine = session(Path(models) / f"fusion.{form}.onnx")

    def window(self, faces, voices):
        """The graph's inputs from {step: features} of both modalities; step 0 is the oldest. What is absent is 0, masked."""
        feed = {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items()}
        for row, (name, known) in enumerate((("face", faces), ("voice", voices))):
            for step, features in known.items():
                feed[name][0, :, 0, step] = features
                feed["mask"][0, row, 0, step] = 1.0
        return feed

    def affect(self, faces, voices):
        """Valence and arousal in -1..1, [2]."""
        return np.clip(self.engine.run(["affect"], self.window(faces, voices))[0].ravel(), -1.0, 1.0)


def face_features(posteriors):
    """A step's features [21] from the posteriors [n, 7 or 8] of its pictures; contempt, the eighth, is left out."""
    p = posteriors[:, :7] / posteriors[:, :7].sum(1, keepdims=True)
    return np.concatenate([p.mean(0), p.max(0), (np.log(p.mean(0) + POSTERIOR_FLOOR) + 3) / 4])


def by_voice_alone(samples, encoder, fusion):
    """What affectd says at each tick with a voice in the newest step, without smoothing: [ticks, 2]."""
    tick, per_step = round(fusion.tick_s * encoder.rate), round(fusion.step_s / fusion.tick_s)
    heard = encoder.embeddings(samples, range(tick, len(samples) + 1, tick))
    estimates = []
    for end in heard:
        ends = {fusion.steps - 1 - back: end - back * per_step * tick for back in range(fusion.steps)}
        estimates.append(fusion.affect({}, {step: heard[e] for step, e in ends.items() if e in heard}))
    return np.array(estimates).reshape(-1, 2)


def decode(sound, name, rate=16_000):
    """The bytes of a sound or clip in any format that ffmpeg reads -> mono samples in -1..1, f32 [n]."""
    command = ["ffmpeg", "-v", "error", "-i", "pipe:0", "-vn", "-ac", "1", "-ar", str(rate), "-f", "f32le", "pipe:1"]
    try:
        done = subprocess.run(command, input=sound, check=False, capture_output=True)
    except FileNotFoundError:
        raise BadInput("ffmpeg is not installed, and decodes the recordings: apt-get install ffmpeg") from None
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise BadInput(f"{name}: ffmpeg cannot decode it ({said[-1] if said else 'no sound in it'})")
    return np.frombuffer(done.stdout, "<f4")
