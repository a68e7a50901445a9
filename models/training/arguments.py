"""Command-line arguments that several scripts share, and the error that ends a script with one line.

Every script takes folders explicitly: `--data` is read, `--work` holds caches and checkpoints, `--models` has the graphs to use,
and `--out` receives graphs and their manifest. No script writes into `models/` unless it is given as `--out`.
"""

import argparse
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"


class BadInput(Exception):
    """The input cannot be used. The message is one line: thing, reason, remedy."""


def parser(doc):
    """An argument parser whose --help shows the module docstring `doc` as it is written."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_data(to):
    to.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data sets (see DATA.md)")


def add_work(to):
    to.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder for caches and checkpoints")


def add_models(to):
    to.add_argument(
        "--models",
        type=Path,
        default=MODELS,
        metavar="DIR",
        help="folder with manifest.json and the graphs to use (default: the models of this repository)",
    )


def add_out(to, required=True):
    to.add_argument(
        "--out",
        type=Path,
        required=required,
        metavar="DIR",
        help="folder that receives the graphs and manifest.json; created if missing, its other graphs stay",
    )


def run(main):
    """Call the `main` of a script. Unusable input and missing files end it with one line and exit code 1."""
    script = Path(sys.argv[0]).stem
    try:
        main()
    except BadInput as error:
        sys.exit(f"{script}: {error}")
    except FileNotFoundError as error:
        sys.exit(f"{script}: {error.filename}: {error.strerror}")


def figure_command(module, *path_options):
    """The command line of this run as the manifest records it, with DIR or FILE in place of every path.

    `module` is the `__spec__.name` of the script. `path_options` are options with a path besides the shared ones.
    """
    words, previous = [f"python -m {module}"], None
    for word in sys.argv[1:]:
        if previous in ("--data", "--work", "--models", "--out"):
            words.append("DIR")
        elif previous in path_options:
            words.append("FILE")
        else:
            words.append(shlex.quote(word))
        previous = word
    return " ".join(words)
