"""Tests of quantization, equalization and export on small graphs."""

import tempfile
import unittest
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from ..arguments import MODELS, BadInput
from ..networks.face_encoder import FaceEncoder, export, macs
from ..onnx_graphs import compare_graphs, count_macs, open_graph, run_graph, shapes
from ..quantization.equalize import equalize
from ..quantization.export import export_module
from ..quantization.quantize import BINS, best_range, quantize


def two_convolutions(path, gain=1.0):
    """Conv, ReLU, Conv on [1, 2, 4, 4]; `gain` multiplies one channel between them and divides it again."""
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(3, 2, 3, 3)), rng.normal(size=(2, 3, 1, 1))
    first[0] *= gain
    second[:, 0] /= gain
    bias = rng.normal(size=3)
    bias[0] *= gain
    constants = {"w1": first, "b1": bias, "w2": second, "b2": rng.normal(size=2)}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "first", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["y"], "second", kernel_shape=[1, 1]),
    ]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2, 4, 4]) for name in ("x", "y")]
    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)


def two_heads(path):
    """Conv, ReLU on [1, 2, 4, 4], read by two heads and by a Conv with a ReLU."""
    rng = np.random.default_rng(6)
    constants = {"w1": rng.normal(size=(3, 2, 3, 3)), "b1": rng.normal(size=3)}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "first", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu"),
    ]
    for name, source, target in (("head_a", "r1", "a"), ("head_b", "r1", "b"), ("inner", "r1", "c")):
        constants |= {f"{name}_w": rng.normal(size=(3, 3, 1, 1)), f"{name}_b": rng.normal(size=3)}
        nodes.append(helper.make_node("Conv", [source, f"{name}_w", f"{name}_b"], [target], name, kernel_shape=[1, 1]))
    nodes.append(helper.make_node("Relu", ["c"], ["d"], "last"))
    shapes_of = {"x": 2, "a": 3, "b": 3, "d": 3}
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, channels, 4, 4])
        for name, channels in shapes_of.items()
    ]
    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "heads", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)


def feeds(count=50):
    rng = np.random.default_rng(5)
    return [{"x": rng.uniform(-1, 1, (1, 2, 4, 4)).astype(np.float32)} for _ in range(count)]


class TestInFolder(unittest.TestCase):
    """A test with a temporary folder of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.f32, self.int8 = Path(folder.name) / "f32.onnx", Path(folder.name) / "int8.onnx"


class Quantize(TestInFolder):
    def test_the_int8_graph_is_close_to_the_f32_graph(self):
        two_convolutions(self.f32)
        quantize(self.f32, self.int8, feeds())
        result = compare_graphs(self.f32, self.int8, feeds())["y"]
        self.assertGreater(result["cosine"], 0.999)
        self.assertGreater(result["max_difference"], 0)

    def test_there_is_no_pair_before_relu_and_the_output_stays_f32(self):
        two_convolutions(self.f32)
        quantize(self.f32, self.int8, feeds())
        graph = onnx.load(self.int8).graph
        makers = {name: node for node in graph.node for name in node.output}
        relu = next(node for node in graph.node if node.op_type == "Relu")
        self.assertEqual(makers[relu.input[0]].op_type, "Conv")
        self.assertEqual(makers["y"].op_type, "Conv")
        self.assertEqual([n.op_type for n in graph.node].count("QuantizeLinear"), 2)

    def test_weights_are_symmetric_s8_with_one_scale_for_each_output_channel(self):
        two_convolutions(self.f32)
        quantize(self.f32, self.int8, feeds())
        constants = {value.name: numpy_helper.to_array(value) for value in onnx.load(self.int8).graph.initializer}
        self.assertEqual((constants["w1_integers"].dtype, constants["w1_scale"].shape), (np.int8, (3,)))
        self.assertEqual(np.abs(constants["w1_integers"].astype(int)).reshape(3, -1).max(1).tolist(), [127, 127, 127])
        self.assertEqual(constants["b1_integers"].dtype, np.int32)
        zero_points = [value for name, value in constants.items() if name.endswith("_zero_point")]
        self.assertTrue(zero_points and all((value == 0).all() for value in zero_points))

    def test_two_heads_have_pairs_of_their_own(self):
        two_heads(self.f32)
        quantize(self.f32, self.int8, feeds())
        graph = onnx.load(self.int8).graph
        pairs = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
        made_by = {name: node for node in graph.node for name in node.output}
        convolutions = [node for node in graph.node if node.op_type == "Conv" and node.name != "first"]
        inputs = [node.input[0] for node in convolutions]
        self.assertEqual(len(set(inputs)), 3)
        quantized = [made_by[pairs[name].input[0]] for name in inputs]
        self.assertEqual({node.input[0] for node in quantized}, {"r1"})
        self.assertEqual(len({(node.input[1], node.input[2]) for node in quantized}), 1)
        self.assertGreater(compare_graphs(self.f32, self.int8, feeds())["b"]["cosine"], 0.999)

    def test_one_outlier_does_not_widen_the_range_of_least_error(self):
        histogram = np.zeros(BINS)
        histogram[: BINS // 8] = 1000.0
        histogram[-1] = 1.0
        self.assertLess(best_range(histogram, 1.0), 0.5)
        self.assertAlmostEqual(best_range(np.ones(BINS), 1.0), 1.0, delta=0.05)

    def test_another_opset_is_rejected(self):
        two_convolutions(self.f32)
        model = onnx.load(self.f32)
        model.opset_import[0].version = 17
        onnx.save(model, self.f32)
        with self.assertRaisesRegex(ValueError, "opset 17"):
            quantize(self.f32, self.int8, feeds())


class Equalize(TestInFolder):
    def test_the_function_stays_and_the_int8_graph_improves(self):
        two_convolutions(self.f32, gain=300.0)
        before = [run_graph(open_graph(self.f32), feed)["y"] for feed in feeds(5)]
        quantize(self.f32, self.int8, feeds(), clip=False)
        unequal = compare_graphs(self.f32, self.int8, feeds())["y"]["cosine"]
        equalize(self.f32, feeds())
        after = [run_graph(open_graph(self.f32), feed)["y"] for feed in feeds(5)]
        np.testing.assert_allclose(after, before, atol=1e-4)
        quantize(self.f32, self.int8, feeds(), clip=False)
        self.assertGreater(compare_graphs(self.f32, self.int8, feeds())["y"]["cosine"], unequal)
        self.assertLess(unequal, 0.99)


class Export(TestInFolder):
    def test_a_module_becomes_a_static_graph_with_the_same_outputs(self):
        torch.manual_seed(1)
        module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU()).eval()
        export_module(module, self.f32, {"x": torch.zeros(1, 2, 4, 4)}, ["y"])
        self.assertEqual(shapes(self.f32), ({"x": [1, 2, 4, 4]}, {"y": [1, 3, 2, 2]}))
        self.assertNotIn("BatchNormalization", {node.op_type for node in onnx.load(self.f32).graph.node})
        (feed,) = feeds(1)
        expected = module(torch.from_numpy(feed["x"])).detach().numpy()
        np.testing.assert_allclose(run_graph(open_graph(self.f32), feed)["y"], expected, atol=1e-5)

    def test_the_exported_face_encoder_computes_the_scores_of_the_module(self):
        torch.manual_seed(2)
        net = FaceEncoder()
        net(torch.rand(8, 1, 48, 48))  # moves the batch norms
        net.eval()
        export(net, (2.0, 0.5), self.f32)
        face = torch.rand(1, 1, 48, 48)
        scores = run_graph(open_graph(self.f32), {"face": face.numpy()})["scores"].ravel()
        expected = net(face).detach().numpy().ravel() * np.repeat([0.5, 2.0, 1.0], [8, 8, 2])
        np.testing.assert_allclose(scores, expected, atol=1e-4)
        self.assertEqual(count_macs(self.f32), macs())


class ShippedGraphs(unittest.TestCase):
    def test_a_missing_graph_is_named(self):
        with self.assertRaisesRegex(BadInput, "no such graph"):
            open_graph(MODELS / "gone.onnx")


if __name__ == "__main__":
    unittest.main()
