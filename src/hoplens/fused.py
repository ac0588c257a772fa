"""The value of a pathway penalty and its gradient in one autograd node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hoplens.doubling import Doubling
from hoplens.kernels import Chain, make_step, widen
from hoplens.steps import DenseStep


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
    return apply(*blocks, length, damping, across == "hops", norm == "l1", doubling)


class _PathwaySize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        w_in: Tensor,
        w_rec: Tensor,
        w_out: Tensor,
        length: int,
        damping: float,
        by_hop: bool,
        l1: bool,
        doubling: bool,
    ) -> Tensor:
        step = make_step(w_in, w_rec, w_out)
        squares = doubling and isinstance(step, DenseStep) and step.start.shape[0] == 1
        chain = Doubling(step, length, damping) if squares else Chain(step, length, damping)  # type: ignore[arg-type]
        maps = chain.forward(keep=any(ctx.needs_input_grad[:3]))
        if not by_hop:
            maps = maps.sum(dim=1, keepdim=True)
        ctx.chain, ctx.l1, ctx.shape, ctx.scale = chain, l1, (length, by_hop), damping**2
        ctx.save_for_backward(w_in, w_rec, w_out, maps)
        total = _size(maps).sum(dim=1) if not l1 else torch.linalg.vector_norm(maps, 1, dim=(1, 2, 3))
        # the first and the last edge of a walk are damped too
        return total.mul_(damping**2).view(w_in.shape[:-2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        maps: Tensor = ctx.saved_tensors[-1]
        length, by_hop = ctx.shape
        if ctx.l1:
            slope = maps.sign()
        else:  # no slope where a map vanishes: the least subgradient
            size = _size(maps)[..., None, None]
            slope = torch.where(size > 0, maps / torch.where(size > 0, size, 1.0), 0.0)
        slope.mul_((grad * ctx.scale).reshape(-1, 1, 1, 1))
        if not by_hop:
            slope = slope.expand(-1, length, -1, -1)
        return *ctx.chain.backward(slope, ctx.needs_input_grad[:3]), None, None, None, None, None


def _size(maps: Tensor) -> Tensor:
    """Return the Frobenius norm of maps (E, n, c, d), shape (E, n)."""
    size: Tensor = torch.linalg.vector_norm(maps, dim=(2, 3))
    return size


__all__ = ["pathway_size"]
