"""Thin products of low-rank and of layered networks."""

from __future__ import annotations

import torch
from torch import Tensor

from hoplens.kernels import thin_products
from hoplens.pathways import Pathways


def hop_products(net: Pathways, length: int, levels: int = 1) -> Tensor:
    """Return ``W_out W_rec^n W_in`` for n = levels - 1 .. levels + length - 2, shape (..., length, O, I).

    Powers below ``levels - 1`` are zero in a stack: no walk crosses all its layers in fewer edges. With
    ``W_rec = U V^T`` the powers are ``U (V^T U)^(n-1) V^T``, so a hop costs r^2, not H^2, per input.
    """
    count = length + levels - 1
    if net.factors is None:
        values = _products(net.w_in, net.w_rec, net.w_out, count)
    else:
        u, v = net.factors
        values = (net.w_out @ net.w_in).unsqueeze(-3)
        if count > 1:
            later = _products(v.mT @ net.w_in, v.mT @ u, net.w_out @ u, count - 1)
            values = torch.cat([values, later], dim=-3)
    return values[..., levels - 1 :, :, :]


def _products(w_in: Tensor, w_rec: Tensor, w_out: Tensor, count: int) -> Tensor:
    wanted = torch.is_grad_enabled() and any(w.requires_grad for w in (w_in, w_rec, w_out))
    if wanted or w_rec.layout != torch.strided:
        return thin_products(w_in, w_rec, w_out, count)
    if w_in.shape[-1] < w_out.shape[-2]:  # transpose duality, as in thin_products
        return _streamed(w_out.mT, w_rec.mT, w_in.mT, count).mT
    return _streamed(w_in, w_rec, w_out, count)


def _streamed(w_in: Tensor, w_rec: Tensor, w_out: Tensor, count: int) -> Tensor:
    """Return the thin products without the rows that only a backward pass would need.

    Memory beyond the answer: two blocks the size of W_out.
    """
    batch = w_in.shape[:-2]
    entering, step, rows = (w.detach().reshape(-1, *w.shape[-2:]) for w in (w_in, w_rec, w_out))
    values = rows.new_empty(count, *rows.shape[:2], entering.shape[-1])  # hops first: contiguous writes
    for n in range(count):
        if n:
            rows = torch.bmm(rows, step)
        torch.bmm(rows, entering, out=values[n])
    return values.movedim(0, 1).reshape(*batch, count, *values.shape[-2:])


__all__ = ["hop_products"]
