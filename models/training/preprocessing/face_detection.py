"""Face detection with the BlazeFace graph: letterbox, anchors, decoding. The Python form of `src/face/detector.rs`.

A luma frame u8 [H, W] becomes the detector's input f32 [1, 1, 128, 128]. Its four outputs become faces with a box and six
keypoints.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from ..onnx_graphs import run_graph
from . import face_crop

SIZE = 128
RIGHT_EYE, LEFT_EYE, NOSE, MOUTH, RIGHT_EAR, LEFT_EAR = range(6)  # the subject's right and left
SCORE_THRESHOLD = 0.5
NMS_IOU = 0.3


@dataclass
class Face:
    """One detected face; coordinates are fractions of the detector's square input, x right, y down."""

    score: float
    box: np.ndarray  # [4]: left, top, right, bottom
    keypoints: np.ndarray  # [6, 2]: right eye, left eye (the subject's), nose, mouth, right ear, left ear


def anchors():
    """Centres of the 896 anchors, [896, 2] as x, y fractions: two per cell at stride 8, six per cell at stride 16."""
    centres = []
    for cells, per_cell in ((16, 2), (8, 6)):
        y, x = np.mgrid[:cells, :cells]
        cell = np.stack([(x + 0.5) / cells, (y + 0.5) / cells], -1).reshape(-1, 1, 2)
        centres.append(np.repeat(cell, per_cell, 1).reshape(-1, 2))
    return np.concatenate(centres)


ANCHORS = anchors()


def flatten(outputs):
    """Raw scores [896] and box values [896, 16] in the tflite file's order, from the four NCHW outputs."""
    scores = [outputs[f"score_{stride}"][0].transpose(1, 2, 0).reshape(-1) for stride in (8, 16)]
    boxes = [outputs[f"box_{stride}"][0].transpose(1, 2, 0).reshape(-1, 16) for stride in (8, 16)]
    return np.concatenate(scores), np.concatenate(boxes)


def overlap(a, b):
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = width * height
    return area / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - area)


def decode(outputs, threshold=SCORE_THRESHOLD):
    """Faces in the detector's outputs {name: array}, best first.

    A face is the score-weighted mean of all candidates that overlap its best one (weighted NMS). That varies less from
    frame to frame than the best candidate alone.
    """
    logits, raw = flatten(outputs)
    scores = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -50, 50)))
    candidates = np.flatnonzero(scores >= threshold)
    candidates = candidates[np.argsort(-scores[candidates], kind="stable")]
    points = raw[candidates].reshape(-1, 8, 2).astype(np.float64) / SIZE
    centre = points[:, 0] + ANCHORS[candidates]
    half = points[:, 1] / 2
    keypoints = (points[:, 2:] + ANCHORS[candidates, None]).reshape(-1, 12)
    geometry = np.concatenate([centre - half, centre + half, keypoints], 1)
    faces, left = [], list(range(len(candidates)))
    while left:
        best = left[0]
        group = [i for i in left if i == best or overlap(geometry[best], geometry[i]) > NMS_IOU]
        left = [i for i in left if i not in group]
        mean = np.average(geometry[group], axis=0, weights=scores[candidates[group]])
        faces.append(Face(float(scores[candidates[best]]), mean[:4], mean[4:].reshape(6, 2)))
    return faces


def letterbox(frame):
    """Fit u8 [H, W] into the square, centred on black: (u8 [128, 128], scale, offset [2]).

    A position p in the frame is at p * scale + offset in the square.
    """
    height, width = frame.shape
    scale = SIZE / max(height, width)
    fitted = Image.fromarray(frame).resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    left, top = (SIZE - fitted.width) // 2, (SIZE - fitted.height) // 2
    canvas[top : top + fitted.height, left : left + fitted.width] = np.asarray(fitted)
    return canvas, scale, np.array([left, top])


def feed(canvas):
    """The detector's input from u8 [128, 128]."""
    return {"image": (canvas.astype(np.float32) / 127.5 - 1)[None, None]}


def find_square(frame, detector):
    """The `face_crop.Square` of the best face in a luma frame u8 [H, W], or None. `detector` is an open graph."""
    canvas, scale, offset = letterbox(frame)
    faces = decode(run_graph(detector, feed(canvas)))
    if not faces:
        return None
    points = (faces[0].keypoints * SIZE - offset) / scale
    return face_crop.square(*points[[RIGHT_EYE, LEFT_EYE, MOUTH]])


def canvas_of(face, share, border):
    """A square face image enlarged to `share` of a canvas u8 [128, 128]: (canvas, its left and top edge, its side in pixels)."""
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


def square_of_face_image(face, detector):
    """The `face_crop.Square` in an image u8 [side, side] that a face fills, or None.

    BlazeFace does not expect a face to fill its image, so the face is tried on several canvases with a margin.
    """
    for border in ("grey", "replicated"):
        for share in (0.6, 0.5, 0.75, 0.4):
            canvas, edge, side = canvas_of(face, share, border)
            found = decode(run_graph(detector, feed(canvas)))
            if found:
                points = (found[0].keypoints * SIZE - edge) / side * len(face)
                return face_crop.square(*points[[RIGHT_EYE, LEFT_EYE, MOUTH]])
    return None
