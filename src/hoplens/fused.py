"""The value of a pathway penalty and its gradient in one autograd node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hoplens.doubling import Doubling
from hoplens.kernels import Chain, make_step, widen
from hoplens.steps import DenseStep, Grads


def pathway_size(
    w_in: Tensor,
    w_rec: Tensor,
    w_out: Tensor,
    length: int,
    *,
    damping: float,
    across: str,
    norm: str,
    doubling: bool = False,
) -> Tensor:
    """Return the size of the damped hop maps of hops 2 .. length + 1, shape (...,).

    Parameters
    ----------
    w_in, w_rec, w_out : Tensor
        Blocks of shapes (..., H, I), (..., H, H) (or sparse CSR), (..., O, H).
    length : int
        Number of hop maps.
    damping : float
        Factor on every hop.
    across : {"hops", "sum"}
    norm : {"l1", "frobenius"}
    doubling : bool, default False
        Compute one dense network by repeated squaring.
    """
    blocks = (widen(w) for w in (w_in, w_rec, w_out))
    apply: Callable[..., Tensor] = _PathwaySize.apply
    return apply(*blocks, _Size(length, damping, across == "hops", norm == "l1", doubling))


def pathway_gradients(
    w_in: Tensor,
    w_rec: Tensor,
    w_out: Tensor,
    length: int,
    factors: Tensor,
    *,
    damping: float,
    across: str,
    norm: str,
    doubling: bool = False,
) -> tuple[Tensor, Grads]:
    """Return the sizes of `pathway_size` and the gradients of ``(factors * sizes).sum()``, without autograd.

    Saves the calls of autograd, which cost more than the arithmetic of small networks.

    Parameters
    ----------
    w_in, w_rec, w_out, length, damping, across, norm, doubling
        See `pathway_size`; single or double precision.
    factors : Tensor, shape (...,)

    Returns
    -------
    sizes : Tensor, shape (...,)
    gradients : tuple of Tensor
        Of the shapes of w_in, w_rec and w_out.
    """
    size = _Size(length, damping, across == "hops", norm == "l1", doubling)
    with torch.no_grad():
        value, chain, maps = size.measure(w_in, w_rec, w_out, keep=True)
        return value, chain.backward(size.slope(maps, factors), (True, True, True))


@dataclass(frozen=True)
class _Size:
    """What is measured of the hop maps."""

    length: int
    damping: float
    by_hop: bool
    l1: bool
    doubling: bool

    def measure(
        self, w_in: Tensor, w_rec: Tensor, w_out: Tensor, *, keep: bool
    ) -> tuple[Tensor, Chain | Doubling, Tensor]:
        """Return the total size (...,), the products and the maps (E, K, c, d) or their sum."""
        step = make_step(w_in, w_rec, w_out)
        squares = self.doubling and isinstance(step, DenseStep) and step.start.shape[0] == 1
        chain = (Doubling if squares else Chain)(step, self.length, self.damping)  # type: ignore[arg-type]
        maps = chain.forward(keep=keep)
        if not self.by_hop:
            maps = maps.sum(dim=1, keepdim=True)
        if self.l1:  # not vector_norm: it sums plainly, 1e-5 off at 4e6 entries
            total: Tensor = maps.abs().sum(dim=(1, 2, 3))
        else:
            total = torch.linalg.vector_norm(maps, dim=(2, 3)).sum(dim=1)
        # the first and the last edge of a walk are damped too
        return total.mul_(self.damping**2).view(w_in.shape[:-2]), chain, maps

    def slope(self, maps: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient by the map of every hop, given that by the total size (...,)."""
        if self.l1:
            slope = maps.sign()
        else:  # no slope where a map vanishes: the least subgradient
            size = torch.linalg.vector_norm(maps, dim=(2, 3), keepdim=True)
            slope = torch.where(size > 0, maps / torch.where(size > 0, size, 1.0), 0.0)
        slope.mul_((grad * self.damping**2).reshape(-1, 1, 1, 1))
        return slope if self.by_hop else slope.expand(-1, self.length, -1, -1)


class _PathwaySize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w_in: Tensor, w_rec: Tensor, w_out: Tensor, size: _Size) -> Tensor:
        total, ctx.chain, maps = size.measure(w_in, w_rec, w_out, keep=any(ctx.needs_input_grad[:3]))
        ctx.size = size
        ctx.save_for_backward(w_in, w_rec, w_out, maps)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        maps: Tensor = ctx.saved_tensors[-1]
        return *ctx.chain.backward(ctx.size.slope(maps, grad), ctx.needs_input_grad[:3]), None


__all__ = ["pathway_gradients", "pathway_size"]
