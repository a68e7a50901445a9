"""The face crop: the Python form of `src/face/crop.rs`.

A luma image u8 [H, W] and three landmarks become the input of the face encoder, f32 [48, 48] in -1..1. Both forms follow the
same arithmetic step by step in f32, and a test compares them on the same bytes: faces of the training set and faces from a
camera must be framed and normalized alike.
"""

from dataclasses import dataclass

import numpy as np

SIZE = 48
MAX_SAMPLES = 8  # bilinear samples along one side of an output pixel
MIN_DEVIATION = 10.0  # grey levels
CLAMP_DEVIATIONS = 3.0


@dataclass
class Framing:
    """Where eyes and mouth of the training faces lie in their square. Measured by `measure_face_framing.py`."""

    side_per_eye_distance: float
    side_per_eye_mouth: float
    eye_mid: tuple[float, float]  # as fractions of the square, x right, y down


# From 1,500 FER+ training faces on nine canvases each; side_per_eye_distance varies from 2.60 to 2.74 between canvases.
FER_PLUS = Framing(side_per_eye_distance=2.642, side_per_eye_mouth=2.537, eye_mid=(0.5, 0.396))


@dataclass
class Square:
    """The square to cut out: pixels of the image, x right, y down, pixel centres at +0.5."""

    eye_mid: np.ndarray  # [2]
    side: float
    roll: float  # radians, clockwise as seen on the screen


def square(right_eye, left_eye, mouth, framing=FER_PLUS):
    """The Square around a face, from landmarks [2] in pixels.

    The eye distance shrinks when the head turns aside, the distance to the mouth when it nods, so the larger one decides.
    """
    right_eye, left_eye, mouth = (np.asarray(point, np.float32) for point in (right_eye, left_eye, mouth))
    eyes = left_eye - right_eye
    eye_mid = (right_eye + left_eye) / 2
    side = max(
        np.hypot(*eyes) * np.float32(framing.side_per_eye_distance),
        np.hypot(*(mouth - eye_mid)) * np.float32(framing.side_per_eye_mouth),
    )
    return Square(eye_mid, float(side), float(np.arctan2(eyes[1], eyes[0])))


def crop(image, face, framing=FER_PLUS, size=SIZE):
    """Luma u8 [H, W] and a `Square` -> f32 [size, size] in 0..255, each pixel the mean of s x s bilinear samples."""
    samples = int(np.clip(np.ceil(face.side / size), 1, MAX_SAMPLES))
    fractions = (np.arange(size * samples, dtype=np.float32) + np.float32(0.5)) / np.float32(size * samples)
    across = (fractions - np.float32(framing.eye_mid[0])) * np.float32(face.side)
    down = (fractions - np.float32(framing.eye_mid[1])) * np.float32(face.side)
    cos, sin = np.float32(np.cos(face.roll)), np.float32(np.sin(face.roll))
    x = face.eye_mid[0] + across[None, :] * cos - down[:, None] * sin
    y = face.eye_mid[1] + across[None, :] * sin + down[:, None] * cos
    sampled = bilinear(image, x, y).reshape(size, samples, size, samples)
    return sampled.mean((1, 3), dtype=np.float32)


def bilinear(image, x, y):
    """Values of u8 [H, W] at points x, y in pixels. Points outside the image take the value at its edge."""
    height, width = image.shape
    x = np.clip(x - np.float32(0.5), 0, width - 1).astype(np.float32)
    y = np.clip(y - np.float32(0.5), 0, height - 1).astype(np.float32)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    fx, fy = x - left.astype(np.float32), y - top.astype(np.float32)
    pixels = image.astype(np.float32)
    upper = pixels[top, left] * (1 - fx) + pixels[top, right] * fx
    lower = pixels[bottom, left] * (1 - fx) + pixels[bottom, right] * fx
    return upper * (1 - fy) + lower * fy


def normalize(face, min_deviation=MIN_DEVIATION, clamp_deviations=CLAMP_DEVIATIONS):
    """Luma [48, 48] in 0..255 -> the encoder's input, f32 [48, 48] in -1..1. A nearly flat patch is not amplified."""
    face = face.astype(np.float64)
    scaled = (face - face.mean()) / max(face.std(), min_deviation)
    return (np.clip(scaled, -clamp_deviations, clamp_deviations) / clamp_deviations).astype(np.float32)
