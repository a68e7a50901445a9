"""The whole face path on acted clips of an unseen person: detector, crop, encoder, valence and arousal per emotion.

    python models/training/face_on_clips.py --data DIR

Nothing is trained on these clips (52 RAVDESS clips of actor 01), and actors act: the question is only whether the order
comes out right, and how the posteriors differ from those of another FER2013 network on the same performances.
"""

import argparse
from pathlib import Path

import numpy as np

import bundle
import quantize
from face_crop import crop, normalize, square
from face_detect import LEFT_EYE, MOUTH, RIGHT_EYE, SIZE, clip_frames, decode, feed, letterbox
from ferplus import EXPRESSIONS, load_circumplex

EMOTIONS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]  # RAVDESS 01 to 08
OTHER_NAMES = {"Neutral": "neutral", "Happy": "happiness", "Surprised": "surprise", "Sad": "sadness", "Angry": "anger",
               "Disgust": "disgust", "Fearful": "fear"}  # fmt: skip


class FacePath:
    """Detector, crop and encoder as the daemon runs them, without the tracker."""

    def __init__(self, form="int8"):
        self.detector = quantize.session(bundle.MODELS / f"face_detector.{form}.onnx")
        self.encoder = quantize.session(bundle.MODELS / f"face_encoder.{form}.onnx")

    def posteriors(self, frame):
        """Posteriors [8] of the best face in a luma frame u8 [H, W], or None."""
        canvas, scale, offset = letterbox(frame)
        faces = decode(quantize.run(self.detector, feed(canvas)))
        if not faces:
            return None
        points = (faces[0].keypoints * SIZE - offset) / scale
        face = crop(frame, square(points[RIGHT_EYE], points[LEFT_EYE], points[MOUTH]))
        logits = quantize.run(self.encoder, {"face": normalize(face)[None, None]})["logits"].ravel()
        exponentials = np.exp(logits - logits.max())
        return exponentials / exponentials.sum()


def other_posteriors(data):
    """Mean posteriors of the other network, {clip: [8] with contempt 0}, in our order."""
    archive = np.load(data / "av" / "actor01_kids_fer7.npz")
    columns = [EXPRESSIONS.index(OTHER_NAMES[name]) for name in archive["classes"]]
    result = {}
    for i, clip in enumerate(archive["clip"]):
        mean = np.zeros(len(EXPRESSIONS))
        mean[columns] = archive["posterior"][archive["clip_index"] == i].astype(np.float64).mean(0)
        result[str(clip)] = mean
    return result


def table(title, rows, circumplex):
    """Print mean posteriors, valence and arousal per acted emotion. `rows`: {clip: posteriors [8]}."""
    print(f"{title}\n{'':10} clips valence arousal  " + " ".join(f"{name[:9]:>9}" for name in EXPRESSIONS))
    for i, emotion in enumerate(EMOTIONS):
        clips = [row for clip, row in rows.items() if clip.split("-")[2] == f"{i + 1:02}"]
        if clips:
            mean = np.mean(clips, 0)
            valence, arousal = mean @ circumplex
            print(f"{emotion:10} {len(clips):5} {valence:7.2f} {arousal:7.2f}  " + " ".join(f"{p:9.3f}" for p in mean))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument("--form", choices=("int8", "f32"), default="int8")
    args = parser.parse_args()
    circumplex, path, ours, missed, frames = load_circumplex(args.data), FacePath(args.form), {}, 0, 0
    for clip in sorted((args.data / "av" / "actor01_kids").glob("*.mkv")):
        found = [path.posteriors(frame) for frame in clip_frames(clip)]
        frames += len(found)
        missed += sum(row is None for row in found)
        ours[clip.stem] = np.mean([row for row in found if row is not None], 0)
    print(f"{len(ours)} clips, {frames} frames, {missed} without a detected face\n")
    table("affectd, all clips", ours, circumplex)
    theirs = other_posteriors(args.data)
    same = {clip: ours[clip] for clip in theirs if clip in ours}
    theirs = {clip: row for clip, row in theirs.items() if clip in same}
    table("\naffectd, the performances that both have", same, circumplex)
    table("\nthe other network on them", theirs, circumplex)
    a, b = np.array([same[clip] for clip in same]), np.array([theirs[clip] for clip in same])
    a[:, -1] = 0  # the other network does not know contempt
    a /= a.sum(1, keepdims=True)
    distance = np.abs(a - b).sum(1).mean() / 2
    print(
        f"\n{len(same)} performances: mean total variation distance {distance:.3f} (contempt dropped),"
        f" same top expression {(a.argmax(1) == b.argmax(1)).mean():.2f}"
    )
    for axis, name in enumerate(("valence", "arousal")):
        correlation = np.corrcoef(a @ circumplex[:, axis], b @ circumplex[:, axis])[0, 1]
        print(f"correlation of the clips' {name} between the two {correlation:.3f}")


if __name__ == "__main__":
    main()
