"""All faces that the face encoder learns from: FER+ with its votes, web faces without, and what the teachers see in each.

The teachers get the largest form of a face that exists; the encoder gets it as a camera delivers it (48 x 48, augmented).
"""

import dataclasses

import numpy as np

from ..manifest import sha256
from .cache import cached
from .face_atlas import load_split
from .teachers import label_all
from .web_faces import read_web_faces

HOLDOUT_EVERY = 20  # of the FER+ training faces


@dataclasses.dataclass
class TaughtFaces:
    """Faces and their targets."""

    faces: np.ndarray  # u8 [n, 48, 48]
    votes: np.ndarray  # f32 [n, 8], distribution of the FER+ votes; zeros for faces without votes
    expression: np.ndarray  # f32 [n, 8], mean posterior of the teachers
    affect: np.ndarray  # f32 [n, 2], mean valence and arousal of the teachers
    label: np.ndarray  # [n] text: expression as a web corpus names it; empty for FER+
    corpus: np.ndarray  # [n] text: "ferplus", "muxspace" or "ffhq"

    def __len__(self):
        return len(self.faces)

    def select(self, rows):
        """The same columns of some rows."""
        return TaughtFaces(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def join(self, other):
        """These faces, then the others."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))
        return TaughtFaces(*(np.concatenate(pair) for pair in pairs))


def from_labels(faces, labels, votes=None, label=None, corpus=None):
    """TaughtFaces from what `teachers.label_all` returned."""
    posteriors, affect = labels
    n = len(faces)
    return TaughtFaces(
        faces,
        np.zeros((n, 8), np.float32) if votes is None else votes,
        posteriors.mean(1),
        affect.mean(1),
        np.full(n, "") if label is None else np.array(label),
        np.full(n, "ferplus") if corpus is None else np.array(corpus),
    )


def read_taught_faces(data, work, models):
    """{"train", "holdout" and "valid": TaughtFaces}; "valid" is FER+ valid only. What the teachers see is cached in `work`.

    "holdout" has every twentieth FER+ training face, and the web faces of the people who are held out.
    """
    folder = data / "teachers"
    key = sha256(models / "face_detector.f32.onnx")[:12]
    web = cached(work / f"web_faces_{key}.pickle", lambda: read_web_faces(data, models))
    on_web = cached(work / f"web_faces_{key}_taught.pickle", lambda: label_all(web.teacher, folder))
    web_faces = from_labels(web.student, on_web, label=web.label, corpus=web.corpus)
    splits = {}
    for split in ("train", "valid"):
        faces, votes, _ = load_split(data, split)
        labels = cached(work / f"ferplus_{split}_taught.pickle", lambda faces=faces: label_all(faces, folder))
        splits[split] = from_labels(faces, labels, votes)
    held_out = np.arange(len(splits["train"])) % HOLDOUT_EVERY == 0
    return {
        "train": splits["train"].select(~held_out).join(web_faces.select(~web.held_out)),
        "holdout": splits["train"].select(held_out).join(web_faces.select(web.held_out)),
        "valid": splits["valid"],
    }
