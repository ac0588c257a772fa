"""Dots with intervals: every method on every task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hoplens.plots.curves import LOG_FROM, log_axis
from hoplens.plots.frames import check_frame
from hoplens.plots.style import (
    COLUMN,
    FONT,
    INK,
    MUTED,
    RULE,
    SMALL,
    method_legend,
    method_order,
    method_styles,
    name_axes,
    new_axes,
    plain,
    quiet,
)
from hoplens.studies.measures import measure_info

if TYPE_CHECKING:
    import pandas as pd

ROW = 0.12  # inches
HEAD = 1.5  # rows that a task's name takes


def plot_comparison(summary: pd.DataFrame, measure: str, *, ax: Axes | None = None) -> Axes:
    """Draw a dot with its 95 % interval for every method, task by task.

    Where the frame holds the tasks' own numbers (``target_active_hops`` for ``active_hops``), a line
    marks them.

    Parameters
    ----------
    summary : DataFrame
        One row a task and method: task, method, the measure, and its bounds ``<measure>_low`` and
        ``<measure>_high``; or what `hoplens.statistics.compare` returned for this measure, whose columns are
        called mean, low and high, and which has no task where it compared all rows at once.
    measure : str
        A column, e.g. ``test_error``; one that was registered with a ``plot`` is drawn by that.
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
        For a frame without rows.
    """
    own = measure_info(measure).plot
    if own is not None:
        drawn: Axes = own(summary, ax=ax)
        return drawn
    low, high = f"{measure}_low", f"{measure}_high"
    summary = _from_compare(summary, measure)
    check_frame(summary, ["task", "method", measure, low, high])
    methods = method_order(summary["method"])
    tasks = list(dict.fromkeys(summary["task"]))
    axes = ax
    if axes is None:
        axes = new_axes(COLUMN, comparison_height(len(tasks), len(methods)))
        method_legend(axes, methods, lines=False)
    quiet(axes, grid="x")
    axes.spines["left"].set_visible(False)
    if _wants_log(summary, measure):
        log_axis(axes, "x")
    step = len(methods) + HEAD
    for t, task in enumerate(tasks):
        rows = summary[summary["task"] == task]
        _task_name(axes, str(task), t * step, first=t == 0)
        _dots(axes, rows, measure, methods, t * step + HEAD)
        target = f"target_{measure}"
        if target in rows.columns and np.isfinite(rows[target].iloc[0]):
            axes.vlines(
                rows[target].iloc[0],
                t * step + HEAD - 0.4,
                (t + 1) * step - 0.5,
                color=INK,
                linewidth=0.9,
                linestyle=(0, (1.5, 1.5)),
            )
    axes.set_ylim(len(tasks) * step - 0.2, -0.4)
    axes.set_yticks([])
    if _wants_log(summary, measure):
        log_axis(axes, "x")  # again: now the view is known, and with it how many numbers it needs
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        if measure_info(measure).better in ("lower", "target"):  # counts and errors start at 0
            axes.set_xlim(left=0)
    name_axes(axes, measure_info(measure).label, "")
    return axes


def _from_compare(frame: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return a table of `compare` with the columns of a summary; any other frame as it is."""
    if measure in frame.columns or not {"method", "mean", "low", "high", "difference"} <= set(frame.columns):
        return frame
    found = frame.rename(columns={"mean": measure, "low": f"{measure}_low", "high": f"{measure}_high"})
    if "task" in found.columns:
        return found
    keys = list(found.columns[: found.columns.get_loc("method")])
    labels = [
        ", ".join(f"{name} {value}" for name, value in zip(keys, row, strict=True))
        for row in found[keys].itertuples(index=False)
    ]
    return found.assign(task=labels if keys else "")


def comparison_height(tasks: int, methods: int) -> float:
    """Return the height in inches at which every row has room."""
    return 0.75 + ROW * tasks * (methods + HEAD)


def _wants_log(summary: pd.DataFrame, measure: str) -> bool:
    values = summary[measure].to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    bounds = summary[f"{measure}_low"].to_numpy(dtype=float)
    if measure_info(measure).better != "lower" or not len(values) or min(values.min(), *bounds) <= 0:
        return False
    return bool(values.max() > LOG_FROM / 2 * values.min())


def _task_name(ax: Axes, task: str, top: float, *, first: bool) -> None:
    if not first:
        ax.axhline(top - 0.1, color=RULE, linewidth=0.6)
    ax.text(
        0.0,
        top + HEAD / 2 - 0.2,
        plain(task),
        transform=ax.get_yaxis_transform(),
        va="center",
        fontsize=FONT,
        color=INK,
    )


def _dots(ax: Axes, rows: pd.DataFrame, measure: str, methods: list[str], top: float) -> None:
    for method, style in method_styles(methods).items():
        own = rows[rows["method"] == method]
        if not len(own):
            continue
        y = top + methods.index(method)
        value, low, high = (float(own[f"{measure}{end}"].iloc[0]) for end in ("", "_low", "_high"))
        if not np.isfinite(value):
            ax.text(
                1.0,
                y,
                "no number: all networks diverged",
                transform=ax.get_yaxis_transform(),
                ha="right",
                va="center",
                fontsize=SMALL - 1,
                color=MUTED,
            )
            continue
        if np.isfinite(low) and np.isfinite(high):  # one network alone has no interval
            ax.hlines(y, low, high, color=style.color, linewidth=1.3)
        ax.plot(value, y, marker=style.marker, markersize=4.2, color=style.color, markeredgewidth=0)
