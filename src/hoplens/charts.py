"""Pictures of comparisons, spectra and summaries. No global matplotlib state is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hoplens.plots.graphs import plot_spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hoplens.analysis import Analysis
    from hoplens.comparison import NullComparison
    from hoplens.spectra import Pseudospectrum


def new_axes(ax: Axes | None, width: float = 5.0, height: float = 3.5) -> Any:
    """Return the axes given, or those of a new figure that pyplot does not know of."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def plot_null(result: NullComparison, *, ax: Axes | None = None) -> Axes:
    """Draw observed values over the middle 95 % of the null; filled where the corrected p is below 0.05."""
    axes = new_axes(ax)
    low, middle, high = np.quantile(result.null.numpy(), [0.025, 0.5, 0.975], axis=0)
    observed = result.observed.numpy()
    place = np.arange(len(observed)) if result.hops is None else result.hops.numpy()
    axes.errorbar(
        place, middle, yerr=[middle - low, high - middle], fmt="_", color="0.5", capsize=3, label="null, 95 %"
    )
    sure = result.p_corrected.numpy() < 0.05
    axes.plot(place[~sure], observed[~sure], "o", mfc="none", color="C0", label="observed")
    axes.plot(place[sure], observed[sure], "o", color="C0", label="observed, p < 0.05")
    axes.set_xlabel("hop" if result.hops is not None else "value")
    axes.set_ylabel("measure")
    axes.set_title(f"{result.name} (n = {len(result.null)}, {result.correction} correction)", fontsize=9)
    axes.legend(fontsize=8)
    return axes  # type: ignore[no-any-return]


def plot_pseudospectrum(result: Pseudospectrum, *, ax: Axes | None = None) -> Axes:
    """Draw contours of log10 of the smallest singular value of z I - W, with eigenvalues and unit circle."""
    axes = plot_spectrum(result.eigenvalues, ax=ax)
    level = np.log10(np.maximum(result.values.numpy(), 1e-300))
    lines = axes.contour(result.real.numpy(), result.imag.numpy(), level, levels=8, linewidths=0.8)
    axes.clabel(lines, fontsize=7)
    return axes


def analysis_figures(result: Analysis) -> dict[str, Figure]:
    """Return the figures of an analysis by name."""
    from hoplens.measures import dominant_hop

    maps = result.maps
    hops = maps.hops.cpu().numpy()
    influence = new_axes(None)
    influence.bar(hops, maps.values.abs().sum((1, 2)).cpu().numpy(), color="C0")
    influence.set_xlabel("hop")
    influence.set_ylabel("sum of |H_k|")
    title = "weights only; fidelity unknown" if result.fidelity is None else result.fidelity.summary()
    influence.set_title(title, fontsize=7)
    pairs = new_axes(None, 5.0, 4.5)
    hop = dominant_hop(maps).double()
    hop[hop == 0] = torch.nan  # no pathway: left blank
    _image(pairs, hop.cpu().numpy(), "input", "output", "dominant hop")
    units = new_axes(None, 6.0, 3.5)
    _image(units, result.share.cpu().numpy(), "hidden unit", "hop", "share of |pathway mass|")
    first = int(hops[-1]) - len(result.share) + 1
    ticks = np.unique(np.linspace(0, len(result.share) - 1, 6).astype(int))
    units.set_yticks(ticks, [str(first + t) for t in ticks])
    return {"influence": influence.figure, "dominant_hop": pairs.figure, "unit_flow": units.figure}


def _image(axes: Any, values: np.ndarray, x: str, y: str, label: str) -> None:
    picture = axes.imshow(values, aspect="auto", interpolation="nearest", cmap="viridis")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.figure.colorbar(picture, ax=axes, label=label)


__all__ = ["analysis_figures", "new_axes", "plot_null", "plot_pseudospectrum", "plot_spectrum"]
