"""Trains the face encoder on FER+ and writes its graphs.

    python -m models.training.train_face_encoder --data DIR --work DIR --out DIR [--epochs N] [--threads N]

Reads FER+ (`faces/` in --data). The net learns the distribution of the ten votes (cross-entropy), not the winning vote:
affectd uses the expectation of valence and arousal over the softmax, so calibrated posteriors matter more than the arg max.
Every twentieth training face is held out, to fit the temperature and to watch the training. Only the final evaluation
measures the FER+ validation split.

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
from .labels import EXPRESSIONS, expression_points
from .metrics.agreement import ccc
from .networks.face_encoder import NAME, FaceEncoder, export, macs, standardize
from .onnx_graphs import count_macs, open_graph, run_graph, softmax
from .preprocessing.face_crop import CLAMP_DEVIATIONS, FER_PLUS, MIN_DEVIATION, SIZE, normalize
from .quantization.quantize import quantize

BATCH = 128
PEAK_LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.02
EMA_DECAY = 0.999
# The first part of the training sees small faces, at half the cost. The last part sees weaker augmentation.
SMALL_SIZE = 36
SMALL_SHARE = 0.375
WEAK_SHARE = 0.15
WEAK_STRENGTH = 0.4
HOLDOUT_EVERY = 20
SEED = 2026


# ---- training -------------------------------------------------------------------------------------------------------


def face_weights(votes):
    """Loss weight of each face, f32 [n] with mean 1: larger for rare expressions, softened so that posteriors stay calibrated."""
    share = votes.mean(0)
    weights = votes @ np.minimum((share.mean() / share) ** 0.25, 3.0)
    return (weights / weights.mean()).astype(np.float32)


@torch.no_grad()
def logits_of(net, faces):
    """Logits [n, 8] of u8 faces [n, 48, 48], without mirrored views, as the daemon runs it."""
    net.eval()
    parts = torch.from_numpy(faces).float().unsqueeze(1).split(256)
    return torch.cat([net(standardize(part)) for part in parts]).numpy()


@torch.no_grad()
def training_input(faces, progress):
    """u8 faces [n, 48, 48] -> augmented input [n, 1, side, side], as used at `progress` 0..1 of the training."""
    inputs = augment(faces.float().unsqueeze(1), WEAK_STRENGTH if progress > 1 - WEAK_SHARE else 1.0)
    if progress < SMALL_SHARE:
        inputs = F.interpolate(inputs, (SMALL_SIZE, SMALL_SIZE), mode="bilinear", antialias=True)
    return standardize(inputs).contiguous(memory_format=torch.channels_last)  # 12 % faster on a CPU


def train(net, ema, faces, votes, holdout, checkpoint, epochs):
    """Train `net`, and `ema` as its moving average, up to `epochs`; continue from `checkpoint` if it exists."""
    steps = len(faces) // BATCH
    decayed = [p for p in net.parameters() if p.dim() > 1]
    plain = [p for p in net.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}],
        lr=PEAK_LEARNING_RATE,
    )
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["epoch"]
    faces, votes, weights = torch.from_numpy(faces), torch.from_numpy(votes), torch.from_numpy(face_weights(votes))
    for epoch in range(start, epochs):
        torch.manual_seed(SEED + epoch)
        began, losses = time.time(), 0.0
        order = torch.randperm(len(faces))
        net.train()
        for step in range(steps):
            done = epoch + step / steps
            rate = min(done, 1.0) if epoch == 0 else 0.5 * (1 + math.cos(math.pi * (done - 1) / (epochs - 1)))
            for group in optimizer.param_groups:
                group["lr"] = PEAK_LEARNING_RATE * max(rate, 1e-3)
            picked = order[step * BATCH : (step + 1) * BATCH]
            logits = net(training_input(faces[picked], done / epochs))
            loss = (F.cross_entropy(logits, votes[picked], reduction="none") * weights[picked]).mean()
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
        logits = logits_of(ema, holdout[0])
        right = (logits.argmax(1) == holdout[1].argmax(1)).mean()
        nll = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(holdout[1])).item()
        print(
            f"epoch {epoch + 1}/{epochs} loss {losses / steps:.4f} holdout top vote {right:.4f} nll {nll:.4f}"
            f" {time.time() - began:.0f} s",
            flush=True,
        )


# ---- export and evaluation ------------------------------------------------------------------------------------------


def fit_temperature(logits, votes):
    """The softmax temperature with the least cross-entropy against the votes."""
    candidates = np.exp(np.linspace(np.log(0.5), np.log(2.0), 141))
    logits, votes = torch.from_numpy(logits), torch.from_numpy(votes)
    losses = [F.cross_entropy(logits / float(t), votes).item() for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def calibration_feeds(faces, count=600):
    """Feeds to calibrate the quantizer: training faces, half of them augmented."""
    torch.manual_seed(SEED)
    picked = torch.from_numpy(faces[np.random.default_rng(SEED).permutation(len(faces))[:count]]).float().unsqueeze(1)
    picked[::2] = augment(picked[::2])
    return [{"face": face.numpy()[None]} for face in standardize(picked)]


def graph_logits(path, faces):
    """Logits [n, 8] of an ONNX graph on u8 faces [n, 48, 48]."""
    graph = open_graph(path)
    feeds = ({"face": normalize(face.astype(np.float32))[None, None]} for face in faces)
    return np.concatenate([run_graph(graph, feed)["logits"].reshape(1, -1) for feed in feeds])


def score(logits, votes, majority, points):
    """Figures of logits [n, 8] against vote distributions [n, 8]; `majority` bool [n] as `load_split` gives it."""
    posteriors = softmax(logits)
    right = logits.argmax(1) == votes.argmax(1)
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
    return {name: round(float(value), 4) for name, value in figures.items()}


def register(out, figures):
    """Put the graphs in `out` into its manifest."""
    manifest.register(
        out,
        NAME,
        {
            "version": "0.1.0",
            "inputs": {"face": [1, 1, SIZE, SIZE]},
            "outputs": {"logits": [1, len(EXPRESSIONS), 1, 1]},
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
            "licence": "research only: trained on FER+ (labels MIT) over FER2013 images, which are for research only",
            "source": "trained by affectd on the vote distributions of FER+; valence and arousal are category-derived",
            "figures": figures,
        },
    )


def finish(net, faces, holdout, options):
    """Export, quantize, evaluate and register."""
    f32_path, int8_path = (options.out / f"{NAME}.{form}.onnx" for form in ("f32", "int8"))
    temperature = fit_temperature(logits_of(net, holdout[0]), holdout[1])
    print(f"temperature {temperature:.3f}")
    export(net, temperature, f32_path)
    quantize(f32_path, int8_path, calibration_feeds(faces))
    points = expression_points(options.data)
    valid_faces, valid_votes, majority = load_split(options.data, "valid")
    results = {}
    for form, path in (("f32", f32_path), ("int8", int8_path)):
        results[form] = score(graph_logits(path, valid_faces), valid_votes, majority, points)
        print(form, results[form], flush=True)
    command = arguments.figure_command(__spec__.name)
    split = f"FER+ valid, {len(valid_faces)} faces"
    figures = [
        {"name": name, "value": value, "f32": results["f32"][name], "split": split, "command": command}
        for name, value in results["int8"].items()
    ]
    register(options.out, figures)


def parse():
    parser = arguments.parser(__doc__)
    arguments.add_data(parser)
    arguments.add_work(parser)
    arguments.add_out(parser)
    parser.add_argument("--epochs", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--export-now", action="store_true", help="export the newest checkpoint without more training")
    return parser.parse_args()


def main():
    options = parse()
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    faces, votes, _ = load_split(options.data, "train")
    held_out = np.arange(len(faces)) % HOLDOUT_EVERY == 0
    holdout = faces[held_out], votes[held_out]
    net, ema = (FaceEncoder().to(memory_format=torch.channels_last) for _ in range(2))
    ema.load_state_dict(net.state_dict())
    print(f"{sum(p.numel() for p in net.parameters())} parameters, {macs()} MAC, {len(faces)} faces", flush=True)
    checkpoint = options.work / "face_encoder.pt"
    if options.export_now:
        ema.load_state_dict(torch.load(checkpoint, weights_only=True)["ema"])
    else:
        train(net, ema, faces[~held_out], votes[~held_out], holdout, checkpoint, options.epochs)
    finish(ema.eval(), faces[~held_out], holdout, options)


if __name__ == "__main__":
    arguments.run(main)
