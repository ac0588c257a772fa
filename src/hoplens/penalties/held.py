"""The flow penalty of many networks at once, with its gradient written by hand: slopes held, wires penalised.

With the rows ``r`` (S, one column an output) that enter step t from above, the slopes ``s`` of the step's new
state by its projections ``z = W_h h + W_x x + b``, and what the step keeps of the state beside these,

    c = s r            M = W_x' c            r <- W_h' c + kept r

M is the Jacobian of the output by the input of step t. The slopes are numbers here, so that the gradient by
the weights is the adjoint of this linear recursion, in the same products. Where lags are counted from each
sequence's own read-out, sequences of any lengths go through it side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hoplens.models.cells import Kernel
from hoplens.models.cells.algebra import CHANGES, leaf
from hoplens.models.ensemble import Ensemble

CHUNK = 1 << 24  # numbers of the rows of some sequences at once


class HeldFlow(NamedTuple):
    """A penalty and its gradients.

    Attributes
    ----------
    value : Tensor, shape (E,)
    w_h, w_x : Tensor, shape (E, K, fed) and (E, K, I)
        By the projections of the cell, see `Kernel.projections`.
    readout : Tensor, shape (E, O, H)
    """

    value: Tensor
    w_h: Tensor
    w_x: Tensor
    readout: Tensor


class Routes(NamedTuple):
    """How the state of a cell goes on from one step to the next."""

    parts: int  # of the state
    rows: int  # projections of H units each
    fed: tuple[int, ...]  # parts that W_h sees
    kept: tuple[int, ...]  # parts that the equations read beside that


def slopes_along(ensemble: Ensemble, before: Sequence[Tensor], x: Tensor) -> tuple[Tensor, Routes]:
    """Return the slopes of a step along sequences, (L, E, parts, rows + kept, H, b), and what they belong to.

    ``before`` are the parts of the state before each step, (L, E, H, b) each, ``x`` (L, E, I, b) the inputs.
    """
    kernel, hidden = ensemble.kernel, ensemble.n_hidden
    w_x, w_h, bias = kernel.projections(ensemble.weight, hidden)
    steps, size, _, count = x.shape
    states = [_columns(part) for part in before]
    fed = states[kernel.fed[0]] if len(kernel.fed) == 1 else torch.cat([states[n] for n in kernel.fed], dim=1)
    z = torch.baddbmm(torch.baddbmm(bias, w_x, _columns(x)), w_h, fed).split(hidden, dim=1)
    new = kernel.update(
        CHANGES,
        [leaf(n, row) for n, row in enumerate(z)],
        [leaf(len(z) + n, state) for n, state in enumerate(states)],
    )
    kept = tuple(n for n in range(len(states)) if any(len(z) + n in part.by for part in new))
    routes = Routes(len(states), len(z), kernel.fed, kept)
    slopes = x.new_zeros(steps, size, len(new), len(z) + len(kept), hidden, count)
    for p, part in enumerate(new):
        for place, number in enumerate([*range(len(z)), *(len(z) + n for n in kept)]):
            if number in part.by:
                slope = part.by[number]
                value = 1.0 if slope is None else slope
                if isinstance(value, Tensor) and value.dim():
                    value = value.unflatten(-1, (steps, count)).permute(2, 0, 1, 3)
                slopes[:, :, p, place] = value
    return slopes, routes


def _columns(values: Tensor) -> Tensor:
    """Return (L, E, rows, b) as (E, rows, L b)."""
    return values.permute(1, 2, 0, 3).flatten(2)


def by_lag(slopes: Tensor, reads: Tensor) -> Tensor:
    """Return slopes (L, E, ..., b) in lags from the read-outs (E or 1, b); 0 before a sequence begins."""
    steps = int(reads.max()) + 1
    if int(reads.min()) + 1 == steps:
        return slopes[:steps].flip(0)
    source = reads - torch.arange(steps, device=reads.device)[:, None, None]  # (L, E, b)
    source = source.to(slopes.device).view(*source.shape[:2], *[1] * (slopes.dim() - 3), source.shape[2])
    picked = slopes.gather(0, source.clamp_min(0).expand(steps, *slopes.shape[1:]))
    return picked * (source >= 0)


def held_flow(
    ensemble: Ensemble,
    slopes: Tensor,
    routes: Routes,
    weights: Tensor,
    factors: Tensor,
    *,
    outputs: Tensor | None = None,
    norm: str = "l1",
) -> HeldFlow:
    """Return the sizes of the Jacobians of all lags, weighted and added up, and the gradients times factors.

    Parameters
    ----------
    ensemble : Ensemble
    slopes : Tensor, shape (L, E, parts, rows + kept, H, b)
        From `by_lag`.
    routes : Routes
    weights : Tensor, shape (L,)
        Of each lag.
    factors : Tensor, shape (E,)
        On the gradients.
    outputs : Tensor of int64, optional
        Outputs that are followed; default all.
    norm : {"l1", "frobenius"}
        Of the map (O, I) of a lag and a sequence.
    """
    w_x, w_h, _ = ensemble.kernel.projections(ensemble.weight, ensemble.n_hidden)
    readout = ensemble.readout if outputs is None else ensemble.readout[:, outputs]
    count, followed = slopes.shape[-1], readout.shape[1]
    wide = slopes.unsqueeze(-2).expand(*slopes.shape[:-1], followed, count).flatten(-2)  # (L, ..., O b)
    back = torch.cat([w_h.mT, w_x.mT], dim=1)  # (E, fed + I, K)
    first = readout.mT.unsqueeze(3).expand(-1, -1, -1, count).flatten(2)  # (E, H, O b)
    passed, reached = _forward(wide, back, first, routes, w_h.shape[2])
    maps = reached[:, :, w_h.shape[2] :]
    value, signs = _sizes(maps, weights.to(maps), count, norm)
    maps.copy_(signs.mul_(factors[:, None, None]))
    by_back, by_first = _backward(wide, back, passed, reached, routes, w_h.shape[2])
    by_readout = by_first.unflatten(2, (followed, count)).sum(3).mT
    if outputs is not None:
        by_readout = torch.zeros_like(ensemble.readout).index_copy_(1, outputs, by_readout)
    return HeldFlow(value, by_back[:, : w_h.shape[2]].mT, by_back[:, w_h.shape[2] :].mT, by_readout)


def ensemble_maps(ensemble: Ensemble, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the exact Jacobian maps along data of every network, (E, L, O, I): signed mean, mean size.

    Lags from the last valid step of each of the sequences (B, L, I); the mean of a lag is over those that
    have it. The same as `hoplens.hop_maps` of each network along data, for all at once.
    """
    steps, size = inputs.shape[1], ensemble.size
    leaves = ensemble.n_hidden * len(ensemble.kernel.from_input)
    width = max(1, CHUNK // (steps * size * leaves * ensemble.n_outputs))
    signed, absolute = (
        ensemble.weight.new_zeros(size, steps, ensemble.n_outputs, ensemble.n_inputs, dtype=torch.float64)
        for _ in range(2)
    )
    for part, ends in zip(inputs.split(width), lengths.split(width), strict=True):
        x = part.permute(1, 2, 0)[:, None].expand(-1, size, -1, -1).to(ensemble.weight)
        with torch.no_grad():
            slopes, routes = slopes_along(ensemble, states_before(ensemble, x), x)
            slopes = by_lag(slopes, (ends - 1).expand(size, -1).to(x.device))
            w_x, w_h, _ = ensemble.kernel.projections(ensemble.weight, ensemble.n_hidden)
            count, outputs = x.shape[3], ensemble.n_outputs
            wide = slopes.unsqueeze(-2).expand(*slopes.shape[:-1], outputs, count).flatten(-2)
            first = ensemble.readout.mT.unsqueeze(3).expand(-1, -1, -1, count).flatten(2)
            _, reached = _forward(wide, torch.cat([w_h.mT, w_x.mT], dim=1), first, routes, w_h.shape[2])
            maps = reached[:, :, w_h.shape[2] :].unflatten(3, (outputs, count)).double()  # (L, E, I, O, b)
        signed[:, : len(maps)] += maps.sum(4).permute(1, 0, 3, 2)
        absolute[:, : len(maps)] += maps.abs().sum(4).permute(1, 0, 3, 2)
    having = (
        (lengths[:, None] > torch.arange(steps, device=lengths.device))
        .sum(0)
        .clamp_min(1)
        .to(signed)[:, None, None]
    )
    return signed / having, absolute / having


def states_before(ensemble: Ensemble, x: Tensor) -> Sequence[Tensor]:
    """Return the parts of the state before each step of a run from zero, (L, E, H, b) each."""
    start = x.new_zeros(ensemble.size, ensemble.n_hidden * len(ensemble.kernel.parts), x.shape[-1])
    run = ensemble.run(x)
    states = [run[t] for t in range(len(x) - 1)]
    later = [torch.cat([part for part in state if part is not None], dim=1) for state in states]
    parts: Sequence[Tensor] = torch.stack([start, *later]).split(ensemble.n_hidden, dim=2)
    return parts


def plain_flow(
    ensemble: Ensemble, slopes: Tensor, routes: Routes, weights: Tensor, outputs: Tensor | None, norm: str
) -> Tensor:
    """Return the value of `held_flow` (E,) by plain operations that autograd follows: its slow twin."""
    w_x, w_h, _ = ensemble.kernel.projections(ensemble.weight, ensemble.n_hidden)
    readout = ensemble.readout if outputs is None else ensemble.readout[:, outputs]
    total = ensemble.weight.new_zeros(ensemble.size)
    for b in range(slopes.shape[-1]):
        state: list[Tensor | None] = [readout, *[None] * (routes.parts - 1)]  # (E, O, H) each
        for weight, slope in zip(weights, slopes[..., b].unbind(0), strict=True):
            leaves: list[Tensor] = []
            for n in range(slope.shape[2]):
                terms = [row * slope[:, p, n, None] for p, row in enumerate(state) if row is not None]
                leaves.append(torch.stack(terms).sum(0))
            entering = torch.cat(leaves[: routes.rows], dim=2)  # (E, O, K)
            size = entering @ w_x
            total = total + weight * (
                size.abs().sum((1, 2)) if norm == "l1" else torch.linalg.vector_norm(size, dim=(1, 2))
            )
            state = [None] * routes.parts
            for n, part in zip(routes.fed, (entering @ w_h).split(ensemble.n_hidden, dim=2), strict=True):
                state[n] = part
            for k, n in enumerate(routes.kept, routes.rows):
                row = state[n]
                state[n] = leaves[k] if row is None else row + leaves[k]
    return total


def _sizes(maps: Tensor, weights: Tensor, count: int, norm: str) -> tuple[Tensor, Tensor]:
    """Return the weighted size (E,) of maps (L, E, I, O b), and its gradient by them."""
    weights = weights[:, None, None, None]
    if norm == "l1":
        return (weights * maps.abs()).sum(dim=(0, 2, 3)), maps.sign() * weights
    apart = maps.unflatten(3, (-1, count))
    size = torch.linalg.vector_norm(apart, dim=(2, 3), keepdim=True)  # (L, E, 1, 1, b)
    slope = torch.where(size > 0, apart / size, 0.0).flatten(3)
    return (weights * size.flatten(2)[..., None]).sum(dim=(0, 2, 3)), slope * weights


def _forward(slopes: Tensor, back: Tensor, first: Tensor, routes: Routes, seen: int) -> tuple[Tensor, Tensor]:
    """Return what enters the projections at each lag, (L, E, rows + kept, H, N), and what leaves them."""
    steps, size, parts, leaves, hidden, columns = slopes.shape
    passed = slopes.new_empty(steps, size, leaves, hidden, columns)
    reached = slopes.new_empty(steps, size, back.shape[1], columns)
    rows: list[Tensor | None] = [first, *[None] * (parts - 1)]
    for slope, entering, leaving in zip(slopes.unbind(0), passed.unbind(0), reached.unbind(0), strict=True):
        fresh = True
        for p, row in enumerate(rows):
            if row is None:
                continue
            if fresh:
                torch.mul(slope[:, p], row.unsqueeze(1), out=entering)
            else:
                entering.addcmul_(slope[:, p], row.unsqueeze(1))
            fresh = False
        torch.bmm(back, entering[:, : routes.rows].flatten(1, 2), out=leaving)
        rows = [None] * parts
        for n, part in zip(routes.fed, leaving[:, :seen].split(hidden, dim=1), strict=True):
            rows[n] = part
        for k, n in enumerate(routes.kept, routes.rows):
            row = rows[n]
            rows[n] = entering[:, k] if row is None else row + entering[:, k]
    return passed, reached


def _backward(
    slopes: Tensor, back: Tensor, passed: Tensor, reached: Tensor, routes: Routes, seen: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients by ``back`` and by the rows that entered first; maps hold their gradients."""
    _, size, parts, leaves, hidden, columns = slopes.shape
    grad_back = torch.zeros_like(back)
    forth = back.mT
    by_leaf = slopes.new_empty(size, leaves, hidden, columns)
    through = by_leaf[:, : routes.rows].flatten(1, 2) if leaves == routes.rows else None
    by_rows = slopes.new_zeros(parts, size, hidden, columns)
    for n in range(len(slopes) - 1, -1, -1):
        leaving = reached[n]
        for place, part in zip(routes.fed, leaving[:, :seen].split(hidden, dim=1), strict=True):
            part.copy_(by_rows[place])
        grad_back.baddbmm_(leaving, passed[n][:, : routes.rows].flatten(1, 2).mT)
        if through is not None:
            torch.bmm(forth, leaving, out=through)
        else:
            by_leaf[:, : routes.rows] = torch.bmm(forth, leaving).unflatten(1, (routes.rows, hidden))
            for k, place in enumerate(routes.kept, routes.rows):
                by_leaf[:, k] = by_rows[place]
        if parts == leaves == 1:
            torch.mul(slopes[n][:, 0, 0], by_leaf[:, 0], out=by_rows[0])
        else:
            torch.sum(slopes[n] * by_leaf.unsqueeze(1), dim=2, out=by_rows.transpose(0, 1))
    return grad_back, by_rows[0]


def is_direct(kernel: Kernel) -> bool:
    """Return whether the projections of a cell are its weights as they are stored."""
    return type(kernel).projections is Kernel.projections and kernel.fed == (0,)


__all__ = [
    "HeldFlow",
    "Routes",
    "by_lag",
    "ensemble_maps",
    "held_flow",
    "is_direct",
    "plain_flow",
    "slopes_along",
    "states_before",
]
