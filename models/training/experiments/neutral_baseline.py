"""Measures the setting `estimate.baseline`: a person's neutral expression becomes zero, as in `src/fusion/baseline.rs`.

    python -m models.training.experiments.neutral_baseline --data DIR --work DIR

The baseline is the mean estimate over an actor's neutral utterances of the first statement. The CCC is over all other utterances
of the actor, without and with the baseline. Int8 graphs, face posteriors mapped to affectd's, RAVDESS validation and test actors.
"""

import numpy as np
import torch

from .. import arguments
from ..data.evaluation_sets import TEST, VALIDATION, EvaluationSets
from ..metrics.agreement import ccc
from ..networks.quantized import quantized_fusion

LARGEST_BASELINE = 0.5


def subtract_baseline(values, baseline):
    """Piecewise linear: `baseline` [2] becomes 0, -1 and +1 stay."""
    room = torch.where(values >= baseline, 1 - baseline, 1 + baseline)
    return (values - baseline) / room


def main():
    parser = arguments.parser(__doc__)
    arguments.add_data(parser)
    arguments.add_work(parser)
    arguments.add_models(parser)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    sets = EvaluationSets(options.data, options.work, options.models)
    network = quantized_fusion(options.models / "fusion.int8.onnx")
    all_ticks = sets.validation | {TEST: sets.ticks("test", TEST)}
    for split, part in (("validation", VALIDATION), ("test", TEST)):
        utterances = sets.corpora.select("ravdess", split)
        *batch, target, index = all_ticks[part]
        affect = network(*batch)[0].flatten(1)
        first = np.array([u.emotion == "neutral" and u.name.split("-")[4] == "01" for u in utterances])[index]
        actor = np.array([u.speaker for u in utterances])[index]
        calibrated = affect.clone()
        for name in np.unique(actor):
            baseline = (
                affect[torch.from_numpy(first & (actor == name))].mean(0).clamp(-LARGEST_BASELINE, LARGEST_BASELINE)
            )
            print(f"actor {name}: baseline at {baseline[0]:.2f}, {baseline[1]:.2f}")
            own = torch.from_numpy(actor == name)
            calibrated[own] = subtract_baseline(affect[own], baseline)
        rows = torch.from_numpy(~first)
        for name, values in (("without", affect), ("with", calibrated)):
            whole = ccc(values[rows], target[rows])
            error = (values[rows] - target[rows]).square().mean(0).sqrt()
            neutral = torch.from_numpy(~first) & (target.abs().sum(1) == 0)
            off = values[neutral].mean(0).abs()
            print(
                f"{part}, {name} baseline: CCC per tick {whole[0]:.3f} / {whole[1]:.3f}, "
                f"root mean squared error {error[0]:.3f} / {error[1]:.3f}, "
                f"neutral of the other statement off by {off[0]:.3f} / {off[1]:.3f}"
            )


if __name__ == "__main__":
    arguments.run(main)
