"""Tests of evaluate.py on miniatures made here: python models/training/test_evaluate.py"""

import contextlib
import importlib.util
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

import evaluate
import shipped_graphs
import webcam
from evaluate import BadInput

HERE = Path(__file__).resolve().parent
LABELS = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"]
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
print("3 estimates; 6 pictures, 4 looked at, 3 with a face", file=sys.stderr)
"""


def some_faces(count):
    """u8 [count, 48, 48]: blobs that the encoder has different opinions of."""
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
    """evaluate.py as a user calls it, from a folder of their own."""
    command = [sys.executable, str(HERE / "evaluate.py"), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=tempfile.gettempdir())


class Folder(unittest.TestCase):
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
        lines = done.stderr.strip().splitlines()  # what was only noted stands before the error
        self.assertEqual([line.startswith("evaluate.py: ") for line in lines].index(True), len(lines) - 1, done.stderr)
        self.assertRegex(done.stderr, reason)


class Measures(Folder):
    def test_concordance(self):
        self.assertAlmostEqual(evaluate.concordance([1, 2, 3], [1, 2, 3]), 1.0)
        # A constant offset of 1 with variance 2/3: 2 * 2/3 / (4/3 + 1).
        self.assertAlmostEqual(evaluate.concordance([1, 2, 3], [2, 3, 4]), 4 / 7)
        self.assertAlmostEqual(evaluate.concordance([1, 2, 3], [3, 2, 1]), -1.0)
        self.assertIsNone(evaluate.concordance([1], [1]))
        self.assertIsNone(evaluate.concordance([2, 2], [2, 2]))

    def test_names_tell_speaker_emotion_and_intensity(self):
        self.assertEqual(evaluate.described("a/03-01-06-02-01-02-12.opus"), ("12", "fear", 1.0))
        self.assertEqual(evaluate.described("01-01-02-01-01-01-24.mkv"), ("24", "calm", 0.7))
        self.assertEqual(evaluate.described("MK0_surprised_7.opus"), ("MK0", "surprise", 0.85))
        self.assertIsNone(evaluate.described("grid_bbaf2n.mpg"))
        self.assertIsNone(evaluate.described("03-01-99-02-01-02-12.opus"))
        table = {"x": ("S", "anger")}
        self.assertEqual(evaluate.described("x.wav", table), ("S", "anger", 0.85))
        self.assertIsNone(evaluate.described("MK0_surprised_7.opus", table))

    def test_tables_are_told_by_their_header(self):
        for delimiter in ",\t;":
            path = self.folder / "t"
            path.write_text(f"\ufeffEmotion{delimiter} Valence {delimiter}arousal\nhappy{delimiter}1{delimiter}-0.5\n")
            self.assertEqual(evaluate.read_targets(path), {"happiness": (1.0, -0.5)})

    def test_a_recording_at_another_level_and_the_training_code_agree(self):
        if importlib.util.find_spec("torch") is None:
            self.skipTest("torch is not installed")
        import torch

        import log_mel

        encoder = shipped_graphs.VoiceEncoder(activity=shipped_graphs.loudness_activity)
        encoder.floor = log_mel.LOG_FLOOR
        samples = np.random.default_rng(1).normal(0, 0.1, 20_000).astype(np.float32) * np.linspace(
            0, 1, 20_000, dtype=np.float32
        )
        theirs = log_mel.mel_power(torch.from_numpy(samples))
        for end in (3_000, 12_345, 20_000):
            expected = log_mel.window_ending_at(theirs, end).numpy()
            np.testing.assert_allclose(encoder.input(encoder.band_powers(samples), end)[0, 0], expected, atol=2e-4)


class Faces(Folder):
    def setUp(self):
        super().setUp()
        self.faces = some_faces(12)
        self.atlas, self.votes = self.folder / "atlas.png", self.folder / "votes.csv"
        write_atlas(self.atlas, self.faces)
        self.opinion = shipped_graphs.FaceEncoder().posteriors(self.faces).argmax(1)

    def test_votes_as_the_encoder_sees_them_are_all_right(self):
        for delimiter in ",\t":
            write_votes(self.votes, self.opinion, delimiter)
            found = self.result("faces", "--atlas", self.atlas, "--votes", self.votes)
            self.assertEqual((found["n"], found["accuracy"], found["accuracy_strict_majority"]), (12, 1.0, 1.0))
            self.assertEqual({found["recall"][LABELS[i]] for i in self.opinion}, {1.0})
            self.assertGreater(found["ccc_valence"], 0)

    def test_half_of_the_votes_wrong_halves_the_accuracy(self):
        winners = np.where(np.arange(12) % 2, self.opinion, (self.opinion + 3) % 8)
        write_votes(self.votes, winners)
        self.assertEqual(self.result("faces", "--atlas", self.atlas, "--votes", self.votes)["accuracy"], 0.5)

    def test_without_index_or_a_column_rows_are_in_order_and_the_column_is_empty(self):
        write_votes(self.votes, self.opinion % 7, columns=LABELS[:7], index=False)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            pictures, counts, majority = evaluate.read_faces(self.atlas, self.votes, LABELS, 48)
        self.assertIn("no column contempt", said.getvalue())
        np.testing.assert_array_equal(pictures, self.faces)
        self.assertEqual((counts[:, 7].sum(), counts.max(), majority.all()), (0, 7, True))

    def test_index_says_which_face_and_no_expression_means_no_face(self):
        rows = ["index,happiness,fear,unknown,NF", "3,6,4,0,0", "1,1,2,7,0", "0,2,0,0,8", "5,4,2,4,0", "6,0,0,0,0"]
        self.votes.write_text("\n".join(rows) + "\n")
        with contextlib.redirect_stderr(io.StringIO()):
            pictures, counts, majority = evaluate.read_faces(self.atlas, self.votes, LABELS, 48)
        np.testing.assert_array_equal(pictures, self.faces[[3, 5]])
        self.assertEqual(majority.tolist(), [True, False])
        self.assertEqual(counts[0].tolist(), [0, 6, 0, 0, 0, 0, 4, 0])

    def test_the_target_rule_is_an_option(self):
        write_votes(self.votes, self.opinion)
        targets = self.folder / "targets.tsv"
        flipped = {name: (-v, a) for name, (v, a) in evaluate.CIRCUMPLEX.items()}
        targets.write_text("emotion\tvalence\tarousal\n" + "".join(f"{n}\t{v}\t{a}\n" for n, (v, a) in flipped.items()))
        plain = self.result("faces", "--atlas", self.atlas, "--votes", self.votes)
        other = self.result("faces", "--atlas", self.atlas, "--votes", self.votes, "--targets", targets)
        # Both sides are flipped.
        self.assertAlmostEqual(plain["ccc_valence"], other["ccc_valence"], places=3)
        targets.write_text("emotion,valence,arousal\nhappiness,1,1\n")
        self.refused("no row for neutral", "faces", "--atlas", self.atlas, "--votes", self.votes, "--targets", targets)

    def test_disturbances_are_the_same_every_time_and_grow(self):
        for name, (_, _, strengths) in webcam.DISTURBANCES.items():
            change = [
                np.abs(webcam.disturbed(self.faces, name, s).astype(float) - self.faces).mean() for s in strengths
            ]
            self.assertEqual(change, sorted(change), name)
            self.assertGreater(change[0], 0.1, name)
            again = webcam.disturbed(self.faces[:3], name, strengths[0])
            np.testing.assert_array_equal(again, webcam.disturbed(self.faces, name, strengths[0])[:3])

    def test_a_shift_moves_the_picture_by_so_many_pixels(self):
        ramp = np.tile(np.arange(0, 192, 4, dtype=np.uint8), (48, 1))

        class East:
            def uniform(self, *_):
                return 0.0

        np.testing.assert_array_equal(webcam.off_centre(ramp, 4, East())[:, :44], ramp[:, 4:])

    def test_disturbed_accuracies_are_in_the_report(self):
        write_votes(self.votes, self.opinion)
        found = self.result("faces", "--atlas", self.atlas, "--votes", self.votes, "--disturb", "--every", "4")
        self.assertEqual(found["n"], 3)
        self.assertEqual(set(found["disturbed"]), set(webcam.DISTURBANCES))
        self.assertEqual(set(found["disturbed"]["blur"]), {"0.7 pixels", "1.2 pixels", "2.0 pixels"})
        for strengths in found["disturbed"].values():
            for figures in strengths.values():
                self.assertTrue(0 <= figures["accuracy"] <= 1)

    def test_bad_input_gets_one_line(self):
        write_votes(self.votes, self.opinion)
        self.refused("gone.csv.*No such file", "faces", "--atlas", self.atlas, "--votes", self.folder / "gone.csv")
        self.refused("cannot be read as a picture", "faces", "--atlas", self.votes, "--votes", self.votes)
        odd = self.folder / "odd.png"
        Image.new("L", (50, 48)).save(odd)
        self.refused("50x48 pixels", "faces", "--atlas", odd, "--votes", self.votes)
        write_votes(self.votes, [*self.opinion, 0, 0, 0, 0])
        self.refused("index 15 is beyond", "faces", "--atlas", self.atlas, "--votes", self.votes)
        self.votes.write_text("index,neutral\n0,many\n")
        self.refused("line 2: neutral is 'many'", "faces", "--atlas", self.atlas, "--votes", self.votes)
        self.votes.write_text("a,b\n0,1\n")
        self.refused("no column of votes", "faces", "--atlas", self.atlas, "--votes", self.votes)


class Voice(Folder):
    """Recordings are the synthetic speech of the demo clip: a voice, whatever it may feel."""

    def tar(self, *names, sound=None):
        speech = self.folder / "speech.wav"
        source = sound or ["-i", str(shipped_graphs.MODELS / "demo.mkv")]
        subprocess.run(["ffmpeg", "-v", "error", "-y", *source, "-t", "3", "-vn", str(speech)], check=True)
        path = self.folder / "speech.tar"
        with tarfile.open(path, "w") as tar:
            for name in names:
                tar.add(speech, name)
        return path

    def test_recordings_are_scored_by_utterance_and_window(self):
        names = ["Actor_12/03-01-05-02-01-01-12.wav", "03-01-04-01-01-01-13.wav", "notes.txt", "humming.wav"]
        found = self.result("voice", "--tar", self.tar(*names))
        self.assertEqual((found["n"], found["without_voice"]), (2, 0))
        self.assertGreater(found["per_window"]["n"], 4)
        # The same sound twice: nothing agrees with two different targets.
        self.assertAlmostEqual(found["ccc_valence"], 0.0, places=3)
        self.assertEqual(self.result("voice", "--tar", self.tar(*names), "--speakers", "13")["n"], 1)

    def test_a_table_names_the_emotions(self):
        table = self.folder / "nemo.tsv"
        table.write_text("file_id\temotion\tspeaker_id\nspeech_a.wav\tanger\tA\nspeech_b.wav\tsadness\t B \n")
        found = self.result("voice", "--tar", self.tar("speech_a.wav", "speech_b.wav"), "--tsv", table)
        self.assertEqual(found["n"], 2)
        only = self.result(
            "voice", "--tar", self.tar("speech_a.wav", "speech_b.wav"), "--tsv", table, "--speakers", "B"
        )
        self.assertEqual(only["n"], 1)

    def test_bad_input_gets_one_line(self):
        self.refused("cannot be read as a tar", "voice", "--tar", self.folder / "gone.tar")
        self.refused("no recording with a voice", "voice", "--tar", self.tar("a.txt"))
        hum = ["-f", "lavfi", "-i", "sine=frequency=100"]
        self.refused("no recording with a voice", "voice", "--tar", self.tar("03-01-05-02-01-01-12.wav", sound=hum))
        broken = self.folder / "broken.tar"
        with tarfile.open(broken, "w") as tar:
            tar.add(__file__, "03-01-05-02-01-01-12.wav")
        self.refused("ffmpeg cannot decode it", "voice", "--tar", broken)


class Clips(Folder):
    def setUp(self):
        super().setUp()
        self.affectd = self.folder / "affectd"
        self.affectd.write_text(FAKE_AFFECTD.format(python=sys.executable))
        os.chmod(self.affectd, 0o755)

    def test_clips_are_held_against_what_their_names_say(self):
        clips = self.folder / "clips"
        clips.mkdir()
        for name in ("01-01-03-02-01-01-01.mkv", "01-01-04-02-01-01-01.mkv", "grid_a.mpg", "readme.txt"):
            (clips / name).touch()
        found = self.result("clips", "--dir", clips, "--affectd", self.affectd)
        self.assertEqual((found["clips"], found["pictures_with_face_least"]), (3, 0.75))
        self.assertEqual((found["valence_happy"], found["valence_negative"]), (0.8, -0.4))
        self.assertAlmostEqual(found["faces_mean"], 2 / 3, places=3)
        expected = evaluate.concordance([0.8, -0.4], [0.81, -0.63])
        self.assertAlmostEqual(found["ccc_valence"], expected, places=3)
        plain = evaluate.concordance([0.6, -0.3], [0.81, -0.63])
        self.assertAlmostEqual(found["of_plain_means"]["ccc_valence"], plain, places=3)
        self.assertEqual(found["per_estimate"]["n"], 4)

    def test_a_clip_in_which_nothing_is_believed_has_the_plain_mean(self):
        lines = [{"valence": v, "arousal": 0.0, "confidence": 0.0, "face": None} for v in (0.2, 0.4)]
        self.assertAlmostEqual(evaluate.of_clip(Path("a.mkv"), lines, None)["valence"], 0.3)

    def test_bad_input_gets_one_line(self):
        self.refused("--dir must name a folder", "clips", "--dir", self.folder / "gone")
        self.refused("no clips", "clips", "--dir", self.folder)
        (self.folder / "broken.mkv").touch()
        self.refused(
            "affectd ended with 1: error: not a clip", "clips", "--dir", self.folder, "--affectd", self.affectd
        )
        self.refused("cargo build --release", "clips", "--dir", self.folder, "--affectd", self.folder / "gone")


class Errors(unittest.TestCase):
    def test_a_folder_without_models_is_named(self):
        with self.assertRaisesRegex(BadInput, "--models must name"):
            shipped_graphs.FaceEncoder(Path("/nowhere"))


if __name__ == "__main__":
    unittest.main()
