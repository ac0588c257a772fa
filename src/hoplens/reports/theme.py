"""Colours of the page in light and dark mode, and the marks of its legends."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path as Outline

from hoplens.plots.style import (
    GROUP_COLORS,
    INK,
    KNOWN_STYLES,
    MUTED,
    NEGATIVE,
    OTHER_STYLES,
    POSITIVE,
    RULE,
    MethodStyle,
)

LIGHT = {
    "ground": "#fdfdfb",
    "panel": "#f5f6f4",
    "ink": INK,
    "muted": MUTED,
    "rule": RULE,
    "negative": NEGATIVE,
    "positive": POSITIVE,
    "good": "#00714f",
    "bad": "#b3460a",
    "link": "#0b5c94",
    "strong": "#4a2a86",
    "faint": "#c3c9d2",
}
DARK = {
    "ground": "#14171a",
    "panel": "#1b1f23",
    "ink": "#e4e7ea",
    "muted": "#9ba4ae",
    "rule": "#30363d",
    "negative": "#62a8ee",
    "positive": "#ff8b4e",
    "good": "#3ec99b",
    "bad": "#ff9a5c",
    "link": "#72b7ea",
    "strong": "#c9adff",
    "faint": "#454e58",
}
# the same hues, light enough to stand out from a dark ground
DARK_METHODS = {
    "#7a828c": "#a4acb6",
    "#e69f00": "#f7c552",
    "#d55e00": "#f26a1b",
    "#0072b2": "#3f9de0",
    "#009e73": "#2cc596",
    "#56b4e9": "#9ad6f7",
    "#cc79a7": "#e79bc5",
    "#332288": "#8f84e4",
    "#999933": "#c6c65c",
    "#882255": "#c9588f",
    "#44aa99": "#74d3c4",
    "#5d4b3c": "#b9a08b",
}
CODES = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C"}


def variables(*, dark: bool) -> Markup:
    """Return the CSS declarations of all colours of a mode."""
    colours = dict(DARK if dark else LIGHT)
    for style in [*KNOWN_STYLES.values(), *OTHER_STYLES]:
        name = colour_variable(style.color)[len("var(--") : -1]
        colours[name] = DARK_METHODS[style.color] if dark else style.color
    return Markup("".join(f"--{name}:{value};" for name, value in colours.items()))


def script_colours(*, dark: bool) -> dict[str, Any]:
    """Return the colours of a mode for the page's scripts: by name, of methods, and of groups of units."""
    styles = [*KNOWN_STYLES.values(), *OTHER_STYLES]
    return {
        **(DARK if dark else LIGHT),
        "methods": {style.color: DARK_METHODS[style.color] if dark else style.color for style in styles},
        "groups": [DARK_METHODS[color] if dark else color for color in GROUP_COLORS],
    }


def mark(style: MethodStyle) -> Markup:
    """Return a method's marker as a small ``<svg>``: the same shape and colour as in the figures."""
    return Markup(
        '<svg class="mark" viewBox="-6 -6 12 12" aria-hidden="true"><path d="{}" fill="{}"/></svg>'
    ).format(outline(style), colour_variable(style.color))


def outline(style: MethodStyle) -> str:
    """Return a method's marker as the data of an SVG path, in a box from -5 to 5."""
    marker = MarkerStyle(style.marker)
    path = marker.get_path().transformed(marker.get_transform())
    size = np.abs(np.asarray(path.vertices, dtype=float)).max()
    parts = []
    for vertices, code in path.iter_segments():
        letter = "z" if code == Outline.CLOSEPOLY else CODES[code]
        # SVG's y axis points down
        points = [] if letter == "z" else [f"{v * (-1) ** n / size * 5:.2f}" for n, v in enumerate(vertices)]
        parts.append(letter + " ".join(points))
    return "".join(parts)


def colour_variable(color: str) -> str:
    """Return the CSS value of a method's colour."""
    return f"var(--c-{color.lstrip('#')})"
