"""What smaller costs: the score against size and against latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.lines import Line2D

from hoplens.errors import check_choice
from hoplens.plots.style import (
    INK,
    MUTED,
    OTHER_STYLES,
    PAGE,
    RULE,
    SMALL,
    name_axes,
    new_figure,
    plain,
    quiet,
)
from hoplens.studies.statistics.fronts import front_points

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    fig = new_figure(PAGE, HEIGHT)
    left, right = fig.subplots(1, 2, sharey=True)
    _panel(left, candidates, "size", forms)
    _panel(right, candidates, "ms", forms)
    left.set_xscale("log")
    ticks = [tick for tick in TICKS if tick >= float(candidates["size"].min()) / 2]
    left.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])
    left.minorticks_off()
    slowest = float(candidates["ms"].max())
    right.set_xlim(0.0, 1.06 * slowest if slowest > 0 else 1.0)  # room for the marker of the slowest
    if target_size is not None:
        left.axvline(target_size, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    name_axes(left, "size of the file, share of the given model's", score)
    name_axes(right, "one sequence, ms", "")
    handles = [_sign(s.color, s.marker, form) for form, s in zip(forms, OTHER_STYLES, strict=False)]
    handles += [_sign(INK, "x", "as given", size=5), _sign(INK, "o", "chosen", size=8, fill="none")]
    fig.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=SMALL)
    return fig


def _sign(color: str, marker: str, label: str, *, size: int = 4, fill: str | None = None) -> Line2D:
    """Return an entry of the legend."""
    look = {"linestyle": "none", "markersize": size, "markerfacecolor": fill or color}
    return Line2D([], [], color=color, marker=marker, label=plain(label), **look)  # type: ignore[arg-type]


def _panel(ax: Axes, candidates: pd.DataFrame, x: str, forms: list[str]) -> None:
    quiet(ax, grid="y")
    rest = candidates.iloc[1:]
    for form, style in zip(forms, OTHER_STYLES, strict=False):
        rows = rest[rest["form"] == form]
        ax.scatter(
            rows[x], rows["score"], s=14, color=style.color, marker=style.marker, linewidths=0, zorder=3
        )
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
