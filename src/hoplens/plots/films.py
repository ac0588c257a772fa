"""Hop maps in motion: the frames of training as one GIF, and single maps as small images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from hoplens.analysis.hops import HopMaps
from hoplens.plots.style import (
    DIVERGING,
    FONT,
    INK,
    PAPER_WHITE,
    RULE,
    colour_bar,
    name_axes,
    plain,
    quiet,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PAIRS = 60  # columns that can still be told apart
MOST_NAMES = 24  # names that fit below them
LAST_FRAME = 1500  # milliseconds
CELL = 8  # pixels a cell of a small image
COLOURS = 104  # of the map's scale in the GIF's palette; the rest are greys


def map_image(maps: HopMaps) -> NDArray[np.uint8]:
    """Return hop by pair in the colours of the figures, shape (8 K, 8 P, 3)."""
    values = maps.values.flatten(1).numpy()  # (K, P)
    limit = float(np.abs(values).max()) or 1.0
    colours = DIVERGING(0.5 + 0.5 * values / limit)[..., :3]
    return (255 * colours.repeat(CELL, 0).repeat(CELL, 1)).round().astype(np.uint8)


def film(
    maps: Sequence[HopMaps], titles: Sequence[str], done: Sequence[float], seconds: float, dpi: int
) -> bytes:
    """Return a GIF with a frame for each of the maps, all on one scale, and a bar of progress (0 .. 1)."""
    frames = np.stack([m.values.flatten(1).numpy() for m in maps])  # (F, K, P)
    size = np.abs(frames).max((0, 1))
    kept = np.sort(np.argsort(-size, kind="stable")[:MOST_PAIRS])
    frames = frames[:, :, kept]
    width = float(np.clip(2.6 + 0.16 * len(kept), 4.6, 9))
    height = float(np.clip(2.4 + 0.17 * frames.shape[1], 3, 6))
    figure = Figure(figsize=(width, height), facecolor=PAPER_WHITE, layout="constrained", dpi=dpi)
    canvas = FigureCanvasAgg(figure)
    ax, below = figure.subplots(2, 1, height_ratios=[12, 1])
    mesh = _draw_map(ax, maps[0], frames, kept, float(size.max()) or 1.0)
    below.set_axis_off()
    below.set(xlim=(0, 1), ylim=(-1, 1))
    below.plot([0, 1], [0, 0], color=RULE, linewidth=4, solid_capstyle="butt")
    (progress,) = below.plot([0, 0], [0, 0], color=INK, linewidth=4, solid_capstyle="butt")
    title = ax.set_title("", loc="left", fontsize=FONT, color=INK)
    images, palette = [], _palette()
    for frame, text, share in zip(frames, titles, done, strict=True):
        mesh.set_array(frame)
        progress.set_data([0, share], [0, 0])
        title.set_text(plain(text))
        canvas.draw()  # type: ignore[no-untyped-call]
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
        # one palette for all frames: colours must not change their meaning
        images.append(Image.fromarray(pixels).quantize(128, palette=palette, dither=Image.Dither.NONE))
    hold = max(20, round(1000 * seconds / len(images)))
    times = [hold] * (len(images) - 1) + [max(hold, LAST_FRAME)]
    data = io.BytesIO()
    images[0].save(data, format="GIF", save_all=True, append_images=images[1:], duration=times, loop=0)
    return data.getvalue()


def _draw_map(ax: Axes, first: HopMaps, frames: NDArray[Any], kept: NDArray[Any], limit: float) -> Any:
    names = [f"{short(i)} \u2192 {short(o)}" for o in first.output_names for i in first.input_names]
    low = int(first.hops[0])
    edges = np.arange(len(kept) + 1) - 0.5, np.arange(len(first.hops) + 1) + low - 0.5
    mesh = ax.pcolormesh(*edges, frames[0], cmap=DIVERGING, norm=Normalize(-limit, limit))
    quiet(ax)
    ax.invert_yaxis()
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    note = "" if len(kept) == len(names) else f" ({len(kept)} strongest of {len(names)})"
    name_axes(ax, f"pair, input \u2192 output{note}", "hop length")
    shown = range(len(kept)) if len(kept) <= MOST_NAMES else ()
    ax.set_xticks(shown, [names[kept[j]] for j in shown], rotation=90)
    colour_bar(mesh, "weight")
    return mesh


def _palette() -> Image.Image:
    """Return an image of 128 colours that all frames can use: the map's scale and the greys of the frame."""
    scale = (255 * DIVERGING(np.linspace(0, 1, COLOURS))[:, :3]).round().astype(int)
    greys = np.linspace(0, 255, 128 - COLOURS).round().astype(int)[:, None].repeat(3, 1)
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([scale, greys]).flatten().tolist())
    return palette


__all__ = ["film", "map_image"]
