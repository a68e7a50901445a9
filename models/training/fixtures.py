"""What the Rust tests hold their preprocessing against: the same bytes through the Python twins.

    python models/training/fixtures.py            writes tests/affectd/fixtures/
    python models/training/fixtures.py --check    computes them again and compares: the twins have not drifted

Written: a grey picture and the face crops of several landmarks in it; 1.5 s of sound and its log-mel windows. The
picture and the sound are made of formulas, rough enough to tell a half-pixel or a window of one sample less.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

import face_crop
import log_mel

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "affectd" / "fixtures"
WIDTH, HEIGHT = 160, 120
# right eye, left eye, mouth: frontal, tilted, turned aside, small, beyond the edge
FACES = [
    [[60.0, 50.0], [96.5, 51.0], [78.0, 88.25]],
    [[70.0, 40.0], [95.0, 62.0], [64.0, 80.0]],
    [[80.0, 60.0], [92.0, 60.5], [84.0, 95.0]],
    [[40.25, 30.5], [46.0, 30.25], [43.0, 36.0]],
    [[-5.0, 100.0], [30.0, 110.0], [8.0, 140.0]],
]
# Ends of the windows, in samples: before there is a frame, a window's fill, just before and at a frame's end, the end.
ENDS = [0, 399, 400, 6400, 15599, 15600, 24000]


def picture():
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.int64)
    rough = (x * 31 + y * 17 + (x * y) % 53 + (x * x + 3 * y * y) // 40) % 256
    smooth = (x * 255) // WIDTH
    return ((rough + 2 * smooth) // 3).astype(np.uint8)


def sound():
    n = np.arange(24_000, dtype=np.float64)
    sweep = 0.3 * np.sin(2 * np.pi * (150.0 * n / 16_000 + 900.0 * (n / 16_000) ** 2))
    state, noise = 1, np.empty(len(n))
    for i in range(len(n)):
        state = (state * 1_664_525 + 1_013_904_223) % 2**32
        noise[i] = state / 2**32 - 0.5
    loud = (n // 4000) % 2 == 0
    return np.round((sweep * loud + 0.02 * noise) * 32_767).astype(np.int16)


def crops(image):
    faces = [face_crop.square(*(np.float32(point) for point in face)) for face in FACES]
    return np.stack([face_crop.normalize(face_crop.crop(image, face)) for face in faces])


def windows(samples):
    power = log_mel.mel_power(torch.from_numpy(samples.astype(np.float32) / 32_768))
    return np.stack([log_mel.window_ending_at(power, end).numpy() for end in ENDS])


def made():
    image, samples = picture(), sound()
    return {
        "picture.u8": image.tobytes(),
        "crops.f32": crops(image).astype("<f4").tobytes(),
        "sound.s16": samples.astype("<i2").tobytes(),
        "windows.f32": windows(samples).astype("<f4").tobytes(),
        "fixtures.json": (
            json.dumps(
                {
                    "width": WIDTH,
                    "height": HEIGHT,
                    "side_per_eye_distance": face_crop.FER_PLUS.side_per_eye_distance,
                    "side_per_eye_mouth": face_crop.FER_PLUS.side_per_eye_mouth,
                    "eye_mid": list(face_crop.FER_PLUS.eye_mid),
                    "faces": FACES,
                    "ends": ENDS,
                },
                indent=2,
            )
            + "\n"
        ).encode(),
    }


def differs(name, ours):
    theirs = (FOLDER / name).read_bytes()
    if not name.endswith(".f32"):
        return ours != theirs
    a, b = np.frombuffer(ours, "<f4"), np.frombuffer(theirs, "<f4")
    # Another numpy or torch may sum in another order.
    return a.shape != b.shape or np.abs(a - b).max() > 1e-4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is there instead of writing")
    if parser.parse_args().check:
        drifted = [name for name, content in made().items() if differs(name, content)]
        if drifted:
            sys.exit(f"{FOLDER}: {', '.join(drifted)} are not what the Python twins compute: run without --check")
        print("the fixtures are what the Python twins compute")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, content in made().items():
        (FOLDER / name).write_bytes(content)


if __name__ == "__main__":
    main()
