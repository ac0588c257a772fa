"""Resolvents of large networks from a random low-rank sketch, with a bound on what the sketch misses."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from hoplens.analysis.resolvent import (
    Resolvent,
    check_converges,
    given_radius,
    normalising_scale,
    round_bound,
)
from hoplens.errors import ParameterError, check_count, check_number
from hoplens.graph.implicit import takes_models
from hoplens.graph.pathways import Pathways
from hoplens.graph.solvers import (
    PROBE_FACTOR,
    PROBES,
    System,
    bound_inverse,
    certify,
    krylov_system,
    to_scipy,
    woodbury_system,
)
from hoplens.seeds import generator

OVERSAMPLE = 8


@takes_models
def approximate_resolvent(
    net: Pathways,
    *,
    rank: int,
    damping: float = 0.8,
    normalise: bool = True,
    radius: float | None = None,
    seed: int = 0,
    power_iterations: int = 1,
) -> Resolvent:
    """Approximate the full resolvent from a random low-rank sketch of W_rec, and bound the error.

    ``W_rec`` is replaced by ``Q Q^T W_rec`` with Q an orthonormal basis of its range under ``rank`` + 8
    random directions, which costs ``rank * H^2`` instead of ``H^3``. Weak pathways that lie outside that
    range are lost in such a sketch. Here the residuals of both the system and its transpose are computed
    against the true matrix: they correct the value to first order, and what they cannot tell is returned
    as ``error_bound``, entry by entry. `Resolvent.resolved` says which pathways are larger than it.

    Parameters
    ----------
    net : Pathways
        One network, dense or sparse.
    rank : int
        Rank of the sketch.
    damping, normalise, radius
        As in `resolvent`.
    seed : int, default 0
        Of the sketch.
    power_iterations : int, default 1
        Products with ``W W^T`` that sharpen the range.

    Returns
    -------
    Resolvent
        Not differentiable; computed in float64. ``bound_kind`` names what ``error_bound`` rests on.

    Raises
    ------
    UnstableError
        If damping times spectral radius is 1 or more.

    Notes
    -----
    Source: the low-rank fallback is that of arXiv:2605.03598, the sketch that of Halko, Martinsson and
    Tropp (2011); correction and bound are hoplens's own.
    """
    check_count("rank", rank)
    factor = check_number("damping", damping, above=0.0, **({"below": 1.0} if normalise else {}))
    if net.batch_shape:
        raise ParameterError(
            f"approximate_resolvent takes one network, got leading axes {tuple(net.batch_shape)}"
        )
    net = net.detach()
    size = given_radius(net, radius)
    scale = normalising_scale(size) if normalise else torch.ones_like(size)
    check_converges(factor, size / scale)
    a = factor / float(scale)
    source = generator("random probes", seed)
    exact = krylov_system(to_scipy(net.w_rec) if net.is_sparse else net.w_rec, a)
    left, right = _sketch(
        exact, net.n_hidden, a, min(rank + OVERSAMPLE, net.n_hidden), source, power_iterations
    )
    sketch = woodbury_system(left.new_zeros(net.n_hidden), left, right, a)
    mixed = System(
        exact.apply, exact.apply_t, sketch.solve, sketch.solve_t, exact.contraction, exact.rounding
    )
    inverse = _bound(exact, left, right, a, source)
    w_in, w_out = net.w_in.double().cpu(), net.w_out.double().cpu()
    found = certify(mixed, w_in, w_out, inverse=inverse)
    skip = 0.0 if net.w_skip is None else a * net.w_skip.double().cpu()
    return Resolvent(
        (a**2 * found.value + skip).to(net.w_in),
        size.to(net.w_in.dtype),
        net.w_in.new_tensor(found.residual),
        factor,
        None,
        normalise,
        net.input_names,
        net.output_names,
        error_bound=round_bound(a**2 * found.bound, a**2 * found.value + skip, net.w_in.dtype),
        bound_kind=found.kind,
        method=f"random sketch of rank {left.shape[1]}, corrected",
    )


def _sketch(
    exact: System, hidden: int, a: float, width: int, source: Any, powers: int
) -> tuple[Tensor, Tensor]:
    """Return U, V with ``U V^T`` the projection of W on its sketched range."""

    def product(x: Tensor) -> Tensor:
        return (x - exact.apply(x)) / a

    def product_t(x: Tensor) -> Tensor:
        return (x - exact.apply_t(x)) / a

    basis = product(torch.randn(hidden, width, generator=source, dtype=torch.float64))
    for _ in range(powers):
        basis = torch.linalg.qr(basis).Q
        basis = product(torch.linalg.qr(product_t(basis)).Q)
    basis = torch.linalg.qr(basis).Q
    return basis, product_t(basis)


def _bound(exact: System, left: Tensor, right: Tensor, a: float, source: Any) -> tuple[float, str]:
    """Bound ``|(I - a W)^-1|``: by the norm of W, else by the sketch and what it leaves, else by solves."""
    if exact.contraction < 1.0:
        return bound_inverse(exact, left.shape[0])
    probes = torch.randn(left.shape[0], PROBES, generator=source, dtype=torch.float64)
    missed = (probes - exact.apply(probes)) - a * (left @ (right.mT @ probes))  # a (W - U V^T) w
    gap = PROBE_FACTOR * float(torch.linalg.vector_norm(missed, dim=0).max())
    inverse = _sketch_inverse_norm(left, right, a)
    if gap * inverse < 1.0:
        return inverse / (
            1.0 - gap * inverse
        ), "norm of the sketch's inverse and of what it leaves, failing once in 1e10"
    return bound_inverse(exact, left.shape[0])


def _sketch_inverse_norm(left: Tensor, right: Tensor, a: float) -> float:
    """Return ``|(I - a U V^T)^-1|``: it differs from the identity only on the span of U and V."""
    span = torch.linalg.qr(torch.cat([left, right], dim=1)).Q
    u, v = span.mT @ left, span.mT @ right
    small = torch.eye(u.shape[0], dtype=u.dtype) - a * u @ v.mT
    least = float(torch.linalg.svdvals(small)[-1])
    return max(1.0, 1.0 / least) if least > 0 else math.inf


__all__ = ["approximate_resolvent"]
