"""Photographs as our face encoder sees them: posteriors of FER+ training faces, with the valence and arousal of their votes.

They are the only faces whose posteriors come from our own network and whose labels are known. They teach the fusion what our
"neutral" looks like, which the mapped posteriors of another network do not.
"""

import numpy as np

from ..inference import open_named
from ..labels import expression_points
from ..onnx_graphs import softmax
from ..preprocessing import face_crop
from .face_atlas import load_split

COUNT = 4000


def read_photographs(data, models, seed=5):
    """Posteriors [COUNT, 7] and targets [COUNT, 2] of random FER+ training faces."""
    faces, votes, _ = load_split(data, "train")
    picked = np.random.default_rng(seed).choice(len(faces), COUNT, replace=False)
    encoder = open_named(models, "face_encoder", "f32")
    logits = [encoder.run(None, {"face": face_crop.normalize(faces[i])[None, None]})[0].ravel()[:7] for i in picked]
    targets = votes[picked] @ expression_points(data)
    return softmax(np.array(logits)).astype(np.float32), targets.astype(np.float32)
