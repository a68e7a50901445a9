"""Writes or checks the fixtures that compare the Rust preprocessing with the Python preprocessing on the same bytes.

    python -m models.training.fixtures --out tests/affectd/fixtures    writes them
    python -m models.training.fixtures --check                         computes them again and compares

Files: a grey image and the face crops of several landmarks in it, 1.5 s of sound and its log-mel windows. Image and sound
come from formulas with enough detail to reveal an error of half a pixel or one sample. Needs numpy, nothing else.
"""

import json
import sys
from pathlib import Path

import numpy as np

from . import arguments
from .preprocessing import face_crop
from .preprocessing.log_mel import LOG_MEL

FOLDER = arguments.ROOT / "tests" / "affectd" / "fixtures"
WIDTH, HEIGHT = 160, 120
# Right eye, left eye, mouth of faces that are: frontal, tilted, turned aside, small, partly outside the image.
FACES = [
    [[60.0, 50.0], [96.5, 51.0], [78.0, 88.25]],
    [[70.0, 40.0], [95.0, 62.0], [64.0, 80.0]],
    [[80.0, 60.0], [92.0, 60.5], [84.0, 95.0]],
    [[40.25, 30.5], [46.0, 30.25], [43.0, 36.0]],
    [[-5.0, 100.0], [30.0, 110.0], [8.0, 140.0]],
]
# Ends of the windows in samples: no sound, just before and at the end of the first frame, within the first window, just
# before and at its end, the end of the sound.
ENDS = [0, 399, 400, 6400, 15599, 15600, 24000]


def make_image():
    """u8 [HEIGHT, WIDTH]."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.int64)
    rough = (x * 31 + y * 17 + (x * y) % 53 + (x * x + 3 * y * y) // 40) % 256
    smooth = (x * 255) // WIDTH
    return ((rough + 2 * smooth) // 3).astype(np.uint8)


def make_sound():
    """s16 samples at 16 kHz, [24000]."""
    n = np.arange(24_000, dtype=np.float64)
    sweep = 0.3 * np.sin(2 * np.pi * (150.0 * n / 16_000 + 900.0 * (n / 16_000) ** 2))
    state, noise = 1, np.empty(len(n))
    for i in range(len(n)):
        state = (state * 1_664_525 + 1_013_904_223) % 2**32
        noise[i] = state / 2**32 - 0.5
    loud = (n // 4000) % 2 == 0
    return np.round((sweep * loud + 0.02 * noise) * 32_767).astype(np.int16)


def crops(image):
    """Encoder inputs of FACES, f32 [5, 48, 48]."""
    faces = [face_crop.square(*(np.float32(point) for point in face)) for face in FACES]
    return np.stack([face_crop.normalize(face_crop.crop(image, face)) for face in faces])


def windows(samples):
    """Log-mel windows at ENDS, [7, 64, 96]."""
    powers = LOG_MEL.band_powers(samples.astype(np.float32) / 32_768)
    return np.stack([LOG_MEL.window_ending_at(powers, end) for end in ENDS])


def compute():
    """{file name: bytes} of all fixtures."""
    image, samples = make_image(), make_sound()
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
    """Whether a fixture file differs from the computed content by more than rounding."""
    theirs = (FOLDER / name).read_bytes()
    if not name.endswith(".f32"):
        return ours != theirs
    a, b = np.frombuffer(ours, "<f4"), np.frombuffer(theirs, "<f4")
    # Another version of numpy may sum in another order.
    return a.shape != b.shape or np.abs(a - b).max() > 1e-4


def main():
    parser = arguments.parser(__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="compare with the files in tests/affectd/fixtures")
    action.add_argument("--out", type=Path, metavar="DIR", help="write the files to this folder")
    options = parser.parse_args()
    if options.check:
        changed = [name for name, content in compute().items() if differs(name, content)]
        if changed:
            sys.exit(
                f"{FOLDER}: the Python preprocessing computes other values for {', '.join(changed)}: fix it or use --out"
            )
        print("the fixtures match the Python preprocessing")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    for name, content in compute().items():
        (options.out / name).write_bytes(content)


if __name__ == "__main__":
    arguments.run(main)
