"""Six actor folds of RAVDESS, each measured by encoders and fusions that never heard its people:

    python models/training/actor_folds.py --data DIR --work DIR [--epochs N] [--student-epochs N] [--steps N]

What the figures of one split of actors are worth: actors differ more than models do. For each fold a voice encoder learns
from nothing on the other folds' actors and nEMO's training speakers, students of its own hear those out of fold, a fusion
learns from them, and both are quantized as what ships is. The face side is what ships: our encoder never saw RAVDESS, and
the translation of the other network's posteriors is fitted on actor 01, who is in no fold. No weights are chosen by a
fold's own actors: schedules are fixed, the weights are the last ones, averaged. The recipe itself was chosen with actors 02
to 21 in sight (models/README.md). Of one seed.

Fold k holds actors 4 k + 1 .. 4 k + 4, two men and two women, the first without actor 01. Everything is kept in --work, and a
second run goes on where the first one stopped. The last line is one JSON object.
"""

import argparse
import functools
import json
from pathlib import Path

import numpy as np
import torch

import bundle
import fusion
import fusion_windows
import non_voice
import out_of_fold
import recorded_clips
import stills
import voice_encoder
import voice_projection
from fusion import TRANSLATED, kept
from speech_corpora import Corpora

FOLDS = 6
PASSES = 3  # one clean and two augmented hearings of each training performance
SEED = 1
# How far the faces that the fusion learns from are translated: to how our encoder reads them, as what ships, or not at all.
PARTS = {"ours": (0.9, 1.1), "other": (0.0, 0.0)}
VOICE_BATCH, VOICE_RATE = 32, 1.5e-3  # as voice_encoder.py has them
OTHER_FACES, OUR_FACES = "faces by the other network", "faces" + TRANSLATED.removeprefix(", face posteriors")


def fold_of(utterance):
    """0 .. 5, of a RAVDESS utterance."""
    return (int(utterance.speaker) - 1) // 4


class Fold:
    """One fold's people, files and graphs."""

    def __init__(self, number, corpora, options):
        self.corpora, self.options, self.folder = corpora, options, options.work / f"actor_fold_{number}"
        self.folder.mkdir(parents=True, exist_ok=True)
        ravdess = [u for u in corpora.utterances if u.corpus == "ravdess"]
        self.unseen = [u for u in ravdess if fold_of(u) == number]
        self.learned = [u for u in ravdess if fold_of(u) != number]
        self.nemo = corpora.select("nemo", "train")

    def graph(self, name, form):
        return self.folder / f"{name}.{form}.onnx"

    def voice(self):
        """(encoder, heads), trained, and the int8 encoder as a function."""
        everyone = self.learned + self.nemo
        voice_encoder.train(
            self.corpora, everyone, None, self.folder, self.options.epochs, VOICE_BATCH, VOICE_RATE, SEED
        )
        encoder, heads = voice_encoder.load(self.folder)
        if not self.graph("voice_encoder", "int8").exists():
            forms = (self.graph("voice_encoder", form) for form in ("f32", "int8"))
            voice_encoder.export(self.corpora, everyone, encoder, *forms)
        return encoder, heads, voice_encoder.int8_encoder(self.graph("voice_encoder", "int8"))

    def performances(self, teacher):
        """What the fusion learns from: everyone but the fold's actors, heard by students of `teacher`, out of fold."""
        everyone = self.learned + self.nemo
        students = out_of_fold.students(teacher, self.corpora, everyone, self.folder, self.options.student_epochs)
        utterances = self.learned + self.nemo[:: fusion.NEMO_EVERY]
        hear = functools.partial(fusion_windows.performances, self.corpora, self.options.data, utterances)
        by_students = kept(
            self.folder / "students.pickle", lambda: hear(lambda u: students[out_of_fold.fold_of(u)], PASSES)
        )
        return out_of_fold.matched(
            by_students, kept(self.folder / "teacher.pickle", lambda: hear(lambda u: teacher, 1))
        )

    def run(self, faces):
        """{what: {"tick" or "window", "clip" or "utterance": [2], ...}} of the int8 graphs, and of f32."""
        encoder, heads, int8_encoder = self.voice()
        windows = voice_encoder.Windows(self.corpora, self.unseen)
        result = {
            "voice alone": voice_encoder.measure(int8_encoder, heads, windows),
            "voice alone, f32": voice_encoder.measure(encoder, heads, windows),
        }
        print(result, flush=True)
        items = self.performances(encoder)
        parts = PARTS[self.options.faces]
        garbage = int8_encoder(non_voice.inputs(600)).flatten(1).numpy()
        bank = fusion_windows.TrainingWindows(
            items, faces["translation"], garbage, faces["stills"], SEED, self.options.windows, parts=parts
        )
        heard = fusion_windows.performances(self.corpora, self.options.data, self.unseen, lambda u: int8_encoder, 1)
        ticks = {
            OTHER_FACES: fusion_windows.ticks(heard),
            OUR_FACES: fusion_windows.ticks(heard, change=faces["translation"].fully),
        }
        readout = voice_projection.readout_of(heads)
        _, network = fusion.train("joint cross-attention", items, bank, ticks, readout, self.options, SEED)
        torch.save(network.state_dict(), self.folder / f"fusion_{self.options.faces}.pt")
        forms = [self.graph(f"fusion_{self.options.faces}", form) for form in ("f32", "int8")]
        fusion.export(network, bank, *forms)
        int8 = fusion.int8_network(forms[1])
        for name, part in ticks.items():
            for form, measured in (("", fusion.measure(int8, part)), (", f32", fusion.measure(network, part))):
                result |= {f"{condition}, {name}{form}": figures for condition, figures in measured.items()}
        return result


def show(results):
    """The folds' CCC side by side, as a Markdown table, and the means; returns {row: {kind: mean [2]}}."""
    means = {}
    print(f"| int8, CCC valence / arousal | {' | '.join(f'fold {k}' for k in results)} | mean |")
    print("| --- |" + " --- |" * (len(results) + 1))
    for what, figures in next(iter(results.values())).items():
        for kind in figures.keys() - {"variance"}:
            each = np.array([result[what][kind] for result in results.values()])
            means.setdefault(what, {})[kind] = each.mean(0).round(4).tolist()
            cells = [f"{valence:.3f} / {arousal:.3f}" for valence, arousal in (*each, each.mean(0))]
            print(f"| {what}, per {kind} | {' | '.join(cells)} |")
    return means


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument("--work", type=Path, required=True, help="caches and checkpoints")
    parser.add_argument("--epochs", type=int, default=66, help="of each voice encoder")
    parser.add_argument("--student-epochs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=1500, help="of each fusion")
    parser.add_argument(
        "--windows", type=int, default=60_000, help="how many different training windows of each fusion"
    )
    parser.add_argument("--faces", choices=PARTS, default="ours", help="whose readings of faces the fusions learn from")
    parser.add_argument("--folds", default=",".join(map(str, range(FOLDS))), help="which folds, such as 0,3")
    parser.set_defaults(batch=64, rate=1e-3, start_from=None)  # of the fusion
    options = parser.parse_args()

    corpora = Corpora(options.data, options.work)
    read = recorded_clips.read_all(options.data, options.work)
    faces = {
        "translation": recorded_clips.translation(options.data, read["actor01"]),
        "stills": stills.read(options.data),
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
    encoder = bundle.sha256(bundle.MODELS / "face_encoder.int8.onnx")
    print(json.dumps({"schedule": schedule, "face_encoder": encoder, "folds": results, "means": means}))


if __name__ == "__main__":
    main()
