"""The wiring of Caenorhabditis elegans, shipped as an example."""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from hoplens.errors import check_choice

if TYPE_CHECKING:
    import networkx as nx

EDGES = ("chemical", "gap", "both")


def celegans(*, edges: str = "chemical", signed: bool = False) -> nx.DiGraph[Any]:
    """Return the somatic wiring of the adult hermaphrodite as a directed graph.

    280 neurons (83 sensory, 81 inter, 116 motor). Node attributes ``kind`` and ``gaba``; edge attribute
    ``weight``, the number of synapses from one neuron to another.

    Parameters
    ----------
    edges : {"chemical", "gap", "both"}
        Chemical synapses, gap junctions (both ways), or their sum.
    signed : bool, default False
        Count the synapses of GABA neurons as negative. A coarse reading: some GABA synapses excite, and
        receptors make others inhibit.

    Returns
    -------
    networkx.DiGraph

    Notes
    -----
    Source: Varshney et al., PLoS Computational Biology 7 (2011) e1001066, by way of the C. elegans
    Connectome Toolbox (MIT licence); see ``hoplens/data/README.md``.

    Examples
    --------
    >>> import hoplens as hl
    >>> worm = hl.data.celegans()
    >>> sensory, motor = ([n for n in worm if worm.nodes[n]["kind"] == kind] for kind in ("sensory", "motor"))
    >>> hl.read(worm, input_nodes=sensory, output_nodes=motor, attach=True).n_hidden
    280
    """
    import networkx as nx

    check_choice("edges", edges, EDGES)
    graph: nx.DiGraph[Any] = nx.DiGraph()
    for row in _rows("celegans_neurons.csv"):
        graph.add_node(row["neuron"], kind=row["kind"], gaba=row["gaba"] == "1")
    for row in _rows("celegans_synapses.csv"):
        sign = -1 if signed and graph.nodes[row["pre"]]["gaba"] else 1
        chemical, gap = sign * int(row["chemical"]), int(row["gap"])
        weight = {"chemical": chemical, "gap": gap, "both": chemical + gap}[edges]
        if weight:
            graph.add_edge(row["pre"], row["post"], weight=float(weight))
    return graph


def _rows(name: str) -> list[dict[str, str]]:
    text = files("hoplens").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
