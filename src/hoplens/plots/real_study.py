"""One picture of the study on real sequences: error, error when pruned, active hops, set by set."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hoplens.plots.style import (
    FONT,
    INK,
    LEGEND,
    MUTED,
    PAGE,
    PAPER_WHITE,
    RULE,
    SMALL,
    method_handles,
    method_styles,
    name_axes,
    plain,
    quiet,
)
from hoplens.studies.statistics.purposes import BEST, LEAN, OURS, PRUNED, REFERENCE, SPARSE

SHOWN = ("none", "L1", "dropout", "paper", OURS, SPARSE)
ROW = 0.5  # inches a set
# pick, measure, axis label, whether it is a multiple of the reference's test error
PANELS = (
    (BEST, "test_error", "test error / that of L1", True),
    (PRUNED, "test_error_90", "90 % of recurrent weights removed:\ntest error / that of L1 unpruned", True),
    (LEAN, "flow_hops", "active hops of the flow,\nnetworks as good as L1", False),
)


def plot_real_summary(summary: pd.DataFrame) -> Figure:
    """Draw means with 95 % intervals of every method on every set, in three panels.

    Left: test error, relative to L1's. Middle: the same with 90 % of the recurrent weights removed, each
    method at the strength chosen for that. Right: active hops of each method's leanest network that is as
    good as L1 on validation.
    """
    tasks = list(dict.fromkeys(summary["task"]))
    methods = [method for method in SHOWN if method in set(summary["method"])]
    figure = Figure(figsize=(PAGE, 1.3 + ROW * len(tasks)), layout="constrained", facecolor=PAPER_WHITE)
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (pick, measure, label, relative) in zip(panels, PANELS, strict=True):
        _panel(axes, summary, tasks, methods, pick, measure, relative=relative)
        name_axes(axes, label, "")
    panels[0].set_yticks(range(len(tasks)), [plain(task) for task in tasks], fontsize=FONT, color=INK)
    panels[0].set_ylim(len(tasks) - 0.4, -0.6)
    figure.legend(handles=method_handles(methods, lines=False), loc="outside upper left", ncols=5, **LEGEND)
    return figure


def _panel(
    axes: Axes,
    summary: pd.DataFrame,
    tasks: list[str],
    methods: list[str],
    pick: str,
    measure: str,
    *,
    relative: bool,
) -> None:
    quiet(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    if measure != "test_error":  # whole networks differ little: no need for a logarithm
        axes.set_xscale("log")
    styles = method_styles(methods)
    for t, task in enumerate(tasks):
        own = summary[(summary["task"] == task) & (summary["pick"] == pick)].set_index("method")
        base = summary[(summary["task"] == task) & (summary["pick"] == BEST)].set_index("method")
        unit = base["test_error"].get(REFERENCE, np.nan) if relative else 1.0
        if t:
            axes.axhline(t - 0.5, color=RULE, linewidth=0.6)
        for m, method in enumerate(methods):
            if method not in own.index:
                continue
            value, low, high = (own[f"{measure}{end}"][method] / unit for end in ("", "_low", "_high"))
            y = t + (m - (len(methods) - 1) / 2) * 0.7 / len(methods)
            if np.isfinite(low) and low > 0:
                axes.hlines(y, low, high, color=styles[method].color, linewidth=1.2)
            if value > 0:
                style = styles[method]
                axes.plot(value, y, style.marker, color=style.color, markersize=3.8, markeredgewidth=0)
    if relative:
        axes.axvline(1.0, color=MUTED, linewidth=0.7, linestyle=(0, (2, 2)))
    if axes.get_xscale() == "log":
        _few_ticks(axes)


def _few_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelsize=SMALL)


__all__ = ["plot_real_summary"]
