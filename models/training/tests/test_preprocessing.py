"""Tests of the preprocessing, against the fixtures that the Rust tests use too. They need numpy and pillow; torch is optional."""

import importlib.util
import unittest

import numpy as np

from .. import fixtures
from ..preprocessing import face_crop, face_detection, voice_activity
from ..preprocessing.face_scores import expression
from ..preprocessing.fusion_features import FEATURES, step_features
from ..preprocessing.log_mel import LOG_MEL


class Fixtures(unittest.TestCase):
    def test_the_python_preprocessing_computes_the_fixtures(self):
        for name, content in fixtures.compute().items():
            self.assertFalse(fixtures.differs(name, content), name)

    def test_another_value_is_a_difference(self):
        content = fixtures.compute()["windows.f32"]
        windows = np.frombuffer(content, "<f4").copy()
        windows[100] += 0.001
        self.assertTrue(fixtures.differs("windows.f32", windows.tobytes()))


class LogMelWindows(unittest.TestCase):
    def setUp(self):
        self.samples = (np.random.default_rng(1).normal(0, 0.1, 20_000) * np.linspace(0, 1, 20_000)).astype(np.float32)

    def test_gain_does_not_change_a_loud_window(self):
        window = LOG_MEL.band_powers(self.samples)[-96:].T
        # 20 dB of gain; the rest of the difference is the log floor.
        np.testing.assert_allclose(LOG_MEL.normalize(100 * window), LOG_MEL.normalize(window), atol=0.005)

    def test_a_window_before_the_first_frame_is_silent(self):
        powers = LOG_MEL.band_powers(self.samples)
        self.assertEqual(np.abs(LOG_MEL.window_ending_at(powers, 399)).max(), 0)

    def test_the_window_ends_with_the_last_full_frame(self):
        powers = LOG_MEL.band_powers(self.samples)
        whole = LOG_MEL.window_ending_at(powers, len(self.samples))
        np.testing.assert_array_equal(whole, LOG_MEL.normalize(powers[-96:].T))

    def test_short_sound_has_no_frames(self):
        self.assertEqual(LOG_MEL.band_powers(self.samples[:399]).shape, (0, 64))

    @unittest.skipIf(importlib.util.find_spec("torch") is None, "torch is not installed")
    def test_numpy_and_torch_agree(self):
        import torch

        powers, tensors = LOG_MEL.band_powers(self.samples), LOG_MEL.band_powers(torch.from_numpy(self.samples))
        np.testing.assert_allclose(tensors.numpy(), powers, rtol=1e-3, atol=1e-12)
        window = LOG_MEL.normalize(tensors[-96:].T)
        np.testing.assert_allclose(window.numpy(), LOG_MEL.normalize(powers[-96:].T), atol=2e-4)


class VoiceActivity(unittest.TestCase):
    def test_a_window_needs_a_quarter_of_voiced_frames_and_enough_audio(self):
        scores = np.zeros(100, np.float32)
        scores[50:] = 1.0
        samples = 100 * voice_activity.FRAME
        ends = np.array([6399, 6400, 12_800, 16_000, 18_000, samples])
        present = voice_activity.voice_present(scores, samples, ends, LOG_MEL.span, LOG_MEL.rate_hz)
        self.assertEqual(present.tolist(), [False, False, False, False, True, True])
        all_voiced = voice_activity.voice_present(np.ones(100), samples, ends, LOG_MEL.span, LOG_MEL.rate_hz)
        self.assertEqual(all_voiced.tolist(), [False, True, True, True, True, True])

    def test_loudness_finds_the_loud_half(self):
        samples = np.concatenate([np.full(2560, 0.001), np.full(2560, 0.5)])
        self.assertEqual(voice_activity.activity_by_loudness(samples).tolist(), [0.0] * 10 + [1.0] * 10)


class Faces(unittest.TestCase):
    def test_the_square_follows_the_larger_of_eye_distance_and_mouth_distance(self):
        frontal = face_crop.square((40, 50), (60, 50), (50, 70))
        self.assertAlmostEqual(frontal.side, 20 * face_crop.FER_PLUS.side_per_eye_distance, places=4)
        aside = face_crop.square((48, 50), (52, 50), (50, 70))
        self.assertAlmostEqual(aside.side, 20 * face_crop.FER_PLUS.side_per_eye_mouth, places=4)

    def test_a_rotated_square_cuts_the_rotated_image(self):
        image = np.random.default_rng(2).integers(0, 256, (100, 100), np.uint8)
        upright = face_crop.crop(image, face_crop.Square(np.float32([50, 50]), 40.0, 0.0))
        turned = face_crop.crop(np.rot90(image), face_crop.Square(np.float32([50, 50]), 40.0, -np.pi / 2))
        np.testing.assert_allclose(turned, upright, atol=0.1)

    def test_normalized_faces_are_within_1_and_flat_ones_stay_flat(self):
        rng = np.random.default_rng(3)
        self.assertLessEqual(np.abs(face_crop.normalize(rng.integers(0, 256, (48, 48)))).max(), 1)
        self.assertLess(np.abs(face_crop.normalize(100 + rng.normal(0, 1, (48, 48)))).max(), 0.2)

    def test_decoding_merges_overlapping_candidates(self):
        outputs = {
            "score_8": np.full((1, 2, 16, 16), -20.0), "box_8": np.zeros((1, 32, 16, 16)),
            "score_16": np.full((1, 6, 8, 8), -20.0), "box_16": np.zeros((1, 96, 8, 8)),
        }  # fmt: skip
        for anchor in range(2):  # two anchors of one cell, 32 pixels wide boxes
            outputs["score_8"][0, anchor, 4, 4] = 3.0
            outputs["box_8"][0, 16 * anchor + 2 : 16 * anchor + 4, 4, 4] = 32.0
        (face,) = face_detection.decode(outputs)
        np.testing.assert_allclose(face.box, np.array([4.5, 4.5, 4.5, 4.5]) / 16 + [-0.125, -0.125, 0.125, 0.125])
        self.assertAlmostEqual(face.score, 1 / (1 + np.exp(-3.0)))

    def test_a_letterbox_keeps_the_aspect_ratio_and_gives_the_way_back(self):
        canvas, scale, offset = face_detection.letterbox(np.full((60, 120), 200, np.uint8))
        self.assertEqual((canvas.shape, int(canvas[0].max()), int(canvas[64].min())), ((128, 128), 0, 200))
        np.testing.assert_allclose(np.array([60, 30]) * scale + offset, [64, 64], atol=0.5)


class FusionFeatures(unittest.TestCase):
    def test_features_are_means_maxima_and_scaled_logarithms(self):
        scores = np.zeros((2, 18))
        scores[0, 0], scores[1, 1] = 1000, 1000  # votes: neutral, then happiness
        scores[:, 8 + 7] = 1000  # shown: contempt
        scores[:, 16:] = [[0.5, 0.25], [-0.25, 0.75]]
        features = step_features(scores)
        self.assertEqual(len(features), FEATURES)
        self.assertEqual(features[:3].tolist(), [0.5, 0.5, 0.0])
        self.assertEqual(features[8:11].tolist(), [1.0, 1.0, 0.0])
        np.testing.assert_allclose(features[16:19], (np.log([0.501, 0.501, 0.001]) + 3) / 4)
        self.assertEqual(features[24:32].tolist(), [0.0] * 7 + [1.0])
        np.testing.assert_allclose(features[32:34], (np.log([0.001, 0.001]) + 3) / 4)
        self.assertEqual(features[40:].tolist(), [0.125, 0.5])

    def test_the_reported_expression_is_the_mean_of_votes_and_shown(self):
        scores = np.zeros((1, 18))
        scores[0, 0] = scores[0, 8 + 4] = 1000
        self.assertEqual(expression(scores)[0].tolist(), [0.5, 0, 0, 0, 0.5, 0, 0, 0])

    def test_contempt_is_on_top_when_one_opinion_is_sure_of_it(self):
        scores = np.log(np.full((1, 18), 1e-9))
        scores[0, 0] = 0
        scores[0, 8], scores[0, 8 + 7] = np.log(0.2), np.log(0.8)
        np.testing.assert_allclose(expression(scores)[0, [0, 7]], [0.6 / 1.4, 0.8 / 1.4], atol=1e-6)


if __name__ == "__main__":
    unittest.main()
