"""An explanation as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from hoplens.plots.style import DIVERGING, FONT, INK, MUTED, RULE, SMALL, name_panel, new_axes, quiet, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hoplens.analysis.attribution.explanation import Explanation

MOST_NAMES = 24  # input names that fit beside the map
MOST_CELLS = 20_000  # vector files with more cells grow slow to open: those are embedded as pixels


def draw(found: Explanation, sample: int, ax: Axes | None) -> Axes:
    """Draw one sample, time step by input; see `Explanation.plot`."""
    length = int(found.lengths[sample])
    values = found.values[sample, :length].detach().cpu().double().numpy().T  # (I, L)
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
    ax.set_yticks(range(0, rows, every), [short(name) for name in found.input_names[::every]])
    ax.set_xlim(-0.5, columns - 0.5)
    ax.set_xlabel("time step (the output is read after the last)", fontsize=FONT, color=INK)
    name = found.output_names[int(found.outputs[sample])]
    change = float(found.difference[sample])
    name_panel(ax, f"{short(name)}: {float(found.output[sample]):.3g}, {change:+.3g} from the baseline")
    bar = ax.figure.colorbar(mesh, ax=ax, pad=0.02, aspect=18, shrink=0.95)
    assert bar.solids is not None  # made from a mesh
    bar.solids.set_rasterized(False)
    bar.outline.set_visible(False)
    bar.set_label("contribution", fontsize=FONT, color=INK)
    bar.ax.tick_params(colors=MUTED, labelcolor=INK, labelsize=SMALL, width=0.6, length=2.5)
    bar.locator = MaxNLocator(nbins=5, symmetric=True)
    bar.update_ticks()
    return ax


__all__ = ["draw"]
