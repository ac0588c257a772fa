"""Thin products of low-rank and of layered networks."""

from __future__ import annotations

import torch
from torch import Tensor

from hoplens.graph.pathways import Pathways
from hoplens.graph.scaled import scaled_products


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
