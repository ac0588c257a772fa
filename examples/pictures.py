"""What the examples on real sequences draw alike: lag curves of two methods, and effects as a heat map."""

from __future__ import annotations

from matplotlib.axes import Axes
from torch import Tensor

from hoplens.plots import style


def lag_shares(sizes: Tensor) -> Tensor:
    """Return the share of each lag in the summed size of maps (lags, O, I)."""
    size = sizes.abs().sum((1, 2))
    return size / size.sum()


def draw_lags(ax: Axes, lines: dict[str, Tensor], x: str, title: str) -> None:
    """Draw shares by lag: grey without penalty, green with; dotted where the weights alone say so."""
    styles = style.method_styles(("none", "recommended"))
    for name, values in lines.items():
        look = styles["none" if name.startswith("no") else "recommended"]
        dash = ":" if "weights" in name else "-"
        ax.plot(values.numpy(), dash, marker=look.marker, ms=3, lw=1.3, color=look.color, label=name)
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=style.SMALL, loc="upper center", labelspacing=0.25)
    style.quiet(ax, grid="y")
    style.name_axes(ax, x, "share of the influence")
    style.name_panel(ax, title)
    ax.tick_params(labelsize=style.SMALL)


def draw_heat(ax: Axes, values: Tensor, x: str, y: str, title: str) -> None:
    """Draw effects on a logit (rows, columns): white is none, orange raises, blue lowers."""
    limit = float(values.abs().max())
    mesh = ax.imshow(
        values.numpy(), cmap=style.DIVERGING, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
    )
    bar = ax.figure.colorbar(mesh, ax=ax, fraction=0.045, pad=0.02)
    bar.ax.set_title("logit", fontsize=style.SMALL)
    bar.ax.tick_params(labelsize=style.SMALL)
    bar.outline.set_visible(False)
    style.name_axes(ax, x, y)
    style.name_panel(ax, title)
    ax.tick_params(labelsize=style.SMALL)
