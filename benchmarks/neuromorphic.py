"""What networks cost on event-driven hardware, and what they lose as spiking neurons.

First the synaptic events and hops of an inference (`hoplens.export.event_cost`) of tanh networks of 48
units, 10 steps, whole and with 90 % of the recurrent weights removed by pathways, and as delta networks that
send only changes above a threshold. Each method at the strength that four validation seeds choose; 20 others
are counted. Then leaky networks as NIR files of spiking neurons (`hoplens.export_nir`): explained share of
the variance against neurons a unit and simulation steps a time step.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from batched import samples
from contest import run, table
from pruning_networks import calibration, recipes, tasks, trained
from torch import Tensor

import hoplens as hl
from hoplens.data.streams import TrainingTask
from hoplens.studies.statistics import bootstrap_mean

SEEDS = range(100, 120)
STEPS, SEQUENCES = 1500, 256
AMOUNT, THRESHOLDS = 0.9, (0.05, 0.2)
SHORT_SECONDS = 120.0  # below this: one task, two recipes, fewer seeds and steps
UNITS, LEAKS, SPIKING_SEEDS = 24, (0.2, 0.5), range(100, 105)
NEURONS, SUBSTEPS = (8, 32, 128), (8, 32, 128)


def explained(outputs: Tensor, targets: Tensor) -> float:
    """Return the explained share of the targets' variance."""
    return 1 - float((outputs - targets).square().mean() / targets.var(dim=0, correction=0).mean())


def counted(models: Sequence[hl.RecurrentModel], data: tuple[Tensor, Tensor], threshold: float) -> list[str]:
    """Return table cells: explained share, events, their share of the dense multiplications, hops."""
    inputs, targets = data
    with torch.no_grad():
        costs = [hl.export.event_cost(model, inputs, threshold=threshold) for model in models]
    scores = [explained(cost.outputs, targets) for cost in costs]
    events = [float(cost.events.mean()) for cost in costs]
    mean, low, high = bootstrap_mean(np.array(scores))
    share = float(np.mean([cost.share for cost in costs]))
    return [
        f"{mean:.3f} [{low:.3f}, {high:.3f}]",
        f"{np.mean(events):.0f}",
        f"{share:.3f}",
        str(int(costs[0].hops[0])),
    ]


def event_rows(task: TrainingTask, kinds: Sequence[hl.Recipe], seeds: range, steps: int) -> list[list[str]]:
    """Return one row a recipe and form of its networks."""
    data, rows = samples(task, SEQUENCES, 1), []
    seen = calibration(task)[0]
    for recipe in kinds:
        nets, strength = trained(task, recipe, seeds, steps)
        models = nets.models()
        pruned = [hl.prune(model, AMOUNT, inputs=seen[:128]).model for model in models]
        forms = {"whole": (models, 0.0), f"{AMOUNT:.0%} removed": (pruned, 0.0)}
        for threshold in THRESHOLDS:
            forms[f"{AMOUNT:.0%} removed, changes above {threshold:g}"] = (pruned, threshold)
        for form, (given, threshold) in forms.items():
            rows.append([task.label, f"{recipe.name} ({strength:g})", form, *counted(given, data, threshold)])
    return rows


def spiking_rows(leak: float, seeds: range, steps: int) -> list[list[str]]:
    """Return the explained share of leaky networks and of their spiking files."""
    task = hl.tasks.make("averaging", signal="on-off", length=10)
    result = hl.train(task, hl.recipes.none(), seeds=seeds, hidden=UNITS, leak=leak, steps=steps)
    models, (inputs, targets) = result.ensemble.models(), samples(task, SEQUENCES, 1)
    with torch.no_grad():
        whole = float(np.mean([explained(model(inputs), targets) for model in models]))
    rows = [[f"{leak:g}", "tanh units", "", f"{whole:.3f}", ""]]
    with tempfile.TemporaryDirectory() as folder:
        for neurons in NEURONS:
            for substeps in SUBSTEPS:
                found = []
                for model in models:
                    try:
                        done = hl.export_nir(
                            model, Path(folder) / "m.nir", inputs=inputs, targets=targets,
                            neurons=neurons, substeps=substeps,
                        )  # fmt: skip
                        found.append(done.score_after)
                    except hl.errors.ExportError:
                        pass  # refused: it misses too much of the outputs
                scores = [score for score in found if score is not None]
                mean = f"{np.mean(scores):.3f}" if scores else ""
                rows.append(
                    [str(neurons), str(substeps), mean, f"{len(models) - len(scores)} of {len(models)}"]
                )
    return rows


def report(seconds: float = 50.0, *, full: bool = False) -> str:
    """Return the Markdown tables.

    Parameters
    ----------
    seconds : float
        About how long to take; under two minutes one task, two recipes, few seeds.
    full : bool
        Everything whatever the time.
    """
    short = seconds < SHORT_SECONDS and not full
    names, kinds = list(tasks())[:2], recipes()
    seeds, steps = (SEEDS[:4], 300) if short else (SEEDS, STEPS)
    leaky = SPIKING_SEEDS[:2] if short else SPIKING_SEEDS
    rows = []
    for name in names[-1:] if short else names:
        rows += event_rows(tasks()[name], kinds[:: len(kinds) - 1] if short else kinds, seeds, steps)
    spiking = [row for leak in LEAKS for row in spiking_rows(leak, leaky, steps)]
    return (
        f"{len(seeds)} networks a row, means; interval 95 %; a sequence of 10 steps\n\n"
        + table(["task", "trained with (strength)", "form", "explained", "events", "of dense", "hops"], rows)
        + f"\n{UNITS} leaky tanh units as populations of LIF neurons, averaging, means over "
        f"{len(leaky)} networks\n\n"
        + table(["leak", "LIF neurons a unit", "steps a time step", "explained", "refused"], spiking)
    )


if __name__ == "__main__":
    run(report, __doc__, seconds=50.0)
