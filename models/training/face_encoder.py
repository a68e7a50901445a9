"""The face encoder: a plain convolutional net from a normalized 48x48 grey face to eight expression logits.

    python models/training/face_encoder.py --data DIR --work DIR [--epochs N] [--threads N]

It learns the distribution of FER+ votes (cross-entropy against the ten votes, not against the winner): the circumplex
expectation over the softmax is what affectd uses, so calibrated posteriors matter more than the arg max. One training
face in twenty is held out for the temperature and for watching the training; the FER+ validation split is measured only
by the final evaluation.

Every epoch ends in a checkpoint, so the same command goes on after an interruption. With all epochs done it exports,
quantizes, evaluates and registers. `--export-now` does that with the newest checkpoint.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn
from torch.nn import functional as F

import bundle
import quantize
from face_crop import FER_PLUS, normalize
from ferplus import EXPRESSIONS, SIZE, load_circumplex, load_split

NAME = "face_encoder"
BATCH = 128
PEAK_LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.02
EMA_DECAY = 0.999
# The first part of the training sees small faces, at half the cost; the last part sees them less disturbed.
SMALL_SIZE = 36
SMALL_SHARE = 0.375
GENTLE_SHARE = 0.15
GENTLE_STRENGTH = 0.4
HOLDOUT_EVERY = 20
SEED = 2026

# (output channels, stride) of the 3x3 convolutions, and the size of their output.
LAYERS = [
    (32, 2),  # 24x24
    (32, 1),
    (64, 2),  # 12x12
    (64, 1),
    (64, 1),
    (128, 2),  # 6x6
    (128, 1),
    (128, 1),
    (192, 2),  # 3x3
    (192, 1),
]


# ---- data -----------------------------------------------------------------------------------------------------------


def standardize(faces):
    """[B, 1, 48, 48] luma in 0..255 -> the encoder's input in -1..1. `face_crop.normalize`, for a batch in torch."""
    mean = faces.mean((2, 3), keepdim=True)
    deviation = faces.std((2, 3), keepdim=True, correction=0).clamp_min(10.0)
    return ((faces - mean) / deviation).clamp(-3.0, 3.0) / 3.0


# ---- augmentation ---------------------------------------------------------------------------------------------------


def uniform(count, low, high):
    """[count, 1, 1, 1], uniform in low..high."""
    return torch.empty(count, 1, 1, 1).uniform_(low, high)


def sometimes(count, probability):
    """[count, 1, 1, 1] of zeros and ones."""
    return (torch.rand(count, 1, 1, 1) < probability).float()


def dct_matrix():
    """The orthonormal 8-point DCT-II, [8, 8]."""
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)[None, :]
    matrix = torch.cos(math.pi * (n + 0.5) * k / 8) * math.sqrt(2 / 8)
    matrix[0] /= math.sqrt(2)
    return matrix


DCT = dct_matrix()
# JPEG's luma table is well described by a plane over the two frequencies; the exact entries do not matter here.
QUANTIZATION = 10.0 + 6.0 * (torch.arange(8.0)[:, None] + torch.arange(8.0)[None, :])
GAUSSIAN = torch.outer(torch.tensor([1.0, 4, 6, 4, 1]), torch.tensor([1.0, 4, 6, 4, 1]))[None, None] / 256


def move(faces, strength):
    """Mirror, shift, scale, stretch and rotate: what a detector's crop does to a face."""
    count = len(faces)
    angle = torch.randn(count) * math.radians(10) * strength
    scale = torch.exp(torch.empty(count).uniform_(-0.15, 0.15) * strength)
    stretch = torch.exp(torch.empty(count).uniform_(-0.06, 0.06) * strength)
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    shift = torch.empty(count, 2).uniform_(-0.16, 0.16) * strength  # of half the width: +-3.8 pixels
    theta = torch.empty(count, 2, 3)
    theta[:, 0, 0] = torch.cos(angle) * scale * stretch * mirror
    theta[:, 0, 1] = -torch.sin(angle) * scale
    theta[:, 1, 0] = torch.sin(angle) * scale * mirror
    theta[:, 1, 1] = torch.cos(angle) * scale / stretch
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(faces.shape), align_corners=False)
    return F.grid_sample(faces, grid, padding_mode="border", align_corners=False)


def light(faces, strength):
    """Gamma, contrast, brightness, a light that falls from one side, and a dark room for some."""
    count = len(faces)
    axis = torch.linspace(-1, 1, SIZE)
    slope = uniform(count, -0.3, 0.3) * axis.view(1, 1, 1, SIZE) + uniform(count, -0.3, 0.3) * axis.view(1, 1, SIZE, 1)
    gamma, contrast = torch.exp(uniform(count, -0.4, 0.4) * strength), torch.exp(uniform(count, -0.6, 0.3) * strength)
    faces = 255.0 * (faces / 255.0).clamp(1e-4, 1.0) ** gamma * (1.0 + slope * strength)
    faces = (faces - 128.0) * contrast + 128.0 + uniform(count, -40.0, 40.0) * strength
    dark = sometimes(count, 0.15 * strength)
    return faces.clamp(0.0, 255.0) * (1.0 - dark * uniform(count, 0.5, 0.9))


def camera(faces, strength):
    """Blur or sharpening, JPEG's quantization of 8x8 blocks, and sensor noise, each on some of the faces."""
    count = len(faces)
    blurred = F.conv2d(F.pad(faces, (2, 2, 2, 2), mode="replicate"), GAUSSIAN)
    faces = faces + sometimes(count, 0.5 * strength) * uniform(count, -0.5, 1.0) * (blurred - faces)

    blocks = faces.view(count, SIZE // 8, 8, SIZE // 8, 8).transpose(2, 3) - 128.0
    step = QUANTIZATION * torch.exp(uniform(count, -1.5, 1.0)).view(count, 1, 1, 1, 1)
    blocks = DCT.T @ (torch.round(DCT @ blocks @ DCT.T / step) * step) @ DCT
    compressed = (blocks + 128.0).transpose(2, 3).reshape(faces.shape)
    faces = torch.where(sometimes(count, 0.3 * strength) > 0, compressed, faces)

    noise = torch.randn_like(faces) * sometimes(count, 0.5 * strength) * uniform(count, 0.0, 12.0)
    return (faces + noise).clamp(0.0, 255.0).round()


def erase(faces, strength):
    """Cover one rectangle of some faces with grey, flat or noisy: a hand, a microphone, hair."""
    count = len(faces)
    axis = (torch.arange(SIZE) + 0.5) / SIZE
    inside = sometimes(count, 0.3 * strength) > 0
    for view in ((1, 1, 1, SIZE), (1, 1, SIZE, 1)):
        inside = inside & ((axis.view(view) - uniform(count, 0, 1)).abs() < uniform(count, 0.06, 0.22))
    cover = uniform(count, 0, 255) + sometimes(count, 0.5) * uniform(count, 0, 60) * torch.randn_like(faces)
    return torch.where(inside, cover.clamp(0.0, 255.0), faces)


def augment(faces, strength=1.0):
    """[B, 1, 48, 48] luma 0..255 -> as seen by another camera, in another light; strength 0..1, 0 mirrors only."""
    for change in (move, light, camera, erase):
        faces = change(faces, strength)
    return faces


# ---- the net --------------------------------------------------------------------------------------------------------


class PlainConv(nn.Module):
    """3x3 convolution, batch norm, ReLU. Where shapes allow, the kernel is learnt as a difference from the identity:
    that trains like a residual block and is one plain convolution afterwards, no addition to run or quantize."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3) * math.sqrt(2 / (9 * inputs)))
        self.norm = nn.BatchNorm2d(outputs)
        identity = torch.zeros(outputs, inputs, 3, 3)
        if stride == 1 and inputs == outputs:
            nn.init.dirac_(identity)
        self.register_buffer("identity", identity, persistent=False)

    def forward(self, x):
        return F.relu(self.norm(F.conv2d(x, self.weight + self.identity, stride=self.stride, padding=1)))

    @torch.no_grad()
    def folded(self):
        """Kernel and bias with the identity and the batch norm folded in, numpy f32."""
        scale = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        weight = (self.weight + self.identity) * scale.view(-1, 1, 1, 1)
        return weight.numpy(), (self.norm.bias - self.norm.running_mean * scale).numpy()


class FaceEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        channels = [1] + [outputs for outputs, _ in LAYERS]
        self.body = nn.Sequential(
            *(
                PlainConv(inputs, outputs, stride)
                for inputs, (outputs, stride) in zip(channels[:-1], LAYERS, strict=True)
            )
        )
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(channels[-1], len(EXPRESSIONS))

    def forward(self, faces):
        return self.head(self.dropout(self.body(faces).mean((2, 3))))


def macs():
    """Multiply-accumulates of one inference."""
    total, inputs, side = 0, 1, SIZE
    for outputs, stride in LAYERS:
        side //= stride
        total += 9 * inputs * outputs * side * side
        inputs = outputs
    return total + inputs * len(EXPRESSIONS)


# ---- training -------------------------------------------------------------------------------------------------------


def face_weights(votes):
    """Loss weight of each face, [N], mean 1: the rarer its expressions, the heavier, softened to stay calibrated."""
    share = votes.mean(0)
    weights = votes @ np.minimum((share.mean() / share) ** 0.25, 3.0)
    return (weights / weights.mean()).astype(np.float32)


@torch.no_grad()
def logits_of(net, faces):
    """Logits [N, 8] of u8 faces [N, 48, 48], mirrored faces not averaged: exactly what the daemon will see."""
    net.eval()
    chunks = torch.from_numpy(faces).float().unsqueeze(1).split(256)
    return torch.cat([net(standardize(chunk)) for chunk in chunks]).numpy()


@torch.no_grad()
def training_input(faces, progress):
    """u8 faces [B, 48, 48] -> augmented input, [B, 1, side, side], as it is used at `progress` 0..1 of the training."""
    inputs = augment(faces.float().unsqueeze(1), GENTLE_STRENGTH if progress > 1 - GENTLE_SHARE else 1.0)
    if progress < SMALL_SHARE:
        inputs = F.interpolate(inputs, (SMALL_SIZE, SMALL_SIZE), mode="bilinear", antialias=True)
    return standardize(inputs).contiguous(memory_format=torch.channels_last)  # an eighth faster on a CPU


def train(net, ema, faces, votes, holdout, checkpoint, epochs):
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


# ---- export ---------------------------------------------------------------------------------------------------------


def fit_temperature(logits, votes):
    """The softmax temperature of least cross-entropy against the votes."""
    candidates = np.exp(np.linspace(np.log(0.5), np.log(2.0), 141))
    logits, votes = torch.from_numpy(logits), torch.from_numpy(votes)
    losses = [F.cross_entropy(logits / float(t), votes).item() for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def export(net, temperature, path):
    """Write the net as ONNX: convolutions with everything folded in, ReLU, a global mean and the head."""
    nodes, constants, last = [], {}, "face"
    for i, layer in enumerate(net.body):
        constants[f"conv_{i}_weight"], constants[f"conv_{i}_bias"] = layer.folded()
        inputs = [last, f"conv_{i}_weight", f"conv_{i}_bias"]
        attributes = {"kernel_shape": [3, 3], "strides": [layer.stride] * 2, "pads": [1, 1, 1, 1]}
        nodes.append(helper.make_node("Conv", inputs, [f"conv_{i}"], f"conv_{i}", **attributes))
        nodes.append(helper.make_node("Relu", [f"conv_{i}"], [f"relu_{i}"], f"relu_{i}"))
        last = f"relu_{i}"
    constants["head_weight"] = net.head.weight.detach().numpy()[:, :, None, None] / temperature
    constants["head_bias"] = net.head.bias.detach().numpy() / temperature
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"], "pool"))
    inputs = ["pooled", "head_weight", "head_bias"]
    nodes.append(helper.make_node("Conv", inputs, ["logits"], "head", kernel_shape=[1, 1]))
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("face", kind, [1, 1, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", kind, [1, len(EXPRESSIONS), 1, 1])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="affectd")
    model.ir_version = 8
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def calibration_feeds(faces, count=600):
    """Training faces, half of them augmented, as the graph's input."""
    torch.manual_seed(SEED)
    picked = torch.from_numpy(faces[np.random.default_rng(SEED).permutation(len(faces))[:count]]).float().unsqueeze(1)
    picked[::2] = augment(picked[::2])
    return [{"face": face.numpy()[None]} for face in standardize(picked)]


# ---- evaluation -----------------------------------------------------------------------------------------------------


def concordance(estimates, targets):
    """Lin's concordance correlation coefficient."""
    covariance = ((estimates - estimates.mean()) * (targets - targets.mean())).mean()
    return 2 * covariance / (estimates.var() + targets.var() + (estimates.mean() - targets.mean()) ** 2)


def graph_logits(path, faces):
    """Logits [N, 8] of an ONNX graph on u8 faces [N, 48, 48]."""
    engine = quantize.session(path)
    feeds = ({"face": normalize(face.astype(np.float32))[None, None]} for face in faces)
    return np.concatenate([quantize.run(engine, feed)["logits"].reshape(1, -1) for feed in feeds])


def score(logits, votes, majority, circumplex):
    """Figures of logits [N, 8] against vote distributions [N, 8]; `majority` bool [N] as `load_split` gives it."""
    posteriors = np.exp(logits - logits.max(1, keepdims=True))
    posteriors /= posteriors.sum(1, keepdims=True)
    right = logits.argmax(1) == votes.argmax(1)
    estimates, targets = posteriors @ circumplex, votes @ circumplex
    figures = {
        "accuracy_top_vote": right.mean(),
        "accuracy_strict_majority": right[majority].mean(),
        "ccc_valence": concordance(estimates[:, 0], targets[:, 0]),
        "ccc_arousal": concordance(estimates[:, 1], targets[:, 1]),
        "cross_entropy": -(votes * np.log(np.maximum(posteriors, 1e-12))).sum(1).mean(),
    }
    for i, name in enumerate(EXPRESSIONS):
        figures[f"recall_{name}"] = right[votes.argmax(1) == i].mean()
    return {name: round(float(value), 4) for name, value in figures.items()}


def register(figures):
    bundle.register(
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
                "min_deviation": 10.0,
                "clamp_deviations": 3.0,
            },
            "macs": quantize.macs(bundle.MODELS / f"{NAME}.f32.onnx"),
            "licence": "research only: trained on FER+ (labels MIT) over FER2013 images, which are for research only",
            "source": "trained by affectd on the vote distributions of FER+; valence and arousal are category-derived",
            "figures": figures,
        },
    )


def finish(net, faces, holdout, args):
    """Export, quantize, evaluate, register."""
    f32_path, int8_path = (bundle.MODELS / f"{NAME}.{form}.onnx" for form in ("f32", "int8"))
    temperature = fit_temperature(logits_of(net, holdout[0]), holdout[1])
    print(f"temperature {temperature:.3f}")
    export(net, temperature, f32_path)
    quantize.quantize(f32_path, int8_path, calibration_feeds(faces))
    circumplex = load_circumplex(args.data)
    valid_faces, valid_votes, majority = load_split(args.data, "valid")
    results = {}
    for form, path in (("f32", f32_path), ("int8", int8_path)):
        results[form] = score(graph_logits(path, valid_faces), valid_votes, majority, circumplex)
        print(form, results[form], flush=True)
    command = f"python models/training/face_encoder.py --data DIR --work DIR --epochs {args.epochs}"
    split = f"FER+ valid, {len(valid_faces)} faces"
    figures = [
        {"name": name, "value": value, "f32": results["f32"][name], "split": split, "command": command}
        for name, value in results["int8"].items()
    ]
    register(figures)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--epochs", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export-now", action="store_true", help="export the newest checkpoint, do not train on")
    return parser.parse_args()


def main():
    args = parse()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    faces, votes, _ = load_split(args.data, "train")
    held = np.arange(len(faces)) % HOLDOUT_EVERY == 0
    holdout = faces[held], votes[held]
    net, ema = (FaceEncoder().to(memory_format=torch.channels_last) for _ in range(2))
    ema.load_state_dict(net.state_dict())
    print(f"{sum(p.numel() for p in net.parameters())} parameters, {macs()} MAC, {len(faces)} faces", flush=True)
    checkpoint = args.work / "face_encoder.pt"
    if args.export_now:
        ema.load_state_dict(torch.load(checkpoint, weights_only=True)["ema"])
    else:
        train(net, ema, faces[~held], votes[~held], holdout, checkpoint, args.epochs)
    finish(ema.eval(), faces[~held], holdout, args)


if __name__ == "__main__":
    main()
