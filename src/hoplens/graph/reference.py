"""The method of arXiv:2605.03598, equation by equation, for one network, as slow and plain as it is written.

Nothing in hoplens computes with these functions: its tests hold every fast kernel against them.
`docs/equations.md` says which function does the same fast.

Sizes: I inputs, H hidden units, O outputs, n = I + H + O nodes, L time steps. ``W[i, j]`` is the edge j -> i.
"""

from __future__ import annotations

import torch
from torch import Tensor


def adjacency(w_in: Tensor, w_rec: Tensor, w_out: Tensor, w_skip: Tensor | None = None) -> Tensor:
    """Return W (n, n), the graph's weights: inputs first, then hidden units, then outputs.

    ``w_in`` (H, I), ``w_rec`` (H, H), ``w_out`` (O, H). ``w_skip`` (O, I), optional: direct edges.
    """
    (h, i), o = w_in.shape, w_out.shape[0]
    zeros = w_in.new_zeros
    skip = zeros(o, i) if w_skip is None else w_skip
    return torch.cat(
        [
            torch.cat([zeros(i, i), zeros(i, h), zeros(i, o)], dim=1),
            torch.cat([w_in, w_rec, zeros(h, o)], dim=1),
            torch.cat([skip, w_out, zeros(o, o)], dim=1),
        ]
    )


def walks(w: Tensor, hops: int) -> Tensor:
    """Return ``W^k`` (n, n): the summed weights of all walks of exactly k hops between any two nodes."""
    return torch.linalg.matrix_power(w, hops)


def ends(w: Tensor, n_inputs: int, n_outputs: int) -> Tensor:
    """Return the block (O, I) of a matrix (n, n) that leads from the inputs to the outputs."""
    return w[len(w) - n_outputs :, :n_inputs]


def hop_map(w_in: Tensor, w_rec: Tensor, w_out: Tensor, hops: int) -> Tensor:
    """Return ``H_k = W_out W_rec^(k-2) W_in`` (O, I), k >= 2: the weight of all walks of k hops."""
    return w_out @ torch.linalg.matrix_power(w_rec, hops - 2) @ w_in


def hop_maps(w: Tensor, n_inputs: int, n_outputs: int, horizon: int) -> Tensor:
    """Return ``H_k`` for k = 2 .. L + 1 from powers of the whole graph, shape (L, O, I)."""
    return torch.stack([ends(walks(w, k), n_inputs, n_outputs) for k in range(2, horizon + 2)])


def spectral_radius(w: Tensor) -> Tensor:
    """Return ``lambda_max(W) = max |eigenvalue|``, shape (); that of w_rec, as all cycles lie there."""
    return torch.linalg.eigvals(w).abs().max()


def normalised(w: Tensor) -> Tensor:
    """Return ``W* = W / lambda_max(W)``."""
    return w / spectral_radius(w)


def resolvent(w: Tensor, damping: float) -> Tensor:
    """Return ``R = (I - a W)^-1 = sum over k >= 0 of (a W)^k`` (n, n), for a lambda_max(W) below 1."""
    return torch.linalg.inv(torch.eye(len(w), dtype=w.dtype) - damping * w)


def truncated_resolvent(w: Tensor, n_inputs: int, n_outputs: int, damping: float, horizon: int) -> Tensor:
    """Return ``R_io = sum over k = 2 .. L + 1 of (a W)^k`` from inputs to outputs, shape (O, I)."""
    return sum(
        (damping**k * ends(walks(w, k), n_inputs, n_outputs) for k in range(2, horizon + 2)),
        start=w.new_zeros(n_outputs, n_inputs),
    )


def penalty_of_the_sum(w: Tensor, n_inputs: int, n_outputs: int, damping: float, horizon: int) -> Tensor:
    """Return the R-RNN penalty ``sum |R_io|``, shape (): of W itself, not of W*."""
    return truncated_resolvent(w, n_inputs, n_outputs, damping, horizon).abs().sum()


def penalty_of_each_hop(w: Tensor, n_inputs: int, n_outputs: int, damping: float, horizon: int) -> Tensor:
    """Return ``sum over k of sum |a^k H_k|``, shape (): hops of opposite sign cannot hide each other."""
    maps = hop_maps(w, n_inputs, n_outputs, horizon)
    return sum((damping**k * h.abs().sum() for k, h in enumerate(maps, start=2)), start=w.new_zeros(()))


def active_hops(maps: Tensor, threshold: float) -> Tensor:
    """Return, per pair, how many hops are above ``threshold`` times the largest entry of all maps, (O, I)."""
    return (maps.abs() > threshold * maps.abs().max()).sum(dim=0)


def alignment(maps: Tensor, target_maps: Tensor) -> Tensor:
    """Return the correlation of maps and target maps over all (hop, output, input), shape ()."""
    a, b = maps.flatten() - maps.mean(), target_maps.flatten() - target_maps.mean()
    return (a @ b) / (a.norm() * b.norm())
