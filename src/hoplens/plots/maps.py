"""Pictures of hop maps and of input-output maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from hoplens.analysis.hops import HopMaps
from hoplens.errors import ShapeError
from hoplens.plots.columns import (
    Columns,
    Group,
    arrange,
    by_first_use,
    finite,
    one_network,
    pick,
)
from hoplens.plots.style import (
    DIVERGING,
    FONT,
    INK,
    MUTED,
    PAGE,
    RULE,
    SMALL,
    colour_bar,
    name_axes,
    name_cells,
    name_panel,
    new_axes,
    new_figure,
    plain,
    quiet,
    short,
)

MOST_PANELS = 48
MOST_CELLS = 20_000  # vector files with more cells grow slow to open: those are embedded as pixels
LETTER = 0.8  # width of a letter in units of the font size, on the safe side
GAP = 3.0  # points between labels side by side


def plot_hops(maps: HopMaps, *, ax: Axes | None = None, network: int | Sequence[int] | None = None) -> Axes:
    """Draw hop length against input-output pair.

    A row is a hop length (with its lag), a column a pair; columns are ordered by output module, then by
    input module, with lines between them. Colours run from negative over white at zero to positive, on
    one scale for all hops. More than 400 pairs are shown as pairs of modules (the strongest weight of
    each), or, without modules, as the 40 strongest pairs; the title says so.

    Parameters
    ----------
    maps : HopMaps, values of shape (..., K, O, I)
        What to draw.
    ax : Axes, optional
        Where; default a new figure.
    network : int or sequence of int, optional
        Which network of an ensemble, one number a leading axis; default the first. The title says which.

    Returns
    -------
    Axes

    Raises
    ------
    ShapeError
        For a network that does not exist.
    NonFiniteError
        For maps with NaN or infinity.

    Examples
    --------
    >>> import torch, hoplens as hl
    >>> net = hl.Pathways(torch.eye(2), torch.eye(2), torch.eye(2))
    >>> plot_hops(hl.hop_maps(net, 3)).get_ylabel()
    'hop (lag)'
    """
    one, which = one_network(maps, network)
    height = min(max(1.5 + 0.17 * len(one.hops), 2.3), 7.0)
    axes = new_axes(PAGE, height) if ax is None else ax
    turned = _draw_hops(axes, one, which, arrange(one))
    if turned and ax is None:  # as tall as the labels need
        axes.get_figure(root=True).set_size_inches(PAGE, height + turned)  # type: ignore[union-attr]
    return axes


def _draw_hops(ax: Axes, maps: HopMaps, which: str, columns: Columns) -> float:
    """Draw one network; returns the height in inches of labels that had to be turned upright."""
    rows, count = columns.values.shape
    mesh = _heat(ax, columns.values, np.abs(columns.values).max(initial=0.0))
    quiet(ax)
    _separate(ax, columns, rows)
    every = max(1, math.ceil(rows / 24))
    hops, lags = maps.hops.tolist(), maps.lags.tolist() if maps.timed else None
    ax.set_yticks(
        [n + 0.5 for n in range(0, rows, every)],
        [f"{hops[n]} ({lags[n]})" if lags else str(hops[n]) for n in range(0, rows, every)],
    )
    ax.tick_params(length=0)
    name_axes(ax, "", "hop (lag)" if lags else "hop")
    turned = _label_groups(ax, columns, count)
    name_panel(ax, " · ".join(note for note in (which, columns.note) if note))
    _scale_bar(mesh, [ax])
    return turned


def plot_map(
    value: Tensor | NDArray[Any],
    input_names: Sequence[str],
    output_names: Sequence[str],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw an input-output map as a matrix, outputs down and inputs across.

    Parameters
    ----------
    value : Tensor or array, shape (..., O, I)
        The map, e.g. a resolvent's; of an ensemble the first network is drawn and the title says so.
    input_names, output_names : sequence of str
        Names of the I inputs and O outputs.
    ax : Axes, optional
        Where; default a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ShapeError
        If names and map do not fit together.
    NonFiniteError
        For a map with NaN or infinity.
    """
    array = torch.as_tensor(value).detach().double().cpu().numpy()
    if array.ndim < 2 or array.shape[-2:] != (len(output_names), len(input_names)) or 0 in array.shape:
        raise ShapeError(
            f"a map must have shape (..., O, I) = (..., {len(output_names)}, {len(input_names)}) to go with "
            f"the names of its outputs and inputs, got {array.shape}"
        )
    place, which = pick(array.shape[:-2], None)
    array = finite(array[place])
    outputs, inputs = array.shape
    if ax is None:
        cell = min(0.22, (PAGE - 1.5) / inputs, (PAGE - 0.8) / outputs)
        left, below = _length(output_names), _length(input_names)
        ax = new_axes(1.4 + left + max(cell * inputs, 0.5), 0.6 + below + max(cell * outputs, 0.8))
    mesh = _heat(ax, array, np.abs(array).max(initial=0.0))
    quiet(ax)
    ax.set_aspect("equal")
    name_cells(ax, input_names, output_names)
    name_panel(ax, which)
    _scale_bar(mesh, [ax])
    return ax


def plot_hop_grid(maps: HopMaps, *, network: int | Sequence[int] | None = None) -> Figure:
    """Draw one small output-by-input matrix for every hop, all on one scale.

    Parameters
    ----------
    maps : HopMaps, values of shape (..., K, O, I)
        What to draw. Of more than 48 hops the 48 strongest are shown, and the title says so.
    network : int or sequence of int, optional
        Which network of an ensemble, one number a leading axis; default the first. The title says which.

    Returns
    -------
    Figure

    Raises
    ------
    ShapeError
        For a network that does not exist.
    NonFiniteError
        For maps with NaN or infinity.
    """
    one, which = one_network(maps, network)
    values = finite(one.values.detach().double().cpu().numpy())
    to, from_ = one.output_modules or one.output_names, one.input_modules or one.input_names
    values = values[:, by_first_use(to)][:, :, by_first_use(from_)]
    limit = np.abs(values).max(initial=0.0)
    shown, note = _strongest(values)
    across = min(len(shown), 6)
    down = math.ceil(len(shown) / across)
    shape = min(max(values.shape[1] / values.shape[2], 0.3), 2.0)
    size = (PAGE - 0.7) / max(across, 3)
    fig = new_figure(0.9 + size * across, 0.5 + down * (size * shape + 0.25))
    grid = fig.subplots(down, across, squeeze=False)
    mesh: QuadMesh | None = None
    for ax, n in zip(grid.flat, shown, strict=False):
        mesh = _heat(ax, values[n], limit)
        quiet(ax)
        ax.set_aspect("equal")
        ax.set_xticks([])
        ax.set_yticks([])
        _module_lines(ax, sorted(to, key=to.index), sorted(from_, key=from_.index), one)
        name_panel(ax, one.hop_name(n))
    for ax in grid.flat[len(shown) :]:
        ax.set_visible(False)
    name_axes(grid[-1, 0], "input", "output")
    if mesh is not None:
        _scale_bar(mesh, [ax for ax in grid.flat if ax.get_visible()])
    title = " · ".join(text for text in (which, note) if text)
    if title:
        fig.suptitle(plain(title), fontsize=FONT, color=INK)
    return fig


def _strongest(values: NDArray[np.float64]) -> tuple[list[int], str]:
    count = len(values)
    if count <= MOST_PANELS:
        return list(range(count)), ""
    mass = np.abs(values).sum(axis=(1, 2))
    kept = sorted(np.argsort(-mass, kind="stable")[:MOST_PANELS].tolist())
    return kept, f"the {MOST_PANELS} strongest of {count} hops"


def _heat(ax: Axes, matrix: NDArray[np.float64], limit: float) -> QuadMesh:
    limit = float(limit) or 1.0  # maps of zeros are white on any scale
    mesh = ax.pcolormesh(matrix, cmap=DIVERGING, vmin=-limit, vmax=limit, rasterized=matrix.size > MOST_CELLS)
    ax.invert_yaxis()
    return mesh


def _scale_bar(mesh: QuadMesh, axes: list[Axes]) -> None:
    limit = mesh.get_clim()[1] or 1.0
    top = f"{limit:#.2g}".rstrip(".")
    place: dict[str, Any] = {"ax": axes, "fraction": 0.06, "aspect": 24, "shrink": 0.9}
    if len(axes) == 1:  # an inset is as tall as the map even where the map's cells are square
        place = {"cax": axes[0].inset_axes((1.02, 0.0, 0.018, 1.0))}
    bar = colour_bar(mesh, "pathway weight", **place)
    bar.set_ticks([-limit, 0.0, limit], labels=[f"−{top}", "0", top])


def _separate(ax: Axes, columns: Columns, rows: int) -> None:
    edges = {group.start for group in columns.outer if group.start}
    inner = {group.start for group in columns.inner if group.start} - edges
    if len(columns.inner) < columns.values.shape[1]:  # lines between single columns would hide them
        ax.vlines(sorted(inner), 0, rows, colors=RULE, linewidth=0.5)
    ax.vlines(sorted(edges), 0, rows, colors=MUTED, linewidth=0.7)


def _label_groups(ax: Axes, columns: Columns, count: int) -> float:
    """Name inputs below and outputs above; returns the height in inches of names turned upright."""
    to, from_ = ("module" if grouped else "" for grouped in columns.by_module)
    inner, outer = _fitting(ax, columns.inner, count), _fitting(ax, columns.outer, count)
    order = "" if inner else ", in order"
    ax.set_xlabel(f"from input {from_}".strip() + order, fontsize=FONT, color=INK)
    ax.set_xticks(*_ticks(columns.inner if inner else ()))
    top = ax.secondary_xaxis("top")
    top.spines["top"].set_visible(False)
    top.set_xlabel(f"to output {to}".strip(), fontsize=FONT, color=INK, labelpad=3)
    top.set_xticks(*_ticks(columns.outer if outer else ()))
    top.tick_params(length=0, labelsize=SMALL, labelcolor=INK, pad=1)
    turned = 0.0
    for axis, groups, rotation in ((ax, columns.inner, inner), (top, columns.outer, outer)):
        if rotation == (90.0,):
            axis.tick_params(axis="x", labelrotation=90)
            turned += _length([g.label for g in groups])
    return turned


def _ticks(groups: Sequence[Group]) -> tuple[list[float], list[str]]:
    return [(g.start + g.stop) / 2 for g in groups], [short(g.label) for g in groups]


def _length(names: Sequence[str]) -> float:
    """Return the length of the longest name in inches, on the safe side."""
    return max(len(short(name)) for name in names) * LETTER * SMALL / 72


def _fitting(ax: Axes, groups: tuple[Group, ...], count: int) -> tuple[float, ...]:
    """Return the rotation at which all labels fit side by side as a tuple of one; empty if they do not."""
    points = 0.9 * 72 * ax.get_window_extent().width / ax.figure.dpi  # 0.9: the scale bar takes its share
    narrow = min(g.stop - g.start for g in groups) * points / count
    if 72 * _length([g.label for g in groups]) + GAP < narrow:
        return (0.0,)
    return (90.0,) if narrow > 1.1 * SMALL else ()


def _module_lines(ax: Axes, to: Sequence[str], from_: Sequence[str], maps: HopMaps) -> None:
    outputs, inputs = len(to), len(from_)
    if maps.output_modules is not None:
        ax.hlines([n for n in range(1, outputs) if to[n] != to[n - 1]], 0, inputs, colors=RULE, linewidth=0.5)
    if maps.input_modules is not None:
        ax.vlines(
            [n for n in range(1, inputs) if from_[n] != from_[n - 1]], 0, outputs, colors=RULE, linewidth=0.5
        )
