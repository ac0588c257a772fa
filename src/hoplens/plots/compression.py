"""What smaller costs: the score against size and against latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hoplens.errors import check_choice
from hoplens.plots.style import (
    INK,
    MUTED,
    OTHER_STYLES,
    PAGE,
    PAPER_WHITE,
    RULE,
    SMALL,
    name_axes,
    plain,
    quiet,
)
from hoplens.studies.statistics.fronts import front_points

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

HEIGHT = 3.0  # inches
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
RING = 90.0  # points squared, around the chosen one
COLUMNS = ("form", "size", "ms", "score", "chosen")


def plot_compression(
    candidates: pd.DataFrame, *, score: str = "accuracy", target_size: float | None = None
) -> Figure:
    """Draw candidates of a compression: score against size, and score against latency.

    A line links those that no other beats in both. The chosen one has a ring; the first row is the model as
    given, a cross.

    Parameters
    ----------
    candidates : DataFrame
        One row a candidate: form (of the weights), size (share of the bytes), ms (of one sequence), score,
        and chosen (bool).
    score : str, default "accuracy"
        What the score is called.
    target_size : float, optional
        Drawn as a line.

    Returns
    -------
    Figure

    Raises
    ------
    UnknownNameError
        If a column is missing.
    """
    for column in COLUMNS:
        check_choice("column", column, candidates.columns)
    forms = list(dict.fromkeys(candidates["form"]))
    fig = Figure(figsize=(PAGE, HEIGHT), layout="constrained", facecolor=PAPER_WHITE)
    left, right = fig.subplots(1, 2, sharey=True)
    _panel(left, candidates, "size", forms)
    _panel(right, candidates, "ms", forms)
    left.set_xscale("log")
    least = float(candidates["size"].min())
    ticks = [tick for tick in TICKS if tick >= least / 2]
    left.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])
    left.minorticks_off()
    slowest = float(candidates["ms"].max())
    right.set_xlim(0.0, 1.06 * slowest if slowest > 0 else 1.0)  # room for the marker of the slowest
    if target_size is not None:
        left.axvline(target_size, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    name_axes(left, "size of the ONNX file, share of the given model's", score)
    name_axes(right, "one sequence in onnxruntime, ms", "")
    handles = [
        Line2D([], [], color=s.color, marker=s.marker, linestyle="none", markersize=4, label=plain(form))
        for form, s in zip(forms, OTHER_STYLES, strict=False)
    ]
    handles += [
        Line2D([], [], color=INK, marker="x", linestyle="none", markersize=5, label="as given"),
        Line2D(
            [],
            [],
            color=INK,
            marker="o",
            markerfacecolor="none",
            linestyle="none",
            markersize=8,
            label="chosen",
        ),
    ]
    fig.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=SMALL)
    return fig


def _panel(ax: Axes, candidates: pd.DataFrame, x: str, forms: list[str]) -> None:
    quiet(ax, grid="y")
    rest = candidates.iloc[1:]
    for form, style in zip(forms, OTHER_STYLES, strict=False):
        own = rest[rest["form"] == form]
        ax.scatter(own[x], own["score"], s=14, color=style.color, marker=style.marker, linewidths=0, zorder=3)
    first = candidates.iloc[:1]
    ax.scatter(first[x], first["score"], s=28, color=INK, marker="x", linewidths=1.2, zorder=4)
    front = front_points([[a, -b] for a, b in candidates[[x, "score"]].to_numpy(float)])
    ax.plot(
        [a for a, _ in front],
        [-b for _, b in front],
        color=RULE,
        linewidth=1.2,
        drawstyle="steps-post",
        zorder=2,
    )
    chosen = candidates[candidates["chosen"]]
    ax.scatter(
        chosen[x], chosen["score"], s=RING, facecolors="none", edgecolors=INK, linewidths=1.0, zorder=5
    )


__all__ = ["plot_compression"]
