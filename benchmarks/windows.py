"""How many of the last steps a read-out needs: measured, and by linear theory.

Networks trained on tasks whose signal lies a few steps before the read-out, in sequences of 20 steps, and
small random networks of every kind with smaller and smaller weights. The tolerance is a share of the
standard deviation of the outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from batched import models_of, samples
from contest import run, table
from torch import nn

import hoplens as hl

HIDDEN, LENGTH, STEPS = 32, 20, 1000
TOLERANCE = 0.05  # of the outputs' standard deviation
LAGS = (3, 8)
SEEDS = range(100, 110)
STRENGTH = 1e-3
SHORT_SECONDS = 60.0  # below this: one lag, fewer seeds and steps
GAINS = (0.3, 0.6, 1.0)
KINDS = {"tanh": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}


def cells(models: Sequence[hl.RecurrentModel], inputs: torch.Tensor) -> list[str]:
    """Return table cells: windows measured, and by linear theory."""
    windows: dict[str, list[int | None]] = {"measured": [], "linear": []}
    for model in models:
        with torch.no_grad():
            limit = TOLERANCE * float(model(inputs).std())
        found = hl.effective_window(model, inputs, limit)
        windows["measured"].append(found.window)
        windows["linear"].append(found.linear_window)
    return [_summary(values, inputs.shape[1]) for values in windows.values()]


def _summary(values: Sequence[int | None], steps: int) -> str:
    """Return median and quartiles; what has no window counts as all steps, and how many have one."""
    low, middle, high = np.quantile([steps if v is None else v for v in values], (0.25, 0.5, 0.75))
    own = sum(v is not None and v < steps for v in values)
    return f"{middle:g} [{low:g}, {high:g}], {own} of {len(values)} below {steps}"


def trained(lags: Sequence[int], seeds: range, steps: int) -> Iterator[list[str]]:
    """Yield table rows of trained networks."""
    for lag in lags:
        task = hl.tasks.make("addition", signal="sparse", length=LENGTH, lag=lag)
        inputs, _ = samples(task, 128, 1)
        for recipe in (hl.recipes.none(), hl.recipes.l1(), hl.recipes.paper(), hl.recipes.recommended()):
            result = hl.train(task, recipe, seeds=seeds, strengths=[STRENGTH], hidden=HIDDEN, steps=steps)
            explained = 1 - float(result.metrics["test_error"].mean())
            row = [task.label, recipe.name, f"{explained:.3f}"]
            yield [*row, *cells(models_of(result.ensemble), inputs)]


def drawn(count: int) -> Iterator[list[str]]:
    """Yield table rows of small random networks."""
    inputs = torch.randn(64, 40, 2, generator=torch.Generator().manual_seed(1))
    for name, kind in KINDS.items():
        for gain in GAINS:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                models = [
                    hl.RecurrentModel(kind(2, 4, batch_first=True), nn.Linear(4, 2)) for _ in range(count)
                ]
            with torch.no_grad():
                for parameter in (p for model in models for p in model.core.parameters()):
                    parameter.mul_(gain)
            yield [name, f"{gain:g}", *cells(models, inputs)]


def report(seconds: float = 50.0, *, full: bool = False) -> str:
    """Return the Markdown tables.

    Parameters
    ----------
    seconds : float
        About how long to take; under a minute one lag, few seeds and steps.
    full : bool
        The whole comparison whatever the time.
    """
    short = seconds < SHORT_SECONDS and not full
    lags, seeds, steps = (LAGS[:1], SEEDS[:2], 100) if short else (LAGS, SEEDS, STEPS)
    windows = ["measured", "linear theory"]
    note = (
        f"Windows in steps, median [quartiles]; tolerance {TOLERANCE:g} of the outputs' standard deviation. "
        f"Trained networks: {HIDDEN} tanh units, sequences of {LENGTH} steps, strength {STRENGTH:g}, {steps} "
        f"steps of training, {len(seeds)} networks. Random ones: 4 units, sequences of 40 steps, weights of "
        "torch's initialisation times the gain.\n\n"
    )
    first = table(["task", "method", "explained", *windows], list(trained(lags, seeds, steps)))
    return note + first + "\n" + table(["kind", "gain", *windows], list(drawn(2 if short else 10)))


if __name__ == "__main__":
    run(report, __doc__, seconds=50.0)
