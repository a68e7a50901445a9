"""Compares joint cross-attention with simpler fusions on strangers, all else equal: the same windows, steps, seeds and loss.

    python -m models.training.experiments.compare_heads --data DIR --work DIR [--models DIR] [--seeds N] [--steps N]

Each network is trained without two of the six Javanese speakers and measured on their clips. Prints CCC of clip means over all
clips: the mean over the seeds, the deviation over the seeds, and the deviation over the speakers (by bootstrap). Windows begin
anywhere, so no head can learn its position in a clip. Trained networks are cached in --work.
"""

import json

import numpy as np
import torch

from .. import arguments, cross_fitting, train_fusion
from ..metrics import strangers
from ..metrics.agreement import ccc
from ..networks.fusion_alternatives import HEADS, LateAverage

ROWS = ("joint cross-attention", "cross-attention", "recurrent", "concatenation, 8 steps", "concatenation, newest step")
SINGLE = ("face alone", "voice alone")
LATE = {"late, inverse variance": False, "late, plain mean": True}
CONDITIONS = {"face and voice": (), "face only": (1,), "voice only": (0,)}
BOOTSTRAPS = 500


def networks(training, options):
    """{head: [[(network, ticks of its strangers) for each fold] for each seed]}."""
    result = {head: [[] for _ in range(options.seeds)] for head in (*ROWS, *SINGLE)}
    for fold in range(cross_fitting.FOLDS):
        windows, performances = None, None
        ticks = training.strangers(fold)
        for head in (*ROWS, *SINGLE):
            for seed in range(1, options.seeds + 1):
                name = f"head_{head.replace(' ', '_').replace(',', '')}_{options.tag}_{fold}_{seed}.pt"
                if (options.work / name).exists():
                    network = HEADS[head]()
                    network.load_state_dict(torch.load(options.work / name))
                else:
                    if windows is None:
                        windows, performances = training.windows(without=fold)
                    split = {"strangers": ticks}
                    _, network = train_fusion.train(head, performances, windows, split, training.readout, options, seed)
                    torch.save(network.state_dict(), options.work / name)
                result[head][seed - 1].append((network.eval(), ticks))
    for head, plain in LATE.items():
        result[head] = [
            [(LateAverage(f, v, plain).eval(), ticks) for (f, ticks), (v, _) in zip(faces, voices, strict=True)]
            for faces, voices in zip(result["face alone"], result["voice alone"], strict=True)
        ]
    return result


def by_speakers(affect, target, speakers):
    """Deviation of the CCC over bootstrap samples of the speakers, [2]."""
    rng, names = np.random.default_rng(1), np.unique(speakers)
    rows = {name: torch.from_numpy(np.flatnonzero(speakers == name)) for name in names}
    drawn = [torch.cat([rows[name] for name in rng.choice(names, len(names))]) for _ in range(BOOTSTRAPS)]
    return torch.stack([ccc(affect[part], target[part]) for part in drawn]).std(0)


def make_row(head, seeds, speakers, dropped):
    """One row of the table: mean, deviation over seeds and deviation over speakers of the CCC of clips, [2] each."""
    values, spreads = [], []
    for folds in seeds:
        means = strangers.join([strangers.estimates(fold, dropped) for fold in folds]).clip_means()
        affect, target = (torch.from_numpy(part) for part in means)
        values.append(ccc(affect, target))
        spreads.append(by_speakers(affect, target, speakers))
    values = torch.stack(values)
    return {
        "head": head,
        "mean": values.mean(0).tolist(),
        "seeds": values.std(0).tolist(),
        "speakers": torch.stack(spreads).mean(0).tolist(),
    }


def show(title, rows):
    """Print a Markdown table."""
    print(f"\n{title}\n| head | valence | seeds | speakers | arousal | seeds | speakers |\n|{' --- |' * 7}")
    for r in rows:
        cells = [f"{r[kind][k]:.3f}" for k in range(2) for kind in ("mean", "seeds", "speakers")]
        print(f"| {r['head']} | {' | '.join(cells)} |", flush=True)


def main():
    parser = train_fusion.make_parser(__doc__)
    parser.add_argument("--tag", default="", help="part of the cache names, to separate trials")
    parser.set_defaults(seeds=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    training = train_fusion.TrainingSet(options)
    nets = networks(training, options)
    speakers = np.concatenate(
        [
            [p.utterance.speaker for p in training.javanese if train_fusion.is_of_fold(p, fold)]
            for fold in range(cross_fitting.FOLDS)
        ]
    )
    result = {}
    for condition, dropped in CONDITIONS.items():
        heads = [*ROWS, *(LATE if not dropped else ["face alone" if dropped == (1,) else "voice alone"])]
        result[condition] = [make_row(head, nets[head], speakers, dropped) for head in heads]
        show(condition, result[condition])
    (options.work / f"heads_{options.tag}.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    arguments.run(main)
