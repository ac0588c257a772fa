"""Read networks, arrays and graphs as `Pathways`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hoplens.errors import ParameterError, ShapeError, UnknownNameError, UnsupportedModelError
from hoplens.pathways import Pathways, as_tensor

SUPPORTED = (
    "an nn.RNN of one layer and one direction (tanh or relu), a triple (w_in, w_rec, w_out) of arrays, "
    "or a networkx DiGraph or square SciPy/NumPy adjacency matrix with inputs= and outputs="
)


def read(
    model: Any,
    readout: nn.Linear | None = None,
    *,
    inputs: Sequence[Hashable] | None = None,
    outputs: Sequence[Hashable] | None = None,
    attach: bool = False,
    weight: str = "weight",
) -> Pathways:
    """Read a recurrent network as a weighted directed graph.

    The weights of a module are not copied: gradients flow back to it, and it is left as it was.

    Parameters
    ----------
    model : nn.RNN, tuple of arrays, DiGraph or adjacency matrix
        * ``nn.RNN``: one layer, one direction, tanh or relu, any ``batch_first``; biases carry no pathway.
        * ``(w_in, w_rec, w_out)`` or ``(w_in, w_rec, w_out, w_skip)``: arrays of shapes (H, I), (H, H),
          (O, H), (O, I) in torch's orientation, where ``W[i, j]`` is the edge j -> i.
        * a ``networkx.DiGraph``, or a square array or SciPy sparse matrix in the graph convention, where
          ``A[i, j]`` is the edge i -> j; ``inputs`` and ``outputs`` name the nodes (or row numbers).
    readout : nn.Linear, optional
        The layer from hidden units to outputs. Without one each hidden unit is an output (W_out = I).
    inputs, outputs : sequence of nodes, optional
        Input and output nodes of a graph, in the order wanted.
    attach : bool, default False
        In graphs whose input nodes receive edges or whose output nodes send some, keep these nodes as
        hidden units and attach to each an input or output terminal by an edge of weight 1. A walk of m
        edges in the graph then has m + 2 hops.
    weight : str, default "weight"
        Edge attribute of a graph that holds the weight; edges without it count 1.

    Returns
    -------
    Pathways

    Raises
    ------
    UnsupportedModelError
        If the object cannot be read; says what can.
    ShapeError
        If the read-out does not fit the hidden layer.
    """
    if isinstance(model, nn.Module):
        _refuse_options(inputs, outputs, attach, "a module")
        return _read_module(model, readout)
    if readout is not None:
        raise ParameterError("readout= goes with a module; give the read-out of arrays as w_out")
    if isinstance(model, tuple | list) and len(model) in (3, 4):
        _refuse_options(inputs, outputs, attach, "a triple of arrays")
        return Pathways(*model)
    if hasattr(model, "is_directed"):
        return _read_graph(model, inputs, outputs, attach, weight)
    if isinstance(model, np.ndarray | Tensor) or hasattr(model, "tocsr"):
        return _read_matrix(model, inputs, outputs, attach)
    raise UnsupportedModelError(f"cannot read a {type(model).__name__}; supported: {SUPPORTED}")


def _refuse_options(inputs: object, outputs: object, attach: bool, what: str) -> None:
    if inputs is not None or outputs is not None or attach:
        raise ParameterError(
            f"inputs=, outputs= and attach= go with a graph or adjacency matrix, not with {what}"
        )


def _read_module(module: nn.Module, readout: nn.Linear | None) -> Pathways:
    if not isinstance(module, nn.RNN):
        raise UnsupportedModelError(f"cannot read a {type(module).__name__} module; supported: {SUPPORTED}")
    if module.num_layers != 1 or module.bidirectional:
        raise UnsupportedModelError(
            f"cannot read an nn.RNN with num_layers={module.num_layers} and "
            f"bidirectional={module.bidirectional}; supported: {SUPPORTED}"
        )
    blocks: list[Tensor] = [getattr(module, f"weight_{kind}_l0") for kind in ("ih", "hh")]
    w_in, w_rec = blocks
    hidden = w_rec.shape[0]
    if readout is None:
        w_out = torch.eye(hidden, dtype=w_rec.dtype, device=w_rec.device)
    elif isinstance(readout, nn.Linear):
        w_out = readout.weight
        if w_out.shape[-1] != hidden:
            raise ShapeError(
                f"readout must take the {hidden} hidden units of the network, but it takes "
                f"{w_out.shape[-1]} features; pass the nn.Linear({hidden}, O) that follows this nn.RNN"
            )
    else:
        raise UnsupportedModelError(f"readout must be an nn.Linear or None, got {type(readout).__name__}")
    return Pathways(w_in, w_rec, w_out, provenance=f"raw weights of nn.RNN ({module.nonlinearity})")


def _read_graph(
    graph: Any,
    inputs: Sequence[Hashable] | None,
    outputs: Sequence[Hashable] | None,
    attach: bool,
    weight: str,
) -> Pathways:
    import networkx as nx

    if not graph.is_directed():
        raise UnsupportedModelError(
            "cannot read an undirected graph; pass graph.to_directed() if edges run both ways"
        )
    if graph.is_multigraph():
        raise UnsupportedModelError("cannot read a multigraph; merge parallel edges into one weight first")
    nodes = list(graph.nodes)
    position = {node: j for j, node in enumerate(nodes)}
    matrix = nx.to_scipy_sparse_array(graph, nodelist=nodes, weight=weight, format="csr", dtype=float)
    sources, sinks = _ends(inputs, outputs, position)
    return _split(matrix, sources, sinks, attach, [str(node) for node in nodes])


def _read_matrix(
    matrix: Any, inputs: Sequence[Hashable] | None, outputs: Sequence[Hashable] | None, attach: bool
) -> Pathways:
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
            "a graph needs inputs= and outputs=: at least one input node and one output node"
        )
    found: list[list[int]] = []
    for option, names in (("inputs", inputs), ("outputs", outputs)):
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
        note = "adjacency matrix, terminals attached"
        return Pathways(w_in, matrix.T, w_out, input_names=in_names, output_names=out_names, provenance=note)
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
    return Pathways(**block, w_skip=w_skip, input_names=in_names, output_names=out_names, provenance=note)
