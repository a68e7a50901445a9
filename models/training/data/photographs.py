"""Photographs as our face encoder sees them: scores of FER+ training faces, with the valence and arousal of their votes.

They are faces of very many people whose scores come from our own network. The encoder trained on them, so they are disturbed
first like faces from a camera.
"""

import numpy as np
import torch

from ..augmentation.faces import augment
from ..inference import FaceEncoder
from ..labels import expression_points
from .face_atlas import load_split

COUNT = 6000
STRENGTH = 0.6  # of the augmentation


def read_photographs(data, models, seed=5):
    """Scores [COUNT, 18], targets [COUNT, 2] and the expression with most votes [COUNT] of random FER+ training faces."""
    faces, votes, _ = load_split(data, "train")
    picked = np.random.default_rng(seed).choice(len(faces), COUNT, replace=False)
    torch.manual_seed(seed)
    disturbed = augment(torch.from_numpy(faces[picked]).float().unsqueeze(1), STRENGTH)[:, 0].numpy()
    scores = FaceEncoder(models, "f32").scores(disturbed)
    targets = votes[picked] @ expression_points(data)
    return scores.astype(np.float32), targets.astype(np.float32), votes[picked].argmax(1)
