"""The faults of a cheap camera, as deterministic disturbances of a face (u8 luma [48, 48]), to measure an encoder with.

They differ from the training augmentation (faces.py), which mixes weaker ones at random: each fault here comes alone and at a
stated strength. Pixels outside the image take the value at its edge, as in affectd's crop.
"""

import io

import numpy as np
from PIL import Image, ImageFilter

from ..preprocessing.face_crop import bilinear


def resample(face, move):
    """`face` sampled at `move(x, y)`; x and y are pixels from the centre, right and down."""
    size = len(face)
    across, down = np.meshgrid(np.arange(size) + 0.5 - size / 2, np.arange(size) + 0.5 - size / 2)
    x, y = move(across, down)
    return to_u8(bilinear(face, x + size / 2, y + size / 2))


def to_u8(face):
    """Rounded and clipped to 0..255."""
    return np.clip(np.rint(face), 0, 255).astype(np.uint8)


def rotation(face, degrees, rng):
    """The head tilted to the left or to the right."""
    angle = np.radians(degrees) * rng.choice([-1, 1])
    cos, sin = np.cos(angle), np.sin(angle)
    return resample(face, lambda x, y: (x * cos - y * sin, x * sin + y * cos))


def off_centre(face, pixels, rng):
    """The crop shifted by `pixels` of its 48 pixels, in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    return resample(face, lambda x, y: (x + pixels * np.cos(angle), y + pixels * np.sin(angle)))


def low_light(face, share, rng):
    """A share of the light, with the noise of a small sensor: shot noise of the root of the signal, read noise of 2 levels."""
    dim = face.astype(np.float64) * share
    return to_u8(dim + rng.normal(size=face.shape) * np.sqrt(0.5 * dim + 4.0))


def blur(face, sigma, _):
    """Out of focus: a Gaussian with `sigma` in pixels."""
    return np.asarray(Image.fromarray(face).filter(ImageFilter.GaussianBlur(sigma)))


def jpeg(face, quality, _):
    """JPEG compression."""
    stream = io.BytesIO()
    Image.fromarray(face).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def occlusion(face, share, rng):
    """Noise over a square of this share of the area, at a random place in the image."""
    size = len(face)
    side = round(size * np.sqrt(share))
    top, left = rng.integers(0, size - side + 1, 2)
    covered = face.copy()
    covered[top : top + side, left : left + side] = rng.integers(0, 256, (side, side))
    return covered


# name: (disturbance, its unit, strengths)
DISTURBANCES = {
    "rotation": (rotation, "degrees", (10, 20, 30)),
    "low light": (low_light, "of the light", (0.5, 0.2, 0.1)),
    "blur": (blur, "pixels", (0.7, 1.2, 2.0)),
    "JPEG": (jpeg, "quality", (50, 20, 10)),
    "off-centre": (off_centre, "pixels", (2, 4, 6)),
    "occlusion": (occlusion, "of the area", (0.05, 0.1, 0.2)),
}


def disturb(faces, name, strength):
    """u8 [n, 48, 48] -> the same shape, disturbed. The result for face i depends on that face and i only."""
    change = DISTURBANCES[name][0]
    return np.stack([change(face, strength, np.random.default_rng([i, 2026])) for i, face in enumerate(faces)])
