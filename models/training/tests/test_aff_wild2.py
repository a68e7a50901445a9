"""Tests of aff_wild2.py on a small folder in the layout of Aff-Wild2, made with ffmpeg."""

import json
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch

from ..arguments import MODELS, ROOT
from ..experiments import aff_wild2
from ..inference import Fusion
from ..metrics.agreement import ccc
from ..preprocessing.voice_activity import activity_by_loudness

TONE_AT_S = 1.5


def ffmpeg(*arguments):
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True)


def make_video(path, sound_late_s=0.0):
    """4 s of a test pattern at 25 frames a second, the second half with every third frame only; a tone from 1.5 s on."""
    pattern = "testsrc=size=160x120:rate=25:duration=4"
    tone = f"sine=frequency=440:sample_rate=16000:duration={4 - TONE_AT_S - sound_late_s}"
    silence = round((TONE_AT_S - sound_late_s) * 1000)
    uneven = "select='lt(n,50)+not(mod(n,3))'"
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = path.with_suffix(".wav")
    ffmpeg("-f", "lavfi", "-i", tone, "-af", f"volume=5,adelay={silence}", sound)
    ffmpeg(
        "-f", "lavfi", "-i", pattern, "-itsoffset", sound_late_s, "-i", sound, "-vf", uneven, "-fps_mode", "vfr",
        "-c:v", "mpeg4", "-c:a", "aac", "-copyts", path,
    )  # fmt: skip
    sound.unlink()


def run(*arguments):
    """aff_wild2.py as a user calls it."""
    command = [sys.executable, "-m", "models.training.experiments.aff_wild2", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)


def expected_times():
    """Times in seconds of the frames that `make_video` keeps."""
    return np.array([n / 25 for n in range(100) if n < 50 or n % 3 == 0])


class Miniature:
    """Two training videos, one of them with two people, and one validation video."""

    def __init__(self, root):
        self.root = root
        make_video(root / "batch1" / "one.mp4")
        shutil.copy(root / "batch1" / "one.mp4", root / "batch1" / "two.mp4")
        shutil.copy(root / "batch1" / "one.mp4", root / "three.mp4")
        rng = np.random.default_rng(3)
        for split, name in (("Train_Set", "one"), ("Train_Set", "two_left"), ("Validation_Set", "three")):
            lines = ["valence,arousal"]
            values = np.round(np.cumsum(rng.normal(0, 0.05, (len(expected_times()), 2)), 0).clip(-1, 1), 3)
            lines += [f"{valence},{arousal}" for valence, arousal in values]
            if name == "one":
                lines[1 + 4] = "-5,-5"
                lines[1 + 5] = "0.25,-5"
            labels = root / "VA_Estimation_Challenge" / split / f"{name}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("\n".join(lines) + "\n")
            crops = root / "cropped_aligned" / name
            crops.mkdir(parents=True)
            video = root / "three.mp4"
            ffmpeg("-i", video, "-fps_mode", "passthrough", "-vf", "scale=112:112", crops / "%05d.jpg")
            for missing in (1, 8, 9):
                (crops / f"{missing:05}.jpg").unlink()


class AffWild2(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.root = Path(cls.folder.name) / "aff wild"
        cls.miniature = Miniature(cls.root)
        # earshot detects no voice in a tone, correctly, so loudness stands in for it.
        cls.encoders = aff_wild2.Encoders(MODELS, activity_by_loudness)
        annotations = cls.root / "VA_Estimation_Challenge" / "Train_Set" / "one.txt"
        cls.video = aff_wild2.read_video(cls.root, "one", annotations, cls.root / "batch1" / "one.mp4", cls.encoders)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_frame_times_are_those_of_the_video(self):
        np.testing.assert_allclose(aff_wild2.frame_times(self.root / "batch1" / "one.mp4"), expected_times(), atol=1e-3)

    def test_a_frame_counts_with_both_labels_and_a_crop(self):
        skipped = {0, 4, 5, 7, 8}  # lines without a crop: 1, 8, 9; unknown labels: lines 5, 6
        self.assertEqual(set(self.video.scored()), set(range(len(expected_times()))) - skipped)

    def test_left_and_right_belong_to_one_video(self):
        videos = aff_wild2.find_videos(self.root)
        self.assertEqual(videos[aff_wild2.video_name("two_left")].name, "two.mp4")
        self.assertEqual(aff_wild2.video_name("two_right"), "two")
        self.assertEqual(set(videos), {"one", "two", "three"})

    def test_sound_is_aligned_by_its_timestamps(self):
        for late in (0.0, 0.7):
            path = self.root.parent / f"late_{late}.mp4"
            make_video(path, late)
            samples = aff_wild2.read_sound(path, 16_000)
            begin = np.flatnonzero(np.abs(samples) > 0.1)[0] / 16_000
            self.assertAlmostEqual(begin, TONE_AT_S, delta=0.05)

    def test_a_video_without_sound_has_no_samples(self):
        path = self.root.parent / "mute.mp4"
        ffmpeg("-i", self.root / "three.mp4", "-an", "-c:v", "copy", path)
        self.assertEqual(len(aff_wild2.read_sound(path, 16_000)), 0)

    def test_voice_steps_are_present_after_the_voice_begins(self):
        step_s = self.encoders.fusion.step_s
        for frame, time in enumerate(self.video.times):
            _, voice, mask = aff_wild2.window(self.video, frame, step_s)
            for step in range(aff_wild2.STEPS):
                end = time - (aff_wild2.STEPS - 1 - step) * step_s
                # A window of 0.975 s is voiced from a quarter on, and the embedding is up to one grid point old.
                if end < TONE_AT_S + 0.15:
                    self.assertEqual(mask[1, step], 0, (time, end))
                elif end > TONE_AT_S + 0.5:
                    self.assertEqual(mask[1, step], 1, (time, end))
                    self.assertGreater(np.abs(voice[:, step]).sum(), 0)

    def test_a_step_uses_only_frames_of_its_own_time(self):
        video = aff_wild2.Video(
            "made", np.array([0.0, 0.5, 0.9]), np.zeros((3, 2), np.float32), 9 * np.eye(18, dtype=np.float32)[:3],
            np.zeros((0, 64), np.float32), np.zeros(0, bool),
        )  # fmt: skip
        face, _, mask = aff_wild2.window(video, 2, 0.4)
        self.assertEqual(mask[0].tolist(), [0, 0, 0, 0, 0, 1, 1, 1])
        self.assertEqual([int(face[:8, step].argmax()) for step in (5, 6, 7)], [0, 1, 2])

    def test_loss_falls_as_agreement_grows(self):
        target = torch.tensor([[0.1, 0.2], [0.5, -0.3], [-0.4, 0.6]])
        variance = torch.full((3, 2), -2.0)
        right, off = aff_wild2.loss_of(target, variance, target), aff_wild2.loss_of(target * 0.5, variance, target)
        self.assertLess(right, off)
        np.testing.assert_allclose(ccc(target, target), 1.0, atol=1e-5)

    def test_the_message_names_the_line_of_a_bad_label(self):
        path = self.root.parent / "bad.txt"
        for text, reason in (("h\n0.1;0.2\n", "line 2"), ("h\n0.1,0.2\n0.1,7\n", "line 3")):
            path.write_text(text)
            with self.assertRaisesRegex(aff_wild2.BadInput, reason):
                aff_wild2.read_labels(path)

    def test_training_continues_and_writes_a_models_folder(self):
        work = self.root.parent / "work"
        common = ("--root", self.root, "--work", work, "--batch", "8", "--every", "2")
        first = run(*common, "--fine-tune", "--steps", "2")
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertIn("of 67 frames count", first.stdout)
        again = run(*common, "--steps", "4")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertNotIn("frames count", again.stdout)  # features are cached
        self.assertNotIn("step 2 ", again.stdout)  # and training continues
        result = json.loads(again.stdout.splitlines()[-1])
        self.assertEqual(result["validation"]["frames"], 64)
        fusion = Fusion(work / "models")
        frame = int(self.video.scored()[-1])
        parts = aff_wild2.batch_of([aff_wild2.window(self.video, frame, fusion.step_s)])
        self.assertEqual(aff_wild2.int8_affect(work / "models" / "fusion.int8.onnx")(*parts).shape, (1, 2))

    def test_the_message_names_missing_files(self):
        for broken, reason in (("VA_Estimation_Challenge", "no annotations"), ("three.mp4", "no video three")):
            root = self.root.parent / f"broken {broken}"
            shutil.copytree(self.root, root)
            target = root / broken
            shutil.rmtree(target) if target.is_dir() else target.unlink()
            done = run("--root", root, "--work", self.root.parent / "w", "--steps", "1")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(reason, done.stderr)
            self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)


if __name__ == "__main__":
    unittest.main()
