"""Recorded clips through the shipped graphs: real frames and sound, as affectd processes them.

- 144 clips of six Javanese speakers: the only real pairs of face and voice of several people. The fusion trains on them, and
  every choice is made on speakers that were left out.
- 52 clips of RAVDESS actor 01. Another network's posteriors of the same faces are known too, so these clips fit the translation
  (`fit_score_map`).
- 11 GRID clips of neutral people who read a sentence: they measure whether the estimates stay near zero. Nothing trains on them.
- A resting picture of each RAVDESS actor.
"""

import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..augmentation.face_scores import ScoreMap, log_scores
from ..inference import FaceEncoder, open_named
from ..labels import UNSTATED, describe
from ..manifest import sha256
from ..preprocessing import face_crop
from ..preprocessing.face_detection import find_square
from ..preprocessing.log_mel import LOG_MEL
from ..preprocessing.voice_activity import activity
from .cache import cached
from .clips import read_sound, timed_frames
from .corpus_names import describe_javanese
from .performances import VIDEO_HZ, embed, read_posteriors, voice_only
from .speech_corpora import Corpora, Utterance

NEAREST_S = 0.03  # largest distance in time between frames of both networks


def read_crops(clip, detector):
    """Times [n] in seconds and luma crops u8 [n, 48, 48] of the frames with a face; `clip` is a path or an open file."""
    times, crops = [], []
    for time, frame in timed_frames(clip):
        square = find_square(frame, detector)
        if square is not None:
            times.append(time)
            crops.append(np.rint(face_crop.crop(frame, square)).astype(np.uint8))
    return np.array(times), np.array(crops, np.uint8).reshape(-1, face_crop.SIZE, face_crop.SIZE)


def clip_files(data):
    """{set: {name of a clip: path, or its bytes}}."""
    with tarfile.open(data / "av" / "javanese_av.tar") as tar:
        javanese = {Path(m.name).stem: tar.extractfile(m).read() for m in tar if m.name.endswith(".mp4")}
    folders = {"actor01": data / "av" / "actor01_kids", "grid": data / "clips"}
    return {"javanese": dict(sorted(javanese.items()))} | {
        name: {clip.stem: clip for clip in sorted(folder.iterdir()) if clip.suffix in (".mkv", ".mpg")}
        for name, folder in folders.items()
    }


def opened(clip):
    """Something that PyAV opens."""
    return io.BytesIO(clip) if isinstance(clip, bytes) else clip


def read_clips(data, work, models):
    """{set: {clip: (times [n], scores [n, 18])}} by the face graphs in `models`; the crops are cached in `work`."""

    def read():
        detector = open_named(models, "face_detector")
        return {
            name: {clip: read_crops(opened(source), detector) for clip, source in clips.items()}
            for name, clips in clip_files(data).items()
        }

    crops = cached(work / f"clip_crops_{sha256(models / 'face_detector.int8.onnx')[:12]}.pickle", read)
    encoder = FaceEncoder(models)
    return {
        name: {clip: (times, encoder.scores(faces).astype(np.float32)) for clip, (times, faces) in clips.items()}
        for name, clips in crops.items()
    }


def rest_scores(data, models):
    """{actor: log scores [18]} of the resting picture of each RAVDESS actor."""
    detector, encoder = open_named(models, "face_detector"), FaceEncoder(models)
    result = {}
    for path in sorted((data / "av" / "ravdess_stills").glob("Actor_*.png")):
        frame = np.asarray(Image.open(path).convert("L"))
        square = find_square(frame, detector)
        if square is None:
            raise ValueError(f"{path}: the detector finds no face")
        result[path.stem[-2:]] = log_scores(encoder.scores(face_crop.crop(frame, square)[None]))[0]
    return result


def surface_scores(models, count=300, seed=3):
    """Scores [count, 18] of images without a face: flat, graded, striped, spotted and noisy surfaces."""
    rng, encoder = np.random.default_rng(seed), FaceEncoder(models)
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
        crops.append(np.clip(image, 0, 255).astype(np.uint8))
    return encoder.scores(np.array(crops))


def fit_score_map(data, clips):
    """The ScoreMap from the clips whose faces both networks have seen; `clips` of actor 01 from `read_clips`."""
    known = read_posteriors(data / "av" / "actor01_kids_fer7.npz")
    theirs, ours = [], []
    for clip, (times, scores) in clips.items():
        frames, other = known.get(clip[3:], ([], None))
        for time, score in zip(times, scores, strict=True):
            distance = np.abs(np.asarray(frames) / VIDEO_HZ - time)
            if len(distance) and distance.min() < NEAREST_S:
                theirs.append(other[distance.argmin()])
                ours.append(score)
    return ScoreMap(np.array(theirs), np.array(ours))


def describe_clip(which, clip):
    """(speaker, category, intensity) of a clip."""
    if which == "javanese":
        return describe_javanese(clip)
    return describe(clip)[1:] if which == "actor01" else (clip, "neutral", UNSTATED)


def clip_voices(data, targets, which, encode_of, passes=1, seed=7):
    """The clips with sound as Performances without faces; embeddings by `encode_of(utterance)`."""
    result, generator = [], torch.Generator().manual_seed(seed)
    for name, source in clip_files(data)[which].items():
        if which == "actor01" and not name.startswith("01"):  # RAVDESS names start with 01 where there is sound
            continue
        samples = read_sound(opened(source))
        powers, activities = LOG_MEL.band_powers(torch.from_numpy(samples)).numpy(), activity(samples)
        described = describe_clip(which, name)
        utterance = Utterance(name, which, *described, len(samples), 0, len(powers), 0, len(activities))
        recording = Corpora.of_one_recording(powers, activities, targets)
        voice, voiced = embed(encode_of(utterance), recording, utterance, passes, generator)
        result.append(voice_only(utterance, np.array(recording.target(utterance), np.float32), voice, voiced))
    return result


def faces_of_clip(clips, name):
    """(video frames [n], scores [n, 18]) of a clip from `read_clips`."""
    times, scores = clips[name]
    return np.floor(times * VIDEO_HZ + 0.5).astype(int), scores
