"""Read graphs and adjacency matrices."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from hoplens.errors import ParameterError, ShapeError, UnknownNameError, UnsupportedModelError
from hoplens.graph.parts import as_tensor
from hoplens.graph.pathways import Pathways


def read_graph(
    graph: Any,
    inputs: Sequence[Hashable] | None,
    outputs: Sequence[Hashable] | None,
    attach: bool,
    weight: str,
) -> Pathways:
    """Read a networkx DiGraph."""
    import networkx as nx

    if not len(graph):
        raise ShapeError("the graph has no nodes; add edges with a weight before reading it")
    if not graph.is_directed():
        raise UnsupportedModelError(
            "cannot read an undirected graph; pass graph.to_directed() if edges run both ways"
        )
    if graph.is_multigraph():
        raise UnsupportedModelError("cannot read a multigraph; merge parallel edges into one weight first")
    nodes = list(graph.nodes)
    position = {node: j for j, node in enumerate(nodes)}
    try:
        matrix = nx.to_scipy_sparse_array(graph, nodelist=nodes, weight=weight, format="csr", dtype=float)
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"the edge attribute {weight!r} must be a number on every edge ({error}); name another one with "
            "weight="
        ) from None
    sources, sinks = _ends(inputs, outputs, position)
    return _split(matrix, sources, sinks, attach, [str(node) for node in nodes])


def read_matrix(
    matrix: Any, inputs: Sequence[Hashable] | None, outputs: Sequence[Hashable] | None, attach: bool
) -> Pathways:
    """Read a square adjacency matrix, edge i -> j at [i, j]."""
    import scipy.sparse as sp

    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ShapeError(f"an adjacency matrix must be square, got shape {tuple(matrix.shape)}")
    n = matrix.shape[0]
    sources, sinks = _ends(inputs, outputs, {j: j for j in range(n)})
    dense = not hasattr(matrix, "tocsr")
    if isinstance(matrix, Tensor):
        matrix = matrix.detach().to_dense().cpu().numpy()
    table = np.asarray(matrix) if dense else sp.csr_array(matrix)
    return _split(table, sources, sinks, attach, [f"n{j}" for j in range(n)])


def _ends(
    inputs: Sequence[Hashable] | None, outputs: Sequence[Hashable] | None, position: dict[Any, int]
) -> tuple[list[int], list[int]]:
    if inputs is None or outputs is None or not len(inputs) or not len(outputs):
        raise ParameterError(
            "a graph needs input_nodes= and output_nodes=: at least one input node and one output node"
        )
    found: list[list[int]] = []
    for option, names in (("input_nodes", inputs), ("output_nodes", outputs)):
        if isinstance(names, str):  # would be read letter by letter
            raise ParameterError(f"{option}= must be a list of nodes, got {names!r}; write [{names!r}]")
        missing = [node for node in names if node not in position]
        if missing:
            raise UnknownNameError(f"{option}= names {missing[0]!r}, which is no node of the graph")
        found.append([position[node] for node in names])
        if len(set(found[-1])) != len(found[-1]):
            raise ParameterError(f"{option}= names a node twice")
    return found[0], found[1]


def _split(matrix: Any, sources: list[int], sinks: list[int], attach: bool, names: list[str]) -> Pathways:
    """Cut an adjacency matrix (edge i -> j at [i, j]) into the blocks of a Pathways."""
    n = matrix.shape[0]
    in_names, out_names = [names[j] for j in sources], [names[j] for j in sinks]
    if attach:
        w_in, w_out = np.zeros((n, len(sources))), np.zeros((len(sinks), n))
        w_in[sources, range(len(sources))] = 1.0
        w_out[range(len(sinks)), sinks] = 1.0
        note = "adjacency matrix, terminals attached: hop k walks k - 2 edges of the graph"
        return Pathways(
            w_in,
            matrix.T,
            w_out,
            input_names=in_names,
            output_names=out_names,
            hidden_names=names,
            provenance=note,
        )
    ends = set(sources) | set(sinks)
    hidden = [j for j in range(n) if j not in ends]
    against = abs(matrix[:, sources]).sum() + abs(matrix[sinks, :]).sum()
    if set(sources) & set(sinks) or against > 0:
        raise UnsupportedModelError(
            "some input nodes receive edges, or some output nodes send some, so these nodes are not mere "
            "terminals; pass attach=True to keep them as hidden units with a terminal each"
        )
    if not hidden:
        raise ShapeError(
            "the graph has no node besides the inputs and outputs; recurrent pathways need hidden nodes"
        )
    block = {
        "w_in": as_tensor(matrix[sources, :][:, hidden].T).to_dense(),
        "w_rec": matrix[hidden, :][:, hidden].T,
        "w_out": as_tensor(matrix[hidden, :][:, sinks].T).to_dense(),
    }
    skip = as_tensor(matrix[sources, :][:, sinks].T).to_dense()
    w_skip = skip if bool((skip != 0).any()) else None
    note = "adjacency matrix"
    return Pathways(
        **block,
        w_skip=w_skip,
        input_names=in_names,
        output_names=out_names,
        hidden_names=[names[j] for j in hidden],
        provenance=note,
    )


__all__ = ["read_graph", "read_matrix"]
