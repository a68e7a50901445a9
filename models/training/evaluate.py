"""Scores any data in the formats of models/README.md with the int8 graphs that ship. The last line is one JSON object.

    python models/training/evaluate.py faces --atlas PNG --votes CSV [--disturb]
    python models/training/evaluate.py voice --tar TAR [--tsv TSV] [--speakers 22,23,24]
    python models/training/evaluate.py clips --dir DIR [--affectd target/release/affectd]

Needs onnxruntime, numpy and pillow; `voice` also ffmpeg and earshot, `clips` the affectd binary. Targets are category-derived:
each category is a point of valence and arousal (--targets CSV: emotion, valence, arousal), of which faces get the mean weighted
by votes; acted speech gets its category's point x 0.7 at normal, x 1.0 at strong and x 0.85 at unstated intensity
(--no-intensity: the point itself).
"""

import argparse
import contextlib
import csv
import json
import os
import re
import subprocess
import sys
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

import shipped_graphs
import webcam
from shipped_graphs import BadInput

# After Russell & Mehrabian 1977; calm and contempt are this project's choice.
CIRCUMPLEX = {
    "neutral": (0.00, 0.00), "calm": (0.30, -0.35), "happiness": (0.81, 0.51), "surprise": (0.40, 0.67),
    "sadness": (-0.63, -0.27), "anger": (-0.51, 0.59), "disgust": (-0.60, 0.35), "fear": (-0.64, 0.60),
    "contempt": (-0.35, 0.15),
}  # fmt: skip
SYNONYMS = {
    "happy": "happiness", "surprised": "surprise", "sad": "sadness", "angry": "anger", "fearful": "fear",
    "disgusted": "disgust",
}  # fmt: skip
RAVDESS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]  # 01 to 08
NORMAL, STRONG, UNSTATED = 0.7, 1.0, 0.85
REJECTED = ("unknown", "nf")  # FER+ votes for no expression: unknown, not a face
ACROSS = 100  # faces in a row of the atlas
SOUNDS = {".opus", ".ogg", ".wav", ".flac", ".mp3", ".m4a"}
CLIPS = {".mkv", ".mpg", ".mp4", ".avi", ".wav", ".webm"}
ROOT = Path(__file__).resolve().parents[2]


# ---- tables and targets ---------------------------------------------------------------------------------------------


def read_table(path):
    """Rows of a table with a header, {column in lower case: text}; commas, semicolons or tabs, whichever the header has."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as a table ({getattr(error, 'strerror', None) or error})") from None
    if len(lines) < 2:
        raise BadInput(f"{path}: no rows; expected a header line and a line for each")
    delimiter = max(",\t;", key=lines[0].count)
    header = [name.strip().lower() for name in next(csv.reader(lines[:1], delimiter=delimiter))]
    rows = csv.reader(lines[1:], delimiter=delimiter)
    return [dict(zip(header, map(str.strip, row), strict=False)) for row in rows if any(map(str.strip, row))]


def number(row, column, path, line):
    """A cell as a number; an absent or empty one is 0."""
    text = row.get(column) or "0"
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise BadInput(f"{path}: line {line}: {column} is {text!r}, not a number")
    return value


def canonical(emotion):
    emotion = emotion.strip().lower()
    return SYNONYMS.get(emotion, emotion)


def read_targets(path):
    """{emotion: (valence, arousal)}."""
    if path is None:
        return CIRCUMPLEX
    rows = read_table(path)
    missing = {"emotion", "valence", "arousal"} - set(rows[0])
    if missing:
        raise BadInput(f"{path}: no column {', '.join(sorted(missing))}; expected emotion, valence, arousal")
    return {
        canonical(row["emotion"]): (number(row, "valence", path, i), number(row, "arousal", path, i))
        for i, row in enumerate(rows, 2)
    }


def point(targets, emotion):
    if emotion not in targets:
        raise BadInput(f"--targets: no row for {emotion}; it has {', '.join(targets)}")
    return targets[emotion]


def described(name, emotions=None):
    """(speaker, emotion, intensity) of a recording, by its RAVDESS or nEMO name or the table `emotions`; None for others."""
    stem = Path(name).stem
    parts = stem.split("-")
    if len(parts) == 7 and all(part.isdigit() for part in parts):
        emotion = int(parts[2])
        known = 1 <= emotion <= len(RAVDESS)
        return (parts[6], canonical(RAVDESS[emotion - 1]), STRONG if parts[3] == "02" else NORMAL) if known else None
    if emotions is not None and stem in emotions:
        return (*emotions[stem], UNSTATED)
    parts = stem.split("_")
    if emotions is None and len(parts) == 3 and canonical(parts[1]) in CIRCUMPLEX:
        return parts[0], canonical(parts[1]), UNSTATED
    return None


def concordance(estimates, targets):
    """Lin's concordance correlation of two series, or None where it is undefined: fewer than two, or both constant alike."""
    estimates, targets = np.asarray(estimates, np.float64), np.asarray(targets, np.float64)
    if len(estimates) < 2:
        return None
    covariance = ((estimates - estimates.mean()) * (targets - targets.mean())).mean()
    spread = estimates.var() + targets.var() + (estimates.mean() - targets.mean()) ** 2
    return float(2 * covariance / spread) if spread > 0 else None


def both(estimates, targets):
    """CCC of [n, 2] in the form of every report."""
    estimates, targets = np.reshape(estimates, (-1, 2)), np.reshape(targets, (-1, 2))
    return {f"ccc_{name}": concordance(estimates[:, i], targets[:, i]) for i, name in enumerate(("valence", "arousal"))}


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return round(value, 4) if isinstance(value, float) else value


# ---- faces ----------------------------------------------------------------------------------------------------------


def read_faces(atlas, votes, labels, size):
    """u8 [n, size, size] and votes for `labels` [n, 8]; and bool [n], whether more than half of all votes agree.

    Votes for "unknown" and "not a face" are removed; a face on which those won is dropped, as in training.
    """
    rows = read_table(votes)
    present = [label for label in labels if label in rows[0]]
    if not present:
        raise BadInput(f"{votes}: no column of votes; expected some of {', '.join(labels)}")
    for label in labels:
        if label not in present:
            print(f"{votes}: no column {label}: counted as never voted for", file=sys.stderr)
    try:
        Image.MAX_IMAGE_PIXELS = None  # an atlas is larger than what Pillow takes for an attack
        with Image.open(atlas) as picture:
            pixels = np.asarray(picture.convert("L"))
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise BadInput(f"{atlas}: cannot be read as a picture ({getattr(error, 'strerror', None) or error})") from None
    down, across = pixels.shape[0] // size, pixels.shape[1] // size
    if pixels.shape != (down * size, across * size) or across > ACROSS or not down:
        raise BadInput(
            f"{atlas}: {pixels.shape[1]}x{pixels.shape[0]} pixels; expected {size}x{size} faces, {ACROSS} a row"
        )
    cells = pixels.reshape(down, size, across, size).swapaxes(1, 2).reshape(-1, size, size)

    lines = range(2, len(rows) + 2)
    counts = np.array([[number(row, label, votes, i) for label in labels] for i, row in zip(lines, rows)])
    rejected = np.array([[number(row, name, votes, i) for name in REJECTED] for i, row in zip(lines, rows)])
    if "index" in rows[0]:
        index = np.array([int(number(row, "index", votes, i)) for i, row in zip(lines, rows)])
    else:
        index = np.arange(len(rows))
    if index.min() < 0 or index.max() >= len(cells):
        wrong = index[(index < 0) | (index >= len(cells))][0]
        raise BadInput(f"{votes}: index {wrong} is beyond the {len(cells)} faces of {atlas}")
    keep = (counts.max(1) > 0) & (counts.max(1) >= rejected.max(1))
    if not keep.any():
        raise BadInput(f"{votes}: no face has a vote for an expression")
    majority = counts.max(1) > (counts.sum(1) + rejected.sum(1)) / 2
    return cells[index[keep]], counts[keep], majority[keep]


def score_faces(posteriors, votes, majority, points, labels):
    right, voted = posteriors.argmax(1) == votes.argmax(1), votes.argmax(1)
    return {
        "n": len(votes),
        "accuracy": float(right.mean()),
        "accuracy_strict_majority": float(right[majority].mean()) if majority.any() else None,
        "n_strict_majority": int(majority.sum()),
        **both(posteriors @ points, votes / votes.sum(1, keepdims=True) @ points),
        "recall": {
            label: float(right[voted == i].mean()) if (voted == i).any() else None for i, label in enumerate(labels)
        },
    }


def faces(options):
    encoder = shipped_graphs.FaceEncoder(options.models, options.form)
    targets = read_targets(options.targets)
    points = np.array([point(targets, label) for label in encoder.labels])
    pictures, votes, majority = read_faces(options.atlas, options.votes, encoder.labels, encoder.size)
    picked = slice(None, None, options.every)
    pictures, votes, majority = pictures[picked], votes[picked], majority[picked]

    def read(pictures):
        once = encoder.posteriors(pictures)
        return (once + encoder.posteriors(pictures[:, :, ::-1])) / 2 if options.both_views else once

    def score(pictures):
        return score_faces(read(pictures), votes, majority, points, encoder.labels)

    result = score(pictures)
    print(
        f"{result['n']} faces; recall", " ".join(f"{name} {shown(value)}" for name, value in result["recall"].items())
    )
    if not options.disturb:
        return result
    result["disturbed"] = {}
    columns = ("accuracy", "accuracy_strict_majority", "ccc_valence", "ccc_arousal")
    print("| disturbed by | strength | accuracy | strict majority | CCC valence | CCC arousal |\n" + "| --- " * 6 + "|")
    print("| nothing | |", " | ".join(shown(result[c]) for c in columns), "|", flush=True)
    for name, (_, unit, strengths) in webcam.DISTURBANCES.items():
        for strength in strengths:
            found = score(webcam.disturbed(pictures, name, strength))
            result["disturbed"].setdefault(name, {})[f"{strength} {unit}"] = {c: found[c] for c in columns}
            print(f"| {name} | {strength} {unit} |", " | ".join(shown(found[c]) for c in columns), "|", flush=True)
    return result


def shown(value):
    return "–" if value is None else f"{value:.3f}"


# ---- voice ----------------------------------------------------------------------------------------------------------


def read_emotions(path):
    """{file name without ending: (speaker, emotion)} of nEMO's table."""
    rows = read_table(path)
    missing = {"file_id", "emotion"} - set(rows[0])
    if missing:
        raise BadInput(f"{path}: no column {', '.join(sorted(missing))}; expected file_id, emotion, speaker_id")
    return {
        Path(row["file_id"]).stem: (row.get("speaker_id") or row["file_id"].split("_")[0], canonical(row["emotion"]))
        for row in rows
        if row.get("file_id") and row.get("emotion")
    }


def recordings(path, emotions, speakers):
    """(name, bytes, emotion, intensity) of the recordings in a tar whose names tell an emotion."""
    unnamed = 0
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if not member.isfile() or Path(member.name).suffix.lower() not in SOUNDS:
                    continue
                known = described(member.name, emotions)
                if known is None:
                    unnamed += 1
                elif speakers is None or known[0] in speakers:
                    yield member.name, tar.extractfile(member).read(), *known[1:]
    except (OSError, tarfile.TarError) as error:
        raise BadInput(f"{path}: cannot be read as a tar ({error})") from None
    if unnamed:
        print(f"{path}: {unnamed} recordings left out, whose names tell no emotion", file=sys.stderr)


def voice_detector():
    """(how voice is found, the function that scores it)."""
    try:
        import earshot  # noqa: F401 - only whether it is there
    except ImportError:
        print(
            "earshot is not installed: voice is told by loudness, not as affectd does (pip install earshot)",
            file=sys.stderr,
        )
        return "loudness", shipped_graphs.loudness_activity
    return "earshot", shipped_graphs.voice_activity


def voice(options):
    kind, activity = voice_detector()
    encoder = shipped_graphs.VoiceEncoder(options.models, options.form, activity)
    fusion = shipped_graphs.Fusion(options.models, options.form)
    targets = read_targets(options.targets)
    emotions = read_emotions(options.tsv) if options.tsv else None
    speakers = set(options.speakers.split(",")) if options.speakers else None
    windows, utterances, by_emotion, mute = [], [], defaultdict(list), 0
    for name, sound, emotion, intensity in recordings(options.tar, emotions, speakers):
        target = np.array(point(targets, emotion)) * (intensity if options.intensity else 1.0)
        samples = shipped_graphs.decode(sound, name, encoder.rate)
        estimates = shipped_graphs.by_voice_alone(samples, encoder, fusion)
        if not len(estimates):
            mute += 1
            continue
        windows += [(estimate, target) for estimate in estimates]
        utterances.append((estimates.mean(0), target))
        by_emotion[emotion].append(estimates.mean(0))
    if not utterances:
        wanted = f" of speakers {options.speakers}" if speakers else ""
        raise BadInput(
            f"{options.tar}: no recording{wanted} with a voice and a RAVDESS or nEMO name ({', '.join(sorted(SOUNDS))})"
        )
    for emotion, values in by_emotion.items():
        mean = np.mean(values, 0)
        print(f"{emotion} {len(values)} utterances, mean valence {mean[0]:.3f}, mean arousal {mean[1]:.3f}")
    return {
        "n": len(utterances),
        **both(*zip(*utterances)),
        "per_window": {"n": len(windows), **both(*zip(*windows))},
        "without_voice": mute,
        "voice_activity": kind,
        "intensity": options.intensity,
    }


# ---- clips ----------------------------------------------------------------------------------------------------------


def mean(values):
    values = [v for v in values if v is not None]
    return sum(values) / len(values) if values else None


def replay(affectd, clip):
    """The estimates, and the share of pictures with a face (None without pictures)."""
    every_picture = {**os.environ, "AFFECTD_FACE_RATE_HZ": "60"}
    try:
        done = subprocess.run(
            [affectd, "run", "--input", clip], check=False, capture_output=True, text=True, env=every_picture
        )
    except OSError as error:
        raise BadInput(
            f"{affectd}: {error.strerror}; build it with cargo build --release, or name it with --affectd"
        ) from None
    said = done.stderr.strip().splitlines() or ["it said nothing"]
    if done.returncode != 0:
        raise BadInput(f"{clip}: affectd ended with {done.returncode}: {said[-1]}")
    counts = re.search(r"(\d+) looked at, (\d+) with a face", done.stderr)
    looked, seen = map(int, counts.groups()) if counts else (0, 0)
    return [json.loads(line) for line in done.stdout.splitlines()], seen / looked if looked else None


def weighted(estimates, key):
    """The mean over a clip's estimates, each counting as much as affectd believes in it; all alike where it believes in none."""
    belief = sum(line["confidence"] for line in estimates)
    if belief == 0:
        return mean([line[key] for line in estimates])
    return sum(line["confidence"] * line[key] for line in estimates) / belief


def of_clip(clip, lines, pictures):
    estimates = [line for line in lines if line["valence"] is not None]
    return {
        "clip": clip.name,
        "pictures_with_face": pictures,
        "faces": mean([line["face"] is not None for line in lines]),
        "valence": weighted(estimates, "valence"),
        "arousal": weighted(estimates, "arousal"),
        "plain_valence": mean([line["valence"] for line in estimates]),
        "plain_arousal": mean([line["arousal"] for line in estimates]),
        "absolute_valence": mean([abs(line["valence"]) for line in estimates]),
        "absolute_arousal": mean([abs(line["arousal"]) for line in estimates]),
    }


def clips(options):
    """Replays every clip, every picture looked at; clips with RAVDESS or nEMO names are also held against their targets.

    What is said of a clip is the mean of its estimates, weighted by their confidence: the first second knows little.
    """
    try:
        found = sorted(p for p in Path(options.dir).iterdir() if p.suffix.lower() in CLIPS)
    except OSError as error:
        raise BadInput(f"{options.dir}: {error.strerror}; --dir must name a folder of clips") from None
    if not found:
        raise BadInput(f"{options.dir}: no clips ({', '.join(sorted(CLIPS))})")
    targets = read_targets(options.targets)
    rows, ticks, whole, plain, by_emotion = [], [], [], [], defaultdict(list)
    for clip in found:
        lines, pictures = replay(options.affectd, clip)
        row = of_clip(clip, lines, pictures)
        rows.append(row)
        print(
            " ".join(f"{value}" if key == "clip" else f"{key} {shown(value)}" for key, value in row.items()), flush=True
        )
        known = described(clip.name)
        if known:
            _, emotion, intensity = known
            by_emotion[emotion].append(row)
            target = np.array(point(targets, emotion)) * (intensity if options.intensity else 1.0)
            ticks += [((line["valence"], line["arousal"]), target) for line in lines if line["valence"] is not None]
            if row["valence"] is not None:
                whole.append(((row["valence"], row["arousal"]), target))
                plain.append(((row["plain_valence"], row["plain_arousal"]), target))

    def over(key, *emotions):
        return mean([row[key] for emotion in emotions for row in by_emotion[emotion]])

    result = {
        "clips": len(rows),
        "pictures_with_face_least": min(
            (r["pictures_with_face"] for r in rows if r["pictures_with_face"] is not None), default=None
        ),
        "faces_mean": mean([row["faces"] for row in rows]),
        "faces_least": min(row["faces"] or 0.0 for row in rows),
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
            **both(*zip(*whole)),
            "of_plain_means": both(*zip(*plain)),
            "per_estimate": {"n": len(ticks), **both(*zip(*ticks))},
            "intensity": options.intensity,
        }
    return result


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    command = commands.add_parser("faces", help="an atlas of grey faces and people's votes")
    command.add_argument("--atlas", type=Path, required=True, help="grey picture of 48 x 48 faces, 100 a row")
    command.add_argument("--votes", type=Path, required=True, help="table: index, votes by expression, unknown, NF")
    command.add_argument("--disturb", action="store_true", help="also with what a webcam adds, at several strengths")
    command.add_argument(
        "--both-views", action="store_true", help="mean posteriors of a face and its mirror image: two inferences"
    )
    command.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth face")
    command.set_defaults(score=faces)
    command = commands.add_parser("voice", help="a tar of acted speech, with voice encoder and fusion alone")
    command.add_argument("--tar", type=Path, required=True, help="recordings with RAVDESS or nEMO names")
    command.add_argument(
        "--tsv", type=Path, help="nEMO's table, in place of what the names say: file_id, emotion, speaker_id"
    )
    command.add_argument("--speakers", help="only these, as the names have them: 22,23,24")
    command.set_defaults(score=voice)
    command = commands.add_parser("clips", help="a folder of clips through the affectd binary")
    command.add_argument("--dir", type=Path, required=True)
    command.add_argument("--affectd", default=ROOT / "target/release/affectd")
    command.set_defaults(score=clips)
    for command in commands.choices.values():
        command.add_argument("--targets", type=Path, help="table: emotion, valence, arousal")
        command.add_argument(
            "--no-intensity", dest="intensity", action="store_false", help="targets not scaled by intensity"
        )
        command.add_argument("--models", type=Path, default=shipped_graphs.MODELS, help="folder with manifest.json")
        command.add_argument("--form", choices=("int8", "f32"), default="int8")
    return parser.parse_args()


def main():
    options = parse()
    try:
        print(json.dumps(rounded(options.score(options)), allow_nan=False))
    except BadInput as error:
        sys.exit(f"evaluate.py: {error}")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
