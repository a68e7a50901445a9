"""Six actor folds of RAVDESS. Each is measured with encoders and fusions that were trained without its actors.

    python -m models.training.experiments.actor_folds --data DIR --work DIR [--epochs N] [--student-epochs N] [--steps N]

The folds show how much the figures depend on the choice of actors: actors differ more than models do. For each fold a voice
encoder is trained from random weights on the other folds' actors and on nEMO's training speakers. A fusion is trained on the
out-of-fold embeddings of students of that encoder, and both graphs are quantized like the shipped ones. The face encoder is the
one in --models, which was not trained on RAVDESS. The mapping of the other network's posteriors is fitted on actor 01, who is in
no fold. The actors of a fold do not select its weights: schedules are fixed, and the last averaged weights are used. The recipe
was tuned on actors 02 to 21 (models/EXPERIMENTS.md). All results are of one seed.

Fold k holds actors 4 k + 1 to 4 k + 4, two men and two women; the first fold is without actor 01. Everything is cached in
--work, and a second run continues where the first one stopped. Prints a table, and one JSON object as the last line.
"""

import functools
import json

import numpy as np
import torch

from .. import arguments, cross_fitting, train_fusion, train_voice_encoder
from ..augmentation import non_voice
from ..data.cache import cached
from ..data.fusion_windows import TrainingWindows, make_ticks
from ..data.performances import make_performances
from ..data.photographs import read_photographs
from ..data.recorded_clips import fit_posterior_map, read_clips
from ..data.speech_corpora import Corpora
from ..data.voice_windows import MeasuredWindows
from ..manifest import sha256
from ..metrics.fusion_accuracy import measure
from ..networks import voice_projection
from ..networks.quantized import quantized_fusion, quantized_voice_encoder

FOLDS = 6
PASSES = 3  # embeddings of each training performance: one clean pass and two augmented ones
SEED = 1
# How far the training faces are mapped: to our encoder, as for the fusion that ships, or not at all.
MAPPED_SHARES = {"ours": (0.9, 1.1), "other": (0.0, 0.0)}
VOICE_BATCH, VOICE_RATE = 32, 1.5e-3  # the defaults of train_voice_encoder.py
OTHER_FACES, OUR_FACES = "faces of the other network", "faces mapped to affectd's encoder"


def fold_of(utterance):
    """The fold of a RAVDESS utterance, 0 to 5."""
    return (int(utterance.speaker) - 1) // 4


class Fold:
    """The people, files and graphs of one fold."""

    def __init__(self, number, corpora, options):
        self.corpora, self.options, self.folder = corpora, options, options.work / f"actor_fold_{number}"
        self.folder.mkdir(parents=True, exist_ok=True)
        ravdess = [u for u in corpora.utterances if u.corpus == "ravdess"]
        self.held_out = [u for u in ravdess if fold_of(u) == number]
        self.trained = [u for u in ravdess if fold_of(u) != number]
        self.nemo = corpora.select("nemo", "train")

    def graph(self, name, form):
        return self.folder / f"{name}.{form}.onnx"

    def voice(self):
        """Train the voice encoder: (encoder, heads, the int8 encoder as a function)."""
        everyone = self.trained + self.nemo
        schedule = self.options.epochs, VOICE_BATCH, VOICE_RATE, SEED
        train_voice_encoder.train(self.corpora, everyone, None, self.folder, *schedule)
        encoder, heads = train_voice_encoder.load(self.folder)
        if not self.graph("voice_encoder", "int8").exists():
            forms = (self.graph("voice_encoder", form) for form in ("f32", "int8"))
            train_voice_encoder.export(self.corpora, everyone, encoder, *forms)
        return encoder, heads, quantized_voice_encoder(self.graph("voice_encoder", "int8"))

    def performances(self, teacher):
        """The training performances: all speakers except the fold's actors, with embeddings of students of `teacher`."""
        everyone = self.trained + self.nemo
        students = cross_fitting.train_students(
            teacher, self.corpora, everyone, self.folder, self.options.student_epochs
        )
        utterances = self.trained + self.nemo[:: train_fusion.NEMO_EVERY]
        performances = functools.partial(make_performances, self.corpora, self.options.data, utterances)
        by_students = cached(
            self.folder / "students.pickle",
            lambda: performances(lambda u: students[cross_fitting.fold_of(u)], PASSES),
        )
        by_teacher = cached(self.folder / "teacher.pickle", lambda: performances(lambda u: teacher, 1))
        return cross_fitting.match_moments(by_students, by_teacher)

    def run(self, faces):
        """{row: {"tick", "clip", "window" or "utterance": CCC [2], ...}} of the int8 graphs, and of f32."""
        encoder, heads, int8_encoder = self.voice()
        windows = MeasuredWindows(self.corpora, self.held_out)
        result = {
            "voice alone": train_voice_encoder.measure(int8_encoder, heads, windows),
            "voice alone, f32": train_voice_encoder.measure(encoder, heads, windows),
        }
        print(result, flush=True)
        training = self.performances(encoder)
        sounds = int8_encoder(non_voice.encoder_inputs(600)).flatten(1).numpy()
        bank = TrainingWindows(
            training,
            faces["posterior_map"],
            sounds,
            faces["photographs"],
            SEED,
            self.options.windows,
            shares=MAPPED_SHARES[self.options.faces],
        )
        held_out = make_performances(self.corpora, self.options.data, self.held_out, lambda u: int8_encoder, 1)
        ticks = {
            OTHER_FACES: make_ticks(held_out),
            OUR_FACES: make_ticks(held_out, change=faces["posterior_map"]),
        }
        readout = voice_projection.readout_of(heads)
        _, network = train_fusion.train("joint cross-attention", training, bank, ticks, readout, self.options, SEED)
        torch.save(network.state_dict(), self.folder / f"fusion_{self.options.faces}.pt")
        forms = [self.graph(f"fusion_{self.options.faces}", form) for form in ("f32", "int8")]
        train_fusion.export(network, bank, *forms)
        int8 = quantized_fusion(forms[1])
        for name, part in ticks.items():
            for form, measured in (("", measure(int8, part)), (", f32", measure(network, part))):
                result |= {f"{condition}, {name}{form}": figures for condition, figures in measured.items()}
        return result


def show(results):
    """Print the CCC of all folds as a Markdown table; returns {row: {kind: mean over the folds [2]}}."""
    means = {}
    print(f"| int8, CCC valence / arousal | {' | '.join(f'fold {k}' for k in results)} | mean |")
    print("| --- |" + " --- |" * (len(results) + 1))
    for row, figures in next(iter(results.values())).items():
        for kind in figures.keys() - {"variance"}:
            each = np.array([result[row][kind] for result in results.values()])
            means.setdefault(row, {})[kind] = each.mean(0).round(4).tolist()
            cells = [f"{valence:.3f} / {arousal:.3f}" for valence, arousal in (*each, each.mean(0))]
            print(f"| {row}, per {kind} | {' | '.join(cells)} |")
    return means


def main():
    parser = arguments.parser(__doc__)
    arguments.add_data(parser)
    arguments.add_work(parser)
    arguments.add_models(parser)
    parser.add_argument("--epochs", type=int, default=66, help="of each voice encoder; default: %(default)s")
    parser.add_argument("--student-epochs", type=int, default=12, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=1500, help="of each fusion; default: %(default)s")
    parser.add_argument(
        "--windows", type=int, default=60_000, help="size of the bank of training windows of each fusion"
    )
    parser.add_argument(
        "--faces",
        choices=MAPPED_SHARES,
        default="ours",
        help="train on posteriors mapped to our face encoder, or on those of the other network",
    )
    parser.add_argument(
        "--folds", default=",".join(map(str, range(FOLDS))), help="which folds, for example 0,3; default: all"
    )
    parser.set_defaults(batch=64, rate=1e-3, start_from=None)  # of the fusion
    options = parser.parse_args()

    corpora = Corpora(options.data, options.work)
    clips = read_clips(options.data, options.work, options.models)
    faces = {
        "posterior_map": fit_posterior_map(options.data, clips["actor01"]),
        "photographs": read_photographs(options.data, options.models),
    }
    results = {}
    for number in map(int, options.folds.split(",")):
        finished = options.work / f"actor_fold_{number}" / f"figures_{options.faces}.json"
        if not finished.exists():
            print(f"fold {number}", flush=True)
            result = Fold(number, corpora, options).run(faces)
            finished.write_text(json.dumps(result))
        results[number] = json.loads(finished.read_text())
    means = show(results)
    schedule = {name: getattr(options, name) for name in ("epochs", "student_epochs", "steps", "windows", "faces")}
    encoder = sha256(options.models / "face_encoder.int8.onnx")
    print(json.dumps({"schedule": schedule, "face_encoder": encoder, "folds": results, "means": means}))


if __name__ == "__main__":
    arguments.run(main)
