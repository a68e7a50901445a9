"""Trains the voice encoder on the speech corpora and writes its graphs.

    python -m models.training.train_voice_encoder --data DIR --work DIR --out DIR [--from CHECKPOINT] [--export-now]

Reads `speech/` and `circumplex.csv` in --data. The network maps a log-mel window [1, 1, 64, 96] to an embedding
[1, 64, 1, 1]. While it trains, two heads read the embedding: one for valence and arousal, one for the acted emotion or
"not a voice". The heads are not exported, but stay in the checkpoint.

Every epoch ends in a checkpoint in --work, and a second run continues from it. After the last epoch the script writes
voice_encoder.f32.onnx and voice_encoder.int8.onnx to --out and registers them there with their figures. `--export-now` does
that with the newest checkpoint, without the test splits. `--from` starts with the weights of an earlier run.
"""

import dataclasses
import math
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn

from . import arguments, manifest
from .augmentation import non_voice, voices
from .data.speech_corpora import Corpora
from .data.voice_windows import MeasuredWindows, WindowSampler
from .labels import SPEECH_EMOTIONS
from .metrics.agreement import ccc
from .networks.averaging import moving_average
from .networks.quantized import quantized_voice_encoder
from .networks.voice_encoder import Heads, VoiceEncoder, macs, network_input
from .onnx_graphs import compare_graphs, shapes
from .preprocessing.log_mel import LOG_MEL
from .progress import time_left
from .quantization.export import export_module
from .quantization.quantize import quantize

NAME = "voice_encoder"
NON_VOICE_WINDOWS = 2  # windows without a voice in each batch
VALIDATION = "RAVDESS validation, actors 19-21"
VALIDATION_OF_OTHERS = {
    "ASED (Amharic) validation, speakers 39-45": "ased",
    "emotiontts (Korean) validation, three speakers": "emotiontts",
    "BAVED (Arabic) validation, every seventh speaker": "baved",
    "EmoGator (vocal bursts) validation, every seventh person": "emogator",
}


# ---- training -------------------------------------------------------------------------------------------------------


def loss_of(heads, embedding, target, emotion):
    """1 - CCC of both dimensions, plus squared error to keep the scale, plus cross-entropy of the emotion.

    `target` may be shorter than the batch: the rest of the batch holds no voice. Its valence may be nan where nobody knows it.
    """
    affect, logits = heads(embedding)
    affect = affect[: len(target)]
    known = ~target[:, 0].isnan()
    concordance = 1 - ccc(affect[known, 0], target[known, 0]) + 1 - ccc(affect[:, 1], target[:, 1])
    target = torch.where(target.isnan(), affect.detach(), target)
    emotion = nn.functional.pad(emotion, (0, len(embedding) - len(target)), value=len(SPEECH_EMOTIONS))
    return (
        concordance
        + (affect - target).square().mean()
        + 0.5 * nn.functional.cross_entropy(logits, emotion, label_smoothing=0.1)
    )


@torch.no_grad()
def measure(encode, heads, windows, change=None):
    """CCC of the training heads on the embeddings of all `windows`; `change` disturbs their band powers first."""
    return windows.figures(torch.cat([heads(encode(x))[0] for x in windows.inputs(change)]))


def disturbances():
    """What cheap microphones and rooms add, {name: function of band powers}."""
    generator = torch.Generator().manual_seed(9)
    changes = {f"gain {db:+} dB": partial(torch.mul, other=voices.decibels(db)) for db in (-20, -10, 10, 20)}
    changes["noise 10 dB under"] = partial(voices.noise, generator=generator, under=(10.0, 10.0))
    changes["telephone band"] = partial(voices.roll_off, low=voices.TELEPHONE[0], high=voices.TELEPHONE[1])
    changes["reverberation"] = partial(voices.reverberate, generator=generator)
    return changes


def train(corpora, utterances, validation, folder, epochs, batch, rate, seed, start_from=None, frozen=0, every=4):
    """Train in `folder`, or continue there; returns encoder and heads with the averaged weights of the newest epoch.

    The first `frozen` layers keep the weights and norms of `start_from`. Without `validation` nothing is measured in between.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    encoder, heads = VoiceEncoder().to(memory_format=torch.channels_last), Heads()
    both = nn.ModuleList([encoder, heads])
    average = moving_average(both, 0.995, use_buffers=True)
    no_voice = non_voice.training_windows(corpora.work)
    optimizer = torch.optim.AdamW(both.parameters(), lr=rate, weight_decay=0.02)
    first, newest = 0, folder / "newest.pt"
    if start_from is not None and not newest.exists():
        both.load_state_dict(torch.load(start_from)["model"])
        average.module.load_state_dict(both.state_dict())
    if newest.exists():
        state = torch.load(newest)
        both.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"] + 1
    generator = torch.Generator().manual_seed(seed + 1000 * first)
    sampler = WindowSampler(corpora, utterances, generator)
    steps = sampler.steps(batch)
    for epoch in range(first, epochs):
        start, total = time.time(), 0.0
        both.train()
        encoder.convolutions[: 3 * frozen].eval().requires_grad_(False)
        for step, (powers, target, emotion) in enumerate(sampler.epoch(batch)):
            done = (epoch + step / steps) / epochs
            warm = min(1.0, (epoch * steps + step + 1) / 300)
            for group in optimizer.param_groups:
                group["lr"] = rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
            added = no_voice[torch.randint(len(no_voice), (NON_VOICE_WINDOWS,), generator=generator)]
            augmented = voices.augment(torch.cat([powers, added]), generator)
            loss = loss_of(heads, encoder(network_input(augmented)), target, emotion)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(both.parameters(), 5.0)
            optimizer.step()
            average.update_parameters(both)
            total += loss.item()
        took = time.time() - start
        line = f"epoch {epoch} loss {total / steps:.3f} {took:.0f} s, {time_left(took, epochs - epoch - 1)}"
        if validation is not None and ((epoch + 1) % every == 0 or epoch + 1 == epochs):
            figures = measure(*average.module.eval(), validation)
            line += f" validation { {k: [round(x, 3) for x in v] for k, v in figures.items()} }"
        print(line, flush=True)
        state = {"model": both.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "epoch": epoch}, folder / "writing.pt")
        (folder / "writing.pt").rename(newest)
    return average.module.eval()


def load(folder):
    """(encoder, heads) of the newest checkpoint in `folder`, with averaged weights."""
    average = torch.optim.swa_utils.AveragedModel(nn.ModuleList([VoiceEncoder(), Heads()]), use_buffers=True)
    average.load_state_dict(torch.load(folder / "newest.pt")["average"])
    return average.module.eval()


# ---- export and evaluation ------------------------------------------------------------------------------------------


def calibration_feeds(corpora, utterances, count=400):
    """Feeds to calibrate the quantizer: training windows, half of them augmented."""
    generator = torch.Generator().manual_seed(5)
    sampler = WindowSampler(corpora, utterances, generator)
    rows = torch.randperm(len(sampler.utterances), generator=generator)[:count]
    powers, _, _ = sampler.batch(rows)
    augmented = torch.cat([powers[: count // 2], voices.augment(powers[count // 2 :], generator)])
    return [{"log_mel": window[None].contiguous().numpy()} for window in network_input(augmented)]


def export(corpora, utterances, encoder, f32, int8):
    """Write both graphs; training windows calibrate the int8 one."""
    encoder = encoder.to(memory_format=torch.contiguous_format)
    export_module(encoder, f32, {"log_mel": torch.zeros(1, 1, LOG_MEL.bands, LOG_MEL.frames)}, ["embedding"])
    feeds = calibration_feeds(corpora, utterances)
    quantize(f32, int8, feeds)
    print("int8 against f32:", compare_graphs(f32, int8, feeds[:100]), flush=True)


def measure_all(encode, encoder, heads, corpora, final, command):
    """Figures of the int8 encoder `encode` for the manifest; the f32 `encoder` is measured and printed beside it.

    The test splits are measured only if `final`.
    """
    figures = []
    splits = {VALIDATION: ("ravdess", "validation")}
    splits |= {name: (corpus, "validation") for name, corpus in VALIDATION_OF_OTHERS.items()}
    if final:
        splits["RAVDESS test, actors 22-24"] = ("ravdess", "test")
        splits["nEMO test, speakers MK0 and TP0"] = ("nemo", "test")

    def add(name, values, split):
        for dimension, value in zip(("valence", "arousal"), values, strict=True):
            if math.isnan(value):  # BAVED has no valence
                continue
            figures.append(
                {
                    "name": f"CCC {dimension}, {name}",
                    "value": round(value, 3),
                    "split": split,
                    "command": command,
                }
            )

    for split, selection in splits.items():
        windows = MeasuredWindows(corpora, corpora.select(*selection))
        for kind, values in measure(encode, heads, windows).items():
            add(f"per {kind}, linear readout", values, split)
        exact = measure(encoder, heads, windows)
        print(split, "int8", measure(encode, heads, windows), "f32", exact, flush=True)
    windows = MeasuredWindows(corpora, corpora.select("ravdess", "validation"))
    for name, change in disturbances().items():
        values = measure(encode, heads, windows, change)["utterance"]
        print(name, "int8", [round(value, 3) for value in values], flush=True)
        add(f"per utterance, linear readout, {name}", values, VALIDATION)
    return figures


def export_and_register(corpora, utterances, encoder, heads, options):
    """Write the f32 and the int8 graph, measure the int8 one, and register it."""
    f32, int8 = (options.out / f"{NAME}.{form}.onnx" for form in ("f32", "int8"))
    export(corpora, utterances, encoder, f32, int8)
    command = arguments.figure_command(__spec__.name, "--from")
    figures = measure_all(quantized_voice_encoder(int8), encoder, heads, corpora, not options.export_now, command)
    inputs, outputs = shapes(f32)
    entry = {
        "version": "0.3.0",
        "inputs": inputs,
        "outputs": outputs,
        "preprocessing": dataclasses.asdict(LOG_MEL),
        "macs": macs(),
        "licence": "research only: trained on RAVDESS, nEMO and emotiontts (CC BY-NC-SA 4.0), ASED and BAVED (no licence "
        "stated, not for commercial use), Javanese voices (MIT) and EmoGator (Apache-2.0)",
        "source": "affectd's own, trained from random weights on RAVDESS actors 02-18 and on speakers of Polish, Javanese, "
        "Amharic, Korean and Arabic, and vocal bursts",
        "figures": figures,
    }
    manifest.register(options.out, NAME, entry)


def main():
    parser = arguments.parser(__doc__)
    arguments.add_data(parser)
    arguments.add_work(parser)
    arguments.add_out(parser)
    parser.add_argument("--epochs", type=int, default=60, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate; default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--from", type=Path, dest="start_from", metavar="FILE", help="checkpoint to start from")
    parser.add_argument("--frozen", type=int, default=0, help="how many first layers keep the weights of --from")
    parser.add_argument("--export-now", action="store_true", help="export the newest checkpoint without more training")
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    corpora = Corpora(options.data, options.work)
    utterances = corpora.training()
    validation = MeasuredWindows(corpora, corpora.select("ravdess", "validation"))
    folder = options.work / NAME
    if not options.export_now:
        schedule = options.epochs, options.batch, options.rate, options.seed
        train(corpora, utterances, validation, folder, *schedule, options.start_from, options.frozen)
    encoder, heads = load(folder)
    export_and_register(corpora, utterances, encoder, heads, options)


if __name__ == "__main__":
    arguments.run(main)
