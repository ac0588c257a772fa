"""Full resolvents as linear solves: differentiable values, and certificates of their error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hoplens.kernels import widen
from hoplens.lowrank import LowRankPathways
from hoplens.pathways import Pathways
from hoplens.steps import csr, narrow_csr
from hoplens.systems import (
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


@dataclass(frozen=True)
class Solved:
    """A resolvent's value (..., O, I) with residual (...,), bound (..., O, I) and how they came about."""

    value: Tensor
    residual: Tensor
    bound: Tensor
    kind: str
    method: str


def solve_resolvent(net: Pathways, damping: Tensor) -> Tensor:
    """Return ``sum_k damping^k H_k`` over all k, (..., O, I), differentiable; damping has shape (...,)."""
    by = damping[..., None, None]
    w_in, w_rec, w_out = (widen(w) for w in (net.w_in, net.w_rec, net.w_out))
    by = by.to(w_in.dtype)
    if net.is_sparse:
        columns = _SparseSolve.apply(w_in, w_rec, float(damping))
    else:
        system = torch.eye(net.n_hidden, dtype=w_in.dtype, device=w_in.device) - by * w_rec
        columns = torch.linalg.solve(system, w_in)
    value = by**2 * (w_out @ columns)
    if net.w_skip is not None:
        value = value + by * widen(net.w_skip)
    return value.to(net.w_in.dtype)


def solve_certified(net: Pathways, damping: Tensor, contraction: Tensor) -> Solved:
    """Return the resolvent with a bound on its error.

    Parameters
    ----------
    net : Pathways
    damping : Tensor, shape (...,)
        Factor on every hop of each network.
    contraction : Tensor, shape (...,)
        Damping times spectral radius, for the cost model.
    """
    wanted = any(t is not None and t.requires_grad for t in (net.w_in, net.w_rec, net.w_out, net.w_skip))
    plain = net.detach()
    parts, methods, kinds = [], [], []
    for w_in, w_rec, w_out, a, q in _networks(plain, damping, contraction):
        edges = w_rec.values().numel() if plain.is_sparse else w_rec.numel()
        columns = net.n_inputs + net.n_outputs + PROBES
        krylov = plain.is_sparse or prefers_krylov(net.n_hidden, edges, columns, q)
        system = (
            krylov_system(to_scipy(w_rec) if plain.is_sparse else w_rec, a)
            if krylov
            else dense_system(w_rec, a)
        )
        found = certify(system, w_in.double().cpu(), w_out.double().cpu())
        parts.append((a**2 * found.value, a**2 * found.bound, found.residual))
        methods.append("Krylov iterations" if krylov else "LU")
        kinds.append(found.kind)
    batch = net.batch_shape
    value, bound = (
        torch.stack([part[n] for part in parts])
        .reshape(*batch, net.n_outputs, net.n_inputs)
        .to(net.w_in.device)
        for n in (0, 1)
    )
    residual = torch.tensor([part[2] for part in parts], dtype=torch.float64).reshape(batch)
    if net.w_skip is not None:
        value = value + damping.double()[..., None, None] * net.w_skip.detach().double()
    value = value.to(widen(net.w_in[..., :1, :1]).dtype)
    if wanted and torch.is_grad_enabled():  # the certified value with the gradient of the plain solve
        smooth = solve_resolvent(net, damping)
        value = smooth + (value - smooth).detach()
    kind = max(set(kinds), key=kinds.count) if len(set(kinds)) > 1 else kinds[0]
    return Solved(value, residual.to(net.w_in.device, value.dtype), bound, kind, methods[0])


def _networks(net: Pathways, damping: Tensor, contraction: Tensor) -> Any:
    if net.is_sparse:
        yield net.w_in, net.w_rec, net.w_out, float(damping), float(contraction)
        return
    blocks = (w.reshape(-1, *w.shape[-2:]) for w in (net.w_in, net.w_rec, net.w_out))
    yield from zip(*blocks, damping.reshape(-1).tolist(), contraction.reshape(-1).tolist(), strict=True)


def solve_low_rank(net: LowRankPathways, damping: Tensor) -> Solved:
    """Return the resolvent of a low-rank network by Woodbury's identity, with a bound on its error."""
    a = float(damping)
    system: System = woodbury_system(net.diagonal, net.left, net.right, a)
    found: Certificate = certify(system, net.w_in.detach().double().cpu(), net.w_out.detach().double().cpu())
    value = (a**2 * found.value).to(net.w_in.device)
    residual = torch.tensor(found.residual, dtype=value.dtype, device=value.device)
    return Solved(value, residual, a**2 * found.bound, found.kind, "Woodbury's identity")


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
    @once_differentiable  # type: ignore[untyped-decorator]
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


__all__ = ["Solved", "solve_certified", "solve_low_rank", "solve_resolvent"]
