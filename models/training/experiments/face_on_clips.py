"""The whole face path on acted clips of one person: detector, crop, encoder, valence and arousal for each emotion.

    python -m models.training.experiments.face_on_clips --data DIR [--models DIR] [--form f32]

Nothing is trained on these clips (52 RAVDESS clips of actor 01). The emotions are acted, so only their order counts. The script
also compares the posteriors with those of another FER2013 network on the same performances.
"""

import numpy as np

from .. import arguments
from ..data.clips import read_frames
from ..data.performances import EXPRESSIONS as OTHER_EXPRESSIONS
from ..data.performances import read_posteriors
from ..inference import FaceEncoder, open_named
from ..labels import EXPRESSIONS, RAVDESS_EMOTIONS, expression_points
from ..preprocessing.face_crop import crop
from ..preprocessing.face_detection import find_square


class FacePath:
    """Detector, crop and encoder as the daemon runs them, without the tracker."""

    def __init__(self, models, form="int8"):
        self.detector = open_named(models, "face_detector", form)
        self.encoder = FaceEncoder(models, form)

    def posteriors(self, frame):
        """Posteriors [8] of the best face in a luma frame u8 [H, W], or None."""
        square = find_square(frame, self.detector)
        if square is None:
            return None
        return self.encoder.posteriors(crop(frame, square)[None])[0]


def other_posteriors(data):
    """Mean posteriors of the other network for each performance, {name without the modality: [8] with contempt 0}."""
    columns = [EXPRESSIONS.index(name) for name in OTHER_EXPRESSIONS]
    result = {}
    for clip, (_, posteriors) in read_posteriors(data / "av" / "actor01_kids_fer7.npz").items():
        mean = np.zeros(len(EXPRESSIONS))
        mean[columns] = posteriors.astype(np.float64).mean(0)
        result[clip] = mean
    return result


def table(title, rows, points):
    """Print mean posteriors, valence and arousal for each acted emotion. `rows` is {clip: posteriors [8]}."""
    print(f"{title}\n{'':10} clips valence arousal  " + " ".join(f"{name[:9]:>9}" for name in EXPRESSIONS))
    for i, emotion in enumerate(RAVDESS_EMOTIONS):
        clips = [row for clip, row in rows.items() if clip.split("-")[2] == f"{i + 1:02}"]
        if clips:
            mean = np.mean(clips, 0)
            valence, arousal = mean @ points
            print(f"{emotion:10} {len(clips):5} {valence:7.2f} {arousal:7.2f}  " + " ".join(f"{p:9.3f}" for p in mean))


def main():
    parser = arguments.parser(__doc__)
    arguments.add_data(parser)
    arguments.add_models(parser)
    parser.add_argument("--form", choices=("int8", "f32"), default="int8")
    options = parser.parse_args()
    points, path = expression_points(options.data), FacePath(options.models, options.form)
    ours, missed, frames = {}, 0, 0
    for clip in sorted((options.data / "av" / "actor01_kids").glob("*.mkv")):
        found = [path.posteriors(frame) for frame in read_frames(clip)]
        frames += len(found)
        missed += sum(row is None for row in found)
        ours[clip.stem] = np.mean([row for row in found if row is not None], 0)
    print(f"{len(ours)} clips, {frames} frames, {missed} without a detected face\n")
    table("affectd, all clips", ours, points)
    theirs = other_posteriors(options.data)
    same = {clip: row for clip, row in ours.items() if clip[3:] in theirs}
    theirs = {clip: theirs[clip[3:]] for clip in same}
    table("\naffectd, the performances that both have", same, points)
    table("\nthe other network on them", theirs, points)
    a, b = np.array([same[clip] for clip in same]), np.array([theirs[clip] for clip in same])
    a[:, -1] = 0  # the other network has no contempt
    a /= a.sum(1, keepdims=True)
    distance = np.abs(a - b).sum(1).mean() / 2
    print(
        f"\n{len(same)} performances: mean total variation distance {distance:.3f} (contempt dropped),"
        f" same top expression {(a.argmax(1) == b.argmax(1)).mean():.2f}"
    )
    for axis, name in enumerate(("valence", "arousal")):
        correlation = np.corrcoef(a @ points[:, axis], b @ points[:, axis])[0, 1]
        print(f"correlation of the clips' {name} between the two {correlation:.3f}")


if __name__ == "__main__":
    arguments.run(main)
