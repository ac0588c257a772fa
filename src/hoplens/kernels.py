"""Hand-written forward and backward of the thin products that all hop maps are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def thin_products(w_in: Tensor, w_rec: Tensor, w_out: Tensor, length: int) -> Tensor:
    """Return ``W_out W_rec^n W_in`` for n = 0 .. length - 1.

    Recurses from the side with fewer nodes, so that a hop costs ``min(I, O) * H^2`` multiplications, and
    the backward pass keeps ``length * min(I, O) * H`` numbers. First derivatives only.

    Parameters
    ----------
    w_in : Tensor, shape (..., H, I)
    w_rec : Tensor, shape (..., H, H), dense, or sparse CSR of shape (H, H)
    w_out : Tensor, shape (..., O, H)
    length : int

    Returns
    -------
    Tensor, shape (..., length, O, I)
    """
    if w_rec.layout != torch.strided:
        return _sparse_products(w_in, w_rec, w_out, length)
    batch = w_in.shape[:-2]
    size = math.prod(batch)  # not -1, which torch refuses for an empty batch
    w_in, w_rec, w_out = (w.reshape(size, *w.shape[-2:]) for w in (w_in, w_rec, w_out))
    apply: Callable[[Tensor, Tensor, Tensor, int], Tensor] = _ThinProducts.apply
    if w_in.shape[-1] < w_out.shape[-2]:  # transpose duality: the reversed graph has the transposed maps
        values = apply(w_out.mT, w_rec.mT, w_in.mT, length).mT
    else:
        values = apply(w_in, w_rec, w_out, length)
    return values.reshape(*batch, *values.shape[-3:])


class _ThinProducts(torch.autograd.Function):
    """Thin products from the output side: rows_0 = W_out, rows_(n+1) = rows_n W_rec, H_n = rows_n W_in."""

    @staticmethod
    def forward(ctx: Any, w_in: Tensor, w_rec: Tensor, w_out: Tensor, length: int) -> Tensor:
        e, o, h = w_out.shape
        # time first: each step then writes one contiguous block, which bmm(out=) needs to be fast
        rows = w_out.new_empty(length, e, o, h)
        rows[0] = w_out
        for n in range(1, length):
            torch.bmm(rows[n - 1], w_rec, out=rows[n])
        rows = rows.transpose(0, 1).reshape(e, length * o, h)  # (E, L*O, H)
        ctx.save_for_backward(w_in, w_rec, rows)
        return torch.bmm(rows, w_in).view(e, length, o, w_in.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        w_in, w_rec, rows = ctx.saved_tensors
        e, length, o, i = grad.shape
        h = w_rec.shape[-1]
        flat = grad.reshape(e, length * o, i)  # (E, L*O, I)
        grad_in = torch.bmm(rows.mT, flat) if ctx.needs_input_grad[0] else None
        # adjoint rows, filled from the last hop down: a_n = G_n W_in^T + a_(n+1) W_rec^T
        adjoint = torch.bmm(flat, w_in.mT).view(e, length, o, h).transpose(0, 1).contiguous()
        back = w_rec.mT
        for n in range(length - 2, -1, -1):
            adjoint[n].baddbmm_(adjoint[n + 1], back)
        grad_rec = None
        if ctx.needs_input_grad[1]:
            if length > 1:
                later = adjoint[1:].transpose(0, 1).reshape(e, (length - 1) * o, h)
                grad_rec = torch.bmm(rows[:, : (length - 1) * o].mT, later)
            else:
                grad_rec = torch.zeros_like(w_rec)
        return grad_in, grad_rec, adjoint[0], None


def _sparse_products(w_in: Tensor, w_rec: Tensor, w_out: Tensor, length: int) -> Tensor:
    # a sparse matrix multiplies from the left, so the output side needs the transpose, made once
    from_outputs = w_out.shape[-2] <= w_in.shape[-1]
    step = w_rec.transpose(0, 1).to_sparse_csr() if from_outputs else w_rec
    column, other = (w_out.mT, w_in.mT) if from_outputs else (w_in, w_out)
    maps = [other @ column]
    for _ in range(length - 1):
        column = step @ column
        maps.append(other @ column)
    values = torch.stack(maps)
    return values.mT if from_outputs else values
