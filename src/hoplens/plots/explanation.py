"""An explanation as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from hoplens.plots.style import DIVERGING, RULE, colour_bar, name_axes, name_panel, new_axes, quiet, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hoplens.analysis.attribution.explanation import Explanation

MOST_NAMES = 24  # input names that fit beside the map
MOST_CELLS = 20_000  # vector files with more cells grow slow to open: those are embedded as pixels


def draw(why: Explanation, sample: int, ax: Axes | None) -> Axes:
    """Draw one sample, time step by input; see `Explanation.plot`."""
    length = int(why.lengths[sample])
    values = why.values[sample, :length].detach().cpu().double().numpy().T  # (I, L)
    rows, columns = values.shape
    if ax is None:
        width = float(np.clip(1.5 + 0.26 * columns, 3.3, 7.0))
        ax = new_axes(width, float(np.clip(0.9 + 0.2 * rows, 1.7, 6.0)))
    limit = float(np.abs(values).max()) or 1.0
    mesh = ax.pcolormesh(
        np.arange(columns + 1) - 0.5,
        np.arange(rows + 1) - 0.5,
        values,
        cmap=DIVERGING,
        norm=Normalize(-limit, limit),
        rasterized=rows * columns > MOST_CELLS,
        edgecolors=RULE if columns <= 40 and rows <= 40 else "none",
        linewidth=0.4,
    )
    quiet(ax)
    ax.invert_yaxis()
    ax.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))
    every = -(-rows // MOST_NAMES)
    ax.set_yticks(range(0, rows, every), [short(name) for name in why.input_names[::every]])
    ax.set_xlim(-0.5, columns - 0.5)
    name_axes(ax, "time step (the output is read after the last)", "")
    name = why.output_names[int(why.outputs[sample])]
    change = float(why.difference[sample])
    name_panel(ax, f"{short(name)}: {float(why.output[sample]):.3g}, {change:+.3g} from the baseline")
    bar = colour_bar(mesh, "contribution", shrink=0.95)
    bar.locator = MaxNLocator(nbins=5, symmetric=True)
    bar.update_ticks()
    return ax


__all__ = ["draw"]
