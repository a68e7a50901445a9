"""Recorded clips through the shipped graphs: real frames and sound, as affectd processes them.

RAVDESS actor 01 is the only actor whose face frames we have. Another network's posteriors of the same faces are known too, so
these clips fit the mapping from its posteriors to ours (`fit_posterior_map`). They also measure the whole chain on a person on
whom neither the voice encoder nor the fusion was trained. The GRID clips are neutral people who read a sentence: they measure
whether the estimates stay near zero.
"""

import numpy as np
import torch

from ..augmentation.face_posteriors import PosteriorMap
from ..inference import open_named
from ..labels import describe
from ..manifest import sha256
from ..onnx_graphs import softmax
from ..preprocessing import face_crop
from ..preprocessing.face_detection import find_square
from ..preprocessing.log_mel import LOG_MEL
from ..preprocessing.voice_activity import activity
from .cache import cached
from .clips import read_sound, timed_frames
from .performances import EXPRESSIONS, VIDEO_HZ, embed, make_performance, read_posteriors
from .speech_corpora import Corpora, Utterance

NEAREST_S = 0.03  # largest distance in time between frames of both networks


def read_crops(path, detector):
    """Times [n] in seconds and encoder inputs [n, 48, 48] of the frames with a face."""
    times, crops = [], []
    for time, frame in timed_frames(path):
        square = find_square(frame, detector)
        if square is not None:
            times.append(time)
            crops.append(face_crop.normalize(face_crop.crop(frame, square)))
    return np.array(times), np.array(crops, np.float32)


def posteriors_of(crops, encoder):
    """Posteriors [n, 7] (without contempt) of encoder inputs [n, 48, 48]."""
    logits = [encoder.run(None, {"face": face[None, None]})[0].ravel()[: len(EXPRESSIONS)] for face in crops]
    return softmax(np.array(logits)).astype(np.float32)


def read_clips(data, work, models):
    """{"actor01" and "grid": {clip path: (times, posteriors)}} by the face graphs in `models`; crops are cached in `work`."""

    def read():
        detector = open_named(models, "face_detector")
        folders = {"actor01": data / "av" / "actor01_kids", "grid": data / "clips"}
        return {
            name: {
                clip: read_crops(clip, detector) for clip in sorted(folder.iterdir()) if clip.suffix in (".mkv", ".mpg")
            }
            for name, folder in folders.items()
        }

    crops = cached(work / f"crops_{sha256(models / 'face_detector.int8.onnx')[:12]}.pickle", read)
    encoder = open_named(models, "face_encoder")
    return {
        name: {clip: (times, posteriors_of(faces, encoder)) for clip, (times, faces) in clips.items()}
        for name, clips in crops.items()
    }


def surface_posteriors(models, count=300, seed=3):
    """Posteriors [count, 7] of images without a face: flat, graded, striped, spotted and noisy surfaces."""
    rng, encoder = np.random.default_rng(seed), open_named(models, "face_encoder")
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


def fit_posterior_map(data, clips):
    """The PosteriorMap from the clips whose posteriors are known from both networks; `clips` of actor 01 from `read_clips`."""
    known = read_posteriors(data / "av" / "actor01_kids_fer7.npz")
    theirs, ours = [], []
    for clip, (times, posteriors) in clips.items():
        frames, other = known.get(clip.stem[3:], ([], None))
        for time, posterior in zip(times, posteriors, strict=True):
            distance = np.abs(np.asarray(frames) / VIDEO_HZ - time)
            if len(distance) and distance.min() < NEAREST_S:
                theirs.append(other[distance.argmin()])
                ours.append(posterior)
    return PosteriorMap(np.array(theirs), np.array(ours))


def clip_performances(corpora, clips, encode):
    """The clips with sound as Performances: our posteriors at the clip's own frames, voice embeddings by `encode`."""
    result = []
    for clip, (times, posteriors) in clips.items():
        is_actor = clip.stem.startswith("01")  # RAVDESS names start with 01 where there is sound
        if not is_actor and not clip.stem.startswith("grid"):
            continue
        samples = read_sound(clip)
        powers, scores = LOG_MEL.band_powers(torch.from_numpy(samples)).numpy(), activity(samples)
        described = describe(clip.stem) if is_actor else ("grid", clip.stem, "neutral", 1.0)
        utterance = Utterance(clip.stem, *described, len(samples), 0, len(powers), 0, len(scores))
        recording = Corpora.of_one_recording(powers, scores)
        voice, voiced = embed(encode, recording, utterance, 1, None)
        frames = np.floor(times * VIDEO_HZ).astype(int)
        target = np.array(corpora.target(utterance), np.float32)
        result.append(make_performance(utterance, target, voice, voiced, frames, posteriors))
    return result
