"""Converts the face detector: BlazeFace short-range, from the mediapipe wheel to a luma s8 graph.

    python -m models.training.convert_face_detector --data DIR --work DIR --out DIR [--wheel mediapipe-0.10.14-....whl]

The weights are Google's (Apache-2.0) and are not changed. The form changes: one luma plane instead of RGB (the first
convolution is summed over its input channels, which gives the same result on grey frames), NCHW, no reshapes at the end, s8.

Reads clips and FER+ faces in --data, to calibrate and to measure. Downloads the wheel to --work unless --wheel names one.
Writes face_detector.f32.onnx and face_detector.int8.onnx to --out and registers them there. The f32 graph is compared with
the tflite file, the s8 graph with the f32 graph on clips that did not calibrate it.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import tflite
from onnx import helper, numpy_helper
from PIL import Image

from . import arguments, manifest
from .arguments import BadInput
from .data.clips import read_frames
from .data.face_atlas import load_split
from .onnx_graphs import count_macs, open_graph, run_graph
from .preprocessing.face_detection import (
    LEFT_EYE,
    MOUTH,
    NMS_IOU,
    RIGHT_EYE,
    SCORE_THRESHOLD,
    SIZE,
    decode,
    feed,
    flatten,
    letterbox,
    overlap,
)
from .quantization.equalize import equalize
from .quantization.quantize import quantize

NAME = "face_detector"
PACKAGE = "mediapipe==0.10.14"
MEMBER = "mediapipe/modules/face_detection/face_detection_short_range.tflite"
MEMBER_SHA256 = "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8"
HEADS = {2: "score_8", 32: "box_8", 6: "score_16", 96: "box_16"}  # by channel count
OUTPUTS = {"score_8": [1, 2, 16, 16], "box_8": [1, 32, 16, 16], "score_16": [1, 6, 8, 8], "box_16": [1, 96, 8, 8]}
SURROUNDINGS = 1.5  # calibration uses this many box widths around the middle of a face
SEED = 2026


# ---- the tflite file ------------------------------------------------------------------------------------------------


def fetch(work, wheel):
    """Bytes of the tflite file, from `wheel` or from the wheel on PyPI."""
    if wheel is None:
        subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "-d", str(work), PACKAGE], check=True)
        wheel = next(Path(work).glob("mediapipe-0.10.14-*.whl"))
    content = zipfile.ZipFile(wheel).read(MEMBER)
    if hashlib.sha256(content).hexdigest() != MEMBER_SHA256:
        raise BadInput(f"{wheel}: {MEMBER} has another SHA-256 than expected: use a wheel of mediapipe 0.10.14")
    return content


class TfliteGraph:
    """Reads the parts of the tflite file that the converter needs."""

    def __init__(self, content):
        self.model = tflite.Model.GetRootAsModel(content, 0)
        self.graph = self.model.Subgraphs(0)
        self.kinds = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}

    def operators(self):
        """(kind, operator, input tensor indices, output tensor index) in order."""
        for i in range(self.graph.OperatorsLength()):
            operator = self.graph.Operators(i)
            code = self.model.OperatorCodes(operator.OpcodeIndex())
            kind = self.kinds[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            yield kind, operator, operator.InputsAsNumpy().tolist(), int(operator.OutputsAsNumpy()[0])

    def shape(self, index):
        return self.graph.Tensors(index).ShapeAsNumpy().tolist()

    def constant(self, index):
        tensor = self.graph.Tensors(index)
        kind = {tflite.TensorType.FLOAT16: np.float16, tflite.TensorType.INT32: np.int32}[tensor.Type()]
        content = self.model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
        return np.frombuffer(content, kind).reshape(self.shape(index))

    @staticmethod
    def options(operator, kind):
        options = kind()
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return options


def same_padding(size, kernel, stride):
    """TensorFlow's SAME padding along one axis: (before, after). The odd pixel goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


# ---- conversion -----------------------------------------------------------------------------------------------------


class Converter:
    """Builds the ONNX graph operator by operator. Each method is named after the tflite operator it converts."""

    def __init__(self, source):
        self.source = source
        self.names = {int(source.graph.InputsAsNumpy()[0]): "image"}
        self.heads = {inputs[0] for kind, _, inputs, _ in source.operators() if kind == "RESHAPE"}
        self.values, self.nodes, self.constants = {}, [], {}

    def convert(self):
        for kind, operator, inputs, output in self.source.operators():
            step = getattr(self, kind.lower(), None)
            if step is None:
                raise ValueError(f"unexpected operator {kind}")
            step(operator, inputs, output)
        kind = onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            self.nodes,
            NAME,
            [helper.make_tensor_value_info("image", kind, [1, 1, SIZE, SIZE])],
            [helper.make_tensor_value_info(name, kind, shape) for name, shape in OUTPUTS.items()],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="affectd")
        model.ir_version = 8
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(model, full_check=True)
        return model

    def add_node(self, kind, inputs, output, **attributes):
        name = self.names.setdefault(output, f"{kind.lower()}_{len(self.nodes)}")
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))

    def dequantize(self, _operator, inputs, output):
        """Weights are stored as f16: widen them."""
        self.values[output] = self.source.constant(inputs[0]).astype(np.float32)

    def conv_2d(self, operator, inputs, output):
        options = self.source.options(operator, tflite.Conv2DOptions)
        weight = self.values[inputs[1]].transpose(0, 3, 1, 2)
        if inputs[0] in self.source.graph.InputsAsNumpy():
            weight = weight.sum(1, keepdims=True)
        if output in self.heads:
            self.names[output] = HEADS[self.source.shape(output)[3]]
        self.convolve(inputs, output, weight, options.StrideH(), 1)

    def depthwise_conv_2d(self, operator, inputs, output):
        options = self.source.options(operator, tflite.DepthwiseConv2DOptions)
        weight = self.values[inputs[1]].transpose(3, 0, 1, 2)
        self.convolve(inputs, output, weight, options.StrideH(), len(weight))

    def convolve(self, inputs, output, weight, stride, group):
        _, height, width, _ = self.source.shape(inputs[0])
        top, bottom = same_padding(height, weight.shape[2], stride)
        left, right = same_padding(width, weight.shape[3], stride)
        name = self.names.get(output, f"conv_{len(self.nodes)}")
        self.constants[f"{name}_weight"] = np.ascontiguousarray(weight)
        self.constants[f"{name}_bias"] = self.values[inputs[2]]
        self.add_node(
            "Conv",
            [self.names[inputs[0]], f"{name}_weight", f"{name}_bias"],
            output,
            kernel_shape=list(weight.shape[2:]),
            strides=[stride, stride],
            pads=[top, left, bottom, right],
            group=group,
        )

    def relu(self, _operator, inputs, output):
        self.add_node("Relu", [self.names[inputs[0]]], output)

    def add(self, _operator, inputs, output):
        self.add_node("Add", [self.names[i] for i in inputs], output)

    def max_pool_2d(self, operator, inputs, output):
        self.add_node("MaxPool", [self.names[inputs[0]]], output, kernel_shape=[2, 2], strides=[2, 2])

    def pad(self, _operator, inputs, output):
        """Append channels of zeros, so that a residual fits a wider block."""
        amounts = self.source.constant(inputs[1])
        if amounts.any(1).tolist() != [False, False, False, True] or amounts[3, 0] != 0:
            raise ValueError(f"unexpected padding {amounts.tolist()}")
        _, height, width, _ = self.source.shape(inputs[0])
        name = f"zeros_{amounts[3, 1]}x{height}x{width}"
        self.constants[name] = np.zeros((1, int(amounts[3, 1]), height, width), np.float32)
        self.add_node("Concat", [self.names[inputs[0]], name], output, axis=1)

    def reshape(self, _operator, _inputs, _output):
        """Skip: the heads end in reshapes and one concatenation, and `decode` does that instead."""

    concatenation = reshape


# ---- frames ---------------------------------------------------------------------------------------------------------


def transform(frame, random):
    """u8 [128, 128]: the frame scaled, shifted, mirrored, rotated, and darker or brighter, all at random."""
    canvas, _, _ = letterbox(frame)
    scale = np.exp(random.uniform(-0.5, 0.6))
    angle = random.normal(0, np.radians(8))
    mirror = random.choice([-1, 1])
    shift = random.uniform(-0.22, 0.22, 2) * SIZE
    a, b = np.cos(angle) * scale, np.sin(angle) * scale
    matrix = np.array([[a * mirror, b], [-b * mirror, a]])
    offset = SIZE / 2 + shift - matrix @ np.array([SIZE / 2, SIZE / 2])
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    image = Image.fromarray(canvas)
    moved = image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    lit = 255 * (np.asarray(moved) / 255) ** np.exp(random.uniform(-0.5, 0.5)) * random.uniform(0.5, 1.1)
    return np.clip(lit + random.normal(0, random.uniform(0, 6), lit.shape), 0, 255).astype(np.uint8)


def clips(data):
    """(clips that calibrate, clips that measure): different GRID recordings, different takes of the actor."""
    grid = sorted((data / "clips").glob("grid_*.mpg"))
    actor = sorted((data / "av" / "actor01_kids").glob("*.mkv"))
    first_take = [path for path in actor if path.stem.split("-")[5] == "01"]
    second_take = [path for path in actor if path.stem.split("-")[5] == "02"]
    return grid[:6] + first_take, grid[6:] + second_take


def clip_canvases(paths, random, per_clip):
    """u8 [128, 128] canvases: `per_clip` frames of each clip, each once unchanged and once transformed."""
    found = []
    for path in paths:
        frames = read_frames(path)
        for i in np.linspace(0, len(frames) - 1, per_clip).astype(int):
            found += [letterbox(frames[i])[0], transform(frames[i], random)]
    return found


def photo_canvases(data, split, random, count):
    """u8 [128, 128] canvases with one FER+ face each, 30 to 80 % as wide as the canvas, at a random place."""
    faces, _, _ = load_split(data, split)
    found = []
    for face in faces[random.permutation(len(faces))[:count]]:
        side = int(random.uniform(0.3, 0.8) * SIZE)
        left, top = random.integers(0, SIZE - side + 1, 2)
        canvas = np.full((SIZE, SIZE), np.uint8(np.median(face)))
        enlarged = Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC)
        canvas[top : top + side, left : left + side] = np.asarray(enlarged)
        found.append(canvas)
    return found


def corner(frame, random):
    """u8 [128, 128]: the upper left sixteenth of a frame. No clip shows a face there."""
    return transform(frame[: frame.shape[0] // 4, : frame.shape[1] // 4], random)


def shuffled(frame, random):
    """u8 [128, 128]: a frame cut into 16-pixel tiles and shuffled. It has eyes and mouths, but no face."""
    tiles = letterbox(frame)[0].reshape(8, 16, 8, 16).swapaxes(1, 2).reshape(64, 16, 16)
    return random.permutation(tiles).reshape(8, 8, 16, 16).swapaxes(1, 2).reshape(SIZE, SIZE)


def face_region(face):
    """The cells of a feature map on a face and near it, as a function (height, width) -> bool [height, width].

    Only these cells calibrate. Far from faces the values of BlazeFace are a hundred times larger (a score of -10,000 means
    "not a face" just as -10 does). With them a face would get 1 % of the s8 range, and keypoints would err by 10 % of the eye
    distance. Clipped, they still mean "not a face".
    """

    def region(height, width):
        inside = []
        for axis, cells in ((1, height), (0, width)):
            middle = (face.box[axis] + face.box[axis + 2]) / 2
            reach = max((face.box[axis + 2] - face.box[axis]) / 2 * SURROUNDINGS, 0.75 / cells)
            inside.append(np.abs((np.arange(cells) + 0.5) / cells - middle) <= reach)
        return inside[0][:, None] & inside[1][None]

    return region


def quantize_detector(f32_path, int8_path, canvases, work):
    """Equalize and quantize; the faces that the f32 graph finds in the canvases calibrate both."""
    graph, feeds, regions = open_graph(f32_path), [], []
    for canvas in canvases:
        found = decode(run_graph(graph, feed(canvas)))
        if found:
            feeds.append(feed(canvas))
            regions.append(face_region(found[0]))
    equalized = work / f"{NAME}.equalized.onnx"
    shutil.copy(f32_path, equalized)
    equalize(equalized, feeds, regions)
    quantize(equalized, int8_path, feeds, regions=regions)


# ---- checks ---------------------------------------------------------------------------------------------------------


def tflite_difference(content, f32_path, frames):
    """Largest difference between the tflite file on grey RGB frames and our f32 graph on luma.

    It compares what decoding uses: probabilities, and coordinates as fractions of the frame at anchors that may hold a face.
    In the background raw values reach thousands, with rounding errors to match.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    regressors, classificators = sorted(interpreter.get_output_details(), key=lambda detail: -detail["shape"][-1])
    graph, largest = open_graph(f32_path), 0.0
    for canvas in frames:
        inputs = feed(canvas)
        rgb = np.repeat(inputs["image"][0, 0, :, :, None], 3, 2)[None]
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], rgb)
        interpreter.invoke()
        scores, boxes = flatten(run_graph(graph, inputs))
        theirs = interpreter.get_tensor(classificators["index"]), interpreter.get_tensor(regressors["index"])
        near = theirs[0][0, :, 0] > -5
        probabilities = [1 / (1 + np.exp(-np.clip(logits, -50, 50))) for logits in (theirs[0][0, :, 0], scores)]
        largest = max(largest, np.abs(probabilities[0] - probabilities[1]).max())
        largest = max(largest, np.abs(theirs[1][0] - boxes)[near].max(initial=0) / SIZE)
    return float(largest)


def measure(f32_path, int8_path, frames):
    """The s8 detector against the f32 one: counts of frames, and distances where both found a face.

    A keypoint error is the mean over eyes, nose and mouth, in eye distances.
    """
    exact, quantized = open_graph(f32_path), open_graph(int8_path)
    result = {"frames": len(frames), "found_by_f32": 0, "found_by_int8": 0, "found_by_both": 0}
    overlaps, errors, scores = [], [], []
    for canvas in frames:
        theirs, ours = decode(run_graph(exact, feed(canvas))), decode(run_graph(quantized, feed(canvas)))
        result["found_by_f32"] += bool(theirs)
        result["found_by_int8"] += bool(ours)
        result["found_by_both"] += bool(theirs and ours)
        if theirs and ours:
            eyes = np.linalg.norm(theirs[0].keypoints[RIGHT_EYE] - theirs[0].keypoints[LEFT_EYE])
            used = slice(RIGHT_EYE, MOUTH + 1)
            distance = np.linalg.norm(theirs[0].keypoints[used] - ours[0].keypoints[used], axis=1)
            overlaps.append(overlap(theirs[0].box, ours[0].box))
            errors.append(distance.mean() / eyes)
            scores.append(abs(theirs[0].score - ours[0].score))
    if len(overlaps) >= len(frames) / 2:
        result |= {
            "iou_median": float(np.median(overlaps)),
            "iou_p05": float(np.percentile(overlaps, 5)),
            "keypoint_error_median": float(np.median(errors)),
            "keypoint_error_p95": float(np.percentile(errors, 95)),
            "score_difference_median": float(np.median(scores)),
        }
    return result


def register(out, f32_path, difference, results):
    """Put the graphs in `out` into its manifest."""
    command = arguments.figure_command(__spec__.name, "--wheel")
    figures = [("tflite_difference", difference, "f32 graph on frames of the first two splits")]
    figures += [(name, value, split) for split, result in results.items() for name, value in result.items()]
    manifest.register(
        out,
        NAME,
        {
            "version": "0.1.0",
            "inputs": {"image": [1, 1, SIZE, SIZE]},
            "outputs": OUTPUTS,
            "preprocessing": {
                "size": SIZE,
                "luma_offset": 127.5,
                "luma_scale": 127.5,
                "border": 0,
                "box_scale": SIZE,
                "score_threshold": SCORE_THRESHOLD,
                "nms_iou": NMS_IOU,
            },
            "macs": count_macs(f32_path),
            "licence": "Apache-2.0",
            "source": "BlazeFace short-range (Google, MediaPipe 0.10.14), its RGB input summed to luma, quantized to "
            "s8; keypoint errors are fractions of the eye distance, against its own f32 form",
            "figures": [
                {"name": name, "value": round(value, 6), "split": split, "command": command}
                for name, value, split in figures
            ],
        },
    )


def parse():
    parser = arguments.parser(__doc__)
    arguments.add_data(parser)
    arguments.add_work(parser)
    arguments.add_out(parser)
    parser.add_argument("--wheel", type=Path, help="a mediapipe 0.10.14 wheel, instead of downloading it")
    return parser.parse_args()


def main():
    options = parse()
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    content = fetch(options.work, options.wheel)
    f32_path, int8_path = (options.out / f"{NAME}.{form}.onnx" for form in ("f32", "int8"))
    onnx.save(Converter(TfliteGraph(content)).convert(), f32_path)

    random = np.random.default_rng(SEED)
    calibration, measured = clips(options.data)
    canvases = clip_canvases(calibration, random, 5) + photo_canvases(options.data, "train", random, 300)
    quantize_detector(f32_path, int8_path, canvases, options.work)

    on_clips, on_photos = clip_canvases(measured, random, 10), photo_canvases(options.data, "valid", random, 600)
    difference = tflite_difference(content, f32_path, on_clips[::10] + on_photos[::10])
    print(f"largest difference from the tflite file {difference:.2e}", flush=True)
    faceless = [read_frames(path)[0] for path in measured for _ in range(10)]
    results = {
        "GRID clips 7-11 and second takes of RAVDESS actor 01, original and randomly transformed": on_clips,
        "FER+ valid faces, each on a grey canvas": on_photos,
        "no face: corners of the same clips' frames": [corner(frame, random) for frame in faceless],
        "no face: the same clips' frames in shuffled tiles": [shuffled(frame, random) for frame in faceless],
    }
    results = {split: measure(f32_path, int8_path, frames) for split, frames in results.items()}
    for split, result in results.items():
        print(split, result)
    register(options.out, f32_path, difference, results)


if __name__ == "__main__":
    arguments.run(main)
