"""Runs one graph in another toolchain, inside that toolchain's own virtual environment. portability.py starts it:

    python toolchains.py FOLDER

FOLDER holds graph.onnx, job.json ({"function", "inputs", "outputs"}) and inputs.npz. The result goes to FOLDER/outputs.npz.
Only numpy and the toolchain are installed there, so this file imports nothing else of the project.

Each function maps (graph, {input: [n, 1, ...]}, the same to calibrate on, output names) to {output: [n, ...]}.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np


def one_by_one(inputs):
    """{input: [n, ...]} -> a list of n feeds."""
    return [dict(zip(inputs, parts, strict=True)) for parts in zip(*inputs.values(), strict=True)]


def stack(results):
    """A list of n {output: array} -> {output: [n, ...]}."""
    return {name: np.stack([result[name] for result in results]) for name in results[0]}


def openvino(graph, inputs, _, outputs, **settings):
    """OpenVINO on the CPU."""
    import openvino as ov

    # Without the hint it computes f32 in bf16 on processors that support it.
    compiled = ov.Core().compile_model(str(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32", **settings})
    return stack([{name: np.array(result[name]) for name in outputs} for result in map(compiled, one_by_one(inputs))])


def openvino_plain(*job):
    """OpenVINO without its low-precision transformations."""
    return openvino(*job, LP_TRANSFORMS_MODE="NO")


def ncnn_cpu(graph, inputs, _, outputs, vulkan=False):
    """ncnn, through pnnx."""
    import ncnn

    program = Path(importlib.util.find_spec("pnnx").origin).parent / "pnnx"  # importing it would need torch
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
        # A Mat borrows its array, so the array must outlive it.
        arrays = [np.ascontiguousarray(value[0]) for value in feed.values()]
        for i, array in enumerate(arrays):
            extractor.input(f"in{i}", ncnn.Mat(array))
        results.append({name: np.array(extractor.extract(f"out{i}")[1]) for i, name in enumerate(outputs)})
    return stack(results)


def ncnn_vulkan(*job):
    """ncnn on a Vulkan driver."""
    return ncnn_cpu(*job, vulkan=True)


def litert(graph, inputs, calibration, outputs, form="float32"):
    """LiteRT, through onnx2tf, which turns [n, c, h, w] into [n, h, w, c]."""
    import onnx
    from ai_edge_litert.interpreter import Interpreter

    def channels_last(value):
        return np.ascontiguousarray(value.transpose(0, 2, 3, 1))

    # onnx2tf downloads this file if it does not exist. It is not used.
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
        messages = (done.stdout + done.stderr).strip().splitlines() or ["no message"]
        raise RuntimeError(f"onnx2tf wrote no {written.name}: {messages[-1]}")
    interpreter = Interpreter(model_path=str(written), num_threads=1)
    interpreter.allocate_tensors()
    input_index = {
        detail["name"].split(":")[0].removeprefix("serving_default_"): detail["index"]
        for detail in interpreter.get_input_details()
    }
    # TensorFlow renames output tensors, in an order that varies: identify them by shape, then by name.
    details = sorted(interpreter.get_output_details(), key=lambda detail: detail["name"])
    output_index = {}
    for value in sorted(onnx.load(graph).graph.output, key=lambda value: value.name):
        n, c, h, w = (d.dim_value for d in value.type.tensor_type.shape.dim)
        found = next(detail for detail in details if tuple(detail["shape"]) == (n, h, w, c))
        details.remove(found)
        output_index[value.name] = found["index"]
    results = []
    for feed in one_by_one(inputs):
        for name, value in feed.items():
            interpreter.set_tensor(input_index[name], channels_last(value))
        interpreter.invoke()
        results.append({name: interpreter.get_tensor(output_index[name]).transpose(0, 3, 1, 2) for name in outputs})
    return stack(results)


def litert_int8(*job):
    """LiteRT with its own int8 quantization."""
    return litert(*job, form="integer_quant")


def litert_int16(*job):
    """LiteRT with its own int8 weights and 16-bit activations."""
    return litert(*job, form="integer_quant_with_int16_act")


def rknn(graph, inputs, _, outputs):
    """RKNN toolkit, rk3588 simulated."""
    from rknn.api import RKNN

    chip = RKNN(verbose=False)
    chip.config(target_platform="rk3588")
    steps = [
        lambda: chip.load_onnx(model=str(graph), outputs=list(outputs)),
        lambda: chip.build(do_quantization=False),
        chip.init_runtime,
    ]
    for name, step in zip(("load", "build", "simulate"), steps, strict=True):
        if step() != 0:
            raise RuntimeError(f"rknn: the step {name} failed")
    results = []
    for feed in one_by_one(inputs):
        got = chip.inference(inputs=list(feed.values()), data_format=["nchw"] * len(feed))
        results.append(dict(zip(outputs, got, strict=True)))
    return stack(results)


FUNCTIONS = {
    "openvino": openvino,
    "openvino_plain": openvino_plain,
    "ncnn_cpu": ncnn_cpu,
    "ncnn_vulkan": ncnn_vulkan,
    "litert": litert,
    "litert_int8": litert_int8,
    "litert_int16": litert_int16,
    "rknn": rknn,
}


def main():
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    arrays = np.load(folder / "inputs.npz")
    inputs, calibration = ({n: arrays[f"{use} {n}"] for n in job["inputs"]} for use in ("compare", "calibrate"))
    results = FUNCTIONS[job["function"]](folder / "graph.onnx", inputs, calibration, job["outputs"])
    np.savez(folder / "outputs.npz", **results)


if __name__ == "__main__":
    main()
