"""Run a model on given weights, with what its matrix products see rounded to grids: a simulation in floats.

A matrix product of a quantised network takes integer weights and integer activations; states, biases and
gates stay in floats. Rounding the operands of each product and multiplying in floats gives the same numbers,
up to rounding of the last bit, so this is how such a network is judged and trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hoplens.models.cells import TENSORS, WeightCell
from hoplens.models.grids import Grid
from hoplens.models.readers.modules import PARTS, weight_levels
from hoplens.models.recurrent_model import ModelInfo, RecurrentModel, last_steps

Tap = Callable[[str, Tensor], Tensor]  # name and values of an operand -> what the product sees
Add = Callable[[str, Tensor, Tensor], Tensor]  # weight, operand, product -> the product that counts

READOUT = ("readout.weight", "readout.bias")


def run_model(
    model: RecurrentModel,
    tensors: Mapping[str, Tensor],
    inputs: Tensor,
    lengths: Tensor | None = None,
    *,
    tap: Tap | None = None,
    add: Add | None = None,
) -> Tensor:
    """Run a model's structure on other weights, step by step, differentiable.

    ``model``: gives the structure: kind of core, layers, directions, ``info``. ``tensors``: weights under
    the model's own names; they may have leading axes (...), one network each. ``inputs`` (B, L, I).
    ``lengths`` (B,), optional: as in `RecurrentModel.forward`. ``tap``: sees every operand of a matrix
    product, by name: ``x_l0`` (inputs of a level), ``h_l0``, ``h_l0_reverse`` (its states), ``p_l0`` (before
    a projection), ``shown`` (what is read out), each of shape (..., B, n); what it returns is multiplied.
    ``add``: sees every product with its weight and bias.
    Returns (..., B, O), or (..., B, L, O) where ``info.every_step``.
    """
    levels = weight_levels(model.core)
    return run_levels(levels, model.info, tensors, inputs, lengths, tap=tap, add=add)


def run_levels(
    levels: Sequence[Sequence[WeightCell]],
    info: ModelInfo,
    tensors: Mapping[str, Tensor],
    inputs: Tensor,
    lengths: Tensor | None = None,
    *,
    tap: Tap | None = None,
    add: Add | None = None,
) -> Tensor:
    """Run cells by level and direction on given weights; all else as of `run_model`."""
    see: Tap = (lambda _, values: values) if tap is None else tap

    def affine(weight: str, bias: str, x: Tensor) -> Tensor:
        y = x @ tensors[weight].mT
        y = y + tensors[bias].unsqueeze(-2) if bias in tensors else y
        return y if add is None else add(weight, x, y)

    if info.window is not None and not info.every_step:
        inputs, lengths = last_steps(inputs, info.window, lengths)
    steps = list(inputs.unbind(1))
    for level, cells in enumerate(levels):
        seen = [see(f"x_l{level}", x) for x in steps]
        ways = [
            _run_cell(cell, tensors, f"_l{level}{suffix}", seen, see, affine)
            for suffix, cell in zip(("", "_reverse"), cells, strict=False)
        ]
        steps = ways[0] if len(ways) == 1 else [torch.cat(pair, dim=-1) for pair in zip(*ways, strict=True)]
    if info.every_step:
        return torch.stack([affine(*READOUT, see("shown", h)) for h in steps], dim=-2)
    last = steps[-1]
    if lengths is not None:
        picked = (lengths.to(inputs.device) - 1)[:, None]  # (B, 1)
        stacked = torch.stack(steps)  # (L, ..., B, n)
        places = picked.expand(*stacked.shape[1:])[None]
        last = stacked.gather(0, places)[0]
    return affine(*READOUT, see("shown", last))


def _run_cell(
    cell: WeightCell,
    tensors: Mapping[str, Tensor],
    suffix: str,
    inputs: list[Tensor],
    see: Tap,
    affine: Callable[[str, str, Tensor], Tensor],
) -> list[Tensor]:
    """Return the shown states after every step, each (..., B, n), in the order of time."""
    w_ih, w_hh, b_ih, b_hh, w_hr = (f"core.{part}{suffix}" for part in PARTS)
    weight = tensors[w_ih]
    state = [weight.new_zeros(*weight.shape[:-2], inputs[0].shape[-2], size) for size in cell.sizes]
    backwards = suffix.endswith("_reverse")
    shown = []
    for x in reversed(inputs) if backwards else inputs:
        by_h = affine(w_hh, b_hh, see(f"h{suffix}", state[0])) if w_hh in tensors else None
        rows = cell.join(TENSORS, affine(w_ih, b_ih, x), by_h)
        state = list(cell.update(TENSORS, rows, state))
        if w_hr in tensors:
            state[0] = affine(w_hr, "", see(f"p{suffix}", state[0]))
        shown.append(state[0])
    return shown[::-1] if backwards else shown


def record(
    model: RecurrentModel, tensors: Mapping[str, Tensor], inputs: Tensor, lengths: Tensor | None
) -> dict[str, Tensor]:
    """Return all values of every operand in a run without rounding, each of shape (..., n).

    Operands at padded steps count too.
    """
    seen: dict[str, list[Tensor]] = {}

    def tap(name: str, values: Tensor) -> Tensor:
        seen.setdefault(name, []).append(values.flatten(-2))
        return values

    with torch.no_grad():
        run_model(model, tensors, inputs, lengths, tap=tap)
    lead = max((len(v[0].shape) for v in seen.values()), default=1) - 1
    shape = next((v[0].shape[:lead] for v in seen.values() if v[0].dim() == lead + 1), torch.Size())
    return {name: torch.cat([v.expand(*shape, -1) for v in values], dim=-1) for name, values in seen.items()}


def rounded(grids: Mapping[str, Grid]) -> Tap:
    """Return a tap that puts every operand on its grid; operands without one stay as they are."""

    def tap(name: str, values: Tensor) -> Tensor:
        grid = grids.get(name)
        if grid is None:
            return values
        return Grid(grid.scale[..., None, None], grid.zero[..., None, None])(values)

    return tap
