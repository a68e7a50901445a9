"""Tests of the fusion's training: windows, translated scores, student embeddings, loss, calibration, networks."""

import dataclasses
import unittest

import numpy as np
import torch

from .. import cross_fitting, train_fusion
from ..arguments import MODELS
from ..augmentation.face_scores import ANCHOR_SHARE, Disturbance, ScoreMap, anchored, log_scores
from ..data.fusion_windows import (
    STEPS,
    TrainingWindows,
    cut_window,
    estimate_points,
    face_steps,
    make_ticks,
    modality_dropout,
)
from ..data.performances import VIDEO_HZ, voice_only
from ..data.speech_corpora import Utterance
from ..experiments.restore_checkpoints import restore_face_encoder, restore_fusion
from ..networks import voice_projection
from ..networks.joint_cross_attention import FACE, VOICE, JointCrossAttention, macs
from ..networks.voice_encoder import Heads
from ..onnx_graphs import open_graph, run_graph, softmax
from ..preprocessing.face_scores import RATED, SCORES, VOTES


def posteriors(count, seed=1):
    """Random posteriors, f32 [count, 7]."""
    return softmax(np.random.default_rng(seed).normal(0, 2, (count, 7))).astype(np.float32)


def scores(count, seed=1):
    """Random scores of faces, f32 [count, 18]."""
    return np.random.default_rng(seed).normal(0, 2, (count, SCORES)).astype(np.float32)


def performance(seconds=4.0, face_until_s=4.0, voice_until_s=4.0, corpus="ravdess", emotion="happiness", seed=1):
    """A performance with a face and a voice from its start until these times."""
    rng = np.random.default_rng(seed)
    utterance = Utterance("made", corpus, "02", emotion, 1.0, int(seconds * 16_000), 0, 0, 0, 0)
    voiced = np.arange(int(seconds * 10) + 1) / 10 <= voice_until_s
    voice = rng.uniform(0, 1, (2, len(voiced), VOICE)).astype(np.float32) * voiced[:, None]
    frames = np.arange(int(face_until_s * VIDEO_HZ))
    target = np.array([0.8, 0.5], np.float32)
    return voice_only(utterance, target, voice, voiced).with_face(frames, scores(len(frames), seed))


class Windows(unittest.TestCase):
    def test_frames_belong_to_the_step_of_their_age(self):
        ages = np.array([0.0, 0.39, 0.4, 3.19])
        face, present = face_steps(scores(4), ages)
        self.assertEqual(present.tolist(), [1, 0, 0, 0, 0, 0, 1, 1])
        votes = softmax(scores(4)[:, VOTES])
        np.testing.assert_allclose(face[:8, -1], votes[:2].mean(0), rtol=1e-5)
        np.testing.assert_allclose(face[8:16, -2], votes[2], rtol=1e-5)
        np.testing.assert_allclose(face[40:, -1], scores(4)[:2, RATED].mean(0), rtol=1e-5)

    def test_a_window_early_in_a_recording_has_only_its_newest_steps(self):
        _, voice, mask = cut_window(performance(), grid=8, index=0, rate_hz=None, phase=0.0)
        self.assertEqual(mask[1].tolist(), [0] * 5 + [1] * 3)  # grid points 0, 4 and 8
        self.assertEqual(mask[0].tolist(), [0] * 5 + [1] * 3)
        self.assertEqual(np.abs(voice[:, :5]).max(), 0)

    def test_estimates_need_a_face_or_a_voice_in_the_newest_step(self):
        half = performance(face_until_s=1.0, voice_until_s=2.0)
        self.assertEqual(estimate_points(half, 1)[[0, -1]].tolist(), [4, 20])
        self.assertLess(estimate_points(half, 1, both=True).max(), 15)

    def test_ticks_are_of_both_modalities_every_0_2_s(self):
        *parts, target, index = make_ticks([performance(), performance(seconds=2.0)])
        self.assertEqual(
            [tuple(part.shape[1:]) for part in parts], [(FACE, 1, STEPS), (VOICE, 1, STEPS), (2, 1, STEPS)]
        )
        self.assertEqual(index.bincount().tolist(), [19, 9])
        self.assertEqual(target.unique(dim=0).tolist(), [[0.800000011920929, 0.5]])

    def test_dropout_removes_steps_of_one_modality_at_most(self):
        stays = modality_dropout(2000, np.random.default_rng(2))
        changed = (stays == 0).any(2)
        self.assertFalse(changed.all(1).any())
        self.assertAlmostEqual(changed.any(1).mean(), 0.65, delta=0.05)

    def test_batches_keep_the_newest_step_and_clear_what_dropout_removed(self):
        performances = [performance(emotion=e, seed=i) for i, e in enumerate(("neutral", "happiness", "anger"))]
        performances.append(performance(face_until_s=0.0, corpus="nemo"))
        sounds = np.full((5, VOICE), 7.0, np.float32)
        photographs = scores(16), np.full((16, 2), -0.25, np.float32), np.arange(16) % 8
        bank = TrainingWindows(performances, sounds, photographs, seed=3, count=400)
        face, voice, mask, target, _ = bank.batch(300)
        self.assertEqual(mask[..., -1].amax((1, 2)).min(), 1)
        self.assertEqual((face * (1 - mask[:, :1])).abs().max(), 0)
        self.assertEqual((voice * (1 - mask[:, 1:])).abs().max(), 0)
        self.assertTrue((voice == 7.0).any() and (target == -0.25).any())
        self.assertEqual(tuple(bank.target_variance().shape), (2,))


class TranslatedScores(unittest.TestCase):
    def test_the_map_recovers_a_linear_change_of_log_posteriors(self):
        theirs = posteriors(2000)
        ours = np.zeros((len(theirs), SCORES), np.float32)
        ours[:, :7] = ours[:, 8:15] = np.log(theirs + 1e-3) + np.linspace(-1, 1, 7)
        ours[:, 7] = ours[:, 15] = -6
        ours[:, 16] = theirs[:, 1] - theirs[:, 4]
        translated = ScoreMap(theirs, ours)(theirs)
        error = np.abs(translated - log_scores(ours)).mean(0)
        self.assertLess(error[:7].max(), 0.25)
        self.assertGreater(np.corrcoef(translated[:, 16], ours[:, 16])[0, 1], 0.8)

    def test_an_anchor_moves_neutral_frames_towards_the_resting_picture(self):
        neutral, rest = scores(50), scores(1, seed=9)[0]
        moved = anchored(neutral, neutral.mean(0), rest).mean(0)
        np.testing.assert_allclose(moved, (1 - ANCHOR_SHARE) * neutral.mean(0) + ANCHOR_SHARE * rest, atol=1e-5)

    def test_a_disturbance_changes_scores_and_keeps_their_shape(self):
        disturbed = Disturbance(np.random.default_rng(4))(scores(50), bias=0.25)
        self.assertEqual(disturbed.shape, (50, SCORES))
        self.assertGreater(np.abs(disturbed - scores(50)).mean(), 0.01)


class Students(unittest.TestCase):
    def setUp(self):
        self.teacher = [performance(seed=seed) for seed in range(4)]
        scale = np.linspace(0.2, 2, VOICE, dtype=np.float32)
        self.students = [
            dataclasses.replace(p, voice=np.where(p.voiced[:, None], p.voice * scale + 0.5, 0)) for p in self.teacher
        ]

    def moments(self, performances):
        voiced = np.concatenate([p.voice[:, p.voiced].reshape(-1, VOICE) for p in performances])
        return voiced.mean(0), voiced.std(0)

    def test_moments_of_students_become_those_of_the_teacher(self):
        matched = cross_fitting.match_moments(self.students, self.teacher)
        np.testing.assert_allclose(self.moments(matched), self.moments(self.teacher), rtol=1e-3)

    def test_a_fold_holds_all_utterances_of_a_speaker(self):
        folds = {cross_fitting.fold_of(p.utterance) for p in self.teacher}
        self.assertEqual(folds, {2})


class Loss(unittest.TestCase):
    def setUp(self):
        generator = torch.Generator().manual_seed(5)
        self.target = torch.rand(30, 2, generator=generator) * 2 - 1
        self.mask = torch.ones(30, 2, 1, STEPS)
        self.face = torch.rand(30, FACE, 1, STEPS, generator=generator)
        self.voice = torch.rand(30, VOICE, 1, STEPS, generator=generator)

    def test_single_modalities_are_added_to_the_batch(self):
        mask = self.mask.clone()
        mask[:10, 1] = 0
        teaches = torch.arange(30) % 2 == 0
        face, voice, masks, target, face_teaches = train_fusion.add_single_modalities(
            self.face, self.voice, mask, self.target, teaches
        )
        self.assertTrue(torch.equal(face_teaches[30:50], teaches[10:]))
        self.assertEqual((len(face), len(target)), (30 + 20 + 20, 70))
        self.assertEqual((voice[30:50].abs().max(), face[50:].abs().max()), (0, 0))
        self.assertEqual((masks[30:50, 1].max(), masks[50:, 0].max()), (0, 0))
        self.assertTrue(torch.equal(target[30:50], self.target[10:]))

    def test_the_loss_falls_with_agreement(self):
        variance, teaches = torch.full((30, 2), -2.0), torch.ones(30, dtype=torch.bool)
        right = train_fusion.loss_of(self.target, variance, self.target, self.mask, teaches)
        wrong = train_fusion.loss_of(-self.target, variance, self.target, self.mask, teaches)
        self.assertLess(right, wrong)


class Networks(unittest.TestCase):
    def test_the_voice_projection_folds_into_one_convolution(self):
        torch.manual_seed(7)
        network = JointCrossAttention().eval()
        batch = torch.rand(3, FACE, 1, STEPS), torch.rand(3, VOICE, 1, STEPS), torch.ones(3, 2, 1, STEPS)
        before = network(*batch)[0]
        voice_projection.install(network, voice_projection.readout_of(Heads()), trained=True)
        installed = network(*batch)[0]
        folded = voice_projection.fold(network)(*batch)[0]
        np.testing.assert_allclose(installed.detach(), before.detach(), atol=1e-5)
        np.testing.assert_allclose(folded.detach(), before.detach(), atol=1e-5)
        self.assertIsInstance(network.voice, torch.nn.Conv2d)

    def test_the_shipped_graph_gives_back_the_network(self):
        network = restore_fusion(MODELS / "fusion.f32.onnx")
        batch = torch.rand(1, FACE, 1, STEPS), torch.rand(1, VOICE, 1, STEPS), torch.ones(1, 2, 1, STEPS)
        feed = {name: part.numpy() for name, part in zip(("face", "voice", "mask"), batch, strict=True)}
        expected = run_graph(open_graph(MODELS / "fusion.f32.onnx"), feed)
        affect, log_variance = (part.detach().numpy() for part in network(*batch))
        np.testing.assert_allclose(affect, expected["affect"], atol=1e-5)
        np.testing.assert_allclose(log_variance, expected["log_variance"], atol=1e-5)

    def test_the_shipped_face_encoder_gives_back_the_network(self):
        net, face = restore_face_encoder(MODELS / "face_encoder.f32.onnx"), torch.rand(1, 1, 48, 48)
        expected = run_graph(open_graph(MODELS / "face_encoder.f32.onnx"), {"face": face.numpy()})["scores"]
        np.testing.assert_allclose(net(face).detach().numpy().ravel(), expected.ravel(), atol=1e-4)

    def test_the_cost_of_the_fusion_is_that_of_the_manifest(self):
        self.assertEqual(macs(), 861_184)


if __name__ == "__main__":
    unittest.main()
