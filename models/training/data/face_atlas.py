"""Labelled faces: one grey image with many faces (an atlas) and a table with the votes for each face.

An atlas has 100 faces a row, row-major by the column `index` of the table. FER+ has ten votes for each face, over eight
expressions, `unknown` and `NF` (not a face).
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..arguments import BadInput
from ..labels import EXPRESSIONS, number, read_table

SIZE = 48
ACROSS = 100  # faces in a row of the atlas
REJECTED = ("unknown", "nf")  # votes for no expression


def read_cells(atlas, size=SIZE):
    """All cells of an atlas, u8 [n, size, size]."""
    try:
        Image.MAX_IMAGE_PIXELS = None  # an atlas has more pixels than Pillow allows by default
        with Image.open(atlas) as image:
            pixels = np.asarray(image.convert("L"))
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise BadInput(f"{atlas}: cannot be read as an image ({getattr(error, 'strerror', None) or error})") from None
    down, across = pixels.shape[0] // size, pixels.shape[1] // size
    if pixels.shape != (down * size, across * size) or across > ACROSS or not down:
        raise BadInput(
            f"{atlas}: {pixels.shape[1]}x{pixels.shape[0]} pixels: expected {size}x{size} faces, {ACROSS} a row"
        )
    return pixels.reshape(down, size, across, size).swapaxes(1, 2).reshape(-1, size, size)


def read_faces(atlas, votes, labels=EXPRESSIONS, size=SIZE):
    """Faces u8 [n, size, size], votes f64 [n, labels], and whether more than half of all votes agree, bool [n].

    Votes for `unknown` and `NF` are removed. A face for which one of those two won is dropped.
    """
    rows = read_table(votes)
    present = [label for label in labels if label in rows[0]]
    if not present:
        raise BadInput(f"{votes}: no column of votes: expected some of {', '.join(labels)}")
    for label in labels:
        if label not in present:
            print(f"{votes}: no column {label}: counted as zero votes", file=sys.stderr)
    cells = read_cells(atlas, size)
    numbered = list(enumerate(rows, 2))
    counts = np.array([[number(row, label, votes, line) for label in labels] for line, row in numbered])
    rejected = np.array([[number(row, name, votes, line) for name in REJECTED] for line, row in numbered])
    if "index" in rows[0]:
        index = np.array([int(number(row, "index", votes, line)) for line, row in numbered])
    else:
        index = np.arange(len(rows))
    if index.min() < 0 or index.max() >= len(cells):
        wrong = index[(index < 0) | (index >= len(cells))][0]
        raise BadInput(f"{votes}: index {wrong} is beyond the {len(cells)} faces of {atlas}")
    usable = (counts.max(1) > 0) & (counts.max(1) >= rejected.max(1))
    if not usable.any():
        raise BadInput(f"{votes}: no face has a vote for an expression")
    majority = counts.max(1) > (counts.sum(1) + rejected.sum(1)) / 2
    return cells[index[usable]], counts[usable], majority[usable]


def load_split(data, split):
    """FER+ `split` ("train" or "valid"): faces u8 [n, 48, 48], vote distributions f32 [n, 8], strict majority bool [n]."""
    folder = Path(data) / "faces"
    faces, votes, majority = read_faces(folder / f"ferplus_{split}.png", folder / f"ferplus_{split}.csv")
    votes = votes.astype(np.float32)
    return np.ascontiguousarray(faces), votes / votes.sum(1, keepdims=True), majority
