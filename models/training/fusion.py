"""Train the fusion: 8 steps of face features and voice embeddings -> valence, arousal and the log variance of each.

    python models/training/fusion.py --data DIR --work DIR [--head NAME]

Needs the voice encoder's newest checkpoint in --work, and its int8 graph and the face graphs in the bundle. Training
speakers are heard through out-of-fold students (out_of_fold.py), everyone else through the int8 graph that ships. Faces
are posteriors of another network, in training translated to ours (recorded_clips.py). Trains a few networks that
differ by their random seed, keeps the one that is best on the validation actors, calibrates its variances there, exports
and registers it. compare_heads.py trains the alternatives to the head.
"""

import argparse
import math
import pickle
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import bundle
import fusion_windows
import non_voice
import out_of_fold
import quantize
import recorded_clips
import risk_coverage
import static_export
import steady
import stills
import voice_encoder
import voice_projection
from fusion_heads import HEADS
from joint_cross_attention import FACE, STEPS, VOICE
from speech_corpora import Corpora
from voice_encoder import ccc

PASSES = 4  # one clean and three augmented hearings of each training performance
NEMO_EVERY = 3  # every third nEMO utterance: voices without faces are a quarter of the windows
EMBEDDING_NOISE = 0.05  # of a channel's deviation: what int8 and a student's imitation leave uncertain
LOG_VARIANCE = (-6.0, 1.0)
FEWEST = 8  # windows that a CCC is taken of
SQUARED, LIKELIHOOD = 0.5, 0.3  # weights of the squared error and of the likelihood
ALONE = 0.75  # weight of either modality alone, of both together 1
DIMENSIONS = ("valence", "arousal")
VALIDATION = "RAVDESS validation, actors 19-21"
TEST = "RAVDESS test, actors 22-24"
TRANSLATED = ", face posteriors translated to affectd's"
ACTOR_01 = "RAVDESS actor 01, all four graphs; its faces, not its labels, served to fit the translation"
THIN = 4  # while training, every so many validation ticks are measured
SOURCES = {
    "joint cross-attention": "the joint cross-attention of Praveen et al. 2022 (arXiv 2203.14779)",
    "cross-attention": "dot-product cross-attention",
    "concatenation, 8 steps": "both modalities' features side by side over eight steps",
    "concatenation, newest step": "both modalities' features side by side",
}
CONDITIONS = {"face and voice": (), "face only": (1,), "voice only": (0,)}


def alone_too(face, voice, mask, target):
    """The batch, and once more what of it has both modalities: with its faces alone, then with its voices alone.

    What the two say together they learn from all of the windows; that either alone says as much as a network of its own would,
    they only learn if they are asked as often as that one is.
    """
    both = (mask.flatten(2).amax(2) > 0).all(1)
    parts = [(face, voice, mask)] + [without((face[both], voice[both], mask[both]), (m,)) for m in (1, 0)]
    return *(torch.cat(part) for part in zip(*parts)), torch.cat([target, target[both], target[both]])


def loss_of(affect, log_variance, target, mask):
    """1 - CCC, both dimensions summed, a little squared error, and the Gaussian likelihood of the errors, which trains the
    variance alone; of windows with both modalities, with a face alone and with a voice alone, apart.

    One CCC over all of them would shrink what either modality alone says, as a squared error does, for the sake of the rest.
    """
    affect, log_variance = affect.flatten(1), log_variance.flatten(1).clamp(*LOG_VARIANCE)
    error = (affect - target).square()
    likelihood = 0.5 * (log_variance + error.detach() * torch.exp(-log_variance))
    each = (SQUARED * error + LIKELIHOOD * likelihood).mean(1)
    face, voice = (mask[:, m].flatten(1).amax(1) > 0 for m in range(2))
    total, weights = 0.0, 0.0
    for rows, weight in ((face & voice, 1.0), (face & ~voice, ALONE), (~face & voice, ALONE)):
        if rows.sum() >= FEWEST:
            total = total + weight * ((1 - ccc(affect[rows], target[rows])).sum() + each[rows].mean())
            weights += weight
    return total / weights


def without(batch, modalities):
    """(face, voice, mask) with whole modalities absent."""
    face, voice, mask = (part.clone() for part in batch)
    for modality in modalities:
        (face, voice)[modality].zero_()
        mask[:, modality] = 0
    return face, voice, mask


def clip_means(values, index):
    return torch.stack([values[index == i].mean(0) for i in index.unique()])


@torch.no_grad()
def measure(network, ticks):
    """{condition: {"tick", "clip" and "end": CCC [2], "variance": mean error over mean claimed}} at ticks with both modalities.

    "end" is of each clip's last tick, which knows all of the performance; most ticks know little yet.
    """
    *batch, target, index = ticks
    result, outputs = {}, {}
    for condition, dropped in CONDITIONS.items():
        affect, log_variance = (part.flatten(1) for part in network(*without(batch, dropped)))
        outputs[condition] = affect, log_variance.clamp(*LOG_VARIANCE).exp()
        result[condition] = figures(affect, target, index)
        claimed = outputs[condition][1].mean(0)
        result[condition]["variance"] = ((affect - target).square().mean(0) / claimed).tolist()
    (face, face_variance), (voice, voice_variance) = outputs["face only"], outputs["voice only"]
    late = (face / face_variance + voice / voice_variance) / (1 / face_variance + 1 / voice_variance)
    result["late, inverse variance"] = figures(late, target, index)
    return result


def figures(affect, target, index):
    last = torch.stack([(index == i).nonzero().max() for i in index.unique()])
    return {
        "tick": ccc(affect, target).tolist(),
        "clip": ccc(clip_means(affect, index), clip_means(target, index)).tolist(),
        "end": ccc(affect[last], target[last]).tolist(),
    }


def score(result):
    """The mean CCC per tick, both modalities counting as much as the two alone."""
    both, face, voice = (sum(result[c]["tick"]) / 2 for c in CONDITIONS)
    return 0.5 * both + 0.25 * face + 0.25 * voice


def report(label, result):
    parts = [
        f"{condition}: " + " ".join(f"{kind} {values[0]:.3f}/{values[1]:.3f}" for kind, values in kinds.items())
        for condition, kinds in result.items()
    ]
    print(label, "; ".join(parts), flush=True)


def thinned(ticks):
    return tuple(part[::THIN] for part in ticks)


def train(head, items, windows, validation, readout, options, seed):
    """Train one network of `head`; returns (score, network) with averaged weights at the end of the schedule.

    `validation` is {name: ticks}; the score is the last one's, of faces as our encoder reads them. `readout` [11, 64, 1, 1]
    are the voice encoder's heads.
    """
    torch.manual_seed(seed)
    windows.rng = np.random.default_rng(seed)
    network = HEADS[head]()
    if options.start_from:
        network.load_state_dict(torch.load(options.start_from))
    voice_projection.install(network, readout, trained=bool(options.start_from))
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.95)
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=0.05, fused=True)
    heard = np.concatenate([item.voice[0][item.voiced] for item in items])
    noise = torch.from_numpy(EMBEDDING_NOISE * heard.std(0))[None, :, None, None]
    start, network = time.process_time(), network.train()
    for step in range(options.steps):
        fall = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1.0, (step + 1) / 100) * fall
        face, voice, mask, target = windows.batch(options.batch)
        voice = voice + noise * torch.randn_like(voice) * mask[:, 1:]
        face, voice, mask, target = alone_too(face, voice, mask, target)
        loss = loss_of(*network(face, voice, mask), target, mask)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % 5 == 0:
            average.update_parameters(network)
    network = voice_projection.fold(average.module).eval()
    results = {name: measure(network, thinned(ticks)) for name, ticks in validation.items()}
    best = score(list(results.values())[-1])
    print(
        f"{head} seed {seed} loss {loss.item():.3f} {time.process_time() - start:.0f} CPU s score {best:.4f}",
        flush=True,
    )
    for name, result in results.items():
        report(f"    {name}:", result)
    return best, network


@torch.no_grad()
def calibrate(network, ticks):
    """Make the variances true on these ticks, each condition counting the same: log v' = a log v + b, by maximum
    likelihood, folded into the last layer. Returns {dimension: (a, b)}."""
    logs, errors = [], []
    *batch, target, _ = ticks
    for dropped in CONDITIONS.values():
        affect, log_variance = (part.flatten(1) for part in network(*without(batch, dropped)))
        logs.append(log_variance)
        errors.append((affect - target).square())
    logs, errors = torch.cat(logs), torch.cat(errors)
    layer = next(module for name, module in network.named_modules() if name.endswith("log_variance"))
    fitted = {}
    for k, dimension in enumerate(DIMENSIONS):
        slope, shift = fit_likelihood(logs[:, k], errors[:, k])
        layer.weight[k] *= slope
        layer.bias[k] = slope * layer.bias[k] + shift
        fitted[dimension] = slope, shift
    return fitted


def fit_likelihood(logs, errors):
    """The a >= 0 and b of the greatest Gaussian likelihood of `errors` (squared) under log variance a * logs + b."""
    best = (math.inf, 1.0, 0.0)
    for slope in np.arange(0.0, 4.01, 0.05):
        shift = (errors * torch.exp(-slope * logs)).mean().log().item()  # the best b for this a, in closed form
        loss = (slope * logs).mean().item() + shift
        best = min(best, (loss, float(slope), shift))
    return best[1:]


def int8_network(path):
    """The quantized graph as a function like the network, window by window."""
    engine = quantize.session(path)

    def network(face, voice, mask):
        outputs = [
            engine.run(["affect", "log_variance"], {"face": f[None], "voice": v[None], "mask": m[None]})
            for f, v, m in zip(face.numpy(), voice.numpy(), mask.numpy())
        ]
        return [torch.from_numpy(np.concatenate(part)) for part in zip(*outputs)]

    return network


def export(network, windows, f32, int8):
    """Write both graphs; ranges from training windows."""
    example = {
        "face": torch.zeros(1, FACE, 1, STEPS),
        "voice": torch.zeros(1, VOICE, 1, STEPS),
        "mask": torch.zeros(1, 2, 1, STEPS),
    }
    static_export.export(network, f32, example, ["affect", "log_variance"])
    face, voice, mask, _ = windows.batch(600)
    feeds = [
        {"face": f[None], "voice": v[None], "mask": m[None]}
        for f, v, m in zip(face.numpy(), voice.numpy(), mask.numpy())
    ]
    quantize.quantize(f32, int8, feeds)
    print("int8 against f32:", quantize.compare(f32, int8, feeds[:200]), flush=True)


def figures_of(results, command):
    """The manifest's figures from {split: measure()}."""
    entries = []
    for split, result in results.items():
        for condition, kinds in result.items():
            for kind in ("tick", "clip"):
                for dimension, value in zip(DIMENSIONS, kinds[kind]):
                    name = f"CCC {dimension}, {condition}, per {kind}"
                    entries.append({"name": name, "value": round(value, 3), "split": split, "command": command})
            for dimension, value in zip(DIMENSIONS, kinds.get("variance", ())):
                name = f"squared error over claimed variance, {dimension}, {condition}"
                entries.append({"name": name, "value": round(value, 2), "split": split, "command": command})
    return entries


def register(f32, head, prior_variance, figures):
    inputs, outputs = static_export.shapes(f32)
    entry = {
        "version": "0.2.0",
        "head": head,
        "inputs": inputs,
        "outputs": outputs,
        "preprocessing": {
            "steps": STEPS,
            "step_s": fusion_windows.STEP_S,
            "tick_hz": fusion_windows.TICK_HZ,
            "prior_variance": [round(float(v), 4) for v in prior_variance],
        },
        "macs": quantize.macs(f32),
        "licence": "research only: trained on RAVDESS and nEMO (CC BY-NC-SA 4.0)",
        "source": f"affectd's own: {SOURCES[head]}, trained from nothing on RAVDESS actors 02-18, whose faces another network "
        "had read, and the voices of seven nEMO speakers",
        "figures": figures,
    }
    bundle.register("fusion", entry)


def learned_performances(corpora, options):
    """The training performances with out-of-fold embeddings; what went into them is kept in --work for the same encoder."""
    folder = options.work / f"heard_by_{voice_key()}"
    folder.mkdir(parents=True, exist_ok=True)
    teacher, _ = voice_encoder.load(options.work / "voice_encoder")
    ravdess, nemo = corpora.select("ravdess", "train"), corpora.select("nemo", "train")
    utterances = ravdess + nemo[::NEMO_EVERY]

    def heard(by, encode_of, passes):
        return kept(
            folder / f"{by}.pickle",
            lambda: fusion_windows.performances(corpora, options.data, utterances, encode_of, passes),
        )

    if options.heard:
        by_students = pickle.loads((options.heard / "students.pickle").read_bytes())
    else:
        students = out_of_fold.students(teacher, corpora, ravdess + nemo, folder, options.student_epochs)
        by_students = heard("students", lambda u: students[out_of_fold.fold_of(u)], PASSES)
    by_teacher = heard("teacher", lambda u: teacher, 1)
    if options.heard:
        by_students = out_of_fold.translated(by_students, by_teacher)
    return out_of_fold.matched(by_students, by_teacher)


class Unseen:
    """What a fusion is measured with: people whom nobody was trained on, through the encoders in the bundle."""

    def __init__(self, options):
        self.options, self.corpora, self.actors = options, Corpora(options.data, options.work), {}
        self.shipped = voice_encoder.int8_encoder(bundle.MODELS / "voice_encoder.int8.onnx")
        self.faces = recorded_clips.read_all(options.data, options.work)
        self.translation = recorded_clips.translation(options.data, self.faces["actor01"])
        self.validation = self.ticks("validation", VALIDATION)

    def ticks(self, split, name):
        unseen = kept(
            self.options.work / f"unseen_{split}_{voice_key()}.pickle",
            lambda: fusion_windows.performances(
                self.corpora, self.options.data, self.corpora.select("ravdess", split), lambda u: self.shipped, 1
            ),
        )
        self.actors[name] = self.actors[name + TRANSLATED] = np.array([item.utterance.speaker for item in unseen])
        return {
            name: fusion_windows.ticks(unseen),
            name + TRANSLATED: fusion_windows.ticks(unseen, change=self.translation.fully),
        }

    def heard_garbage(self):
        """Embeddings [n, 64] of sounds that are no voice and that no training window held."""
        return self.shipped(non_voice.inputs(200, seed=31)).flatten(1).numpy()

    def clips(self, which):
        """Ticks of recorded clips ("actor01" or "grid"), through all four graphs."""
        heard = recorded_clips.performances(self.corpora, self.faces[which], self.shipped)
        return fusion_windows.ticks(heard, rate_hz=None)


class Material(Unseen):
    """What all heads are trained with, too."""

    def __init__(self, options):
        super().__init__(options)
        self.items = learned_performances(self.corpora, options)
        self.readout = voice_projection.readout_of(voice_encoder.load(options.work / "voice_encoder")[1])
        self.garbage = self.shipped(non_voice.inputs(600)).flatten(1).numpy()
        self.windows = fusion_windows.TrainingWindows(
            self.items,
            self.translation,
            self.garbage,
            stills.read(options.data),
            seed=0,
            count=options.windows,
            still_share=options.stills,
            neutral_weight=options.neutral,
            resting=options.resting,
        )


def voice_key():
    return bundle.sha256(bundle.MODELS / "voice_encoder.f32.onnx")[:12]


def kept(path, make):
    """What `make` gives, made once."""
    if not path.exists():
        path.write_bytes(pickle.dumps(make()))
    return pickle.loads(path.read_bytes())


def measure_everywhere(int8, unseen, exact=None):
    """The manifest's figures of an int8 network; `exact`, the f32 one, is measured and printed beside it."""
    command = "python models/training/fusion.py --data DIR --work DIR --measure"
    splits = unseen.validation | unseen.ticks("test", TEST) | {ACTOR_01: unseen.clips("actor01")}
    results = {split: measure(int8, data) for split, data in splits.items()}
    for split, result in results.items():
        report(f"int8, {split}:", result)
        if exact is not None:
            report(f"f32, {split}:", measure(exact, splits[split]))
    figures = figures_of(results, command)
    figures += steady.figures(int8, unseen, splits[VALIDATION + TRANSLATED], command)
    return figures + risk_coverage.draw(
        int8, splits[TEST + TRANSLATED], bundle.MODELS / "risk_coverage.svg", TEST + TRANSLATED, command
    )


def finish(material, network, head):
    """Calibrate, export, quantize, measure the int8 graph everywhere, and register it."""
    print(
        "calibration, log variance times and plus:",
        calibrate(network, material.validation[VALIDATION + TRANSLATED]),
        flush=True,
    )
    f32, path = (bundle.MODELS / f"fusion.{kind}.onnx" for kind in ("f32", "int8"))
    export(network, material.windows, f32, path)
    figures = measure_everywhere(int8_network(path), material, network)
    register(f32, head, material.windows.target_variance(), figures)


def arguments(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument("--work", type=Path, required=True, help="caches and checkpoints")
    parser.add_argument("--heard", type=Path, help="a folder with the student embeddings of an earlier voice encoder")
    parser.add_argument("--student-epochs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--windows", type=int, default=60_000, help="how many different training windows")
    parser.add_argument(
        "--neutral", type=float, default=4.0, help="how much more often than others neutral ones are drawn"
    )
    parser.add_argument(
        "--resting", type=float, default=1.2, help="bias of neutral faces between expressions, in log posteriors"
    )
    parser.add_argument("--stills", type=float, default=0.12, help="the share of windows that hold a photograph")
    parser.add_argument("--from", type=Path, dest="start_from", help="a trained fusion's weights to begin with")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=1)
    return parser


def main():
    parser = arguments(__doc__)
    parser.add_argument("--head", choices=SOURCES, default="joint cross-attention")
    parser.add_argument("--measure", action="store_true", help="only measure the int8 graph in the bundle again")
    options = parser.parse_args()
    if options.measure:
        return measure_everywhere(int8_network(bundle.MODELS / "fusion.int8.onnx"), Unseen(options))

    material = Material(options)
    runs = [
        train(options.head, material.items, material.windows, material.validation, material.readout, options, seed)
        for seed in range(1, options.seeds + 1)
    ]
    _, network = max(runs, key=lambda run: run[0])
    torch.save(network.state_dict(), options.work / "fusion.pt")
    finish(material, network, options.head)


if __name__ == "__main__":
    main()
