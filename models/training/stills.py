"""Photographs as our face encoder reads them: FER+ training faces with the vote-weighted valence and arousal of each.

The only faces whose posteriors are truly ours and whose labels are known in number. They teach the fusion what our neutral
looks like, which another network's posteriors, however translated, do not.
"""

import numpy as np

import bundle
import face_crop
import ferplus
import fusion_windows
import quantize

COUNT = 4000


def read(data, seed=5):
    """Posteriors [COUNT, 7] and targets [COUNT, 2] of random training faces."""
    faces, votes, _ = ferplus.load_split(data, "train")
    picked = np.random.default_rng(seed).choice(len(faces), COUNT, replace=False)
    encoder = quantize.session(bundle.MODELS / "face_encoder.f32.onnx")
    logits = [encoder.run(None, {"face": face_crop.normalize(faces[i])[None, None]})[0].ravel()[:7] for i in picked]
    targets = votes[picked] @ ferplus.load_circumplex(data)
    return fusion_windows.softmax(np.array(logits)), targets.astype(np.float32)
