"""Six actor folds of RAVDESS. Each is measured with encoders and fusions that were trained without its actors.

    python -m models.training.experiments.actor_folds --data DIR --work DIR [--models DIR] [--epochs N] [--voice-only]

The folds show how much the figures depend on the choice of actors: actors differ more than models do. For each fold a voice
encoder is trained from random weights on the other folds' actors and on the training speakers of the other corpora. A fusion is
trained on the out-of-fold embeddings of students of that encoder, and both graphs are quantized like the shipped ones. The face
encoder is the one in --models, which was not trained on RAVDESS; the faces of RAVDESS are translated from another network's
posteriors. The actors of a fold do not select its weights: schedules are fixed, and the last averaged weights are used. All
results are of one seed.

Fold k holds actors 4 k + 1 to 4 k + 4, two men and two women; the first fold is without actor 01. Everything is cached in
--work, and a second run continues where the first one stopped. Prints a table, and one JSON object as the last line.
"""

import json

import numpy as np
import torch

from .. import arguments, cross_fitting, train_fusion, train_voice_encoder
from ..augmentation import non_voice
from ..data.cache import cached
from ..data.evaluation_sets import EvaluationSets
from ..data.fusion_windows import TrainingWindows, make_ticks
from ..data.performances import make_performances
from ..data.photographs import read_photographs
from ..data.voice_windows import MeasuredWindows
from ..manifest import sha256
from ..metrics.fusion_accuracy import measure
from ..networks import voice_projection
from ..networks.quantized import quantized_fusion, quantized_voice_encoder

FOLDS = 6
PASSES = 3  # embeddings of each training performance: one clean pass and two augmented ones
SEED = 1
VOICE_BATCH, VOICE_RATE = 32, 1.5e-3  # the defaults of train_voice_encoder.py


def fold_of(utterance):
    """The fold of a RAVDESS utterance, 0 to 5."""
    return (int(utterance.speaker) - 1) // 4


class Fold:
    """The people, files and graphs of one fold."""

    def __init__(self, number, sets, options):
        self.sets, self.corpora, self.options = sets, sets.corpora, options
        self.folder = options.work / f"actor_fold_{number}"
        self.folder.mkdir(parents=True, exist_ok=True)
        ravdess = [u for u in self.corpora.utterances if u.corpus == "ravdess"]
        self.held_out = [u for u in ravdess if fold_of(u) == number]
        self.trained = [u for u in ravdess if fold_of(u) != number]
        self.everyone = self.trained + self.corpora.training(without="ravdess")

    def graph(self, name, form):
        return self.folder / f"{name}.{form}.onnx"

    def voice(self):
        """Train the voice encoder: (encoder, heads, the int8 encoder as a function)."""
        schedule = self.options.epochs, VOICE_BATCH, VOICE_RATE, SEED
        train_voice_encoder.train(self.corpora, self.everyone, None, self.folder, *schedule)
        encoder, heads = train_voice_encoder.load(self.folder)
        if not self.graph("voice_encoder", "int8").exists():
            forms = (self.graph("voice_encoder", form) for form in ("f32", "int8"))
            train_voice_encoder.export(self.corpora, self.everyone, encoder, *forms)
        return encoder, heads, quantized_voice_encoder(self.graph("voice_encoder", "int8"))

    def performances(self, teacher):
        """The training performances: all speakers except the fold's actors, with embeddings of students of `teacher`."""
        students = cross_fitting.train_students(
            teacher, self.corpora, self.everyone, self.folder, self.options.student_epochs
        )
        utterances = [u for u in self.everyone if u.corpus in train_fusion.EVERY]
        utterances = [
            u
            for corpus, every in train_fusion.EVERY.items()
            for u in [v for v in utterances if v.corpus == corpus][::every]
        ]

        def read(encode_of, passes):
            made = make_performances(self.corpora, utterances, encode_of, passes)
            return made + self.sets.clip_voices("javanese", encode_of, passes)

        by_students = cached(
            self.folder / "students.pickle", lambda: read(lambda u: students[cross_fitting.fold_of(u)], PASSES)
        )
        by_teacher = cached(self.folder / "teacher.pickle", lambda: read(lambda u: teacher, 1))
        return [self.sets.with_face(p) for p in cross_fitting.match_moments(by_students, by_teacher)]

    def run(self):
        """{row: {"tick", "clip", "window" or "utterance": CCC [2], ...}} of the int8 graphs, and of f32."""
        encoder, heads, int8_encoder = self.voice()
        windows = MeasuredWindows(self.corpora, self.held_out)
        result = {
            "voice alone": train_voice_encoder.measure(int8_encoder, heads, windows),
            "voice alone, f32": train_voice_encoder.measure(encoder, heads, windows),
        }
        print(result, flush=True)
        if self.options.voice_only:
            return result
        training = self.performances(encoder)
        sounds = int8_encoder(non_voice.encoder_inputs(600)).flatten(1).numpy()
        photographs = read_photographs(self.options.data, self.options.models)
        bank = TrainingWindows(training, sounds, photographs, SEED, self.options.windows)
        voices = make_performances(self.corpora, self.held_out, lambda u: int8_encoder, 1)
        ticks = make_ticks([self.sets.with_face(p) for p in voices])
        readout, split = voice_projection.readout_of(heads), {"held out": ticks}
        _, network = train_fusion.train("joint cross-attention", training, bank, split, readout, self.options, SEED)
        torch.save(network.state_dict(), self.folder / "fusion.pt")
        forms = [self.graph("fusion", form) for form in ("f32", "int8")]
        train_fusion.export(network, bank, *forms)
        for form, measured in (("", measure(quantized_fusion(forms[1]), ticks)), (", f32", measure(network, ticks))):
            result |= {f"{condition}{form}": figures for condition, figures in measured.items()}
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
    parser.add_argument("--steps", type=int, default=700, help="of each fusion; default: %(default)s")
    parser.add_argument(
        "--windows", type=int, default=40_000, help="size of the bank of training windows of each fusion"
    )
    parser.add_argument("--voice-only", action="store_true", help="only the voice encoders")
    parser.add_argument(
        "--folds", default=",".join(map(str, range(FOLDS))), help="which folds, for example 0,3; default: all"
    )
    parser.set_defaults(batch=64, rate=1e-3, start_from=None)  # of the fusion
    options = parser.parse_args()

    torch.set_num_threads(1)
    sets = EvaluationSets(options.data, options.work, options.models)
    results = {}
    for number in map(int, options.folds.split(",")):
        name = "figures_voice.json" if options.voice_only else "figures.json"
        finished = options.work / f"actor_fold_{number}" / name
        if not finished.exists():
            print(f"fold {number}", flush=True)
            result = Fold(number, sets, options).run()
            finished.write_text(json.dumps(result))
        results[number] = json.loads(finished.read_text())
    means = show(results)
    schedule = {name: getattr(options, name) for name in ("epochs", "student_epochs", "steps", "windows")}
    encoder = sha256(options.models / "face_encoder.int8.onnx")
    print(json.dumps({"schedule": schedule, "face_encoder": encoder, "folds": results, "means": means}))


if __name__ == "__main__":
    arguments.run(main)
