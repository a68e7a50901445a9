"""Compare affectd's numbers with onnxruntime's, its graph optimizations off, on the same files and inputs:

    cargo build --release --example infer
    python benches/onnxruntime/agree.py target/release/examples/infer GRAPH...

For every graph: how many output values lie within one step of the output's scale of onnxruntime's, the largest distance in
steps, and the nodes that affectd does not compute in integers. A step is the scale of the last DequantizeLinear before an
output; for an output that is not quantized, a 255th of its range. Beside it the same for onnxruntime with its optimizations
on: it rounds otherwise too, now and then to the other side of a tie, and some networks make much of that. Ends with 1 if a
graph is not whole in integers, or fewer than 99.9 % of its values are within a step and fewer than of that yardstick's.

Inputs are smooth random pictures where they are large enough for it, like what networks were made for, else random.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from graphs import ROOT, feeds
from onnx import numpy_helper
from scipy.ndimage import zoom

sys.path.insert(0, str(ROOT / "models" / "training"))
from quantize import run, session

WANTED = 0.999
# A step, and what f32 makes of it.
LIMIT = 1.001
SMALLEST_PICTURE = 32


def steps(model, outputs):
    """The step of each output: {name: scale}."""
    constants = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    found = {}
    for name, values in outputs.items():
        maker = makers[name]
        quantized = maker.op_type == "DequantizeLinear"
        found[name] = float(constants[maker.input[1]]) if quantized else float(values.max() - values.min()) / 255
    return found


def collected(engine, inputs):
    """All outputs on the inputs, one after the other: {name: values}."""
    results = [run(engine, feed) for feed in inputs]
    return {name: np.concatenate([result[name].ravel() for result in results]) for name in results[0]}


def infer(binary, graph, inputs):
    """affectd's outputs on the feeds, in the graph's order, and the nodes it did not compute in integers."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name in inputs[0]:
            files.append(Path(folder) / f"{len(files)}.f32")
            np.concatenate([feed[name].ravel() for feed in inputs]).tofile(files[-1])
        out = Path(folder) / "out"
        done = subprocess.run([binary, graph, out, *files], check=True, capture_output=True, text=True)
        values = [np.fromfile(path, np.float32) for path in sorted(Path(folder).glob("out.*"))]
        return values, done.stderr.splitlines()


def pictures(path, count):
    """Like feeds(), but what is a picture is smooth: bicubic, from an eighth of its size."""
    inputs = feeds(path, count)
    for feed in inputs:
        for name, value in feed.items():
            if value.ndim == 4 and min(value.shape[2:]) >= SMALLEST_PICTURE:
                eighth = value[:, :, ::8, ::8]
                factors = [whole / part for whole, part in zip(value.shape, eighth.shape, strict=True)]
                feed[name] = zoom(eighth, factors, order=3).clip(-1, 1).astype(np.float32)
    return inputs


def distances(ours, theirs, step):
    return np.concatenate([np.abs(ours[name] - theirs[name]) / step[name] for name in theirs])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("infer", type=Path)
    parser.add_argument("graphs", type=Path, nargs="+")
    parser.add_argument("--inputs", type=int, default=20, help="how many random inputs; default: %(default)s")
    arguments = parser.parse_args()
    good = True
    for path in arguments.graphs:
        model = onnx.load(path)
        inputs = pictures(path, arguments.inputs)
        theirs, fast = (collected(engine, inputs) for engine in (session(model), onnxruntime.InferenceSession(str(path))))
        ours, left = infer(arguments.infer, path, inputs)
        step = steps(model, theirs)
        distance = distances(dict(zip(theirs, ours, strict=True)), theirs, step)
        yardstick = float((distances(fast, theirs, step) <= LIMIT).mean())
        within = float((distance <= LIMIT).mean())
        good &= not left and within >= min(WANTED, yardstick)
        print(
            f"{path.name:28} {within:9.4%} of {distance.size} within a step, at most {distance.max():.2f}; "
            f"onnxruntime optimized {yardstick:.4%}",
            flush=True,
        )
        for line in left:
            print(f"    {line}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
