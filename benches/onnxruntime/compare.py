"""Time affectd against onnxruntime on the same networks, one thread each:

    python benches/onnxruntime/graphs.py FOLDER
    python benches/onnxruntime/compare.py target/release/affectd FOLDER [--models DIR] [--seconds S] [NAME...]

The engines take turns, round after round, so that whatever else the machine does slows all of them. A ratio is taken
within each round and the median over the rounds reported: below 1 affectd is faster. affectd runs the s8 graph it ships,
onnxruntime whichever of f32, s8 and u8 it is fastest with. AFFECTD_KERNEL, if set, chooses affectd's kernels here too.

Prints a table, and everything in it as one JSON object on the last line.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
from graphs import ROOT, feeds
from quantize import macs

FORMS = {"f32": "f32", "s8": "int8", "u8": "u8"}
WARM_UP_RUNS = 3
# affectd takes a number of runs, not a time: so many tell how long one takes.
PROBE_RUNS = 20


class Onnxruntime:
    """One form of a network in onnxruntime, at its best.

    Inputs and outputs stay where they are (an IOBinding): run() would copy them and look them up by name, a tenth of the
    time of a small graph, and nothing that a C++ program would have to pay.
    """

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        (feed,) = feeds(path, 1)
        for name, value in feed.items():
            self.binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value))
        for output in self.session.get_outputs():
            place = onnxruntime.OrtValue.ortvalue_from_shape_and_type(output.shape, np.float32)
            self.binding.bind_ortvalue_output(output.name, place)
        for _ in range(WARM_UP_RUNS):
            self.session.run_with_iobinding(self.binding)

    def time(self, seconds):
        """{"median_ms", "p99_ms"} over as many inferences as fit into `seconds`."""
        taken = []
        end = time.perf_counter() + seconds
        while not taken or time.perf_counter() < end:
            start = time.perf_counter()
            self.session.run_with_iobinding(self.binding)
            taken.append((time.perf_counter() - start) * 1e3)
        return {"median_ms": median(taken), "p99_ms": float(np.percentile(taken, 99))}


class Affectd:
    """One form of a network in affectd, timed by affectd itself. `kernel` overrides AFFECTD_KERNEL."""

    def __init__(self, binary, path, kernel=None):
        self.command = [str(binary), "bench", "--json", "--model", str(path)]
        self.environment = os.environ | ({"AFFECTD_KERNEL": kernel} if kernel else {})
        self.expected_ms = self.bench(PROBE_RUNS)["median_ms"]

    def bench(self, iterations):
        """The graph's entry in what `affectd bench --json` prints."""
        command = [*self.command, "--iterations", str(iterations)]
        done = subprocess.run(command, check=False, env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
        (graph,) = json.loads(done.stdout)["graphs"]
        return graph

    def time(self, seconds):
        return self.bench(max(1, round(seconds * 1e3 / self.expected_ms)))


def find(name, form, folders):
    for folder in folders:
        path = folder / f"{name}.{FORMS[form]}.onnx"
        if path.is_file():
            return path
    sys.exit(f"{name}.{FORMS[form]}.onnx is in none of {', '.join(map(str, folders))}: run graphs.py first")


def compare(name, binary, folders, seconds, rounds):
    """One row of the table, as in the JSON."""
    paths = {form: find(name, form, folders) for form in FORMS}
    engines = {f"onnxruntime {form}": Onnxruntime(path) for form, path in paths.items()}
    engines["affectd s8"] = Affectd(binary, paths["s8"])
    engines["affectd f32"] = Affectd(binary, paths["f32"])
    engines["tract f32"] = Affectd(binary, paths["f32"], kernel="tract")
    results = {label: [] for label in engines}
    for _ in range(rounds):
        for label, engine in engines.items():
            results[label].append(engine.time(seconds / rounds))

    def column(label, key="median_ms"):
        return [result[key] for result in results[label]]

    def ratio_to(label):
        return median(ours / theirs for ours, theirs in zip(column("affectd s8"), column(label), strict=True))

    best = min((f"onnxruntime {form}" for form in FORMS), key=lambda label: median(column(label)))
    multiplications = macs(paths["f32"])
    return {
        "name": name,
        "macs": multiplications,
        "median_ms": {label: median(column(label)) for label in engines},
        "p99_ms": {label: median(column(label, "p99_ms")) for label in engines},
        "best_onnxruntime": best,
        "ratio_to_onnxruntime": ratio_to(best),
        "ratio_to_tract_f32": ratio_to("tract f32"),
        "gmac_per_s": multiplications / median(column("affectd s8")) / 1e6,
        "int8_share": results["affectd s8"][0]["int8_share"],
        "kernel": results["affectd s8"][0]["kernel"],
    }


def print_row(cells):
    print(f"{cells[0]:16}" + "".join(f"{cell:>12}" for cell in cells[1:]), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path, help="the affectd to time")
    parser.add_argument("folder", type=Path, help="what graphs.py wrote")
    parser.add_argument("name", nargs="*", help="networks to compare; default: all")
    parser.add_argument("--models", type=Path, default=ROOT / "models", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=5, metavar="S", help="for each engine and form; default: 5")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="to spread them over; default: 5")
    arguments = parser.parse_args()
    # A bare name would be looked for in PATH.
    binary = arguments.binary.resolve()
    names = arguments.name or sorted(path.name.removesuffix(".u8.onnx") for path in arguments.folder.glob("*.u8.onnx"))
    if not names:
        sys.exit(f"{arguments.folder}: no graphs: run graphs.py first")

    print(f"onnxruntime {onnxruntime.__version__}; median milliseconds an inference, one thread\n")
    print_row(
        ["", "M MAC", "ort f32", "ort s8", "ort u8", "tract f32", "affectd f32", "affectd s8", "/ best ort", "/ tract"]
        + ["GMAC/s", "int8 share", "kernel"]
    )
    rows = []
    for name in names:
        row = compare(name, binary, [arguments.folder, arguments.models], arguments.seconds, arguments.rounds)
        order = ["onnxruntime f32", "onnxruntime s8", "onnxruntime u8", "tract f32", "affectd f32", "affectd s8"]
        print_row(
            [name, f"{row['macs'] / 1e6:.1f}"]
            + [f"{row['median_ms'][label]:.3f}" for label in order]
            + [f"{row['ratio_to_onnxruntime']:.2f}", f"{row['ratio_to_tract_f32']:.2f}", f"{row['gmac_per_s']:.1f}"]
            + [f"{row['int8_share']:.0%}", row["kernel"]]
        )
        rows.append(row)
    print(json.dumps({"onnxruntime": onnxruntime.__version__, "graphs": rows}))


if __name__ == "__main__":
    main()
