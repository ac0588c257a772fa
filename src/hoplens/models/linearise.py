"""The graph of an ensemble of cells: the Jacobian of a time step as a differentiable function of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hoplens.errors import ParameterError, check_choice
from hoplens.graph.parts import Leak, numbered
from hoplens.graph.pathways import Pathways
from hoplens.models.cells.kernels import Slopes

if TYPE_CHECKING:
    from hoplens.models.ensemble import Ensemble

PLACES = ("raw", "origin", "point")


def linearise(
    ensemble: Ensemble, at: str | None, *, state: Tensor | None = None, x: Tensor | None = None
) -> Pathways:
    """Return the graph of E networks at a point; see `Ensemble.pathways`.

    With the pre-activations ``z = W_h h + W_x x + b`` at the point and primes for slopes there:

    * tanh, leaky: ``J = (1 - a) I + a D W_h``, ``B = a D W_x``, D = diag(1 - tanh^2 z), or I for "raw";
    * GRU: ``J = diag(u) + diag((h - n) u') W_u + diag((1 - u)(1 - n^2)) (diag(r) W_n + diag(z_h r') W_r)``,
      and B alike with W_x and without the r before the candidate;
    * LSTM: for c ``J_c = [diag(g i') W_i + diag(c f') W_f + diag(i (1 - g^2)) W_g, diag(f)]``, and for h
      ``J_h = diag(o (1 - tanh^2 c')) J_c + [diag(tanh(c') o') W_o, 0]``; B alike with W_x.
    """
    default = "raw" if ensemble.plain else "origin"
    place = check_choice("at", at or default, PLACES)
    if (place == "point") != (state is not None or x is not None):
        raise ParameterError('state= and x= go with at="point", and at="point" needs them')
    if place == "raw":
        return _raw(ensemble)
    h, i = ensemble.n_hidden, ensemble.n_inputs
    width = h * (1 + ensemble.kernel.memories)
    zeros = ensemble.weight.new_zeros
    state = zeros(ensemble.size, width) if state is None else state
    x = zeros(ensemble.size, i) if x is None else x
    shown, memory = state[:, :h], state[:, h:] if ensemble.kernel.memories else None
    point = torch.cat([shown, x, torch.ones_like(x[:, :1])], dim=1)
    z = torch.bmm(point.unsqueeze(1), ensemble.weight)[:, 0]
    slopes = ensemble.kernel.slopes(z, shown, memory)
    where = "the origin (state 0, input 0)" if place == "origin" else "a given state and input"
    return _assemble(ensemble, slopes, f"Jacobian of {ensemble.cell} cells at {where}")


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


def _assemble(ensemble: Ensemble, slopes: Slopes, provenance: str) -> Pathways:
    h, i = ensemble.n_hidden, ensemble.n_inputs
    from_hidden, from_input, _ = ensemble.weight.mT.split([h, i, 1], dim=2)  # (E, K, H), (E, K, I)
    rec, inp = (_weigh(slopes.gates, part) for part in (from_hidden, from_input))
    keep = torch.diag_embed(slopes.keep)
    if slopes.shown is None or slopes.output is None:
        leaky = ensemble.plain and ensemble.leak < 1
        w_rec = rec if ensemble.plain and not leaky else rec + keep
        leak = None
        if leaky:  # what a gate keeps is learnt, what a leak keeps is not
            leak = Leak(slopes.keep, ensemble.leak * torch.ones_like(slopes.keep))
        return Pathways(inp, w_rec, ensemble.readout, leak=leak, provenance=provenance)
    shown, output = slopes.shown.unsqueeze(2), slopes.output.unsqueeze(2)
    by_h = torch.cat([shown * rec + output * from_hidden[:, 2 * h : 3 * h], shown * keep], dim=2)
    w_rec = torch.cat([by_h, torch.cat([rec, keep], dim=2)], dim=1)
    w_in = torch.cat([shown * inp + output * from_input[:, 2 * h : 3 * h], inp], dim=1)
    w_out = torch.cat([ensemble.readout, torch.zeros_like(ensemble.readout)], dim=2)
    return Pathways(
        w_in,
        w_rec,
        w_out,
        hidden_names=(*numbered("h", h), *numbered("c", h)),
        hidden_modules=["h"] * h + ["c"] * h,
        provenance=provenance,
    )


def _weigh(gates: Tensor, weights: Tensor) -> Tensor:
    """Return the sum over row blocks of ``diag(gates) W``, shape (E, H, columns)."""
    blocks = weights.reshape(*gates.shape, -1)
    total: Tensor = (gates.unsqueeze(3) * blocks).sum(dim=1)
    return total


__all__ = ["linearise"]
