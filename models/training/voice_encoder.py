"""Train the voice encoder: log-mel window [1, 1, 64, 96] -> embedding [1, 64, 1, 1].

    python models/training/voice_encoder.py --data DIR --work DIR [--from CHECKPOINT] [--export-now]

A plain strided convolution net. While it trains, two heads read the embedding: valence and arousal, and the acted
emotion, or that it is no voice at all; they are not exported. Every epoch is checkpointed in --work, and a second run goes on from the newest one. With all
epochs done it exports, quantizes, measures and registers; --export-now does that with the newest checkpoint. --from begins with the
weights of an earlier run, to go on under another augmentation at a lower --rate.
"""

import argparse
import math
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

import bundle
import log_mel
import mel_augment
import non_voice
import quantize
import speech_corpora
import static_export
from speech_corpora import CLASSES, Corpora

EMBEDDING = 64
# (input channels, output channels, kernel, stride, padding) from [1, 64, 96] down to [128, 1, 6].
LAYERS = [
    (1, 16, (3, 3), (2, 2), (1, 1)),
    (16, 32, (3, 3), (2, 2), (1, 1)),
    (32, 64, (3, 3), (2, 2), (1, 1)),
    (64, 80, (3, 3), (2, 2), (1, 1)),
    (80, 96, (3, 3), (2, 1), (1, 1)),
    (96, 128, (2, 1), (1, 1), (0, 0)),
]
DROPOUT = 0.2
WINDOWS = {"ravdess": 4, "nemo": 1}  # training windows per utterance and epoch
NON_VOICE = 2  # windows without a voice that come with each batch
STEP = int(0.1 * log_mel.RATE_HZ)


def sizes():
    """(height, width) of what each layer puts out."""
    height, width, result = log_mel.BANDS, log_mel.FRAMES, []
    for _, _, kernel, stride, padding in LAYERS:
        height = (height + 2 * padding[0] - kernel[0]) // stride[0] + 1
        width = (width + 2 * padding[1] - kernel[1]) // stride[1] + 1
        result.append((height, width))
    return result


class VoiceEncoder(nn.Module):
    """[n, 1, 64, 96] -> embedding [n, 64, 1, 1], never negative."""

    def __init__(self):
        super().__init__()
        layers = []
        for inputs, outputs, kernel, stride, padding in LAYERS:
            layers += [
                nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.convolutions = nn.Sequential(*layers)
        _, frames = sizes()[-1]
        self.mean = nn.AvgPool2d((1, frames))
        self.max = nn.MaxPool2d((1, frames))
        self.dropout = nn.Dropout(DROPOUT)
        self.embedding = nn.Conv2d(2 * LAYERS[-1][1], EMBEDDING, 1)

    def forward(self, window):
        x = self.convolutions(window)
        pooled = torch.cat([self.mean(x), self.max(x)], dim=1)
        return torch.relu(self.embedding(self.dropout(pooled)))


class Heads(nn.Module):
    """embedding [n, 64, 1, 1] -> (valence and arousal [n, 2], emotion logits [n, 9]); for training only. The ninth is no voice."""

    def __init__(self):
        super().__init__()
        self.affect = nn.Linear(EMBEDDING, 2)
        self.emotion = nn.Linear(EMBEDDING, len(CLASSES) + 1)

    def forward(self, embedding):
        flat = embedding.flatten(1)
        return self.affect(flat), self.emotion(flat)


def ccc(prediction, target):
    """Lin's concordance correlation of each column, [n, k], [n, k] -> [k]; population moments."""
    mean_p, mean_t = prediction.mean(0), target.mean(0)
    covariance = ((prediction - mean_p) * (target - mean_t)).mean(0)
    spread = prediction.var(0, unbiased=False) + target.var(0, unbiased=False)
    return 2 * covariance / (spread + (mean_p - mean_t).square() + 1e-8)


class WindowSampler:
    """Random windows with voice, and their targets, out of a list of utterances."""

    def __init__(self, corpora, utterances, generator):
        self.corpora, self.generator = corpora, generator
        self.utterances, self.ends, self.targets, self.emotions = [], [], [], []
        for utterance in utterances:
            ends = np.arange(speech_corpora.LEAST_AUDIO, utterance.samples + 3 * STEP, STEP)
            ends = ends[corpora.voice_present(utterance, ends)]
            if len(ends):
                self.utterances.append(utterance)
                self.ends.append(ends)
                self.targets.append(corpora.target(utterance))
                self.emotions.append(CLASSES.index(utterance.emotion))
        self.targets = torch.tensor(self.targets, dtype=torch.float32)
        self.emotions = torch.tensor(self.emotions)

    def steps(self, batch):
        return sum(WINDOWS[u.corpus] for u in self.utterances) // batch

    def epoch(self, batch):
        """Batches of (powers [n, BANDS, FRAMES], targets [n, 2], emotion [n]); every utterance WINDOWS times."""
        rows = [row for row, u in enumerate(self.utterances) for _ in range(WINDOWS[u.corpus])]
        order = torch.tensor(rows)[torch.randperm(len(rows), generator=self.generator)]
        for part in order.split(batch):
            if len(part) < batch:
                break
            yield self.batch(part)

    def batch(self, rows):
        pick = torch.rand(len(rows), generator=self.generator)
        jitter = torch.randint(0, STEP, (len(rows),), generator=self.generator)
        ends = [int(self.ends[r][int(p * len(self.ends[r]))] + j) for r, p, j in zip(rows, pick, jitter)]
        powers = self.corpora.window_powers([self.utterances[r] for r in rows], ends)
        return powers, self.targets[rows], self.emotions[rows]


def batch_input(powers):
    """Powers [n, BANDS, FRAMES] -> what the network reads, [n, 1, BANDS, FRAMES]."""
    windows = log_mel.normalize(log_mel.log_power(powers))[:, None]
    return windows.contiguous(memory_format=torch.channels_last)  # half as fast again on a CPU


def loss_of(heads, embedding, target, emotion):
    """1 - CCC for both dimensions, a little squared error that holds the scale, and the emotion's cross-entropy.

    `target` may be shorter than the batch: what comes after it is no voice.
    """
    affect, logits = heads(embedding)
    affect = affect[: len(target)]
    concordance = (1 - ccc(affect, target)).sum()
    emotion = nn.functional.pad(emotion, (0, len(embedding) - len(target)), value=len(CLASSES))
    return (
        concordance
        + (affect - target).square().mean()
        + 0.5 * nn.functional.cross_entropy(logits, emotion, label_smoothing=0.1)
    )


class Windows:
    """Every voiced window of some utterances at a fixed step, for measuring: powers on demand, targets, utterance index."""

    def __init__(self, corpora, utterances, step_s=0.4):
        self.corpora = corpora
        step = int(step_s * log_mel.RATE_HZ)
        self.rows = []
        for index, utterance in enumerate(utterances):
            ends = np.arange(step, utterance.samples + 1, step)
            self.rows += [(index, utterance, int(e)) for e in ends[corpora.voice_present(utterance, ends)]]
        self.index = torch.tensor([row[0] for row in self.rows])
        self.target = torch.tensor([corpora.target(row[1]) for row in self.rows], dtype=torch.float32)

    def inputs(self, change=None, batch=256):
        for start in range(0, len(self.rows), batch):
            part = self.rows[start : start + batch]
            powers = self.corpora.window_powers([row[1] for row in part], [row[2] for row in part])
            yield batch_input(change(powers) if change else powers)

    def figures(self, prediction):
        """CCC over windows, and over utterances by the mean of their windows: {"window": [2], "utterance": [2]}."""
        names = self.index.unique()
        mean_p = torch.stack([prediction[self.index == i].mean(0) for i in names])
        mean_t = torch.stack([self.target[self.index == i].mean(0) for i in names])
        return {"window": ccc(prediction, self.target).tolist(), "utterance": ccc(mean_p, mean_t).tolist()}


@torch.no_grad()
def measure(encode, heads, windows, change=None):
    """CCC of the training heads on the embeddings that `encode` gives for all `windows`, their powers changed by `change`."""
    return windows.figures(torch.cat([heads(encode(x))[0] for x in windows.inputs(change)]))


def hardships():
    """What a cheap microphone adds, {name: function of powers}."""
    generator = torch.Generator().manual_seed(9)
    changes = {f"gain {db:+} dB": partial(torch.mul, other=mel_augment.decibels(db)) for db in (-20, -10, 10, 20)}
    changes["noise 10 dB under"] = partial(mel_augment.noise, generator=generator, under=(10.0, 10.0))
    changes["telephone band"] = partial(
        mel_augment.roll_off, low=mel_augment.TELEPHONE[0], high=mel_augment.TELEPHONE[1]
    )
    changes["reverberation"] = partial(mel_augment.reverberate, generator=generator)
    return changes


def train(corpora, utterances, validation, folder, epochs, batch, rate, seed, start_from=None, frozen=0, every=4):
    """Train (or go on training) in `folder`; returns the encoder and heads with the averaged weights of the newest epoch.

    The first `frozen` layers keep the weights and norms of `start_from`. Without `validation` nothing is measured meanwhile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    encoder, heads = VoiceEncoder().to(memory_format=torch.channels_last), Heads()
    both = nn.ModuleList([encoder, heads])
    average = torch.optim.swa_utils.AveragedModel(
        both, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    others = non_voice.bank(corpora.work)
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
            silent = others[torch.randint(len(others), (NON_VOICE,), generator=generator)]
            heard = mel_augment.augment(torch.cat([powers, silent]), generator)
            loss = loss_of(heads, encoder(batch_input(heard)), target, emotion)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(both.parameters(), 5.0)
            optimizer.step()
            average.update_parameters(both)
            total += loss.item()
        line = f"epoch {epoch} loss {total / steps:.3f} {time.time() - start:.0f} s"
        if validation is not None and ((epoch + 1) % every == 0 or epoch + 1 == epochs):
            figures = measure(*average.module.eval(), validation)
            line += f" validation { {k: [round(x, 3) for x in v] for k, v in figures.items()} }"
        print(line, flush=True)
        state = {"model": both.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "epoch": epoch}, folder / "writing.pt")
        (folder / "writing.pt").rename(newest)
    return average.module.eval()


def load(folder):
    """(encoder, heads) of the newest checkpoint, averaged weights."""
    average = torch.optim.swa_utils.AveragedModel(nn.ModuleList([VoiceEncoder(), Heads()]), use_buffers=True)
    average.load_state_dict(torch.load(folder / "newest.pt")["average"])
    return average.module.eval()


def macs():
    """Multiply-accumulates of one inference."""
    layers = zip(LAYERS, sizes(), strict=True)
    total = sum(i * o * k[0] * k[1] * height * width for (i, o, k, _, _), (height, width) in layers)
    return total + 2 * LAYERS[-1][1] * EMBEDDING


def int8_encoder(path):
    """The quantized graph as a function of windows [n, 1, 64, 96] -> [n, 64, 1, 1], as affectd calls it: one by one."""
    engine = quantize.session(path)

    def encode(windows):
        feeds = windows.contiguous().numpy()
        return torch.from_numpy(np.concatenate([engine.run(None, {"log_mel": feed[None]})[0] for feed in feeds]))

    return encode


def calibration(corpora, utterances, count=400):
    """Feeds for the quantizer: training windows, half of them augmented."""
    generator = torch.Generator().manual_seed(5)
    sampler = WindowSampler(corpora, utterances, generator)
    rows = torch.randperm(len(sampler.utterances), generator=generator)[:count]
    powers, _, _ = sampler.batch(rows)
    heard = torch.cat([powers[: count // 2], mel_augment.augment(powers[count // 2 :], generator)])
    return [{"log_mel": window[None].contiguous().numpy()} for window in batch_input(heard)]


def export(corpora, utterances, encoder, f32, int8):
    """Write both graphs, the ranges of the second from training windows."""
    encoder = encoder.to(memory_format=torch.contiguous_format)
    static_export.export(encoder, f32, {"log_mel": torch.zeros(1, 1, log_mel.BANDS, log_mel.FRAMES)}, ["embedding"])
    feeds = calibration(corpora, utterances)
    quantize.quantize(f32, int8, feeds)
    print("int8 against f32:", quantize.compare(f32, int8, feeds[:100]), flush=True)


def export_and_register(corpora, utterances, encoder, heads, final):
    """Write f32 and int8 graphs, measure the int8 one (on the test splits only if it is final), and register it."""
    f32, int8 = (bundle.MODELS / f"voice_encoder.{kind}.onnx" for kind in ("f32", "int8"))
    export(corpora, utterances, encoder, f32, int8)

    command = bundle.command()
    encode, figures = int8_encoder(int8), []
    splits = {"RAVDESS validation, actors 19-21": ("ravdess", "validation")}
    if final:
        splits["RAVDESS test, actors 22-24"] = ("ravdess", "test")
        splits["nEMO test, speakers MK0 and TP0"] = ("nemo", "test")
    for split, (corpus, part) in splits.items():
        windows = Windows(corpora, corpora.select(corpus, part))
        for kind, values in measure(encode, heads, windows).items():
            for dimension, value in zip(("valence", "arousal"), values):
                name = f"CCC {dimension}, per {kind}, linear readout"
                figures.append({"name": name, "value": round(value, 3), "split": split, "command": command})
        exact = measure(encoder, heads, windows)
        print(split, "int8", [f["value"] for f in figures[-4:]], "f32", exact, flush=True)
    windows = Windows(corpora, corpora.select("ravdess", "validation"))
    for hardship, change in hardships().items():
        values = measure(encode, heads, windows, change)["utterance"]
        print(hardship, "int8", [round(value, 3) for value in values], flush=True)
        for dimension, value in zip(("valence", "arousal"), values):
            name = f"CCC {dimension}, per utterance, linear readout, {hardship}"
            split = "RAVDESS validation, actors 19-21"
            figures.append({"name": name, "value": round(value, 3), "split": split, "command": command})
    inputs, outputs = static_export.shapes(f32)
    entry = {
        "version": "0.2.0",
        "inputs": inputs,
        "outputs": outputs,
        "preprocessing": log_mel.PREPROCESSING,
        "macs": macs(),
        "licence": "research only: trained on RAVDESS and nEMO (CC BY-NC-SA 4.0)",
        "source": "affectd's own, trained from nothing on RAVDESS actors 02-18 and seven nEMO speakers",
        "figures": figures,
    }
    bundle.register("voice_encoder", entry)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument("--work", type=Path, required=True, help="caches and checkpoints")
    parser.add_argument("--epochs", type=int, default=66)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", type=Path, dest="start_from", help="a checkpoint whose weights to begin with")
    parser.add_argument("--frozen", type=int, default=0, help="how many of its first layers stay as they are")
    parser.add_argument("--export-now", action="store_true", help="export the newest checkpoint instead of training")
    options = parser.parse_args()

    corpora = Corpora(options.data, options.work)
    utterances = corpora.select("ravdess", "train") + corpora.select("nemo", "train")
    validation = Windows(corpora, corpora.select("ravdess", "validation"))
    folder = options.work / "voice_encoder"
    if not options.export_now:
        schedule = options.epochs, options.batch, options.rate, options.seed
        train(corpora, utterances, validation, folder, *schedule, options.start_from, options.frozen)
    encoder, heads = load(folder)
    export_and_register(corpora, utterances, encoder, heads, not options.export_now)


if __name__ == "__main__":
    main()
