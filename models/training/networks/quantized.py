"""Quantized graphs as functions of torch batches, in place of the modules they were made from. They run one input at a time."""

import numpy as np
import torch

from ..onnx_graphs import open_graph


def quantized_voice_encoder(path):
    """A function of log-mel windows [n, 1, 64, 96] -> embeddings [n, 64, 1, 1]."""
    graph = open_graph(path)

    def encode(windows):
        feeds = windows.contiguous().numpy()
        return torch.from_numpy(np.concatenate([graph.run(None, {"log_mel": feed[None]})[0] for feed in feeds]))

    return encode


def quantized_fusion(path):
    """A function of face [n, 42, 1, 8], voice [n, 64, 1, 8], mask [n, 2, 1, 8] -> (affect, log variance) [n, 2, 1, 1]."""
    graph = open_graph(path)

    def fuse(face, voice, mask):
        batch = zip(face.numpy(), voice.numpy(), mask.numpy(), strict=True)
        outputs = [
            graph.run(["affect", "log_variance"], {"face": f[None], "voice": v[None], "mask": m[None]})
            for f, v, m in batch
        ]
        return [torch.from_numpy(np.concatenate(part)) for part in zip(*outputs, strict=True)]

    return fuse
