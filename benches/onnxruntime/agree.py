"""Compares the outputs of affectd with those of onnxruntime without graph optimizations, on the same files and inputs.

    cargo build --release --example infer
    python -m benches.onnxruntime.agree target/release/examples/infer GRAPH...

For every graph it prints how many output values are within one step of onnxruntime's, the largest distance in steps, and the
nodes that affectd does not compute in integers. A step is the scale of the last DequantizeLinear before an output, or 1/255 of
the range of an output that is not quantized. For comparison, it also prints the share for onnxruntime with optimizations. That
also rounds differently, and some networks amplify such differences.

The exit code is 1 if affectd computes a node of a graph in f32, or if its share within a step is below 99.9 % and also below the
share of optimized onnxruntime.

Inputs are smooth random images if they are large enough, otherwise random values.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from scipy.ndimage import zoom

from models.training.onnx_graphs import open_graph, run_graph

from .graphs import make_feeds
from .repeat import open_optimized

REQUIRED_SHARE = 0.999
LIMIT = 1.001  # steps: one step, with a margin for f32 rounding
SMALLEST_IMAGE = 32  # pixels along a side


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


def outputs_of(engine, inputs):
    """The outputs of a session on all inputs, concatenated: {name: values}."""
    results = [run_graph(engine, feed) for feed in inputs]
    return {name: np.concatenate([result[name].ravel() for result in results]) for name in results[0]}


def infer(binary, graph, inputs):
    """The outputs of affectd on all inputs, in the order of the graph, and the nodes that it did not compute in integers."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name in inputs[0]:
            files.append(Path(folder) / f"{len(files)}.f32")
            np.concatenate([feed[name].ravel() for feed in inputs]).tofile(files[-1])
        out = Path(folder) / "out"
        done = subprocess.run([binary, graph, out, *files], check=True, capture_output=True, text=True)
        values = [np.fromfile(path, np.float32) for path in sorted(Path(folder).glob("out.*"))]
        return values, done.stderr.splitlines()


def smooth_feeds(path, count):
    """Like `make_feeds`, but images are smooth: scaled up from an eighth of their size with cubic interpolation."""
    inputs = make_feeds(path, count)
    for feed in inputs:
        for name, value in feed.items():
            if value.ndim == 4 and min(value.shape[2:]) >= SMALLEST_IMAGE:
                eighth = value[:, :, ::8, ::8]
                factors = [whole / part for whole, part in zip(value.shape, eighth.shape, strict=True)]
                feed[name] = zoom(eighth, factors, order=3).clip(-1, 1).astype(np.float32)
    return inputs


def distances(ours, theirs, step):
    """Distances of all output values in steps."""
    return np.concatenate([np.abs(ours[name] - theirs[name]) / step[name] for name in theirs])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("infer", type=Path, help="the example program infer of affectd")
    parser.add_argument("graphs", type=Path, nargs="+", help="graph files")
    parser.add_argument("--inputs", type=int, default=20, help="how many random inputs; default: %(default)s")
    arguments = parser.parse_args()
    good = True
    for path in arguments.graphs:
        model = onnx.load(path)
        inputs = smooth_feeds(path, arguments.inputs)
        theirs, fast = (outputs_of(engine, inputs) for engine in (open_graph(model), open_optimized(path)))
        ours, f32_nodes = infer(arguments.infer, path, inputs)
        step = steps(model, theirs)
        distance = distances(dict(zip(theirs, ours, strict=True)), theirs, step)
        optimized = float((distances(fast, theirs, step) <= LIMIT).mean())
        within = float((distance <= LIMIT).mean())
        good &= not f32_nodes and within >= min(REQUIRED_SHARE, optimized)
        print(
            f"{path.name:28} {within:9.4%} of {distance.size} within a step, at most {distance.max():.2f}; "
            f"onnxruntime optimized {optimized:.4%}",
            flush=True,
        )
        for line in f32_nodes:
            print(f"    {line}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
