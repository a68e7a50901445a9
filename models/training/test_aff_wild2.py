"""Tests of aff_wild2.py on a miniature in Aff-Wild2's layout, made by ffmpeg: python models/training/test_aff_wild2.py"""

import json
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch

import aff_wild2
import shipped_graphs

HERE = Path(__file__).resolve().parent
TONE_AT_S = 1.5


def ffmpeg(*arguments):
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True)


def make_video(path, sound_late_s=0.0):
    """4 s: a test picture at 25 frames a second, of which the second half keeps every third; a tone from 1.5 s on."""
    picture = "testsrc=size=160x120:rate=25:duration=4"
    tone = f"sine=frequency=440:sample_rate=16000:duration={4 - TONE_AT_S - sound_late_s}"
    silence = round((TONE_AT_S - sound_late_s) * 1000)
    uneven = "select='lt(n,50)+not(mod(n,3))'"
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = path.with_suffix(".wav")
    ffmpeg("-f", "lavfi", "-i", tone, "-af", f"volume=5,adelay={silence}", sound)
    ffmpeg(
        "-f", "lavfi", "-i", picture, "-itsoffset", sound_late_s, "-i", sound, "-vf", uneven, "-fps_mode", "vfr",
        "-c:v", "mpeg4", "-c:a", "aac", "-copyts", path,
    )  # fmt: skip
    sound.unlink()


def expected_times():
    return np.array([n / 25 for n in range(100) if n < 50 or n % 3 == 0])


class Miniature:
    """Two training videos, one of them of two people, and one for validation."""

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
        # earshot hears no voice in a tone, and should not.
        cls.encoders = aff_wild2.Encoders(shipped_graphs.MODELS, shipped_graphs.loudness_activity)
        annotations = cls.root / "VA_Estimation_Challenge" / "Train_Set" / "one.txt"
        cls.video = aff_wild2.read_video(cls.root, "one", annotations, cls.root / "batch1" / "one.mp4", cls.encoders)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_frames_have_the_times_of_the_video_not_of_a_steady_rate(self):
        np.testing.assert_allclose(aff_wild2.frame_times(self.root / "batch1" / "one.mp4"), expected_times(), atol=1e-3)

    def test_a_frame_counts_with_both_labels_and_a_crop(self):
        left_out = {0, 4, 5, 7, 8}  # lines without a crop: 1, 8, 9; unknown labels: lines 5, 6
        self.assertEqual(set(self.video.scored()), set(range(len(expected_times()))) - left_out)

    def test_left_and_right_are_people_in_one_video(self):
        videos = aff_wild2.find_videos(self.root)
        self.assertEqual(videos[aff_wild2.plain("two_left")].name, "two.mp4")
        self.assertEqual(aff_wild2.plain("two_right"), "two")
        self.assertEqual(set(videos), {"one", "two", "three"})

    def test_sound_is_placed_by_its_own_timestamps(self):
        for late in (0.0, 0.7):
            path = self.root.parent / f"late_{late}.mp4"
            make_video(path, late)
            samples = aff_wild2.read_sound(path, 16_000)
            begin = np.flatnonzero(np.abs(samples) > 0.1)[0] / 16_000
            self.assertAlmostEqual(begin, TONE_AT_S, delta=0.05)

    def test_a_video_without_sound_is_silent(self):
        path = self.root.parent / "mute.mp4"
        ffmpeg("-i", self.root / "three.mp4", "-an", "-c:v", "copy", path)
        self.assertEqual(len(aff_wild2.read_sound(path, 16_000)), 0)

    def test_voice_appears_in_the_window_when_it_is_heard(self):
        step_s = self.encoders.fusion.step_s
        for frame, time in enumerate(self.video.times):
            _, voice, mask = aff_wild2.window(self.video, frame, step_s)
            for step in range(aff_wild2.STEPS):
                end = time - (aff_wild2.STEPS - 1 - step) * step_s
                # A window of 0.975 s is voiced from a quarter on, and what is heard is up to a grid point old.
                if end < TONE_AT_S + 0.15:
                    self.assertEqual(mask[1, step], 0, (time, end))
                elif end > TONE_AT_S + 0.5:
                    self.assertEqual(mask[1, step], 1, (time, end))
                    self.assertGreater(np.abs(voice[:, step]).sum(), 0)

    def test_a_step_sees_the_pictures_of_its_own_time_only(self):
        video = aff_wild2.Video(
            "made", np.array([0.0, 0.5, 0.9]), np.zeros((3, 2), np.float32), np.eye(8, dtype=np.float32)[:3],
            np.zeros((0, 64), np.float32), np.zeros(0, bool),
        )  # fmt: skip
        face, _, mask = aff_wild2.window(video, 2, 0.4)
        self.assertEqual(mask[0].tolist(), [0, 0, 0, 0, 0, 1, 1, 1])
        self.assertEqual([int(face[:7, step].argmax()) for step in (5, 6, 7)], [0, 1, 2])

    def test_loss_falls_as_agreement_grows(self):
        target = torch.tensor([[0.1, 0.2], [0.5, -0.3], [-0.4, 0.6]])
        variance = torch.full((3, 2), -2.0)
        right, off = aff_wild2.loss_of(target, variance, target), aff_wild2.loss_of(target * 0.5, variance, target)
        self.assertLess(right, off)
        np.testing.assert_allclose(aff_wild2.ccc(target, target), 1.0, atol=1e-5)

    def test_bad_labels_are_named(self):
        path = self.root.parent / "bad.txt"
        for text, reason in (("h\n0.1;0.2\n", "line 2"), ("h\n0.1,0.2\n0.1,7\n", "line 3")):
            path.write_text(text)
            with self.assertRaisesRegex(aff_wild2.BadInput, reason):
                aff_wild2.read_labels(path)

    def test_from_a_copy_to_a_models_folder(self):
        work = self.root.parent / "work"
        command = [
            sys.executable,
            HERE / "aff_wild2.py",
            "--root",
            self.root,
            "--work",
            work,
            "--batch",
            "8",
            "--every",
            "2",
        ]
        first = subprocess.run(
            [*command, "--fine-tune", "--steps", "2"], check=False, capture_output=True, text=True, cwd=self.root
        )
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertIn("of 67 frames count", first.stdout)
        again = subprocess.run([*command, "--steps", "4"], check=False, capture_output=True, text=True, cwd=self.root)
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertNotIn("frames count", again.stdout)  # features are kept
        self.assertNotIn("step 2 ", again.stdout)  # and it goes on where it was
        result = json.loads(again.stdout.splitlines()[-1])
        self.assertEqual(result["validation"]["frames"], 64)
        fusion = shipped_graphs.Fusion(work / "models")
        frame = int(self.video.scored()[-1])
        parts = aff_wild2.batch_of([aff_wild2.window(self.video, frame, fusion.step_s)])
        self.assertEqual(aff_wild2.int8_affect(work / "models" / "fusion.int8.onnx")(*parts).shape, (1, 2))

    def test_what_is_missing_is_named(self):
        for broken, reason in (("VA_Estimation_Challenge", "no annotations"), ("three.mp4", "no video three")):
            root = self.root.parent / f"broken {broken}"
            shutil.copytree(self.root, root)
            target = root / broken
            shutil.rmtree(target) if target.is_dir() else target.unlink()
            command = [
                sys.executable,
                HERE / "aff_wild2.py",
                "--root",
                root,
                "--work",
                self.root.parent / "w",
                "--steps",
                "1",
            ]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(reason, done.stderr)
            self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)


if __name__ == "__main__":
    unittest.main()
