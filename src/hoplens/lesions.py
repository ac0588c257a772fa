"""What the hop maps lose without some units or edges."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hoplens.errors import ParameterError, UnknownNameError, check_count
from hoplens.hops import hop_maps
from hoplens.pathways import Pathways, replace_blocks

CHUNK = 1 << 22  # numbers of one batch of lost maps: 32 MiB of float64


def without(
    net: Pathways, *, units: Sequence[int | str] = (), edges: Sequence[tuple[int | str, int | str]] = ()
) -> Pathways:
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
    places = [_unit(net, unit) for unit in units]
    keep[places] = 0
    w_rec = net.w_rec.to_dense() if net.is_sparse else net.w_rec
    w_rec = keep[:, None] * w_rec * keep
    if edges:
        mask = net.w_in.new_ones(net.n_hidden, net.n_hidden)
        for tail, head in edges:
            mask[_unit(net, head), _unit(net, tail)] = 0
        w_rec = w_rec * mask
    return replace_blocks(net, keep[:, None] * net.w_in, w_rec, net.w_out * keep, net.w_skip)


def lesion(net: Pathways, horizon: int, *, units: Sequence[int | str] | None = None) -> Tensor:
    """Return how much the hop maps change without each hidden unit, all units at once.

    ``|H - H without j| / |H|``, Frobenius norms over all hops, outputs and inputs. What is lost with unit
    j are the walks that visit it: by the step s of the first visit they are ``sum_s B_(k-2-s)[j] F_s[j]``
    with B all walks from j to the outputs and F the walks from the inputs that arrive at j for the first
    time. F follows from all arrivals and the returns ``(W_rec^m)[j, j]``, so nothing is computed anew for
    each unit.

    Parameters
    ----------
    net : Pathways
        Any leading axes. One power of W_rec a hop is formed: meant for up to some thousand units.
    horizon : int
        Number of time steps L, as in `hop_maps`.
    units : sequence of int or str, optional
        Remove these units together instead, and return one number, shape (..., 1).

    Returns
    -------
    Tensor, shape (..., H)
        0 for a unit that no walk visits; may exceed 1 where what stays had cancelled. In the dtype of the
        weights, computed in float64.
    """
    length = check_count("horizon", horizon)
    if units is not None and not len(units):
        raise ParameterError("units must name at least one hidden unit, or be left out for all single ones")
    exact = net.to(torch.float64)
    whole = hop_maps(exact, length)
    size = torch.linalg.vector_norm(whole.values, dim=(-3, -2, -1))[..., None]
    if units is not None:
        rest = hop_maps(without(exact, units=units), length).values
        lost = torch.linalg.vector_norm(whole.values - rest, dim=(-3, -2, -1))[..., None]
    else:
        count = length + whole.levels - 1
        lost = torch.stack([_lost(one, count, whole.levels - 1) for one in _networks(exact)])
        lost = lost.reshape(*net.batch_shape, net.n_hidden)
    change: Tensor = lost / torch.where(size > 0, size, torch.ones_like(size))
    return change.to(net.w_in.dtype)


def _networks(net: Pathways) -> list[Pathways]:
    if not net.batch_shape:
        return [net]
    return [one for row in range(net.batch_shape[0]) for one in _networks(net[row])]


def _lost(net: Pathways, count: int, skipped: int) -> Tensor:
    """Return, for every unit, the norm of all maps of walks that visit it, shape (H,)."""
    w_rec = net.w_rec.to_dense() if net.is_sparse else net.w_rec
    arrive, leave = [net.w_in], [net.w_out]
    returns, power = [], w_rec
    for _ in range(count - 1):
        returns.append(torch.diagonal(power))
        power = power @ w_rec
        arrive.append(w_rec @ arrive[-1])
        leave.append(leave[-1] @ w_rec)
    first: list[Tensor] = []  # (H, I): walks that arrive for the first time after s edges
    for s, all_arrivals in enumerate(arrive):
        again = [returns[s - u - 1][:, None] * first[u] for u in range(s)]
        first.append(all_arrivals - torch.stack(again).sum(0) if again else all_arrivals)
    into, out = torch.stack(first, dim=1), torch.stack([b.mT for b in leave], dim=1)  # (H, K, I), (H, K, O)
    squares = net.w_in.new_zeros(net.n_hidden)
    rows = max(1, CHUNK // (net.n_inputs * net.n_outputs * count))
    for k in range(skipped, count):
        for part in torch.arange(net.n_hidden).split(rows):
            # sum over the step of the first visit: (h, O, k + 1) @ (h, k + 1, I)
            maps = out[part, : k + 1].flip(1).mT @ into[part, : k + 1]
            squares[part] += maps.square().sum((1, 2))
    return squares.sqrt()


def _unit(net: Pathways, unit: int | str) -> int:
    if isinstance(unit, str):
        if unit not in net.hidden_names:
            raise UnknownNameError(f"no hidden unit is called {unit!r}; see net.hidden_names")
        return net.hidden_names.index(unit)
    place = check_count("unit", unit, least=0)
    if place >= net.n_hidden:
        raise UnknownNameError(f"no hidden unit {place}; there are {net.n_hidden}, from 0")
    return place


__all__ = ["lesion", "without"]
