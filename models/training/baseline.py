"""What `estimate.baseline` is worth: each person's rest taken for zero, as src/fusion/baseline.rs does.

    python models/training/baseline.py --data DIR --work DIR

The rest is the mean estimate over an actor's neutral utterances of the first statement; measured are all of the actor's other
utterances, with and without. The int8 graphs, face posteriors translated to affectd's, RAVDESS validation and test actors.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import bundle
import fusion
from voice_encoder import ccc

FARTHEST = 0.5


def from_rest(values, rest):
    """Piecewise linear: `rest` [2] becomes 0, -1 and +1 stay."""
    room = torch.where(values >= rest, 1 - rest, 1 + rest)
    return (values - rest) / room


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument("--work", type=Path, required=True, help="caches and checkpoints")
    unseen = fusion.Unseen(parser.parse_args())
    network = fusion.int8_network(bundle.MODELS / "fusion.int8.onnx")
    everything = unseen.validation | unseen.ticks("test", fusion.TEST)
    for split, part in (("validation", fusion.VALIDATION), ("test", fusion.TEST)):
        utterances = unseen.corpora.select("ravdess", split)
        *batch, target, index = everything[part + fusion.TRANSLATED]
        affect = network(*batch)[0].flatten(1)
        first = np.array([u.emotion == "neutral" and u.name.split("-")[4] == "01" for u in utterances])[index]
        actor = np.array([u.speaker for u in utterances])[index]
        calibrated = affect.clone()
        for name in np.unique(actor):
            rest = affect[torch.from_numpy(first & (actor == name))].mean(0).clamp(-FARTHEST, FARTHEST)
            print(f"actor {name}: rest at {rest[0]:.2f}, {rest[1]:.2f}")
            own = torch.from_numpy(actor == name)
            calibrated[own] = from_rest(affect[own], rest)
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
    main()
