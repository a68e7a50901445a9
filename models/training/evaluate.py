"""What affectd makes of a folder of clips: the shipped binary with the shipped int8 graphs, end to end.

    python models/training/evaluate.py clips --dir DIR [--affectd target/release/affectd]

Every clip is replayed, every picture looked at. One line a clip shows in which share of the pictures and of the estimates
there was a face, and the mean valence and arousal; names in RAVDESS style (modality-channel-emotion-…) are also summed up by emotion. The last line is one JSON object.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

EMOTIONS = {
    "01": "neutral", "02": "calm", "03": "happy", "04": "sad",
    "05": "angry", "06": "fearful", "07": "disgust", "08": "surprised",
}  # fmt: skip
CLIPS = {".mkv", ".mpg", ".mp4", ".avi", ".wav", ".webm"}


def mean(values):
    values = [v for v in values if v is not None]
    return sum(values) / len(values) if values else None


def replay(affectd, clip):
    """The estimates, and the share of pictures with a face (None without pictures)."""
    every_picture = {**os.environ, "AFFECTD_FACE_RATE_HZ": "60"}
    done = subprocess.run([affectd, "run", "--input", clip], capture_output=True, text=True, env=every_picture)
    if done.returncode != 0:
        sys.exit(f"{clip}: affectd ended with {done.returncode}: {done.stderr.strip().splitlines()[-1]}")
    looked, faces = map(int, re.search(r"(\d+) looked at, (\d+) with a face", done.stderr).groups())
    return [json.loads(line) for line in done.stdout.splitlines()], faces / looked if looked else None


def emotion_of(clip):
    parts = clip.stem.split("-")
    return EMOTIONS.get(parts[2]) if len(parts) == 7 else None


def clips(affectd, folder):
    by_emotion = defaultdict(list)
    rows = []
    for clip in sorted(p for p in Path(folder).iterdir() if p.suffix in CLIPS):
        lines, pictures = replay(affectd, clip)
        row = {
            "clip": clip.name,
            "pictures_with_face": pictures,
            "faces": mean([line["face"] is not None for line in lines]),
            "valence": mean([line["valence"] for line in lines]),
            "arousal": mean([line["arousal"] for line in lines]),
            "absolute_valence": mean([abs(line["valence"]) for line in lines if line["valence"] is not None]),
            "absolute_arousal": mean([abs(line["arousal"]) for line in lines if line["arousal"] is not None]),
        }
        rows.append(row)
        if emotion_of(clip):
            by_emotion[emotion_of(clip)].append(row)
        shown = {k: v if v is None or isinstance(v, str) else round(v, 3) for k, v in row.items()}
        print(" ".join(f"{v}" if k == "clip" else f"{k} {v}" for k, v in shown.items()))
    if not rows:
        sys.exit(f"{folder}: no clips ({', '.join(sorted(CLIPS))})")

    def over(names, key):
        return mean([row[key] for name in names for row in by_emotion[name]])

    summary = {
        "clips": len(rows),
        "pictures_with_face_least": min((row["pictures_with_face"] for row in rows if row["pictures_with_face"] is not None), default=None),
        "faces_mean": mean([row["faces"] for row in rows]),
        "faces_least": min(row["faces"] or 0.0 for row in rows),
        "absolute_valence": mean([row["absolute_valence"] for row in rows]),
        "absolute_arousal": mean([row["absolute_arousal"] for row in rows]),
    }
    if by_emotion:
        summary["by_emotion"] = {
            name: {"valence": over([name], "valence"), "arousal": over([name], "arousal"), "clips": len(by_emotion[name])}
            for name in EMOTIONS.values()
            if by_emotion[name]
        }
        summary["valence_happy"] = over(["happy"], "valence")
        summary["valence_negative"] = over(["angry", "sad", "fearful", "disgust"], "valence")
        summary["arousal_angry_fearful"] = over(["angry", "fearful"], "arousal")
        summary["arousal_sad_neutral"] = over(["sad", "neutral"], "arousal")
    print(json.dumps(summary))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    command = commands.add_parser("clips", help="a folder of clips through the affectd binary")
    command.add_argument("--dir", required=True)
    command.add_argument("--affectd", default="target/release/affectd")
    arguments = parser.parse_args()
    clips(arguments.affectd, arguments.dir)


if __name__ == "__main__":
    main()
