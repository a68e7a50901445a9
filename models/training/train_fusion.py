"""Trains the fusion: 8 steps of face features and voice embeddings -> valence, arousal and the log variance of each.

    python -m models.training.train_fusion --data DIR --work DIR --models DIR --out DIR [--head NAME]
    python -m models.training.train_fusion --data DIR --work DIR --measure

Inputs of the network: face [n, 21, 1, 8], voice [n, 64, 1, 8], mask [n, 2, 1, 8]. Outputs: affect and log variance,
[n, 2, 1, 1] each.

Needs the checkpoint of the voice encoder in --work, and the int8 voice encoder and the face graphs in --models. The voice
embeddings of training speakers come from students of the voice encoder that were trained without these speakers
(cross_fitting.py). Those of all other speakers come from the int8 graph. Face posteriors come from another network and are
mapped to ours (augmentation/face_posteriors.py).

Trains --seeds networks, takes the best one on the validation actors, calibrates its variances there, writes
fusion.f32.onnx, fusion.int8.onnx and risk_coverage.svg to --out, and registers the graph there with its figures.
`--measure` prints the figures of the fusion in --models instead.
"""

import math
import pickle
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import arguments, cross_fitting, manifest
from .augmentation import non_voice
from .data.cache import cached
from .data.evaluation_sets import ACTOR_01, MAPPED, TEST, VALIDATION, EvaluationSets, voice_encoder_key
from .data.fusion_windows import TrainingWindows
from .data.performances import make_performances
from .data.photographs import read_photographs
from .metrics import fusion_behaviour, risk_coverage
from .metrics.agreement import ccc
from .metrics.fusion_accuracy import (
    CONDITIONS,
    DIMENSIONS,
    LOG_VARIANCE,
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
from .quantization.export import export_module
from .quantization.quantize import quantize
from .train_voice_encoder import load as load_voice_encoder

PASSES = 4  # embeddings of each training performance: one clean pass and three augmented ones
NEMO_EVERY = 3  # every third nEMO utterance: voices without faces are a quarter of the windows
EMBEDDING_NOISE = 0.05  # in deviations of a channel: the uncertainty that int8 and the students leave
LEAST_WINDOWS = 8  # for a CCC in the loss
SQUARED_WEIGHT, LIKELIHOOD_WEIGHT = 0.5, 0.3
SINGLE_MODALITY_WEIGHT = 0.75  # weight of either modality alone in the loss; both together have 1
VALIDATION_STRIDE = 4  # while training, every fourth validation tick is measured
SOURCES = {
    "joint cross-attention": "the joint cross-attention of Praveen et al. 2022 (arXiv 2203.14779)",
    "cross-attention": "dot-product cross-attention",
    "concatenation, 8 steps": "both modalities' features side by side over eight steps",
    "concatenation, newest step": "both modalities' features side by side",
}


# ---- training -------------------------------------------------------------------------------------------------------


def add_single_modalities(face, voice, mask, target):
    """The batch, followed by its windows with both modalities once more with the face only and once more with the voice only.

    Either modality alone becomes as accurate as in a network of its own only if it is trained as often as in such a network.
    """
    both = (mask.flatten(2).amax(2) > 0).all(1)
    single = [without((face[both], voice[both], mask[both]), (m,)) for m in (1, 0)]
    parts = zip((face, voice, mask), *single, strict=True)
    return *(torch.cat(part) for part in parts), torch.cat([target, target[both], target[both]])


def loss_of(affect, log_variance, target, mask):
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
        (face & ~voice, SINGLE_MODALITY_WEIGHT),
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
    start, network = time.process_time(), network.train()
    for step in range(options.steps):
        decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1.0, (step + 1) / 100) * decay
        face, voice, mask, target = windows.batch(options.batch)
        voice = voice + noise * torch.randn_like(voice) * mask[:, 1:]
        face, voice, mask, target = add_single_modalities(face, voice, mask, target)
        loss = loss_of(*network(face, voice, mask), target, mask)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % 5 == 0:
            average.update_parameters(network)
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


@torch.no_grad()
def calibrate(network, ticks):
    """Fit the variances to the errors on these ticks, with equal weight for each condition; returns {dimension: (a, b)}.

    log v' = a log v + b by maximum likelihood, folded into the last layer.
    """
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
    """The a >= 0 and b with the greatest Gaussian likelihood of squared `errors` under the log variance a * logs + b."""
    best = (math.inf, 1.0, 0.0)
    for slope in np.arange(0.0, 4.01, 0.05):
        shift = (errors * torch.exp(-slope * logs)).mean().log().item()  # the best b for this a, in closed form
        loss = (slope * logs).mean().item() + shift
        best = min(best, (loss, float(slope), shift))
    return best[1:]


# ---- export and evaluation ------------------------------------------------------------------------------------------


def export(network, windows, f32, int8):
    """Write both graphs; training windows calibrate the int8 one."""
    example = {
        "face": torch.zeros(1, FACE, 1, STEPS),
        "voice": torch.zeros(1, VOICE, 1, STEPS),
        "mask": torch.zeros(1, 2, 1, STEPS),
    }
    export_module(network, f32, example, ["affect", "log_variance"])
    face, voice, mask, _ = windows.batch(600)
    feeds = [
        {"face": f[None], "voice": v[None], "mask": m[None]}
        for f, v, m in zip(face.numpy(), voice.numpy(), mask.numpy(), strict=True)
    ]
    quantize(f32, int8, feeds)
    print("int8 against f32:", compare_graphs(f32, int8, feeds[:200]), flush=True)


def measure_all(network, sets, command, drawing=None, exact=None):
    """The manifest's figures of an int8 network on all EvaluationSets.

    `exact`, the f32 network, is measured and printed beside it. `drawing` is the path of the risk-coverage curve, if wanted.
    """
    splits = sets.validation | sets.ticks("test", TEST) | {ACTOR_01: sets.clip_ticks("actor01")}
    results = {split: measure(network, ticks) for split, ticks in splits.items()}
    for split, result in results.items():
        report(f"int8, {split}:", result)
        if exact is not None:
            report(f"f32, {split}:", measure(exact, splits[split]))
    figures = manifest_figures(results, command)
    figures += fusion_behaviour.manifest_figures(network, sets, splits[VALIDATION + MAPPED], command)
    curves, halves = risk_coverage.measure(network, splits[TEST + MAPPED], TEST + MAPPED, command)
    for half in halves:
        print(half["name"], half["value"], flush=True)
    if drawing is not None:
        drawing.write_text(risk_coverage.draw(curves))
    return figures + halves


def register(out, head, prior_variance, figures):
    """Put the fusion in `out` into its manifest."""
    f32 = out / "fusion.f32.onnx"
    inputs, outputs = shapes(f32)
    entry = {
        "version": "0.2.0",
        "head": head,
        "inputs": inputs,
        "outputs": outputs,
        "preprocessing": {
            "steps": STEPS,
            "step_s": STEP_S,
            "tick_hz": TICK_HZ,
            "prior_variance": [round(float(v), 4) for v in prior_variance],
        },
        "macs": count_macs(f32),
        "licence": "research only: trained on RAVDESS and nEMO (CC BY-NC-SA 4.0)",
        "source": f"affectd's own: {SOURCES[head]}, trained from random weights on RAVDESS actors 02-18, with face posteriors of "
        "another network, and on the voices of seven nEMO speakers",
        "figures": figures,
    }
    manifest.register(out, "fusion", entry)


def read_training_performances(corpora, teacher, options):
    """The training performances with embeddings of students trained without their speakers; cached for this encoder."""
    folder = options.work / f"embedded_by_{voice_encoder_key(options.models)}"
    folder.mkdir(parents=True, exist_ok=True)
    ravdess, nemo = corpora.select("ravdess", "train"), corpora.select("nemo", "train")
    utterances = ravdess + nemo[::NEMO_EVERY]

    def performances(name, encode_of, passes):
        return cached(
            folder / f"{name}.pickle",
            lambda: make_performances(corpora, options.data, utterances, encode_of, passes),
        )

    if options.student_embeddings:
        by_students = pickle.loads((options.student_embeddings / "students.pickle").read_bytes())
    else:
        students = cross_fitting.train_students(teacher, corpora, ravdess + nemo, folder, options.student_epochs)
        by_students = performances("students", lambda u: students[cross_fitting.fold_of(u)], PASSES)
    by_teacher = performances("teacher", lambda u: teacher, 1)
    if options.student_embeddings:
        by_students = cross_fitting.map_to_later_encoder(by_students, by_teacher)
    return cross_fitting.match_moments(by_students, by_teacher)


class TrainingSet:
    """Everything that training a fusion needs: windows, validation ticks, and the heads of the voice encoder."""

    def __init__(self, options):
        self.sets = EvaluationSets(options.data, options.work, options.models)
        teacher, heads = load_voice_encoder(options.work / "voice_encoder")
        self.performances = read_training_performances(self.sets.corpora, teacher, options)
        self.readout = voice_projection.readout_of(heads)
        self.windows = TrainingWindows(
            self.performances,
            self.sets.posterior_map,
            self.sets.encode(non_voice.encoder_inputs(600)).flatten(1).numpy(),
            read_photographs(options.data, options.models),
            seed=0,
            count=options.windows,
            photograph_share=options.photographs,
            neutral_weight=options.neutral_weight,
            neutral_bias=options.neutral_bias,
        )


def finish(training, network, options):
    """Calibrate, export, quantize, measure the int8 graph everywhere, and register it."""
    calibration = calibrate(network, training.sets.validation[VALIDATION + MAPPED])
    print("calibration of log variances (factor, offset):", calibration, flush=True)
    f32, int8 = (options.out / f"fusion.{form}.onnx" for form in ("f32", "int8"))
    export(network, training.windows, f32, int8)
    command = arguments.figure_command(__spec__.name, "--from", "--student-embeddings")
    drawing = options.out / "risk_coverage.svg"
    figures = measure_all(quantized_fusion(int8), training.sets, command, drawing, network)
    register(options.out, options.head, training.windows.target_variance(), figures)


def make_parser(doc):
    """The arguments of this script that compare_heads.py shares."""
    parser = arguments.parser(doc)
    arguments.add_data(parser)
    arguments.add_work(parser)
    arguments.add_models(parser)
    parser.add_argument(
        "--student-embeddings", type=Path, metavar="DIR", help="use the student embeddings of an earlier voice encoder"
    )
    parser.add_argument("--student-epochs", type=int, default=12, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=1500, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--windows", type=int, default=60_000, help="size of the bank of training windows")
    parser.add_argument(
        "--neutral-weight", type=float, default=4.0, help="how much more often neutral recordings are drawn"
    )
    parser.add_argument(
        "--neutral-bias", type=float, default=1.2, help="bias between expressions of neutral faces, in log posteriors"
    )
    parser.add_argument("--photographs", type=float, default=0.12, help="share of windows with a photograph as face")
    parser.add_argument(
        "--from", type=Path, dest="start_from", metavar="FILE", help="weights of a fusion to start from"
    )
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate; default: %(default)s")
    parser.add_argument("--seeds", type=int, default=1, help="how many networks to train; default: %(default)s")
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
        drawing = options.out / "risk_coverage.svg" if options.out else None
        command = arguments.figure_command(__spec__.name)
        measure_all(quantized_fusion(options.models / "fusion.int8.onnx"), sets, command, drawing)
        return

    training = TrainingSet(options)
    validation = training.sets.validation
    runs = [
        train(options.head, training.performances, training.windows, validation, training.readout, options, seed)
        for seed in range(1, options.seeds + 1)
    ]
    _, network = max(runs, key=lambda run: run[0])
    torch.save(network.state_dict(), options.work / "fusion.pt")
    finish(training, network, options)


if __name__ == "__main__":
    arguments.run(main)
