"""The value of a pathway penalty and its gradient in one autograd node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hoplens.graph.chain import Chain, make_step, widen
from hoplens.graph.steps import DenseStep, Grads


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
    steps: int | None = None,
) -> Tensor:
    """Return the size of the damped hop maps of hops 2 .. length + 1, shape (...,).

    ``w_in``, ``w_rec``, ``w_out``: blocks of shapes (..., H, I), (..., H, H) (or sparse CSR), (..., O, H).
    ``length``: number of hop maps. ``damping``: factor on every hop. ``doubling``: compute one dense network
    by repeated squaring. ``steps``: mean over read-outs after steps 1 .. ``steps`` (at least ``length``),
    each of which sees only what came before it; by default one read-out that sees all hops.
    """
    blocks = (widen(w) for w in (w_in, w_rec, w_out))
    apply: Callable[..., Tensor] = _PathwaySize.apply
    return apply(*blocks, _Size(length, damping, across == "hops", norm == "l1", doubling, steps))


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
    steps: int | None = None,
) -> tuple[Tensor, Grads]:
    """Return the sizes of `pathway_size` and the gradients of ``(factors * sizes).sum()``, without autograd.

    Saves the calls of autograd, which cost more than the arithmetic of small networks.

    ``w_in``, ``w_rec``, ``w_out``, ``length``, ``damping``, ``across``, ``norm``, ``doubling``, ``steps``:
    see `pathway_size`; single or double precision. ``factors`` (...,); ``sizes`` (...,). ``gradients``: of
    the shapes of w_in, w_rec and w_out.
    """
    size = _Size(length, damping, across == "hops", norm == "l1", doubling, steps)
    with torch.no_grad():
        value, chain, maps = size.measure(w_in, w_rec, w_out, keep=True)
        return value, chain.backward(size.slope(maps, factors), (True, True, True))


@dataclass(frozen=True)
class _Size:
    """What is measured of the hop maps.

    Read-out t of L sees the first t hop maps. Hop by hop, map n = 1 .. K counts for L - n + 1 of the L
    read-outs. Summed, read-out t < K sees the partial sum P_t, and the L - K + 1 others see P_K.
    """

    length: int
    damping: float
    by_hop: bool
    l1: bool
    doubling: bool
    steps: int | None = None

    def measure(
        self, w_in: Tensor, w_rec: Tensor, w_out: Tensor, *, keep: bool
    ) -> tuple[Tensor, Chain | Doubling, Tensor]:
        """Return the total size (...,), the products, and what is measured: the maps (E, K, c, d) of hops,
        their sum (E, 1, c, d), or their partial sums (E, K, c, d)."""
        step = make_step(w_in, w_rec, w_out)
        squares = self.doubling and isinstance(step, DenseStep) and step.start.shape[0] == 1
        chain = (Doubling if squares else Chain)(step, self.length, self.damping)  # type: ignore[arg-type]
        maps = chain.forward(keep=keep)
        if not self.by_hop:
            maps = maps.sum(dim=1, keepdim=True) if self.steps is None else maps.cumsum(dim=1)
        if self.l1:  # not vector_norm: it sums plainly, 1e-5 off at 4e6 entries
            sizes = maps.abs().sum(dim=(2, 3))
        else:
            sizes = torch.linalg.vector_norm(maps, dim=(2, 3))
        weights = self._weights(maps)
        total: Tensor = sizes.sum(dim=1) if weights is None else sizes @ weights
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
        weights = self._weights(maps)
        if weights is not None:
            slope.mul_(weights[:, None, None])
        if self.by_hop:
            return slope
        # a map is part of every partial sum from its own on
        return slope.flip(1).cumsum(1).flip(1) if self.steps else slope.expand(-1, self.length, -1, -1)

    def _weights(self, like: Tensor) -> Tensor | None:
        """Return the share of read-outs (K,) that each measured map counts for; None for one read-out."""
        if self.steps is None:
            return None
        if self.by_hop:
            seen = torch.arange(
                self.steps, self.steps - self.length, -1, dtype=like.dtype, device=like.device
            )
        else:
            seen = like.new_ones(self.length)
            seen[-1] = self.steps - self.length + 1
        return seen / self.steps


class Doubling:
    """All hop maps of one small dense network from ``log2(length)`` products.

    With ``S_j`` the stacked rows of the first 2^j hops and ``P_j = (factor W)^(2^j)``,
    ``S_(j+1) = [S_j; S_j P_j]`` and ``P_(j+1) = P_j P_j``. More arithmetic than one hop at a time
    (``6 log2(length) H^3``), fewer calls: worth it where a call costs more than its arithmetic.
    """

    def __init__(self, step: DenseStep, length: int, factor: float = 1.0) -> None:
        self.step, self.length, self.factor = step, length, factor
        self.rows = step.start.new_empty(0)
        self.powers: list[Tensor] = []

    def forward(self, *, keep: bool) -> Tensor:
        """Return the maps as seen from the step's side, (1, L, c, d)."""
        start = self.step.start[0]
        c, h = start.shape
        rows = start.new_empty(self.length * c, h)
        rows[:c].copy_(start)
        power, powers, have = self.step.step[0] * self.factor, [], 1
        while have < self.length:
            take = min(have, self.length - have)
            torch.mm(rows[: take * c], power, out=rows[have * c : (have + take) * c])
            powers.append(power)
            have += take
            if have < self.length:
                power = power @ power
        if keep:
            self.rows, self.powers = rows, powers
        return (rows @ self.step.other[0]).view(1, self.length, c, -1)

    def backward(self, grad: Tensor, needs: tuple[bool, bool, bool]) -> Grads:
        """Return the gradients of w_in, w_rec, w_out for ``grad`` (1, L, c, d)."""
        rows, c = self.rows, grad.shape[2]
        flat = grad.reshape(self.length * c, -1)
        other = (rows.T @ flat)[None]
        adjoint = flat @ self.step.other[0].T
        above: Tensor | None = None  # gradient by the next power
        for j in range(len(self.powers) - 1, -1, -1):
            power, have = self.powers[j], 2**j
            take = min(have, self.length - have)
            upper, lower = adjoint[have * c : (have + take) * c], adjoint[: take * c]
            slope = rows[: take * c].T @ upper
            if above is not None:
                slope.addmm_(above, power.T).addmm_(power.T, above)
            lower.addmm_(upper, power.T)
            above = slope
        rec = None
        if needs[1]:
            rec = self.step.new_rec() if above is None else (above * self.factor)[None]
            rec = rec.mT if self.step.from_inputs != self.step.turned else rec  # as `finish` expects it
        return self.step.finish(adjoint[None, :c], rec, other)


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
