"""Figures of pathways and of studies, with matplotlib and without its global state.

Every function draws into the ``ax`` given or makes a new figure of its own, and returns what it drew
into. Nothing is shown and no global setting changes; `save_figure` writes files fit for print.
"""

from hoplens.plots.comparison import plot_comparison
from hoplens.plots.compression import plot_compression
from hoplens.plots.curves import plot_pruning, plot_reach, plot_strength_sweep
from hoplens.plots.graphs import plot_paths, plot_routing_graph, plot_spectrum
from hoplens.plots.maps import plot_hop_grid, plot_hops, plot_map
from hoplens.plots.style import save_figure

__all__ = [
    "plot_comparison",
    "plot_compression",
    "plot_hop_grid",
    "plot_hops",
    "plot_map",
    "plot_paths",
    "plot_pruning",
    "plot_reach",
    "plot_routing_graph",
    "plot_spectrum",
    "plot_strength_sweep",
    "save_figure",
]
