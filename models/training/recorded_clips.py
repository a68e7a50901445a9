"""RAVDESS actor 01 as affectd would see and hear it: real frames and sound through the graphs that ship.

The fusion learns from posteriors that another network read from faces we do not have. Actor 01's faces we do have, and
that network's posteriors of them too. So these clips tell how our face encoder reads the same faces (`Translation`,
used in training), and how the whole chain does on someone whom neither the voice encoder nor the fusion was trained on.
"""

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


def read_faces(path, detector, encoder):
    """Times [n] in seconds and our posteriors [n, 7] (contempt dropped) of the frames with a face."""
    times, posteriors = [], []
    with av.open(str(path)) as clip:
        for frame in clip.decode(video=0):
            image = frame.to_ndarray(format="gray")
            canvas, scale, offset = face_detect.letterbox(image)
            found = face_detect.decode(quantize.run(detector, face_detect.feed(canvas)))
            if not found:
                continue
            points = (found[0].keypoints * face_detect.SIZE - offset) / scale
            square = face_crop.square(*points[[face_detect.RIGHT_EYE, face_detect.LEFT_EYE, face_detect.MOUTH]])
            face = face_crop.normalize(face_crop.crop(image, square))
            logits = encoder.run(None, {"face": face[None, None]})[0].ravel()[: len(EXPRESSIONS)]
            p = np.exp(logits - logits.max())
            times.append(frame.time)
            posteriors.append(p / p.sum())
    return np.array(times), np.array(posteriors, np.float32)


def read_sound(path):
    """16 kHz mono samples in -1..1, f32."""
    with av.open(str(path)) as clip:
        return np.concatenate([f.to_ndarray().ravel() for f in clip.decode(audio=0)]).astype(np.float32) / 32768


def read_all(data):
    """{clip name: (times, posteriors)} of actor 01 by the face graphs in the bundle."""
    detector, encoder = (quantize.session(bundle.MODELS / f"{n}.int8.onnx") for n in ("face_detector", "face_encoder"))
    return {p.stem: read_faces(p, detector, encoder) for p in sorted((data / "av" / "actor01_kids").glob("*.mkv"))}


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
    """The Translation from the clips of which both networks' posteriors are known; `faces` from `read_all`."""
    known = fusion_windows.read_posteriors(data / "av" / "actor01_kids_fer7.npz")
    theirs, ours = [], []
    for name, (times, posteriors) in faces.items():
        frames, other = known.get(name[3:], ([], None))
        for time, posterior in zip(times, posteriors):
            distance = np.abs(np.asarray(frames) / VIDEO_HZ - time)
            if len(distance) and distance.min() < NEAREST_S:
                theirs.append(other[distance.argmin()])
                ours.append(posterior)
    return Translation(np.array(theirs), np.array(ours))


def performances(corpora, data, faces, encode):
    """The clips with sound as Performances: our faces at their own 6 frames a second, voices by `encode`."""
    result = []
    for name, (times, posteriors) in faces.items():
        if not name.startswith("01"):
            continue
        samples = read_sound(data / "av" / "actor01_kids" / f"{name}.mkv")
        power, scores = log_mel.mel_power(torch.from_numpy(samples)), speech_corpora.voice_activity(samples)
        corpus, speaker, emotion, intensity = speech_corpora.describe(name)
        utterance = speech_corpora.Utterance(
            name, corpus, speaker, emotion, intensity, len(samples), 0, len(power), 0, len(scores)
        )
        alone = speech_corpora.Corpora.of_one(power.numpy(), scores)
        voice, voiced = fusion_windows.embed(encode, alone, utterance, 1, None)
        frames = np.floor(times * VIDEO_HZ).astype(int)
        target = np.array(corpora.target(utterance), np.float32)
        result.append(fusion_windows.performance(utterance, target, voice, voiced, frames, posteriors))
    return result
