"""What states inputs reach and outputs see, at rest or along data, and the linear network of the foremost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hoplens.analysis.dynamics.linear import controllability_gramian, observability_gramian, state_space
from hoplens.errors import NonFiniteError, ParameterError, ShapeError, UnsupportedModelError, check_count
from hoplens.graph.implicit import takes_models
from hoplens.graph.pathways import Pathways
from hoplens.models.readers import read
from hoplens.models.readers.models import to_stack
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.models.rollout import as_batch
from hoplens.models.stack import Stack
from hoplens.seeds import generator

REACHED = 1e-10  # of the largest Hankel singular value: smaller ones are rounding
PROBES = 16  # random signs over outputs and steps, for models read out after every step


class Gramians(NamedTuple):
    """Of the hidden units that products see (of an LSTM: h), float64.

    ``reach`` (H, H) is the covariance of the states, ``show`` (H, H) the mean of ``g g^T`` with g the
    slopes of outputs by states, ``mean`` (H,) the mean state.
    """

    reach: Tensor
    show: Tensor
    mean: Tensor


def check_single(model: RecurrentModel) -> None:
    """Raise unless the core has one layer that runs one way."""
    core: Any = model.core
    if core.num_layers > 1 or core.bidirectional or getattr(core, "proj_size", 0):
        raise UnsupportedModelError(
            "a reduction of states is for one layer that runs forward, without a projection; this core has "
            f"{core.num_layers} layers{', both directions' if core.bidirectional else ''}"
        )


def linear_gramians(model: RecurrentModel, horizon: int | None) -> Gramians:
    """Return the Gramians of the network linearised at rest; inputs are white noise of variance 1.

    ``horizon``: time steps; None: all time, for stable networks.
    """
    net = read(model.core, readout=model.readout).detach()
    seen = model.core.hidden_size
    reach, show = (
        gramian(net, horizon)[:seen, :seen] for gramian in (controllability_gramian, observability_gramian)
    )
    return Gramians(reach, show, reach.new_zeros(seen))


def data_gramians(model: RecurrentModel, inputs: Tensor) -> Gramians:
    """Return the Gramians along given sequences: nothing is linearised but the slopes, which are exact."""
    stack = to_stack(model.core, model.readout)
    assert isinstance(stack, Stack)
    stack = stack.to(torch.float64)
    x = as_batch(stack, inputs).inputs.double()
    cell, read_out = stack.cells[0], stack.readout(x)
    with torch.enable_grad():
        state = x.new_zeros(len(x), cell.n_state)
        states: list[Tensor] = []
        shown = []
        for step in x.unbind(1):
            state = cell.step(state, step)
            state = state.detach().requires_grad_() if not states else state
            states.append(state)
            shown.append(cell.emit(state) @ read_out.mT)
        outputs = torch.stack(shown, dim=1) if model.info.every_step else shown[-1][:, None]
        slopes = [_slopes((outputs * probe).sum(), states) for probe in _probes(outputs)]
    seen = cell.n_outputs
    flat = torch.cat([s.detach()[:, :seen] for s in states])
    mean = flat.mean(0)
    reach = (flat - mean).mT @ (flat - mean) / len(flat)
    rows = torch.cat(slopes)[:, :seen]
    show = rows.mT @ rows / len(flat)
    return Gramians(reach, show, mean)


def _probes(outputs: Tensor) -> list[Tensor]:
    """Return weights (R, O) of sums of outputs whose squared slopes add up to those of all outputs."""
    steps, n = outputs.shape[1:]
    if steps == 1:
        return [row[None] for row in torch.eye(n, dtype=outputs.dtype)]
    source = generator("random probes", 0)
    signs = torch.randint(0, 2, (PROBES, steps, n), generator=source) * 2 - 1
    return list(signs.to(outputs) / PROBES**0.5)


def _slopes(total: Tensor, states: list[Tensor]) -> Tensor:
    found = torch.autograd.grad(total, states, retain_graph=True, allow_unused=True)
    return torch.cat([torch.zeros_like(s) if g is None else g for g, s in zip(found, states, strict=True)])


def choose_units(gramians: Gramians, count: int) -> tuple[int, ...]:
    """Return the units from which the others can be rebuilt with least harm to the outputs, ascending.

    Taken one after the other, each the one that lowers ``trace(Q P')`` most, P' the covariance of what the
    units taken so far leave unexplained.
    """
    left = gramians.reach.clone()
    kept: list[int] = []
    floor = 1e-12 * float(left.diagonal().max().clamp_min(1e-300))
    for _ in range(count):
        variance = left.diagonal()
        gain = (left * (gramians.show @ left)).sum(0) / variance.clamp_min(floor)
        gain[kept] = -1.0
        gain = torch.where(variance > floor, gain, gain.clamp_max(0.0))  # nothing of it is left to explain
        unit = int(gain.argmax())
        if float(variance[unit]) > floor:
            left = left - left[:, unit, None] * left[unit] / variance[unit]
        kept.append(unit)
    return tuple(sorted(kept))


def root(gramian: Tensor) -> Tensor:
    """Return R with ``R R^T`` the Gramian, by its eigenvectors."""
    if gramian.dim() < 2 or gramian.shape[-1] != gramian.shape[-2]:
        raise ShapeError(f"a Gramian is square, got {tuple(gramian.shape)}")
    if not bool(torch.isfinite(gramian).all()):
        raise NonFiniteError("the states of this network leave the range of float64; take smaller weights")
    values, vectors = torch.linalg.eigh(gramian)
    return vectors * values.clamp_min(0).sqrt().unsqueeze(-2)  # type: ignore[no-any-return]


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
    """Return both projections and all Hankel singular values of two Gramians."""
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
