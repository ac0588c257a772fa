"""What the hop maps lose without some units or edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hoplens.analysis.hops import hop_maps
from hoplens.errors import ParameterError, RangeError, UnknownNameError, check_count
from hoplens.graph.implicit import takes_models
from hoplens.graph.parts import Leak
from hoplens.graph.pathways import Pathways, replace_blocks
from hoplens.graph.timed import timed_maps

CHUNK = 1 << 22  # numbers of one batch of lost maps: 32 MiB of float64
SHORTER = "take a shorter horizon, or divide w_rec by its spectral radius"

Unit = int | str
Edge = tuple[Unit, Unit]


@takes_models(steps=True)
def ablate(net: Pathways, *, units: Sequence[Unit] = (), edges: Sequence[Edge] = ()) -> Pathways:
    """Return the network without some hidden units (all their edges cut) or recurrent edges.

    Parameters
    ----------
    net : Pathways
        Any leading axes; a low-rank or sparse w_rec becomes dense.
    units : sequence of int or str
        Hidden units, by number or name. They stay as numbers, without edges.
    edges : sequence of (from, to)
        Recurrent edges, from hidden unit to hidden unit.

    Returns
    -------
    Pathways
    """
    keep = net.w_in.new_ones(net.n_hidden)
    keep[[_unit(net, unit) for unit in units]] = 0
    w_rec = keep[:, None] * _dense(net) * keep
    if edges:
        mask = net.w_in.new_ones(net.n_hidden, net.n_hidden)
        for tail, head in (_edge(net, edge) for edge in edges):
            mask[head, tail] = 0
        w_rec = w_rec * mask
    leak = None if net.leak is None else Leak(*(part * keep for part in net.leak))
    return replace_blocks(net, keep[:, None] * net.w_in, w_rec, net.w_out * keep, net.w_skip, leak=leak)


@takes_models(steps=True)
def lesion(
    net: Pathways,
    horizon: int,
    *,
    units: Sequence[Unit] | None = None,
    edges: Sequence[Edge] | None = None,
    together: bool = True,
) -> Tensor:
    """Return how much the hop maps change without each hidden unit, all units at once.

    ``|H - H without j| / |H|``, Frobenius norms over all hops, outputs and inputs. What is lost with unit
    j are the walks that visit it: by the step s of the first visit they are ``sum_s B_(k-2-s)[j] F_s[j]``
    with B all walks from j to the outputs and F the walks from the inputs that arrive at j for the first
    time. F follows from all arrivals and the returns ``(W_rec^m)[j, j]``, so nothing is computed anew for
    each unit. `lesion_edges` does the same for every edge.

    Parameters
    ----------
    net : Pathways
        Any leading axes. All units at once cost about ``2 sqrt(horizon)`` products of W_rec with itself,
        not one a hop; for ten thousand units or more see `lesion_estimate`.
    horizon : int
        Number of time steps L, as in `hop_maps`.
    units : sequence of int or str, optional
        Remove these units, not each one.
    edges : sequence of (from, to), optional
        Remove these recurrent edges too; with ``together`` only.
    together : bool, default True
        Remove all units and edges named at once: one number, shape (..., 1). False: each unit named by
        itself, shape (..., n), from thin products only, for networks of any size.

    Returns
    -------
    Tensor, shape (..., H)
        0 for a unit that no walk visits; may exceed 1 where what stays had cancelled. In the dtype of the
        weights, computed in float64.

    Raises
    ------
    RangeError
        If walks grow beyond the range of float64 within the horizon.
    """
    length = check_count("horizon", horizon)
    named = units is not None or edges is not None
    if named and not len(units or ()) + len(edges or ()):
        raise ParameterError("name at least one unit or edge, or leave units= and edges= out for all units")
    if not together and (edges is not None or units is None):
        raise ParameterError("together=False goes with units= alone; for single edges call lesion_edges")
    if named and together:
        exact = net.to(torch.float64)
        whole, rest = (
            _maps(one, length) for one in (exact, ablate(exact, units=units or (), edges=edges or ()))
        )
        size, lost = (torch.linalg.vector_norm(x, dim=(-3, -2, -1))[..., None] for x in (whole, whole - rest))
        return _share(lost, size, net)
    places = None if units is None else [_unit(net, unit) for unit in units]
    if net.steps:
        return _timed_lesions(net, length, list(range(net.n_hidden)) if places is None else places)
    return _each(net, length, lambda walks: walks.units_lost(places))


def _timed_lesions(net: Pathways, length: int, places: list[int]) -> Tensor:
    """Return what the maps of a graph of each step lose without each unit at all steps, shape (n,)."""
    exact = net.to(torch.float64)
    keep = 1 - torch.eye(net.n_hidden, dtype=torch.float64, device=net.w_in.device)[places]
    whole = timed_maps(exact, length)
    size = torch.linalg.vector_norm(whole)
    numbers = whole.numel() * max(1, net.n_hidden // net.n_inputs)
    lost = [
        torch.linalg.vector_norm(whole - timed_maps(exact, length, without=part), dim=(-3, -2, -1))
        for part in keep.split(max(1, CHUNK // numbers))
    ]
    return _share(torch.cat(lost), size, net)


@takes_models
def lesion_edges(net: Pathways, horizon: int) -> Tensor:
    """Return how much the hop maps change without each recurrent edge, all edges at once.

    The walks lost with the edge j -> i of weight w are ``w sum_s B_(k-3-s)[i] F_s[j]``, B all walks from
    i to the outputs and F the arrivals at j before the edge was ever used; these follow from all arrivals
    and ``w (W_rec^m)[j, i]``, the walks that use the edge and come back to j.

    Parameters
    ----------
    net : Pathways
        Any leading axes. One power of W_rec a hop is kept, and an edge costs ``horizon^2`` products of
        vectors of min(horizon, I) and min(horizon, O) numbers: meant for up to some hundred units, or
        some ten thousand edges.
    horizon : int
        Number of time steps L, as in `hop_maps`.

    Returns
    -------
    Tensor, shape (..., H, H)
        ``[i, j]`` for the edge j -> i, as in ``w_rec``; 0 where there is none. In the dtype of the
        weights, computed in float64.
    """
    return _each(net, check_count("horizon", horizon), lambda walks: walks.edges_lost())


@takes_models
def lesion_estimate(net: Pathways, horizon: int) -> Tensor:
    """Return what `lesion` would be if no walk returned to a unit that it has left; thin products only.

    Exact for units on no cycle of up to horizon edges. Else walks that visit a unit m times count m times.
    It ranks the units of networks whose powers of W_rec are too large to form: compute the first ones
    exactly with ``lesion(net, horizon, units=..., together=False)``.

    Parameters
    ----------
    net : Pathways
        Any leading axes; a sparse w_rec stays sparse.
    horizon : int
        Number of time steps L, as in `hop_maps`.

    Returns
    -------
    Tensor, shape (..., H)
    """
    return _each(net, check_count("horizon", horizon), lambda walks: walks.units_lost(None, first=False))


class _Walks:
    """All walks of one network into and out of each unit, by their number of edges; float64."""

    def __init__(self, net: Pathways, length: int) -> None:
        self.skipped = 0 if net.layers is None else net.layers[-1].level
        self.count = length + self.skipped
        self.w = net.w_rec
        back = net.w_rec.transpose(0, 1)
        back = back.to_sparse_csr() if net.is_sparse else back
        self.into = _run(self.w, net.w_in, self.count)  # (H, K, I)
        self.out = _run(back, net.w_out.mT, self.count)  # (H, K, O)

    def units_lost(self, places: list[int] | None, *, first: bool = True) -> Tensor:
        into, out = (walks if places is None else walks[places] for walks in (self.into, self.out))
        if first and self.count > 1:
            returns = self._all_returns() if places is None else self._returns(places)
            into = _first(into, returns)
        return self._lost(into, out, self.skipped)

    def edges_lost(self) -> Tensor:
        w = self.w.to_dense()
        lost = torch.zeros_like(w)
        head, tail = w.nonzero(as_tuple=True)
        powers = [torch.eye(len(w), dtype=w.dtype, device=w.device)]
        for _ in range(self.count - 2):
            powers.append(powers[-1] @ w)
        back = torch.stack([power.mT for power in powers])  # [m, i, j]: walks from i to j of m edges
        rows = max(1, CHUNK // (self.count * (self.into.shape[-1] + self.out.shape[-1] + 1)))
        for i, j in zip(head.split(rows), tail.split(rows), strict=True):
            weight = w[i, j]
            used = _first(self.into[j], back[:, i, j] * weight)
            # the edge itself is one edge more, so walks of one edge fewer go on from it
            lost[i, j] = weight.abs() * self._lost(used[:, :-1], self.out[i, :-1], max(0, self.skipped - 1))
        return lost

    def _lost(self, into: Tensor, out: Tensor, skipped: int) -> Tensor:
        """Return the norm over all hops of ``sum_s out[k - s]^T into[s]``, shape (n,)."""
        into, out = _narrow(into), _narrow(out)
        squares = into.new_zeros(len(into))
        rows = max(1, CHUNK // max(1, into.shape[-1] * out.shape[-1]))
        for k in range(skipped, into.shape[1]):
            for part in torch.arange(len(into), device=into.device).split(rows):
                # sum over the step of the first visit: (n, O, k + 1) @ (n, k + 1, I)
                maps = out[part, : k + 1].flip(1).mT @ into[part, : k + 1]
                squares[part] += maps.square().sum((1, 2))
        return squares.sqrt()

    def _returns(self, places: list[int]) -> Tensor:
        """Return ``(W^m)[j, j]`` of some units, m = 1 .. count - 1, from thin products, shape (m, n)."""
        block = self.into.new_zeros(len(self.into), len(places))
        rows = torch.arange(len(places), device=block.device)
        block[places, rows] = 1
        returns = []
        for _ in range(self.count - 1):
            block = self.w @ block
            returns.append(block[places, rows])
        return torch.stack(returns)

    def _all_returns(self) -> Tensor:
        """Return ``diag(W^m)`` of all units, m = 1 .. count - 1, shape (m, H).

        The diagonal of a product needs no product: with the powers 1 .. q and the multiples of q, every
        ``diag(W^(a + q b))`` is a sum over entries, so about 2 sqrt(count) matrix products are enough.
        """
        w = self.w.to_dense()
        most = self.count - 1
        step = max(1, round(most**0.5))
        small = [w]
        while len(small) < min(step, most):
            small.append(small[-1] @ w)
        returns = [torch.diagonal(power) for power in small]
        giant = small[-1]
        while len(returns) < most:
            returns += [(giant.mT * power).sum(0) for power in small[: most - len(returns)]]
            if len(returns) < most:
                giant = giant @ small[-1]
        return torch.stack(returns)


def _run(w: Tensor, block: Tensor, count: int) -> Tensor:
    """Return block, W block, W^2 block, ..., shape (H, count, width)."""
    steps = [block]
    for _ in range(count - 1):
        steps.append(w @ steps[-1])
    return torch.stack(steps, dim=1)


def _first(into: Tensor, returns: Tensor) -> Tensor:
    """Return arrivals for the first time (n, K, I) from all arrivals and the returns (K - 1, n)."""
    first: list[Tensor] = []
    for s in range(into.shape[1]):
        again = [returns[s - u - 1][:, None] * first[u] for u in range(s)]
        first.append(into[:, s] - torch.stack(again).sum(0) if again else into[:, s])
    return torch.stack(first, dim=1)


def _narrow(walks: Tensor) -> Tensor:
    """Return (n, K, min(K, width)): rotated, as K vectors span no more; norms of products stay."""
    if walks.shape[-1] <= walks.shape[-2]:
        return walks
    rotated: Tensor = torch.linalg.qr(walks.mT, mode="r")[1].mT
    return rotated


def _each(net: Pathways, length: int, lost: Callable[[_Walks], Tensor]) -> Tensor:
    exact = net.to(torch.float64)
    whole = _maps(exact, length)
    size = torch.linalg.vector_norm(whole, dim=(-3, -2, -1))
    found = torch.stack([lost(_Walks(one, length)) for one in _networks(exact)])
    found = found.reshape(*net.batch_shape, *found.shape[1:])
    return _share(found, size.reshape(*size.shape, *[1] * (found.dim() - size.dim())), net)


def _maps(net: Pathways, length: int) -> Tensor:
    maps = hop_maps(net, length)
    if maps.shift is not None:
        raise RangeError(f"the hop maps leave the range of float64 within {length} steps; {SHORTER}")
    return maps.values


def _share(lost: Tensor, size: Tensor, net: Pathways) -> Tensor:
    change: Tensor = lost / torch.where(size > 0, size, torch.ones_like(size))
    if not bool(torch.isfinite(change).all()):
        raise RangeError(f"walks grow beyond the range of float64; {SHORTER}")
    return change.to(net.w_in.dtype)


def _networks(net: Pathways) -> list[Pathways]:
    if not net.batch_shape:
        return [net]
    return [one for row in range(net.batch_shape[0]) for one in _networks(net[row])]


def _dense(net: Pathways) -> Tensor:
    return net.w_rec.to_dense() if net.is_sparse else net.w_rec


def _edge(net: Pathways, edge: Edge) -> tuple[int, int]:
    if not isinstance(edge, tuple | list) or len(edge) != 2:
        raise ParameterError(f"an edge is a pair (from, to) of hidden units, got {edge!r}")
    return _unit(net, edge[0]), _unit(net, edge[1])


def _unit(net: Pathways, unit: Unit) -> int:
    if isinstance(unit, str):
        if unit not in net.hidden_names:
            raise UnknownNameError(f"no hidden unit is called {unit!r}; see net.hidden_names")
        return net.hidden_names.index(unit)
    place = check_count("unit", unit, least=0)
    if place >= net.n_hidden:
        raise UnknownNameError(f"no hidden unit {place}; there are {net.n_hidden}, from 0")
    return place


__all__ = ["ablate", "lesion", "lesion_edges", "lesion_estimate"]
