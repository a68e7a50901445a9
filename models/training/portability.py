"""The graphs through other toolchains, numbers compared, as a table:

    python models/training/portability.py --work DIR [--tools openvino,ncnn,litert,rknn]

Each tool gets its own virtual environment in DIR, with the versions pinned below, and each graph its own process and time
limit: some of these tools hang or crash on what they cannot read, and some end well with wrong numbers. So nothing counts
but outputs, held against onnxruntime's on the same file: the least cosine of a graph's outputs over all inputs. A tool that
cannot be installed, or fails, is a cell that says so. The last line is one JSON object.

OpenVINO and RKNN (rk3588, simulated) read the s8 QDQ file. ncnn (on the CPU, and on Vulkan: any driver, such as Mesa's
lavapipe of mesa-vulkan-drivers) and LiteRT read the f32 file; LiteRT's int8 is its own quantization of it. Inputs come from
models/demo.mkv, modalities and steps mixed at random. The cost of our own 8 bits on them is the table's first row: LiteRT's
int8, which is held against f32, is to be compared with that. RKNN takes 6 GB of disk, and runs only if --tools names it.

What is behind the low cells of OpenVINO 2026.4.1, as the rows below its own show:
- Its low-precision transformations round s8 values that pass a Concat far too coarsely: at a scale of .05, to whole numbers.
  The same integers as u8 with zero point 128 come out right.
- On x86 processors without VNNI its int8 kernels saturate sums of two products at 16 bits. Weights of 7 bits cannot.
- With both mended the detector is still at .995, without the transformations at .9993: what they do to it is not found.
- Without them, it gives a Transpose after a QDQ pair a wrong shape, and refuses the fusion.

RKNN refuses the detector's s8 file, where two heads, whose outputs are f32, share a QDQ pair with a quantized convolution. The
row below has the same function with a pair of its own for each head.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

MODELS = Path(__file__).resolve().parent.parent
GRAPHS = ("face_detector", "face_encoder", "voice_encoder", "fusion")
COUNT = 32  # inputs to compare on, and as many others to calibrate on

# What each environment needs, in pip's words. pnnx is a program in a wheel: the torch its wheel asks for, it never loads.
REQUIREMENTS = {
    "openvino": ["openvino==2026.4.1", "numpy==2.2.6"],
    "ncnn": ["--no-deps", "ncnn==1.0.20261020", "pnnx==20261020", "numpy==2.2.6"],
    "litert": ["onnx2tf==1.29.24", "ai-edge-litert==2.1.0"],
    "rknn": ["rknn-toolkit2==2.5.0", "numpy==1.26.4", "onnx==1.18.0", "torch==2.4.0", "setuptools<80"],
}

# (row, tool, form of the file, function below, the cosine that a cell must reach)
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
    ("RKNN rk3588 simulated, s8 QDQ, heads with pairs of their own", "rknn", "int8_heads", "rknn", 0.999),
]


# ---- in a tool's own environment: (graph, {input: [n, 1, ...]}, the same to calibrate on, output names) -> {output: [n, ...]}


def one_by_one(inputs):
    return [dict(zip(inputs, parts, strict=True)) for parts in zip(*inputs.values(), strict=True)]


def stacked(results):
    return {name: np.stack([result[name] for result in results]) for name in results[0]}


def openvino(graph, inputs, _, outputs, **settings):
    import openvino as ov

    # Else it computes f32 in bf16 on processors that can.
    compiled = ov.Core().compile_model(str(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32", **settings})
    return stacked([{name: np.array(result[name]) for name in outputs} for result in map(compiled, one_by_one(inputs))])


def openvino_plain(*job):
    return openvino(*job, LP_TRANSFORMS_MODE="NO")


def ncnn_cpu(graph, inputs, _, outputs, vulkan=False):
    import ncnn

    program = Path(importlib.util.find_spec("pnnx").origin).parent / "pnnx"  # to import it would need torch
    subprocess.run(
        [program, graph.name, "fp16=0"],
        cwd=graph.parent,
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    param = graph.with_suffix(".ncnn.param")
    if not param.exists() or "pnnx.Expression" in param.read_text():
        raise RuntimeError("pnnx wrote no graph that ncnn reads")
    if vulkan and ncnn.get_gpu_count() == 0:
        raise RuntimeError("no Vulkan driver (apt-get install mesa-vulkan-drivers)")
    net = ncnn.Net()
    net.opt.use_vulkan_compute = vulkan
    net.opt.num_threads = 1
    if net.load_param(str(param)) or net.load_model(str(graph.with_suffix(".ncnn.bin"))):
        raise RuntimeError("ncnn cannot load what pnnx wrote")
    results = []
    for feed in one_by_one(inputs):
        extractor = net.create_extractor()
        # A Mat borrows its array, which must outlive it.
        arrays = [np.ascontiguousarray(value[0]) for value in feed.values()]
        for i, array in enumerate(arrays):
            extractor.input(f"in{i}", ncnn.Mat(array))
        results.append({name: np.array(extractor.extract(f"out{i}")[1]) for i, name in enumerate(outputs)})
    return stacked(results)


def ncnn_vulkan(*job):
    return ncnn_cpu(*job, vulkan=True)


def litert(graph, inputs, calibration, outputs, form="float32"):
    """onnx2tf turns [n, c, h, w] into [n, h, w, c]."""
    import onnx
    from ai_edge_litert.interpreter import Interpreter

    def channels_last(value):
        return np.ascontiguousarray(value.transpose(0, 2, 3, 1))

    # onnx2tf wants this file to be there, or downloads one; its own calibration is not used.
    np.save(
        graph.parent / "calibration_image_sample_data_20x128x128x3_float32.npy", np.zeros((20, 128, 128, 3), np.float32)
    )
    command = [Path(sys.executable).parent / "onnx2tf", "-i", graph.name, "-o", "tflite", "-coion", "-n"]
    if form != "float32":
        command += ["-oiqt", "-qt", "per-channel"]
        for name, values in calibration.items():
            np.save(graph.parent / f"{name}.npy", channels_last(values[:, 0]))
            command += ["-cind", name, f"{name}.npy", "0", "1"]
    path = os.environ["PATH"] + os.pathsep + str(Path(sys.executable).parent)
    done = subprocess.run(
        command, cwd=graph.parent, check=False, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    written = graph.parent / "tflite" / f"{graph.stem}_{form}.tflite"
    if not written.exists():
        said = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
        raise RuntimeError(f"onnx2tf wrote no {written.name}: {said[-1]}")
    interpreter = Interpreter(model_path=str(written), num_threads=1)
    interpreter.allocate_tensors()
    read = {
        detail["name"].split(":")[0].removeprefix("serving_default_"): detail["index"]
        for detail in interpreter.get_input_details()
    }
    # Tensors that go out have names of TensorFlow's making, in an order that changes: told apart by shape, then by name.
    details = sorted(interpreter.get_output_details(), key=lambda detail: detail["name"])
    write = {}
    for value in sorted(onnx.load(graph).graph.output, key=lambda value: value.name):
        n, c, h, w = (d.dim_value for d in value.type.tensor_type.shape.dim)
        found = next(detail for detail in details if tuple(detail["shape"]) == (n, h, w, c))
        details.remove(found)
        write[value.name] = found["index"]
    results = []
    for feed in one_by_one(inputs):
        for name, value in feed.items():
            interpreter.set_tensor(read[name], channels_last(value))
        interpreter.invoke()
        results.append({name: interpreter.get_tensor(write[name]).transpose(0, 3, 1, 2) for name in outputs})
    return stacked(results)


def litert_int8(*job):
    return litert(*job, form="integer_quant")


def litert_int16(*job):
    return litert(*job, form="integer_quant_with_int16_act")


def rknn(graph, inputs, _, outputs):
    from rknn.api import RKNN

    chip = RKNN(verbose=False)
    chip.config(target_platform="rk3588")
    steps = [
        lambda: chip.load_onnx(model=str(graph), outputs=list(outputs)),
        lambda: chip.build(do_quantization=False),
        lambda: chip.init_runtime(),
    ]
    for name, step in zip(("load", "build", "simulate"), steps, strict=True):
        if step() != 0:
            raise RuntimeError(f"rknn cannot {name} it")
    results = []
    for feed in one_by_one(inputs):
        got = chip.inference(inputs=list(feed.values()), data_format=["nchw"] * len(feed))
        results.append(dict(zip(outputs, got, strict=True)))
    return stacked(results)


def work_on(folder):
    """The other end of `run_apart`."""
    job = json.loads((folder / "job.json").read_text())
    arrays = np.load(folder / "inputs.npz")
    inputs, calibration = ({n: arrays[f"{use} {n}"] for n in job["inputs"]} for use in ("compare", "calibrate"))
    results = globals()[job["function"]](folder / "graph.onnx", inputs, calibration, job["outputs"])
    np.savez(folder / "outputs.npz", **results)


# ---- inputs and references ------------------------------------------------------------------------------------------


def demo_inputs(count, seed):
    """`count` feeds of each graph, {graph: [{input: array}]}: the demo clip, moved, dimmed, at other levels and noisier."""
    import face_crop
    import face_detect
    import quantize
    import shipped_graphs

    rng = np.random.default_rng(seed)
    clip = MODELS / "demo.mkv"
    pictures = face_detect.clip_frames(clip)
    sound = shipped_graphs.decode(clip.read_bytes(), clip.name)
    detector = quantize.session(MODELS / "face_detector.f32.onnx")
    faces, voices = shipped_graphs.FaceEncoder(form="f32"), shipped_graphs.VoiceEncoder(form="f32")
    fusion = shipped_graphs.Fusion(form="f32")

    feeds = {name: [] for name in GRAPHS}
    posteriors, embeddings = [], []
    while len(posteriors) < count:
        picture = pictures[rng.integers(len(pictures))]
        height, width = picture.shape
        side = int(height * rng.uniform(0.6, 1.0))
        top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        picture = (picture[top : top + side, left : left + side] * rng.uniform(0.3, 1.0)).astype(np.uint8)
        canvas, scale, offset = face_detect.letterbox(np.ascontiguousarray(picture))
        found = face_detect.decode(quantize.run(detector, face_detect.feed(canvas)))
        if not found:
            continue
        points = (found[0].keypoints * face_detect.SIZE - offset) / scale
        square = face_crop.square(*points[[face_detect.RIGHT_EYE, face_detect.LEFT_EYE, face_detect.MOUTH]])
        square.side *= rng.uniform(0.8, 1.25)
        square.roll += rng.normal(0, 0.2)
        face = face_crop.crop(picture, square) + rng.normal(0, rng.uniform(0, 12), (faces.size, faces.size))
        feeds["face_detector"].append(face_detect.feed(canvas))
        feeds["face_encoder"].append({"face": faces.input(face)})
        posteriors.append(faces.posteriors(face[None])[0])
    for _ in range(count):
        noisy = sound * rng.uniform(0.1, 1.0) + rng.normal(0, 10 ** rng.uniform(-5, -2), len(sound))
        window = voices.input(voices.band_powers(noisy), int(rng.integers(voices.span // 2, len(sound))))
        feeds["voice_encoder"].append({"log_mel": window})
        embeddings.append(voices.engine.run(["embedding"], {"log_mel": window})[0].ravel())
    for i in range(count):
        # Both modalities; every third time one of them with gaps, or not at all.
        seen, heard = (
            rng.random(fusion.steps) < (rng.choice([0.0, 0.7, 1.0]) if i % 3 == 0 else 1.0) for _ in range(2)
        )
        picks = rng.integers(count, size=(fusion.steps, 4))
        known = {
            s: shipped_graphs.face_features(np.stack([posteriors[p] for p in picks[s]])) for s in np.flatnonzero(seen)
        }
        feeds["fusion"].append(fusion.window(known, {s: embeddings[picks[s, 0]] for s in np.flatnonzero(heard)}))
    return feeds


def as_u8(source, target, weight_bits=8):
    """The s8 QDQ file with the same values as u8 with zero point 128; with 7 bits, weights on a grid twice as coarse."""
    import onnx
    from onnx import numpy_helper

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
            if node.output[0] not in weights:  # zeros of a Concat
                replace(node.input[0], lambda x: (x.astype(int) + 128).astype(np.uint8))
                activation_zeros.add(node.input[2])
            elif integers.dtype == np.int8 and weight_bits == 7:
                replace(node.input[0], lambda x: np.rint(x / 2).astype(np.int8))
                replace(node.input[1], lambda x: x * np.float32(2))
    for name in activation_zeros:
        replace(name, lambda x: np.full(x.shape, 128, np.uint8))
    del model.graph.value_info[:]  # their types are no longer true
    onnx.save(model, target)


def heads_apart(source, target):
    """The s8 QDQ file, unchanged but that each convolution which makes an output has a QDQ pair of its own before it."""
    import onnx

    model = onnx.load(source)
    made_by = {name: node for node in model.graph.node for name in node.output}
    outputs = {value.name for value in model.graph.output}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Conv" and node.output[0] in outputs:
            dequantize = made_by[node.input[0]]
            for shared in (made_by[dequantize.input[0]], dequantize):
                own = onnx.NodeProto()
                own.CopyFrom(shared)
                own.name += f"_{node.name}"
                own.output[0] += f"_{node.name}"
                if shared is dequantize:
                    own.input[0] = nodes[-1].output[0]
                nodes.append(own)
            node.input[0] = nodes[-1].output[0]
        nodes.append(node)
    graph = onnx.helper.make_graph(
        nodes, model.graph.name, model.graph.input, model.graph.output, model.graph.initializer
    )
    model.graph.CopyFrom(graph)
    onnx.save(model, target)


def write_forms(folder):
    """All forms of all graphs, {(graph, form): path}."""
    forms = {(graph, form): MODELS / f"{graph}.{form}.onnx" for graph in GRAPHS for form in ("f32", "int8")}
    for graph in GRAPHS:
        for form, bits in (("u8", 8), ("u8_7bit", 7)):
            forms[graph, form] = folder / f"{graph}.{form}.onnx"
            as_u8(forms[graph, "int8"], forms[graph, form], bits)
        forms[graph, "int8_heads"] = folder / f"{graph}.int8_heads.onnx"
        heads_apart(forms[graph, "int8"], forms[graph, "int8_heads"])
    return forms


def read_by_affectd(outputs, reference):
    """What affectd reads of outputs {name: [n, 1, c, h, w]}: of the detector, probabilities, and boxes where a face is.

    Its raw values far from a face run to -170 and are clipped by int8: to compare those would say nothing of faces.
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
    """(least cosine, largest difference) of the outputs, as affectd reads them."""
    outputs = {name: np.reshape(outputs[name], value.shape) for name, value in reference.items()}
    cosines, differences = [], []
    for name, value in read_by_affectd(outputs, reference).items():
        a, b = value.ravel().astype(np.float64), read_by_affectd(reference, reference)[name].ravel().astype(np.float64)
        if a.size:
            cosines.append(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30))
            differences.append(np.abs(a - b).max())
    return float(min(cosines)), float(max(differences))


# ---- tools ----------------------------------------------------------------------------------------------------------


def environment(tool, work):
    """The Python of a tool's virtual environment, made if it is not there with these very requirements."""
    folder, wanted = work / tool, "\n".join(REQUIREMENTS[tool])
    stamp = folder / "installed.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {tool}: {' '.join(REQUIREMENTS[tool])}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-compile", *REQUIREMENTS[tool]]
        done = subprocess.run(pip, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"not installed: {last_line(done.stderr)}")
        stamp.write_text(wanted)
    return folder / "bin/python"


def last_line(text):
    return (text.strip().splitlines() or ["it said nothing"])[-1].strip()[:110]


def run_apart(python, function, graph, inputs, calibration, outputs, folder, limit_s):
    """{output: [n, ...]} of a graph by one of the functions above, in its own process, which gets no longer than `limit_s`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(graph, folder / "graph.onnx")
    names = list(inputs[0])
    arrays = {f"compare {n}": np.stack([feed[n] for feed in inputs]) for n in names}
    arrays |= {f"calibrate {n}": np.stack([feed[n] for feed in calibration]) for n in names}
    np.savez(folder / "inputs.npz", **arrays)
    (folder / "job.json").write_text(json.dumps({"function": function, "inputs": names, "outputs": outputs}))
    with open(folder / "log.txt", "w") as log:
        command = [python, Path(__file__).resolve(), "--apart", folder]
        # Its own session, so that whatever it starts ends with it.
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise RuntimeError(f"hung: no result in {limit_s} s") from None
    if not (folder / "outputs.npz").exists():
        raise RuntimeError(
            f"failed ({process.returncode}): {last_line((folder / 'log.txt').read_text(errors='replace'))}"
        )
    with np.load(folder / "outputs.npz") as results:
        return dict(results)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="environments and what the tools write")
    parser.add_argument("--tools", default="openvino,ncnn,litert", help=f"some of {','.join(REQUIREMENTS)}")
    parser.add_argument("--limit", type=float, default=120, metavar="SECONDS", help="for one graph")
    parser.add_argument("--apart", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.apart:
        return work_on(options.apart)
    tools = options.tools.split(",")
    if options.work is None or set(tools) - set(REQUIREMENTS):
        parser.error(f"--work DIR is needed, and --tools are of {', '.join(REQUIREMENTS)}")

    import quantize

    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    forms = write_forms(work)
    inputs, calibration = demo_inputs(COUNT, seed=1), demo_inputs(COUNT, seed=2)
    references = {}
    for (graph, form), path in forms.items():
        engine = quantize.session(path)
        references[graph, form] = stacked([quantize.run(engine, feed) for feed in inputs[graph]])
    has_vnni = "vnni" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else None
    print(
        f"processor with VNNI: {has_vnni}; cosine against onnxruntime on the same file, {COUNT} inputs; ! below its bar"
    )
    print("|  | bar |", " | ".join(GRAPHS), "|\n| --- | --- |" + " --- |" * len(GRAPHS))
    own = [compare(references[graph, "int8"], references[graph, "f32"])[0] for graph in GRAPHS]
    print("| what 8 bits cost: onnxruntime, s8 QDQ against f32 | |", " | ".join(f"{cosine:.5f}" for cosine in own), "|")
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
                cosine, difference = compare(run_apart(python, function, *job), reference)
                report.setdefault(row, {})[graph] = {"cosine": round(cosine, 6), "max_difference": round(difference, 5)}
                cells.append(f"{cosine:.5f}{'' if cosine >= bar else ' !'}")
            except (RuntimeError, ValueError, KeyError, OSError, subprocess.CalledProcessError) as error:
                report.setdefault(row, {})[graph] = {"error": last_line(str(error))}
                cells.append(f"{last_line(str(error))} !")
        print(f"| {row} | {bar} |", " | ".join(cells), "|", flush=True)
    print(json.dumps({"vnni": has_vnni, "inputs": COUNT, "rows": report}))


if __name__ == "__main__":
    main()
