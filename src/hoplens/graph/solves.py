"""Full resolvents as linear solves: differentiable values, and certificates of their error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hoplens.errors import RangeError
from hoplens.graph.chain import widen
from hoplens.graph.parts import LowRank
from hoplens.graph.pathways import Pathways
from hoplens.graph.solvers import (
    PROBES,
    Certificate,
    System,
    certify,
    dense_system,
    krylov_system,
    prefers_krylov,
    to_scipy,
    woodbury_system,
)
from hoplens.graph.steps import csr, narrow_csr


@dataclass(frozen=True, eq=False)
class Solved:
    """A resolvent's value (..., O, I) with residual (...,), bound (..., O, I) and how they came about."""

    value: Tensor
    residual: Tensor
    bound: Tensor
    kind: str
    method: str


def solve_resolvent(net: Pathways, damping: Tensor, radius: Tensor) -> Tensor:
    """Return ``sum_k damping^k H_k`` over all k, (..., O, I), differentiable.

    ``damping`` (...,): factor on every hop of each network. ``radius`` (...,): spectral radius of each
    network; damping times it is below 1.
    """
    ends = radius.detach() == 0
    if not bool(ends.any()):
        return _solve(net, damping)
    if bool(ends.all()):
        return narrow(sum_walks(net, damping).value, net.w_in.dtype)
    summed = sum_walks(net[ends], damping[ends]).value
    return merge(ends, narrow(summed, net.w_in.dtype), _solve(net[~ends], damping[~ends]))


def narrow(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a finite value in another dtype, or raise where it leaves its range."""
    if bool((value.detach().abs() > torch.finfo(dtype).max).any()):
        raise RangeError(
            f"the sum over all walks leaves the range of {dtype}; use float64, a smaller damping or a horizon"
        )
    return value.to(dtype)


def merge(where: Tensor, some: Tensor, others: Tensor) -> Tensor:
    """Put the rows of networks marked in ``where`` (...,) and those of the others back in their order."""
    whole = others.new_zeros(*where.shape, *others.shape[1:])
    return whole.index_put((where,), some.to(others)).index_put((~where,), others)


def _solve(net: Pathways, damping: Tensor) -> Tensor:
    by = damping[..., None, None]
    w_in, w_rec, w_out = (widen(w) for w in (net.w_in, net.w_rec, net.w_out))
    by = by.to(w_in.dtype)
    if net.is_sparse:
        solve: Callable[..., Tensor] = _SparseSolve.apply
        columns = solve(w_in, w_rec, float(damping))
    else:
        system = torch.eye(net.n_hidden, dtype=w_in.dtype, device=w_in.device) - by * w_rec
        columns = torch.linalg.solve(system, w_in)
    value: Tensor = by**2 * (w_out @ columns)
    if net.w_skip is not None:
        value = value + by * widen(net.w_skip)
    return value.to(net.w_in.dtype)


def sum_walks(net: Pathways, damping: Tensor) -> Solved:
    """Return ``sum_k damping^k H_k`` of networks without cycles, whose walks visit each unit once.

    Differentiable; added up in float64. With u the unit roundoff, a sum of n products of up to n factors of
    inner dimension H is off by at most ``g / (1 - g)`` times the same sum of magnitudes, g = n (H + 2) u.
    """
    wide = net.to(torch.float64)
    by = damping.double()[..., None, None]
    value, hops = _walks(wide.w_in, wide.w_rec, wide.w_out, by)
    plain = wide.detach()
    size, _ = _walks(plain.w_in.abs(), plain.w_rec.abs(), plain.w_out.abs(), by.detach())
    if net.w_skip is not None:
        assert wide.w_skip is not None
        value, size = value + by * wide.w_skip, size + (by * wide.w_skip).detach().abs()
    if not bool(torch.isfinite(size).all()):
        raise RangeError("walks grow beyond the range of float64; use a smaller damping or a horizon")
    rounding = (hops + 2) * (max(net.n_hidden, net.n_inputs) + 2) * torch.finfo(torch.float64).eps
    bound = size * (rounding / (1 - rounding))
    residual = bound.new_zeros(net.batch_shape)
    return Solved(value, residual, bound, "rounding of the sum", "sum over walks, as there are no cycles")


def _walks(w_in: Tensor, w_rec: Tensor, w_out: Tensor, by: Tensor) -> tuple[Tensor, int]:
    """Return ``sum_n by^(n+2) W_out W_rec^n W_in``, n below H, and how many terms were not zero."""
    block = by**2 * w_in
    total = w_out @ block
    for n in range(1, w_in.shape[-2]):
        block = by * (w_rec @ block)
        if not bool(block.detach().any()):
            return total, n
        total = total + w_out @ block
    return total, w_in.shape[-2]


def solve_certified(net: Pathways, damping: Tensor, contraction: Tensor) -> Solved:
    """Return the resolvent with a bound on its error.

    ``damping`` (...,): factor on every hop of each network; each has a cycle. ``contraction`` (...,):
    damping times spectral radius, for the cost model.
    """
    recurrent = (net.w_rec,) if net.factors is None else net.factors
    wanted = any(t is not None and t.requires_grad for t in (net.w_in, *recurrent, net.w_out, net.w_skip))
    plain = net.detach()
    found: list[tuple[float, Certificate]] = []
    methods: set[str] = set()
    for w_in, w_rec, w_out, a, q in _networks(plain, damping.detach(), contraction.detach()):
        system, method = _system(w_rec, a, q, net.n_inputs + net.n_outputs + PROBES)
        found.append((a**2, certify(system, w_in.double().cpu(), w_out.double().cpu())))
        methods.add(method)
    batch = net.batch_shape

    def gather(cells: list[Tensor]) -> Tensor:
        empty = torch.empty(0, dtype=torch.float64)  # there may be no network at all
        flat = torch.cat([empty, *(cell.flatten() for cell in cells)])
        return flat.reshape(*batch, net.n_outputs, net.n_inputs).to(net.w_in.device)

    value = gather([scale * one.value for scale, one in found])
    bound = gather([scale * one.bound for scale, one in found])
    residual = torch.tensor([one.residual for _, one in found], dtype=torch.float64).reshape(batch)
    if net.w_skip is not None:
        value = value + damping.double()[..., None, None] * net.w_skip.detach().double()
    value = value.to(widen(net.w_in[..., :1, :1]).dtype)
    if wanted and torch.is_grad_enabled():  # the certified value with the gradient of the plain solve
        smooth = _solve(net, damping)
        value = smooth + (value - smooth).detach()
    kinds = "; ".join(sorted({one.kind for _, one in found}))
    return Solved(value, residual.to(net.w_in.device, value.dtype), bound, kinds, "; ".join(sorted(methods)))


def _networks(net: Pathways, damping: Tensor, contraction: Tensor) -> Any:
    """Yield w_in, w_rec (a matrix or LowRank), w_out, damping and contraction of each network."""
    if net.is_sparse:
        yield net.w_in, net.w_rec, net.w_out, float(damping), float(contraction)
        return
    count = math.prod(net.batch_shape)

    def flat(w: Tensor) -> Tensor:
        return w.reshape(count, *w.shape[len(net.batch_shape) :])

    if net.factors is None:
        recurrent: Any = flat(net.w_rec)
    else:
        u, v, own = net.factors
        each = [None] * count if own is None else flat(own)
        recurrent = [LowRank(*parts) for parts in zip(flat(u), flat(v), each, strict=True)]
    scalars = (damping.reshape(count).tolist(), contraction.reshape(count).tolist())
    yield from zip(flat(net.w_in), recurrent, flat(net.w_out), *scalars, strict=True)


def _system(w_rec: Any, a: float, contraction: float, columns: int) -> tuple[System, str]:
    """Return the system of one network and the name of the method that solves it."""
    if isinstance(w_rec, LowRank):
        own = w_rec.u.new_zeros(w_rec.u.shape[0]) if w_rec.diagonal is None else w_rec.diagonal
        return woodbury_system(own, w_rec.u, w_rec.v, a), "Woodbury's identity"
    if w_rec.layout != torch.strided:
        return krylov_system(to_scipy(w_rec), a), "Krylov iterations"
    if prefers_krylov(w_rec.shape[0], w_rec.numel(), columns, contraction):
        return krylov_system(w_rec, a), "Krylov iterations"
    return dense_system(w_rec, a), "LU"


class _SparseSolve(torch.autograd.Function):
    """``(I - a W)^-1 W_in`` for a sparse W, with the gradient on its edges."""

    @staticmethod
    def forward(ctx: Any, w_in: Tensor, w_rec: Tensor, a: float) -> Tensor:
        system = krylov_system(to_scipy(w_rec), a)
        columns = system.solve(w_in.detach().double().cpu()).to(w_in)
        ctx.system, ctx.a = system, a
        ctx.save_for_backward(w_rec, columns)
        return columns

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        w_rec, columns = ctx.saved_tensors
        adjoint = ctx.system.solve_t(grad.double().cpu()).to(grad)
        rec = None
        if ctx.needs_input_grad[1]:
            pattern = narrow_csr(w_rec)
            sampled = torch.sparse.sampled_addmm(
                pattern, adjoint, columns.mT.contiguous(), beta=0.0, alpha=ctx.a
            )
            rec = csr(w_rec.crow_indices(), w_rec.col_indices(), sampled.values(), w_rec.shape)
        return adjoint, rec, None
