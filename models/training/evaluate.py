"""Scores your data with the shipped int8 graphs. The last line of output is one JSON object.

    python -m models.training.evaluate faces --atlas PNG --votes CSV [--head votes] [--disturb]
    python -m models.training.evaluate voice --tar TAR [--tsv TSV] [--speakers 22,23,24]
    python -m models.training.evaluate clips --dir DIR [--labels CSV] [--affectd target/release/affectd]

DATA.md describes the formats. Needs onnxruntime, numpy and pillow. `voice` also needs ffmpeg and earshot, `clips` needs the
affectd binary.

Targets are category-derived: each category is a point of valence and arousal (--targets CSV: emotion, valence, arousal). A
face gets the mean of these points, weighted by its votes. Acted speech gets the point of its category, x 0.7 at normal,
x 1.0 at strong and x 0.85 at unstated intensity (--no-intensity: the point itself).
"""

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from . import arguments
from .arguments import BadInput
from .augmentation import camera_faults
from .data.face_atlas import read_faces
from .inference import FaceEncoder, Fusion, VoiceEncoder, decode_sound, voice_only_estimates
from .labels import canonical, describe, number, read_table, read_targets, target
from .metrics.agreement import affect_ccc
from .preprocessing import voice_activity
from .preprocessing.face_scores import HEADS

SOUND_SUFFIXES = {".opus", ".ogg", ".wav", ".flac", ".mp3", ".m4a"}
VIDEO_SUFFIXES = {".mkv", ".mpg", ".mpeg", ".mp4", ".m4v", ".mov", ".avi", ".webm", ".ts", ".mjpg", ".mjpeg"}
CLIP_SUFFIXES = VIDEO_SUFFIXES | SOUND_SUFFIXES


def rounded(value):
    """A report with all numbers rounded to four digits."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def shown(value):
    """A number for a printed table."""
    return "–" if value is None else f"{value:.3f}"


def scaled_target(targets, emotion, intensity, options):
    """The point of a recording's category, scaled by its intensity unless --no-intensity: [2]."""
    return np.array(target(targets, emotion)) * (intensity if options.intensity else 1.0)


# ---- faces ----------------------------------------------------------------------------------------------------------


def score_faces(posteriors, votes, majority, points, labels):
    """The report on posteriors [n, 8] against votes [n, 8]; `points` [8, 2] are valence and arousal of the labels."""
    right, voted = posteriors.argmax(1) == votes.argmax(1), votes.argmax(1)
    return {
        "n": len(votes),
        "accuracy": float(right.mean()),
        "accuracy_strict_majority": float(right[majority].mean()) if majority.any() else None,
        "n_strict_majority": int(majority.sum()),
        **affect_ccc(posteriors @ points, votes / votes.sum(1, keepdims=True) @ points),
        "recall": {
            label: float(right[voted == i].mean()) if (voted == i).any() else None for i, label in enumerate(labels)
        },
    }


def faces(options):
    """The report on an atlas of labelled faces."""
    encoder = FaceEncoder(options.models, options.form)
    targets = read_targets(options.targets)
    points = np.array([target(targets, label) for label in encoder.labels])
    images, votes, majority = read_faces(options.atlas, options.votes, encoder.labels, encoder.size)
    picked = slice(None, None, options.every)
    images, votes, majority = images[picked], votes[picked], majority[picked]

    def posteriors(images):
        one_view = encoder.posteriors(images, options.head)
        other = encoder.posteriors(images[:, :, ::-1], options.head) if options.both_views else one_view
        return (one_view + other) / 2

    def score(images):
        return score_faces(posteriors(images), votes, majority, points, encoder.labels)

    result = score(images)
    print(
        f"{result['n']} faces; recall", " ".join(f"{name} {shown(value)}" for name, value in result["recall"].items())
    )
    if not options.disturb:
        return result
    result["disturbed"] = {}
    columns = ("accuracy", "accuracy_strict_majority", "ccc_valence", "ccc_arousal")
    print("| disturbed by | strength | accuracy | strict majority | CCC valence | CCC arousal |\n" + "| --- " * 6 + "|")
    print("| nothing | |", " | ".join(shown(result[c]) for c in columns), "|", flush=True)
    for name, (_, unit, strengths) in camera_faults.DISTURBANCES.items():
        for strength in strengths:
            found = score(camera_faults.disturb(images, name, strength))
            result["disturbed"].setdefault(name, {})[f"{strength} {unit}"] = {c: found[c] for c in columns}
            print(f"| {name} | {strength} {unit} |", " | ".join(shown(found[c]) for c in columns), "|", flush=True)
    return result


# ---- voice ----------------------------------------------------------------------------------------------------------


def read_emotions(path):
    """{file name without suffix: (speaker, emotion)} of nEMO's table."""
    rows = read_table(path)
    missing = {"file_id", "emotion"} - set(rows[0])
    if missing:
        raise BadInput(f"{path}: no column {', '.join(sorted(missing))}: expected file_id, emotion, speaker_id")
    return {
        Path(row["file_id"]).stem: (row.get("speaker_id") or row["file_id"].split("_")[0], canonical(row["emotion"]))
        for row in rows
        if row.get("file_id") and row.get("emotion")
    }


def recordings(path, emotions, speakers):
    """Yields (name, bytes, emotion, intensity) of the recordings in a tar whose names state an emotion."""
    unnamed = 0
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if not member.isfile() or Path(member.name).suffix.lower() not in SOUND_SUFFIXES:
                    continue
                known = describe(member.name, emotions)
                if known is None:
                    unnamed += 1
                elif speakers is None or known[1] in speakers:
                    yield member.name, tar.extractfile(member).read(), *known[2:]
    except (OSError, tarfile.TarError) as error:
        raise BadInput(f"{path}: cannot be read as a tar ({error})") from None
    if unnamed:
        print(f"{path}: {unnamed} recordings skipped: their names state no emotion", file=sys.stderr)


def voice_detector():
    """(name of the voice activity detector, the function that computes its scores)."""
    if importlib.util.find_spec("earshot") is None:
        print(
            "earshot: not installed: voices are detected by loudness, unlike in affectd: pip install earshot",
            file=sys.stderr,
        )
        return "loudness", voice_activity.activity_by_loudness
    return "earshot", voice_activity.activity


def voice(options):
    """The report on a tar of acted speech."""
    kind, activity = voice_detector()
    encoder = VoiceEncoder(options.models, options.form, activity)
    fusion = Fusion(options.models, options.form)
    targets = read_targets(options.targets)
    emotions = read_emotions(options.tsv) if options.tsv else None
    speakers = set(options.speakers.split(",")) if options.speakers else None
    windows, utterances, by_emotion, without_voice = [], [], defaultdict(list), 0
    for name, content, emotion, intensity in recordings(options.tar, emotions, speakers):
        goal = scaled_target(targets, emotion, intensity, options)
        samples = decode_sound(content, name, encoder.log_mel.rate_hz)
        estimates = voice_only_estimates(samples, encoder, fusion)
        if not len(estimates):
            without_voice += 1
            continue
        windows += [(estimate, goal) for estimate in estimates]
        utterances.append((estimates.mean(0), goal))
        by_emotion[emotion].append(estimates.mean(0))
    if not utterances:
        wanted = f" of speakers {options.speakers}" if speakers else ""
        raise BadInput(
            f"{options.tar}: no recording{wanted} with a voice and a RAVDESS or nEMO name ({', '.join(sorted(SOUND_SUFFIXES))})"
        )
    for emotion, values in by_emotion.items():
        mean = np.mean(values, 0)
        print(f"{emotion} {len(values)} utterances, mean valence {mean[0]:.3f}, mean arousal {mean[1]:.3f}")
    return {
        "n": len(utterances),
        **affect_ccc(*zip(*utterances, strict=True)),
        "per_window": {"n": len(windows), **affect_ccc(*zip(*windows, strict=True))},
        "without_voice": without_voice,
        "voice_activity": kind,
        "intensity": options.intensity,
    }


# ---- clips ----------------------------------------------------------------------------------------------------------


def mean(values):
    """Mean of the values that are not None, or None."""
    values = [v for v in values if v is not None]
    return sum(values) / len(values) if values else None


def replay(affectd, clip):
    """Replay a clip: (its estimates, the share of analyzed frames with a face or None without frames)."""
    every_frame = {**os.environ, "AFFECTD_FACE_RATE_HZ": "60"}
    try:
        done = subprocess.run(
            [affectd, "run", "--input", clip], check=False, capture_output=True, text=True, env=every_frame
        )
    except OSError as error:
        raise BadInput(f"{affectd}: {error.strerror}: run cargo build --release, or name it with --affectd") from None
    messages = done.stderr.strip().splitlines() or ["no message"]
    if done.returncode != 0:
        raise BadInput(f"{clip}: affectd ended with exit code {done.returncode}: {messages[-1]}")
    # The summary of affectd: "... 52 frames, 50 analyzed, 48 with a face, ...".
    counts = re.search(r"(\d+) [^,;]+, (\d+) with a face", done.stderr)
    analyzed, with_face = map(int, counts.groups()) if counts else (0, 0)
    return [json.loads(line) for line in done.stdout.splitlines()], with_face / analyzed if analyzed else None


def weighted(estimates, key):
    """The mean over the estimates of a clip, weighted by confidence; the plain mean if all confidences are 0."""
    total = sum(line["confidence"] for line in estimates)
    if total == 0:
        return mean([line[key] for line in estimates])
    return sum(line["confidence"] * line[key] for line in estimates) / total


def summarize(clip, lines, frames_with_face):
    """One row of the report: means over the estimates of a clip."""
    estimates = [line for line in lines if line["valence"] is not None]
    return {
        "clip": clip.name,
        "frames_with_face": frames_with_face,
        "faces": mean([line["face"] is not None for line in lines]),
        "valence": weighted(estimates, "valence"),
        "arousal": weighted(estimates, "arousal"),
        "plain_valence": mean([line["valence"] for line in estimates]),
        "plain_arousal": mean([line["arousal"] for line in estimates]),
        "absolute_valence": mean([abs(line["valence"]) for line in estimates]),
        "absolute_arousal": mean([abs(line["arousal"]) for line in estimates]),
    }


def read_labels(path, targets):
    """{file name: (category or None, [valence, arousal])} of a table: clip and either emotion, or valence and arousal."""
    labels = {}
    for line, row in enumerate(read_table(path), start=2):
        name, emotion = row.get("clip"), canonical(row.get("emotion") or "") or None
        if not name or not (emotion or {"valence", "arousal"} <= row.keys()):
            raise BadInput(f"{path}: line {line}: expected the columns clip and emotion, or clip, valence and arousal")
        rated = [number(row, column, path, line) for column in ("valence", "arousal")]
        labels[name] = (emotion, np.array(target(targets, emotion) if emotion else rated))
    return labels


def goal_of(clip, labels, targets, options):
    """(category or None, [valence, arousal]) that a clip is compared with, or None without a label."""
    if clip.name in labels:
        return labels[clip.name]
    known = describe(clip.name)
    if not known:
        return None
    _, _, emotion, intensity = known
    return emotion, scaled_target(targets, emotion, intensity, options)


def clips(options):
    """The report on a folder of clips: replays each and analyzes every frame.

    Clips in the table of --labels, or with RAVDESS or nEMO names, are compared with their targets. The estimate of a clip is the
    mean of its estimates, weighted by confidence, because the first second of a clip is uncertain.
    """
    try:
        files = sorted(p for p in Path(options.dir).iterdir() if p.is_file())
    except OSError as error:
        raise BadInput(f"{options.dir}: {error.strerror}: --dir must name a folder of clips") from None
    found = [p for p in files if p.suffix.lower() in CLIP_SUFFIXES]
    if len(found) < len(files):
        left_out = sorted({p.suffix or p.name for p in files} - {p.suffix for p in found})
        print(f"{len(files) - len(found)} files are no clips and left out: {', '.join(left_out)}")
    if not found:
        raise BadInput(f"{options.dir}: no clips ({', '.join(sorted(CLIP_SUFFIXES))})")
    targets = read_targets(options.targets)
    labels = read_labels(options.labels, targets) if options.labels else {}
    missing = sorted(labels.keys() - {clip.name for clip in found})
    if missing:
        raise BadInput(f"{options.labels}: {missing[0]}: no such clip in {options.dir}")
    rows, ticks, whole, plain, by_emotion, unlabelled = [], [], [], [], defaultdict(list), 0
    for clip in found:
        lines, frames_with_face = replay(options.affectd, clip)
        row = summarize(clip, lines, frames_with_face)
        rows.append(row)
        print(
            " ".join(f"{value}" if key == "clip" else f"{key} {shown(value)}" for key, value in row.items()), flush=True
        )
        labelled = goal_of(clip, labels, targets, options)
        if labelled is None:
            unlabelled += 1
        else:
            emotion, goal = labelled
            if emotion:
                by_emotion[emotion].append(row)
            ticks += [((line["valence"], line["arousal"]), goal) for line in lines if line["valence"] is not None]
            if row["valence"] is not None:
                whole.append(((row["valence"], row["arousal"]), goal))
                plain.append(((row["plain_valence"], row["plain_arousal"]), goal))

    if unlabelled:
        print(
            f"{unlabelled} of {len(found)} clips have no label: give a table with --labels, or names like RAVDESS or nEMO"
        )

    def over(key, *emotions):
        return mean([row[key] for emotion in emotions for row in by_emotion[emotion]])

    result = {
        "clips": len(rows),
        "frames_with_face_least": min(
            (r["frames_with_face"] for r in rows if r["frames_with_face"] is not None), default=None
        ),
        "faces_mean": mean([row["faces"] for row in rows if row["frames_with_face"] is not None]),
        "faces_least": min((r["faces"] or 0.0 for r in rows if r["frames_with_face"] is not None), default=None),
        "absolute_valence": mean([row["absolute_valence"] for row in rows]),
        "absolute_arousal": mean([row["absolute_arousal"] for row in rows]),
    }
    if whole:
        result |= {
            "by_emotion": {
                emotion: {"valence": over("valence", emotion), "arousal": over("arousal", emotion), "clips": len(of)}
                for emotion, of in sorted(by_emotion.items())
            },
            "valence_happy": over("valence", "happiness"),
            "valence_negative": over("valence", "anger", "sadness", "fear", "disgust"),
            "arousal_angry_fearful": over("arousal", "anger", "fear"),
            "arousal_sad_neutral": over("arousal", "sadness", "neutral"),
            **affect_ccc(*zip(*whole, strict=True)),
            "of_plain_means": affect_ccc(*zip(*plain, strict=True)),
            "per_estimate": {"n": len(ticks), **affect_ccc(*zip(*ticks, strict=True))},
            "intensity": options.intensity,
        }
    return result


def parse():
    parser = arguments.parser(__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    command = commands.add_parser("faces", help="an atlas of grey faces with votes")
    command.add_argument("--atlas", type=Path, required=True, help="grey image of 48 x 48 faces, 100 a row")
    command.add_argument("--votes", type=Path, required=True, help="table: index, votes by expression, unknown, NF")
    command.add_argument(
        "--disturb", action="store_true", help="also measure under the faults of a cheap camera, at several strengths"
    )
    command.add_argument(
        "--both-views",
        action="store_true",
        help="average the posteriors of a face and its mirror image (two inferences)",
    )
    command.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth face")
    command.add_argument(
        "--head",
        choices=HEADS,
        default="reported",
        help="the expression as reported (default), as FER+ annotators vote, or as networks trained on AffectNet see it",
    )
    command.set_defaults(score=faces)
    command = commands.add_parser("voice", help="a tar of acted speech, through voice encoder and fusion")
    command.add_argument("--tar", type=Path, required=True, help="recordings with RAVDESS or nEMO names")
    command.add_argument(
        "--tsv", type=Path, help="nEMO's table, used instead of file names: file_id, emotion, speaker_id"
    )
    command.add_argument("--speakers", help="only these speakers, as in the file names: 22,23,24")
    command.set_defaults(score=voice)
    command = commands.add_parser("clips", help="a folder of clips through the affectd binary")
    command.add_argument("--dir", type=Path, required=True)
    command.add_argument(
        "--labels",
        type=Path,
        help="table: clip and emotion, or clip, valence and arousal; without it, names must be like RAVDESS or nEMO",
    )
    command.add_argument("--affectd", default=arguments.ROOT / "target/release/affectd")
    command.set_defaults(score=clips)
    for command in commands.choices.values():
        command.add_argument("--targets", type=Path, help="table: emotion, valence, arousal")
        command.add_argument(
            "--no-intensity", dest="intensity", action="store_false", help="do not scale targets by intensity"
        )
        arguments.add_models(command)
        command.add_argument("--form", choices=("int8", "f32"), default="int8")
    return parser.parse_args()


def main():
    options = parse()
    print(json.dumps(rounded(options.score(options)), allow_nan=False))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        arguments.run(main)
