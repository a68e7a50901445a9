"""Train the fusion: 8 steps of face features and voice embeddings -> valence, arousal and the log variance of each.

    python models/training/fusion.py --data DIR --work DIR

Needs the voice encoder's newest checkpoint in --work, and its int8 graph and the face graphs in the bundle. Training
speakers are heard through out-of-fold students (out_of_fold.py), everyone else through the int8 graph that ships. Faces
are posteriors of another network, in training disturbed towards ours (recorded_clips.py). Trains a few networks that
differ by their random seed, keeps the one that is best on the validation actors, exports and registers it.
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
import joint_cross_attention
import out_of_fold
import quantize
import recorded_clips
import static_export
import voice_encoder
from joint_cross_attention import FACE, STEPS, VOICE, JointCrossAttention
from speech_corpora import Corpora
from voice_encoder import ccc

PASSES = 4  # one clean and three augmented hearings of each training performance
NEMO_EVERY = 3  # every third nEMO utterance: voices without faces are a quarter of the windows
EMBEDDING_NOISE = 0.05  # of a channel's deviation: what int8 and a student's imitation leave uncertain
LOG_VARIANCE = (-6.0, 1.0)
DIMENSIONS = ("valence", "arousal")
VALIDATION = "RAVDESS validation, actors 19-21"
TEST = "RAVDESS test, actors 22-24"
TRANSLATED = ", face posteriors translated to affectd's"
ACTOR_01 = "RAVDESS actor 01, all four graphs; its faces, not its labels, served to fit the translation"
CONDITIONS = {"face and voice": (), "face only": (1,), "voice only": (0,)}


def loss_of(affect, log_variance, target):
    """1 - CCC, a little squared error, and the Gaussian likelihood of the errors, which trains the variance alone."""
    affect, log_variance = affect.flatten(1), log_variance.flatten(1).clamp(*LOG_VARIANCE)
    error = (affect - target).square()
    likelihood = 0.5 * (log_variance + error.detach() * torch.exp(-log_variance)).mean()
    return (1 - ccc(affect, target)).sum() + error.mean() + 0.3 * likelihood


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
    """{condition: {"tick" and "clip": CCC [2], "variance": mean error over mean claimed}} at ticks with both modalities."""
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
    return {
        "tick": ccc(affect, target).tolist(),
        "clip": ccc(clip_means(affect, index), clip_means(target, index)).tolist(),
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


def train(items, windows, validation, steps, batch, rate, seed, every=500):
    """Train one network; returns (score, state) of the averaged weights at their best moment.

    `validation` is {name: ticks}; the best moment is that of the highest mean score over them.
    """
    torch.manual_seed(seed)
    network = JointCrossAttention()
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.05)
    heard = np.concatenate([item.voice[0][item.voiced] for item in items])
    noise = torch.from_numpy(EMBEDDING_NOISE * heard.std(0))[None, :, None, None]
    best, state, start = -1.0, None, time.time()
    for step in range(steps):
        network.train()
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        face, voice, mask, target = windows.batch(batch)
        voice = voice + noise * torch.randn_like(voice) * mask[:, 1:]
        loss = loss_of(*network(face, voice, mask), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
        if (step + 1) % every == 0:
            results = {name: measure(average.module.eval(), ticks) for name, ticks in validation.items()}
            mean = sum(score(result) for result in results.values()) / len(results)
            print(f"seed {seed} step {step + 1} loss {loss.item():.3f} {time.time() - start:.0f} s score {mean:.4f}", flush=True)
            for name, result in results.items():
                report(f"    {name}:", result)
            if mean > best:
                best, state = mean, {k: v.clone() for k, v in average.module.state_dict().items()}
    return best, state


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


def export(network, windows):
    """Write both graphs; calibrated on training windows."""
    f32, int8 = (bundle.MODELS / f"fusion.{kind}.onnx" for kind in ("f32", "int8"))
    example = {
        "face": torch.zeros(1, FACE, 1, STEPS),
        "voice": torch.zeros(1, VOICE, 1, STEPS),
        "mask": torch.zeros(1, 2, 1, STEPS),
    }
    static_export.export(network, f32, example, ["affect", "log_variance"])
    face, voice, mask, _ = windows.batch(600)
    feeds = [
        {"face": f[None], "voice": v[None], "mask": m[None]} for f, v, m in zip(face.numpy(), voice.numpy(), mask.numpy())
    ]
    quantize.quantize(f32, int8, feeds)
    print("int8 against f32:", quantize.compare(f32, int8, feeds[:200]), flush=True)
    return f32, int8


def register(f32, prior_variance, results):
    """`results` is {split: measure()} of the int8 graph."""
    command = "python models/training/fusion.py --data DIR --work DIR"
    entries = []
    for split, result in results.items():
        for condition, kinds in result.items():
            for kind in ("tick", "clip"):
                for dimension, value in zip(DIMENSIONS, kinds[kind]):
                    name = f"CCC {dimension}, {condition}, per {kind}"
                    entries.append({"name": name, "value": round(value, 3), "split": split, "command": command})
    inputs, outputs = static_export.shapes(f32)
    entry = {
        "version": "0.1.0",
        "inputs": inputs,
        "outputs": outputs,
        "preprocessing": {
            "steps": STEPS,
            "step_s": fusion_windows.STEP_S,
            "tick_hz": fusion_windows.TICK_HZ,
            "prior_variance": [round(float(v), 4) for v in prior_variance],
        },
        "macs": joint_cross_attention.macs(),
        "licence": "research only: trained on RAVDESS and nEMO (CC BY-NC-SA 4.0)",
        "source": "affectd's own: the joint cross-attention of Praveen et al. 2022 (arXiv 2203.14779), trained from nothing on "
        "RAVDESS actors 02-18, whose faces another network had read, and the voices of seven nEMO speakers",
        "figures": entries,
    }
    bundle.register("fusion", entry)


def learned_performances(corpora, options):
    """The training performances with out-of-fold embeddings; what went into them is kept in --work for the same encoder."""
    folder = options.work / f"heard_by_{bundle.sha256(bundle.MODELS / 'voice_encoder.f32.onnx')[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    teacher, _ = voice_encoder.load(options.work / "voice_encoder")
    ravdess, nemo = corpora.select("ravdess", "train"), corpora.select("nemo", "train")

    def heard(by, encode_of):
        kept = folder / f"{by}.pickle"
        if not kept.exists():
            utterances = ravdess + nemo[::NEMO_EVERY]
            items = fusion_windows.performances(corpora, options.data, utterances, encode_of, PASSES)
            kept.write_bytes(pickle.dumps(items))
        return pickle.loads(kept.read_bytes())

    students = out_of_fold.students(teacher, corpora, ravdess + nemo, folder, options.student_epochs)
    by_students = heard("students", lambda u: students[out_of_fold.fold_of(u)])
    return out_of_fold.matched(by_students, heard("teacher", lambda u: teacher))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument("--work", type=Path, required=True, help="caches and checkpoints")
    parser.add_argument("--student-epochs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--windows", type=int, default=20_000, help="how many different training windows")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()

    corpora = Corpora(options.data, options.work)
    items = learned_performances(corpora, options)
    faces = recorded_clips.read_all(options.data)
    translation = recorded_clips.translation(options.data, faces)
    shipped = voice_encoder.int8_encoder(bundle.MODELS / "voice_encoder.int8.onnx")

    def ticks(split, name):
        unseen = fusion_windows.performances(
            corpora, options.data, corpora.select("ravdess", split), lambda u: shipped, 1
        )
        return {
            name: fusion_windows.ticks(unseen),
            name + TRANSLATED: fusion_windows.ticks(unseen, change=translation.fully),
        }

    validation = ticks("validation", VALIDATION)
    windows = fusion_windows.TrainingWindows(items, translation, seed=0, count=options.windows)
    runs = [
        train(items, windows, validation, options.steps, options.batch, options.rate, seed)
        for seed in range(1, options.seeds + 1)
    ]
    best, state = max(runs, key=lambda run: run[0])
    network = JointCrossAttention()
    network.load_state_dict(state)
    torch.save(state, options.work / "fusion.pt")
    f32, int8 = export(network.eval(), windows)
    splits = dict(validation)
    splits |= ticks("test", TEST)
    clips = recorded_clips.performances(corpora, options.data, faces, shipped)
    splits[ACTOR_01] = fusion_windows.ticks(clips, rate_hz=None)
    results = {split: measure(int8_network(int8), data) for split, data in splits.items()}
    for split, result in results.items():
        report(f"int8, {split}:", result)
        report(f"f32, {split}:", measure(network, splits[split]))
    register(f32, windows.target_variance(), results)


if __name__ == "__main__":
    main()
