"""Removing recurrent weights: scores, one-shot masks and gradual schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hoplens.errors import ParameterError, check_choice, check_count, check_number
from hoplens.implicit import takes_models
from hoplens.kernels import thin_products
from hoplens.pathways import Pathways

SCORES = ("magnitude", "pathway")


@takes_models
def weight_scores(
    net: Pathways, by: str = "magnitude", *, horizon: int | None = None, removable: Tensor | None = None
) -> Tensor:
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
    removable : Tensor, shape (..., H, H), optional
        The part of w_rec that removing a weight takes away: in a leaky network ``a W``, without the
        self-loops ``(1 - a) I`` of the leak. Default all of it.

    Returns
    -------
    Tensor, shape (..., H, H)
        Not negative; zero for a weight that is zero.

    Raises
    ------
    ParameterError
        If w_rec is sparse, or ``pathway`` comes without a horizon.
    """
    check_choice("score", by, SCORES)
    if net.is_sparse:
        raise ParameterError("weight_scores needs a dense w_rec; read the network from dense arrays")
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

    Raises
    ------
    ParameterError
        If an amount is outside [0, 1].
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


@dataclass(frozen=True)
class Thinning:
    """Gradual removal of recurrent weights while training goes on.

    Parameters
    ----------
    amount : float
        Share of all recurrent weights that is zero in the end, in [0, 1).
    start, stop : float
        Training progress over which weights go; the share follows the cubic schedule
        ``amount * (1 - (1 - s)^3)`` (Zhu and Gupta 2017), s the part of the way done.
    release : float, default 1
        Progress from which removed weights may come back (1: never). The networks are then dense again,
        but the weights that came back late are small and carry little.
    tolerance : float, default infinity
        A network is thinned only while its training loss (smoothed over time, as a share of the loss of a
        constant best guess) is at most this; meanwhile its schedule waits. One that has not learnt the task
        yet keeps its weights, and one that learns late is thinned less.
    by : {"magnitude", "pathway"}
        The score.
    least_strength : float, default 0
        Networks whose strength is below this are not thinned: a weak penalty asks for the best error, a
        strong one for few weights.
    """

    amount: float
    start: float = 0.5
    stop: float = 0.8
    release: float = 1.0
    tolerance: float = math.inf
    by: Literal["magnitude", "pathway"] = "magnitude"
    least_strength: float = 0.0

    def __post_init__(self) -> None:
        check_number("amount", self.amount, least=0.0, below=1.0)
        check_number("least_strength", self.least_strength, least=0.0)
        check_choice("score", self.by, SCORES)
        if not self.tolerance > 0:
            raise ParameterError(f"tolerance must be above 0, got {self.tolerance!r}")
        if not 0 <= self.start < self.stop <= self.release <= 1:
            raise ParameterError(
                "thinning needs 0 <= start < stop <= release <= 1, "
                f"got {self.start}, {self.stop}, {self.release}"
            )

    def share(self, done: Tensor) -> Tensor:
        """Return the share of weights that should be zero when a part of the schedule is done.

        Parameters
        ----------
        done : Tensor
            Part of the way from ``start`` to ``stop``; clamped to [0, 1].
        """
        return self.amount * (1 - (1 - done.clamp(0.0, 1.0)) ** 3)
