"""The graph of an ensemble of cells: the Jacobian of a time step as a differentiable function of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hoplens.errors import ParameterError, check_choice
from hoplens.graph.parts import Leak, numbered
from hoplens.graph.pathways import Pathways

if TYPE_CHECKING:
    from hoplens.models.ensemble import Ensemble

PLACES = ("raw", "origin", "point")


def linearise(
    ensemble: Ensemble, at: str | None, *, state: Tensor | None = None, x: Tensor | None = None
) -> Pathways:
    """Return the graph of E networks at a point; see `Ensemble.pathways`.

    The Jacobian is that of the cell's own equations, see `hoplens.models.cells.kernels.Kernel.jacobian`;
    "raw" takes slopes as 1.
    """
    default = "raw" if ensemble.plain else "origin"
    place = check_choice("at", at or default, PLACES)
    if (place == "point") != (state is not None or x is not None):
        raise ParameterError('state= and x= go with at="point", and at="point" needs them')
    if place == "raw":
        return _raw(ensemble)
    kernel, h = ensemble.kernel, ensemble.n_hidden
    zeros = ensemble.weight.new_zeros
    state = zeros(ensemble.size, h * len(kernel.parts)) if state is None else state
    x = zeros(ensemble.size, ensemble.n_inputs) if x is None else x
    w_in, w_rec = kernel.jacobian(ensemble.weight, h, state, x)
    where = "the origin (state 0, input 0)" if place == "origin" else "a given state and input"
    said = f"Jacobian of {ensemble.cell} cells at {where}"
    if len(kernel.parts) == 1:
        leak = None
        if ensemble.plain and ensemble.leak < 1:  # what a gate keeps is learnt, what a leak keeps is not
            ones = ensemble.weight.new_ones(ensemble.size, h)
            leak = Leak((1 - ensemble.leak) * ones, ensemble.leak * ones)
        return Pathways(w_in, w_rec, ensemble.readout, leak=leak, provenance=said)
    unseen = torch.zeros_like(ensemble.readout).repeat(1, 1, kernel.memories)
    return Pathways(
        w_in,
        w_rec,
        torch.cat([ensemble.readout, unseen], dim=2),
        hidden_names=[name for part in kernel.parts for name in numbered(part, h)],
        hidden_modules=[part for part in kernel.parts for _ in range(h)],
        provenance=said,
    )


def _raw(ensemble: Ensemble) -> Pathways:
    if not ensemble.plain:
        raise ParameterError(f'a {ensemble.cell} cell has no single recurrent matrix; use at="origin"')
    w_in, w_rec, _ = ensemble.blocks()
    leak, where = None, "raw weights"
    if ensemble.leak < 1:
        leak = Leak(
            *(w_rec.new_full((ensemble.n_hidden,), part) for part in (1 - ensemble.leak, ensemble.leak))
        )
        w_in, w_rec = ensemble.leak * w_in, torch.diag_embed(leak.kept) + ensemble.leak * w_rec
        where = f"leak {ensemble.leak:g}"
    return Pathways(w_in, w_rec, ensemble.readout, leak=leak, provenance=f"{where} ({ensemble.cell})")


__all__ = ["linearise"]
