"""Restores a checkpoint of the voice encoder from its f32 graph, to train a fusion without training a voice encoder first.

    python -m models.training.experiments.restore_voice_encoder --data DIR --work DIR [--models DIR]

The graph holds the encoder but not the heads that read it during training. They are trained anew on the training speakers, with
the encoder unchanged. On validation their CCC is within .001 of the former heads. Writes WORK/voice_encoder/newest.pt.
"""

import onnx
import torch
from onnx import numpy_helper
from torch import nn

from .. import arguments
from ..augmentation import non_voice, voices
from ..data.speech_corpora import Corpora
from ..data.voice_windows import MeasuredWindows, WindowSampler
from ..networks.voice_encoder import Heads, VoiceEncoder, network_input
from ..train_voice_encoder import loss_of, measure

BATCH, NON_VOICE_WINDOWS = 128, 8
PASSES = 2  # augmented passes over the training utterances
STEPS, RATE = 6000, 3e-3
SEED = 3


@torch.no_grad()
def restore(path):
    """The encoder of an exported f32 graph. The export folded the batch norms: here each adds the bias only."""
    graph = onnx.load(path).graph
    constants = {value.name: torch.tensor(numpy_helper.to_array(value)) for value in graph.initializer}
    *exported, last = [[constants[name] for name in node.input[1:]] for node in graph.node if node.op_type == "Conv"]
    encoder = VoiceEncoder()
    for i, (weight, bias) in enumerate(exported):
        convolution, norm = encoder.convolutions[3 * i], encoder.convolutions[3 * i + 1]
        convolution.weight.copy_(weight)
        norm.running_var.fill_(1 - norm.eps)
        norm.bias.copy_(bias)
    for parameter, value in zip((encoder.embedding.weight, encoder.embedding.bias), last, strict=True):
        parameter.copy_(value)
    return encoder.eval()


@torch.no_grad()
def embed_batches(encoder, corpora):
    """Batches of (embedding, targets, emotion) of the training speakers; sounds without a voice come last in each."""
    generator = torch.Generator().manual_seed(SEED)
    utterances = corpora.select("ravdess", "train") + corpora.select("nemo", "train")
    sampler, no_voice = WindowSampler(corpora, utterances, generator), non_voice.training_windows(corpora.work)
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


def main():
    parser = arguments.parser(__doc__)
    arguments.add_data(parser)
    arguments.add_work(parser)
    arguments.add_models(parser)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    newest = options.work / "voice_encoder" / "newest.pt"
    if newest.exists():
        parser.error(f"{newest}: exists already: move it away to replace it")
    corpora = Corpora(options.data, options.work)
    encoder = restore(options.models / "voice_encoder.f32.onnx")
    heads = train_heads(embed_batches(encoder, corpora))
    validation = MeasuredWindows(corpora, corpora.select("ravdess", "validation"))
    print("validation", measure(encoder, heads, validation))
    both = nn.ModuleList([encoder, heads])
    average = torch.optim.swa_utils.AveragedModel(both, use_buffers=True)
    newest.parent.mkdir(exist_ok=True)
    torch.save({"model": both.state_dict(), "average": average.state_dict(), "epoch": 0}, newest)


if __name__ == "__main__":
    arguments.run(main)
