"""Pictures of graphs: routing through groups of hidden units, single walks, and eigenvalues."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from hoplens.analysis.dynamics.spectra import spectrum
from hoplens.analysis.hops import hop_maps
from hoplens.analysis.routing import routing_graph
from hoplens.analysis.walks import top_paths
from hoplens.errors import NonFiniteError, ParameterError, ShapeError
from hoplens.graph.implicit import takes_models
from hoplens.graph.pathways import Pathways
from hoplens.plots.columns import finite
from hoplens.plots.style import (
    FONT,
    GROUP_COLORS,
    INK,
    MUTED,
    NEGATIVE,
    POSITIVE,
    RULE,
    SMALL,
    name_axes,
    name_panel,
    new_axes,
    quiet,
    short,
)

WIDEST = 9.0  # points
LEAST_DRAWN = 0.02  # lines below this share of the widest are left out
Array = NDArray[np.float64]
Point = tuple[float, float]


@takes_models
def plot_routing_graph(
    net: Pathways, *, hop: int | None = None, horizon: int = 20, ax: Axes | None = None
) -> Axes:
    """Draw how the influence of one hop length passes through groups of hidden units.

    Columns are the inputs, the groups by which walks enter the hidden layer, those by which they leave it,
    and the outputs. The width of a line is the part of the hop's influence that takes it, after walks of
    opposite sign have cancelled. Groups are layers or modules where the network has them, else units that
    hear the same inputs and drive the same outputs.

    Parameters
    ----------
    net : Pathways
        One network.
    hop : int, optional
        Hop length, at least 2; default the one with the most influence.
    horizon : int, default 20
        Time steps considered.
    ax : Axes, optional
        Where; default a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ShapeError
        If the network has leading axes.
    NonFiniteError
        If a hop map holds NaN or infinity.
    ParameterError
        For a hop beyond the horizon.
    """
    if net.batch_shape:
        raise ShapeError(
            f"a routing graph shows one network, got leading axes {tuple(net.batch_shape)}; index them first"
        )
    maps = hop_maps(net.detach().to(torch.float64), horizon)
    finite(maps.values.cpu().numpy())
    hops = maps.hops.tolist()
    chosen = hops[int(maps.values.abs().sum((1, 2)).argmax())] if hop is None else hop
    if chosen not in hops or chosen < 2:
        raise ParameterError(f"hop must lie between {max(2, hops[0])} and {hops[-1]}, got {hop!r}")
    graph = routing_graph(net, maps)
    place = hops.index(chosen)
    groups = [group["name"] for group in graph["groups"]]
    columns = [graph["inputs"], groups, groups, graph["outputs"]]
    shapes = [(len(groups), len(columns[0])), (len(groups),) * 2, (len(columns[3]), len(groups))]
    stages = [
        np.zeros(shape) if graph[name][place] is None else np.asarray(graph[name][place]).reshape(shape)
        for name, shape in zip(("enter", "through", "leave"), shapes, strict=True)
    ]
    axes = new_axes(5.0, min(1.0 + 0.22 * max(map(len, columns)), 6.0)) if ax is None else ax
    _draw_columns(axes, columns, stages)
    name_panel(axes, maps.hop_name(place))
    return axes


def _draw_columns(ax: Axes, columns: list[list[str]], stages: list[Array]) -> None:
    rows = max(map(len, columns))
    spots = [
        [(float(c), (n + 0.5) * rows / len(names)) for n in range(len(names))]
        for c, names in enumerate(columns)
    ]
    top = max(float(stage.max(initial=0.0)) for stage in stages) or 1.0
    for s, stage in enumerate(stages):
        for (to, from_), value in np.ndenumerate(stage):
            if value >= LEAST_DRAWN * top:
                color = GROUP_COLORS[(to if s == 0 else from_) % len(GROUP_COLORS)]
                _ribbon(ax, spots[s][from_], spots[s + 1][to], color, WIDEST * value / top)
    for c, names in enumerate(columns):
        end = c in (0, len(columns) - 1)
        for n, name in enumerate(names):
            color = MUTED if end else GROUP_COLORS[n % len(GROUP_COLORS)]
            ax.plot(*spots[c][n], "o", color=color, markersize=4, zorder=3)
            side = {0: (-6, 0, "right", "center"), len(columns) - 1: (6, 0, "left", "center")}
            dx, dy, ha, va = side.get(c, (0, 5, "center", "bottom"))
            ax.annotate(
                short(name), spots[c][n], (dx, dy), textcoords="offset points", ha=ha, va=va,
                fontsize=SMALL, color=INK,
            )  # fmt: skip
    _bare(ax, rows)
    ax.set_xlim(-0.25, len(columns) - 0.75)
    ax.set_xticks(
        range(len(columns)), ["inputs", "enter by", "leave by", "outputs"], fontsize=FONT, color=MUTED
    )


def _bare(ax: Axes, rows: float) -> None:
    quiet(ax)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.tick_params(length=0)
    ax.set_yticks([])
    ax.set_ylim(rows, -0.2)


def _ribbon(ax: Axes, start: Point, stop: Point, color: str, width: float) -> None:
    half = (start[0] + stop[0]) / 2
    bend = [start, (half, start[1]), (half, stop[1]), stop]
    outline = Outline(np.array(bend), [Outline.MOVETO, Outline.CURVE4, Outline.CURVE4, Outline.CURVE4])
    ax.add_patch(PathPatch(outline, facecolor="none", edgecolor=color, linewidth=max(width, 0.2), alpha=0.6))


@takes_models
def plot_paths(
    net: Pathways, source: int | str, target: int | str, hops: int, *, n: int = 10, ax: Axes | None = None
) -> Axes:
    """Draw the strongest single walks from an input to an output, step by step.

    Width is the magnitude of a walk's product relative to the strongest one's; orange is positive, blue
    negative. Units that walks share lie on one row.

    Parameters
    ----------
    net : Pathways
        One network.
    source, target : int or str
        Input and output, by number or name.
    hops : int
        Edges walked.
    n : int, default 10
        Number of walks.
    ax : Axes, optional
        Where; default a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    UnknownNameError
        If the input or output does not exist.
    ParameterError
        If no walk of this length joins them.
    """
    walks = top_paths(net, source, target, hops, n)
    if not len(walks):
        raise ParameterError(
            f"no walk of {hops} hops leads from {source!r} to {target!r}; try another length"
        )
    first, *_, last = str(walks["path"].iloc[0]).split(" > ")
    units = list(dict.fromkeys(unit for walk in walks["units"] for unit in walk))
    row = {unit: float(n) for n, unit in enumerate(units)}
    middle = (len(units) - 1) / 2
    axes = new_axes(min(2.0 + 0.8 * hops, 7.0), max(1.4, 0.9 + 0.24 * len(units))) if ax is None else ax
    products = [float(product) for product in walks["product"]]
    for units_passed, product in zip(reversed(walks["units"]), reversed(products), strict=True):
        steps = [(s + 1.0, row[u]) for s, u in enumerate(units_passed)]
        color = POSITIVE if product > 0 else NEGATIVE
        size = WIDEST / 2 * abs(product) / max(map(abs, products))
        for start, stop in itertools.pairwise([(0.0, middle), *steps, (float(hops), middle)]):
            _ribbon(axes, start, stop, color, size)
    _name_units(axes, net, walks["units"].tolist(), row)
    for x, name, side in ((-0.08, first, "right"), (hops + 0.08, last, "left")):
        axes.text(x, middle, short(name), ha=side, va="center", fontsize=FONT, color=INK)
    _bare(axes, len(units) - 0.4)
    axes.set_ylim(len(units) - 0.4, -0.6)
    axes.set_xlim(-0.7, hops + 0.7)
    axes.set_xticks(range(1, hops), [f"unit {s}" for s in range(1, hops)], fontsize=SMALL, color=MUTED)
    share = float(walks["share"].sum())
    name_panel(axes, f"{len(walks)} strongest walks, {share:.0%} of the weight of all of {hops} hops")
    return axes


def _name_units(ax: Axes, net: Pathways, walks: list[tuple[int, ...]], row: dict[int, float]) -> None:
    box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": RULE}
    for step, unit in sorted({(s + 1, u) for walk in walks for s, u in enumerate(walk)}):
        text = short(net.hidden_names[unit])
        ax.text(step, row[unit], text, ha="center", va="center", fontsize=SMALL, color=INK, bbox=box)


def plot_spectrum(values: Pathways | Tensor, *, ax: Axes | None = None) -> Axes:
    """Draw eigenvalues of the recurrent weights in the complex plane, with the unit circle.

    Parameters
    ----------
    values : Pathways, or Tensor of complex numbers
        A network, or eigenvalues of any shape.
    ax : Axes, optional
        Where; default a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    NonFiniteError
        For NaN or infinity.
    """
    eigenvalues = spectrum(values) if isinstance(values, Pathways) else values
    points = eigenvalues.detach().cpu().numpy().reshape(-1)
    if not np.isfinite(points).all():
        raise NonFiniteError("eigenvalues to draw must be finite, got NaN or infinity; check the network")
    axes = new_axes(3.35, 3.2) if ax is None else ax
    quiet(axes)
    angle = np.linspace(0, 2 * math.pi, 200)
    axes.axhline(0, color=RULE, linewidth=0.6, zorder=0)
    axes.axvline(0, color=RULE, linewidth=0.6, zorder=0)
    axes.plot(np.cos(angle), np.sin(angle), color=MUTED, linewidth=0.8)
    axes.plot(points.real, points.imag, "o", color=NEGATIVE, markersize=3.2, markeredgewidth=0, alpha=0.8)
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5))
    name_axes(axes, "real part", "imaginary part")
    return axes


__all__ = ["plot_paths", "plot_routing_graph", "plot_spectrum"]
