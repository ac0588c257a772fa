"""What a training run looked like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hoplens.analysis.hops import hop_maps
from hoplens.plots.curves import log_axis
from hoplens.plots.maps import plot_hops
from hoplens.plots.style import (
    COLUMN,
    method_legend,
    method_styles,
    name_axes,
    name_panel,
    new_figure,
    quiet,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hoplens.training.result import TrainingResult

SMOOTH = 50  # losses are drawn as means of a so-manieth of the training


def plot_training(result: TrainingResult, n: int) -> Figure:
    """Draw the training losses of all networks, and the hop maps of network ``n``."""
    figure = new_figure(2 * COLUMN, 2.6)
    left, right = figure.subplots(1, 2)
    methods = result.metrics["method"].astype(str)
    styles = method_styles(methods)
    losses = result.losses.double().cpu().numpy()
    width = max(1, len(losses) // SMOOTH)
    rows = losses[: len(losses) // width * width].reshape(-1, width, losses.shape[1]).mean(axis=1)
    steps = (np.arange(len(rows)) + 0.5) * width
    for column, method in enumerate(methods):
        left.plot(steps, rows[:, column], color=styles[method].color, linewidth=0.9)
    quiet(left, grid="y")
    if np.nanmin(losses) > 0:
        log_axis(left, "y")
    name_axes(left, "training step", "loss without penalty")
    method_legend(left, methods, lines=True)
    plot_hops(hop_maps(result.pathways[n], result.length), ax=right)
    error = result.metrics["test_error"].iloc[n]
    name_panel(right, f"{methods.iloc[n]}, network {n}: test error {error:.3g}")
    return figure


__all__ = ["plot_training"]
