"""Which penalty leaves networks that stand few bits best: int8, int4 and ternary weights, int8 activations.

The five methods of the study at its sizes; each method's strength is chosen for each number of bits on
validation seeds, by the error after quantising, and reported on other seeds. Scales are the best of nine
ways on calibration data, network by network. All numbers are simulated: operands of every product rounded,
products in floats (`hoplens.export_int8` writes files that multiply integers and agree with this).
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch
from batched import Tensors, explained, outputs, samples, shape_of, tensors_of, tune
from contest import run, table
from torch import Tensor

import hoplens as hl
from hoplens.compress.simulation import record, rounded
from hoplens.data.tasks import Task
from hoplens.models.grids import (
    LARGEST,
    METHODS,
    Grid,
    activation_grid,
    fake_quantise,
    row_scales,
    to_levels,
)
from hoplens.studies.statistics import best_strength, bootstrap_mean
from hoplens.training.recipes import Recipe

HIDDEN, LENGTH, LAG, STEPS = 48, 10, 8, 1000
VALIDATION, REPORT = range(4), range(100, 120)
FLOAT, TUNED = "float32", "ternary, tuned"
TUNING = {"steps": 150, "lr": 3e-3}
SHORT_SECONDS = 240.0  # below this: one task, fewer seeds and steps


def tasks() -> list[Task]:
    """Return the tasks, those of ``--full`` last."""
    return [
        hl.tasks.make("subtraction", signal="sparse", length=LENGTH, lag=LAG),
        hl.tasks.make("averaging", signal="on-off", length=LENGTH),
        hl.tasks.make("multiplication", signal="on-off", length=LENGTH),
    ]


def methods() -> list[tuple[Recipe, tuple[float, ...]]]:
    """Return the methods and the strengths that each may choose from."""
    some = (1e-4, 3e-4, 1e-3)
    return [
        (hl.recipes.none(), (0.0,)),
        (hl.recipes.l1(), some),
        (hl.recipes.l2(), some),
        (hl.recipes.paper(), some),
        (hl.recipes.recommended(), some[1:]),
    ]


def quantised(tensors: Tensors, form: str, inputs: Tensor) -> tuple[Tensors, Tensors, dict[str, Grid]]:
    """Return weights on their grids, their scales, and the grids of activations: each network's best."""
    names = [name for name in tensors if "weight" in name]
    seen = record(shape_of(tensors), tensors, inputs, None)
    grids = {m: {n: activation_grid(v, m) for n, v in seen.items()} for m in METHODS}
    shared = {n: seen[n].dim() == 1 for n in seen}  # the inputs, which all networks see alike
    with torch.no_grad():
        wanted = outputs(tensors, inputs)
        least = torch.full((len(wanted),), torch.inf)
        best: tuple[Tensors, Tensors, dict[str, Grid]] = ({}, {}, {})
        for by in METHODS:
            scales = {n: row_scales(tensors[n], form, by) for n in names}
            on_grid = {
                n: to_levels(v, scales[n], LARGEST[form]) * scales[n] if n in scales else v
                for n, v in tensors.items()
            }
            for grid in grids.values():
                error = (outputs(on_grid, inputs, rounded(grid)) - wanted).square().mean((-2, -1))
                better = error < least
                least = torch.where(better, error, least)
                whole = {
                    n: Grid(*(part.expand(len(least)) if shared[n] else part for part in g))
                    for n, g in grid.items()
                }
                best = best if best[0] else (dict(on_grid), dict(scales), dict(whole))
                for kept, new in zip(best[:2], (on_grid, scales), strict=True):
                    for n, value in new.items():
                        rows = better.view(-1, *[1] * (value.dim() - 1))
                        kept[n] = torch.where(rows, value, kept[n])
                for n, g in whole.items():
                    best[2][n] = Grid(
                        *(torch.where(better, a, b) for a, b in zip(g, best[2][n], strict=True))
                    )
    return best


def measured(
    task: Task, recipe: Recipe, strengths: tuple[float, ...], seeds: range, steps: int
) -> pd.DataFrame:
    """Return one row a network: strength, seed, and the explained share after each way to quantise."""
    result = hl.train(task, recipe, seeds=seeds, strengths=strengths, hidden=HIDDEN, steps=steps)
    tensors = tensors_of(result.ensemble)
    calibration, test = samples(task, 256, 1), samples(task, 1024, 2)
    frame = result.metrics[["strength", "seed"]].copy()
    frame[FLOAT] = explained(tensors, test)
    for form in LARGEST:
        on_grid, scales, grids = quantised(tensors, form, calibration[0])
        frame[form] = explained(on_grid, test, rounded(grids))
    data = samples(task, 2048, 3)  # the last form, ternary, is fine-tuned too

    def weigh(leaves: Tensors) -> Tensors:
        return {n: fake_quantise(v, scales[n], 1) if n in scales else v for n, v in leaves.items()}

    tuned = tune(tensors, data, weigh=weigh, tap=rounded(grids), **TUNING)
    frame[TUNED] = explained(weigh(tuned), test, rounded(grids))
    return frame


def study(task: Task, seeds: range, steps: int) -> pd.DataFrame:
    """Return the report seeds' rows at each method's strength for each form: method, form, explained."""
    rows = []
    for recipe, strengths in methods():
        tried = measured(task, recipe, strengths, VALIDATION, steps)
        forms = [name for name in tried if name not in ("strength", "seed")]
        chosen = {f: best_strength(tried.assign(test_error=1 - tried[f].clip(lower=0.0))) for f in forms}
        kept = tuple(s for s in strengths if s in chosen.values())
        found = measured(task, recipe, kept, seeds, steps)
        for form, strength in chosen.items():
            part = found[found["strength"] == strength]
            rows.append(
                part.assign(method=recipe.name, form=form, explained=part[form].clip(lower=0.0))[
                    ["method", "form", "strength", "seed", "explained"]
                ]
            )
    return pd.concat(rows)


def shown(task: Task, frame: pd.DataFrame) -> Iterator[list[str]]:
    """Yield table rows: means with intervals; a star where the recommended recipe is clearly ahead."""
    ours = frame[frame["method"] == hl.recipes.recommended().name].set_index(["form", "seed"])["explained"]
    for method, part in frame.groupby("method", sort=False):
        cells = []
        for form, group in part.groupby("form", sort=False):
            mean, low, high = bootstrap_mean(group["explained"].to_numpy())
            own = group.set_index("seed")["explained"]
            gap = bootstrap_mean((ours.loc[form] - own).dropna().to_numpy())
            mark = "" if gap.low <= 0 <= gap.high else (" *" if gap.mean > 0 else " +")
            cells.append(f"{mean:.3f} [{low:.3f}, {high:.3f}] at {group['strength'].iloc[0]:g}{mark}")
        yield [task.label, str(method), *cells]


def report(seconds: float = 50.0, *, full: bool = False) -> str:
    """Return the Markdown table.

    Parameters
    ----------
    seconds : float
        About how long to take; under four minutes one task with few seeds and steps.
    full : bool
        All three tasks.
    """
    short = seconds < SHORT_SECONDS and not full
    seeds, steps = (REPORT[:6], 200) if short else (REPORT, STEPS)
    rows: list[list[str]] = []
    for task in tasks()[: 1 if short else 3 if full else 2]:
        rows += shown(task, study(task, seeds, steps))
    note = (
        f"Explained share of the variance (below 0: 0) on {len(seeds)} report seeds, {steps} steps, "
        "simulated; mean [95 % interval] at the strength chosen; * the recommended recipe is ahead, + it is "
        "behind (95 % interval of the difference paired by seed)\n\n"
    )
    return note + table(["task", "method", FLOAT, *LARGEST, TUNED], rows)


if __name__ == "__main__":
    run(report, __doc__, seconds=50.0)
