"""Products along a graph that changes from step to step: entry n is the step n steps before the read-out.

The input of n steps before enters at ``B_n`` and goes to the read-out through ``F_(n-1), .., F_0``:

    H_n = W_out S_0 F_0 S_1 F_1 .. F_(n-1) S_n B_n

with F_n the edges that take a step and ``S_n = sum_d E_n^d`` the walks within a step, from a layer of a stack
to the next (S = I for one layer).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hoplens.errors import UnsupportedModelError
from hoplens.graph.pathways import Pathways


def split_time(net: Pathways) -> tuple[Tensor, Tensor, Tensor]:
    """Return w_rec as three parts (..., H, H): edges one step forward, one step backward, same step."""
    w_rec = net.w_rec.to_dense() if net.is_sparse else net.w_rec
    forward, backward = torch.zeros_like(w_rec), torch.zeros_like(w_rec)
    if net.layers is None:
        return w_rec, backward, forward
    for layer in net.layers:
        part = slice(layer.start, layer.stop)
        (backward if layer.reverse else forward)[..., part, part] = w_rec[..., part, part]
    return forward, backward, w_rec - forward - backward


def timed_maps(net: Pathways, horizon: int, *, without: Tensor | None = None) -> Tensor:
    """Return the maps of lags 0 .. horizon - 1 of a graph of each step, shape (..., L, O, I).

    Steps beyond those of the graph carry nothing. ``without``, shape (..., H), multiplies the states at
    every step: 0 for units that are removed.
    """
    maps = []
    for rows, step in rows_back(net, without=without):
        maps.append(rows @ net.w_in[step])
        if len(maps) == horizon:
            break
    whole = torch.stack(maps, dim=-3)
    missing = horizon - len(maps)
    return torch.nn.functional.pad(whole, (0, 0, 0, 0, 0, missing)) if missing else whole


def rows_back(net: Pathways, *, without: Tensor | None = None) -> Iterator[tuple[Tensor, int]]:
    """Yield the rows (..., O, H) from the outputs to the states of each step, latest first, and the step."""
    if not net.steps:
        raise UnsupportedModelError("this needs a graph of each step: read the model with at='steps'")
    forward, backward, same = split_time(net)
    if bool(backward.any()):
        raise UnsupportedModelError("a bidirectional network has no graph of each step; use at='flow'")
    levels = 1 if net.layers is None else net.layers[-1].level + 1
    keep = None if without is None else without.unsqueeze(-2)
    rows = net.w_out[0] if keep is None else net.w_out[0] * keep
    for step in range(len(net.w_in)):
        entering = rows
        for _ in range(levels - 1):
            entering = entering @ same[step]
            entering = entering if keep is None else entering * keep
            rows = rows + entering
        yield rows, step
        rows = rows @ forward[step]
        rows = rows if keep is None else rows * keep


def timed_shares(net: Pathways, horizon: int) -> Tensor:
    """Return the share of each unit in the mass of the walks of each lag, shape (L, H); 0 without any walk.

    Mass is the magnitude of a walk's product; each visit of a unit gets the same part of it.
    """
    check_one_level(net)
    w_rec, entering = net.w_rec.abs(), net.w_in.abs().sum(-1)  # (L, H, H), (L, H)
    steps = min(horizon, len(w_rec))
    leaving = [net.w_out[0].abs().sum(0)]  # of walks from each unit at step m
    for m in range(steps - 1):
        leaving.append(leaving[-1] @ w_rec[m])
    passed = entering.new_zeros(horizon, net.n_hidden)
    arrived = entering.new_zeros(net.n_hidden, steps)  # at step m, by the step entered at
    for m in range(steps - 1, -1, -1):
        arrived[:, m + 1 :] = w_rec[m] @ arrived[:, m + 1 :]
        arrived[:, m] = entering[m]
        passed[m:steps] += arrived[:, m:].mT * leaving[m]
    total = passed.sum(1, keepdim=True)
    return passed / torch.where(total > 0, total, torch.ones_like(total))


def check_one_level(net: Pathways) -> None:
    """Raise for a graph of each step of a stack, whose walks take a step or none at each edge."""
    if net.steps and net.layers is not None and net.layers[-1].level:
        raise UnsupportedModelError(
            "single walks through the steps of a network of several layers are not followed; read it with "
            'at="flow" for the static graph'
        )


__all__ = ["check_one_level", "rows_back", "split_time", "timed_maps", "timed_shares"]
