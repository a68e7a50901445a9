"""FER+: FER2013's faces with the votes of ten people each, and the circumplex that turns expressions into numbers."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

EXPRESSIONS = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"]
SIZE = 48


def load_split(data, split):
    """FER+ `split`: faces u8 [N, 48, 48]; votes f32 [N, 8], each row a distribution; bool [N], whether more than half
    of all ten people chose the same expression.

    Votes for "unknown" and "not a face" are removed; a face on which those two won is dropped.
    """
    folder = Path(data) / "faces"
    with open(folder / f"ferplus_{split}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    Image.MAX_IMAGE_PIXELS = None
    atlas = np.asarray(Image.open(folder / f"ferplus_{split}.png").convert("L"))
    down, across = atlas.shape[0] // SIZE, atlas.shape[1] // SIZE
    cells = atlas.reshape(down, SIZE, across, SIZE).swapaxes(1, 2).reshape(-1, SIZE, SIZE)
    votes = np.array([[float(row[name]) for name in EXPRESSIONS] for row in rows], np.float32)
    rejected = np.array([[float(row["unknown"]), float(row["NF"])] for row in rows])
    keep = (votes.max(1) > 0) & (votes.max(1) >= rejected.max(1))
    majority = votes.max(1) > (votes.sum(1) + rejected.sum(1)) / 2
    index = np.array([int(row["index"]) for row in rows])[keep]
    votes = votes[keep]
    return np.ascontiguousarray(cells[index]), votes / votes.sum(1, keepdims=True), majority[keep]


def load_circumplex(data):
    """Valence and arousal of the eight expressions, [8, 2]."""
    with open(Path(data) / "circumplex.csv", newline="") as file:
        points = {row["emotion"]: (float(row["valence"]), float(row["arousal"])) for row in csv.DictReader(file)}
    return np.array([points[name] for name in EXPRESSIONS])
