"""Compares the speed of affectd and onnxruntime on the same networks, with one thread each.

    python -m benches.onnxruntime.graphs FOLDER
    python -m benches.onnxruntime.compare target/release/affectd FOLDER [--models DIR] [--seconds S] [NAME...]

The engines take turns in rounds, so that other load on the machine slows all of them. Each round gives a ratio, and the table
shows the median over the rounds: below 1, affectd is faster. affectd runs the s8 graph that it ships. onnxruntime runs the
fastest of f32, s8 and u8. AFFECTD_KERNEL, if set, selects the kernels of affectd.

Prints a table, and one JSON object with the same values as the last line.
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

from models.training.arguments import ROOT
from models.training.onnx_graphs import count_macs

from .graphs import make_feeds
from .repeat import bind, open_optimized

FORMS = {"f32": "f32", "s8": "int8", "u8": "u8"}
RATIO_COLUMNS = ["/ best ort", "/ tract", "GMAC/s", "int8 share", "kernel"]
WARM_UP_RUNS = 3
# `affectd bench` takes a number of runs, not a duration: this many runs measure how long one takes.
PROBE_RUNS = 20


class Onnxruntime:
    """One form of a network in onnxruntime."""

    def __init__(self, path):
        self.session = open_optimized(path)
        (feed,) = make_feeds(path, 1)
        self.binding = bind(self.session, feed)
        for _ in range(WARM_UP_RUNS):
            self.session.run_with_iobinding(self.binding)

    def time(self, seconds):
        """{"median_ms", "p99_ms"} of as many inferences as fit into `seconds`."""
        durations = []
        end = time.perf_counter() + seconds
        while not durations or time.perf_counter() < end:
            start = time.perf_counter()
            self.session.run_with_iobinding(self.binding)
            durations.append((time.perf_counter() - start) * 1e3)
        return {"median_ms": median(durations), "p99_ms": float(np.percentile(durations, 99))}


class Affectd:
    """One form of a network in affectd, which measures the time itself. `kernel` overrides AFFECTD_KERNEL."""

    def __init__(self, binary, path, kernel=None):
        self.command = [str(binary), "bench", "--json", "--model", str(path)]
        self.environment = os.environ | ({"AFFECTD_KERNEL": kernel} if kernel else {})
        self.expected_ms = self.bench(PROBE_RUNS)["median_ms"]

    def bench(self, iterations):
        """The entry of the graph in the output of `affectd bench --json`."""
        command = [*self.command, "--iterations", str(iterations)]
        done = subprocess.run(command, check=False, env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
        (graph,) = json.loads(done.stdout)["graphs"]
        return graph

    def time(self, seconds):
        """Like `Onnxruntime.time`."""
        return self.bench(max(1, round(seconds * 1e3 / self.expected_ms)))


def find(name, form, folders):
    """The path of a network in one form, from the first folder that has it."""
    for folder in folders:
        path = folder / f"{name}.{FORMS[form]}.onnx"
        if path.is_file():
            return path
    sys.exit(f"{name}.{FORMS[form]}.onnx not in {' or '.join(map(str, folders))}: run graphs.py first")


def compare(name, binary, folders, seconds, rounds):
    """One row of the table, as a dict for the JSON output."""
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
    multiplications = count_macs(paths["f32"])
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
    """Print one row with aligned columns."""
    print(f"{cells[0]:16}" + "".join(f"{cell:>12}" for cell in cells[1:]), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path, help="the affectd binary")
    parser.add_argument("folder", type=Path, help="folder that graphs.py wrote")
    parser.add_argument("name", nargs="*", help="networks to compare; default: all")
    parser.add_argument("--models", type=Path, default=ROOT / "models", metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=5, metavar="S", help="time for each engine and form; default: %(default)s"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="rounds to divide that time into; default: %(default)s"
    )
    arguments = parser.parse_args()
    # subprocess would search a bare name in PATH.
    binary = arguments.binary.resolve()
    names = arguments.name or sorted(path.name.removesuffix(".u8.onnx") for path in arguments.folder.glob("*.u8.onnx"))
    if not names:
        sys.exit(f"{arguments.folder}: no graphs: run graphs.py first")

    print(f"onnxruntime {onnxruntime.__version__}; median milliseconds an inference, one thread\n")
    print_row(
        ["", "M MAC", *(f"ort {form}" for form in FORMS), "tract f32", "affectd f32", "affectd s8", *RATIO_COLUMNS]
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
