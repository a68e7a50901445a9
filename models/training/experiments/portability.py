"""Runs the graphs in other toolchains and compares the numbers with onnxruntime.

    python -m models.training.experiments.portability --work DIR [--tools openvino,ncnn,litert,rknn]

Each tool gets its own virtual environment in --work, with the versions pinned below. Each graph gets its own process and time
limit, because some tools hang or crash on graphs that they cannot read. Some exit normally with wrong numbers, so the outputs
are compared with those of onnxruntime on the same file: the figure is the least cosine of a graph's outputs over all inputs. If
a tool cannot be installed or fails, its cell shows the error. Prints a table, and one JSON object as the last line.

OpenVINO and RKNN (rk3588, simulated) read the s8 QDQ file. ncnn (on the CPU, and on Vulkan with any driver, for example
lavapipe of Debian's mesa-vulkan-drivers) and LiteRT read the f32 file. LiteRT's int8 is its own quantization of it. Inputs come
from demo.mkv in --models, with modalities and steps mixed at random. The first row of the table is the cost of our own 8 bits on
them: compare LiteRT's int8 with that row. RKNN needs 6 GB of disk and runs only if --tools names it.

models/PORTABILITY.md has the results and their reasons.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from .. import arguments
from ..data.clips import read_frames
from ..inference import FaceEncoder, Fusion, VoiceEncoder, decode_sound, open_named
from ..onnx_graphs import cosine, open_graph, run_graph
from ..preprocessing import face_crop, face_detection
from ..preprocessing.fusion_features import step_features
from .toolchains import stack

GRAPHS = ("face_detector", "face_encoder", "voice_encoder", "fusion")
COUNT = 32  # inputs to compare on, and the same number of other inputs to calibrate on

# Arguments of pip for each environment. pnnx is a program in a wheel. The wheel requires torch, but the program never loads it.
REQUIREMENTS = {
    "openvino": ["openvino==2026.4.1", "numpy==2.2.6"],
    "ncnn": ["--no-deps", "ncnn==1.0.20261020", "pnnx==20261020", "numpy==2.2.6"],
    "litert": ["onnx2tf==1.29.24", "ai-edge-litert==2.1.0"],
    "rknn": ["rknn-toolkit2==2.5.0", "numpy==1.26.4", "onnx==1.18.0", "torch==2.4.0", "setuptools<80"],
}

# (row, tool, form of the file, function in toolchains.py, cosine that a cell must reach)
ROWS = [
    ("OpenVINO, f32", "openvino", "f32", "openvino", 0.9999),
    ("OpenVINO, s8 QDQ", "openvino", "int8", "openvino", 0.999),
    ("OpenVINO, s8 QDQ, transformations off", "openvino", "int8", "openvino_plain", 0.999),
    ("OpenVINO, QDQ as u8", "openvino", "u8", "openvino", 0.999),
    ("OpenVINO, QDQ as u8, 7-bit weights", "openvino", "u8_7bit", "openvino", 0.999),
    ("ncnn, CPU, f32", "ncnn", "f32", "ncnn_cpu", 0.9999),
    ("ncnn, Vulkan, f32", "ncnn", "f32", "ncnn_vulkan", 0.9999),
    ("LiteRT, f32", "litert", "f32", "litert", 0.9999),
    ("LiteRT, its own int8", "litert", "f32", "litert_int8", 0.999),
    ("LiteRT, its own int8, 16-bit activations", "litert", "f32", "litert_int16", 0.999),
    ("RKNN rk3588 simulated, f32 as f16", "rknn", "f32", "rknn", 0.9999),
    ("RKNN rk3588 simulated, s8 QDQ", "rknn", "int8", "rknn", 0.999),
]


# ---- inputs and references ------------------------------------------------------------------------------------------


def demo_inputs(models, count, seed):
    """`count` feeds for each graph, {graph: [{input: array}]}: the demo clip with random crops, light, levels and noise."""
    rng = np.random.default_rng(seed)
    clip = models / "demo.mkv"
    frames = read_frames(clip)
    sound = decode_sound(clip.read_bytes(), clip.name)
    detector = open_named(models, "face_detector", "f32")
    faces, voices, fusion = (make(models, "f32") for make in (FaceEncoder, VoiceEncoder, Fusion))

    feeds = {name: [] for name in GRAPHS}
    scores, embeddings = [], []
    while len(scores) < count:
        frame = frames[rng.integers(len(frames))]
        height, width = frame.shape
        side = int(height * rng.uniform(0.6, 1.0))
        top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        frame = (frame[top : top + side, left : left + side] * rng.uniform(0.3, 1.0)).astype(np.uint8)
        frame = np.ascontiguousarray(frame)
        square = face_detection.find_square(frame, detector)
        if square is None:
            continue
        square.side *= rng.uniform(0.8, 1.25)
        square.roll += rng.normal(0, 0.2)
        face = face_crop.crop(frame, square) + rng.normal(0, rng.uniform(0, 12), (faces.size, faces.size))
        feeds["face_detector"].append(face_detection.feed(face_detection.letterbox(frame)[0]))
        feeds["face_encoder"].append({"face": faces.input(face)})
        scores.append(faces.scores(face[None])[0])
    for _ in range(count):
        noisy = sound * rng.uniform(0.1, 1.0) + rng.normal(0, 10 ** rng.uniform(-5, -2), len(sound))
        window = voices.input(
            voices.log_mel.band_powers(noisy), int(rng.integers(voices.log_mel.span // 2, len(sound)))
        )
        feeds["voice_encoder"].append({"log_mel": window})
        embeddings.append(voices.graph.run(["embedding"], {"log_mel": window})[0].ravel())
    for i in range(count):
        # Both modalities; in every third feed each has gaps or is absent, at random.
        has_face, has_voice = (
            rng.random(fusion.steps) < (rng.choice([0.0, 0.7, 1.0]) if i % 3 == 0 else 1.0) for _ in range(2)
        )
        picks = rng.integers(count, size=(fusion.steps, 4))
        known_faces = {s: step_features(np.stack([scores[p] for p in picks[s]])) for s in np.flatnonzero(has_face)}
        known_voices = {s: embeddings[picks[s, 0]] for s in np.flatnonzero(has_voice)}
        feeds["fusion"].append(fusion.window(known_faces, known_voices))
    return feeds


def as_u8(source, target, weight_bits=8):
    """Write the s8 QDQ file with the same values as u8 with zero point 128; 7-bit weights have a grid twice as coarse."""
    model = onnx.load(source)
    constants = {value.name: value for value in model.graph.initializer}

    def replace(name, change):
        constants[name].CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(constants[name])), name))

    weights = {name for node in model.graph.node if node.op_type == "Conv" for name in node.input[1:]}
    activation_zeros = set()
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            activation_zeros.add(node.input[2])
        elif node.op_type == "DequantizeLinear" and node.input[0] in constants:
            integers = numpy_helper.to_array(constants[node.input[0]])
            if node.output[0] not in weights:  # the zeros of a Concat
                replace(node.input[0], lambda x: (x.astype(int) + 128).astype(np.uint8))
                activation_zeros.add(node.input[2])
            elif integers.dtype == np.int8 and weight_bits == 7:
                replace(node.input[0], lambda x: np.rint(x / 2).astype(np.int8))
                replace(node.input[1], lambda x: x * np.float32(2))
    for name in activation_zeros:
        replace(name, lambda x: np.full(x.shape, 128, np.uint8))
    del model.graph.value_info[:]  # its types are outdated now
    onnx.save(model, target)


def write_forms(models, folder):
    """Write all forms of all graphs: {(graph, form): path}."""
    forms = {(graph, form): models / f"{graph}.{form}.onnx" for graph in GRAPHS for form in ("f32", "int8")}
    for graph in GRAPHS:
        for form, bits in (("u8", 8), ("u8_7bit", 7)):
            forms[graph, form] = folder / f"{graph}.{form}.onnx"
            as_u8(forms[graph, "int8"], forms[graph, form], bits)
    return forms


def used_by_affectd(outputs, reference):
    """The outputs {name: [n, 1, c, h, w]} as affectd uses them: of the detector, probabilities, and boxes where a face is.

    Raw values of the detector far from a face reach -170, and int8 clips them. Comparing those would tell nothing about faces.
    """
    result = dict(outputs)
    for name in outputs:
        if name.startswith("score_"):
            faces = reference[name] > 0
            boxes = name.replace("score", "box")
            result[name] = 1 / (1 + np.exp(-outputs[name].astype(np.float64)))
            result[boxes] = outputs[boxes][np.repeat(faces, outputs[boxes].shape[2] // faces.shape[2], axis=2)]
    return result


def compare(outputs, reference):
    """(least cosine, largest difference) of the outputs, as affectd uses them."""
    outputs = {name: np.reshape(outputs[name], value.shape) for name, value in reference.items()}
    cosines, differences = [], []
    for name, value in used_by_affectd(outputs, reference).items():
        a, b = value.ravel().astype(np.float64), used_by_affectd(reference, reference)[name].ravel().astype(np.float64)
        if a.size:
            cosines.append(cosine(a, b))
            differences.append(np.abs(a - b).max())
    return float(min(cosines)), float(max(differences))


# ---- tools ----------------------------------------------------------------------------------------------------------


def environment(tool, work):
    """The Python of a tool's virtual environment; created unless it exists with exactly these requirements."""
    folder, required = work / tool, "\n".join(REQUIREMENTS[tool])
    stamp = folder / "installed.txt"
    if not stamp.exists() or stamp.read_text() != required:
        print(f"installing {tool}: {' '.join(REQUIREMENTS[tool])}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-compile", *REQUIREMENTS[tool]]
        done = subprocess.run(pip, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"not installed: {last_line(done.stderr)}")
        stamp.write_text(required)
    return folder / "bin/python"


def last_line(text):
    """The last line of a message, shortened to fit a cell."""
    return (text.strip().splitlines() or ["no message"])[-1].strip()[:110]


def run_in_own_process(python, function, graph, inputs, calibration, outputs, folder, limit_s):
    """{output: [n, ...]} of a graph by a function of toolchains.py, in a process that may take at most `limit_s`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(graph, folder / "graph.onnx")
    names = list(inputs[0])
    arrays = {f"compare {n}": np.stack([feed[n] for feed in inputs]) for n in names}
    arrays |= {f"calibrate {n}": np.stack([feed[n] for feed in calibration]) for n in names}
    np.savez(folder / "inputs.npz", **arrays)
    (folder / "job.json").write_text(json.dumps({"function": function, "inputs": names, "outputs": outputs}))
    with open(folder / "log.txt", "w") as log:
        command = [python, Path(__file__).with_name("toolchains.py").resolve(), folder]
        # In a session of its own, so that killing it kills its children too.
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise RuntimeError(f"timeout: no result in {limit_s} s") from None
    if not (folder / "outputs.npz").exists():
        raise RuntimeError(
            f"failed ({process.returncode}): {last_line((folder / 'log.txt').read_text(errors='replace'))}"
        )
    with np.load(folder / "outputs.npz") as results:
        return dict(results)


def main():
    parser = arguments.parser(__doc__)
    parser.add_argument(
        "--work",
        type=Path,
        required=True,
        metavar="DIR",
        help="virtual environments and the files that the tools write",
    )
    arguments.add_models(parser)
    parser.add_argument("--tools", default="openvino,ncnn,litert", help=f"some of {','.join(REQUIREMENTS)}")
    parser.add_argument(
        "--limit", type=float, default=120, metavar="SECONDS", help="for one graph; default: %(default)s"
    )
    options = parser.parse_args()
    tools = options.tools.split(",")
    if set(tools) - set(REQUIREMENTS):
        parser.error(f"--tools: expected some of {', '.join(REQUIREMENTS)}")

    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    forms = write_forms(options.models, work)
    inputs, calibration = demo_inputs(options.models, COUNT, seed=1), demo_inputs(options.models, COUNT, seed=2)
    references = {}
    for (name, form), path in forms.items():
        graph = open_graph(path)
        references[name, form] = stack([run_graph(graph, feed) for feed in inputs[name]])
    has_vnni = "vnni" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else None
    print(
        f"processor with VNNI: {has_vnni}; cosine to onnxruntime on the same file, {COUNT} inputs; ! is below the bar"
    )
    print("|  | bar |", " | ".join(GRAPHS), "|\n| --- | --- |" + " --- |" * len(GRAPHS))
    own = [compare(references[graph, "int8"], references[graph, "f32"])[0] for graph in GRAPHS]
    print("| cost of 8 bits: onnxruntime, s8 QDQ against f32 | |", " | ".join(f"{value:.5f}" for value in own), "|")
    report = {}
    for row, tool, form, function, bar in ROWS:
        if tool not in tools:
            continue
        cells = []
        for graph in GRAPHS:
            folder, reference = work / "runs" / row.replace(" ", "_") / graph, references[graph, form]
            try:
                python = environment(tool, work)
                job = (forms[graph, form], inputs[graph], calibration[graph], list(reference), folder, options.limit)
                value, difference = compare(run_in_own_process(python, function, *job), reference)
                report.setdefault(row, {})[graph] = {"cosine": round(value, 6), "max_difference": round(difference, 5)}
                cells.append(f"{value:.5f}{'' if value >= bar else ' !'}")
            except (RuntimeError, ValueError, KeyError, OSError, subprocess.CalledProcessError) as error:
                report.setdefault(row, {})[graph] = {"error": last_line(str(error))}
                cells.append(f"{last_line(str(error))} !")
        print(f"| {row} | {bar} |", " | ".join(cells), "|", flush=True)
    print(json.dumps({"vnni": has_vnni, "inputs": COUNT, "rows": report}))


if __name__ == "__main__":
    arguments.run(main)
