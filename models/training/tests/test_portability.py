"""Tests of the graph forms and of the comparison that portability.py uses, on the shipped graphs in onnxruntime."""

import tempfile
import unittest
from pathlib import Path

import numpy as np

from ..arguments import MODELS
from ..experiments import portability
from ..experiments.toolchains import FUNCTIONS, one_by_one, stack
from ..onnx_graphs import open_graph, run_graph


def random_feed(graph, rng):
    """Uniform inputs for an open graph."""
    return {value.name: rng.uniform(-1, 1, value.shape).astype(np.float32) for value in graph.get_inputs()}


class Forms(unittest.TestCase):
    def check(self, write, name, tolerance):
        source = MODELS / f"{name}.int8.onnx"
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "changed.onnx"
            write(source, target)
            original, changed = open_graph(source), open_graph(target)
            feed = random_feed(original, np.random.default_rng(1))
            expected, found = run_graph(original, feed), run_graph(changed, feed)
        for output, value in expected.items():
            np.testing.assert_allclose(found[output], value, atol=tolerance, err_msg=output)

    def test_u8_files_compute_the_same_values(self):
        for name in portability.GRAPHS:
            self.check(portability.as_u8, name, 1e-4)


class Comparison(unittest.TestCase):
    def test_equal_outputs_have_cosine_1_and_a_sign_flip_has_minus_1(self):
        reference = {"a": np.random.default_rng(2).normal(size=(4, 1, 3, 1, 1))}
        self.assertAlmostEqual(portability.compare(reference, reference)[0], 1.0)
        self.assertAlmostEqual(portability.compare({"a": -reference["a"]}, reference)[0], -1.0)

    def test_the_worst_output_counts(self):
        good = np.ones((1, 1, 2, 1, 1))
        bad = np.array([1.0, -1.0]).reshape(1, 1, 2, 1, 1)
        self.assertAlmostEqual(portability.compare({"a": good, "b": bad}, {"a": good, "b": good})[0], 0.0)

    def test_boxes_count_only_where_the_reference_has_a_face(self):
        scores = np.full((1, 1, 2, 2, 2), -5.0)
        scores[0, 0, 0, 0, 0] = 5.0
        boxes = np.random.default_rng(3).normal(size=(1, 1, 32, 2, 2))
        far = boxes.copy()
        far[0, 0, :, 1, 1] = 1000.0  # no face there
        reference, changed = {"score_8": scores, "box_8": boxes}, {"score_8": scores, "box_8": far}
        self.assertAlmostEqual(portability.compare(changed, reference)[0], 1.0)

    def test_every_row_names_a_function_and_requirements(self):
        for _, tool, _, function, _ in portability.ROWS:
            self.assertIn(function, FUNCTIONS)
            self.assertIn(tool, portability.REQUIREMENTS)

    def test_stacking_reverses_splitting(self):
        inputs = {"a": np.arange(6).reshape(3, 2), "b": np.arange(3)}
        again = stack(one_by_one(inputs))
        np.testing.assert_array_equal(again["a"], inputs["a"])


if __name__ == "__main__":
    unittest.main()
