"""The bundle: `models/manifest.json`, the list of graphs that affectd accepts.

affectd refuses a graph whose bytes do not hash to what the manifest says, so a trainer registers its graph here
as its last step, and nothing else writes the file.
"""

import hashlib
import json
import shlex
import sys
from pathlib import Path

MODELS = Path(__file__).resolve().parent.parent
MANIFEST = MODELS / "manifest.json"
FORMAT = 1


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def command():
    """How this program was called, with DIR and FILE for paths, as figures carry it."""
    program, *arguments = sys.argv
    words = [f"python models/training/{Path(program).name}"]
    for before, word in zip([program, *arguments], arguments):
        is_path = before in ("--data", "--work", "--heard", "--from")
        words.append({"--heard": "DIR", "--from": "FILE"}.get(before, "DIR") if is_path else shlex.quote(word))
    return " ".join(words)


def load():
    if MANIFEST.exists():
        return json.loads(MANIFEST.read_text())
    return {"format": FORMAT, "name": "affectd-av", "version": "0.1.0", "graphs": {}}


def register(name, entry):
    """Put graph `name` (models/NAME.int8.onnx, and NAME.f32.onnx beside it) into the manifest.

    `entry` carries: version, inputs and outputs ({name: shape}), preprocessing (constants that Rust reads), macs (multiply-
    accumulates of one inference), licence, source (one sentence: who made it, from what) and figures (a list of
    {"name", "value", "split", "command"}: measured on the int8 file).
    """
    manifest = load()
    manifest["graphs"][name] = {
        "file": f"{name}.int8.onnx",
        "sha256": sha256(MODELS / f"{name}.int8.onnx"),
        "f32": {"file": f"{name}.f32.onnx", "sha256": sha256(MODELS / f"{name}.f32.onnx")},
        **entry,
    }
    MANIFEST.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
