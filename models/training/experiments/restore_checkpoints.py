"""Restores the checkpoints of all trained networks from their f32 graphs, to continue from what ships instead of from nothing.

    python -m models.training.experiments.restore_checkpoints --data DIR --work DIR [--models DIR]

Writes into --work what the training scripts leave there:

- `face_encoder.pt`: batch norms are folded into the convolutions, so each norm adds the bias only. The softmax temperatures
  stay in the head.
- `voice_encoder/newest.pt`: the same. The graph holds the encoder, but not the heads that read it during training. They are
  trained anew on the training speakers, with the encoder unchanged.
- `fusion.pt`, for `train_fusion --from`: the variances keep their calibration.

The detector needs none: `convert_face_detector` makes it from MediaPipe's file.
"""

import onnx
import torch
from onnx import numpy_helper
from torch import nn

from .. import arguments
from ..augmentation import non_voice, voices
from ..data.speech_corpora import Corpora
from ..data.voice_windows import MeasuredWindows, WindowSampler
from ..networks.face_encoder import FaceEncoder
from ..networks.joint_cross_attention import JointCrossAttention, exported_weights
from ..networks.voice_encoder import Heads, VoiceEncoder, network_input
from ..train_face_encoder import make_optimizer
from ..train_voice_encoder import loss_of, measure

BATCH, NON_VOICE_WINDOWS = 128, 8
PASSES = 2  # augmented passes over the training utterances
STEPS, RATE = 6000, 3e-3
SEED = 3


def read_constants(path):
    """(graph, {name: tensor}) of an f32 graph."""
    graph = onnx.load(path).graph
    return graph, {value.name: torch.tensor(numpy_helper.to_array(value)) for value in graph.initializer}


def add_only(norm, bias):
    """Make a batch norm add `bias` and change nothing else."""
    norm.running_var.fill_(1 - norm.eps)
    norm.bias.copy_(bias)


@torch.no_grad()
def restore_face_encoder(path):
    """The net of an exported face encoder."""
    _, constants = read_constants(path)
    net = FaceEncoder()
    for i, layer in enumerate(net.body):
        layer.weight.copy_(constants[f"conv_{i}_weight"] - layer.identity)
        add_only(layer.norm, constants[f"conv_{i}_bias"])
    net.head.weight.copy_(constants["head_weight"][..., 0, 0])
    net.head.bias.copy_(constants["head_bias"])
    return net.eval()


@torch.no_grad()
def restore_fusion(path):
    """The network of an exported joint cross-attention fusion."""
    _, constants = read_constants(path)
    network = JointCrossAttention()
    network.load_state_dict(exported_weights({name: value.numpy() for name, value in constants.items()}))
    return network.eval()


@torch.no_grad()
def restore_voice_encoder(path):
    """The encoder of an exported voice encoder."""
    graph, constants = read_constants(path)
    *exported, last = [[constants[name] for name in node.input[1:]] for node in graph.node if node.op_type == "Conv"]
    encoder = VoiceEncoder()
    for i, (weight, bias) in enumerate(exported):
        convolution, norm = encoder.convolutions[3 * i], encoder.convolutions[3 * i + 1]
        convolution.weight.copy_(weight)
        add_only(norm, bias)
    for parameter, value in zip((encoder.embedding.weight, encoder.embedding.bias), last, strict=True):
        parameter.copy_(value)
    return encoder.eval()


@torch.no_grad()
def embed_batches(encoder, corpora):
    """Batches of (embedding, targets, emotion) of the training speakers; sounds without a voice come last in each."""
    generator = torch.Generator().manual_seed(SEED)
    sampler, no_voice = WindowSampler(corpora, corpora.training(), generator), non_voice.training_windows(corpora.work)
    batches = []
    for _ in range(PASSES):
        for powers, target, emotion in sampler.epoch(BATCH):
            added = no_voice[torch.randint(len(no_voice), (NON_VOICE_WINDOWS,), generator=generator)]
            augmented = voices.augment(torch.cat([powers, added]), generator)
            batches.append((encoder(network_input(augmented)), target, emotion))
    return batches


def train_heads(batches):
    """Heads trained on batches of `embed_batches`."""
    heads = Heads()
    optimizer = torch.optim.AdamW(heads.parameters(), lr=RATE)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        loss = loss_of(heads, *batches[torch.randint(len(batches), ()).item()])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return heads.eval()


def save_voice_encoder(encoder, corpora, path):
    """Train the heads and write a checkpoint as train_voice_encoder does."""
    heads = train_heads(embed_batches(encoder, corpora))
    validation = MeasuredWindows(corpora, corpora.select("ravdess", "validation"))
    print("voice encoder with new heads, validation:", measure(encoder, heads, validation))
    both = nn.ModuleList([encoder, heads])
    average = torch.optim.swa_utils.AveragedModel(both, use_buffers=True)
    path.parent.mkdir(exist_ok=True)
    torch.save({"model": both.state_dict(), "average": average.state_dict(), "epoch": 0}, path)


def save_face_encoder(net, path):
    """Write a checkpoint as train_face_encoder does, with an optimizer that has made no step."""
    state, optimizer = net.state_dict(), make_optimizer(net)
    torch.save({"net": state, "ema": state, "optimizer": optimizer.state_dict(), "epoch": 0}, path)


def main():
    parser = arguments.parser(__doc__)
    arguments.add_data(parser)
    arguments.add_work(parser)
    arguments.add_models(parser)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    options.work.mkdir(parents=True, exist_ok=True)
    face, voice, fusion = (options.work / name for name in ("face_encoder.pt", "voice_encoder/newest.pt", "fusion.pt"))
    for path in (face, voice, fusion):
        if path.exists():
            parser.error(f"{path}: exists already: move it away to replace it")
    save_face_encoder(restore_face_encoder(options.models / "face_encoder.f32.onnx"), face)
    torch.save(restore_fusion(options.models / "fusion.f32.onnx").state_dict(), fusion)
    encoder = restore_voice_encoder(options.models / "voice_encoder.f32.onnx")
    save_voice_encoder(encoder, Corpora(options.data, options.work), voice)


if __name__ == "__main__":
    arguments.run(main)
