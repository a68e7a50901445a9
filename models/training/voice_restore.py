"""A checkpoint of the voice encoder that ships, made from its f32 graph: to train a fusion without training a voice first.

    python models/training/voice_restore.py --data DIR --work DIR

The graph holds the encoder, not the heads that read it while it was trained. They are learnt anew on the training speakers,
the encoder as it is: on validation they read what the former ones did, to .001.
"""

import argparse
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import nn

import bundle
import mel_augment
import non_voice
import voice_encoder
from speech_corpora import Corpora
from voice_encoder import Heads, VoiceEncoder, Windows, WindowSampler, batch_input

BATCH, SILENT = 128, 8
PASSES = 2  # augmented hearings of every training utterance
STEPS, RATE = 6000, 3e-3
SEED = 3


@torch.no_grad()
def restored(path):
    """The encoder of an exported f32 graph. Batch norms were folded: they are left as additions of the bias."""
    graph = onnx.load(path).graph
    constants = {value.name: torch.tensor(numpy_helper.to_array(value)) for value in graph.initializer}
    *exported, last = [[constants[name] for name in node.input[1:]] for node in graph.node if node.op_type == "Conv"]
    encoder = VoiceEncoder()
    for i, (weight, bias) in enumerate(exported):
        convolution, norm = encoder.convolutions[3 * i], encoder.convolutions[3 * i + 1]
        convolution.weight.copy_(weight)
        norm.running_var.fill_(1 - norm.eps)
        norm.bias.copy_(bias)
    for mine, exact in zip((encoder.embedding.weight, encoder.embedding.bias), last, strict=True):
        mine.copy_(exact)
    return encoder.eval()


@torch.no_grad()
def heard(encoder, corpora, work):
    """Batches of (embedding, targets, emotion) of the training speakers; sounds that are no voice come last in each."""
    generator = torch.Generator().manual_seed(SEED)
    utterances = corpora.select("ravdess", "train") + corpora.select("nemo", "train")
    sampler, others = WindowSampler(corpora, utterances, generator), non_voice.bank(work)
    batches = []
    for _ in range(PASSES):
        for powers, target, emotion in sampler.epoch(BATCH):
            silent = others[torch.randint(len(others), (SILENT,), generator=generator)]
            sound = mel_augment.augment(torch.cat([powers, silent]), generator)
            batches.append((encoder(batch_input(sound)), target, emotion))
    return batches


def learn_heads(batches):
    heads = Heads()
    optimizer = torch.optim.AdamW(heads.parameters(), lr=RATE)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        loss = voice_encoder.loss_of(heads, *batches[torch.randint(len(batches), ()).item()])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return heads.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument("--work", type=Path, required=True, help="caches; the checkpoint goes to voice_encoder/ in it")
    options = parser.parse_args()
    torch.manual_seed(SEED)
    newest = options.work / "voice_encoder" / "newest.pt"
    if newest.exists():
        parser.error(f"{newest} is there already; move it away to replace it")
    corpora = Corpora(options.data, options.work)
    encoder = restored(bundle.MODELS / "voice_encoder.f32.onnx")
    heads = learn_heads(heard(encoder, corpora, options.work))
    validation = Windows(corpora, corpora.select("ravdess", "validation"))
    print("validation", voice_encoder.measure(encoder, heads, validation))
    both = nn.ModuleList([encoder, heads])
    average = torch.optim.swa_utils.AveragedModel(both, use_buffers=True)
    newest.parent.mkdir(exist_ok=True)
    torch.save({"model": both.state_dict(), "average": average.state_dict(), "epoch": 0}, newest)


if __name__ == "__main__":
    main()
