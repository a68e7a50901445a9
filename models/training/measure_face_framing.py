"""Measures where the detector's landmarks lie in the training faces.

    python -m models.training.measure_face_framing --data DIR [--models DIR] [--faces N] [--json FILE]

The face encoder learns from FER+ faces, which another detector cut out and which carry no landmarks. This script runs
BlazeFace on them and measures where its eyes and mouth lie in a FER+ square. The daemon then cuts faces out so that they lie
there too (`face_crop.FER_PLUS`). A 48x48 face fills its image, which BlazeFace does not expect, so each face is enlarged
onto a canvas with a margin. Nine canvases (three margins, three ways to fill them) are used, because none finds all faces.

Prints one line for each canvas, and the constants over all of them as JSON.
"""

import json
from pathlib import Path

import numpy as np

from . import arguments
from .data.face_atlas import load_split
from .inference import open_named
from .onnx_graphs import run_graph
from .preprocessing.face_detection import LEFT_EYE, MOUTH, NOSE, RIGHT_EYE, SIZE, canvas_of, decode, feed

SHARES = (0.4, 0.5, 0.6)
BORDERS = ("grey", "replicated", "blurred")
FRONTAL = 0.12  # largest distance of the nose from the middle of the eyes, along the eye line, in eye distances
SEED = 2026


def measure(detector, faces, share, border):
    """One row for each face found, [n, 6].

    Columns: eye middle x and y, eye distance, eye-to-mouth distance (all as fractions of the square), roll in degrees, offset
    of the nose from the eye middle along the eye line in eye distances.
    """
    rows = []
    for face in faces:
        canvas, edge, side = canvas_of(face, share, border)
        found = decode(run_graph(detector, feed(canvas)))
        if not found:
            continue
        points = (found[0].keypoints * SIZE - edge) / side
        eyes = points[LEFT_EYE] - points[RIGHT_EYE]
        middle = (points[RIGHT_EYE] + points[LEFT_EYE]) / 2
        distance = np.hypot(*eyes)
        nose = (points[NOSE] - middle) @ eyes / distance**2
        roll = np.degrees(np.arctan2(eyes[1], eyes[0]))
        rows.append([*middle, distance, np.hypot(*(points[MOUTH] - middle)), roll, nose])
    return np.array(rows)


def constants(rows):
    """The constants of the crop from the rows of `measure`.

    Their ratio comes from frontal faces, where both distances give the same size. Their size comes from all faces, so that the
    median face is as large as in FER+. The middle of the eyes is centred, because a face is as likely as its mirror image.
    """
    frontal = rows[np.abs(rows[:, 5]) < FRONTAL]
    per_eyes, per_mouth = 1 / np.median(frontal[:, 2]), 1 / np.median(frontal[:, 3])
    excess = np.median(np.maximum(rows[:, 2] * per_eyes, rows[:, 3] * per_mouth))
    return {
        "side_per_eye_distance": round(float(per_eyes / excess), 3),
        "side_per_eye_mouth": round(float(per_mouth / excess), 3),
        "eye_mid": [0.5, round(float(np.median(rows[:, 1])), 3)],
    }


def main():
    parser = arguments.parser(__doc__)
    arguments.add_data(parser)
    arguments.add_models(parser)
    parser.add_argument("--faces", type=int, default=1500, help="how many random training faces; default: %(default)s")
    parser.add_argument("--json", type=Path, help="also write the constants to this file")
    options = parser.parse_args()
    faces, _, _ = load_split(options.data, "train")
    faces = faces[np.random.default_rng(SEED).permutation(len(faces))[: options.faces]]
    detector = open_named(options.models, "face_detector", "f32")
    all_rows = []
    columns = ("eye mid x", "eye mid y", "eye distance", "eye to mouth", "roll deg")
    print(f"{'canvas':15} {'found':>9}  " + " ".join(f"{name:14}" for name in columns) + "-> a, b, (u, v)")
    for border in BORDERS:
        for share in SHARES:
            rows = measure(detector, faces, share, border)
            low, median, high = np.percentile(rows[:, :5], (25, 50, 75), axis=0)
            reach = (high - low) / 2
            spread = " ".join(f"{m:6.3f} ±{r:5.3f} " for m, r in zip(median, reach, strict=True))
            found = constants(rows)
            print(f"{border:10} {share:.2f} {len(rows):5}/{len(faces)} {spread} {list(found.values())}", flush=True)
            all_rows.append(rows)
    result = constants(np.concatenate(all_rows))
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result))


if __name__ == "__main__":
    arguments.run(main)
