"""Interactions as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import Normalize

from hoplens.plots.style import (
    DIVERGING,
    RULE,
    colour_bar,
    name_axes,
    name_cells,
    name_panel,
    new_axes,
    quiet,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hoplens.analysis.interactions import Interactions


def draw(pairs: Interactions, n: int, ax: Axes | None) -> Axes:
    """Draw the n (lag, input) of the strongest pairs against each other; see `Interactions.plot`."""
    inputs = pairs.values.shape[2]
    matrix = pairs.values.flatten(1).double().cpu().numpy()  # (R, L I)
    rows = (pairs.rows[:, 0] * inputs + pairs.rows[:, 1]).cpu().numpy()
    off = np.abs(matrix)
    off[np.arange(len(rows)), rows] = 0.0
    size = off.max(axis=0)  # of the strongest pair that each takes part in
    size[rows] = np.maximum(size[rows], off.max(axis=1))
    chosen = np.sort(np.argsort(-size, kind="stable")[:n])
    square = np.full((len(chosen), len(chosen)), np.nan)  # NaN: neither is a row that was computed
    where = {int(cell): place for place, cell in enumerate(rows)}
    for down, cell in enumerate(chosen.tolist()):
        if cell in where:
            square[down] = matrix[where[cell], chosen]
            square[:, down] = square[down]
    if ax is None:
        side = float(np.clip(1.6 + 0.2 * len(chosen), 3.0, 7.0))
        ax = new_axes(side + 0.6, side)
    limit = float(np.nanmax(np.abs(square), initial=0.0)) or 1.0
    edges = np.arange(len(chosen) + 1)
    mesh = ax.pcolormesh(
        edges,
        edges,
        square,
        cmap=DIVERGING.with_extremes(bad=RULE),
        norm=Normalize(-limit, limit),
        edgecolors=RULE,
        linewidth=0.4,
    )
    quiet(ax)
    ax.invert_yaxis()
    names = [f"{pairs.input_names[cell % inputs]}, lag {cell // inputs}" for cell in chosen.tolist()]
    name_cells(ax, names, names)
    name_axes(ax, "", "")
    note = f" · {pairs.coverage:.0%} of all pairs, the others grey" if pairs.coverage < 1 else ""
    name_panel(ax, f"{pairs.output}: mean second derivative{note}")
    colour_bar(mesh, "mean second derivative", shrink=0.95)
    return ax


__all__ = ["draw"]
