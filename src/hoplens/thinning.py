"""Removing recurrent weights: scores, one-shot masks and gradual schedules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hoplens.errors import ParameterError, check_choice, check_number
from hoplens.kernels import thin_products
from hoplens.pathways import Pathways

SCORES = ("magnitude", "pathway")


def weight_scores(net: Pathways, by: str = "magnitude", *, horizon: int | None = None) -> Tensor:
    """Score every recurrent weight; low scores go first.

    ``magnitude`` is ``|W|``. ``pathway`` is ``|W * d/dW sum_k |H_k|^2 / 2|``: how much the squared hop maps
    change, to first order, when the weight shrinks.

    Parameters
    ----------
    net : Pathways
        Dense, any leading axes.
    by : {"magnitude", "pathway"}
        The score.
    horizon : int
        Time steps for ``pathway``.

    Returns
    -------
    Tensor, shape (..., H, H)
        Not negative; zero for a weight that is zero.
    """
    check_choice("score", by, SCORES)
    if by == "magnitude":
        return net.w_rec.detach().abs()
    if horizon is None:
        raise ParameterError('by="pathway" needs horizon=')
    with torch.enable_grad():
        w_rec = net.w_rec.detach().requires_grad_()
        maps = thin_products(net.w_in.detach(), w_rec, net.w_out.detach(), horizon)
        (slope,) = torch.autograd.grad(0.5 * maps.square().sum(), w_rec)
    return (w_rec.detach() * slope).abs()


def keep_mask(scores: Tensor, amount: float | Tensor) -> Tensor:
    """Return which weights stay when a share of each network's weights with the lowest scores goes.

    Parameters
    ----------
    scores : Tensor, shape (..., H, H)
        Not negative.
    amount : float or Tensor of shape (...,)
        Share removed, in [0, 1], of all H * H weights; rounded to whole weights.

    Returns
    -------
    Tensor of bool, shape (..., H, H)
        Exactly ``round(amount * H * H)`` entries are False; ties go by position.
    """
    flat = scores.flatten(-2)
    share = torch.as_tensor(amount, dtype=torch.float64, device=flat.device)
    count = (share * flat.shape[-1]).round().expand(flat.shape[:-1])
    order = flat.argsort(dim=-1, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(-1, order, torch.arange(flat.shape[-1], device=flat.device).expand_as(order))
    return (rank >= count[..., None]).view_as(scores)


@dataclass(frozen=True)
class Thinning:
    """Gradual removal of recurrent weights while training goes on.

    Parameters
    ----------
    amount : float
        Share of all recurrent weights that is zero in the end, in [0, 1).
    start, stop : float
        Training progress over which weights go; the share follows the cubic schedule
        ``amount * (1 - (1 - s)^3)`` (Zhu and Gupta 2017).
    by : {"magnitude", "pathway"}
        The score.
    """

    amount: float
    start: float = 0.5
    stop: float = 0.8
    by: Literal["magnitude", "pathway"] = "magnitude"

    def __post_init__(self) -> None:
        check_number("amount", self.amount, least=0.0, below=1.0)
        check_choice("score", self.by, SCORES)
        if not 0 <= self.start < self.stop <= 1:
            raise ParameterError(f"thinning needs 0 <= start < stop <= 1, got {self.start}, {self.stop}")

    def share(self, progress: float) -> float:
        """Return the share of weights that should be zero at this progress."""
        done = min(max((progress - self.start) / (self.stop - self.start), 0.0), 1.0)
        return float(self.amount * (1 - (1 - done) ** 3))
