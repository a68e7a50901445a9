"""Tests of the metrics: CCC, figures of a fusion, risk-coverage curve."""

import unittest

import numpy as np
import torch

from ..metrics import claimed_variance, fusion_accuracy, fusion_behaviour, risk_coverage, strangers
from ..metrics.agreement import affect_ccc, ccc, ccc_or_none
from ..networks.joint_cross_attention import FACE, STEPS, VOICE


class Agreement(unittest.TestCase):
    def test_known_values(self):
        self.assertAlmostEqual(ccc_or_none([1, 2, 3], [1, 2, 3]), 1.0)
        # An offset of 1 with variance 2/3: 2 * 2/3 / (4/3 + 1).
        self.assertAlmostEqual(ccc_or_none([1, 2, 3], [2, 3, 4]), 4 / 7)
        self.assertAlmostEqual(ccc_or_none([1, 2, 3], [3, 2, 1]), -1.0)

    def test_a_wrong_scale_lowers_the_ccc(self):
        # Twice the scale around a mean of 0: 2 * 2 * v / (v + 4 v).
        self.assertAlmostEqual(ccc_or_none([-1, 0, 1], [-2, 0, 2]), 4 / 5)

    def test_it_is_undefined_for_one_value_and_for_equal_constants(self):
        self.assertIsNone(ccc_or_none([1], [1]))
        self.assertIsNone(ccc_or_none([2, 2], [2, 2]))
        self.assertAlmostEqual(ccc_or_none([2, 2], [1, 1]), 0.0)
        self.assertEqual(affect_ccc([], []), {"ccc_valence": None, "ccc_arousal": None})

    def test_numpy_and_torch_agree_column_by_column(self):
        a, b = np.random.default_rng(1).normal(size=(2, 50, 2))
        both = ccc(a, b)
        np.testing.assert_allclose(ccc(torch.from_numpy(a), torch.from_numpy(b)).numpy(), both, rtol=1e-12)
        np.testing.assert_allclose([ccc_or_none(a[:, k], b[:, k]) for k in range(2)], both, rtol=1e-12)


def ticks(count=40, clips=4, seed=3):
    """Random ticks of `clips` performances of equal length, both modalities present."""
    generator = torch.Generator().manual_seed(seed)
    face = torch.rand(count, FACE, 1, STEPS, generator=generator)
    voice = torch.rand(count, VOICE, 1, STEPS, generator=generator)
    target = torch.rand(count, 2, generator=generator) * 2 - 1
    index = torch.arange(count) // (count // clips)
    return face, voice, torch.ones(count, 2, 1, STEPS), target, index


class FusionFigures(unittest.TestCase):
    def test_a_network_that_knows_the_target_has_ccc_1_and_its_error_over_variance(self):
        *batch, target, index = ticks()

        def network(face, voice, mask):
            return target[..., None, None] + 0.1, torch.full((len(face), 2, 1, 1), np.log(0.02))

        result = fusion_accuracy.measure(network, (*batch, target - 0.1 + 0.1, index))
        self.assertGreater(min(result["face and voice"]["tick"]), 0.97)
        np.testing.assert_allclose(result["face and voice"]["variance"], 0.01 / 0.02, rtol=1e-3)

    def test_removing_a_modality_clears_its_features_and_its_mask(self):
        face, voice, mask, *_ = ticks()
        without_voice = fusion_accuracy.without((face, voice, mask), (1,))
        self.assertEqual(without_voice[1].abs().sum(), 0)
        self.assertEqual(without_voice[2][:, 1].sum(), 0)
        self.assertTrue(torch.equal(without_voice[0], face))
        self.assertEqual(mask.min(), 1)  # the batch itself is unchanged

    def test_the_last_tick_of_each_clip_counts_at_its_end(self):
        *_, target, index = ticks(clips=4)
        last = [9, 19, 29, 39]
        estimates = torch.zeros_like(target)
        estimates[last] = target[last]
        self.assertAlmostEqual(min(fusion_accuracy.agreement(estimates, target, index)["end"]), 1.0, places=5)

    def test_a_modality_that_ends_halfway_stays_in_older_steps_only(self):
        face, _, mask, ends, _ = fusion_behaviour.end_halfway(ticks(clips=4), 0)
        self.assertEqual((len(ends), int(ends.sum())), (40, 4))
        first_after = int(torch.nonzero(ends)[0])
        self.assertEqual(mask[first_after, 0, 0].tolist(), [1] * (STEPS - 1) + [0])
        self.assertEqual(face[first_after, :, 0, -1].abs().sum(), 0)
        self.assertEqual(mask[first_after - 1, 0, 0].tolist(), [1] * STEPS)
        self.assertEqual(mask[:, 1].min(), 1)

    def test_smoothing_starts_at_zero_in_each_performance(self):
        values, index = torch.tensor([[0.0], [1.0], [1.0], [5.0]]), torch.tensor([0, 0, 0, 1])
        smooth = fusion_behaviour.smoothed(values, index)
        weight = 1 - np.exp(-1 / 5 / 0.5)
        np.testing.assert_allclose(smooth[:, 0], [0, weight, weight + weight * (1 - weight), 5 * weight], rtol=1e-6)


class Strangers(unittest.TestCase):
    def fold(self, scale, seed):
        """A network that knows the target up to `scale` and its own squared error, and ticks of clips."""
        face, voice, mask, target, index = ticks(seed=seed)
        face[:, :2, 0, -1] = target
        face[:, 2:4, 0, -1] = ((scale - 1) * target).square().clamp(min=1e-3).log()

        def network(face, voice, mask):
            return scale * face[:, :2, :, -1:], face[:, 2:4, :, -1:]

        return network, (face, voice, mask, target, index)

    def test_folds_are_measured_together_and_clips_stay_apart(self):
        folds = [self.fold(1.0, 1), self.fold(1.0, 2)]
        both = strangers.join([strangers.estimates(fold) for fold in folds])
        self.assertEqual(len(np.unique(both.clip)), 8)
        self.assertAlmostEqual(min(strangers.measure(folds)["face and voice"]["clip"]), 1.0, places=4)

    def test_a_confidence_that_knows_the_errors_has_a_rank_correlation_near_minus_1(self):
        known = strangers.estimates(self.fold(0.2, 1))
        variance = np.repeat(known.squared[:, :1], 2, 1)
        found = strangers.confidence_figures(known, variance, [10.0, 10.0])
        self.assertAlmostEqual(found["rank"][0], -1.0, places=3)
        self.assertAlmostEqual(found["ratio"][0], 1.0, places=6)

    def test_equal_values_have_equal_ranks(self):
        self.assertEqual(strangers.ranks(np.array([3, 1, 3, 2])).tolist(), [3.5, 1.0, 3.5, 2.0])


class ClaimedVariance(unittest.TestCase):
    def test_the_fit_recovers_a_log_linear_variance(self):
        rng = np.random.default_rng(6)
        affect, own = rng.uniform(-1, 1, (4000, 2)), rng.normal(-2, 0.5, (4000, 2))
        x = claimed_variance.features(affect, own, np.ones((4000, 2, 1, 8)))
        true = np.exp(-1.5 + 0.8 * affect[:, 0] + 0.5 * own[:, 0])
        squared = np.stack([true, true], 1) * rng.normal(size=(4000, 2)) ** 2
        weights = claimed_variance.fit(x, squared)
        variance = claimed_variance.claimed(weights, x)
        np.testing.assert_allclose(squared.mean(0) / variance.mean(0), 1, rtol=0.1)
        self.assertGreater(np.corrcoef(np.log(variance[:, 0]), np.log(true))[0, 1], 0.98)

    def test_confidence_is_the_explained_share_of_the_prior_variance(self):
        variance = np.array([[0.1, 0.05], [0.4, 0.4], [0.0, 0.0]])
        np.testing.assert_allclose(claimed_variance.confidence(variance, [0.2, 0.1]), [0.5, 0.0, 1.0])

    def test_a_calibrated_network_keeps_its_affect(self):
        *batch, _, _ = ticks()

        def network(face, voice, mask):
            return face[:, :2, :, -1:], face[:, 2:4, :, -1:]

        weights = np.zeros((2, claimed_variance.FEATURES))
        weights[:, 0] = -3.0
        affect, log_variance = claimed_variance.calibrated(network, weights)(*batch)
        self.assertTrue(torch.equal(affect, batch[0][:, :2, :, -1:]))
        np.testing.assert_allclose(log_variance.numpy(), -3.0)


class RiskCoverage(unittest.TestCase):
    def test_the_curve_is_the_error_of_the_most_certain_share(self):
        squared, variance = np.array([1.0, 4.0, 9.0, 16.0]), np.array([1.0, 2.0, 3.0, 4.0])
        coverage, risk = risk_coverage.curve(np.repeat(squared, 100), np.repeat(variance, 100))
        self.assertEqual(coverage[-1], 1.0)
        self.assertAlmostEqual(risk[0], 1.0)
        self.assertAlmostEqual(risk[-1], np.sqrt(30 / 4))
        self.assertTrue((np.diff(risk) >= 0).all())

    def test_both_halves_have_figures_even_with_equal_variances(self):
        *_, target, _ = ticks()
        squared = target.square().numpy()
        _, figures = risk_coverage.of_errors(squared, np.ones_like(squared), "split", "command")
        self.assertEqual(len(figures), 4)
        expected = target[:20, 0].square().mean().sqrt().item()
        self.assertAlmostEqual(figures[0]["value"], expected, places=3)
        self.assertTrue(np.isfinite([figure["value"] for figure in figures]).all())

    def test_the_drawing_is_an_svg_with_a_line_for_each_dimension(self):
        curves = {name: risk_coverage.curve(np.ones(100), np.arange(100)) for name in ("valence", "arousal")}
        drawing = risk_coverage.draw(curves)
        self.assertTrue(drawing.startswith("<svg") and drawing.endswith("</svg>\n"))
        self.assertEqual(drawing.count("<polyline"), 2)


if __name__ == "__main__":
    unittest.main()
