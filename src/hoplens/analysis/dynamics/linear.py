"""The network as a linear dynamical system: transfer function, Gramians, Hankel values, memory.

Hop maps are the system's Markov parameters, and the resolvent is its transfer function at z = 1/damping:
``R_io = damping^2 T(1 / damping)`` with ``T(z) = sum_n H_(n+2) z^-n``, up to the direct edges' term.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hoplens.analysis.lags import check_levels
from hoplens.errors import (
    ConvergenceError,
    ParameterError,
    ShapeError,
    UnstableError,
    UnsupportedModelError,
    check_count,
    check_number,
)
from hoplens.graph.implicit import takes_models
from hoplens.graph.pathways import Pathways
from hoplens.graph.timed import split_time

MAX_DOUBLINGS = 64


class StateSpace(NamedTuple):
    """``h_t = a h_(t-1) + b x_t``, ``y_t = c h_t + d x_t``: one step is one lag, in float64.

    Control engineers write the output before the input arrives: ``x' = a x + b u``, ``y = (c a) x +
    (c b + d) u`` is the same system with the state of one step before.
    """

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor


@takes_models
def state_space(net: Pathways) -> StateSpace:
    """Return a network as a state-space system in time, layers resolved.

    Edges between layers take no time: with R the edges inside layers and S those between them,
    ``a = (I - S)^-1 R`` and ``b = (I - S)^-1 W_in``.

    Parameters
    ----------
    net : Pathways
        Any leading axes.

    Raises
    ------
    UnsupportedModelError
        If a layer runs through reversed time: read one direction of the network.
    """
    if net.layers is not None and any(layer.reverse for layer in net.layers):
        raise UnsupportedModelError(
            'a bidirectional network is no causal system; read one half of it with direction="forward" or '
            '"backward"'
        )
    check_levels(net)
    net = net.check_finite().to(torch.float64)
    skip = torch.zeros_like(net.w_out @ net.w_in) if net.w_skip is None else net.w_skip
    forward, _, same = split_time(net)
    if net.layers is None or len(net.layers) == 1:
        return StateSpace(forward, net.w_in, net.w_out, skip)
    now = torch.eye(net.n_hidden, dtype=same.dtype, device=same.device) - same
    a = torch.linalg.solve_triangular(now, forward, upper=False, unitriangular=True)
    b = torch.linalg.solve_triangular(now, net.w_in, upper=False, unitriangular=True)
    return StateSpace(a, b, net.w_out, skip)


@takes_models
def transfer_function(net: Pathways, frequencies: Tensor, *, radius: float = 1.0) -> Tensor:
    """Return the transfer function over frequency.

    ``T(z) = W_out (I - W_rec / z)^-1 W_in + W_skip = sum_n M_n z^-n`` at ``z = radius exp(2 pi i f)``, M_n
    the lag maps. At f = 0 and radius 1/damping it is the resolvent, ``damping^2 T``. A solve, no inverse.

    Parameters
    ----------
    net : Pathways
        Any leading axes.
    frequencies : Tensor, shape (F,)
        In cycles a time step; 0.5 is the fastest.
    radius : float, default 1
        Above 0.

    Returns
    -------
    Tensor of complex128, shape (..., F, O, I)

    Raises
    ------
    ParameterError
        If z is an eigenvalue of the network.
    """
    size = check_number("radius", radius, above=0.0)
    a, b, c, d = state_space(net)
    f = torch.as_tensor(frequencies).to(a)
    if f.dim() != 1:
        raise ShapeError(f"frequencies must have shape (F,), got {tuple(f.shape)}")
    z = torch.polar(torch.full_like(f, size), 2 * torch.pi * f)[:, None, None]
    eye = torch.eye(a.shape[-1], dtype=torch.complex128, device=a.device)
    system = eye - a.to(eye).unsqueeze(-3) / z
    # solve_ex, as a singular system is the caller's to know, not LAPACK's
    inner, info = torch.linalg.solve_ex(system, b.to(eye).unsqueeze(-3).expand(*system.shape[:-1], -1))
    if bool((info != 0).any()) or not bool(torch.isfinite(torch.view_as_real(inner)).all()):
        raise ParameterError(
            "z is an eigenvalue of the network, so the transfer function is infinite; change the radius"
        )
    value: Tensor = c.to(eye).unsqueeze(-3) @ inner + d.to(eye).unsqueeze(-3)
    return value


@takes_models
def controllability_gramian(net: Pathways, horizon: int | None = None) -> Tensor:
    """Return ``sum_n a^n b b^T (a^T)^n``: which states inputs reach, and with how little input energy.

    Parameters
    ----------
    net : Pathways
        Any leading axes.
    horizon : int, optional
        Number of time steps L (n = 0 .. L - 1); None: all, which needs a spectral radius below 1.

    Returns
    -------
    Tensor of float64, shape (..., H, H)

    Raises
    ------
    UnstableError
        If the sum of all does not exist, at a spectral radius of 1 or more.
    ConvergenceError
        If it is not reached in 64 doublings.
    """
    system = state_space(net)
    return _gramian(system.a, system.b, horizon)


@takes_models
def observability_gramian(net: Pathways, horizon: int | None = None) -> Tensor:
    """Return ``sum_n (a^T)^n c^T c a^n``: how strongly a state shows in the outputs from then on.

    Parameters
    ----------
    net : Pathways
        Any leading axes.
    horizon : int, optional
        Number of time steps L; None: all, which needs a spectral radius below 1.

    Returns
    -------
    Tensor of float64, shape (..., H, H)
    """
    system = state_space(net)
    return _gramian(system.a.mT, system.c.mT, horizon)


def _gramian(a: Tensor, b: Tensor, horizon: int | None) -> Tensor:
    total = b @ b.mT
    if horizon is not None:
        column = b
        for _ in range(check_count("horizon", horizon) - 1):
            column = a @ column
            total = total + column @ column.mT
        return total
    radius = float(torch.linalg.eigvals(a).abs().max()) if a.numel() else 0.0
    if radius >= 1:
        raise UnstableError(
            f"the Gramian over all time needs a spectral radius below 1, got {radius:.6g}; give a horizon"
        )
    # Smith's doubling: after j rounds the sum of 2^j terms, so convergence is quadratic
    power = a
    for _ in range(MAX_DOUBLINGS):
        step = power @ total @ power.mT
        total = total + step
        if bool((step.abs().amax((-2, -1)) <= 1e-17 * total.abs().amax((-2, -1))).all()):
            return (total + total.mT) / 2
        power = power @ power
    raise ConvergenceError(f"the Gramian did not converge at spectral radius {radius:.9g}; give a horizon")


@takes_models
def hankel_singular_values(net: Pathways, horizon: int | None = None) -> Tensor:
    """Return the Hankel singular values, largest first: how many states the input-output maps need.

    The square roots of the eigenvalues of the product of both Gramians, by way of their factors: small
    values are accurate to about 1e-8 of the largest.

    Parameters
    ----------
    net : Pathways
        Any leading axes.
    horizon : int, optional
        Of both Gramians; None: all time.

    Returns
    -------
    Tensor of float64, shape (..., H)
    """
    reach = _root(controllability_gramian(net, horizon))
    show = _root(observability_gramian(net, horizon))
    values: Tensor = torch.linalg.svdvals(show.mT @ reach)
    return values


def _root(gramian: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(gramian)
    root: Tensor = vectors * values.clamp_min(0).sqrt().unsqueeze(-2)
    return root


@takes_models
def memory_function(net: Pathways, horizon: int, *, noise: float = 0.0) -> Tensor:
    """Return how much of each past input a linear read-out can recover from the state now.

    For independent unit-variance inputs, the squared correlation of the best linear reconstruction of
    input i of n steps before: ``b_i^T (a^n)^T (P + noise I)^-1 a^n b_i`` with P the controllability
    Gramian over all time (Jaeger 2001; Ganguli, Huh and Sompolinsky 2008).

    Parameters
    ----------
    net : Pathways
        Spectral radius below 1; any leading axes.
    horizon : int
        Lags n = 0 .. horizon - 1.
    noise : float, default 0
        Variance of independent noise in the state; at 0 directions that no input reaches are left out.

    Returns
    -------
    Tensor of float64, shape (..., N, I)
        Between 0 and 1.
    """
    level = check_number("noise", noise, least=0.0)
    a, b, _, _ = state_space(net)
    values, vectors = torch.linalg.eigh(_gramian(a, b, None))
    floor = 1e-13 * values.amax(-1, keepdim=True) if level == 0 else torch.zeros_like(values[..., :1])
    kept = values + level > floor
    weights = torch.where(kept, 1 / torch.where(kept, values + level, torch.ones_like(values)), 0.0)
    recovered, column = [], b
    for _ in range(check_count("horizon", horizon)):
        recovered.append(((vectors.mT @ column).square() * weights.unsqueeze(-1)).sum(-2))
        column = a @ column
    return torch.stack(recovered, dim=-2)


@takes_models
def memory_capacity(net: Pathways, horizon: int, *, noise: float = 0.0) -> Tensor:
    """Return the memory capacity of each input: `memory_function` summed over lags, shape (..., I).

    Over all lags and inputs the capacities add up to the rank of the controllability Gramian, at most H.

    Parameters
    ----------
    net : Pathways
    horizon : int
        Lags counted, from 0.
    noise : float, default 0
    """
    return memory_function(net, horizon, noise=noise).sum(-2)


__all__ = [
    "StateSpace",
    "controllability_gramian",
    "hankel_singular_values",
    "memory_capacity",
    "memory_function",
    "observability_gramian",
    "state_space",
    "transfer_function",
]
