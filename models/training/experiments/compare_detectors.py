"""Compares face detectors of about the same cost: recall, false detections and landmarks.

    python -m models.training.experiments.compare_detectors --data DIR [--models DIR] [--per-set N]

BlazeFace (the shipped int8 and f32 graphs) and YuNet (`teachers/yunet_*_dynamic.onnx` in --data, f32, its input summed to luma)
search the same luma frames, each at its own input size. Two more columns are the shipped graph used differently: on the frame
and on six overlapping tiles of half its longer side (seven inferences), and on a square around the last known position of the
face (one inference), which the script takes from the reference with a random error.

A reference face is a frame on which both families agree when the face is large: YuNet-n at 320x320 finds it in the whole
frame, BlazeFace in a square around it. Their boxes must overlap by half, their eyes and mouth lie within a quarter of the eye
distance. The mean box is the reference box; each family keeps its own landmarks. The frame is then changed (smaller, rotated,
covered, dark, noisy), and box and landmarks change with it. A face counts as found if a detection overlaps the reference box by
0.4 (intersection over union). The landmark error is the mean distance of eyes and mouth from the reference landmarks of the
same family, in eye distances, over the faces that the detector found. "Turned" faces are those whose nose lies more than a
fifth of the eye distance beside the middle of the eyes.

The score threshold of BlazeFace is the shipped one. YuNet's thresholds are the lowest at which it has no more false
detections than the shipped graph on frames without a face: parts of clips beside the face, frames in shuffled tiles, and random
textures.

Prints Markdown tables.
"""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from PIL import Image, ImageFilter

from .. import arguments
from ..convert_face_detector import shuffled
from ..data.clips import read_frames
from ..data.face_atlas import read_cells
from ..inference import open_named
from ..onnx_graphs import count_macs, run_graph
from ..preprocessing import face_detection
from ..preprocessing.face_detection import LEFT_EYE, MOUTH, NOSE, RIGHT_EYE, SCORE_THRESHOLD, SIZE, overlap

YUNETS = (("n", 128), ("n", 160), ("s", 160), ("s", 192))  # network, input size
FOUND_IOU = 0.4
REFERENCE_IOU = 0.5
REFERENCE_LANDMARKS = 0.25  # eye distances
LOWEST_SCORE = 0.1
TURNED = 0.2  # eye distances
SEED = 2026


@dataclass
class Detection:
    """One face in pixels of a frame, x right, y down."""

    score: float
    box: np.ndarray  # [4]: left, top, right, bottom
    points: np.ndarray  # [4, 2]: right eye, left eye (the subject's), mouth, nose

    def shifted(self, by):
        return Detection(self.score, self.box + np.tile(by, 2), self.points + by)


# ---- detectors ------------------------------------------------------------------------------------------------------


def fit(frame, size):
    """Fit u8 [H, W] into a black square u8 [size, size]: (square, scale, offset [2]), as `face_detection.letterbox`."""
    height, width = frame.shape
    scale = size / max(height, width)
    fitted = Image.fromarray(frame).resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    square = np.zeros((size, size), np.uint8)
    left, top = (size - fitted.width) // 2, (size - fitted.height) // 2
    square[top : top + fitted.height, left : left + fitted.width] = np.asarray(fitted)
    return square, scale, np.array([left, top])


class BlazeFace:
    """The project's detector."""

    family = "BlazeFace"

    def __init__(self, models, form):
        self.name = f"BlazeFace {form}"
        self.graph = open_named(models, "face_detector", form)
        self.size, self.threshold = SIZE, SCORE_THRESHOLD
        self.macs = count_macs(Path(models) / "face_detector.f32.onnx")

    def find(self, frame, _near=None):
        """All detections above the threshold, best first."""
        square, scale, offset = fit(frame, SIZE)
        faces = face_detection.decode(run_graph(self.graph, face_detection.feed(square)), self.threshold)
        return [
            Detection(
                face.score,
                (face.box.reshape(2, 2) * SIZE - offset).ravel() / scale,
                (face.keypoints[[RIGHT_EYE, LEFT_EYE, MOUTH, NOSE]] * SIZE - offset) / scale,
            )
            for face in faces
        ]


class YuNet:
    """YuNet of libfacedetection at one input size."""

    family = "YuNet"
    STRIDES = (8, 16, 32)

    def __init__(self, data, network, size):
        self.name, self.size, self.threshold = f"YuNet-{network} {size}", size, LOWEST_SCORE
        model = onnx.load(data / "teachers" / f"yunet_{network}_dynamic.onnx")
        first = next(node for node in model.graph.node if node.op_type == "Conv")
        for value in model.graph.initializer:
            if value.name == first.input[1]:  # summed over the colours, the same on grey frames
                weight = numpy_helper.to_array(value).sum(1, keepdims=True)
                value.CopyFrom(numpy_helper.from_array(weight, value.name))
        for dimension, length in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 1, size, size), strict=True):
            dimension.dim_value = length
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        del model.graph.value_info[:]
        self.macs = count_macs(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self.graph = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def find(self, frame, _near=None):
        """All detections above the threshold, best first."""
        square, scale, offset = fit(frame, self.size)
        outputs = run_graph(self.graph, {"input": square.astype(np.float32)[None, None]})
        scores, boxes, points = [], [], []
        for stride in self.STRIDES:
            cls, obj, box, keypoints = (outputs[f"{name}_{stride}"][0] for name in ("cls", "obj", "bbox", "kps"))
            cells = self.size // stride
            row, column = (axis.ravel() for axis in np.mgrid[:cells, :cells])
            corner = np.stack([column, row], 1)
            scores.append(np.sqrt(np.clip(cls * obj, 0, 1)).ravel())
            centre, half = (corner + box[:, :2]) * stride, np.exp(box[:, 2:]) * stride / 2
            boxes.append(np.concatenate([centre - half, centre + half], 1))
            points.append((corner[:, None] + keypoints.reshape(-1, 5, 2)) * stride)
        scores, boxes, points = (np.concatenate(parts) for parts in (scores, boxes, points))
        found = []
        for i in np.argsort(-scores, kind="stable"):
            if scores[i] < self.threshold:
                break
            box = (boxes[i].reshape(2, 2) - offset).ravel() / scale
            if all(overlap(box, other.box) <= face_detection.NMS_IOU for other in found):
                corners = (points[i] - offset) / scale  # right eye, left eye, nose, right and left corner of the mouth
                mouth = corners[3:].mean(0, keepdims=True)
                found.append(Detection(float(scores[i]), box, np.concatenate([corners[:2], mouth, corners[2:3]])))
        return found


class Tiled(BlazeFace):
    """BlazeFace on the whole frame and on overlapping tiles."""

    def __init__(self, models, form):
        super().__init__(models, form)
        self.name += ", tiles"
        self.macs *= 7

    def find(self, frame, _near=None):
        find, side = super().find, max(frame.shape) // 2
        faces = find(frame)
        for top in np.linspace(0, frame.shape[0] - side, 2).astype(int):
            for left in np.linspace(0, frame.shape[1] - side, 3).astype(int):
                tile = np.ascontiguousarray(frame[max(top, 0) : top + side, max(left, 0) : left + side])
                faces += [face.shifted(np.maximum([left, top], 0)) for face in find(tile)]
        found = []
        for face in sorted(faces, key=lambda face: -face.score):
            if all(overlap(face.box, other.box) <= face_detection.NMS_IOU for other in found):
                found.append(face)
        return found


class Windowed(BlazeFace):
    """BlazeFace in a square around the last known position of the face."""

    FACES = 2.5  # side of the square, in face widths
    ERROR = 0.15  # of position and size, in face widths

    def __init__(self, models, form):
        super().__init__(models, form)
        self.name += ", window"
        self.random = np.random.default_rng(SEED)

    def find(self, frame, near=None):
        if near is None:
            return super().find(frame)
        width = near[2] - near[0]
        middle = near.reshape(2, 2).mean(0) + self.random.normal(0, self.ERROR, 2) * width
        window, corner = square_around(frame, middle, width * self.FACES * np.exp(self.random.normal(0, self.ERROR)))
        return [face.shifted(corner) for face in super().find(window)]


def square_around(frame, middle, side):
    """A square of the frame u8 [side, side], black outside the frame, and its upper left corner."""
    side = round(side)
    corner = np.round(middle - side / 2).astype(int)
    return np.asarray(Image.fromarray(frame).crop((*corner, *(corner + side)))), corner


# ---- frames ---------------------------------------------------------------------------------------------------------


def javanese_frames(data, count):
    """Frames of the Javanese clips, spread over all clips."""
    frames = []
    with tarfile.open(data / "av" / "javanese_av.tar") as archive:
        clips = sorted((member for member in archive if member.name.endswith(".mp4")), key=lambda member: member.name)
        for clip in clips:
            with av.open(io.BytesIO(archive.extractfile(clip).read())) as opened:
                decoded = [frame.to_ndarray(format="gray") for frame in opened.decode(video=0)]
            step = max(1, len(decoded) * len(clips) // count)
            frames += decoded[min(step, len(decoded)) // 2 :: step]  # the first frames of some clips are black
    return frames


def actor_frames(data, count):
    """Frames of RAVDESS actor 01."""
    paths = sorted((data / "av" / "actor01_kids").glob("*.mkv"))
    frames = [read_frames(path) for path in paths]
    each = max(1, count // len(paths))
    return [clip[i] for clip in frames for i in np.linspace(0, len(clip) - 1, each).astype(int)]


def still_frames(data, _count):
    """A resting picture of each RAVDESS actor."""
    return [
        np.asarray(Image.open(path).convert("L")) for path in sorted((data / "av" / "ravdess_stills").glob("*.png"))
    ]


def atlas_frames(data, name, count):
    """Faces of an atlas, each enlarged to half of a 320x240 frame whose border continues it, blurred."""
    cells = read_cells(data / "faces" / f"{name}.jpg", 64)
    picked = np.random.default_rng(SEED).choice(len(cells), count, replace=False)
    frames = []
    for cell in cells[picked]:
        face = np.asarray(Image.fromarray(cell).resize((160, 160), Image.Resampling.BICUBIC))
        border = Image.fromarray(np.pad(face, ((40, 40), (80, 80)), mode="edge")).filter(ImageFilter.GaussianBlur(12))
        frame = np.array(border)
        frame[40:200, 80:240] = face
        frames.append(frame)
    return frames


SETS = {
    "Javanese clips": javanese_frames,
    "RAVDESS actor 01": actor_frames,
    "RAVDESS stills": still_frames,
    "muxspace": lambda data, count: atlas_frames(data, "muxspace_faces64", count),
    "FFHQ": lambda data, count: atlas_frames(data, "ffhq64", count),
}


@dataclass
class Reference:
    """A frame with one face on which both families agree."""

    frame: np.ndarray
    box: np.ndarray  # [4]
    points: dict  # {family: [4, 2]}

    def nose_offset(self):
        """Distance of the nose from the middle of the eyes along the eye line, in eye distances."""
        right, left, _, nose = np.mean(list(self.points.values()), 0)
        return abs((nose - (right + left) / 2) @ (left - right)) / ((left - right) @ (left - right))


def landmark_error(points, reference):
    """Mean distance of eyes and mouth, in eye distances of the reference."""
    return np.linalg.norm(points[:3] - reference[:3], axis=1).mean() / np.linalg.norm(reference[1] - reference[0])


def refer(frame, blaze, yunet):
    """The Reference of a frame, or None."""
    found = [face for face in yunet.find(frame) if face.score >= 0.6]
    if len(found) != 1:
        return None
    corners = found[0].box.reshape(2, 2)
    window, corner = square_around(frame, corners.mean(0), (corners[1] - corners[0]).max() * 1.8)
    large = blaze.find(window)
    if len(large) != 1:
        return None
    box, points = large[0].shifted(corner).box, large[0].shifted(corner).points
    if overlap(box, found[0].box) < REFERENCE_IOU or landmark_error(points, found[0].points) > REFERENCE_LANDMARKS:
        return None
    return Reference(frame, (box + found[0].box) / 2, {"BlazeFace": points, "YuNet": found[0].points})


# ---- changes --------------------------------------------------------------------------------------------------------


def smaller(reference, factor):
    """The frame shrunk, in the middle of a grey frame of the old size."""
    height, width = reference.frame.shape
    small = Image.fromarray(reference.frame).resize(
        (round(width / factor), round(height / factor)), Image.Resampling.BOX
    )
    scale = np.array([small.width / width, small.height / height])
    corner = np.array([(width - small.width) // 2, (height - small.height) // 2])
    frame = np.full((height, width), np.uint8(np.median(reference.frame)))
    frame[corner[1] : corner[1] + small.height, corner[0] : corner[0] + small.width] = np.asarray(small)
    box = (reference.box.reshape(2, 2) * scale + corner).ravel()
    return Reference(frame, box, {family: points * scale + corner for family, points in reference.points.items()})


def rotated(reference, degrees):
    """The frame rotated counter-clockwise around the middle of the face."""
    middle = reference.box.reshape(2, 2).mean(0)
    image = Image.fromarray(reference.frame).rotate(
        degrees, Image.Resampling.BILINEAR, center=tuple(middle), fillcolor=int(np.median(reference.frame))
    )
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[cos, sin], [-sin, cos]])  # y points down
    points = {family: (points - middle) @ turn.T + middle for family, points in reference.points.items()}
    return Reference(np.asarray(image), reference.box, points)


def covered(reference, first, last, shade):
    """A band of one grey over the face, between `first` and `last` on the way from the eyes (0) to the mouth (1)."""
    points = np.mean(list(reference.points.values()), 0)
    eyes, mouth = points[:2].mean(0), points[2]
    y, x = np.mgrid[: reference.frame.shape[0], : reference.frame.shape[1]]
    down = ((x - eyes[0]) * (mouth - eyes)[0] + (y - eyes[1]) * (mouth - eyes)[1]) / ((mouth - eyes) @ (mouth - eyes))
    left, _, right, bottom = reference.box
    inside = (down >= first) & (down <= last) & (x >= left) & (x <= right) & (y <= bottom)
    return Reference(np.where(inside, np.uint8(shade), reference.frame), reference.box, reference.points)


def noisy(reference, gain, deviation, random):
    """The frame with less light and with noise, in grey levels."""
    frame = reference.frame * gain + random.normal(0, deviation, reference.frame.shape)
    return Reference(np.clip(frame, 0, 255).astype(np.uint8), reference.box, reference.points)


def changes(random):
    """{name: function of a Reference}."""
    result = {"unchanged": lambda face: face}
    result |= {f"1/{factor} of its size": lambda face, f=factor: smaller(face, f) for factor in (2, 3, 4, 6)}
    result |= {
        f"rotated by {angle}°": lambda face, a=angle: rotated(face, a * random.choice([-1, 1]))
        for angle in (15, 30, 45, 60)
    }
    return result | {
        "lower half covered": lambda face: covered(face, 0.45, np.inf, random.integers(30, 220)),
        "sunglasses": lambda face: covered(face, -0.25, 0.25, 20),
        "a tenth of the light, noise": lambda face: noisy(face, 0.1, 1.5, random),
        "noise of 30 levels": lambda face: noisy(face, 1.0, 30, random),
        "half size, lower half covered": lambda face: smaller(covered(face, 0.45, np.inf, random.integers(30, 220)), 2),
        "half size, rotated by 30°": lambda face: smaller(rotated(face, 30 * random.choice([-1, 1])), 2),
    }


def faceless_frames(references, random):
    """Frames without a face, {kind: frames}."""
    beside, tiles, textures = [], [], []
    for reference in references:
        width = reference.frame.shape[1]
        left, _, right, _ = reference.box
        margin = (right - left) / 4
        for first, last in ((0, int(left - margin)), (int(right + margin), width)):
            if last - first >= width / 8:
                beside.append(np.ascontiguousarray(reference.frame[:, first:last]))
        tiles.append(shuffled(reference.frame, random))
        small = Image.fromarray(random.integers(0, 256, random.integers(3, 40, 2)).astype(np.uint8))
        textures.append(np.asarray(small.resize((320, 240), Image.Resampling.BICUBIC)))
    return {"parts of clips beside the face": beside, "frames in shuffled tiles": tiles, "random textures": textures}


# ---- measuring ------------------------------------------------------------------------------------------------------


def limit_false_detections(detectors, faceless):
    """Set the thresholds of the YuNets; returns {kind: share of frames with a detection, for each detector}."""
    best = {
        (detector.name, kind): np.array([max((face.score for face in detector.find(f)), default=0.0) for f in frames])
        for detector in detectors
        for kind, frames in faceless.items()
    }

    def share(detector, kinds, threshold):
        return np.mean(np.concatenate([best[detector.name, kind] for kind in kinds]) >= threshold)

    allowed = share(detectors[0], faceless, detectors[0].threshold)
    for detector in detectors:
        if detector.family == "YuNet":
            thresholds = np.arange(LOWEST_SCORE, 1.0, 0.01)
            detector.threshold = next(t for t in thresholds if share(detector, faceless, t) <= allowed)
    return {kind: [share(detector, [kind], detector.threshold) for detector in detectors] for kind in faceless}


def measure(detectors, references, change):
    """(recall, median landmark error on the faces found) of each detector."""
    errors = []
    for reference in references:
        changed = change(reference)
        row = []
        for detector in detectors:
            matches = [
                face
                for face in detector.find(changed.frame, changed.box)
                if overlap(face.box, changed.box) >= FOUND_IOU
            ]
            row.append(landmark_error(matches[0].points, changed.points[detector.family]) if matches else np.nan)
        errors.append(row)
    errors = np.array(errors)
    medians = [np.median(column[~np.isnan(column)]) if not np.isnan(column).all() else np.nan for column in errors.T]
    return (~np.isnan(errors)).mean(0), medians


def main():
    parser = arguments.parser(__doc__)
    arguments.add_data(parser)
    arguments.add_models(parser)
    parser.add_argument(
        "--per-set", type=int, default=300, metavar="N", help="frames of each set; default: %(default)s"
    )
    options = parser.parse_args()
    detectors = [BlazeFace(options.models, form) for form in ("int8", "f32")]
    detectors += [Tiled(options.models, "int8"), Windowed(options.models, "int8")]
    detectors += [YuNet(options.data, *kind) for kind in YUNETS]
    large = YuNet(options.data, "n", 320)
    columns = " | ".join(detector.name for detector in detectors)
    rule = " --- |" * len(detectors)

    sets, all_frames = {}, {}
    for name, read in SETS.items():
        all_frames[name] = frames = read(options.data, options.per_set)
        sets[name] = [found for found in (refer(frame, detectors[1], large) for frame in frames) if found]
        widths = [(face.box[2] - face.box[0]) / max(face.frame.shape) for face in sets[name]]
        print(
            f"{name}: {len(sets[name])} references in {len(frames)} frames, median width {np.median(widths):.2f}",
            flush=True,
        )
    sets["muxspace and FFHQ, turned"] = [
        f for name in ("muxspace", "FFHQ") for f in sets[name] if f.nose_offset() > TURNED
    ]

    random = np.random.default_rng(SEED)
    faceless = faceless_frames([face for name in ("Javanese clips", "RAVDESS actor 01") for face in sets[name]], random)
    shares = limit_false_detections(detectors, faceless)
    print(f"\n|  | {columns} |\n| --- |{rule}")
    print("| M MAC |", " | ".join(f"{detector.macs / 1e6:.1f}" for detector in detectors), "|")
    print("| score threshold |", " | ".join(f"{detector.threshold:.2f}" for detector in detectors), "|")
    for kind, row in shares.items():
        title = f"false detections: {len(faceless[kind])} {kind}"
        print(f"| {title} |", " | ".join(f"{share:.1%}" for share in row), "|")
    for name, frames in all_frames.items():
        hits = [np.mean([bool(detector.find(frame)) for frame in frames]) for detector in detectors]
        print(f"| {name}: frames with a detection, of {len(frames)} |", " | ".join(f"{hit:.3f}" for hit in hits), "|")
    print(f"\nRecall, and median landmark error in eye distances\n\n| set | change | {columns} |\n| --- | --- |{rule}")
    for name, references in sets.items():
        for title, change in changes(random).items():
            recall, error = measure(detectors, references, change)
            cells = [f"{r:.3f} ({e:.3f})" for r, e in zip(recall, error, strict=True)]
            print(f"| {name}, {len(references)} | {title} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    arguments.run(main)
