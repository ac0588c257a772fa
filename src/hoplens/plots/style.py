"""One look for all figures: methods by name, colour and marker, quiet axes, and files fit for print."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure

from hoplens.errors import check_choice
from hoplens.files import write_atomically
from hoplens.text import printable, printable_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

METHODS = ("none", "L2", "L1", "paper", "recommended")
OURS = "recommended"
PAPER = "paper"
REFERENCES = ("L1", PAPER)  # what the recommended recipe has to beat

INK = "#1c2024"
MUTED = "#616a75"
RULE = "#dadfe5"
PAPER_WHITE = "#ffffff"
NEGATIVE = "#1f63a8"
POSITIVE = "#bf4208"
FONT = 8.0  # points; legible in a column of 3.3 inches
SMALL = 7.0
COLUMN = 3.35  # inches, the width of a journal column
PAGE = 7.0
LONGEST_NAME = 18  # letters; longer ones would leave no room for the picture
HALF = 100  # colours either side of zero
RASTER_DPI = 300


@dataclass(frozen=True)
class MethodStyle:
    """How a method looks in every figure: a colour and, for readers who see no colours, a marker."""

    color: str
    marker: str


# Okabe and Ito's palette: weight penalties warm, pathway penalties cool, no penalty grey
KNOWN_STYLES = {
    "none": MethodStyle("#7a828c", "s"),
    "L2": MethodStyle("#e69f00", "v"),
    "L1": MethodStyle("#d55e00", "^"),
    "paper": MethodStyle("#0072b2", "D"),
    "recommended": MethodStyle("#009e73", "o"),
}
OTHER_STYLES = (
    MethodStyle("#56b4e9", "P"),
    MethodStyle("#cc79a7", "X"),
    MethodStyle("#332288", "h"),
    MethodStyle("#999933", "p"),
    MethodStyle("#882255", "<"),
    MethodStyle("#44aa99", ">"),
    MethodStyle("#5d4b3c", "d"),
)
# groups of hidden units: told apart by place and name too, so that hue is never all there is
GROUP_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def method_label(method: str) -> str:
    """Return the name of a method as readers see it."""
    return "no penalty" if method == "none" else method


def method_order(methods: Iterable[str]) -> list[str]:
    """Return the distinct methods: the known ones in their fixed order, then the others as they came."""
    distinct = list(dict.fromkeys(str(method) for method in methods))
    return [m for m in METHODS if m in distinct] + [m for m in distinct if m not in METHODS]


def method_styles(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """Return colour and marker of each method.

    The methods of a study always look the same; others take the further styles in the order in which they
    come, beginning anew after the last.
    """
    others = itertools.cycle(OTHER_STYLES)
    return {m: KNOWN_STYLES[m] if m in KNOWN_STYLES else next(others) for m in method_order(methods)}


def _diverging() -> ListedColormap:
    # Straight mixes with white, so that a page can show them on any ground as one colour and an opacity.
    share = np.linspace(1.0, 0.0, HALF, endpoint=False)[:, None]
    white = np.ones(3)
    below = share * np.array(to_rgb(NEGATIVE)) + (1 - share) * white
    above = share * np.array(to_rgb(POSITIVE)) + (1 - share) * white
    return ListedColormap(np.concatenate([below, white[None], above[::-1]]), name="hoplens_diverging")


DIVERGING = _diverging()


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of its own, sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained", facecolor=PAPER_WHITE)


def new_axes(width: float, height: float) -> Axes:
    """Return the axes of a new figure of its own, sizes in inches."""
    return new_figure(width, height).subplots()


def quiet(ax: Axes, *, grid: str = "") -> None:
    """Draw no more frame than is needed: two muted spines, small ticks, a faint grid along ``grid``."""
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)
        spine.set_linewidth(0.6)
    ax.tick_params(colors=MUTED, labelcolor=INK, labelsize=SMALL, width=0.6, length=2.5)
    ax.tick_params(which="minor", color=MUTED, width=0.4, length=1.5, labelsize=SMALL, labelcolor=INK)
    ax.set_axisbelow(True)
    ax.set_facecolor(PAPER_WHITE)
    if grid:
        ax.grid(True, axis=grid, color=RULE, linewidth=0.5)  # type: ignore[arg-type]


def name_axes(ax: Axes, x: str, y: str) -> None:
    """Set the axis labels."""
    ax.set_xlabel(plain(x), fontsize=FONT, color=INK)
    ax.set_ylabel(plain(y), fontsize=FONT, color=INK)


def name_panel(ax: Axes, title: str) -> None:
    """Set a small title, flush left."""
    if title:
        ax.set_title(plain(title), loc="left", fontsize=FONT, color=INK, pad=6)


def name_cells(ax: Axes, input_names: Sequence[str], output_names: Sequence[str]) -> None:
    """Name the columns and rows of a map; of more than 40 every second, third, ... one."""
    for names, set_ticks in ((input_names, ax.set_xticks), (output_names, ax.set_yticks)):
        shown = range(0, len(names), -(-len(names) // 40))
        set_ticks([n + 0.5 for n in shown], [short(names[n]) for n in shown])
    ax.tick_params(length=0)
    if max(len(str(name)) for name in input_names) > 2:
        ax.tick_params(axis="x", labelrotation=90)
    name_axes(ax, "input", "output")


def colour_bar(mesh: Any, label: str = "", **place: Any) -> Any:
    """Return a quiet scale of a map's colours, beside its axes unless ``place`` says where."""
    if "cax" not in place:
        place = {"ax": mesh.axes, "aspect": 18, "pad": 0.02, **place}
    bar = mesh.axes.figure.colorbar(mesh, **place)
    if bar.solids is not None:
        bar.solids.set_rasterized(False)  # matplotlib embeds long scales as pixels in vector files
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL, labelcolor=INK, length=0)
    bar.set_label(label, fontsize=SMALL, color=MUTED)
    return bar


LEGEND: dict[str, Any] = {
    "frameon": False,
    "fontsize": SMALL,
    "labelcolor": INK,
    "handlelength": 1.6,
    "columnspacing": 1.2,
    "borderaxespad": 0.3,
}


def method_handles(methods: Iterable[str], *, lines: bool) -> list[Line2D]:
    """Return what a legend shows for each method."""
    from matplotlib.lines import Line2D

    return [
        Line2D(
            [],
            [],
            color=style.color,
            marker=style.marker,
            linestyle="-" if lines else "none",
            linewidth=1.3,
            markersize=4,
            label=plain(method_label(method)),
        )
        for method, style in method_styles(methods).items()
    ]


def method_legend(ax: Axes, methods: Iterable[str], *, lines: bool) -> None:
    """Put rows of method names above the axes."""
    handles = method_handles(methods, lines=lines)
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=min(3, len(handles)), **LEGEND
    )


def plain(text: object) -> str:
    """Return text as matplotlib must write it to show it as it is.

    A dollar sign starts no formula, and control characters, which no SVG file may hold, show their codes.
    """
    return printable_lines(str(text)).replace("$", r"\$")


def short(label: object) -> str:
    """Return a name that fits beside a picture; cut in the middle, as the number often comes last."""
    text = printable(label, most=10 * LONGEST_NAME)
    if len(text) > LONGEST_NAME:
        tail = LONGEST_NAME // 2 - 1
        text = f"{text[: LONGEST_NAME - 1 - tail]}…{text[-tail:]}"
    return plain(text)


def save_figure(fig: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure to a file, with its fonts inside, whole or not at all.

    Vector files hold all that is needed to look the same everywhere: PDF and PS embed the fonts as
    TrueType (type 42, which journals ask for), SVG holds the letters as outlines. The same figure gives
    the same bytes each time. PNG is written at 300 dots an inch.

    Parameters
    ----------
    fig : Figure
        What to write, e.g. ``ax.figure``.
    path : path
        Target; its suffix (.pdf, .svg, .eps or .png) names the format.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    UnknownNameError
        For another suffix.
    FileError
        If the file cannot be written; an existing one then stays as it was.
    """
    target = Path(path)
    kind = check_choice("figure format", target.suffix.lstrip(".").lower(), ("pdf", "svg", "eps", "png"))
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    embedded: Any = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "hoplens"}
    data = io.BytesIO()
    with matplotlib.rc_context(embedded):
        fig.savefig(data, format=kind, dpi=RASTER_DPI, metadata=undated)
    return write_atomically(target, data.getvalue())
