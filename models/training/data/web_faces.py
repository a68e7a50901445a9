"""Web faces without votes: LFW-like faces of muxspace and FFHQ portraits, framed as the daemon frames faces.

Each is a grey 64 x 64 image. The face detector finds its landmarks, and `face_crop` cuts it out twice: for the student at 48 x 48
pixels as from a camera, and for the teachers larger and with more of its surroundings. Some people are held out.
"""

import dataclasses
import re
import zlib

import numpy as np

from ..inference import open_named
from ..labels import canonical, read_table
from ..preprocessing import face_crop
from ..preprocessing.face_detection import square_of_face_image
from .face_atlas import read_cells

SIZE = 64
TEACHER_SIZE = 112
TEACHER_MARGIN = 1.15  # the teachers agree best with muxspace's labels if the square is this much larger
HELD_OUT = 0.15  # share of the people who are held out
ATLASES = {"muxspace": "muxspace_faces64", "ffhq": "ffhq64"}


@dataclasses.dataclass
class WebFaces:
    """Faces that the detector found, in the order of the tables."""

    corpus: list  # "muxspace" or "ffhq"
    name: list
    label: list  # expression as the corpus names it
    held_out: np.ndarray  # [n] bool
    student: np.ndarray  # u8 [n, 48, 48]
    teacher: np.ndarray  # u8 [n, 112, 112]


def person(corpus, name):
    """Who a face shows: in muxspace, the file name without its number; in FFHQ every face is another person."""
    return re.sub(r"_\d+\.\w+$", "", name).lower() if corpus == "muxspace" else name


def is_held_out(corpus, name):
    """Whether this person is held out. It depends on the name only."""
    return zlib.crc32(f"{corpus}/{person(corpus, name)}".encode()) % 1000 < 1000 * HELD_OUT


def cut(image, square, margin=1.0, size=face_crop.SIZE):
    """A square of u8 [size, size], `margin` times as large as FER+ frames faces, around the same face."""
    u, v = face_crop.FER_PLUS.eye_mid
    framing = dataclasses.replace(face_crop.FER_PLUS, eye_mid=(u, 0.5 + (v - 0.5) / margin))
    wider = dataclasses.replace(square, side=square.side * margin)
    return np.clip(np.rint(face_crop.crop(image, wider, framing, size)), 0, 255).astype(np.uint8)


def read_web_faces(data, models):
    """The WebFaces of both corpora, by the detector in `models`."""
    detector = open_named(models, "face_detector", "f32")
    columns = {"corpus": [], "name": [], "label": [], "held_out": [], "student": [], "teacher": []}
    missed = 0
    for corpus, atlas in ATLASES.items():
        rows = read_table(data / "faces" / f"{atlas}.csv")
        cells = read_cells(data / "faces" / f"{atlas}.jpg", SIZE)
        for row in rows:
            image = cells[int(row["index"])]
            square = square_of_face_image(image, detector)
            if square is None:
                missed += 1
                continue
            columns["corpus"].append(corpus)
            columns["name"].append(row["name"])
            columns["label"].append(canonical(row["label"].split("|")[0]))
            columns["held_out"].append(is_held_out(corpus, row["name"]))
            columns["student"].append(cut(image, square))
            columns["teacher"].append(cut(image, square, TEACHER_MARGIN, TEACHER_SIZE))
    print(f"web faces: {len(columns['name'])} framed, {missed} left out: the detector does not find them", flush=True)
    arrays = {key: np.array(columns.pop(key)) for key in ("held_out", "student", "teacher")}
    return WebFaces(**columns, **arrays)
