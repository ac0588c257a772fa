"""What pruning leaves of a network's performance: pathway against magnitude, Taylor and random scores.

Tanh networks of 48 units, trained with no penalty, L1, the paper's penalty and the recommended recipe, each
at the strength that four validation seeds choose; 20 other seeds are pruned. Recurrent weights are removed
at once, and then fine-tuned for a short while with masks held. "kept" is performance after over performance
before, not below 0: the explained share of the targets' variance, or accuracy above chance (digits). Means
over networks, paired differences with 95 % bootstrap intervals. --full draws docs/images/pruning.svg too,
and keeps each task and recipe in results/pruning as it finishes.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from contest import run, table
from matplotlib.figure import Figure
from pruning_networks import CALIBRATION, LENGTH, calibration, performance, recipes, tasks, trained, tuned
from pruning_units import unit_rows
from torch import Tensor

import hoplens as hl
from hoplens.compress.criteria import Criterion, compensated, pathway_costs
from hoplens.compress.sensitivity import Matrix, white_noise
from hoplens.data.streams import TrainingTask
from hoplens.files import write_atomically
from hoplens.graph.scores import saliency, top_mask
from hoplens.models.ensemble import Ensemble
from hoplens.plots.curves import plot_pruning
from hoplens.plots.style import PAGE, method_legend, name_panel, save_figure
from hoplens.seeds import generator
from hoplens.studies.statistics import bootstrap_mean

LEVELS = (30, 50, 70, 80, 90, 95)  # percent of the recurrent weights
SEEDS = range(100, 120)
STEPS, TUNING_STEPS = 1500, 60
SHORT_SECONDS = 240.0  # below this: one task, two recipes, few seeds and levels
KEEP = Path("results") / "pruning"  # an interrupted run goes on from here
FIGURE = Path(__file__).parent.parent / "docs" / "images" / "pruning.svg"
REC = "core.weight_hh_l0"
OURS, MAGNITUDE, TAYLOR, FIRST, RANDOM = "pathway", "magnitude", "Taylor", "hop maps, first order", "random"
RIVALS = (MAGNITUDE, TAYLOR, FIRST, RANDOM)
ABLATION = ("pathway, no data", "pathway, not refitted", "magnitude, refitted")
TUNED = (OURS, MAGNITUDE, TAYLOR, RANDOM)
DENSE, RECOMMENDED = "none", "recommended"

Choice = Callable[[float], tuple[Tensor, Tensor]]  # share removed -> weights (H, H) and mask


def choices(model: hl.RecurrentModel, inputs: Tensor, targets: Tensor, seed: int) -> dict[str, Choice]:
    """Return for every method what it leaves of one network: `hoplens.prune` with scores taken once."""
    source = generator("random scores", seed)

    def criterion(by: str, x: Tensor) -> Criterion:
        return Criterion(by, x.double(), targets.double(), source)

    ours = criterion("pathway", inputs[:CALIBRATION])
    along = ours.matrices(model)[REC]
    noise = criterion("pathway", white_noise(model, CALIBRATION, LENGTH, 0)).matrices(model)[REC]
    taylor = criterion("taylor", inputs)
    net = hl.read(model.core, readout=model.readout).detach().to(torch.float64)
    here = torch.ones_like(along.weight, dtype=torch.bool)
    costs, blind = pathway_costs(along, here), pathway_costs(noise, here)
    size = along.weight.abs()

    def plain(scores: Tensor) -> Choice:
        return lambda share: (along.weight * (mask := top_mask(scores, share)), mask)

    def refitted(scores: Tensor, matrix: Matrix) -> Choice:
        return lambda share: (compensated(matrix, mask := top_mask(scores, share)), mask)

    return {
        OURS: refitted(costs, along),
        MAGNITUDE: plain(size),
        TAYLOR: plain(taylor.plain(taylor.matrices(model)[REC])),
        FIRST: plain(saliency(net, "pathway", horizon=LENGTH)),
        RANDOM: plain(criterion("random", inputs).plain(along)),
        "pathway, no data": refitted(blind, noise),
        "pathway, not refitted": plain(costs),
        "magnitude, refitted": refitted(size, along),
    }


def rows_of(
    task: TrainingTask, ensemble: Ensemble, seeds: range, levels: tuple[int, ...], tuning: int
) -> Iterator[dict[str, object]]:
    """Yield one row a network, method, level and stage."""
    inputs, targets = calibration(task)
    before = performance(task, ensemble)
    made = [choices(model, inputs, targets, s) for model, s in zip(ensemble.models(), seeds, strict=True)]
    for level in levels:
        for method in made[0]:
            found = [one[method](level / 100) for one in made]
            pruned, masks = ensemble.clone(), torch.stack([mask for _, mask in found])
            pruned.recurrent().copy_(torch.stack([weight for weight, _ in found]).mT)
            stages = {"one-shot": pruned}
            if method in TUNED:
                stages["fine-tuned"] = tuned(task, pruned, masks, seeds, tuning)
            for stage, nets in stages.items():
                kept = performance(task, nets).clamp_min(0) / before
                for seed, value in zip(seeds, kept.tolist(), strict=True):
                    yield {"stage": stage, "method": method, "level": level, "seed": seed, "kept": value}


def study(name: str, kind: str, short: bool = False) -> pd.DataFrame:
    """Train and prune the networks of one task and recipe; one row a network, method, level and stage."""
    torch.set_num_threads(1)
    task = tasks()[name]
    recipe = next(recipe for recipe in recipes() if recipe.name == kind)
    seeds, steps = (SEEDS[:6], 300) if short else (SEEDS, STEPS)
    nets, strength = trained(task, recipe, seeds, steps, *(((1e-3,),) if short else ()))
    parts = [pd.DataFrame(rows_of(task, nets, seeds, LEVELS[2:5:2] if short else LEVELS, TUNING_STEPS))]
    if kind in (DENSE, RECOMMENDED):
        parts.append(pd.DataFrame(unit_rows(task, nets, seeds)))
    start = float(performance(task, nets).mean())
    return pd.concat(parts).assign(task=name, recipe=kind, strength=strength, start=start)


def kept_study(cell: tuple[str, str]) -> pd.DataFrame:
    """Return the rows of one task and recipe: those of an earlier run of this very benchmark, or new ones."""
    sources = [
        Path(__file__).with_name(f"{name}.py") for name in ("pruning", "pruning_networks", "pruning_units")
    ]
    version = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]
    file = KEEP / f"{'-'.join(cell).replace(' ', '_')}-{version}.csv"
    if not file.is_file():
        KEEP.mkdir(parents=True, exist_ok=True)
        write_atomically(file, study(*cell).to_csv(index=False).encode())
    return pd.read_csv(file)


def kept_table(frame: pd.DataFrame, methods: tuple[str, ...]) -> str:
    """Return means of what is kept: a row a task, recipe and method, a column a level."""
    levels = sorted(frame["level"].unique())
    means = frame.groupby(["task", "recipe", "method", "level"], sort=False)["kept"].mean()
    rows = []
    for task, recipe in dict.fromkeys(zip(frame["task"], frame["recipe"], strict=True)):
        for method in methods:
            values = [float(means[task, recipe, method, level]) for level in levels]
            rows.append([task, recipe, method, *(f"{value:.3f}" for value in values)])
    return table(["task", "trained with", "scored by", *(f"{level} %" for level in levels)], rows)


def against_best(frame: pd.DataFrame, rivals: tuple[str, ...]) -> pd.DataFrame:
    """Return, for each task, recipe and level, ours minus the rival that keeps most there, with interval."""
    rows = []
    for cell, group in frame.groupby(["task", "recipe", "level"], sort=False):
        wide = group.pivot(index="seed", columns="method", values="kept")
        rival = wide[list(rivals)].mean().idxmax()
        gap = bootstrap_mean((wide[OURS] - wide[rival]).to_numpy())
        rows.append((*cell, rival, wide[OURS].mean(), wide[rival].mean(), *gap))
    names = ["task", "recipe", "level", "rival", "ours", "theirs", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def verdicts(frame: pd.DataFrame) -> str:
    """Return the aims and what was measured."""
    lines = []
    for stage, rivals in (("one-shot", RIVALS), ("fine-tuned", tuple(m for m in TUNED if m != OURS))):
        cells = against_best(frame[frame["stage"] == stage], rivals)
        behind = cells[cells["high"] < 0]
        named = "; ".join(
            f"{r.task}, {r.recipe}, {r.level} %: {r.difference:+.4f} [{r.low:+.4f}, {r.high:+.4f}] "
            f"to {r.rival}"
            for r in behind.itertuples()
        )
        ahead = int((cells["low"] > 0).sum())
        lines.append(
            f"* {stage}: pathway keeps more than the best of {', '.join(rivals)} in {ahead} of {len(cells)} "
            f"cells (task, recipe, level) beyond chance, less beyond chance in {len(behind)}"
            f"{': ' + named if named else ''}; least difference of means "
            f"{cells['difference'].min():+.4f}\n"
        )
    shot = frame[frame["stage"] == "one-shot"]
    means = shot.groupby(["task", "recipe", "method", "level"])["kept"].mean()
    tasks_seen = list(dict.fromkeys(shot["task"]))
    ratios = {t: (1 - means[t, DENSE, OURS, 70]) / (1 - means[t, DENSE, MAGNITUDE, 70]) for t in tasks_seen}
    refit = {t: (1 - means[t, DENSE, OURS, 70]) / (1 - means[t, DENSE, ABLATION[2], 70]) for t in tasks_seen}
    kept = {t: means[t, RECOMMENDED, OURS, 90] for t in tasks_seen}
    lines += [
        "* lost at 70 % one-shot on dense networks, pathway over magnitude (aim: at most 0.5): "
        + ", ".join(f"{t}: {v:.2f}" for t, v in ratios.items())
        + "; over magnitude with the same refit: "
        + ", ".join(f"{v:.2f}" for v in refit.values())
        + "\n",
        "* kept at 90 %, recommended recipe and pathway pruning (aim: at least 0.95): "
        + ", ".join(f"{t}: {v:.3f}" for t, v in kept.items())
        + "\n",
    ]
    return "".join(lines)


def draw(frame: pd.DataFrame) -> Figure:
    """Return the curves of one-shot pruning: a row a recipe (dense, recommended), a column a task."""
    shot = frame[(frame["stage"] == "one-shot") & frame["method"].isin([OURS, *RIVALS])]
    names, kinds = list(dict.fromkeys(shot["task"])), (DENSE, RECOMMENDED)
    figure = Figure(figsize=(PAGE * 1.35, 4.6), layout="constrained")
    grid = figure.subplots(len(kinds), len(names), squeeze=False)
    for row, (axes, kind) in enumerate(zip(grid, kinds, strict=True)):
        for ax, name in zip(axes, names, strict=True):
            part = shot[(shot["task"] == name) & (shot["recipe"] == kind)]
            wide = part.pivot(index=["method", "seed"], columns="level", values="kept").reset_index()
            wide.columns = [f"kept_{c}" if isinstance(c, int) else c for c in wide.columns]
            order = wide["method"].map([OURS, *RIVALS].index)
            plot_pruning(wide.iloc[order.argsort(kind="stable")].assign(strength=0.0), ax=ax)
            name_panel(ax, f"{name}\ntrained with {kind if kind != DENSE else 'no penalty'}")
            if ax is not axes[0]:
                ax.set_ylabel("")
            if row < len(kinds) - 1:
                ax.set_xlabel("")
    method_legend(grid[-1, 0], [OURS, *RIVALS], lines=True)
    legend = grid[-1, 0].get_legend()
    legend.remove()
    figure.legend(
        handles=legend.legend_handles, loc="outside upper left", ncols=5, frameon=False, fontsize=7.0
    )
    return figure


def report(seconds: float = 50.0, *, full: bool = False) -> str:
    """Return the Markdown tables.

    Parameters
    ----------
    seconds : float
        About how long to take; under four minutes one task, two recipes, few seeds and levels.
    full : bool
        The whole study whatever the time.
    """
    short = seconds < SHORT_SECONDS and not full
    names = list(tasks())
    if short:
        frame = pd.concat([study(names[2], kind, True) for kind in (DENSE, RECOMMENDED)], ignore_index=True)
    else:
        cells = [(name, recipe.name) for name in names for recipe in recipes()]
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            frame = pd.concat(pool.map(kept_study, cells), ignore_index=True)
        save_figure(draw(frame), FIGURE)
    starts = frame.drop_duplicates(["task", "recipe"])[["task", "recipe", "strength", "start"]]
    shot, late = (frame[frame["stage"] == stage] for stage in ("one-shot", "fine-tuned"))
    units = frame[frame["stage"] == "units"]
    head = f"{frame['seed'].nunique()} networks a cell, {TUNING_STEPS} steps of fine-tuning\n\n"
    return (
        head
        + verdicts(frame)
        + "\nBefore pruning (explained share, or accuracy above chance):\n\n"
        + table(
            ["task", "trained with", "strength", "performance"],
            [[r.task, r.recipe, f"{r.strength:g}", f"{r.start:.4f}"] for r in starts.itertuples()],
        )
        + "\nKept, one-shot:\n\n"
        + kept_table(shot, (OURS, *RIVALS))
        + "\nKept, one-shot: what the parts of pathway pruning bring:\n\n"
        + kept_table(shot, (OURS, *ABLATION))
        + f"\nKept, after {TUNING_STEPS} steps of fine-tuning:\n\n"
        + kept_table(late, TUNED)
        + "\nKept, whole units removed, one-shot:\n\n"
        + kept_table(units, tuple(dict.fromkeys(units["method"])))
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning, module="torch_pruning")
    run(report, __doc__, seconds=50.0)
