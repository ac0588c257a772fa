"""Curves of a study: error over strength, performance over pruning, error over lag."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from hoplens.errors import ParameterError
from hoplens.plots.frames import Interval, pruning_points, reach_points, sweep_points
from hoplens.plots.style import (
    COLUMN,
    MUTED,
    PAPER_WHITE,
    SMALL,
    MethodStyle,
    method_legend,
    method_styles,
    name_axes,
    new_axes,
    quiet,
)
from hoplens.studies.measures import kept_columns, measure_info

if TYPE_CHECKING:
    import pandas as pd

HEIGHT = 2.5
LOG_FROM = 20.0  # a measure that spans more than this factor is drawn on a log scale
CHANCE = {"test_error": (1.0, "predicts the mean"), "accuracy": (0.5, "guesses")}
Points = dict[str, list[tuple[float, Interval]]]


def plot_strength_sweep(networks: pd.DataFrame, measure: str, *, ax: Axes | None = None) -> Axes:
    """Draw a measure over the strength of the penalty, one line a method.

    Points are means over seeds, bands 95 % bootstrap intervals of the mean. Seeds of role "report" are
    used where they cover every method and strength, else all seeds. A method of one strength 0 (no
    penalty) is a dashed line across. A hollow marker means that some networks diverged there; the mean is
    that of the others.

    Parameters
    ----------
    networks : DataFrame
        One row a network of one task: method, strength, the measure, and role if there are several.
    measure : str
        A column, e.g. ``test_error``.
    ax : Axes, optional
        Where, without legend; default a new figure with one.

    Returns
    -------
    Axes

    Raises
    ------
    UnknownNameError
        For a column that does not exist.
    ParameterError
        For a frame without rows, or with several tasks.
    """
    points = sweep_points(networks, measure)
    strengths = [x for line in points.values() for x, _ in line if x > 0]
    axes = _axes(ax, points)
    if strengths:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: power_of_ten(x)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    if len(set(strengths)) == 1:  # one strength alone would leave a log axis without extent
        axes.set_xlim(strengths[0] / 3, strengths[0] * 3)
    for method, style in method_styles(points).items():
        if [x for x, _ in points[method]] == [0.0] and strengths:
            _across(axes, points[method][0][1], style)
        else:
            _line(axes, [pair for pair in points[method] if pair[0] > 0 or not strengths], style)
    _value_scale(axes, points, measure)
    name_axes(axes, "strength", measure_info(measure).label)
    return axes


def plot_pruning(networks: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the performance kept against the share of recurrent weights removed, one line a method.

    Each method is shown at the strength with the least mean error on seeds of role "validation"; points
    are means over seeds of role "report" and bands their 95 % bootstrap intervals. Without roles all rows
    serve for both.

    Parameters
    ----------
    networks : DataFrame
        One row a network of one task: method, strength and ``kept_10`` .. ``kept_90``; and test_error where
        a method has several strengths, and role if there are several.
    ax : Axes, optional
        Where, without legend; default a new figure with one.

    Returns
    -------
    Axes

    Raises
    ------
    ParameterError
        For a frame without rows or ``kept_`` columns, with several tasks, or with several strengths and
        nothing to choose one by.
    """
    columns = kept_columns(map(str, networks.columns))
    if not columns:
        raise ParameterError("pruning needs columns kept_10 .. kept_90, but the frame has none of them")
    points = pruning_points(networks, columns)
    axes = _axes(ax, points)
    for method, style in method_styles(points).items():
        nothing_removed = (0.0, Interval(1.0, 1.0, 1.0, points[method][0][1].n, 0))
        _line(axes, [nothing_removed, *points[method]], style)
    axes.set_xlim(-2, 100)
    axes.set_xticks([0, 20, 40, 60, 80, 100])
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), max(1.04, axes.get_ylim()[1]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f}"))
    name_axes(axes, "recurrent weights removed (%)", "performance kept (%)")
    return axes


def plot_reach(reach: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the test error against the lag of the signal, one line a method.

    At each lag every method is shown at a strength chosen as `plot_pruning` chooses it; bands are 95 %
    bootstrap intervals.

    Parameters
    ----------
    reach : DataFrame
        One row a network: method, lag, strength, test_error, and role if there are several.
    ax : Axes, optional
        Where, without legend; default a new figure with one.

    Returns
    -------
    Axes

    Raises
    ------
    UnknownNameError
        For a column that does not exist.
    ParameterError
        For a frame without rows, or with several strengths and nothing to choose one by.
    """
    points = reach_points(reach)
    axes = _axes(ax, points)
    for method, style in method_styles(points).items():
        _line(axes, points[method], style)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    _value_scale(axes, points, "test_error")
    name_axes(axes, "lag of the signal (time steps)", measure_info("test_error").label)
    return axes


def _axes(ax: Axes | None, points: Points) -> Axes:
    axes = ax
    if axes is None:
        axes = new_axes(COLUMN, HEIGHT)
        method_legend(axes, points, lines=True)
    quiet(axes, grid="y")
    return axes


def _line(ax: Axes, line: list[tuple[float, Interval]], style: MethodStyle) -> None:
    line = [pair for pair in line if np.isfinite(pair[1].mean)]
    if not line:
        return
    x = [at for at, _ in line]
    ax.fill_between(
        x, [p.low for _, p in line], [p.high for _, p in line], color=style.color, alpha=0.16, lw=0
    )
    ax.plot(x, [p.mean for _, p in line], color=style.color, linewidth=1.3, solid_capstyle="round")
    for whole, face in ((True, style.color), (False, PAPER_WHITE)):
        shown = [(at, p.mean) for at, p in line if (p.lost == 0) is whole]
        if shown:
            ax.plot(
                *zip(*shown, strict=True),
                linestyle="none",
                marker=style.marker,
                markersize=4,
                markerfacecolor=face,
                markeredgecolor=style.color,
                markeredgewidth=0.9,
            )


def _across(ax: Axes, point: Interval, style: MethodStyle) -> None:
    if np.isfinite(point.mean):
        ax.axhspan(point.low, point.high, color=style.color, alpha=0.12, lw=0)
        ax.axhline(point.mean, color=style.color, linewidth=1.1, linestyle=(0, (4, 2)))


def _value_scale(ax: Axes, points: Points, measure: str) -> None:
    """Choose a linear or a log axis for a measure and mark what chance reaches."""
    values = np.array([p.mean for line in points.values() for _, p in line])
    values = values[np.isfinite(values)]
    if measure_info(measure).better == "lower" and len(values) and values.min() > 0:
        if values.max() > LOG_FROM * values.min():
            log_axis(ax, "y")
        else:
            ax.set_ylim(bottom=0)
    if measure in CHANCE and len(values):
        level, text = CHANCE[measure]
        low, high = ax.get_ylim()
        if low < level < 1.3 * high:
            ax.axhline(level, color=MUTED, linewidth=0.7, linestyle=":")
            ax.annotate(
                text,
                (1.0, level),
                xycoords=("axes fraction", "data"),
                xytext=(0, 2),
                textcoords="offset points",
                ha="right",
                fontsize=SMALL - 1,
                color=MUTED,
            )


def power_of_ten(value: float) -> str:
    """Write a power of ten as plain text, which needs no formula to be set; other numbers as they are."""
    exponent = math.log10(value) if value > 0 else math.nan
    if exponent != round(exponent):
        return f"{value:g}"
    digits = str(round(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{digits}"


def log_axis(ax: Axes, which: str) -> None:
    """Give an axis a log scale with plain numbers, more of them the fewer decades are seen."""
    axis = ax.yaxis if which == "y" else ax.xaxis
    (ax.set_yscale if which == "y" else ax.set_xscale)("log")
    low, high = sorted(axis.get_view_interval())
    span = high / low
    subs = (1.0, 2.0, 5.0) if span < 30 else (1.0, 3.0) if span < 1000 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
