"""Strengths chosen for the pruned network: validation seeds say which is best with 90 % removed.

The other half of the comparison in pruning.py, which takes the strength that is best before pruning. Here
every method may choose for what is left after pruning, one-shot; 20 other seeds are reported, as performance
(explained share, or accuracy above chance) before and after, and as the share kept.
"""

from __future__ import annotations

import torch
from contest import run, table
from pruning import LEVELS, MAGNITUDE, OURS, SEEDS, STEPS, choices
from pruning_networks import HIDDEN, STRENGTHS, VALIDATION_SEEDS, calibration, performance, recipes, tasks
from torch import Tensor

import hoplens as hl
from hoplens.data.streams import TrainingTask
from hoplens.models.ensemble import Ensemble
from hoplens.studies.statistics import bootstrap_mean

LEVEL = 90
METHODS = (OURS, MAGNITUDE)
SHORT_SECONDS = 120.0  # below this: one task, fewer steps and seeds
assert LEVEL in LEVELS


def pruned(task: TrainingTask, ensemble: Ensemble, seeds: range, method: str) -> Ensemble:
    """Return the networks with most of their recurrent weights removed at once."""
    inputs, targets = calibration(task)
    found = ensemble.clone()
    weights = [
        choices(model, inputs, targets, seed)[method](LEVEL / 100)[0]
        for model, seed in zip(ensemble.models(), seeds, strict=True)
    ]
    found.recurrent().copy_(torch.stack(weights).mT)
    return found


def mean(values: Tensor) -> str:
    """Return mean and 95 % interval."""
    middle, low, high = bootstrap_mean(values.numpy())
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def rows_of(task: TrainingTask, recipe: hl.Recipe, method: str, seeds: range, steps: int) -> list[str]:
    """Return one table row: the strength chosen, and performance before and after."""
    strengths = STRENGTHS if recipe.terms else (0.0,)
    best, most = 0.0, -1.0
    for strength in strengths if len(strengths) > 1 else ():
        tried = hl.train(
            task, recipe, seeds=VALIDATION_SEEDS, strengths=[strength], hidden=HIDDEN, steps=steps
        )
        left = pruned(task, tried.ensemble, VALIDATION_SEEDS, method)
        value = float(performance(task, left, "validation").mean())
        if value > most:
            best, most = strength, value
    nets = hl.train(task, recipe, seeds=seeds, strengths=[best], hidden=HIDDEN, steps=steps).ensemble
    before = performance(task, nets)
    after = performance(task, pruned(task, nets, seeds, method)).clamp_min(0)
    return [recipe.name, method, f"{best:g}", mean(before), mean(after), mean(after / before)]


def report(seconds: float = 50.0, *, full: bool = False) -> str:
    """Return the Markdown table.

    Parameters
    ----------
    seconds : float
        About how long to take; under two minutes one task, few steps and seeds.
    full : bool
        Everything whatever the time.
    """
    short = seconds < SHORT_SECONDS and not full
    seeds, steps = (SEEDS[:4], 200) if short else (SEEDS, STEPS)
    rows = [
        [name, *rows_of(task, recipe, method, seeds, steps)]
        for name, task in list(tasks().items())[3 if short else 0 :]
        for recipe in recipes()
        for method in (METHODS[:1] if short else METHODS)
    ]
    head = ["task", "trained with", "pruned by", "strength", "before", f"{LEVEL} % removed", "kept"]
    return f"{len(seeds)} networks a row, means and 95 % intervals\n\n" + table(head, rows)


if __name__ == "__main__":
    run(report, __doc__, seconds=50.0)
