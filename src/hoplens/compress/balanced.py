"""Balanced truncation of linear networks: fewer states, with a bound of the error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoplens.analysis.dynamics.linear import controllability_gramian, observability_gramian, state_space
from hoplens.compress.gramians import root
from hoplens.errors import ParameterError, check_count
from hoplens.graph.implicit import takes_models
from hoplens.graph.pathways import Pathways

REACHED = 1e-10  # of the largest Hankel singular value: smaller ones are rounding


@dataclass(frozen=True, eq=False)
class BalancedTruncation:
    """A linear network with fewer states.

    Attributes
    ----------
    net : Pathways
        The reduced network, float64; its states are the first balanced ones.
    values : Tensor, shape (..., H)
        Hankel singular values of the whole network, largest first.
    bound : Tensor, shape (...,)
        Twice the sum of the discarded ones: at no frequency is the gain of the error above it, so no input
        of unit energy makes an error of more energy than its square. Infinite with a horizon, for which no
        such bound is known.
    left, right : Tensor, shape (..., r, H) and (..., H, r)
        Reduced states are ``left @ h``; ``right`` rebuilds h; ``left @ right`` is the identity.
    """

    net: Pathways
    values: Tensor
    bound: Tensor
    left: Tensor
    right: Tensor


@takes_models
def balanced_truncation(net: Pathways, units: int, *, horizon: int | None = None) -> BalancedTruncation:
    """Reduce a linear network to the states that inputs reach most and outputs see most.

    With Gramians ``P = R R^T`` and ``Q = S S^T`` and ``S^T R = U diag(s) V^T``, the projections are
    ``s^-1/2 U^T S^T`` and ``R V s^-1/2``, first ``units`` rows and columns (Moore 1981; the square-root
    method of Tombs and Postlethwaite 1987; bound of Glover 1984, in discrete time Al-Saggaf and Franklin
    1987).

    Parameters
    ----------
    net : Pathways
        Any leading axes. Layers are resolved in time: the reduced network has one layer.
    units : int
        States kept, r.
    horizon : int, optional
        Time steps of both Gramians; None: all, for a spectral radius below 1.

    Returns
    -------
    BalancedTruncation

    Raises
    ------
    ParameterError
        If fewer states than ``units`` are both reached and seen.
    UnstableError
        Without a horizon, for a spectral radius of 1 or more.
    """
    system = state_space(net)
    kept = check_count("units", units)
    left, right, values = balance(
        controllability_gramian(net, horizon), observability_gramian(net, horizon), kept
    )
    reduced = Pathways(
        left @ system.b,
        left @ system.a @ right,
        system.c @ right,
        system.d if bool(system.d.any()) else None,
        input_names=net.input_names,
        output_names=net.output_names,
        provenance=f"{kept} balanced states of {net.n_hidden}, {net.provenance}",
    )
    bound = 2 * values[..., kept:].sum(-1)
    return BalancedTruncation(
        reduced, values, bound if horizon is None else torch.full_like(bound, math.inf), left, right
    )


def balance(reach: Tensor, show: Tensor, units: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return both projections and all Hankel singular values of two Gramians.

    Parameters
    ----------
    reach, show : Tensor of float64, shape (..., H, H)
    units : int

    Raises
    ------
    ParameterError
        If fewer states than ``units`` are both reached and seen.
    """
    r, s = root(reach), root(show)
    u, values, vh = torch.linalg.svd(s.mT @ r)
    alive = int((values > REACHED * values[..., :1]).sum(-1).min())
    if units > alive:
        raise ParameterError(
            f"only {alive} states are both reached by inputs and seen by outputs; keep at most {alive}, got "
            f"units={units}"
        )
    scale = values[..., :units].rsqrt()
    left = scale.unsqueeze(-1) * (u[..., :units].mT @ s.mT)
    right = (r @ vh.mT[..., :units]) * scale.unsqueeze(-2)
    return left, right, values


__all__ = ["BalancedTruncation", "balance", "balanced_truncation"]
