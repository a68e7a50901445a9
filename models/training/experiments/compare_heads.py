"""Compares joint cross-attention with simpler fusions, all else equal: the same windows, steps, seeds and loss.

    python -m models.training.experiments.compare_heads --data DIR --work DIR [--test]

Prints a table of CCC per tick: the mean over the seeds, the deviation over the seeds, and the deviation over the actors (by
bootstrap). Windows begin anywhere, so no head can learn its position in a clip. `--test` also measures the test actors: use it
once, after all decisions. Trained networks are cached in --work.
"""

import functools
import json

import numpy as np
import torch

from .. import arguments, train_fusion
from ..data.evaluation_sets import TEST
from ..metrics.agreement import ccc
from ..metrics.fusion_accuracy import without
from ..networks.fusion_alternatives import HEADS, LateAverage

ROWS = ("joint cross-attention", "cross-attention", "concatenation, 8 steps", "concatenation, newest step")
SINGLE = ("face alone", "voice alone")
LATE = {"late, inverse variance": False, "late, plain mean": True}
BOOTSTRAPS = 500


def networks(training, options):
    """{head: [one network for each seed]}."""
    train = functools.partial(
        train_fusion.train,
        performances=training.performances,
        windows=training.windows,
        validation=training.sets.validation,
        readout=training.readout,
        options=options,
    )
    result = {}
    for head in (*ROWS, *SINGLE):
        result[head] = []
        for seed in range(1, options.seeds + 1):
            checkpoint = options.work / f"head_{head.replace(' ', '_').replace(',', '')}_{options.tag}_{seed}.pt"
            if checkpoint.exists():
                network = HEADS[head]()
                network.load_state_dict(torch.load(checkpoint))
            else:
                _, network = train(head, seed=seed)
                torch.save(network.state_dict(), checkpoint)
            result[head].append(network.eval())
    for head, plain in LATE.items():
        pairs = zip(result["face alone"], result["voice alone"], strict=True)
        result[head] = [LateAverage(face, voice, plain).eval() for face, voice in pairs]
    return result


@torch.no_grad()
def estimates(network, ticks, dropped=()):
    """Affect [n, 2] of a network at ticks, without the modalities `dropped`."""
    *batch, _, _ = ticks
    affect, _ = network(*without(batch, dropped))
    return affect.flatten(1)


def by_actors(affect, target, actors):
    """Deviation of the CCC over bootstrap samples of the actors, [2]."""
    rng, names = np.random.default_rng(1), np.unique(actors)
    rows = {name: torch.from_numpy(np.flatnonzero(actors == name)) for name in names}
    drawn = [torch.cat([rows[name] for name in rng.choice(names, len(names))]) for _ in range(BOOTSTRAPS)]
    return torch.stack([ccc(affect[part], target[part]) for part in drawn]).std(0)


def make_row(head, nets, ticks, actors, dropped):
    """One row of the table: mean, deviation over seeds and deviation over actors of the CCC, [2] each."""
    each = [estimates(network, ticks, dropped) for network in nets]
    values = torch.stack([ccc(affect, ticks[3]) for affect in each])
    spread = torch.stack([by_actors(affect, ticks[3], actors) for affect in each]).mean(0)
    return {
        "head": head,
        "mean": values.mean(0).tolist(),
        "seeds": values.std(0).tolist(),
        "actors": spread.tolist(),
    }


def show(title, rows):
    """Print a Markdown table."""
    print(f"\n{title}\n| head | valence | seeds | actors | arousal | seeds | actors |\n|{' --- |' * 7}")
    for r in rows:
        cells = [f"{r[kind][k]:.3f}" for k in range(2) for kind in ("mean", "seeds", "actors")]
        print(f"| {r['head']} | {' | '.join(cells)} |", flush=True)


def main():
    parser = train_fusion.make_parser(__doc__)
    parser.add_argument("--tag", default="", help="part of the cache names, to separate trials")
    parser.add_argument("--test", action="store_true", help="also measure the test actors")
    parser.set_defaults(seeds=3, steps=700)
    options = parser.parse_args()
    training = train_fusion.TrainingSet(options)
    sets, nets = training.sets, networks(training, options)
    splits = dict(sets.validation)
    if options.test:
        splits |= sets.ticks("test", TEST)
    result = {}
    for split, ticks in splits.items():
        actors = sets.actors[split][ticks[4].numpy()]
        rows = [make_row(head, nets[head], ticks, actors, ()) for head in (*ROWS, *LATE)]
        for alone, dropped in zip(SINGLE, ((1,), (0,)), strict=True):
            rows += [make_row(f"{alone}, dedicated", nets[alone], ticks, actors, dropped)]
            rows += [make_row(f"{alone}, {head}", nets[head], ticks, actors, dropped) for head in ROWS]
        show(split, rows)
        result[split] = rows
    (options.work / f"heads_{options.tag}.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    arguments.run(main)
