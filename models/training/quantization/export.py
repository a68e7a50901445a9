"""Writes a trained torch module as the kind of ONNX graph that affectd reads: opset 13, static shapes, batch norms folded."""

import inspect

import onnx
import torch


def export_module(module, path, inputs, outputs):
    """Write `module` to `path`.

    `inputs` is {name: example tensor of batch 1}, in the order of the module's arguments. `outputs` is a list of names.
    """
    module = module.eval()
    # torch has two exporters since 2.5. The older one writes graphs as the quantizer expects them.
    older = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    torch.onnx.export(
        module,
        tuple(inputs.values()),
        str(path),
        input_names=list(inputs),
        output_names=list(outputs),
        opset_version=13,
        do_constant_folding=True,
        **older,
    )
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    model.producer_name, model.producer_version = "affectd", ""
    for node in model.graph.node:
        node.ClearField("doc_string")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
