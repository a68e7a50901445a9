"""Run one graph in onnxruntime a number of times: what cross/qemu-count.sh counts to compare affectd with on aarch64.

    python benches/onnxruntime/repeat.py GRAPH RUNS

It needs onnxruntime and numpy only, so that an arm64 Python unpacked into a folder can run it on another processor:

    pip download --only-binary=:all: --python-version 311 --platform manylinux_2_28_aarch64 \\
        --platform manylinux2014_aarch64 --no-deps --dest wheels onnxruntime==1.23.2 numpy==2.2.6
    for wheel in wheels/*.whl; do unzip -q "$wheel" -d site; done
    apt-get download python3.11:arm64 ...           # and what it depends on, see `apt-cache depends --recurse`
    for package in *.deb; do dpkg -x "$package" root; done
    QEMU_LD_PREFIX=$PWD/root PYTHONPATH=$PWD/site PYTHONHASHSEED=0 cross/qemu-count.sh \\
        root/usr/bin/python3.11 benches/onnxruntime/repeat.py GRAPH {}
"""

import os
import sys

# Else numpy starts threads that do nothing but wait, and their waiting is counted.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import onnxruntime


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    path, runs = sys.argv[1], int(sys.argv[2])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(3)
    binding = session.io_binding()
    for value in session.get_inputs():
        feed = random.uniform(-1, 1, value.shape).astype(np.float32)
        binding.bind_ortvalue_input(value.name, onnxruntime.OrtValue.ortvalue_from_numpy(feed))
    for value in session.get_outputs():
        place = onnxruntime.OrtValue.ortvalue_from_shape_and_type(value.shape, np.float32)
        binding.bind_ortvalue_output(value.name, place)
    for _ in range(runs):
        session.run_with_iobinding(binding)


if __name__ == "__main__":
    main()
