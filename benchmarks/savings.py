"""What the unbiased savings of a pathway penalty do to the results of training, and how noisy they are.

The recommended recipe and the plain hop penalty on four tasks of the study, at its sizes and at the strength
that its documentation names, with the exact penalty and with every=2, every=4, half of the nodes and one
node. Differences to the exact penalty are paired by seed. The last table holds measured variances of one
call against the formulas in the docstring of `hoplens.PathwayPenalty`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import torch
from contest import run, table

import hoplens as hl
from hoplens.data.tasks import Task
from hoplens.graph.pathways import Pathways
from hoplens.studies.measuring import measure
from hoplens.studies.statistics import bootstrap_mean
from hoplens.training.recipes import PathwaySpec, Recipe, Term

HIDDEN, LENGTH, LAG, STEPS = 48, 10, 8, 1000
SEEDS = range(100, 120)  # the study's report seeds
LINEAR, CURVED = 1e-3, 3e-4  # strengths for targets linear in the inputs, and for the others
MEASURES = {
    "test error": "test_error",
    "alignment": "alignment",
    "active hops": "active_hops",
    "kept at 70 %": "kept_70",
}
SHORT_SECONDS = 240.0  # below this: one task and fewer seeds and steps
DRAWS = 4000


def tasks() -> list[tuple[Task, float]]:
    """Return the tasks and the strength on each."""
    return [
        (hl.tasks.make("subtraction", signal="sparse", length=LENGTH, lag=LAG), LINEAR),
        (hl.tasks.make("averaging", signal="on-off", length=LENGTH), LINEAR),
        (hl.tasks.make("addition", signal="sparse", length=LENGTH, lag=LAG), LINEAR),
        (hl.tasks.make("multiplication", signal="on-off", length=LENGTH), CURVED),
    ]


def variants(nodes: int) -> dict[str, dict[str, int]]:
    """Return the options of each way to save, for so many nodes on the smaller side."""
    return {
        "exact": {},
        "every=2": {"every": 2},
        "every=4": {"every": 4},
        f"sample={nodes // 2}": {"sample": nodes // 2},
        "sample=1": {"sample": 1},
    }


def bases() -> list[Recipe]:
    """Return the recipes that are varied."""
    return [hl.recipes.recommended(), Recipe("hop penalty", (Term(PathwaySpec("hops")),))]


def varied(base: Recipe, options: dict[str, int], name: str) -> Recipe:
    """Return a recipe whose one penalty saves."""
    return replace(base, name=name, terms=(Term(PathwaySpec("hops", **options)),))


def train(task: Task, strength: float, seeds: range, steps: int) -> dict[str, pd.DataFrame]:
    """Return for each recipe one row a network, column ``penalty`` the way to save."""
    frames = {}
    for base in bases():
        ways = variants(min(task.n_inputs, task.n_outputs))
        recipes = [varied(base, options, name) for name, options in ways.items()]
        rows = []
        for recipe in recipes:  # 20 networks a batch, so that an ensemble stays in the cache
            result = hl.train(task, recipe, seeds=seeds, strengths=[strength], hidden=HIDDEN, steps=steps)
            rows.append(measure(result))
        frames[base.name] = pd.concat(rows)
    return frames


def compared(task: Task, base: str, frame: pd.DataFrame) -> Iterator[list[str]]:
    """Yield table rows: the exact penalty's means, then differences to it."""
    wide = {name: part.set_index("seed") for name, part in frame.groupby("penalty", sort=False)}
    exact = wide.pop("exact")
    lost = f"{int((exact['diverged_at'] >= 0).sum())}"
    means = [f"{exact[column].mean():.4f}" for column in MEASURES.values()]
    yield [task.label, base, "exact: mean", *means, lost]
    for name, part in wide.items():
        cells = []
        for column in MEASURES.values():
            gap = bootstrap_mean((part[column] - exact[column]).to_numpy())
            clear = "" if gap.low <= 0.0 <= gap.high else " *"
            cells.append(f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]{clear}")
        yield [task.label, base, f"{name} - exact", *cells, f"{int((part['diverged_at'] >= 0).sum())}"]


def parts_of(net: Pathways, penalty: hl.PathwayPenalty) -> tuple[torch.Tensor, torch.Tensor]:
    """Return value and gradient by ``w_rec`` of each output alone, shapes (n,) and (n, H * H)."""
    leaf = net.w_rec.clone().requires_grad_()
    values, gradients = [], []
    for o in range(net.n_outputs):
        value = penalty(Pathways(net.w_in, leaf, net.w_out[[o]]))
        gradients.append(torch.autograd.grad(value, leaf)[0].flatten())
        values.append(value.detach())
    return torch.stack(values), torch.stack(gradients)


def drawn(net: Pathways, draws: int, **options: int) -> tuple[float, float]:
    """Return the measured variance of the value, and that of the gradient summed over its entries."""
    penalty = hl.PathwayPenalty(LENGTH, generator=torch.Generator().manual_seed(0), **options)
    leaf = net.w_rec.clone().requires_grad_()
    values, total, square = [], torch.zeros_like(leaf), torch.zeros_like(leaf)
    for _ in range(draws):
        value = penalty(Pathways(net.w_in, leaf, net.w_out))
        (grad,) = torch.autograd.grad(value, leaf, allow_unused=True, materialize_grads=True)
        values.append(value.detach())
        total += grad
        square += grad.square()
    spread = (square - total.square() / draws).sum() / (draws - 1)
    return float(torch.stack(values).var()), float(spread)


def variances(draws: int) -> Iterator[list[str]]:
    """Yield table rows of measured variances against the formulas, on a network at its start."""
    task, _ = tasks()[0]
    net = hl.train(task, hl.recipes.recommended(), seeds=[0], hidden=HIDDEN, steps=1).pathways[0]
    net = net.to(torch.float64)
    values, gradients = parts_of(net, hl.PathwayPenalty(LENGTH))
    n, value, gradient = len(values), float(values.sum()), gradients.sum(dim=0)
    for name, options in variants(n).items():
        if not options:
            continue
        every, s = options.get("every", 1), options.get("sample", n)
        # one of the two is idle: its term is 0
        share = n**2 * (1 - s / n) / s
        wanted = (every - 1) * value**2 + share * float(values.var())
        wanted_gradient = (every - 1) * float(gradient.square().sum()) + share * float(
            gradients.var(dim=0).sum()
        )
        got, got_gradient = drawn(net, draws, **options)
        yield [
            name,
            f"{wanted**0.5 / value:.3f}",
            f"{got / wanted:.3f}",
            f"{wanted_gradient**0.5 / float(gradient.norm()):.3f}",
            f"{got_gradient / wanted_gradient:.3f}",
        ]


def report(seconds: float = 50.0, *, full: bool = False) -> str:
    """Return the Markdown tables.

    Parameters
    ----------
    seconds : float
        About how long to take; under four minutes one task with few seeds and steps.
    full : bool
        The whole study whatever the time.
    """
    short = seconds < SHORT_SECONDS and not full
    seeds, steps = (SEEDS[:6], 300) if short else (SEEDS, STEPS)
    rows = []
    for task, strength in tasks()[:1] if short else tasks():
        for base, frame in train(task, strength, seeds, steps).items():
            rows += compared(task, base, frame)
    note = f"{len(seeds)} seeds, {steps} steps; * the 95 % interval of the paired difference excludes 0\n\n"
    noise = table(
        [
            "saving",
            "sd / value",
            "measured / stated variance",
            "the same of the gradient",
            "measured / stated",
        ],
        list(variances(500 if short else DRAWS)),
    )
    columns = ["task", "recipe", "penalty", *MEASURES, "diverged"]
    return note + table(columns, rows) + "\nNoise of one call, at the start of training:\n\n" + noise


if __name__ == "__main__":
    run(report, __doc__, seconds=50.0)
