"""Differentiable penalties on pathways and on weights, for any training loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from hoplens.errors import ParameterError, UnsupportedModelError, check_choice, check_count, check_number
from hoplens.hops import hop_weights
from hoplens.kernels import thin_products
from hoplens.pathways import Pathways
from hoplens.resolvent import (
    check_converges,
    normalising_scale,
    scale_blocks,
    solve_resolvent,
    spectral_radius,
)

BLOCKS = ("in", "rec", "out")


class Penalty(nn.Module):
    """Base class: maps a `Pathways` to one value a network, shape (...,) (a scalar for one network).

    Penalties add up and scale: ``PathwayPenalty(horizon=20) + 0.1 * WeightPenalty(norm="l1")``.
    An own penalty subclasses this and implements ``forward(net)``.
    """

    def forward(self, net: Pathways) -> Tensor:
        """Return the penalty of each network of ``net``, shape (...,)."""
        raise NotImplementedError(f"{type(self).__name__} must implement forward(net)")

    def __add__(self, other: Penalty) -> PenaltySum:
        if not isinstance(other, Penalty):
            return NotImplemented
        return PenaltySum([*_terms(self), *_terms(other)])

    def __radd__(self, other: int) -> PenaltySum:
        # the built-in sum() starts from the integer 0
        return PenaltySum(_terms(self)) if other == 0 else NotImplemented

    def __mul__(self, weight: float) -> PenaltySum:
        return PenaltySum([(weight * own, penalty) for own, penalty in _terms(self)])

    __rmul__ = __mul__


def check_pathways(net: object) -> None:
    """Raise unless ``net`` is a `Pathways`, the one thing that a penalty takes."""
    if not isinstance(net, Pathways):
        raise UnsupportedModelError(
            f"a penalty takes a Pathways, got {type(net).__name__}; "
            "write penalty(hl.read(rnn, readout=linear))"
        )


def check_penalties(terms: Iterable[object]) -> None:
    """Raise unless all terms of a sum are penalties."""
    for term in terms:
        if not isinstance(term, Penalty):
            raise ParameterError(f"a sum of penalties takes hl.Penalty objects, got {type(term).__name__}")


class PenaltySum(Penalty):
    """A weighted sum of penalties.

    Parameters
    ----------
    terms : iterable of (float, Penalty)
        Weights and penalties. No term at all is the penalty 0.
    """

    def __init__(self, terms: Iterable[tuple[float, Penalty]]) -> None:
        super().__init__()
        pairs = list(terms)
        check_penalties(penalty for _, penalty in pairs)
        self.weights = [check_number("the weight of a penalty", weight) for weight, _ in pairs]
        self.penalties = nn.ModuleList([penalty for _, penalty in pairs])

    def forward(self, net: Pathways) -> Tensor:
        """Return the weighted sum of the penalties of ``net``, shape (...,)."""
        check_pathways(net)
        total = net.w_in.new_zeros(net.batch_shape)
        for weight, penalty in zip(self.weights, self.penalties, strict=True):
            total = total + weight * penalty(net)
        return total

    def extra_repr(self) -> str:
        """Show the weights."""
        return f"weights={self.weights}"


def _terms(penalty: Penalty) -> list[tuple[float, Penalty]]:
    if isinstance(penalty, PenaltySum):
        return [
            (w, p) for w, p in zip(penalty.weights, penalty.penalties, strict=True) if isinstance(p, Penalty)
        ]
    return [(1.0, penalty)]


class PathwayPenalty(Penalty):
    """Penalise the pathways of a network, hop by hop or summed over hops.

    With hop maps ``H_k`` and damping a, over k = 2 .. horizon + 1 (and k = 1 for direct edges):

    * ``across="hops"``, l1: ``sum_k sum_oi |a^k H_k[o, i]|``; frobenius: ``sum_k |a^k H_k|_F``;
    * ``across="sum"``, l1: ``sum_oi |R_io[o, i]|`` with ``R_io = sum_k a^k H_k`` (the R-RNN of the
      paper); frobenius: ``|R_io|_F``.

    With "sum", hops of opposite sign cancel, so that pathways can grow while the penalty falls; "hops"
    closes that loophole. Finite and differentiable at any spectral radius where the horizon is finite.

    Parameters
    ----------
    horizon : int or None
        Time steps covered; None is the full resolvent (``across="sum"`` only), which exists while damping
        times spectral radius is below 1.
    damping : float, default 0.9
        Factor on every hop, above 0 and at most 1.
    across : {"hops", "sum"}, default "hops"
        Whether every hop counts by itself or hops are added first.
    norm : {"l1", "frobenius"}, default "l1"
        The norm of a map.
    normalise : bool, default False
        Divide the graph by its spectral radius first. The paper computes the penalty without, since an
        optimiser lowers a normalised one by growing the spectral radius.

    Notes
    -----
    Source: arXiv:2605.03598 for "sum"; "hops" is hoplens's own.
    """

    def __init__(
        self,
        horizon: int | None,
        damping: float = 0.9,
        *,
        across: Literal["hops", "sum"] = "hops",
        norm: Literal["l1", "frobenius"] = "l1",
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.horizon = None if horizon is None else check_count("horizon", horizon)
        self.damping = check_number("damping", damping, above=0.0, most=1.0)
        self.across = check_choice("across", across, ("hops", "sum"))
        self.norm = check_choice("norm", norm, ("l1", "frobenius"))
        self.normalise = normalise
        if horizon is None and across == "hops":
            raise ParameterError('across="hops" needs a finite horizon; horizon=None goes with across="sum"')
        if horizon is None and normalise and self.damping >= 1.0:
            raise ParameterError("a full normalised resolvent needs damping below 1")

    def forward(self, net: Pathways) -> Tensor:
        """Return the penalty of each network of ``net``, shape (...,)."""
        check_pathways(net)
        if self.normalise:
            net = scale_blocks(net, 1.0 / normalising_scale(spectral_radius(net)))
        if self.horizon is None:
            check_converges(self.damping, spectral_radius(net))
            total, _ = solve_resolvent(net, net.w_in.new_full(net.batch_shape, self.damping))
            return self._size(total, (-2, -1))
        maps = thin_products(net.w_in, net.w_rec, net.w_out, self.horizon)  # (..., L, O, I)
        hops = torch.arange(2, self.horizon + 2, device=maps.device)
        weights = hop_weights(self.damping, hops, maps)[:, None, None]  # (L, 1, 1)
        skip = None if net.w_skip is None else self.damping * net.w_skip
        if self.across == "sum":
            total = (weights * maps).sum(dim=-3)
            return self._size(total if skip is None else total + skip, (-2, -1))
        if self.norm == "l1":  # weights are positive, so they come out of the absolute value
            value = (maps.abs().sum(dim=(-2, -1)) * weights[:, 0, 0]).sum(dim=-1)
        else:
            value = self._size(weights * maps, (-2, -1)).sum(dim=-1)
        return value if skip is None else value + self._size(skip, (-2, -1))

    def _size(self, maps: Tensor, axes: tuple[int, int]) -> Tensor:
        if self.norm == "l1":
            return maps.abs().sum(dim=axes)
        size: Tensor = torch.linalg.vector_norm(maps, dim=axes)
        return size

    def extra_repr(self) -> str:
        """Show the options."""
        return (
            f"horizon={self.horizon}, damping={self.damping}, across={self.across!r}, norm={self.norm!r}"
            + (", normalise=True" if self.normalise else "")
        )


class WeightPenalty(Penalty):
    """Penalise single weights: the baselines ``sum |W|`` and ``sum W^2``.

    Parameters
    ----------
    norm : {"l1", "l2"}, default "l1"
        Sum of absolute values or of squares.
    blocks : sequence of {"in", "rec", "out"}, default all three
        Which blocks of the graph count.
    """

    def __init__(self, norm: Literal["l1", "l2"] = "l1", blocks: Sequence[str] = BLOCKS) -> None:
        super().__init__()
        self.norm = check_choice("norm", norm, ("l1", "l2"))
        if isinstance(blocks, str) or not blocks:
            raise ParameterError(f"blocks must be a non-empty sequence out of {BLOCKS}, got {blocks!r}")
        self.blocks = tuple(check_choice("block", block, BLOCKS) for block in blocks)

    def forward(self, net: Pathways) -> Tensor:
        """Return the penalty of each network of ``net``, shape (...,)."""
        check_pathways(net)
        total = net.w_in.new_zeros(net.batch_shape)
        for block in self.blocks:
            weight: Tensor = getattr(net, f"w_{block}")
            # a sparse block belongs to one network, so that its stored values can be summed as they are
            entries = weight.values()[None] if weight.layout == torch.sparse_csr else weight
            size = entries.abs() if self.norm == "l1" else entries.square()
            total = total + size.sum(dim=(-2, -1))
        return total

    def extra_repr(self) -> str:
        """Show the options."""
        return f"norm={self.norm!r}, blocks={self.blocks}"
