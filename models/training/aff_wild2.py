"""Train the fusion on a lab's own copy of Aff-Wild2, in the setting of the paper (Praveen et al. 2022, arXiv 2203.14779):

    python models/training/aff_wild2.py --root DIR --work DIR [--fine-tune] [--steps N]

Our int8 encoders turn frame crops and sound into features once, kept in --work; the joint cross-attention learns from them
by 1 - CCC, and is measured by the official metric: CCC of valence and arousal over all frames of the validation set put
together, and their mean. --fine-tune starts from the fusion that ships. The result is a models folder for affectd, WORK/models.

In --root:
    VA_Estimation_Challenge/{Train_Set,Validation_Set}/VIDEO.txt    a header, then "valence,arousal" a frame; -5 is unknown
    cropped_aligned/VIDEO/00001.jpg ...                             the face in the frame of that line, where there is one
    anywhere else, VIDEO.mp4 (or .avi, .mkv, .webm)                 sound, and the time of every frame
VIDEO_left and VIDEO_right are two people in one video. Frames are timed by the video's own timestamps, since many of the
videos have no steady rate. Needs ffmpeg, and what requirements.txt lists.
"""

import argparse
import dataclasses
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from PIL import Image, UnidentifiedImageError
from torch import nn

import bundle
import quantize
import shipped_graphs
import static_export
from face_crop import Framing, crop, square
from joint_cross_attention import FACE, STEPS, VOICE, JointCrossAttention
from shipped_graphs import BadInput

VIDEO_ENDINGS = {".mp4", ".avi", ".mkv", ".webm"}
SPLITS = {"train": "Train_Set", "validation": "Validation_Set"}
UNKNOWN = -5.0
GRID_S = 0.1  # from one voice embedding to the next
FACE_EVERY_S = 0.12  # affectd looks at 5 to 10 pictures a second
# Right eye, left eye, mouth in a crop, as fractions: the usual alignment of 112 x 112 face crops, which carry no key points.
ALIGNED = np.array([(0.342, 0.462), (0.656, 0.460), (0.500, 0.824)])
LOG_VARIANCE = (-6.0, 1.0)


# ---- reading --------------------------------------------------------------------------------------------------------


def read_labels(path):
    """Valence and arousal a frame, f32 [n, 2], from a file with a header; NaN where either is -5."""
    rows = []
    for number, line in enumerate(path.read_text().splitlines()[1:], 2):
        if not line.strip():
            continue
        try:
            valence, arousal = map(float, line.split(","))
        except ValueError:
            raise BadInput(f"{path}: line {number} is {line!r}, expected valence,arousal") from None
        known = valence != UNKNOWN and arousal != UNKNOWN
        if known and not (abs(valence) <= 1 and abs(arousal) <= 1):
            raise BadInput(f"{path}: line {number} is {line!r}, expected numbers in -1..1, or -5")
        rows.append((valence, arousal) if known else (np.nan, np.nan))
    return np.array(rows, np.float32).reshape(-1, 2)


def find_videos(root):
    """{plain name: path} of the videos anywhere in `root` but among the crops."""
    found = {}
    for folder in sorted(
        p for p in root.iterdir() if p.is_dir() and p.name not in ("cropped_aligned", "VA_Estimation_Challenge")
    ):
        found |= {p.stem: p for p in sorted(folder.rglob("*")) if p.suffix.lower() in VIDEO_ENDINGS}
    return found | {p.stem: p for p in sorted(root.iterdir()) if p.suffix.lower() in VIDEO_ENDINGS}


def plain(name):
    """The video that a name of annotations belongs to."""
    return name.removesuffix("_left").removesuffix("_right")


def probe(path, *entries):
    command = ["ffprobe", "-v", "error", *entries, "-of", "json", str(path)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise BadInput("ffprobe is not installed, and tells the frames' times: apt-get install ffmpeg") from None
    if done.returncode != 0:
        raise BadInput(
            f"{path}: ffprobe cannot read it ({(done.stderr.strip().splitlines() or ['no reason given'])[-1]})"
        )
    return json.loads(done.stdout)


def start_of(path):
    """The file's own zero, in seconds, from which ffmpeg counts."""
    return float(probe(path, "-show_entries", "format=start_time")["format"].get("start_time", 0.0))


def frame_times(path):
    """When each picture of a video is shown, in order, f64 [n] in seconds from the file's zero."""
    packets = probe(path, "-select_streams", "v:0", "-show_entries", "packet=pts_time")["packets"]
    times = sorted(float(packet["pts_time"]) for packet in packets if "pts_time" in packet)
    if not times:
        raise BadInput(f"{path}: no picture in it has a timestamp")
    return np.array(times) - start_of(path)


def read_sound(path, rate):
    """Mono samples in -1..1, f32 [n]; sample i is at i / rate seconds from the file's zero. Empty without sound.

    Where the sound's timestamps leave a gap, or it starts late, there is silence.
    """
    if not probe(path, "-select_streams", "a:0", "-show_entries", "stream=index")["streams"]:
        return np.zeros(0, np.float32)
    placed = ["-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", str(rate)]
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a:0", *placed, "-f", "f32le", "pipe:1"]
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode != 0:
        raise BadInput(
            f"{path}: ffmpeg cannot decode its sound ({done.stderr.decode(errors='replace').strip()[-100:]})"
        )
    return np.frombuffer(done.stdout, "<f4")


def read_crop(path):
    """Luma u8 [H, W] of a face crop, or None if there is none."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"))
    except FileNotFoundError:
        return None
    except (OSError, UnidentifiedImageError) as error:
        raise BadInput(f"{path}: not a picture ({error}); remove it, and its frame is skipped") from None


# ---- features -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Video:
    """One person's annotations, with what our encoders make of the face at every frame and the voice on a grid of time."""

    name: str
    times: np.ndarray  # [n] s
    labels: np.ndarray  # [n, 2], NaN where unknown
    posteriors: np.ndarray  # [n, 8], NaN where there is no crop
    voice: np.ndarray  # [grid, 64]; point g is the sound up to g * GRID_S
    voiced: np.ndarray  # [grid] bool

    def scored(self):
        """Frames that count: with both labels and a crop."""
        return np.flatnonzero(~np.isnan(self.labels[:, 0]) & ~np.isnan(self.posteriors[:, 0]))


class Encoders:
    """The int8 encoders of a models folder, and how they frame and time things."""

    def __init__(self, models, activity=None):
        self.face = shipped_graphs.FaceEncoder(models)
        self.voice = shipped_graphs.VoiceEncoder(models, activity=activity)
        self.fusion = shipped_graphs.Fusion(models)
        if self.fusion.steps != STEPS:
            raise BadInput(f"{models}: its fusion has {self.fusion.steps} steps, joint_cross_attention.py has {STEPS}")
        p = shipped_graphs.manifest(models)["face_encoder"]["preprocessing"]
        self.framing = Framing(p["side_per_eye_distance"], p["side_per_eye_mouth"], tuple(p["eye_mid"]))

    def posteriors(self, picture):
        height, width = picture.shape
        points = ALIGNED * (width, height)
        return self.face.posteriors(crop(picture, square(*points, self.framing), self.framing)[None])[0]

    def hear(self, samples):
        """Embeddings [grid, 64] and presence [grid]."""
        ends = np.round(np.arange(int(len(samples) / self.voice.rate / GRID_S) + 1) * GRID_S * self.voice.rate).astype(
            int
        )
        heard = self.voice.embeddings(samples, ends)
        voiced = np.array([end in heard for end in ends])
        return np.array([heard.get(end, np.zeros(VOICE)) for end in ends], np.float32), voiced


def read_video(root, name, annotations, video, encoders):
    """The Video of a file of annotations. Lines beyond the last picture of the video have no time and are left out."""
    labels, times = read_labels(annotations), frame_times(video)
    if len(labels) > len(times):
        print(
            f"{name}: {len(labels)} lines, {len(times)} pictures in {video.name}: the rest is left out", file=sys.stderr
        )
    count = min(len(labels), len(times))
    posteriors = np.full((count, len(encoders.face.labels)), np.nan, np.float32)
    for i in range(count):
        picture = read_crop(root / "cropped_aligned" / name / f"{i + 1:05}.jpg")
        if picture is not None:
            posteriors[i] = encoders.posteriors(picture)
    voice, voiced = encoders.hear(read_sound(video, encoders.voice.rate))
    return Video(name, times[:count], labels[:count], posteriors, voice, voiced)


def read_split(root, split, work, models):
    """All Videos of a split; what the encoders made of them is kept in --work, for these very encoders."""
    folder = root / "VA_Estimation_Challenge" / SPLITS[split]
    annotated = sorted(folder.glob("*.txt"))
    if not annotated:
        raise BadInput(f"{folder}: no annotations (*.txt); --root must name the folder above VA_Estimation_Challenge")
    hashes = "_".join(bundle.sha256(models / f"{graph}.int8.onnx")[:8] for graph in ("face_encoder", "voice_encoder"))
    kept = work / f"read_by_{hashes}" / split
    kept.mkdir(parents=True, exist_ok=True)
    videos, encoders, result = find_videos(root), None, []
    for annotations in annotated:
        path = kept / f"{annotations.stem}.npz"
        if not path.exists():
            video = videos.get(plain(annotations.stem))
            if video is None:
                raise BadInput(
                    f"{root}: no video {plain(annotations.stem)} ({', '.join(sorted(VIDEO_ENDINGS))}) for {annotations.name}"
                )
            encoders = encoders or Encoders(models)
            read = read_video(root, annotations.stem, annotations, video, encoders)
            partial = kept / "writing.npz"
            np.savez(partial, **dataclasses.asdict(read))
            partial.rename(path)
            print(f"{split} {read.name}: {len(read.scored())} of {len(read.times)} frames count", flush=True)
        with np.load(path) as arrays:
            result.append(Video(**{**arrays, "name": str(arrays["name"])}))
    return result


def window(video, frame, step_s):
    """What affectd would know at a frame: face [21, STEPS], voice [64, STEPS], mask [2, STEPS], oldest step first."""
    face, voice = np.zeros((FACE, STEPS), np.float32), np.zeros((VOICE, STEPS), np.float32)
    mask = np.zeros((2, STEPS), np.float32)
    for step in range(STEPS):
        # Timestamps are rounded; a picture at the very end of a step belongs to it.
        end = video.times[frame] - (STEPS - 1 - step) * step_s + 1e-6
        first, last = np.searchsorted(video.times, [end - step_s, end], side="right")
        seen, newest = [], np.inf
        for i in range(last - 1, first - 1, -1):
            if newest - video.times[i] >= FACE_EVERY_S and not np.isnan(video.posteriors[i, 0]):
                seen.append(video.posteriors[i])
                newest = video.times[i]
        if seen:
            face[:, step], mask[0, step] = shipped_graphs.face_features(np.stack(seen)), 1
        point = int(np.floor(end / GRID_S + 1e-3))
        if 0 <= point < len(video.voiced) and video.voiced[point]:
            voice[:, step], mask[1, step] = video.voice[point], 1
    return face, voice, mask


def batch_of(windows):
    """[n] windows -> tensors face [n, 21, 1, STEPS], voice [n, 64, 1, STEPS], mask [n, 2, 1, STEPS]."""
    return [torch.from_numpy(np.stack(part))[:, :, None] for part in zip(*windows, strict=True)]


# ---- training -------------------------------------------------------------------------------------------------------


def ccc(prediction, target):
    """Lin's concordance correlation of each column, [n, k], [n, k] -> [k]; population moments."""
    mean_p, mean_t = prediction.mean(0), target.mean(0)
    covariance = ((prediction - mean_p) * (target - mean_t)).mean(0)
    spread = prediction.var(0, unbiased=False) + target.var(0, unbiased=False)
    return 2 * covariance / (spread + (mean_p - mean_t).square() + 1e-8)


def loss_of(affect, log_variance, target):
    """The paper's 1 - CCC; and the Gaussian likelihood of the errors, which teaches the variance what to expect of them."""
    affect, log_variance = affect.flatten(1), log_variance.flatten(1).clamp(*LOG_VARIANCE)
    error = (affect - target).square().detach()
    return (1 - ccc(affect, target)).sum() + 0.15 * (log_variance + error * torch.exp(-log_variance)).mean()


def drop_voice_or_face(face, voice, mask, rng, share=0.25):
    """Takes one modality from a share of the windows, where the other is there in the newest step; in place."""
    for row in np.flatnonzero(rng.random(len(mask)) < share):
        modality = int(rng.integers(2))
        if mask[row, 1 - modality, 0, -1]:
            (face, voice)[modality][row] = 0
            mask[row, modality] = 0


def official(network, videos, step_s, batch=256):
    """CCC over all frames that count, of all videos put together, and their mean: {"valence", "arousal", "mean", "frames"}."""
    affect, target = [], []
    for video in videos:
        frames = video.scored()
        for part in np.split(frames, range(batch, len(frames), batch)):
            affect.append(network(*batch_of([window(video, i, step_s) for i in part])))
            target.append(torch.from_numpy(video.labels[part]))
    valence, arousal = ccc(torch.cat(affect), torch.cat(target)).tolist()
    return {"valence": valence, "arousal": arousal, "mean": (valence + arousal) / 2, "frames": sum(map(len, target))}


def torch_affect(network):
    @torch.no_grad()
    def affect(*batch):
        return network(*batch)[0].flatten(1).clamp(-1, 1)

    return affect


def int8_affect(path):
    """The quantized graph as a function of a batch, window by window."""
    engine = quantize.session(path)

    def affect(*batch):
        feeds = (dict(zip(("face", "voice", "mask"), parts)) for parts in zip(*(p[:, None].numpy() for p in batch)))
        return torch.from_numpy(np.stack([engine.run(["affect"], feed)[0].ravel() for feed in feeds])).clamp(-1, 1)

    return affect


def shipped_weights(network, path):
    """Loads the weights of an exported fusion, whose constants carry the parameters' names."""
    constants = {value.name: numpy_helper.to_array(value) for value in onnx.load(path).graph.initializer}
    missing = [name for name in network.state_dict() if name not in constants]
    if missing:
        raise BadInput(
            f"{path}: not a joint cross-attention of joint_cross_attention.py (no {missing[0]}): leave --fine-tune out"
        )
    network.load_state_dict({name: torch.from_numpy(constants[name].copy()) for name in network.state_dict()})


def train(network, training, validation, step_s, options):
    """Trains in place, checkpoints in --work, and leaves the network with its best averaged weights on validation."""
    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    pool = [(video, int(frame)) for video in training for frame in video.scored()]
    if len(pool) < 2:
        raise BadInput(
            f"{options.root}: fewer than two training frames count; are the crops in cropped_aligned/VIDEO/?"
        )
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=0.05)
    checkpoint = options.work / "aff_wild2.pt"
    first, best, best_state = 0, -math.inf, None
    if checkpoint.exists():
        state = torch.load(checkpoint)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first, best, best_state = state["step"], state["best"], state["best_state"]
        rng = np.random.default_rng([options.seed, first])
    for step in range(first, options.steps):
        network.train()
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 200)
            group["lr"] = options.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / options.steps)))
        picks = [pool[i] for i in rng.integers(len(pool), size=options.batch)]
        face, voice, mask = batch_of([window(video, frame, step_s) for video, frame in picks])
        drop_voice_or_face(face, voice, mask, rng)
        target = torch.from_numpy(np.stack([video.labels[frame] for video, frame in picks]))
        loss = loss_of(*network(face, voice, mask), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
        if (step + 1) % options.every == 0 or step + 1 == options.steps:
            found = official(torch_affect(average.module.eval()), validation, step_s)
            print(
                f"step {step + 1} loss {loss.item():.3f} validation",
                {k: round(v, 3) for k, v in found.items()},
                flush=True,
            )
            if found["mean"] > best:
                best, best_state = found["mean"], {k: v.clone() for k, v in average.module.state_dict().items()}
            state = {
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            torch.save({**state, "step": step + 1, "best": best, "best_state": best_state}, options.work / "writing.pt")
            (options.work / "writing.pt").rename(checkpoint)
    if best_state is None:
        raise BadInput("nothing was measured on validation: give --steps at least 1")
    network.load_state_dict(best_state)


# ---- a models folder ------------------------------------------------------------------------------------------------


def write_models(network, training, step_s, models, folder, seed):
    """Copies the models folder, with the network as its fusion, both forms; returns the path of the int8 one."""
    rng = np.random.default_rng(seed)
    pool = [(video, int(frame)) for video in training for frame in video.scored()]
    windows = [window(*pool[i], step_s) for i in rng.integers(len(pool), size=min(600, 4 * len(pool)))]
    folder.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((models / "manifest.json").read_text())
    for graph in manifest["graphs"].values():
        for file in (graph["file"], graph["f32"]["file"]):
            if (models / file).exists():
                shutil.copy(models / file, folder / file)
    entry = manifest["graphs"]["fusion"]
    f32, int8 = folder / entry["f32"]["file"], folder / entry["file"]
    batch = batch_of(windows)
    static_export.export(
        network.eval(), f32, {n: p[:1] for n, p in zip(("face", "voice", "mask"), batch)}, ["affect", "log_variance"]
    )
    feeds = [dict(zip(("face", "voice", "mask"), parts)) for parts in zip(*(p[:, None].numpy() for p in batch))]
    quantize.quantize(f32, int8, feeds)
    spread = np.concatenate([video.labels[video.scored()] for video in training]).var(0)
    entry["preprocessing"]["prior_variance"] = [round(max(float(v), 1e-4), 4) for v in spread]
    entry["sha256"], entry["f32"]["sha256"] = bundle.sha256(int8), bundle.sha256(f32)
    entry |= {"source": "aff_wild2.py, on Aff-Wild2", "licence": "as Aff-Wild2: for research only", "figures": []}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return int8


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the copy of Aff-Wild2")
    parser.add_argument("--work", type=Path, required=True, help="features, checkpoints, the result")
    parser.add_argument("--models", type=Path, default=bundle.MODELS, help="the encoders, and the fusion to start from")
    parser.add_argument("--fine-tune", action="store_true", help="start from the fusion in --models, not from nothing")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=2000, metavar="STEPS", help="from one validation to the next")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=None, help="default 1e-3, or 1e-4 with --fine-tune")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.rate = options.rate or (1e-4 if options.fine_tune else 1e-3)
    try:
        options.work.mkdir(parents=True, exist_ok=True)
        training, validation = (read_split(options.root, split, options.work, options.models) for split in SPLITS)
        step_s = shipped_graphs.manifest(options.models)["fusion"]["preprocessing"]["step_s"]
        network = JointCrossAttention()
        if options.fine_tune:
            shipped_weights(network, options.models / "fusion.f32.onnx")
        train(network, training, validation, step_s, options)
        int8 = write_models(network, training, step_s, options.models, options.work / "models", options.seed)
        print(
            json.dumps(
                {"validation": official(int8_affect(int8), validation, step_s), "models": str(options.work / "models")}
            )
        )
    except BadInput as error:
        sys.exit(f"aff_wild2.py: {error}")


if __name__ == "__main__":
    main()
