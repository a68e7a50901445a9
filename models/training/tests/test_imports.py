"""Imports point downwards only: each layer of the package imports from lower layers."""

import ast
import unittest

from ..arguments import ROOT

PACKAGE = ROOT / "models" / "training"
# Lowest first, as in README.md. All modules that are not named are scripts.
LAYERS = [
    {"arguments", "progress"},
    {"labels", "onnx_graphs", "manifest"},
    {"preprocessing"},
    {"networks"},
    {"augmentation", "quantization"},
    {"metrics", "inference"},
    {"data"},
    {"cross_fitting"},
    {"scripts"},
    {"experiments"},
]
NAMED = set.union(*LAYERS)


def layer(name):
    """The index of the layer of a module or subpackage."""
    name = name if name in NAMED else "scripts"
    return next(i for i, names in enumerate(LAYERS) if name in names)


def imports(path):
    """Yields (line, first part of the imported name) of the relative imports of a file that leave its own subpackage."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            for name in [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]:
                yield node.lineno, name


def names_of(path):
    """The names that a module defines or imports at its top level, and those of its submodules."""
    if path.is_dir():
        return {p.stem for p in path.iterdir()} | names_of(path / "__init__.py")
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                names |= {part.id for part in ast.walk(target) if isinstance(part, ast.Name)}
    return names


class Imports(unittest.TestCase):
    def test_every_imported_name_exists(self):
        missing = []
        for path in sorted(PACKAGE.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.ImportFrom) or node.level == 0:
                    continue
                source = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                source = source if source.is_dir() else source.with_suffix(".py")
                absent = {alias.name for alias in node.names} - names_of(source)
                missing += [f"{path.relative_to(PACKAGE)}:{node.lineno} {name}" for name in absent]
        self.assertEqual(missing, [])

    def test_every_module_imports_from_lower_layers(self):
        upwards, seen = [], 0
        for path in sorted(PACKAGE.rglob("*.py")):
            own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
            if own == "tests":
                continue
            for line, name in imports(path):
                seen += 1
                # Scripts may use functions of other scripts: train_fusion loads what train_voice_encoder wrote.
                if layer(name) > layer(own) or (layer(name) == layer(own) and own in NAMED and name != own):
                    upwards.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
        self.assertEqual(upwards, [])
        self.assertGreater(seen, 50)


if __name__ == "__main__":
    unittest.main()
