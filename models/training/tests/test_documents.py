"""Checks that every script named in a document, a docstring or the manifest exists."""

import ast
import json
import re
import unittest
from unittest import mock

from ..arguments import MODELS, ROOT, figure_command

PACKAGE = ROOT / "models" / "training"
COMMAND = re.compile(r"-m models\.training\.(\w+(?:\.\w+)*)")


def exists(script):
    """Whether `script`, a dotted name such as experiments.portability, is a module of models.training."""
    return (PACKAGE / (script.replace(".", "/") + ".py")).exists()


class Documents(unittest.TestCase):
    def test_documents_name_existing_scripts(self):
        named = 0
        for path in [*MODELS.glob("*.md"), *PACKAGE.glob("*.md"), ROOT / "README.md"]:
            for script in COMMAND.findall(path.read_text()):
                named += 1
                self.assertTrue(exists(script) or script == "NAME", f"{path.name} names {script}")
        self.assertGreater(named, 5)

    def test_the_docstring_of_a_script_shows_its_own_command(self):
        for path in [*PACKAGE.glob("*.py"), *(PACKAGE / "experiments").glob("*.py")]:
            source = path.read_text()
            if "arguments.run(main)" not in source:
                continue
            script = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            self.assertIn(f"python -m models.training.{script}", ast.get_docstring(ast.parse(source)), path.name)

    def test_the_commands_of_the_manifest_run_existing_scripts(self):
        graphs = json.loads((MODELS / "manifest.json").read_text())["graphs"]
        commands = {figure["command"] for graph in graphs.values() for figure in graph["figures"]}
        self.assertGreater(len(commands), 3)
        for command in commands:
            self.assertTrue(exists(COMMAND.search(command)[1]), command)

    def test_recorded_commands_hide_paths(self):
        argv = ["train.py", "--data", "/home/x", "--from", "a b.pt", "--epochs", "3"]
        with mock.patch("sys.argv", argv):
            command = figure_command("models.training.train", "--from")
        self.assertEqual(command, "python -m models.training.train --data DIR --from FILE --epochs 3")


if __name__ == "__main__":
    unittest.main()
