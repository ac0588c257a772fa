"""Pictures of null models, pseudospectra and summaries. No global matplotlib state is touched."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from hoplens.analysis.measures import dominant_hop
from hoplens.plots.graphs import plot_spectrum
from hoplens.plots.maps import plot_hops
from hoplens.plots.style import (
    MUTED,
    NEGATIVE,
    POSITIVE,
    RULE,
    SMALL,
    colour_bar,
    name_axes,
    name_cells,
    name_panel,
    new_axes,
    new_figure,
    quiet,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hoplens.analysis.dynamics.spectra import Pseudospectrum
    from hoplens.analysis.hops import HopMaps
    from hoplens.analysis.nulls.comparison import NullComparison
    from hoplens.analysis.summary import Analysis


UNITS_SHOWN = 30
FAINT = 1e-3


def plot_null(result: NullComparison, *, ax: Axes | None = None) -> Axes:
    """Draw observed values over the middle 95 % of the null; filled where the corrected p is below 0.05."""
    axes = new_axes(4.2, 3.0) if ax is None else ax
    low, middle, high = np.quantile(result.null.numpy(), [0.025, 0.5, 0.975], axis=0)
    observed = result.observed.numpy()
    place = np.arange(len(observed)) if result.hops is None else result.hops.numpy()
    axes.vlines(place, low, high, color=RULE, linewidth=7, label="null, middle 95 %")
    axes.plot(place, middle, "_", color=MUTED, markersize=8, label="null, median")
    sure = result.p_corrected.numpy() < 0.05
    axes.plot(place[~sure], observed[~sure], "o", mfc="none", color=POSITIVE, markersize=5, label="observed")
    axes.plot(place[sure], observed[sure], "o", color=POSITIVE, markersize=5, label="observed, p < 0.05")
    quiet(axes, grid="y")
    name_axes(axes, "hop" if result.hops is not None else "value", result.name.split(" against ")[0])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    name_panel(axes, f"{result.name}, {len(result.null)} draws, p corrected ({result.correction})")
    axes.legend(fontsize=SMALL, frameon=False)
    return axes


def plot_pseudospectrum(result: Pseudospectrum, *, ax: Axes | None = None) -> Axes:
    """Draw contours of log10 of the smallest singular value of z I - W, with eigenvalues and unit circle."""
    axes = plot_spectrum(result.eigenvalues, ax=ax)
    level = np.log10(np.maximum(result.values.numpy(), 1e-300))
    grid = result.real.numpy(), result.imag.numpy()
    lines = axes.contour(*grid, level, levels=8, linewidths=0.8, cmap="cividis")
    axes.clabel(lines, fontsize=7)
    return axes


def analysis_figures(result: Analysis) -> dict[str, Figure]:
    """Return the figures of an analysis by name."""
    axes = {
        "hop_maps": plot_hops(_audible(result.maps)),
        "influence": _influence(result),
        "dominant_hop": _dominant(result),
        "unit_flow": _unit_flow(result),
    }
    if result.lesions is not None:
        axes["lesions"] = _lesions(result, result.lesions)
    return {name: ax.figure for name, ax in axes.items()}  # type: ignore[misc]


def _audible(maps: HopMaps) -> HopMaps:
    """Return the maps without the last hops, where these carry less than a thousandth each."""
    mass = maps.values.abs().sum((-2, -1))
    last = int((mass >= FAINT * mass.sum()).nonzero().max()) + 1 if bool(mass.any()) else len(mass)
    return replace(maps, values=maps.values[:last], hops=maps.hops[:last], exact=None)


def _influence(result: Analysis) -> Axes:
    """Draw the share of each hop, and below it how far data agree with the weights there."""
    hops = result.maps.hops.cpu().numpy()
    mass = result.maps.values.abs().sum((1, 2)).cpu().numpy()
    fit = result.fidelity
    rows = 1 if fit is None else 2
    panels = new_figure(4.2, 1.4 + 1.2 * rows).subplots(rows, squeeze=False, sharex=True)[:, 0]
    panels[0].bar(hops, mass / (mass.sum() or 1.0), color=MUTED, width=0.7)
    name_axes(panels[0], "", "share of influence")
    name_panel(panels[0], "influence of each hop by the weights, sum of |H|")
    if fit is not None:
        rho, spread = fit.per_hop.cpu().numpy(), fit.per_hop_spread.cpu().numpy()
        at = fit.hops.cpu().numpy()
        panels[1].axhline(0, color=RULE, linewidth=0.8)
        panels[1].errorbar(at, rho, yerr=spread, fmt="o", color=POSITIVE, markersize=3.5, capsize=2)
        panels[1].set_ylim(-1.05, 1.05)
        name_axes(panels[1], "", "correlation")
        name_panel(panels[1], f"exact maps of {len(fit.correlation)} samples with the weights', mean and sd")
    name_axes(panels[-1], "hop", panels[-1].get_ylabel())
    for panel in panels:
        quiet(panel, grid="y")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=11))
    top: Axes = panels[0]
    return top


def _dominant(result: Analysis) -> Axes:
    """Draw the dominant hop of each pair, one colour a hop; pairs without a pathway stay white."""
    net, hop = result.net, dominant_hop(result.maps).double()
    hop[hop == 0] = torch.nan
    seen = sorted({int(k) for k in hop[~hop.isnan()].tolist()}) or [int(result.maps.hops[0])]
    width, height = (min(max(1.6, 0.12 * n), 5.2) for n in (net.n_inputs, net.n_outputs))
    axes = new_axes(width + 1.8, height + 1.2)
    # one colour a hop: cividis looks the same to readers with and without red-green blindness
    colours = ListedColormap(colormaps["cividis_r"](np.linspace(0.05, 0.95, seen[-1] - seen[0] + 1)))
    edges = np.arange(seen[0], seen[-1] + 2) - 0.5
    mesh = axes.pcolormesh(hop.cpu().numpy(), cmap=colours, norm=BoundaryNorm(edges, colours.N))
    axes.invert_yaxis()
    quiet(axes)
    name_cells(axes, net.input_names, net.output_names)
    name_panel(axes, "hop that carries most, by the weights (white: none)")
    bar = colour_bar(mesh, "hop", shrink=0.7)
    bar.set_ticks(range(seen[0], seen[-1] + 1, -(-(seen[-1] - seen[0] + 1) // 10)))
    bar.ax.minorticks_off()
    return axes


def _name_units(axes: Axes, result: Analysis, units: Tensor, at: float) -> None:
    names = [short(result.net.hidden_names[j]) for j in units.tolist()]
    axes.set_xticks(np.arange(len(names)) + at, names, rotation=90, fontsize=SMALL)


def _unit_flow(result: Analysis) -> Axes:
    """Draw the share of the units that carry most at each hop."""
    best = result.carried().argsort(descending=True, stable=True)[:UNITS_SHOWN]
    share = result.share[:, best].cpu().numpy()
    axes = new_axes(max(2.6, 0.17 * len(best) + 1.6), max(1.8, 0.13 * len(share) + 1.2))
    mesh = axes.pcolormesh(share, cmap="Greys", vmin=0)
    axes.invert_yaxis()
    quiet(axes)
    _name_units(axes, result, best, 0.5)
    first = int(result.maps.hops[-1]) - len(share) + 1
    ticks = np.unique(np.linspace(0, len(share) - 1, min(len(share), 10)).round().astype(int))
    axes.set_yticks(ticks + 0.5, [str(first + t) for t in ticks])
    axes.tick_params(length=0)
    count = f"{len(best)} of {result.net.n_hidden} units, " if len(best) < result.net.n_hidden else ""
    name_axes(axes, "hidden unit", "hop")
    name_panel(axes, f"{count}share of |pathway mass| at each hop, by the weights")
    colour_bar(mesh, shrink=0.9)
    return axes


def _lesions(result: Analysis, lesions: Tensor) -> Axes:
    """Draw the units whose removal changes the hop maps most."""
    change = lesions.nan_to_num(-1.0)
    best = change.argsort(descending=True, stable=True)[:UNITS_SHOWN]
    best = best[change[best] >= 0]
    axes = new_axes(max(2.6, 0.17 * len(best) + 1.0), 2.4)
    place, value = np.arange(len(best)), change[best].cpu().numpy()
    axes.vlines(place, 0, value, color=RULE, linewidth=1.2)
    axes.plot(place, value, "o", color=NEGATIVE, markersize=4)
    quiet(axes, grid="y")
    _name_units(axes, result, best, 0.0)
    axes.set_ylim(bottom=0)
    name_axes(axes, "hidden unit removed", "change of the hop maps")
    name_panel(axes, "what is lost without each unit, |H − H without it| / |H|")
    return axes


__all__ = ["analysis_figures", "plot_null", "plot_pseudospectrum"]
