"""Random networks for the tests, and slow twins that follow the paper's definitions to the letter."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

import hoplens as hl
from hoplens.graph import reference

EXACT = 1e-12  # what float64 results must agree to


def random_network(
    seed: int = 0,
    *,
    inputs: int = 3,
    hidden: int = 4,
    outputs: int = 2,
    batch: tuple[int, ...] = (),
    skip: bool = False,
    radius: float | None = 0.9,
    density: float = 1.0,
    requires_grad: bool = False,
) -> hl.Pathways:
    """Draw a float64 network; every w_rec has this spectral radius (unless it has no cycle)."""
    rng = np.random.default_rng(seed)

    def block(rows: int, columns: int) -> Any:
        weights = rng.normal(size=(*batch, rows, columns))
        return weights * (rng.random(weights.shape) < density)

    w_in, w_rec, w_out = block(hidden, inputs), block(hidden, hidden), block(outputs, hidden)
    if radius is not None:
        own = np.abs(np.linalg.eigvals(w_rec)).max(axis=-1)[..., None, None]
        w_rec = w_rec * np.where(own > 1e-9, radius / np.where(own > 1e-9, own, 1.0), 1.0)
    blocks = [w_in, w_rec, w_out, *([block(outputs, inputs)] if skip else [])]
    return hl.Pathways(*(torch.tensor(b, requires_grad=requires_grad) for b in blocks))


@st.composite
def networks(
    draw: st.DrawFn,
    *,
    batches: tuple[tuple[int, ...], ...] = ((), (1,), (3,), (2, 2)),
    skips: tuple[bool, ...] = (False, True),
    least_radius: float = 0.0,
    most_radius: float = 1.3,
) -> hl.Pathways:
    """Draw networks of all small sizes, sparse ones and ones without cycles among them."""
    return random_network(
        draw(st.integers(0, 2**32 - 1)),
        inputs=draw(st.integers(1, 4)),
        hidden=draw(st.integers(1, 5)),
        outputs=draw(st.integers(1, 4)),
        batch=draw(st.sampled_from(batches)),
        skip=draw(st.sampled_from(skips)),
        radius=draw(st.floats(least_radius, most_radius)),
        density=draw(st.sampled_from((1.0, 0.5))),
    )


def blocks_of(net: hl.Pathways) -> list[Tensor]:
    """Return the blocks that a network has."""
    return [b for b in (net.w_in, net.w_rec, net.w_out, net.w_skip) if b is not None]


def one_by_one(net: hl.Pathways) -> list[hl.Pathways]:
    """Cut an ensemble into its networks by hand, without using its own indexing."""
    flat = [b.reshape(-1, *b.shape[-2:]) for b in blocks_of(net)]
    return [hl.Pathways(*(b[n] for b in flat)) for n in range(flat[0].shape[0])]


def full_matrix(net: hl.Pathways) -> Tensor:
    """The paper's W of one network: n x n, edge j -> i at [i, j], nodes inputs, hidden units, outputs.

    Differentiable, and written without `Pathways.adjacency`.
    """
    w_rec = net.w_rec.to_dense() if net.is_sparse else net.w_rec
    return reference.adjacency(net.w_in, w_rec, net.w_out, net.w_skip)


def literal_maps(net: hl.Pathways, horizon: int) -> Tensor:
    """Hop maps of one network from powers of the full matrix, hops 1 .. horizon + 1: (L + 1, O, I)."""
    full = full_matrix(net)
    return torch.stack(
        [reference.ends(reference.walks(full, k), net.n_inputs, net.n_outputs) for k in range(1, horizon + 2)]
    )


def literal_resolvent(net: hl.Pathways, damping: float, horizon: int | None, normalise: bool) -> Tensor:
    """Input-output block of the paper's resolvent of one network, (O, I): an inverse or explicit powers."""
    full = full_matrix(net)
    if normalise:
        full = reference.normalised(full)
    if horizon is None:
        return reference.ends(reference.resolvent(full, damping), net.n_inputs, net.n_outputs)
    direct = damping * reference.ends(full, net.n_inputs, net.n_outputs)  # walks of one hop: skips
    return direct + reference.truncated_resolvent(full, net.n_inputs, net.n_outputs, damping, horizon)


def literal_penalty(
    net: hl.Pathways, damping: float, horizon: int | None, across: str, norm: str, normalise: bool
) -> Tensor:
    """The pathway penalty of one network, from full matrices only."""

    def size(matrix: Tensor) -> Tensor:
        return matrix.abs().sum() if norm == "l1" else matrix.square().sum().sqrt()

    if across == "sum":
        return size(literal_resolvent(net, damping, horizon, normalise))
    assert horizon is not None
    scale = torch.linalg.eigvals(full_matrix(net)).abs().max() if normalise else 1.0
    total = torch.zeros((), dtype=torch.float64)
    for k, value in enumerate(literal_maps(net, horizon), start=1):
        if k > 1 or net.w_skip is not None:  # without direct edges there is no walk of one hop
            total = total + size((damping / scale) ** k * value)
    return total


def count_walks(graph: nx.DiGraph[Any], source: str, target: str, hops: int) -> float:
    """Sum the weights of all walks of exactly so many edges, by walking every one of them."""
    if hops == 0:
        return float(source == target)
    return sum(
        data["weight"] * count_walks(graph, neighbour, target, hops - 1)
        for _, neighbour, data in graph.out_edges(source, data=True)
    )


def assert_near(got: Tensor, wanted: Tensor, tolerance: float = EXACT) -> None:
    """Compare shapes and values: within tolerance, relative to the largest entry where that is above 1."""
    assert got.shape == wanted.shape, f"shape {tuple(got.shape)} instead of {tuple(wanted.shape)}"
    if got.numel():
        got, wanted = got.detach(), wanted.detach()
        error = float((got - wanted).abs().max())
        bound = tolerance * max(1.0, float(wanted.abs().max()))
        assert error <= bound, f"off by {error:g}, allowed {bound:g}"
