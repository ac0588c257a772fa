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
        values = thin_products(net.w_in, net.w_rec, net.w_out, count)
    else:
        u, v = net.factors
        values = (net.w_out @ net.w_in).unsqueeze(-3)
        if count > 1:
            later = thin_products(v.mT @ net.w_in, v.mT @ u, net.w_out @ u, count - 1)
            values = torch.cat([values, later], dim=-3)
    return values[..., levels - 1 :, :, :]


__all__ = ["hop_products"]
