"""Scores of recurrent weights, and which of them stay."""

from __future__ import annotations

import torch
from torch import Tensor

from hoplens.errors import ParameterError, check_choice, check_count
from hoplens.graph.chain import thin_products
from hoplens.graph.implicit import takes_models
from hoplens.graph.pathways import Pathways

SCORES = ("magnitude", "pathway")


@takes_models
def saliency(
    net: Pathways, by: str = "magnitude", *, horizon: int | None = None, removable: Tensor | None = None
) -> Tensor:
    """Score every recurrent weight; low scores go first.

    ``magnitude`` is ``|W|``. ``pathway`` is ``|W * d/dW sum_k |H_k|^2 / 2|``: how much the squared hop maps
    change, to first order, when the weight shrinks.

    ``net``: dense, any leading axes. ``by``: the score. ``horizon``: time steps for ``pathway``.
    ``removable`` (..., H, H), optional: the part of w_rec that removing a weight takes away: in a leaky
    network ``a W``, without the self-loops ``(1 - a) I`` of the leak. Default all of it. Returns (..., H,
    H): not negative; zero for a weight that is zero.
    """
    check_choice("score", by, SCORES)
    if net.is_sparse:
        raise ParameterError("saliency needs a dense w_rec; read the network from dense arrays")
    removable = net.w_rec if removable is None else removable
    if by == "magnitude":
        return removable.detach().abs()
    if horizon is None:
        raise ParameterError('by="pathway" needs horizon=')
    check_count("horizon", horizon)
    with torch.enable_grad():
        w_rec = net.w_rec.detach().requires_grad_()
        maps = thin_products(net.w_in.detach(), w_rec, net.w_out.detach(), horizon)
        (slope,) = torch.autograd.grad(0.5 * maps.square().sum(), w_rec)
    return (removable.detach() * slope).abs()


def top_mask(scores: Tensor, amount: float | Tensor) -> Tensor:
    """Return which weights stay when a share of each network's weights with the lowest scores goes.

    ``scores`` (..., H, H): not negative. ``amount`` (...,): share removed, in [0, 1], of all H * H weights;
    rounded to whole weights. Returns (..., H, H): exactly ``round(amount * H * H)`` entries are False; ties
    go by position.
    """
    flat = scores.flatten(-2)
    share = torch.as_tensor(amount, dtype=torch.float64, device=flat.device)
    if not bool(((share >= 0) & (share <= 1)).all()):
        raise ParameterError(f"amount must be a share in [0, 1] of all recurrent weights, got {amount}")
    count = (share * flat.shape[-1]).round().expand(flat.shape[:-1])
    order = flat.argsort(dim=-1, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(-1, order, torch.arange(flat.shape[-1], device=flat.device).expand_as(order))
    return (rank >= count[..., None]).view_as(scores)
