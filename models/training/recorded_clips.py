"""Recorded clips as affectd would see and hear them: real frames and sound through the graphs that ship.

The fusion learns from posteriors that another network read from faces we do not have. RAVDESS actor 01's faces we do have,
and that network's posteriors of them too. So those clips tell how our face encoder reads the same faces (`Translation`, used
in training), and how the whole chain does on someone whom neither the voice encoder nor the fusion was trained on. The GRID
clips, neutral people reading a sentence each, tell whether it stays quiet when nobody feels much.
"""

import pickle

import av
import numpy as np
import torch

import bundle
import face_crop
import face_detect
import fusion_windows
import log_mel
import quantize
import speech_corpora
from fusion_windows import EXPRESSIONS, VIDEO_HZ

FLOOR = 1e-3  # of a posterior, before its logarithm
RIDGE = 10.0
NEAREST_S = 0.03


def read_crops(path, detector):
    """Times [n] in seconds and normalized crops [n, 48, 48] of the frames with a face."""
    times, crops = [], []
    with av.open(str(path)) as clip:
        for frame in clip.decode(video=0):
            image = frame.to_ndarray(format="gray")
            canvas, scale, offset = face_detect.letterbox(image)
            found = face_detect.decode(quantize.run(detector, face_detect.feed(canvas)))
            if not found:
                continue
            points = (found[0].keypoints * face_detect.SIZE - offset) / scale
            square = face_crop.square(*points[[face_detect.RIGHT_EYE, face_detect.LEFT_EYE, face_detect.MOUTH]])
            times.append(frame.time)
            crops.append(face_crop.normalize(face_crop.crop(image, square)))
    return np.array(times), np.array(crops, np.float32)


def posteriors_of(crops, encoder):
    """Our posteriors [n, 7] (contempt dropped) of crops [n, 48, 48]."""
    logits = [encoder.run(None, {"face": face[None, None]})[0].ravel()[: len(EXPRESSIONS)] for face in crops]
    return fusion_windows.softmax(np.array(logits))


def read_sound(path):
    """16 kHz mono samples in -1..1, f32."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=log_mel.RATE_HZ)
    with av.open(str(path)) as clip:
        frames = [part for frame in clip.decode(audio=0) for part in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([f.to_ndarray().ravel() for f in frames]).astype(np.float32) / 32768


def read_all(data, work):
    """{"actor01" and "grid": {clip name: (times, posteriors)}} by the face graphs in the bundle; crops are kept in `work`."""
    kept = work / f"crops_{bundle.sha256(bundle.MODELS / 'face_detector.int8.onnx')[:12]}.pickle"
    if not kept.exists():
        detector = quantize.session(bundle.MODELS / "face_detector.int8.onnx")
        folders = {"actor01": data / "av" / "actor01_kids", "grid": data / "clips"}
        crops = {
            name: {
                clip: read_crops(clip, detector) for clip in sorted(folder.iterdir()) if clip.suffix in (".mkv", ".mpg")
            }
            for name, folder in folders.items()
        }
        kept.write_bytes(pickle.dumps(crops))
    encoder = quantize.session(bundle.MODELS / "face_encoder.int8.onnx")
    return {
        name: {clip: (times, posteriors_of(crops, encoder)) for clip, (times, crops) in clips.items()}
        for name, clips in pickle.loads(kept.read_bytes()).items()
    }


def walls(count=300, seed=3):
    """Our posteriors [count, 7] of what is no face: flat, graded, striped, spotted and noisy surfaces."""
    rng, encoder = np.random.default_rng(seed), quantize.session(bundle.MODELS / "face_encoder.int8.onnx")
    y, x = np.mgrid[0:48, 0:48] / 48.0
    crops = []
    for _ in range(count):
        slope = rng.normal(size=2)
        image = rng.uniform(0, 60) * (slope[0] * x + slope[1] * y)
        image += rng.choice([0, 40]) * np.sin(
            2 * np.pi * (rng.uniform(1, 8) * x + rng.uniform(1, 8) * y + rng.random())
        )
        blobs = np.kron(rng.normal(size=(6, 6)), np.ones((8, 8)))
        image += rng.choice([0, 30]) * blobs + rng.uniform(0, 30) * rng.normal(size=(48, 48)) + 128
        crops.append(face_crop.normalize(np.clip(image, 0, 255).astype(np.uint8)))
    return posteriors_of(np.array(crops, np.float32), encoder)


class Translation:
    """Another network's log posteriors -> ours, a linear map fitted on the same faces by ridge regression towards none.

    Fitted on one actor, so training uses it by a random part only.
    """

    def __init__(self, theirs, ours):
        x = np.log(theirs + FLOOR)
        change = np.log(ours + FLOOR) - x
        self.mean, self.bias = x.mean(0), change.mean(0)
        centred = x - self.mean
        gram = centred.T @ centred + RIDGE * np.eye(x.shape[1])
        self.weight = np.linalg.solve(gram, centred.T @ (change - self.bias))

    def log_posteriors(self, posteriors, part):
        """Unnormalized log posteriors [n, 7]; `part` 0 leaves them, 1 makes them ours."""
        x = np.log(posteriors + FLOOR)
        return x + part * ((x - self.mean) @ self.weight + self.bias)

    def fully(self, posteriors):
        """What we would have read, [n, 7] -> [n, 7]."""
        return fusion_windows.softmax(self.log_posteriors(posteriors, 1.0))


def translation(data, faces):
    """The Translation from the clips of which both networks' posteriors are known; `faces` of actor 01 from `read_all`."""
    known = fusion_windows.read_posteriors(data / "av" / "actor01_kids_fer7.npz")
    theirs, ours = [], []
    for clip, (times, posteriors) in faces.items():
        frames, other = known.get(clip.stem[3:], ([], None))
        for time, posterior in zip(times, posteriors):
            distance = np.abs(np.asarray(frames) / VIDEO_HZ - time)
            if len(distance) and distance.min() < NEAREST_S:
                theirs.append(other[distance.argmin()])
                ours.append(posterior)
    return Translation(np.array(theirs), np.array(ours))


def performances(corpora, faces, encode):
    """Clips with sound as Performances: our faces at the clip's own frames, voices by `encode`."""
    result = []
    for clip, (times, posteriors) in faces.items():
        spoken = clip.stem.startswith("01")
        if not spoken and not clip.stem.startswith("grid"):
            continue
        samples = read_sound(clip)
        power, scores = log_mel.mel_power(torch.from_numpy(samples)), speech_corpora.voice_activity(samples)
        described = speech_corpora.describe(clip.stem) if spoken else ("grid", clip.stem, "neutral", 1.0)
        utterance = speech_corpora.Utterance(clip.stem, *described, len(samples), 0, len(power), 0, len(scores))
        alone = speech_corpora.Corpora.of_one(power.numpy(), scores)
        voice, voiced = fusion_windows.embed(encode, alone, utterance, 1, None)
        frames = np.floor(times * VIDEO_HZ).astype(int)
        target = np.array(corpora.target(utterance), np.float32)
        result.append(fusion_windows.performance(utterance, target, voice, voiced, frames, posteriors))
    return result
