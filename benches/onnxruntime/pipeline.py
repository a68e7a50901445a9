"""Compares the CPU time of affectd with that of a program that one would write in Python instead: OpenCV for the images, numpy
for the spectrum, onnxruntime for the same four graphs in f32, all with one thread.

    python -m benches.onnxruntime.pipeline target/release/affectd [--clip models/demo.mkv] [--rounds N]

The Python program does less than affectd, to its own advantage: it follows no face between detections, searches no part of an
image for small faces, and neither smooths nor formats estimates. It encodes every voice window, where affectd leaves out those
without speech. It looks at 10 frames and makes 5 estimates a second, and detects every 0.4 s, as affectd does by default. Its
time is without its start and imports; affectd's is that of the whole process. The two take turns, so that other load affects
both alike.

Prints the seconds of CPU time for each second of the clip, the median of all rounds, and their ratio. Needs numpy, onnxruntime,
opencv-python-headless, and ffmpeg and ffprobe for the clip's sound and length.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

try:
    import cv2
    import numpy as np

    from .repeat import open_optimized
except ModuleNotFoundError as missing:
    sys.exit(
        f"{missing.name} is missing: pip install numpy onnxruntime opencv-python-headless, and run this with python -m"
    )

from models.training.arguments import ROOT
from models.training.preprocessing.log_mel import LOG_MEL

CANVAS = 128
CROP = 48
LOOKS_HZ, ESTIMATES_HZ, DETECT_EVERY = 10, 5, 0.4
COLUMNS = 8  # of the fusion: time steps of its window
FACE_VALUES = 42


class Stack:
    """The program that affectd is compared with."""

    def __init__(self, models):
        names = ["face_detector", "face_encoder", "voice_encoder", "fusion"]
        self.detector, self.encoder, self.voice, self.fusion = [open_optimized(models / f"{n}.f32.onnx") for n in names]

    def run(self, clip, samples):
        """Returns the number of estimates."""
        scores = self.watch(clip)
        embeddings, ends = [], range(LOG_MEL.rate_hz // ESTIMATES_HZ, len(samples) + 1, LOG_MEL.rate_hz // ESTIMATES_HZ)
        powers = LOG_MEL.band_powers(samples)
        for count, end in enumerate(ends, start=1):
            window = LOG_MEL.window_ending_at(powers, end).astype(np.float32)
            (embedding,) = self.voice.run(None, {"log_mel": window[None, None]})
            embeddings.append(embedding.reshape(-1))
            face = np.zeros((1, FACE_VALUES, 1, COLUMNS), np.float32)
            for column, score in enumerate(scores[: 2 * count][-COLUMNS:]):
                face[0, : len(score), 0, column] = score
            voice = np.zeros((1, len(embeddings[0]), 1, COLUMNS), np.float32)
            for column, embedding in enumerate(embeddings[-COLUMNS:]):
                voice[0, :, 0, column] = embedding
            mask = np.ones((1, 2, 1, COLUMNS), np.float32)
            self.fusion.run(None, {"face": face, "voice": voice, "mask": mask})
        return len(ends)

    def watch(self, clip):
        """The encoder's scores of every look with a face."""
        video = cv2.VideoCapture(str(clip))
        rate = video.get(cv2.CAP_PROP_FPS)
        scores, face, due, detected = [], None, 0.0, -1.0
        frame = 0
        while video.grab():
            at, frame = frame / rate, frame + 1
            if at < due - 0.001:
                continue
            due += 1 / LOOKS_HZ
            grey = cv2.cvtColor(video.retrieve()[1], cv2.COLOR_BGR2GRAY)
            if face is None or at - detected >= DETECT_EVERY:
                face, detected = self.detect(grey), at
            if face is not None:
                scores.append(self.encoder.run(None, {"face": crop(grey, face)})[0].reshape(-1))
        return scores

    def detect(self, grey):
        """Both eyes and the mouth of the surest face, in pixels, or None."""
        height, width = grey.shape
        scale = max(height, width) / CANVAS
        small = cv2.resize(grey, (round(width / scale), round(height / scale)), interpolation=cv2.INTER_AREA)
        top, left = (CANVAS - small.shape[0]) // 2, (CANVAS - small.shape[1]) // 2
        canvas = np.full((CANVAS, CANVAS), -1.0, np.float32)
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small.astype(np.float32) / 127.5 - 1.0
        score_8, box_8, score_16, box_16 = self.detector.run(None, {"image": canvas[None, None]})
        best = max(((s, b) for s, b in ((score_8, box_8), (score_16, box_16))), key=lambda pair: pair[0].max())
        anchor, y, x = np.unravel_index(best[0][0].argmax(), best[0][0].shape)
        if best[0][0, anchor, y, x] < 0:
            return None
        stride = CANVAS / best[0].shape[-1]
        centre = np.array([x + 0.5, y + 0.5]) * stride
        points = best[1][0, 16 * anchor + 4 : 16 * anchor + 16, y, x].reshape(6, 2) + centre
        right_eye, left_eye, _, mouth = ((points - [left, top]) * scale)[:4]
        return right_eye, left_eye, mouth


def crop(grey, face):
    """The encoder's input."""
    right_eye, left_eye, _ = face
    (dx, dy), middle = left_eye - right_eye, (left_eye + right_eye) / 2
    eyes = max(np.hypot(dx, dy), 1.0)
    scale = CROP / (2.64 * eyes)
    turn = cv2.getRotationMatrix2D(tuple(map(float, middle)), np.degrees(np.arctan2(dy, dx)), scale)
    turn[:, 2] += [0.5 * CROP - middle[0], 0.4 * CROP - middle[1]]
    square = cv2.warpAffine(grey, turn, (CROP, CROP), flags=cv2.INTER_LINEAR).astype(np.float32)
    normalized = (square - square.mean()) / max(square.std(), 10.0)
    return (normalized.clip(-3, 3) / 3)[None, None]


def sound(clip):
    """Mono samples in -1..1 at 16 kHz."""
    command = ["ffmpeg", "-v", "error", "-i", str(clip), "-ac", "1", "-ar", str(LOG_MEL.rate_hz), "-f", "s16le", "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.int16) / 32768


def cpu_of_children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("affectd", type=Path)
    parser.add_argument("--clip", type=Path, default=ROOT / "models" / "demo.mkv")
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    stack = Stack(arguments.models)
    samples = sound(arguments.clip)
    seconds = len(samples) / LOG_MEL.rate_hz
    stack.run(arguments.clip, samples)
    ours, theirs = [], []
    environment = os.environ | {"AFFECTD_LOG": "error"}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.rounds):
            before = time.process_time()
            estimates = stack.run(arguments.clip, samples)
            theirs.append((time.process_time() - before) / seconds)
            output = f"file:{folder}/{turn}.jsonl"
            before = cpu_of_children()
            command = [arguments.affectd, "run", "--input", arguments.clip, "--output", output]
            done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
            if done.returncode != 0:
                sys.exit(done.stderr)
            ours.append((cpu_of_children() - before) / seconds)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    print(f"{seconds:.1f} s of media, {estimates} estimates, {arguments.rounds} rounds")
    print(f"affectd          {median(ours):.4f} s of CPU time a second")
    print(f"onnxruntime f32  {median(theirs):.4f} s of CPU time a second")
    print(f"ratio            {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
