"""How the training faces are framed, in the detector's terms.

    python models/training/framing.py --data DIR [--faces N] [--json FILE]

The encoder learns from FER+ faces, which were cut out by another detector and carry no keypoints. Running BlazeFace on
them tells where *its* eyes and mouth fall in a FER+ square; the daemon then cuts faces so that they fall there too. A
48x48 face fills its picture, which BlazeFace does not expect, so each is enlarged onto a canvas with a margin; several
margins and ways to fill them are tried, because none finds every face and none may decide the result alone.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import bundle
import quantize
from face_detect import LEFT_EYE, MOUTH, NOSE, RIGHT_EYE, SIZE, decode, feed
from ferplus import load_split

DETECTOR = bundle.MODELS / "face_detector.f32.onnx"
SHARES = (0.4, 0.5, 0.6)
BORDERS = ("grey", "replicated", "blurred")
FRONTAL = 0.12  # the nose lies this near the middle between the eyes, in eye distances along the eye line
SEED = 2026


def canvas_of(face, share, border):
    """u8 [48, 48] enlarged to `share` of a u8 [128, 128] canvas; also its left (= top) edge and side in pixels."""
    side = round(SIZE * share)
    edge = (SIZE - side) // 2
    enlarged = np.asarray(Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC))
    if border == "grey":
        canvas = np.full((SIZE, SIZE), np.uint8(np.median(face)))
    else:
        canvas = np.pad(enlarged, (edge, SIZE - side - edge), mode="edge")
        if border == "blurred":
            canvas = np.array(Image.fromarray(canvas).filter(ImageFilter.GaussianBlur(SIZE / 16)))
    canvas[edge : edge + side, edge : edge + side] = enlarged
    return canvas, edge, side


def measure(engine, faces, share, border):
    """[found, 6]: eye middle x, y, eye distance, eye-to-mouth distance (fractions of the square), roll (degrees), nose
    offset from the eye middle along the eye line (eye distances)."""
    rows = []
    for face in faces:
        canvas, edge, side = canvas_of(face, share, border)
        found = decode(quantize.run(engine, feed(canvas)))
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
    """The crop's constants. Their ratio comes from frontal faces, where both distances speak for the same size; their
    size from all faces, so that the median face comes out as large as FER+ shows it. A face is as likely as its mirror
    image: the eyes' middle lies in the middle."""
    frontal = rows[np.abs(rows[:, 5]) < FRONTAL]
    per_eyes, per_mouth = 1 / np.median(frontal[:, 2]), 1 / np.median(frontal[:, 3])
    excess = np.median(np.maximum(rows[:, 2] * per_eyes, rows[:, 3] * per_mouth))
    return {
        "side_per_eye_distance": round(float(per_eyes / excess), 3),
        "side_per_eye_mouth": round(float(per_mouth / excess), 3),
        "eye_mid": [0.5, round(float(np.median(rows[:, 1])), 3)],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument("--faces", type=int, default=1500, help="how many training faces, drawn at random")
    parser.add_argument("--json", type=Path, help="also write the constants here")
    args = parser.parse_args()
    faces, _, _ = load_split(args.data, "train")
    faces = faces[np.random.default_rng(SEED).permutation(len(faces))[: args.faces]]
    engine = quantize.session(DETECTOR)
    everything = []
    columns = ("eye mid x", "eye mid y", "eye distance", "eye to mouth", "roll deg")
    print(f"{'canvas':15} {'found':>9}  " + " ".join(f"{name:14}" for name in columns) + "-> a, b, (u, v)")
    for border in BORDERS:
        for share in SHARES:
            rows = measure(engine, faces, share, border)
            low, median, high = np.percentile(rows[:, :5], (25, 50, 75), axis=0)
            reach = (high - low) / 2
            spread = " ".join(f"{m:6.3f} ±{r:5.3f} " for m, r in zip(median, reach, strict=True))
            found = constants(rows)
            print(f"{border:10} {share:.2f} {len(rows):5}/{len(faces)} {spread} {list(found.values())}", flush=True)
            everything.append(rows)
    result = constants(np.concatenate(everything))
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
