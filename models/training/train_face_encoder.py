"""Trains the face encoder on FER+, web faces and the judgements of teachers, and writes its graphs.

    python -m models.training.train_face_encoder --data DIR --work DIR --models DIR --out DIR [--epochs N] [--threads N]

Reads `faces/` and `teachers/` in --data, and the face detector in --models, which frames the web faces. The net has 18 scores
(`networks/face_encoder.py`):

- It learns the distribution of the ten votes of FER+ (cross-entropy), not the winning vote: affectd uses expectations over the
  softmax, so calibrated posteriors matter more than the arg max.
- On all faces it imitates the mean of the teachers (data/teachers.py): posteriors of eight expressions, and valence and arousal.
  The teachers see a face large and undisturbed. The net sees it as a camera delivers it.

Every twentieth FER+ training face and 15 % of the people of the web faces are held out, to fit temperatures and to watch the
training. Only the final evaluation measures the FER+ validation split.

Every epoch ends in a checkpoint in --work, and the same command continues from it. After the last epoch the script writes
face_encoder.f32.onnx and face_encoder.int8.onnx to --out and registers them there with their figures. `--export-now` does
that with the newest checkpoint.
"""

import math
import time

import numpy as np
import torch
from torch.nn import functional as F

from . import arguments, manifest
from .augmentation.faces import augment
from .data.face_atlas import load_split
from .data.taught_faces import read_taught_faces
from .labels import EXPRESSIONS, expression_points
from .metrics.agreement import ccc, correlation
from .networks.face_encoder import NAME, FaceEncoder, export, macs, standardize
from .onnx_graphs import count_macs, open_graph, run_graph, softmax
from .preprocessing.face_crop import CLAMP_DEVIATIONS, FER_PLUS, MIN_DEVIATION, SIZE, normalize
from .preprocessing.face_scores import RATED, SCORES, SHOWN, VOTES, expression
from .progress import time_left
from .quantization.quantize import quantize

BATCH = 128
PEAK_LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.02
EMA_DECAY = 0.999
# The first part of the training sees small faces, at half the cost. The last part sees weaker augmentation.
SMALL_SIZE = 36
SMALL_SHARE = 0.3125
WEAK_SHARE = 14 / 48
WEAK_STRENGTH = 0.4
SHOWN_WEIGHT, RATED_WEIGHT, SQUARED_WEIGHT = 1.0, 0.3, 2.0  # in the loss; the votes have 1
# The last epochs restart at a low rate, with weak augmentation, and follow the votes more: the teachers are easier to imitate.
FINAL_EPOCHS, FINAL_RATE, FINAL_VOTES_WEIGHT = 8, 6e-4, 2.5
SURE = 0.6  # the teachers are sure of an expression whose posterior is larger
SEED = 2026


# ---- training -------------------------------------------------------------------------------------------------------


def face_weights(distributions):
    """Loss weight of each face, f32 [n] with mean 1: larger for rare expressions, softened so that posteriors stay calibrated."""
    share = distributions.mean(0)
    weights = distributions @ np.minimum((share.mean() / share) ** 0.25, 3.0)
    return (weights / weights.mean()).astype(np.float32)


@torch.no_grad()
def scores_of(net, faces):
    """Scores [n, 18] of u8 faces [n, 48, 48], without mirrored views, as the daemon runs it."""
    net.eval()
    parts = torch.from_numpy(faces).float().unsqueeze(1).split(256)
    return torch.cat([net(standardize(part)) for part in parts]).numpy()


def learning_rate(done, epochs):
    """The rate after `done` of all `epochs`: a warm-up epoch, a cosine, and a lower cosine over the last FINAL_EPOCHS."""
    first = epochs - FINAL_EPOCHS
    if done < 1:
        return PEAK_LEARNING_RATE * max(done, 1e-3)
    peak, part = (
        (PEAK_LEARNING_RATE, (done - 1) / (first - 1)) if done < first else (FINAL_RATE, (done - first) / FINAL_EPOCHS)
    )
    return max(peak * 0.5 * (1 + math.cos(math.pi * part)), PEAK_LEARNING_RATE * 1e-3)


def loss_of(scores, votes, vote_weights, expression, expression_weights, affect, votes_weight=1.0):
    """Cross-entropy to the votes, where there are any, and to the teachers; 1 - CCC and squared error of valence and arousal."""
    voted = vote_weights > 0
    by_votes = F.cross_entropy(scores[voted, VOTES], votes[voted], reduction="none") * vote_weights[voted]
    by_teachers = F.cross_entropy(scores[:, SHOWN], expression, reduction="none") * expression_weights
    rated = scores[:, RATED]
    return (
        votes_weight * by_votes.mean()
        + SHOWN_WEIGHT * by_teachers.mean()
        + RATED_WEIGHT * ((1 - ccc(rated, affect)).sum() + SQUARED_WEIGHT * (rated - affect).square().mean())
    )


@torch.no_grad()
def training_input(faces, progress):
    """u8 faces [n, 48, 48] -> augmented input [n, 1, side, side], as used at `progress` 0..1 of the training."""
    inputs = augment(faces.float().unsqueeze(1), WEAK_STRENGTH if progress > 1 - WEAK_SHARE else 1.0)
    if progress < SMALL_SHARE:
        inputs = F.interpolate(inputs, (SMALL_SIZE, SMALL_SIZE), mode="bilinear", antialias=True)
    return standardize(inputs).contiguous(memory_format=torch.channels_last)  # 12 % faster on a CPU


def training_targets(taught):
    """The arguments of `loss_of` after the scores, for all faces, as tensors."""
    voted = taught.votes.sum(1) > 0
    vote_weights = np.zeros(len(taught), np.float32)
    vote_weights[voted] = face_weights(taught.votes[voted])
    columns = (taught.votes, vote_weights, taught.expression, face_weights(taught.expression), taught.affect)
    return [torch.from_numpy(column) for column in columns]


def watch(ema, holdout):
    """A line with the accuracy on the held-out faces."""
    scores = scores_of(ema, holdout.faces)
    voted = holdout.votes.sum(1) > 0
    right = (scores[voted, VOTES].argmax(1) == holdout.votes[voted].argmax(1)).mean()
    nll = F.cross_entropy(torch.from_numpy(scores[voted, VOTES]), torch.from_numpy(holdout.votes[voted])).item()
    same = (scores[:, SHOWN].argmax(1) == holdout.expression.argmax(1)).mean()
    valence, arousal = correlation(scores[:, RATED], holdout.affect)
    return f"top vote {right:.4f} nll {nll:.4f}, as teachers {same:.4f} r {valence:.3f}/{arousal:.3f}"


def make_optimizer(net):
    """AdamW; biases and norms are not decayed."""
    decayed = [p for p in net.parameters() if p.dim() > 1]
    plain = [p for p in net.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_LEARNING_RATE)


def train(net, ema, taught, holdout, checkpoint, epochs):
    """Train `net`, and `ema` as its moving average, up to `epochs`; continue from `checkpoint` if it exists."""
    steps = len(taught) // BATCH
    optimizer, start = make_optimizer(net), 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["epoch"]
    faces, targets = torch.from_numpy(taught.faces), training_targets(taught)
    for epoch in range(start, epochs):
        torch.manual_seed(SEED + epoch)
        began, losses = time.time(), 0.0
        order = torch.randperm(len(faces))
        net.train()
        for step in range(steps):
            done = epoch + step / steps
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(done, epochs)
            picked = order[step * BATCH : (step + 1) * BATCH]
            with torch.autocast("cpu", torch.bfloat16):  # 1.5 times as fast where the processor has bf16
                scores = net(training_input(faces[picked], done / epochs))
            votes_weight = FINAL_VOTES_WEIGHT if epoch >= epochs - FINAL_EPOCHS else 1.0
            loss = loss_of(scores.float(), *(target[picked] for target in targets), votes_weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses += loss.item()
            with torch.no_grad():
                decay = min(EMA_DECAY, (1 + epoch * steps + step) / (10 + epoch * steps + step))
                for average, now in zip(ema.state_dict().values(), net.state_dict().values(), strict=True):
                    if average.is_floating_point():
                        average.lerp_(now, 1 - decay)
        partial = checkpoint.with_suffix(".part")
        torch.save(
            {"net": net.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1},
            partial,
        )
        partial.replace(checkpoint)
        took = time.time() - began
        print(
            f"epoch {epoch + 1}/{epochs} loss {losses / steps:.4f} {took:.0f} s, "
            f"{time_left(took, epochs - epoch - 1)}, held out: {watch(ema, holdout)}",
            flush=True,
        )


# ---- export and evaluation ------------------------------------------------------------------------------------------


def fit_temperature(logits, distributions):
    """The softmax temperature with the least cross-entropy against the distributions."""
    candidates = np.exp(np.linspace(np.log(0.5), np.log(2.0), 141))
    logits, distributions = torch.from_numpy(logits), torch.from_numpy(distributions)
    losses = [F.cross_entropy(logits / float(t), distributions).item() for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def calibration_feeds(faces, count=600):
    """Feeds to calibrate the quantizer: training faces, half of them augmented."""
    torch.manual_seed(SEED)
    picked = torch.from_numpy(faces[np.random.default_rng(SEED).permutation(len(faces))[:count]]).float().unsqueeze(1)
    picked[::2] = augment(picked[::2])
    return [{"face": face.numpy()[None]} for face in standardize(picked)]


def graph_scores(path, faces):
    """Scores [n, 18] of an ONNX graph on u8 faces [n, 48, 48]."""
    graph = open_graph(path)
    feeds = ({"face": normalize(face.astype(np.float32))[None, None]} for face in faces)
    return np.concatenate([run_graph(graph, feed)["scores"].reshape(1, -1) for feed in feeds])


def score_votes(posteriors, votes, majority, points):
    """Figures of posteriors [n, 8] against vote distributions [n, 8]; `majority` bool [n] as `load_split` gives it."""
    right = posteriors.argmax(1) == votes.argmax(1)
    valence, arousal = ccc(posteriors @ points, votes @ points)
    figures = {
        "accuracy_top_vote": right.mean(),
        "accuracy_strict_majority": right[majority].mean(),
        "ccc_valence": valence,
        "ccc_arousal": arousal,
        "cross_entropy": -(votes * np.log(np.maximum(posteriors, 1e-12))).sum(1).mean(),
    }
    for i, name in enumerate(EXPRESSIONS):
        figures[f"recall_{name}"] = right[votes.argmax(1) == i].mean()
    return figures


def score_teachers(scores, taught):
    """Figures of scores [n, 18] against what the teachers see: agreement, not truth."""
    valence, arousal = correlation(scores[:, RATED], taught.affect)
    teachers, ours = taught.expression.argmax(1), scores[:, SHOWN].argmax(1)
    figures = {"same_expression": (ours == teachers).mean(), "r_rated_valence": valence, "r_rated_arousal": arousal}
    for i, name in enumerate(EXPRESSIONS):
        figures[f"same_expression_{name}"] = (ours == i)[teachers == i].mean()
    return figures


def agreement_where_sure(scores, taught):
    """{expression: share of the faces with this expression, of which the teachers are sure, with it in `shown`, as reported}."""
    sure, teachers = taught.expression.max(1) > SURE, taught.expression.argmax(1)
    shown, reported = scores[:, SHOWN].argmax(1), expression(scores).argmax(1)
    return {
        name: [round(float((ours == i)[sure & (teachers == i)].mean()), 2) for ours in (shown, reported)]
        for i, name in enumerate(EXPRESSIONS)
    }


def rounded(figures):
    return {name: round(float(value), 4) for name, value in figures.items()}


def measure(path, data, splits):
    """{split: figures} of a graph on FER+ valid and on the held-out web faces."""
    faces, votes, majority = load_split(data, "valid")
    scores = graph_scores(path, faces)
    of_votes = score_votes(softmax(scores[:, VOTES]), votes, majority, expression_points(data))
    of_both = score_votes(expression(scores), votes, majority, expression_points(data))
    web = splits["holdout"].select(splits["holdout"].corpus != "ferplus")
    for name, seen, its_scores in (
        ("FER+ valid", splits["valid"], scores),
        ("web", web, graph_scores(path, web.faces)),
    ):
        print(f"{name}, where the teachers are sure:", agreement_where_sure(its_scores, seen), flush=True)
    return {
        f"FER+ valid, {len(faces)} faces": rounded(
            of_votes
            | {f"expression_{name}": of_both[name] for name in ("accuracy_top_vote", "ccc_valence", "ccc_arousal")}
            | score_teachers(scores, splits["valid"])
        ),
        f"web faces of held-out people, {len(web)} faces": rounded(score_teachers(graph_scores(path, web.faces), web)),
    }


def register(out, figures):
    """Put the graphs in `out` into its manifest."""
    manifest.register(
        out,
        NAME,
        {
            "version": "0.2.0",
            "inputs": {"face": [1, 1, SIZE, SIZE]},
            "outputs": {"scores": [1, SCORES, 1, 1]},
            "labels": EXPRESSIONS,
            "preprocessing": {
                "size": SIZE,
                "side_per_eye_distance": FER_PLUS.side_per_eye_distance,
                "side_per_eye_mouth": FER_PLUS.side_per_eye_mouth,
                "eye_mid": list(FER_PLUS.eye_mid),
                "min_deviation": MIN_DEVIATION,
                "clamp_deviations": CLAMP_DEVIATIONS,
            },
            "macs": count_macs(out / f"{NAME}.f32.onnx"),
            "licence": "research only: trained on FER+ (labels MIT, FER2013 images for research only), FFHQ (CC BY-NC-SA 4.0) "
            "and muxspace faces (Apache-2.0), with networks trained on AffectNet as teachers (no licence stated)",
            "source": "trained by affectd on the vote distributions of FER+, and on expressions, valence and arousal as networks "
            "trained on AffectNet rate the faces of FER+, FFHQ and muxspace",
            "figures": figures,
        },
    )


def finish(net, splits, options):
    """Export, quantize, evaluate and register."""
    f32_path, int8_path = (options.out / f"{NAME}.{form}.onnx" for form in ("f32", "int8"))
    holdout = splits["holdout"]
    scores, voted = scores_of(net, holdout.faces), holdout.votes.sum(1) > 0
    temperatures = (
        fit_temperature(scores[voted, VOTES], holdout.votes[voted]),
        fit_temperature(scores[:, SHOWN], holdout.expression),
    )
    print("temperatures of votes, of teachers:", *(f"{t:.3f}" for t in temperatures))
    export(net, temperatures, f32_path)
    quantize(f32_path, int8_path, calibration_feeds(splits["train"].faces))
    exact, results = (measure(path, options.data, splits) for path in (f32_path, int8_path))
    command = arguments.figure_command(__spec__.name)
    figures = []
    for split, values in results.items():
        print(split, "int8", values, "f32", exact[split], flush=True)
        figures += [
            {"name": name, "value": value, "f32": exact[split][name], "split": split, "command": command}
            for name, value in values.items()
        ]
    register(options.out, figures)


def parse():
    parser = arguments.parser(__doc__)
    arguments.add_data(parser)
    arguments.add_work(parser)
    arguments.add_models(parser)
    arguments.add_out(parser)
    parser.add_argument("--epochs", type=int, default=48, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--export-now", action="store_true", help="export the newest checkpoint without more training")
    return parser.parse_args()


def main():
    options = parse()
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    splits = read_taught_faces(options.data, options.work, options.models)
    net, ema = (FaceEncoder().to(memory_format=torch.channels_last) for _ in range(2))
    ema.load_state_dict(net.state_dict())
    print(
        f"{sum(p.numel() for p in net.parameters())} parameters, {macs()} MAC, {len(splits['train'])} faces", flush=True
    )
    checkpoint = options.work / "face_encoder.pt"
    if options.export_now:
        ema.load_state_dict(torch.load(checkpoint, weights_only=True)["ema"])
    else:
        train(net, ema, splits["train"], splits["holdout"], checkpoint, options.epochs)
    finish(ema.eval(), splits, options)


if __name__ == "__main__":
    arguments.run(main)
