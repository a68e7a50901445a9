"""Trains the fusion on your copy of Aff-Wild2, in the setting of the paper (Praveen et al. 2022, arXiv 2203.14779).

    python -m models.training.experiments.aff_wild2 --root DIR --work DIR [--fine-tune] [--steps N]

The int8 encoders turn face crops and sound into features once, cached in --work. The joint cross-attention learns from them
with the loss 1 - CCC. It is measured by the official metric: CCC of valence and arousal over all frames of the validation set
together, and their mean. `--fine-tune` starts from the fusion in --models. The result is a models folder for affectd,
WORK/models.

Files in --root:
    VA_Estimation_Challenge/{Train_Set,Validation_Set}/VIDEO.txt    a header, then "valence,arousal" a frame; -5 is unknown
    cropped_aligned/VIDEO/00001.jpg ...                             the face in the frame of that line, if there is one
    anywhere else, VIDEO.mp4 (or .avi, .mkv, .webm)                 sound, and the time of every frame
VIDEO_left and VIDEO_right are two people in one video. Frames have the timestamps of the video, because many videos have a
variable frame rate. Needs ffmpeg.
"""

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

from .. import arguments
from ..arguments import BadInput
from ..inference import FaceEncoder, Fusion, VoiceEncoder
from ..manifest import read_graphs, sha256
from ..metrics.agreement import ccc
from ..metrics.claimed_variance import FEATURES as VARIANCE_FEATURES
from ..metrics.fusion_accuracy import LOG_VARIANCE
from ..networks.averaging import moving_average
from ..networks.joint_cross_attention import FACE, STEPS, VOICE, JointCrossAttention, exported_weights
from ..networks.quantized import quantized_fusion
from ..preprocessing import voice_activity
from ..preprocessing.face_crop import crop, square
from ..preprocessing.face_scores import SCORES
from ..preprocessing.fusion_features import step_features
from ..quantization.export import export_module
from ..quantization.quantize import quantize

VIDEO_SUFFIXES = {".mp4", ".avi", ".mkv", ".webm"}
SPLITS = {"train": "Train_Set", "validation": "Validation_Set"}
UNKNOWN = -5.0
GRID_S = 0.1  # from one voice embedding to the next
FACE_EVERY_S = 0.12  # affectd analyzes 5 to 10 frames a second
# Right eye, left eye and mouth as fractions of a crop: the usual alignment of 112 x 112 face crops, which have no landmarks.
ALIGNED = np.array([(0.342, 0.462), (0.656, 0.460), (0.500, 0.824)])


# ---- reading --------------------------------------------------------------------------------------------------------


def read_labels(path):
    """Valence and arousal of each frame, f32 [n, 2], from a file with a header; NaN where either is -5."""
    rows = []
    for number, line in enumerate(path.read_text().splitlines()[1:], 2):
        if not line.strip():
            continue
        try:
            valence, arousal = map(float, line.split(","))
        except ValueError:
            raise BadInput(f"{path}: line {number} is {line!r}: expected valence,arousal") from None
        known = UNKNOWN not in (valence, arousal)
        if known and not (abs(valence) <= 1 and abs(arousal) <= 1):
            raise BadInput(f"{path}: line {number} is {line!r}: expected numbers in -1..1, or -5")
        rows.append((valence, arousal) if known else (np.nan, np.nan))
    return np.array(rows, np.float32).reshape(-1, 2)


def find_videos(root):
    """{name: path} of the videos anywhere in `root` except among the crops."""
    found = {}
    for folder in sorted(
        p for p in root.iterdir() if p.is_dir() and p.name not in ("cropped_aligned", "VA_Estimation_Challenge")
    ):
        found |= {p.stem: p for p in sorted(folder.rglob("*")) if p.suffix.lower() in VIDEO_SUFFIXES}
    return found | {p.stem: p for p in sorted(root.iterdir()) if p.suffix.lower() in VIDEO_SUFFIXES}


def video_name(name):
    """The name of the video that an annotation file belongs to."""
    return name.removesuffix("_left").removesuffix("_right")


def probe(path, *entries):
    """What ffprobe reports about a file, as a dict."""
    command = ["ffprobe", "-v", "error", *entries, "-of", "json", str(path)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise BadInput("ffprobe: not installed, but needed for frame times: apt-get install ffmpeg") from None
    if done.returncode != 0:
        raise BadInput(
            f"{path}: ffprobe cannot read it ({(done.stderr.strip().splitlines() or ['no reason given'])[-1]})"
        )
    return json.loads(done.stdout)


def start_of(path):
    """The start time of the file in seconds, from which ffmpeg counts."""
    return float(probe(path, "-show_entries", "format=start_time")["format"].get("start_time", 0.0))


def frame_times(path):
    """The time of each video frame in order, f64 [n] in seconds from the start of the file."""
    packets = probe(path, "-select_streams", "v:0", "-show_entries", "packet=pts_time")["packets"]
    times = sorted(float(packet["pts_time"]) for packet in packets if "pts_time" in packet)
    if not times:
        raise BadInput(f"{path}: no video frame has a timestamp")
    return np.array(times) - start_of(path)


def read_sound(path, rate):
    """Mono samples in -1..1, f32 [n], with sample i at i / rate seconds from the start of the file. Empty without sound.

    Gaps in the timestamps and a late start are filled with silence.
    """
    if not probe(path, "-select_streams", "a:0", "-show_entries", "stream=index")["streams"]:
        return np.zeros(0, np.float32)
    aligned = ["-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", str(rate)]
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a:0", *aligned, "-f", "f32le", "pipe:1"]
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode != 0:
        raise BadInput(
            f"{path}: ffmpeg cannot decode its sound ({done.stderr.decode(errors='replace').strip()[-100:]})"
        )
    return np.frombuffer(done.stdout, "<f4")


def read_crop(path):
    """Luma u8 [H, W] of a face crop, or None if the file does not exist."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L"))
    except FileNotFoundError:
        return None
    except (OSError, UnidentifiedImageError) as error:
        raise BadInput(f"{path}: not an image ({error}): remove it to skip its frame") from None


# ---- features -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Video:
    """The annotations of one person, with face scores at every frame and voice embeddings on a grid of 0.1 s."""

    name: str
    times: np.ndarray  # [n] s
    labels: np.ndarray  # [n, 2], NaN where unknown
    scores: np.ndarray  # [n, 18], NaN where there is no crop
    voice: np.ndarray  # [grid, 64]; point g is for the sound up to g * GRID_S
    voiced: np.ndarray  # [grid] bool

    def scored(self):
        """Indices of the frames with both labels and a crop; only these count."""
        return np.flatnonzero(~np.isnan(self.labels[:, 0]) & ~np.isnan(self.scores[:, 0]))


class Encoders:
    """The int8 encoders of a models folder."""

    def __init__(self, models, activity=voice_activity.activity):
        self.face = FaceEncoder(models)
        self.voice = VoiceEncoder(models, activity=activity)
        self.fusion = Fusion(models)
        if self.fusion.steps != STEPS:
            raise BadInput(f"{models}: the fusion has {self.fusion.steps} steps: joint_cross_attention.py has {STEPS}")

    def scores(self, image):
        """Scores [18] of an aligned face crop, luma u8 [H, W]."""
        height, width = image.shape
        points, framing = ALIGNED * (width, height), self.face.framing
        return self.face.scores(crop(image, square(*points, framing), framing)[None])[0]

    def embed(self, samples):
        """Voice embeddings [grid, 64] and presence [grid] of a recording."""
        rate = self.voice.log_mel.rate_hz
        ends = np.round(np.arange(int(len(samples) / rate / GRID_S) + 1) * GRID_S * rate).astype(int)
        embeddings = self.voice.embeddings(samples, ends)
        voiced = np.array([end in embeddings for end in ends])
        return np.array([embeddings.get(end, np.zeros(VOICE)) for end in ends], np.float32), voiced


def read_video(root, name, annotations, video, encoders):
    """The Video of an annotation file. Lines beyond the last frame of the video have no time and are skipped."""
    labels, times = read_labels(annotations), frame_times(video)
    if len(labels) > len(times):
        print(
            f"{name}: {len(labels)} lines, {len(times)} frames in {video.name}: the other lines are skipped",
            file=sys.stderr,
        )
    count = min(len(labels), len(times))
    scores = np.full((count, SCORES), np.nan, np.float32)
    for i in range(count):
        face = read_crop(root / "cropped_aligned" / name / f"{i + 1:05}.jpg")
        if face is not None:
            scores[i] = encoders.scores(face)
    voice, voiced = encoders.embed(read_sound(video, encoders.voice.log_mel.rate_hz))
    return Video(name, times[:count], labels[:count], scores, voice, voiced)


def read_split(root, split, work, models):
    """All Videos of a split. Their features are cached in `work`, for these encoders."""
    folder = root / "VA_Estimation_Challenge" / SPLITS[split]
    annotated = sorted(folder.glob("*.txt"))
    if not annotated:
        raise BadInput(f"{folder}: no annotations (*.txt): --root must name the folder above VA_Estimation_Challenge")
    hashes = "_".join(sha256(models / f"{graph}.int8.onnx")[:8] for graph in ("face_encoder", "voice_encoder"))
    cache = work / f"features_{hashes}" / split
    cache.mkdir(parents=True, exist_ok=True)
    videos, encoders, result = find_videos(root), None, []
    for annotations in annotated:
        path = cache / f"{annotations.stem}.npz"
        if not path.exists():
            video = videos.get(video_name(annotations.stem))
            if video is None:
                wanted = f"{video_name(annotations.stem)} ({', '.join(sorted(VIDEO_SUFFIXES))})"
                raise BadInput(f"{root}: no video {wanted} for {annotations.name}")
            encoders = encoders or Encoders(models)
            read = read_video(root, annotations.stem, annotations, video, encoders)
            partial = cache / "writing.npz"
            np.savez(partial, **dataclasses.asdict(read))
            partial.rename(path)
            print(f"{split} {read.name}: {len(read.scored())} of {len(read.times)} frames count", flush=True)
        with np.load(path) as arrays:
            result.append(Video(**{**arrays, "name": str(arrays["name"])}))
    return result


def window(video, frame, step_s):
    """The fusion's inputs at a frame: face [42, STEPS], voice [64, STEPS], mask [2, STEPS], oldest step first."""
    face, voice = np.zeros((FACE, STEPS), np.float32), np.zeros((VOICE, STEPS), np.float32)
    mask = np.zeros((2, STEPS), np.float32)
    for step in range(STEPS):
        # Timestamps are rounded: a frame exactly at the end of a step belongs to it.
        end = video.times[frame] - (STEPS - 1 - step) * step_s + 1e-6
        first, last = np.searchsorted(video.times, [end - step_s, end], side="right")
        used, newest = [], np.inf
        for i in range(last - 1, first - 1, -1):
            if newest - video.times[i] >= FACE_EVERY_S and not np.isnan(video.scores[i, 0]):
                used.append(video.scores[i])
                newest = video.times[i]
        if used:
            face[:, step], mask[0, step] = step_features(np.stack(used)), 1
        point = int(np.floor(end / GRID_S + 1e-3))
        if 0 <= point < len(video.voiced) and video.voiced[point]:
            voice[:, step], mask[1, step] = video.voice[point], 1
    return face, voice, mask


def batch_of(windows):
    """[n] windows -> tensors face [n, 42, 1, STEPS], voice [n, 64, 1, STEPS], mask [n, 2, 1, STEPS]."""
    return [torch.from_numpy(np.stack(part))[:, :, None] for part in zip(*windows, strict=True)]


# ---- training -------------------------------------------------------------------------------------------------------


def loss_of(affect, log_variance, target):
    """The paper's 1 - CCC, plus the Gaussian likelihood of the errors, which trains the variance only."""
    affect, log_variance = affect.flatten(1), log_variance.flatten(1).clamp(*LOG_VARIANCE)
    error = (affect - target).square().detach()
    return (1 - ccc(affect, target)).sum() + 0.15 * (log_variance + error * torch.exp(-log_variance)).mean()


def drop_one_modality(face, voice, mask, rng, share=0.25):
    """Remove one modality from a share of the windows, where the other is present in the newest step; in place."""
    for row in np.flatnonzero(rng.random(len(mask)) < share):
        modality = int(rng.integers(2))
        if mask[row, 1 - modality, 0, -1]:
            (face, voice)[modality][row] = 0
            mask[row, modality] = 0


def official(network, videos, step_s, batch=256):
    """The official metric over all counting frames of all videos together: {"valence", "arousal", "mean", "frames"}."""
    affect, target = [], []
    for video in videos:
        frames = video.scored()
        for part in np.split(frames, range(batch, len(frames), batch)):
            affect.append(network(*batch_of([window(video, i, step_s) for i in part])))
            target.append(torch.from_numpy(video.labels[part]))
    valence, arousal = ccc(torch.cat(affect), torch.cat(target)).tolist()
    return {"valence": valence, "arousal": arousal, "mean": (valence + arousal) / 2, "frames": sum(map(len, target))}


def torch_affect(network):
    """The network as a function of a batch: affect [n, 2] in -1..1."""

    @torch.no_grad()
    def affect(*batch):
        return network(*batch)[0].flatten(1).clamp(-1, 1)

    return affect


def int8_affect(path):
    """The quantized graph as a function of a batch: affect [n, 2] in -1..1."""
    fuse = quantized_fusion(path)
    return lambda *batch: fuse(*batch)[0].flatten(1).clamp(-1, 1)


def load_exported_weights(network, path):
    """Load the weights of an exported fusion."""
    constants = {value.name: numpy_helper.to_array(value) for value in onnx.load(path).graph.initializer}
    try:
        network.load_state_dict(exported_weights(constants))
    except ValueError as error:
        raise BadInput(
            f"{path}: not a joint cross-attention of joint_cross_attention.py ({error}): omit --fine-tune"
        ) from None


def train(network, training, validation, step_s, options):
    """Train in place, with checkpoints in --work; the network ends with its best averaged weights on validation."""
    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    pool = [(video, int(frame)) for video in training for frame in video.scored()]
    if len(pool) < 2:
        raise BadInput(
            f"{options.root}: fewer than two training frames have labels and a crop: check cropped_aligned/VIDEO/"
        )
    average = moving_average(network, 0.995)
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
        drop_one_modality(face, voice, mask, rng)
        target = torch.from_numpy(np.stack([video.labels[frame] for video, frame in picks]))
        loss = loss_of(*network(face, voice, mask), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
        if (step + 1) % options.every == 0 or step + 1 == options.steps:
            result = official(torch_affect(average.module.eval()), validation, step_s)
            print(
                f"step {step + 1} loss {loss.item():.3f} validation",
                {k: round(v, 3) for k, v in result.items()},
                flush=True,
            )
            if result["mean"] > best:
                best, best_state = result["mean"], {k: v.clone() for k, v in average.module.state_dict().items()}
            state = {
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            torch.save({**state, "step": step + 1, "best": best, "best_state": best_state}, options.work / "writing.pt")
            (options.work / "writing.pt").rename(checkpoint)
    if best_state is None:
        raise BadInput("--steps: 0 steps leave nothing to measure: use at least 1")
    network.load_state_dict(best_state)


# ---- a models folder ------------------------------------------------------------------------------------------------


def write_models(network, training, step_s, models, folder, seed):
    """Copy the models folder, with the network as its fusion in both forms; returns the path of the int8 graph."""
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
    names = ("face", "voice", "mask")
    example = {name: part[:1] for name, part in zip(names, batch, strict=True)}
    export_module(network.eval(), f32, example, ["affect", "log_variance"])
    arrays = [part[:, None].numpy() for part in batch]
    feeds = [dict(zip(names, parts, strict=True)) for parts in zip(*arrays, strict=True)]
    quantize(f32, int8, feeds)
    spread = np.concatenate([video.labels[video.scored()] for video in training]).var(0)
    # The claimed variance is the network's own: it was trained on ratings of many people.
    entry["preprocessing"]["variance_weights"] = [[float(k == own) for k in range(VARIANCE_FEATURES)] for own in (1, 2)]
    entry["preprocessing"]["prior_variance"] = [round(max(float(v), 1e-4), 4) for v in spread]
    entry["sha256"], entry["f32"]["sha256"] = sha256(int8), sha256(f32)
    entry |= {
        "source": "trained by aff_wild2.py on Aff-Wild2",
        "licence": "as Aff-Wild2: for research only",
        "figures": [],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return int8


def main():
    parser = arguments.parser(__doc__)
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="the copy of Aff-Wild2")
    arguments.add_work(parser)
    arguments.add_models(parser)
    parser.add_argument("--fine-tune", action="store_true", help="start from the fusion in --models")
    parser.add_argument("--steps", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument(
        "--every", type=int, default=2000, metavar="STEPS", help="steps between validations; default: %(default)s"
    )
    parser.add_argument("--batch", type=int, default=128, help="default: %(default)s")
    parser.add_argument(
        "--rate", type=float, default=None, help="peak learning rate; default: 1e-3, or 1e-4 with --fine-tune"
    )
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    options = parser.parse_args()
    options.rate = options.rate or (1e-4 if options.fine_tune else 1e-3)
    options.work.mkdir(parents=True, exist_ok=True)
    training, validation = (read_split(options.root, split, options.work, options.models) for split in SPLITS)
    step_s = read_graphs(options.models)["fusion"]["preprocessing"]["step_s"]
    network = JointCrossAttention()
    if options.fine_tune:
        load_exported_weights(network, options.models / "fusion.f32.onnx")
    train(network, training, validation, step_s, options)
    int8 = write_models(network, training, step_s, options.models, options.work / "models", options.seed)
    print(
        json.dumps(
            {"validation": official(int8_affect(int8), validation, step_s), "models": str(options.work / "models")}
        )
    )


if __name__ == "__main__":
    arguments.run(main)
