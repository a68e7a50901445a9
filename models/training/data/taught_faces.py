"""All faces that the face encoder learns from: FER+ with its votes, web faces without, and what the teachers see in each.

The teachers get the largest form of a face that exists; the encoder gets it as a camera delivers it (48 x 48, augmented).
"""

import dataclasses

import numpy as np

from ..labels import EXPRESSIONS
from ..manifest import sha256
from .cache import cached
from .face_atlas import load_split
from .teachers import label_all
from .web_faces import read_web_faces

HOLDOUT_EVERY = 20  # of the FER+ training faces
LABEL_SHARE = 0.25  # see `balance`


@dataclasses.dataclass
class TaughtFaces:
    """Faces and their targets."""

    faces: np.ndarray  # u8 [n, 48, 48]
    votes: np.ndarray  # f32 [n, 8], distribution of the FER+ votes; zeros for faces without votes
    expression: np.ndarray  # f32 [n, 8], mean posterior of the teachers
    affect: np.ndarray  # f32 [n, 2], mean valence and arousal of the teachers, relative to neutral web faces
    label: np.ndarray  # [n] text: expression as a web corpus names it; empty for FER+
    corpus: np.ndarray  # [n] text: "ferplus", "muxspace" or "ffhq"
    name: np.ndarray  # [n] text: file name of a web face; empty for FER+

    def __len__(self):
        return len(self.faces)

    def select(self, rows):
        """The same columns of some rows."""
        return TaughtFaces(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def join(self, other):
        """These faces, then the others."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))
        return TaughtFaces(*(np.concatenate(pair) for pair in pairs))


def balance(web):
    """Move what the teachers see in happy and neutral web faces a little towards what the corpus says, in place.

    The teachers rate the smiles of some groups of people as less pleasant than those of others. The labels of the corpora do
    not, so each face moves by LABEL_SHARE towards its label: its valence to the mean of all faces with this label, a happy
    face's expression to happiness. Only the training faces are moved.
    """
    for label in ("happiness", "neutral"):
        rows = web.label == label
        web.affect[rows, 0] += LABEL_SHARE * (web.affect[rows, 0].mean() - web.affect[rows, 0])
    happy = np.eye(8, dtype=np.float32)[EXPRESSIONS.index("happiness")]
    rows = web.label == "happiness"
    web.expression[rows] += LABEL_SHARE * (happy - web.expression[rows])
    return web


def from_labels(faces, labels, votes=None, label=None, corpus=None, name=None):
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
        np.full(n, "") if name is None else np.array(name),
    )


def read_taught_faces(data, work, models):
    """{"train", "holdout" and "valid": TaughtFaces}; "valid" is FER+ valid only. What the teachers see is cached in `work`.

    "holdout" has every twentieth FER+ training face, and the web faces of the people who are held out.
    """
    folder = data / "teachers"
    key = sha256(models / "face_detector.f32.onnx")[:12]
    web = cached(work / f"web_faces_{key}.pickle", lambda: read_web_faces(data, models))
    on_web = cached(work / f"web_faces_{key}_taught.pickle", lambda: label_all(web.teacher, folder))
    web_faces = from_labels(web.student, on_web, label=web.label, corpus=web.corpus, name=web.name)
    splits = {}
    for split in ("train", "valid"):
        faces, votes, _ = load_split(data, split)
        labels = cached(work / f"ferplus_{split}_taught.pickle", lambda faces=faces: label_all(faces, folder))
        splits[split] = from_labels(faces, labels, votes)
    held_out = np.arange(len(splits["train"])) % HOLDOUT_EVERY == 0
    taught = {
        "train": splits["train"].select(~held_out).join(balance(web_faces.select(~web.held_out))),
        "holdout": splits["train"].select(held_out).join(web_faces.select(web.held_out)),
        "valid": splits["valid"],
    }
    # The teachers read resting web faces as slightly unpleasant and excited. Zero is where resting faces are.
    rest = taught["train"].affect[taught["train"].label == "neutral"].mean(0)
    print(f"teachers on neutral web faces: valence {rest[0]:.3f}, arousal {rest[1]:.3f}; subtracted", flush=True)
    for faces in taught.values():
        faces.affect = faces.affect - rest
    return taught
