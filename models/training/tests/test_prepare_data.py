"""Tests of prepare_data.py on small synthetic originals in the formats of their owners."""

import csv
import io
import subprocess
import sys
import tarfile
import tempfile
import unittest
import wave
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np

from .. import prepare_data
from ..arguments import ROOT
from ..data.clips import read_frames, read_sound
from ..data.corpus_names import describe_recording
from ..data.face_atlas import load_split, read_cells
from ..labels import CIRCUMPLEX, read_targets


def run(*arguments):
    """prepare_data.py as a user calls it."""
    command = [sys.executable, "-m", "models.training.prepare_data", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)


def wav(seconds=0.5, rate=48_000):
    """The bytes of a 16-bit mono wav file with a tone."""
    samples = (8000 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype("<i2")
    content = io.BytesIO()
    with wave.open(content, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(samples.tobytes())
    return content.getvalue()


class TestInFolder(unittest.TestCase):
    """A test with a temporary folder of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.out = self.folder / "data"

    def converted(self, *arguments):
        done = run(*arguments, "--out", self.out, "--no-check")
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def refused(self, reason, *arguments):
        done = run(*arguments, "--out", self.out)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, reason)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)


class FerPlus(TestInFolder):
    def setUp(self):
        super().setUp()
        self.fer2013, self.ferplus = self.folder / "fer2013.csv", self.folder / "fer2013new.csv"
        self.faces = np.random.default_rng(1).integers(0, 256, (6, 48, 48), np.uint8)
        self.usages = ["Training", "Training", "Training", "PublicTest", "PublicTest", "PrivateTest"]
        self.names = ["fer0.png", "", "fer2.png", "fer3.png", "fer4.png", "fer5.png"]
        self.write()

    def write(self):
        with open(self.fer2013, "w", newline="") as file:
            rows = zip(self.faces, self.usages, strict=True)
            content = [[0, " ".join(map(str, face.ravel())), usage] for face, usage in rows]
            csv.writer(file).writerows([["emotion", "pixels", "Usage"], *content])
        header = ["Usage", "Image name", *prepare_data.VOTES]
        with open(self.ferplus, "w", newline="") as file:
            rows = zip(self.usages, self.names, strict=True)
            votes = [[usage, name, *([i, 10 - i] + [0] * 8)] for i, (usage, name) in enumerate(rows)]
            csv.writer(file).writerows([header, *votes])

    def test_the_atlas_has_the_faces_of_its_split_that_ferplus_names(self):
        self.converted("ferplus", "--fer2013", self.fer2013, "--ferplus", self.ferplus)
        cells = read_cells(self.out / "faces" / "ferplus_train.png")
        np.testing.assert_array_equal(cells[:2], self.faces[[0, 2]])
        self.assertEqual(cells[2:].max(), 0)

    def test_the_training_code_reads_the_result(self):
        self.converted("ferplus", "--fer2013", self.fer2013, "--ferplus", self.ferplus)
        faces, votes, majority = load_split(self.out, "valid")
        np.testing.assert_array_equal(faces, self.faces[[3, 4]])
        np.testing.assert_allclose(votes[:, :2], [[0.3, 0.7], [0.4, 0.6]], atol=1e-6)
        self.assertEqual(majority.tolist(), [True, True])

    def test_tables_of_different_length_or_order_are_rejected(self):
        arguments = ("ferplus", "--fer2013", self.fer2013, "--ferplus", self.ferplus)
        lines = self.ferplus.read_text().splitlines()
        self.ferplus.write_text("\n".join(lines[:-1]) + "\n")
        self.refused("different numbers of rows", *arguments)
        self.ferplus.write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
        self.refused("line 2 is of PrivateTest", *arguments)
        self.ferplus.write_text("Usage,neutral\n")
        self.refused("no column Image name|no column", *arguments)


class Speech(TestInFolder):
    def test_ravdess_becomes_opus_at_16_khz_without_actor_01(self):
        originals = self.folder / "Audio_Speech_Actors_01-24.zip"
        with zipfile.ZipFile(originals, "w") as archive:
            for name in ("Actor_01/03-01-05-01-01-01-01.wav", "Actor_07/03-01-05-01-01-01-07.wav"):
                archive.writestr(name, wav())
            archive.writestr("Actor_07/03-02-05-01-01-01-07.wav", wav())  # sung
        self.converted("ravdess-speech", "--originals", originals)
        with tarfile.open(self.out / "speech" / "ravdess.tar") as tar:
            self.assertEqual(tar.getnames(), ["03-01-05-01-01-01-07.opus"])
            content = tar.extractfile("03-01-05-01-01-01-07.opus").read()
        import soundfile

        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
        self.assertEqual((rate, samples.ndim), (16_000, 1))
        self.assertAlmostEqual(len(samples) / rate, 0.5, delta=0.05)

    def test_nemo_keeps_its_table_and_the_names_of_its_recordings(self):
        originals = self.folder / "nEMO"
        (originals / "samples").mkdir(parents=True)
        for name in ("AB1_anger_2.wav", "AB1_surprised_10.wav"):
            (originals / "samples" / name).write_bytes(wav(rate=24_000))
        table = "file_id\temotion\tspeaker_id\nAB1_anger_2.wav\tanger\tAB1\n"
        (originals / "data.tsv").write_text(table)
        self.converted("nemo", "--originals", originals)
        with tarfile.open(self.out / "speech" / "nemo.tar") as tar:
            self.assertEqual(tar.getnames(), ["AB1_anger_2.opus", "AB1_surprised_10.opus"])
        self.assertEqual((self.out / "speech" / "nemo.tsv").read_text(), table)

    def test_another_corpus_keeps_the_recordings_with_its_names(self):
        originals = self.folder / "originals"
        originals.mkdir()
        for name in ("01-02-05_03.wav", "notes.wav"):
            (originals / name).write_bytes(wav())
        done = self.converted("speech", "--corpus", "javanese", "--originals", originals)
        self.assertIn("1 files with other names left out", done.stderr)
        with tarfile.open(self.out / "speech" / "javanese.tar") as tar:
            self.assertEqual(tar.getnames(), ["01-02-05_03.opus"])

    def test_the_names_of_each_corpus_state_speaker_category_and_intensity(self):
        described = {
            ("javanese", "06-01-05_01.mp4"): ("06", "fear", 0.85),
            ("ased", "a5-01-01-01-03.opus"): ("03", "anger", 0.85),
            ("emotiontts", "ema00101.opus"): ("ema", "happiness", 0.85),
            ("baved", "0-m-21-0-2-106.opus"): ("0", "high arousal", 1.0),
            ("emogator", "000001-13-1.opus"): ("000001", "elation", 0.85),
            ("ravdess", "03-01-06-02-01-02-12.opus"): ("12", "fear", 1.0),
        }
        for (corpus, name), expected in described.items():
            self.assertEqual(describe_recording(corpus, name), expected)
        for corpus in ("javanese", "ased", "emotiontts", "baved", "emogator"):
            with self.assertRaisesRegex(ValueError, "not a name of the corpus"):
                describe_recording(corpus, "holiday.wav")

    def test_originals_without_recordings_are_rejected(self):
        self.refused("neither a folder nor a zip", "ravdess-speech", "--originals", self.folder / "gone.zip")
        (self.folder / "empty").mkdir()
        self.refused(r"no files \*.wav", "nemo", "--originals", self.folder / "empty")


class Clips(TestInFolder):
    def test_clips_of_actor_01_fit_640x480_and_keep_their_sound(self):
        originals = self.folder / "Actor_01"
        originals.mkdir()
        names = (
            "01-01-03-01-01-01-01",
            "02-01-03-01-01-01-01",
            "01-01-03-01-02-01-01",
        )  # the last is another statement
        for name in names:
            source = ("-f", "lavfi", "-i", "testsrc=size=320x180:rate=10:duration=1")
            tone = ("-f", "lavfi", "-i", "sine=sample_rate=48000:duration=1")
            subprocess.run(["ffmpeg", "-v", "error", *source, *tone, originals / f"{name}.mp4"], check=True)
        self.converted("ravdess-clips", "--originals", originals)
        folder = self.out / "av" / "actor01_kids"
        self.assertEqual(sorted(p.stem for p in folder.iterdir()), sorted(names[:2]))
        frames = read_frames(folder / f"{names[0]}.mkv")
        self.assertEqual((len(frames), frames[0].shape), (10, (480, 640)))
        self.assertLess(frames[0][:50].mean(), 20)  # the letterbox
        self.assertAlmostEqual(len(read_sound(folder / f"{names[0]}.mkv")) / 16_000, 1.0, delta=0.1)

    def test_grid_clips_are_found_by_hash_before_name(self):
        for speaker, content in (("s1", b"another speaker"), ("s2", b"the right one")):
            (self.folder / "grid" / speaker).mkdir(parents=True)
            (self.folder / "grid" / speaker / "bbaf2n.mpg").write_bytes(content)
        right = self.folder / "grid" / "s2" / "bbaf2n.mpg"
        expected = {"clips/grid_bbaf2n.mpg": prepare_data.fingerprint(right)}
        options = mock.Mock(originals=self.folder / "grid", out=self.out)
        with mock.patch.dict(prepare_data.EXPECTED, expected, clear=True):
            self.assertEqual(prepare_data.grid(options), ["clips/grid_bbaf2n.mpg"])
        self.assertEqual((self.out / "clips" / "grid_bbaf2n.mpg").read_bytes(), b"the right one")


class Checks(TestInFolder):
    def test_the_circumplex_table_is_byte_identical_to_the_one_used(self):
        done = run("circumplex", "--out", self.out)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("circumplex.csv: equal", done.stdout)
        self.assertEqual(read_targets(self.out / "circumplex.csv"), CIRCUMPLEX)

    def test_a_different_result_ends_in_exit_code_1_and_a_missing_one_is_named(self):
        self.out.mkdir()
        (self.out / "circumplex.csv").write_text("emotion,valence,arousal\nneutral,0,0\n")
        done = run("check", "--out", self.out)
        self.assertEqual(done.returncode, 1)
        self.assertIn("circumplex.csv: differs", done.stdout)
        self.assertIn("speech/nemo.tar: missing", done.stdout)


if __name__ == "__main__":
    unittest.main()
