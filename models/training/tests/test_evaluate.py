"""Tests of evaluate.py, run like a user runs it, on small data made here."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

import numpy as np
from PIL import Image

from .. import evaluate
from ..arguments import MODELS, ROOT, BadInput
from ..augmentation import camera_faults
from ..data.face_atlas import read_faces
from ..inference import FaceEncoder
from ..labels import CIRCUMPLEX, describe, read_targets
from ..labels import EXPRESSIONS as LABELS
from ..metrics.agreement import ccc_or_none

FAKE_AFFECTD = """#!{python}
import json, sys
clip = sys.argv[sys.argv.index("--input") + 1]
if "broken" in clip:
    sys.exit("error: not a clip")
happy = "-03-" in clip
for tick in range(3):
    face = None if tick == 0 else {{"id": 1}}
    value = (None, 0.2, 1.0)[tick] if happy else (None, -0.1, -0.5)[tick]
    print(json.dumps({{"valence": value, "arousal": value, "confidence": (None, 0.2, 0.6)[tick], "face": face}}))
print("3 estimates; 6 frames, 4 analyzed, 3 with a face, 2 detections", file=sys.stderr)
"""


def some_faces(count):
    """u8 [count, 48, 48]: blobs to which the encoder gives different expressions."""
    rng = np.random.default_rng(5)
    small = rng.integers(0, 256, (count, 6, 6), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(face).resize((48, 48), Image.Resampling.BICUBIC)) for face in small])


def write_atlas(path, faces, across=5):
    down = -(-len(faces) // across)
    cells = np.zeros((down * across, 48, 48), np.uint8)
    cells[: len(faces)] = faces
    Image.fromarray(cells.reshape(down, across, 48, 48).swapaxes(1, 2).reshape(down * 48, across * 48)).save(path)


def write_votes(path, winners, delimiter=",", columns=LABELS, index=True):
    """Seven of ten votes for the winner of each face, the others for the next expression."""
    head = (["index", "image"] if index else []) + [*columns, "unknown", "NF"]
    lines = [delimiter.join(head)]
    for i, winner in enumerate(winners):
        votes = [7 if k == winner else 3 if k == (winner + 1) % 8 else 0 for k, _ in enumerate(columns)]
        lines.append(delimiter.join(map(str, ([i, f"f{i}.png"] if index else []) + votes + [0, 0])))
    path.write_text("\n".join(lines) + "\n")


def run(*arguments):
    """evaluate.py as a user calls it, from another folder."""
    command = [sys.executable, "-m", "models.training.evaluate", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=tempfile.gettempdir(), env=environment
    )


class TestInFolder(unittest.TestCase):
    """A test with a temporary folder of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def result(self, *arguments):
        done = run(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def refused(self, reason, *arguments):
        done = run(*arguments)
        self.assertEqual(done.returncode, 1, done.stderr)
        lines = done.stderr.strip().splitlines()  # notes come before the error
        self.assertEqual([line.startswith("evaluate: ") for line in lines].index(True), len(lines) - 1, done.stderr)
        self.assertRegex(done.stderr, reason)


class Names(TestInFolder):
    def test_names_give_speaker_emotion_and_intensity(self):
        self.assertEqual(describe("a/03-01-06-02-01-02-12.opus"), ("ravdess", "12", "fear", 1.0))
        self.assertEqual(describe("01-01-02-01-01-01-24.mkv"), ("ravdess", "24", "calm", 0.7))
        self.assertEqual(describe("MK0_surprised_7.opus"), ("nemo", "MK0", "surprise", 0.85))
        self.assertIsNone(describe("grid_bbaf2n.mpg"))
        self.assertIsNone(describe("03-01-99-02-01-02-12.opus"))
        table = {"x": ("S", "anger")}
        self.assertEqual(describe("x.wav", table), ("nemo", "S", "anger", 0.85))
        self.assertIsNone(describe("MK0_surprised_7.opus", table))

    def test_the_header_decides_the_delimiter(self):
        for delimiter in ",\t;":
            path = self.folder / "t"
            path.write_text(f"\ufeffEmotion{delimiter} Valence {delimiter}arousal\nhappy{delimiter}1{delimiter}-0.5\n")
            self.assertEqual(read_targets(path), {"happiness": (1.0, -0.5)})


class Faces(TestInFolder):
    def setUp(self):
        super().setUp()
        self.faces = some_faces(12)
        self.atlas, self.votes = self.folder / "atlas.png", self.folder / "votes.csv"
        write_atlas(self.atlas, self.faces)
        self.predicted = FaceEncoder().posteriors(self.faces).argmax(1)

    def test_votes_equal_to_predictions_give_accuracy_1(self):
        for delimiter in ",\t":
            write_votes(self.votes, self.predicted, delimiter)
            found = self.result("faces", "--atlas", self.atlas, "--votes", self.votes)
            self.assertEqual((found["n"], found["accuracy"], found["accuracy_strict_majority"]), (12, 1.0, 1.0))
            self.assertEqual({found["recall"][LABELS[i]] for i in self.predicted}, {1.0})
            self.assertGreater(found["ccc_valence"], 0)

    def test_wrong_votes_for_half_of_the_faces_give_accuracy_half(self):
        winners = np.where(np.arange(12) % 2, self.predicted, (self.predicted + 3) % 8)
        write_votes(self.votes, winners)
        self.assertEqual(self.result("faces", "--atlas", self.atlas, "--votes", self.votes)["accuracy"], 0.5)

    def test_a_table_without_index_is_in_order_and_a_missing_column_has_no_votes(self):
        write_votes(self.votes, self.predicted % 7, columns=LABELS[:7], index=False)
        with contextlib.redirect_stderr(io.StringIO()) as messages:
            faces, counts, majority = read_faces(self.atlas, self.votes, LABELS, 48)
        self.assertIn("no column contempt", messages.getvalue())
        np.testing.assert_array_equal(faces, self.faces)
        self.assertEqual((counts[:, 7].sum(), counts.max(), majority.all()), (0, 7, True))

    def test_index_selects_the_face_and_faces_without_expression_are_dropped(self):
        rows = ["index,happiness,fear,unknown,NF", "3,6,4,0,0", "1,1,2,7,0", "0,2,0,0,8", "5,4,2,4,0", "6,0,0,0,0"]
        self.votes.write_text("\n".join(rows) + "\n")
        with contextlib.redirect_stderr(io.StringIO()):
            faces, counts, majority = read_faces(self.atlas, self.votes, LABELS, 48)
        np.testing.assert_array_equal(faces, self.faces[[3, 5]])
        self.assertEqual(majority.tolist(), [True, False])
        self.assertEqual(counts[0].tolist(), [0, 6, 0, 0, 0, 0, 4, 0])

    def test_targets_can_be_replaced(self):
        write_votes(self.votes, self.predicted)
        targets = self.folder / "targets.tsv"
        flipped = {name: (-v, a) for name, (v, a) in CIRCUMPLEX.items()}
        targets.write_text("emotion\tvalence\tarousal\n" + "".join(f"{n}\t{v}\t{a}\n" for n, (v, a) in flipped.items()))
        plain = self.result("faces", "--atlas", self.atlas, "--votes", self.votes)
        other = self.result("faces", "--atlas", self.atlas, "--votes", self.votes, "--targets", targets)
        # Estimates and targets are both flipped.
        self.assertAlmostEqual(plain["ccc_valence"], other["ccc_valence"], places=3)
        targets.write_text("emotion,valence,arousal\nhappiness,1,1\n")
        self.refused("no row for neutral", "faces", "--atlas", self.atlas, "--votes", self.votes, "--targets", targets)

    def test_disturbances_are_deterministic_and_grow_with_strength(self):
        for name, (_, _, strengths) in camera_faults.DISTURBANCES.items():
            change = [
                np.abs(camera_faults.disturb(self.faces, name, s).astype(float) - self.faces).mean() for s in strengths
            ]
            self.assertEqual(change, sorted(change), name)
            self.assertGreater(change[0], 0.1, name)
            again = camera_faults.disturb(self.faces[:3], name, strengths[0])
            np.testing.assert_array_equal(again, camera_faults.disturb(self.faces, name, strengths[0])[:3])

    def test_a_shift_moves_the_image_by_the_given_pixels(self):
        ramp = np.tile(np.arange(0, 192, 4, dtype=np.uint8), (48, 1))

        class AngleZero:
            def uniform(self, *_):
                return 0.0

        np.testing.assert_array_equal(camera_faults.off_centre(ramp, 4, AngleZero())[:, :44], ramp[:, 4:])

    def test_the_report_has_disturbed_accuracies(self):
        write_votes(self.votes, self.predicted)
        found = self.result("faces", "--atlas", self.atlas, "--votes", self.votes, "--disturb", "--every", "4")
        self.assertEqual(found["n"], 3)
        self.assertEqual(set(found["disturbed"]), set(camera_faults.DISTURBANCES))
        self.assertEqual(set(found["disturbed"]["blur"]), {"0.7 pixels", "1.2 pixels", "2.0 pixels"})
        for strengths in found["disturbed"].values():
            for figures in strengths.values():
                self.assertTrue(0 <= figures["accuracy"] <= 1)

    def test_bad_input_gives_a_message_of_one_line(self):
        write_votes(self.votes, self.predicted)
        self.refused("gone.csv.*No such file", "faces", "--atlas", self.atlas, "--votes", self.folder / "gone.csv")
        self.refused("cannot be read as an image", "faces", "--atlas", self.votes, "--votes", self.votes)
        odd = self.folder / "odd.png"
        Image.new("L", (50, 48)).save(odd)
        self.refused("50x48 pixels", "faces", "--atlas", odd, "--votes", self.votes)
        write_votes(self.votes, [*self.predicted, 0, 0, 0, 0])
        self.refused("index 15 is beyond", "faces", "--atlas", self.atlas, "--votes", self.votes)
        self.votes.write_text("index,neutral\n0,many\n")
        self.refused("line 2: neutral is 'many'", "faces", "--atlas", self.atlas, "--votes", self.votes)
        self.votes.write_text("a,b\n0,1\n")
        self.refused("no column of votes", "faces", "--atlas", self.atlas, "--votes", self.votes)


class Voice(TestInFolder):
    """Recordings are the synthetic speech of the demo clip."""

    def tar(self, *names, sound=None):
        speech = self.folder / "speech.wav"
        source = sound or ["-i", str(MODELS / "demo.mkv")]
        subprocess.run(["ffmpeg", "-v", "error", "-y", *source, "-t", "3", "-vn", str(speech)], check=True)
        path = self.folder / "speech.tar"
        with tarfile.open(path, "w") as tar:
            for name in names:
                tar.add(speech, name)
        return path

    def test_recordings_are_scored_per_utterance_and_per_window(self):
        names = ["Actor_12/03-01-05-02-01-01-12.wav", "03-01-04-01-01-01-13.wav", "notes.txt", "humming.wav"]
        found = self.result("voice", "--tar", self.tar(*names))
        self.assertEqual((found["n"], found["without_voice"]), (2, 0))
        self.assertGreater(found["per_window"]["n"], 4)
        # The same sound has two different targets: no agreement.
        self.assertAlmostEqual(found["ccc_valence"], 0.0, places=3)
        self.assertEqual(self.result("voice", "--tar", self.tar(*names), "--speakers", "13")["n"], 1)

    def test_a_table_gives_the_emotions(self):
        table = self.folder / "nemo.tsv"
        table.write_text("file_id\temotion\tspeaker_id\nspeech_a.wav\tanger\tA\nspeech_b.wav\tsadness\t B \n")
        found = self.result("voice", "--tar", self.tar("speech_a.wav", "speech_b.wav"), "--tsv", table)
        self.assertEqual(found["n"], 2)
        only = self.result(
            "voice", "--tar", self.tar("speech_a.wav", "speech_b.wav"), "--tsv", table, "--speakers", "B"
        )
        self.assertEqual(only["n"], 1)

    def test_bad_input_gives_a_message_of_one_line(self):
        self.refused("cannot be read as a tar", "voice", "--tar", self.folder / "gone.tar")
        self.refused("no recording with a voice", "voice", "--tar", self.tar("a.txt"))
        hum = ["-f", "lavfi", "-i", "sine=frequency=100"]
        self.refused("no recording with a voice", "voice", "--tar", self.tar("03-01-05-02-01-01-12.wav", sound=hum))
        broken = self.folder / "broken.tar"
        with tarfile.open(broken, "w") as tar:
            tar.add(__file__, "03-01-05-02-01-01-12.wav")
        self.refused("ffmpeg cannot decode it", "voice", "--tar", broken)


class Clips(TestInFolder):
    def setUp(self):
        super().setUp()
        self.affectd = self.folder / "affectd"
        self.affectd.write_text(FAKE_AFFECTD.format(python=sys.executable))
        os.chmod(self.affectd, 0o755)

    def test_clips_are_compared_with_the_emotions_in_their_names(self):
        clips = self.folder / "clips"
        clips.mkdir()
        for name in ("01-01-03-02-01-01-01.mkv", "01-01-04-02-01-01-01.mkv", "grid_a.mpg", "readme.txt"):
            (clips / name).touch()
        found = self.result("clips", "--dir", clips, "--affectd", self.affectd)
        self.assertEqual((found["clips"], found["frames_with_face_least"]), (3, 0.75))
        self.assertEqual((found["valence_happy"], found["valence_negative"]), (0.8, -0.4))
        self.assertAlmostEqual(found["faces_mean"], 2 / 3, places=3)
        expected = ccc_or_none([0.8, -0.4], [0.81, -0.63])
        self.assertAlmostEqual(found["ccc_valence"], expected, places=3)
        plain = ccc_or_none([0.6, -0.3], [0.81, -0.63])
        self.assertAlmostEqual(found["of_plain_means"]["ccc_valence"], plain, places=3)
        self.assertEqual(found["per_estimate"]["n"], 4)

    def test_a_table_gives_the_labels_of_own_recordings(self):
        clips = self.folder / "clips"
        clips.mkdir()
        for name in ("happy one.mov", "sad.mkv"):
            (clips / name).touch()
        table = self.folder / "labels.csv"
        table.write_text("clip,emotion\nhappy one.mov,Happy\nsad.mkv,sadness\n")
        found = self.result("clips", "--dir", clips, "--labels", table, "--affectd", self.affectd)
        self.assertEqual(set(found["by_emotion"]), {"happiness", "sadness"})
        table.write_text("clip,valence,arousal\nhappy one.mov,0.5,0.5\n")
        found = self.result("clips", "--dir", clips, "--labels", table, "--affectd", self.affectd)
        self.assertEqual((found["clips"], found["by_emotion"]), (2, {}))
        table.write_text("clip,valence,arousal\nother.mov,0.5,0.5\n")
        self.refused("other.mov: no such clip", "clips", "--dir", clips, "--labels", table, "--affectd", self.affectd)
        table.write_text("clip,mood\nsad.mkv,low\n")
        self.refused("expected the columns clip", "clips", "--dir", clips, "--labels", table, "--affectd", self.affectd)

    def test_a_clip_without_confidence_gets_the_plain_mean(self):
        lines = [{"valence": v, "arousal": 0.0, "confidence": 0.0, "face": None} for v in (0.2, 0.4)]
        self.assertAlmostEqual(evaluate.summarize(Path("a.mkv"), lines, None)["valence"], 0.3)

    def test_bad_input_gives_a_message_of_one_line(self):
        self.refused("--dir must name a folder", "clips", "--dir", self.folder / "gone")
        self.refused("no clips", "clips", "--dir", self.folder)
        (self.folder / "broken.mkv").touch()
        self.refused(
            "affectd ended with exit code 1: error: not a clip",
            "clips",
            "--dir",
            self.folder,
            "--affectd",
            self.affectd,
        )
        self.refused("cargo build --release", "clips", "--dir", self.folder, "--affectd", self.folder / "gone")


class Errors(unittest.TestCase):
    def test_the_message_names_a_folder_without_models(self):
        with self.assertRaisesRegex(BadInput, "--models must name"):
            FaceEncoder(Path("/nowhere"))


if __name__ == "__main__":
    unittest.main()
