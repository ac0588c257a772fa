"""What states inputs reach and outputs see: by linear theory at rest, or along data."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hoplens.analysis.dynamics.linear import controllability_gramian, observability_gramian
from hoplens.errors import ShapeError, UnsupportedModelError
from hoplens.models.readers import read
from hoplens.models.readers.models import to_stack
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.models.rollout import as_batch
from hoplens.models.stack import Stack
from hoplens.seeds import generator

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

    Parameters
    ----------
    model : RecurrentModel
    horizon : int or None
        Time steps; None: all time, for stable networks.
    """
    net = read(model.core, readout=model.readout).detach()
    seen = model.core.hidden_size
    reach, show = (
        gramian(net, horizon)[:seen, :seen] for gramian in (controllability_gramian, observability_gramian)
    )
    return Gramians(reach, show, reach.new_zeros(seen))


def data_gramians(model: RecurrentModel, inputs: Tensor) -> Gramians:
    """Return the Gramians along given sequences: nothing is linearised but the slopes, which are exact.

    Parameters
    ----------
    model : RecurrentModel
    inputs : Tensor, shape (B, L, I)
    """
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

    Parameters
    ----------
    gramians : Gramians
    count : int
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
    values, vectors = torch.linalg.eigh(gramian)
    return vectors * values.clamp_min(0).sqrt().unsqueeze(-2)  # type: ignore[no-any-return]


__all__ = ["Gramians", "check_single", "choose_units", "data_gramians", "linear_gramians", "root"]
