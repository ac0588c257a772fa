"""Pruning of nn.GRU and nn.LSTM on real data, one-shot: digits read row by row, `hoplens.prune`.

Networks of 32 units trained by plain PyTorch (Adam, cross-entropy). "kept" is accuracy above chance after
pruning over before; means over networks, and pathway minus the best other with its 95 % bootstrap interval.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch
from contest import run, table
from pruning_networks import Digits
from torch import nn

import hoplens as hl
from hoplens.compress.tuning import fine_tune
from hoplens.studies.statistics import bootstrap_mean

HIDDEN, STEPS, LR, SAMPLES = 32, 400, 1e-2, 128
LEVELS = (50, 70, 80, 90)
SEEDS = range(20)
SHORT_SECONDS = 240.0  # below this: few networks and steps, one level
CELLS = {"GRU": nn.GRU, "LSTM": nn.LSTM}
METHODS = ("pathway", "magnitude", "taylor", "random")


def trained(cell: str, seed: int, data: Digits, steps: int) -> hl.RecurrentModel:
    """Return one trained network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        core = CELLS[cell](data.n_inputs, HIDDEN, batch_first=True)
        model = hl.RecurrentModel(core, nn.Linear(HIDDEN, data.n_outputs))
    inputs, classes = data.parts["train"]
    fine_tune(model, list(model.parameters()), inputs, classes, steps=steps, lr=LR, seed=seed)
    return model.eval()


@torch.no_grad()
def accuracy(model: hl.RecurrentModel, data: Digits) -> float:
    """Return test accuracy above chance: 1 is perfect, 0 is guessing."""
    inputs, classes = data.parts["test"]
    found = (model(inputs).argmax(-1) == classes).double().mean()
    return (float(found) - 0.1) / 0.9


def rows(cell: str, seeds: range, levels: tuple[int, ...], steps: int) -> Iterator[dict[str, object]]:
    """Yield one row a network, method and level."""
    data = Digits()
    inputs, classes = data.parts["train"]
    for seed in seeds:
        model = trained(cell, seed, data, steps)
        before = accuracy(model, data)
        for level in levels:
            for method in METHODS:
                small = hl.prune(
                    model,
                    level / 100,
                    by=method,
                    inputs=inputs,
                    targets=classes,
                    samples=len(inputs) if method == "taylor" else SAMPLES,
                    seed=seed,
                )
                kept = max(0.0, accuracy(small.model, data)) / before
                yield {"cell": cell, "seed": seed, "level": level, "method": method, "kept": kept,
                       "before": before}  # fmt: skip


def report(seconds: float = 50.0, *, full: bool = False) -> str:
    """Return the Markdown table.

    Parameters
    ----------
    seconds : float
        About how long to take; under four minutes few networks and steps, one level.
    full : bool
        All networks whatever the time.
    """
    short = seconds < SHORT_SECONDS and not full
    seeds, levels, steps = (SEEDS[:2], LEVELS[1:2], 200) if short else (SEEDS, LEVELS, STEPS)
    frame = pd.DataFrame([row for cell in CELLS for row in rows(cell, seeds, levels, steps)])
    lines = []
    for (cell, level), group in frame.groupby(["cell", "level"], sort=False):
        wide = group.pivot(index="seed", columns="method", values="kept")
        best = wide[list(METHODS[1:])].mean().idxmax()
        gap = bootstrap_mean((wide["pathway"] - wide[best]).to_numpy())
        means = [f"{wide[method].mean():.3f}" for method in METHODS]
        lines.append(
            [cell, f"{group['before'].mean():.3f}", f"{level} %", *means,
             f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] to {best}"]
        )  # fmt: skip
    head = ["cell", "before", "removed", *METHODS, "pathway - best other"]
    return f"{len(seeds)} networks a cell\n\n" + table(head, lines)


if __name__ == "__main__":
    run(report, __doc__, seconds=50.0)
