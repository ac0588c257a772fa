"""Hop maps at any spectral radius and horizon: numbers carried as a mantissa and a power of two a hop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hoplens.errors import RangeError
from hoplens.graph.chain import Chain, make_step, widen
from hoplens.graph.pathways import Pathways
from hoplens.graph.steps import Step

SMALLEST, LARGEST = -20, 40  # a block whose largest entry leaves 2^-20 .. 2^40 is rescaled
DRIFT_BITS = 40.0  # how far it may drift between two looks, by the rate seen last
LONGEST_STRIDE = 8
NO_HOP = -(1 << 40)  # exponent of a map that is zero, while exponents are compared


@dataclass(frozen=True, eq=False)
class ScaledMaps:
    """Hop maps as ``H_k = mantissas[k] * 2**exponents[k]``: no overflow, no underflow.

    Attributes
    ----------
    mantissas : Tensor, shape (..., K, O, I)
        Largest magnitude of each map in [0.5, 1), or 0 where the map is zero.
    exponents : Tensor of int64, shape (..., K)
        Powers of two; 0 where the map is zero.
    """

    mantissas: Tensor
    exponents: Tensor

    def log2_size(self) -> Tensor:
        """Return ``log2`` of the largest magnitude of each map, shape (..., K), float64; -inf for zero."""
        top = self.mantissas.detach().abs().amax(dim=(-2, -1)).double()
        return top.log2() + self.exponents


def scaled_products(w_in: Tensor, w_rec: Tensor, w_out: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return M and e with ``W_out W_rec^n W_in = M_n 2^(e_n)`` for n = 0 .. length - 1.

    Blocks are rescaled by powers of two, exactly, before they leave the range of the dtype. Differentiable
    in M; half precision is computed in float32.

    ``w_in`` (..., H, I); ``w_rec`` (..., H, H), dense, or sparse CSR of shape (H, H); ``w_out`` (..., O, H);
    ``M`` (..., length, O, I); ``e`` (..., length).
    """
    w_in, e_in = _unit(widen(w_in))
    w_out, e_out = _unit(widen(w_out))
    w_rec = widen(w_rec)
    for stride in (LONGEST_STRIDE, 1):
        apply: Callable[..., tuple[Tensor, Tensor]] = _ScaledProducts.apply
        maps, exponents = apply(w_in, w_rec, w_out, length, stride)
        if bool(torch.isfinite(maps).all()):
            batch = w_in.shape[:-2]
            exponents = exponents.reshape(*batch, length) + (e_in + e_out)[..., None]
            return maps.reshape(*batch, *maps.shape[-3:]), exponents
    raise RangeError(
        f"one hop alone leaves the range of {w_in.dtype}; use float64 weights or divide w_rec by its "
        "largest entry"
    )


def _unit(block: Tensor) -> tuple[Tensor, Tensor]:
    """Divide a thin block by a power of two a network, where its entries are very large or small."""
    top = block.detach().abs().amax(dim=(-2, -1))
    exponent = torch.frexp(top)[1].long()
    exponent = torch.where((exponent < SMALLEST) | (exponent > LARGEST), exponent, 0)
    return times_power(block, -exponent[..., None, None]), exponent


def times_power(values: Tensor, exponents: Tensor) -> Tensor:
    """Return ``values * 2**exponents``, exact where the result is normal; subnormal results become 0."""
    if not bool(exponents.any()):
        return values
    info = torch.finfo(values.dtype)
    most = math.frexp(info.max)[1] - 2
    # in two factors: either may leave the range although the product does not
    half = torch.div(exponents, 2, rounding_mode="floor")
    first, second = half.clamp(-most, most), (exponents - half).clamp(-most, most)
    result = values * torch.exp2(first.to(values.dtype)) * torch.exp2(second.to(values.dtype))
    return torch.where(result.detach().abs() < info.tiny, torch.zeros_like(result), result)


class _ScaledChain(Chain):
    """A chain that rescales its blocks on the first pass and repeats the same on later ones."""

    def __init__(self, step: Step, length: int, stride: int) -> None:
        super().__init__(step, length)
        self.stride, self.recording, self.next_look = stride, True, 1
        self.networks = step.first().shape[0] if step.first().dim() == 3 else 1
        now = [0] * self.networks
        self.exponents, self.now, self.rate_from = [list(now)], now, (0, self._tops(step.first()))

    def _next_stop(self, n: int) -> int:
        return n + 1  # every hop's exponents are noted, or its scale repeated

    def _settle(self, block: Tensor, n: int) -> None:
        if self.recording:
            if n >= self.next_look:
                self._look(block, n)
            elif n in self.scales:
                block.mul_(self.scales[n])
            self.exponents.append(list(self.now))
            if n % LONGEST_STRIDE == 0:
                self._flush(block)
        else:
            super()._settle(block, n)

    def _look(self, block: Tensor, n: int) -> None:
        tops = self._tops(block)
        shifts = [e if e is not None and not SMALLEST <= e <= LARGEST else 0 for e in tops]
        shifts = [max(-120, min(120, e)) for e in shifts]
        if any(shifts):
            powers = [2.0**-e for e in shifts]
            if len(powers) == 1:
                self.scales[n] = powers[0]
            else:
                self.scales[n] = torch.tensor(powers, dtype=block.dtype, device=block.device)[:, None, None]
            block.mul_(self.scales[n])
            self.now = [a + b for a, b in zip(self.now, shifts, strict=True)]
        since, before = self.rate_from
        moved = [abs(a - b) for a, b in zip(tops, before, strict=True) if a is not None and b is not None]
        rate = max(moved, default=0) / (n - since)
        after = [None if e is None else e - s for e, s in zip(tops, shifts, strict=True)]
        self.rate_from = (n, after)
        self.next_look = n + max(1, min(self.stride, int(DRIFT_BITS / max(rate, 1e-3))))

    def _tops(self, block: Tensor) -> list[int | None]:
        """Return the binary exponent of each network's largest entry; None for zero, or not finite."""
        size = block.detach().abs()
        tops = size.amax(dim=(-2, -1)).reshape(-1).tolist()
        return [math.frexp(top)[1] if top and math.isfinite(top) else None for top in tops]


class _ScaledProducts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, w_in: Tensor, w_rec: Tensor, w_out: Tensor, length: int, stride: int
    ) -> tuple[Tensor, Tensor]:
        chain = _ScaledChain(make_step(w_in, w_rec, w_out), length, stride)
        maps = chain.forward(keep=any(ctx.needs_input_grad[:3]))
        chain.recording = False
        exponents = torch.tensor(chain.exponents, dtype=torch.int64, device=maps.device).T  # (E, L)
        ctx.chain = chain
        ctx.save_for_backward(w_in, w_rec, w_out)
        ctx.mark_non_differentiable(exponents)
        return maps.mT if chain.step.from_inputs else maps, exponents

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        assert ctx.saved_tensors
        if ctx.chain.step.from_inputs:
            grad = grad.mT
        return *ctx.chain.backward(grad, ctx.needs_input_grad[:3]), None, None


def assemble(
    maps: Tensor, exponents: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None, ScaledMaps | None]:
    """Turn maps and exponents into ordinary values where these fit the dtype.

    ``maps`` (..., K, O, I); ``exponents`` (..., K). ``dtype``: of the result. ``values`` (..., K, O, I): the
    maps divided by ``2**shift``; what is then below the range is 0. ``shift`` (...,), or None where it is 0
    throughout: where a network's maps overflow the dtype, the exponent that brings its largest entry to
    [0.5, 1).
    """
    top = maps.detach().abs().amax(dim=(-2, -1))
    own = torch.frexp(top)[1].long()
    size = torch.where(top > 0, own + exponents, NO_HOP)  # (..., K)
    limits = torch.finfo(dtype)
    highest, lowest = math.frexp(limits.max)[1], math.frexp(limits.tiny)[1]
    largest = size.amax(dim=-1)
    over = largest >= highest
    under = (size < lowest) & (size > NO_HOP)
    if not bool(over.any()) and not bool(under.any()):
        return times_power(maps, exponents[..., None, None]).to(dtype), None, None
    shift = torch.where(over, largest, 0)
    mantissas = times_power(maps, -own[..., None, None])
    powers = torch.where(size > NO_HOP, size, 0)
    values = times_power(mantissas, (powers - shift[..., None])[..., None, None])
    exact = ScaledMaps(mantissas.to(dtype), powers)
    return values.to(dtype), shift if bool(over.any()) else None, exact


def hop_products(net: Pathways, length: int, levels: int = 1) -> tuple[Tensor, Tensor]:
    """Return ``W_out W_rec^n W_in`` for n = levels - 1 .. levels + length - 2.

    Powers below ``levels - 1`` are zero in a stack: no walk crosses all its layers in fewer edges. With
    ``W_rec = U V^T`` the powers are ``U (V^T U)^(n-1) V^T``, so a hop costs r^2, not H^2, per input.

    ``length``: number of products. ``levels``: layers of the stack. ``maps`` (..., length, O, I): the
    products divided by ``2**exponents``. ``exponents`` (..., length).
    """
    count = length + levels - 1
    if net.factors is None or net.factors.diagonal is not None:
        maps, exponents = scaled_products(net.w_in, net.w_rec, net.w_out, count)
    else:
        u, v, _ = net.factors
        maps, exponents = scaled_products(
            net.w_in, u.new_zeros(()).expand(*u.shape[:-1], u.shape[-2]), net.w_out, 1
        )
        if count > 1:
            later, powers = scaled_products(v.mT @ net.w_in, v.mT @ u, net.w_out @ u, count - 1)
            maps, exponents = torch.cat([maps, later], dim=-3), torch.cat([exponents, powers], dim=-1)
    return maps[..., levels - 1 :, :, :], exponents[..., levels - 1 :]
