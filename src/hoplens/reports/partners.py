"""Which inputs act together on one explained output, in words: for the page of an explanation."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hoplens.analysis.attribution.explanation import Explanation
from hoplens.analysis.interactions import interactions
from hoplens.graph.pathways import Pathways
from hoplens.models.readers.models import ModelParts

CREDITED = 6  # inputs whose partners are sought
PARTNERS = 3  # named of each
POINTS = 4  # of the straight line from baseline to input
NEGLIGIBLE = 0.05  # of the largest first-order flow
MOST_STEPS = 2000  # that are run one after the other: some seconds
MOST_PRODUCTS = 1e10  # multiplications of all runs: some ten seconds, with derivatives


@dataclass(frozen=True)
class Together:
    """What each of the strongest credited inputs acts together with, ready to print.

    Attributes
    ----------
    rows : tuple of (input, step, credit, partners)
    note : str
        Why there are no rows; empty where there are some.
    """

    rows: tuple[tuple[str, str, str, str], ...]
    note: str


def acting_together(parts: ModelParts, why: Explanation, sample: int) -> Together:
    """Find the partners of the strongest credited inputs of one sample.

    The interaction of two inputs is their mean second derivative at some points of the straight line from
    baseline to input, times what the two change.
    """
    length = int(why.lengths[sample])
    credits = why.values[sample, :length]
    order = credits.abs().flatten().argsort(descending=True, stable=True)[:CREDITED]
    order = order[credits.flatten()[order] != 0]
    if not len(order):
        return Together((), "No input is credited with anything.")
    runs = len(order) * POINTS
    skipped = _too_long(parts, length, runs)
    if skipped:
        return Together((), skipped)
    count = credits.shape[1]
    base = why.baseline[sample, :length]
    change = why.inputs[sample, :length] - base
    shares = (torch.arange(POINTS).to(change) + 0.5) / POINTS
    line = base + shares[:, None, None] * change  # (POINTS, L, I)
    stack = parts.stack()
    assert not isinstance(stack, Pathways)  # it was explained
    cells = [(length - 1 - n // count, n % count) for n in order.tolist()]
    pairs = interactions(
        parts,
        line if stack.batch_first else line.transpose(0, 1),
        int(why.outputs[sample]),
        rows=cells,
    )
    moved = change.flip(0).double()  # (L, I) by lag
    joint = pairs.values * moved * moved[pairs.rows[:, 0], pairs.rows[:, 1]][:, None, None]
    least = NEGLIGIBLE * float((pairs.flow * moved.abs()).max())
    places = {(lag, place): row for row, (lag, place) in enumerate(pairs.rows.tolist())}
    rows = []
    for lag, place in cells:
        amounts = joint[places[lag, place]].clone()
        amounts[lag, place] = 0.0
        flat = amounts.flatten()
        best = flat.abs().argsort(descending=True, stable=True)[:PARTNERS].tolist()
        named = [
            f"{why.input_names[n % count]} at step {length - 1 - n // count} ({float(flat[n]):+.2g})"
            for n in best
            if abs(float(flat[n])) > least
        ]
        if named:
            credit = f"{float(credits[length - 1 - lag, place]):+.3g}"
            rows.append((why.input_names[place], str(length - 1 - lag), credit, ", ".join(named)))
    note = (
        "Second derivatives on the straight line from baseline to input are negligible beside the first "
        "ones, as they are in every network of ReLU units."
    )
    return Together(tuple(rows), "" if rows else note)


def _too_long(parts: ModelParts, length: int, runs: int) -> str:
    """Return why this is not computed, or nothing."""
    steps = length if parts.info.runs_last is None else min(length, parts.info.runs_last)
    stack = parts.stack()
    cells = () if isinstance(stack, Pathways) else stack.cells
    products = runs * steps * sum(4.0 * c.n_state * (c.n_state + c.n_inputs) for c in cells)
    if steps <= MOST_STEPS and products <= MOST_PRODUCTS:
        return ""
    return (
        f"Not computed for the page, as it takes long: {runs} runs of {steps} steps, {products:.2g} products "
        f"(at most {MOST_STEPS} steps and {MOST_PRODUCTS:.0e} products). hoplens.interactions computes it."
    )


__all__ = ["Together", "acting_together"]
