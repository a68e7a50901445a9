"""Joint cross-attention against simpler fusions, everything else alike: the same windows, steps, seeds and loss.

    python models/training/compare_heads.py --data DIR --work DIR [--test]

Prints a table of CCC per tick: mean and deviation over the seeds, and the deviation that comes with the choice of
actors (bootstrap over them). Windows begin anywhere, so that no head can learn where in a clip it is. --test measures the
test actors too, once everything is decided. Trained networks are kept in --work.
"""

import functools
import json

import numpy as np
import torch

import fusion
import fusion_heads
from voice_encoder import ccc

ROWS = ("joint cross-attention", "cross-attention", "concatenation, 8 steps", "concatenation, newest step")
ALONE = ("face alone", "voice alone")
LATE = {"late, inverse variance": False, "late, plain mean": True}
BOOTSTRAPS = 500


def networks(material, options):
    """{head: [a network a seed]}."""
    train = functools.partial(
        fusion.train,
        items=material.items,
        windows=material.windows,
        validation=material.validation,
        readout=material.readout,
        options=options,
    )
    result = {}
    for head in (*ROWS, *ALONE):
        result[head] = []
        for seed in range(1, options.seeds + 1):
            kept = options.work / f"head_{head.replace(' ', '_').replace(',', '')}_{options.tag}_{seed}.pt"
            if kept.exists():
                network = fusion_heads.HEADS[head]()
                network.load_state_dict(torch.load(kept))
            else:
                _, network = train(head, seed=seed)
                torch.save(network.state_dict(), kept)
            result[head].append(network.eval())
    for head, plain in LATE.items():
        pairs = zip(result["face alone"], result["voice alone"], strict=True)
        result[head] = [fusion_heads.LateAverage(face, voice, plain).eval() for face, voice in pairs]
    return result


@torch.no_grad()
def estimates(network, ticks, dropped=()):
    *batch, _, _ = ticks
    affect, _ = network(*fusion.without(batch, dropped))
    return affect.flatten(1)


def by_actors(affect, target, actors):
    """Deviation of the CCC over bootstrap samples of the actors, [2]."""
    rng, names = np.random.default_rng(1), np.unique(actors)
    rows = {name: torch.from_numpy(np.flatnonzero(actors == name)) for name in names}
    drawn = [torch.cat([rows[name] for name in rng.choice(names, len(names))]) for _ in range(BOOTSTRAPS)]
    return torch.stack([ccc(affect[part], target[part]) for part in drawn]).std(0)


def row(head, nets, ticks, actors, dropped):
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
    print(f"\n{title}\n| head | valence | seeds | actors | arousal | seeds | actors |\n|{' --- |' * 7}")
    for r in rows:
        cells = [f"{r[kind][k]:.3f}" for k in range(2) for kind in ("mean", "seeds", "actors")]
        print(f"| {r['head']} | {' | '.join(cells)} |", flush=True)


def main():
    parser = fusion.arguments(__doc__)
    parser.add_argument("--tag", default="", help="keeps the networks of different trials apart")
    parser.add_argument("--test", action="store_true", help="measure on the test actors too")
    parser.set_defaults(seeds=3, steps=700)
    options = parser.parse_args()
    material = fusion.Material(options)
    nets = networks(material, options)
    splits = dict(material.validation)
    if options.test:
        splits |= material.ticks("test", fusion.TEST)
    result = {}
    for split, ticks in splits.items():
        actors = material.actors[split][ticks[4].numpy()]
        both = [row(head, nets[head], ticks, actors, ()) for head in (*ROWS, *LATE)]
        for alone, dropped in zip(ALONE, ((1,), (0,)), strict=True):
            both += [row(f"{alone}, dedicated", nets[alone], ticks, actors, dropped)]
            both += [row(f"{alone}, {head}", nets[head], ticks, actors, dropped) for head in ROWS]
        show(split, both)
        result[split] = both
    (options.work / f"heads_{options.tag}.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
