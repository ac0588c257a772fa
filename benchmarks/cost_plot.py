"""What a penalty and a training step cost against hidden units, sequence length and number of networks.

Fits exponents by least squares in log-log, with 95 % intervals, and draws docs/images/cost.svg. Sizes other
than the one that varies: H = 256, L = 20, E = 1 (against E: H = 32), B = 64, 16 inputs, 4 outputs, tanh.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from contest import run, table
from scipy import stats

import hoplens as hl
from hoplens.models.ensemble import Ensemble
from hoplens.training.objective import Objective, PenaltyGroup

BATCH, INPUTS, OUTPUTS = 64, 16, 4
HIDDEN, LENGTH = 256, 20
FIGURE = Path(__file__).parent.parent / "docs" / "images" / "cost.svg"
# Okabe and Ito's palette: told apart by all; markers and lines differ too
KINDS = {
    "training step": ("#000000", "o", "-"),
    "of it the penalty": ("#D55E00", "s", "-"),
    "penalty, every=4": ("#0072B2", "^", "--"),
}
FITTED = 4  # largest sizes that an exponent is fitted to: below, calls cost more than arithmetic


class Axis(NamedTuple):
    """One panel: what varies, over which values, and the sizes (E, H, L) of one of them."""

    name: str
    label: str
    values: tuple[int, ...]
    sizes: Callable[[int], tuple[int, int, int]]


AXES = (
    Axis("H", "hidden units H", (64, 128, 256, 512, 1024, 2048), lambda h: (1, h, LENGTH)),
    Axis("L", "sequence length L", (5, 10, 20, 50, 100, 200), lambda length: (1, HIDDEN, length)),
    Axis("E", "networks E", (1, 4, 16, 64, 256), lambda e: (e, 32, LENGTH)),
)


def steps(networks: int, hidden: int, length: int) -> dict[str, Callable[[], object]]:
    """Return a training step with the penalty, and calls of the penalty alone."""
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(networks, hidden + INPUTS + 1, hidden, generator=g).div_(hidden**0.5)
    readout = torch.randn(networks, OUTPUTS, hidden, generator=g).div_(hidden**0.5)
    nets = Ensemble(weight, readout, torch.zeros(networks, OUTPUTS, 1))
    inputs = torch.randn(length, networks, INPUTS, BATCH, generator=g)
    targets = torch.randn(1, networks, OUTPUTS, BATCH, generator=g)
    factors = torch.full((networks,), 1e-4)
    scheduled = hl.schedules.ScheduledPenalty([(1.0, hl.PathwayPenalty(length), hl.schedules.constant())])
    group = PenaltyGroup(slice(0, networks), scheduled, factors)
    batches = SimpleNamespace(size=BATCH, form="regression", every_step=False)
    objective = Objective(nets, batches, [group], length=length)
    for tensor, grad in zip(nets.tensors, objective.grads, strict=True):
        tensor.grad = grad
    optimiser = torch.optim.Adam(nets.tensors, lr=1e-5, fused=True)
    exact, quarter = hl.PathwayPenalty(length), hl.PathwayPenalty(length, every=4)

    def step() -> None:
        objective.run(inputs, targets, None, progress=0.5)
        optimiser.step()

    def four() -> None:
        for _ in range(4):
            quarter.gradients(nets.pathways(), factors)

    names = list(KINDS)
    return {names[0]: step, names[1]: lambda: exact.gradients(nets.pathways(), factors), names[2]: four}


def measured(axis: Axis, seconds: float) -> dict[str, list[float]]:
    """Return for each kind the median milliseconds at every value of an axis; kinds take turns."""
    found: dict[str, list[float]] = {name: [] for name in KINDS}
    for value in axis.values:
        entries = steps(*axis.sizes(value))
        times: dict[str, list[float]] = {name: [] for name in entries}
        for call in entries.values():
            call()
        stop = time.perf_counter() + seconds / len(axis.values)
        while len(times["training step"]) < 3 or time.perf_counter() < stop:
            for name, call in entries.items():
                begin = time.perf_counter()
                call()
                times[name].append((time.perf_counter() - begin) / (4 if name.endswith("every=4") else 1))
        for name, own in times.items():
            found[name].append(1e3 * statistics.median(own))
    return found


def exponent(values: tuple[int, ...], cost: list[float]) -> tuple[float, float]:
    """Return the slope of log cost against log size over the larger sizes, and its 95 % half-width."""
    fit = stats.linregress(np.log(values[-FITTED:]), np.log(cost[-FITTED:]))
    width = float(stats.t.ppf(0.975, FITTED - 2) * fit.stderr)
    return float(fit.slope), width


def draw(results: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Draw one panel an axis."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    style = {
        "font.size": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "svg.hashsalt": "0",
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "svg.fonttype": "none",
        "font.family": "sans-serif", "legend.fontsize": 7,
    }  # fmt: skip
    with mpl.rc_context(style):
        figure = Figure(figsize=(6.9, 2.5), layout="constrained")
        panels = figure.subplots(1, len(AXES), sharey=True)
        for letter, panel, axis in zip("abc", panels, AXES, strict=True):
            for name, (colour, marker, line) in KINDS.items():
                cost = results[axis.name][name]
                slope, _ = exponent(axis.values, cost)
                label = f"{name}: {axis.name}$^{{{slope:.2f}}}$"
                panel.loglog(
                    axis.values, cost, color=colour, marker=marker, ls=line, ms=3.5, lw=1.1, label=label
                )
            panel.set_xlabel(axis.label)
            panel.set_xticks(axis.values, [str(value) for value in axis.values])
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.minorticks_off()
            panel.set_title(letter, loc="left", fontweight="bold", fontsize=9)
            panel.legend(frameon=False, loc="upper left", handlelength=1.6, borderaxespad=0.1)
        low, high = panels[0].get_ylim()
        panels[0].set_ylim(low, high * 12)  # room for the legends
        panels[0].set_ylabel("time a call (ms)")
        figure.savefig(path, metadata={"Date": None})


def report(seconds: float = 45.0, *, full: bool = False) -> str:
    """Return the Markdown table of costs and exponents.

    Parameters
    ----------
    seconds : float
        About how long to measure.
    full : bool
        Twice as long, and write the figure.
    """
    each = seconds * (2 if full else 1) / len(AXES)
    results = {axis.name: measured(axis, each) for axis in AXES}
    if full:
        draw(results, FIGURE)
    rows = []
    for axis in AXES:
        for name, cost in results[axis.name].items():
            slope, width = exponent(axis.values, cost)
            shown = ", ".join(f"{v}: {ms:.3g}" for v, ms in zip(axis.values, cost, strict=True))
            rows.append([axis.name, name, shown, f"{slope:.2f} ± {width:.2f}"])
    return table(["against", "what", "size: milliseconds", "exponent, four largest sizes (95 %)"], rows)


if __name__ == "__main__":
    run(report, __doc__, seconds=45.0)
