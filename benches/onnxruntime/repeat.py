"""Runs one graph in onnxruntime a number of times, for cross/qemu-count.sh to compare instruction counts on aarch64.

    python benches/onnxruntime/repeat.py GRAPH RUNS

It needs only onnxruntime and numpy, so an arm64 Python that is unpacked into a folder can run it on another processor:

    pip download --only-binary=:all: --python-version 311 --platform manylinux_2_28_aarch64 \\
        --platform manylinux2014_aarch64 --no-deps --dest wheels onnxruntime==1.23.2 numpy==2.2.6
    for wheel in wheels/*.whl; do unzip -q "$wheel" -d site; done
    apt-get download python3.11:arm64 ...           # and its dependencies, see `apt-cache depends --recurse`
    for package in *.deb; do dpkg -x "$package" root; done
    QEMU_LD_PREFIX=$PWD/root PYTHONPATH=$PWD/site PYTHONHASHSEED=0 cross/qemu-count.sh \\
        root/usr/bin/python3.11 benches/onnxruntime/repeat.py GRAPH {}
"""

import os
import sys

# Without this, numpy starts threads that only wait, and the instructions of their waiting are counted too.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import onnxruntime


def open_optimized(path):
    """An onnxruntime session on one thread with all graph optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def bind(session, feed):
    """An IOBinding that keeps the inputs {name: array} and all outputs in place.

    session.run() copies them and looks them up by name. For a small graph, that takes a tenth of the time. A C++ program does
    not need it, so it must not count.
    """
    binding = session.io_binding()
    for name, value in feed.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value))
    for value in session.get_outputs():
        output = onnxruntime.OrtValue.ortvalue_from_shape_and_type(value.shape, np.float32)
        binding.bind_ortvalue_output(value.name, output)
    return binding


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    session, runs = open_optimized(sys.argv[1]), int(sys.argv[2])
    random = np.random.default_rng(3)
    feed = {value.name: random.uniform(-1, 1, value.shape).astype(np.float32) for value in session.get_inputs()}
    binding = bind(session, feed)
    for _ in range(runs):
        session.run_with_iobinding(binding)


if __name__ == "__main__":
    main()
