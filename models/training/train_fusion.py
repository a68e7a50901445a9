"""Trains the fusion: 8 steps of face features and voice embeddings -> valence, arousal and the log variance of each.

    python -m models.training.train_fusion --data DIR --work DIR --models DIR --out DIR [--head NAME]
    python -m models.training.train_fusion --data DIR --work DIR --measure

Inputs of the network: face [n, 42, 1, 8], voice [n, 64, 1, 8], mask [n, 2, 1, 8]. Outputs: affect and log variance,
[n, 2, 1, 1] each.

Needs the checkpoint of the voice encoder in --work, and the int8 voice encoder and the face graphs in --models. The voice
embeddings of training speakers come from students of the voice encoder that were trained without these speakers
(cross_fitting.py). Those of all other speakers come from the int8 graph. The faces of the Javanese clips and of actor 01 are
real; those of RAVDESS are translated from another network's posteriors (augmentation/face_scores.py).

Trains one network for each pair of Javanese speakers, without them: all that is said about strangers is measured on these. Then
it trains --seeds networks on everybody, takes the best one on the validation actors, calibrates its variances with the errors
on the speakers that were left out, writes fusion.f32.onnx, fusion.int8.onnx and risk_coverage.svg to --out, and registers the
graph there with its figures. `--measure` prints the figures of the fusion in --models instead.
"""

import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import arguments, cross_fitting, manifest
from .augmentation import non_voice
from .data.cache import cached
from .data.evaluation_sets import ACTOR_01, STRANGERS, TEST, VALIDATION, EvaluationSets, face_key, voice_encoder_key
from .data.fusion_windows import TrainingWindows, make_ticks
from .data.performances import make_performances
from .data.photographs import read_photographs
from .metrics import fusion_behaviour, risk_coverage, strangers
from .metrics.agreement import ccc
from .metrics.claimed_variance import LOG_VARIANCE, calibrated
from .metrics.fusion_accuracy import (
    manifest_figures,
    measure,
    report,
    score,
    without,
)
from .networks import voice_projection
from .networks.averaging import moving_average
from .networks.fusion_alternatives import HEADS
from .networks.joint_cross_attention import FACE, STEPS, VOICE
from .networks.quantized import quantized_fusion
from .onnx_graphs import compare_graphs, count_macs, shapes
from .preprocessing.fusion_features import STEP_S, TICK_HZ
from .progress import time_left
from .quantization.export import export_module
from .quantization.quantize import quantize
from .train_voice_encoder import load as load_voice_encoder

PASSES = 4  # embeddings of each training performance: one clean pass and three augmented ones
EVERY = {"ravdess": 1, "nemo": 3, "ased": 1, "emotiontts": 1, "emogator": 3}  # every so many utterances of a corpus
EMBEDDING_NOISE = 0.05  # in deviations of a channel: the uncertainty that int8 and the students leave
LEAST_WINDOWS = 8  # for a CCC in the loss
REPORT_STEPS = 100  # a line about the progress after so many
SQUARED_WEIGHT, LIKELIHOOD_WEIGHT = 0.5, 0.3
SINGLE_MODALITY_WEIGHT = 0.75  # weight of either modality alone in the loss; both together have 1
VALIDATION_STRIDE = 4  # while training, every fourth validation tick is measured
SOURCES = {
    "joint cross-attention": "the joint cross-attention of Praveen et al. 2022 (arXiv 2203.14779)",
    "cross-attention": "dot-product cross-attention",
    "concatenation, 8 steps": "both modalities' features side by side over eight steps",
    "concatenation, newest step": "both modalities' features side by side",
    "recurrent": "a gated recurrent network",
}


# ---- training -------------------------------------------------------------------------------------------------------


def add_single_modalities(face, voice, mask, target, face_teaches):
    """The batch, followed by its windows with both modalities once more with the face only and once more with the voice only.

    Either modality alone becomes as accurate as in a network of its own only if it is trained as often as in such a network.
    """
    both = (mask.flatten(2).amax(2) > 0).all(1)
    single = [without((face[both], voice[both], mask[both]), (m,)) for m in (1, 0)]
    parts = zip((face, voice, mask), *single, strict=True)
    batch = tuple(torch.cat(part) for part in parts)
    return *batch, *(torch.cat([column, column[both], column[both]]) for column in (target, face_teaches))


def loss_of(affect, log_variance, target, mask, face_teaches):
    """1 - CCC of both dimensions, plus squared error, plus the Gaussian likelihood of the errors, which trains the variance only.

    Windows with both modalities, with a face only and with a voice only have a loss each. One CCC over all of them would shrink
    the estimates from a single modality.
    """
    affect, log_variance = affect.flatten(1), log_variance.flatten(1).clamp(*LOG_VARIANCE)
    error = (affect - target).square()
    likelihood = 0.5 * (log_variance + error.detach() * torch.exp(-log_variance))
    each = (SQUARED_WEIGHT * error + LIKELIHOOD_WEIGHT * likelihood).mean(1)
    face, voice = (mask[:, m].flatten(1).amax(1) > 0 for m in range(2))
    total, weights = 0.0, 0.0
    for rows, weight in (
        (face & voice, 1.0),
        (face & ~voice & face_teaches, SINGLE_MODALITY_WEIGHT),
        (~face & voice, SINGLE_MODALITY_WEIGHT),
    ):
        if rows.sum() >= LEAST_WINDOWS:
            total = total + weight * ((1 - ccc(affect[rows], target[rows])).sum() + each[rows].mean())
            weights += weight
    return total / weights


def every_nth(ticks):
    """Every VALIDATION_STRIDE-th tick."""
    return tuple(part[::VALIDATION_STRIDE] for part in ticks)


def train(head, performances, windows, validation, readout, options, seed):
    """Train one network of `head`: (score, network), with averaged weights at the end of the schedule.

    `validation` is {name: ticks}. The score is that of the last entry, where the faces are mapped to our encoder. `readout`
    [11, 64, 1, 1] are the heads of the voice encoder.
    """
    torch.manual_seed(seed)
    windows.rng = np.random.default_rng(seed)
    network = HEADS[head]()
    if options.start_from:
        network.load_state_dict(torch.load(options.start_from))
    voice_projection.install(network, readout, trained=bool(options.start_from))
    average = moving_average(network, 0.95)
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=0.05, fused=True)
    embeddings = np.concatenate([p.voice[0][p.voiced] for p in performances])
    noise = torch.from_numpy(EMBEDDING_NOISE * embeddings.std(0))[None, :, None, None]
    start, began, network = time.process_time(), time.time(), network.train()
    for step in range(options.steps):
        decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1.0, (step + 1) / 100) * decay
        face, voice, mask, target, face_teaches = windows.batch(options.batch)
        voice = voice + noise * torch.randn_like(voice) * mask[:, 1:]
        face, voice, mask, target, face_teaches = add_single_modalities(face, voice, mask, target, face_teaches)
        loss = loss_of(*network(face, voice, mask), target, mask, face_teaches)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % 5 == 0:
            average.update_parameters(network)
        if (step + 1) % REPORT_STEPS == 0:
            left = time_left((time.time() - began) / (step + 1), options.steps - step - 1)
            print(f"{head} seed {seed} step {step + 1}/{options.steps} loss {loss.item():.3f}, {left}", flush=True)
    network = voice_projection.fold(average.module).eval()
    results = {name: measure(network, every_nth(ticks)) for name, ticks in validation.items()}
    best = score(list(results.values())[-1])
    print(
        f"{head} seed {seed} loss {loss.item():.3f} {time.process_time() - start:.0f} CPU s score {best:.4f}",
        flush=True,
    )
    for name, result in results.items():
        report(f"    {name}:", result)
    return best, network


# ---- export and evaluation ------------------------------------------------------------------------------------------


def export(network, windows, f32, int8):
    """Write both graphs; training windows calibrate the int8 one."""
    example = {
        "face": torch.zeros(1, FACE, 1, STEPS),
        "voice": torch.zeros(1, VOICE, 1, STEPS),
        "mask": torch.zeros(1, 2, 1, STEPS),
    }
    export_module(network, f32, example, ["affect", "log_variance"])
    face, voice, mask, *_ = windows.batch(600)
    feeds = [
        {"face": f[None], "voice": v[None], "mask": m[None]}
        for f, v, m in zip(face.numpy(), voice.numpy(), mask.numpy(), strict=True)
    ]
    quantize(f32, int8, feeds)
    print("int8 against f32:", compare_graphs(f32, int8, feeds[:200]), flush=True)


def measure_all(network, sets, command, exact=None):
    """The manifest's figures of an int8 network on all EvaluationSets; `exact`, the f32 network, is printed beside it."""
    splits = sets.validation | {TEST: sets.ticks("test", TEST), ACTOR_01: sets.clip_ticks("actor01")}
    results = {split: measure(network, ticks) for split, ticks in splits.items()}
    for split, result in results.items():
        report(f"int8, {split}:", result)
        if exact is not None:
            report(f"f32, {split}:", measure(exact, splits[split]))
    figures = manifest_figures(results, command)
    return figures + fusion_behaviour.manifest_figures(network, sets, splits[VALIDATION], command)


def register(out, head, prior_variance, variance_weights, figures):
    """Put the fusion in `out` into its manifest."""
    f32 = out / "fusion.f32.onnx"
    inputs, outputs = shapes(f32)
    entry = {
        "version": "0.3.0",
        "head": head,
        "inputs": inputs,
        "outputs": outputs,
        "preprocessing": {
            "steps": STEPS,
            "step_s": STEP_S,
            "tick_hz": TICK_HZ,
            "prior_variance": [round(float(v), 4) for v in prior_variance],
            "variance_weights": [[round(float(w), 5) for w in row] for row in variance_weights],
        },
        "macs": count_macs(f32),
        "licence": "research only: trained on RAVDESS, nEMO and emotiontts (CC BY-NC-SA 4.0), Javanese clips and ASED (no "
        "licence stated), EmoGator (Apache-2.0), and FER+ faces (images for research only)",
        "source": f"affectd's own: {SOURCES[head]}, trained from random weights on Javanese clips, RAVDESS actors 01-18, with "
        "face scores translated from another network's posteriors, and voices of other corpora",
        "figures": figures,
    }
    manifest.register(out, "fusion", entry)


class TrainingSet:
    """Everything that training a fusion needs: performances, windows, evaluation sets, and the heads of the voice encoder."""

    def __init__(self, options):
        self.options = options
        self.sets = EvaluationSets(options.data, options.work, options.models)
        teacher, heads = load_voice_encoder(options.work / "voice_encoder")
        self.readout = voice_projection.readout_of(heads)
        self.non_voice = self.sets.encode(non_voice.encoder_inputs(600)).flatten(1).numpy()
        self.photographs = cached(
            options.work / f"photographs_{face_key(options.models)}.pickle",
            lambda: read_photographs(options.data, options.models),
        )
        self.performances = self.read_performances(teacher)
        self.javanese = [p for p in self.performances if p.utterance.corpus == "javanese" and is_of_clip(p)]

    def read_performances(self, teacher):
        """The training performances with embeddings of students trained without their speakers; voices are cached."""
        options, sets, corpora = self.options, self.sets, self.sets.corpora
        folder = options.work / f"embedded_by_{voice_encoder_key(options.models)}"
        folder.mkdir(parents=True, exist_ok=True)
        students = cross_fitting.train_students(teacher, corpora, corpora.training(), folder, options.student_epochs)

        def read_voices(encode_of, passes):
            utterances = [u for corpus, every in EVERY.items() for u in corpora.select(corpus, "train")[::every]]
            takes = [u for u in corpora.select("javanese", "train") if not u.name.endswith("_01")]
            return [
                *make_performances(corpora, utterances, encode_of, passes),
                *sets.clip_voices("javanese", encode_of, passes),
                *sets.clip_voices("actor01", encode_of, passes),
                *make_performances(corpora, takes, encode_of, min(passes, 2)),
            ]

        by_students = cached(
            folder / "students.pickle", lambda: read_voices(lambda u: students[cross_fitting.fold_of(u)], PASSES)
        )
        by_teacher = cached(folder / "teacher.pickle", lambda: read_voices(lambda u: teacher, 1))
        return [sets.with_face(p) for p in cross_fitting.match_moments(by_students, by_teacher)]

    def windows(self, without=None):
        """TrainingWindows of everybody, or of everybody but the Javanese speakers of the fold `without`, and the performances."""
        kept = [p for p in self.performances if without is None or not is_of_fold(p, without)]
        bank = TrainingWindows(kept, self.non_voice, self.photographs, seed=0, count=self.options.windows)
        return bank, kept

    def strangers(self, fold):
        """Ticks of the clips of the Javanese speakers of a fold, all frames, without augmentation."""
        return make_ticks([p for p in self.javanese if is_of_fold(p, fold)], rate_hz=None)


def is_of_clip(performance):
    """Whether a Javanese performance is that of a clip, whose face and voice are synchronous."""
    return performance.utterance.name.endswith("_01")


def is_of_fold(performance, fold):
    """Whether a performance is by one of the two Javanese speakers of a fold."""
    return performance.utterance.corpus == "javanese" and cross_fitting.fold_of(performance.utterance) == fold


def leave_speakers_out(training, head, options, seed=1):
    """[(network, ticks of its strangers)] for each pair of Javanese speakers."""
    result = []
    for fold in range(cross_fitting.FOLDS):
        windows, performances = training.windows(without=fold)
        ticks = training.strangers(fold)
        _, network = train(head, performances, windows, {"strangers": ticks}, training.readout, options, seed)
        result.append((network, ticks))
    return result


def finish(training, network, windows, left_out, options):
    """Export, quantize, fit the claimed variance, measure the int8 graph everywhere, and register it."""
    f32, int8 = (options.out / f"fusion.{form}.onnx" for form in ("f32", "int8"))
    export(network, windows, f32, int8)
    weights = strangers.fit_variance(left_out, training.non_voice)
    prior = torch.cat([ticks[3] for _, ticks in left_out]).var(0, unbiased=False).tolist()
    command = arguments.figure_command(__spec__.name, "--from")
    figures, curves = strangers.manifest_figures(left_out, training.non_voice, prior, STRANGERS, command)
    (options.out / "risk_coverage.svg").write_text(risk_coverage.draw(curves))
    exact, quantized = (calibrated(net, weights) for net in (network, quantized_fusion(int8)))
    figures += measure_all(quantized, training.sets, command, exact)
    register(options.out, options.head, prior, weights, figures)


def make_parser(doc):
    """The arguments of this script that compare_heads.py shares."""
    parser = arguments.parser(doc)
    arguments.add_data(parser)
    arguments.add_work(parser)
    arguments.add_models(parser)
    parser.add_argument("--student-epochs", type=int, default=12, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=700, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--windows", type=int, default=40_000, help="size of the bank of training windows")
    parser.add_argument(
        "--from", type=Path, dest="start_from", metavar="FILE", help="weights of a fusion to start from"
    )
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate; default: %(default)s")
    parser.add_argument("--seeds", type=int, default=2, help="how many networks to train; default: %(default)s")
    return parser


def main():
    parser = make_parser(__doc__)
    arguments.add_out(parser, required=False)
    parser.add_argument("--head", choices=SOURCES, default="joint cross-attention", help="default: %(default)s")
    parser.add_argument("--measure", action="store_true", help="only measure the int8 fusion in --models")
    options = parser.parse_args()
    if not options.measure and options.out is None:
        parser.error("--out is required unless --measure is given")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.measure:
        sets = EvaluationSets(options.data, options.work, options.models)
        command = arguments.figure_command(__spec__.name)
        weights = manifest.read_graphs(options.models)["fusion"]["preprocessing"]["variance_weights"]
        measure_all(calibrated(quantized_fusion(options.models / "fusion.int8.onnx"), weights), sets, command)
        return

    training = TrainingSet(options)
    left_out = leave_speakers_out(training, options.head, options)
    windows, performances = training.windows()
    runs = [
        train(options.head, performances, windows, training.sets.validation, training.readout, options, seed)
        for seed in range(1, options.seeds + 1)
    ]
    _, network = max(runs, key=lambda run: run[0])
    torch.save(network.state_dict(), options.work / "fusion.pt")
    finish(training, network, windows, left_out, options)


if __name__ == "__main__":
    arguments.run(main)
