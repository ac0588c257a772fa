"""Hidden layers made smaller: Gramians, balanced states and whole units, before and after fine-tuning.

Networks of 48 units, trained without a penalty and with the recommended recipe on three tasks of the study,
are reduced to 24 and 12 units. Gramians, unit scores and fine-tuning all use the same 512 sequences;
every method gets the same number of steps on the same batches. Differences are paired by network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from batched import explained, models_of, samples, stacked, tune
from contest import run, table
from torch import Tensor

import hoplens as hl
from hoplens.data.tasks import Task
from hoplens.studies.statistics import bootstrap_mean
from hoplens.training.recipes import Recipe

HIDDEN, LENGTH, STEPS = 48, 10, 1000
SIZES = (24, 12)
SEEDS = range(100, 120)
TUNING = {"steps": 200, "lr": 2e-3}
SHORT_SECONDS = 150.0  # below this: one task, fewer seeds and steps
OURS = "Gramians, units"

Reduction = Callable[[hl.RecurrentModel, int, Tensor], hl.RecurrentModel]


def tasks() -> list[tuple[Task, float]]:
    """Return the tasks and the recipe's strength on each; the targets of the last are not linear."""
    return [
        (hl.tasks.make("subtraction", signal="sparse", length=LENGTH, lag=8), 1e-3),
        (hl.tasks.make("averaging", signal="on-off", length=LENGTH), 1e-3),
        (hl.tasks.make("multiplication", signal="on-off", length=LENGTH), 3e-4),
    ]


def lesioned(model: hl.RecurrentModel, units: int, _: Tensor) -> hl.RecurrentModel:
    """Keep the units without which the hop maps change most."""
    lost = hl.lesion(hl.read(model.core, readout=model.readout).detach(), LENGTH)
    return hl.compress.remove_units(model, lost.argsort()[: len(lost) - units].tolist())


def pruned(by: str) -> Reduction:
    """Return the reduction that `hoplens.prune` does by a criterion."""

    def reduction(model: hl.RecurrentModel, units: int, inputs: Tensor) -> hl.RecurrentModel:
        share = 1 - units / model.core.hidden_size
        return hl.prune(model, share, by=by, structure="unit", inputs=inputs).model

    return reduction


def balanced(basis: str, *, data: bool = True) -> Reduction:
    """Return the reduction that `hoplens.reduce` does in a basis."""

    def reduction(model: hl.RecurrentModel, units: int, inputs: Tensor) -> hl.RecurrentModel:
        given = {"inputs": inputs} if data else {"horizon": LENGTH}
        return hl.reduce(model, units, basis=basis, **given).model

    return reduction


METHODS: dict[str, Reduction] = {
    OURS: balanced("units"),
    "Gramians at rest, units": balanced("units", data=False),
    "balanced states": balanced("states"),
    "prune units, pathway": pruned("pathway"),
    "prune units, magnitude": pruned("magnitude"),
    "prune units, random": pruned("random"),
    "drop units, lesion": lesioned,
}


def compared(task: Task, recipe: Recipe, strength: float, seeds: range, steps: int) -> Iterator[list[str]]:
    """Yield table rows: means with intervals, a mark where the first method is clearly ahead or behind."""
    ensemble = hl.train(task, recipe, seeds=seeds, strengths=[strength], hidden=HIDDEN, steps=steps).ensemble
    models = models_of(ensemble)
    data, test = samples(task, 512, 1), samples(task, 1024, 2)
    whole = explained(stacked(models), test)
    yield [task.label, recipe.name, str(HIDDEN), "none", _cell(whole), ""]
    for units in SIZES:
        reference: list[Tensor] = []
        for name, reduce in METHODS.items():
            small = stacked([reduce(model, units, data[0]) for model in models])
            found = [explained(small, test), explained(tune(small, data, **TUNING), test)]
            reference = reference or found
            cells = [_cell(a, b) for a, b in zip(found, reference, strict=True)]
            yield [task.label, recipe.name, str(units), name, *cells]


def _cell(shares: Tensor, reference: Tensor | None = None) -> str:
    mean, low, high = bootstrap_mean(shares.clamp_min(0).numpy())
    mark = ""
    if reference is not None:
        gap = bootstrap_mean((reference.clamp_min(0) - shares.clamp_min(0)).numpy())
        mark = "" if gap.low <= 0 <= gap.high else (" *" if gap.mean > 0 else " +")
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]{mark}"


def report(seconds: float = 50.0, *, full: bool = False) -> str:
    """Return the Markdown table.

    Parameters
    ----------
    seconds : float
        About how long to take; under two and a half minutes one task with few seeds and steps.
    full : bool
        The whole comparison whatever the time.
    """
    short = seconds < SHORT_SECONDS and not full
    seeds, steps = (SEEDS[:4], 200) if short else (SEEDS, STEPS)
    rows: list[list[str]] = []
    for task, strength in tasks()[:1] if short else tasks():
        for recipe in (hl.recipes.none(), hl.recipes.recommended()):
            rows += compared(task, recipe, strength, seeds, steps)
    note = (
        f"Explained share of the variance (below 0: 0) over {len(seeds)} networks, {steps} steps of "
        f"training, {TUNING['steps']} of fine-tuning; mean [95 % interval]; * {OURS!r} is ahead, + it is "
        "behind (95 % interval of the paired difference)\n\n"
    )
    return note + table(["task", "recipe", "units", "reduction", "reduced", "fine-tuned"], rows)


if __name__ == "__main__":
    run(report, __doc__, seconds=50.0)
