"""Writes `manifest.json`, the list of graphs that affectd accepts.

affectd refuses a graph whose bytes do not match the hash in the manifest. So every training script registers its graph as
its last step, and nothing else writes the file.
"""

import hashlib
import json
from pathlib import Path

from .arguments import BadInput

FORMAT = 1


def sha256(path):
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def read_graphs(models):
    """{graph name: manifest entry} of the folder `models`."""
    path = Path(models) / "manifest.json"
    try:
        return json.loads(path.read_text())["graphs"]
    except FileNotFoundError:
        raise BadInput(
            f"{path}: no such file: --models must name the folder with manifest.json and *.int8.onnx"
        ) from None
    except (ValueError, KeyError) as error:
        raise BadInput(f"{path}: not a manifest of affectd's models ({error})") from None


def register(out, name, entry):
    """Put graph `name` (NAME.int8.onnx and NAME.f32.onnx in the folder `out`) into the manifest of that folder.

    `entry` holds: version, inputs and outputs ({name: shape}), preprocessing (constants that Rust reads), macs (multiply-
    accumulates of one inference), licence, source (one sentence: who made it, from what) and figures (a list of
    {"name", "value", "split", "command"}, measured on the int8 file).
    """
    path = Path(out) / "manifest.json"
    if path.exists():
        manifest = json.loads(path.read_text())
    else:
        manifest = {"format": FORMAT, "name": "affectd-av", "version": "0.2.0", "graphs": {}}
    manifest["graphs"][name] = {
        "file": f"{name}.int8.onnx",
        "sha256": sha256(Path(out) / f"{name}.int8.onnx"),
        "f32": {"file": f"{name}.f32.onnx", "sha256": sha256(Path(out) / f"{name}.f32.onnx")},
        **entry,
    }
    path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
