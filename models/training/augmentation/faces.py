"""Random changes to faces in training: inaccurate crops, changes of light, faults of a cheap camera, covering objects.

Batches are luma in 0..255, f32 tensors [n, 1, 48, 48].
"""

import math

import torch
from torch.nn import functional as F

from ..preprocessing.face_crop import SIZE


def uniform(count, low, high):
    """[count, 1, 1, 1], uniform in low..high."""
    return torch.empty(count, 1, 1, 1).uniform_(low, high)


def coin_flips(count, probability):
    """[count, 1, 1, 1] of zeros and ones, one with this probability."""
    return (torch.rand(count, 1, 1, 1) < probability).float()


def dct_matrix():
    """The orthonormal 8-point DCT-II, [8, 8]."""
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)[None, :]
    matrix = torch.cos(math.pi * (n + 0.5) * k / 8) * math.sqrt(2 / 8)
    matrix[0] /= math.sqrt(2)
    return matrix


DCT = dct_matrix()
# A plane over the two frequencies is close enough to JPEG's luma table.
QUANTIZATION = 10.0 + 6.0 * (torch.arange(8.0)[:, None] + torch.arange(8.0)[None, :])
GAUSSIAN = torch.outer(torch.tensor([1.0, 4, 6, 4, 1]), torch.tensor([1.0, 4, 6, 4, 1]))[None, None] / 256


def move(faces, strength):
    """Mirror, shift, scale, stretch and rotate, as the crop of a detector does."""
    count = len(faces)
    angle = torch.randn(count) * math.radians(10) * strength
    scale = torch.exp(torch.empty(count).uniform_(-0.15, 0.15) * strength)
    stretch = torch.exp(torch.empty(count).uniform_(-0.06, 0.06) * strength)
    # Some cameras and files show 16:9 as 4:3, and heads that turn look narrow. A larger value shows a narrower face.
    squeezed = torch.rand(count) < 0.4 * strength
    stretch = torch.where(squeezed, torch.exp(torch.empty(count).uniform_(-0.05, 0.18)), stretch)
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    shift = torch.empty(count, 2).uniform_(-0.16, 0.16) * strength  # of half the width: +-3.8 pixels
    theta = torch.empty(count, 2, 3)
    theta[:, 0, 0] = torch.cos(angle) * scale * stretch * mirror
    theta[:, 0, 1] = -torch.sin(angle) * scale
    theta[:, 1, 0] = torch.sin(angle) * scale * mirror
    theta[:, 1, 1] = torch.cos(angle) * scale / stretch
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(faces.shape), align_corners=False)
    return F.grid_sample(faces, grid, padding_mode="border", align_corners=False)


def light(faces, strength):
    """Gamma, contrast, brightness, light from one side, and darkness for some faces."""
    count = len(faces)
    axis = torch.linspace(-1, 1, SIZE)
    slope = uniform(count, -0.3, 0.3) * axis.view(1, 1, 1, SIZE) + uniform(count, -0.3, 0.3) * axis.view(1, 1, SIZE, 1)
    gamma, contrast = torch.exp(uniform(count, -0.4, 0.4) * strength), torch.exp(uniform(count, -0.6, 0.3) * strength)
    faces = 255.0 * (faces / 255.0).clamp(1e-4, 1.0) ** gamma * (1.0 + slope * strength)
    faces = (faces - 128.0) * contrast + 128.0 + uniform(count, -40.0, 40.0) * strength
    dark = coin_flips(count, 0.15 * strength)
    return faces.clamp(0.0, 255.0) * (1.0 - dark * uniform(count, 0.5, 0.9))


def small(faces, strength):
    """Some faces as a distant camera sees them: 16 to 40 pixels wide, enlarged again by the crop."""
    rows = torch.rand(len(faces)) < 0.25 * strength
    if rows.any():
        side = int(torch.randint(16, 41, ()))  # one size for all of them in a batch
        low = F.interpolate(faces[rows], (side, side), mode="bilinear", antialias=True)
        faces = faces.clone()
        faces[rows] = F.interpolate(low, (SIZE, SIZE), mode="bilinear", align_corners=False)
    return faces


def camera(faces, strength):
    """A low resolution, blur or sharpening, JPEG quantization of 8x8 blocks, and sensor noise, each on some of the faces."""
    count = len(faces)
    faces = small(faces, strength)
    blurred = F.conv2d(F.pad(faces, (2, 2, 2, 2), mode="replicate"), GAUSSIAN)
    faces = faces + coin_flips(count, 0.5 * strength) * uniform(count, -0.5, 1.0) * (blurred - faces)

    blocks = faces.view(count, SIZE // 8, 8, SIZE // 8, 8).transpose(2, 3) - 128.0
    step = QUANTIZATION * torch.exp(uniform(count, -1.5, 1.0)).view(count, 1, 1, 1, 1)
    blocks = DCT.T @ (torch.round(DCT @ blocks @ DCT.T / step) * step) @ DCT
    compressed = (blocks + 128.0).transpose(2, 3).reshape(faces.shape)
    faces = torch.where(coin_flips(count, 0.3 * strength) > 0, compressed, faces)

    noise = torch.randn_like(faces) * coin_flips(count, 0.5 * strength) * uniform(count, 0.0, 12.0)
    return (faces + noise).clamp(0.0, 255.0).round()


def erase(faces, strength):
    """Cover one rectangle of some faces with grey, flat or noisy: a hand, a microphone, hair."""
    count = len(faces)
    axis = (torch.arange(SIZE) + 0.5) / SIZE
    inside = coin_flips(count, 0.3 * strength) > 0
    for view in ((1, 1, 1, SIZE), (1, 1, SIZE, 1)):
        inside = inside & ((axis.view(view) - uniform(count, 0, 1)).abs() < uniform(count, 0.06, 0.22))
    cover = uniform(count, 0, 255) + coin_flips(count, 0.5) * uniform(count, 0, 60) * torch.randn_like(faces)
    return torch.where(inside, cover.clamp(0.0, 255.0), faces)


def augment(faces, strength=1.0):
    """All changes at random: [n, 1, 48, 48] -> the same shape. `strength` is 0..1; at 0 faces are only mirrored."""
    for change in (move, light, camera, erase):
        faces = change(faces, strength)
    return faces
