"""What the outputs of a running network lose without each hidden unit."""

from __future__ import annotations

import torch
from torch import Tensor

from hoplens.models.rollout import Batch
from hoplens.models.stack import Stack

AT_ONCE = 1 << 22  # numbers of the states of one run


def ablate_units(stack: Stack, batch: Batch) -> Tensor:
    """Return how much the outputs change when each hidden unit is held at 0 at every step.

    ``|y - y without j| / |y - mean of y|``, over samples and outputs, y the read-out after the last valid
    step. A unit of an LSTM's ``h`` and its cell ``c`` are held apart, as nodes of the graph.

    Parameters
    ----------
    stack : Stack
        Running forward only.
    batch : Batch

    Returns
    -------
    Tensor of float64, shape (S,)
        In the order of the graph's hidden units; NaN where the outputs do not vary.
    """
    with torch.no_grad():
        units = sum(cell.n_state for cell in stack.cells)
        size = len(batch.inputs)
        whole = _run(stack, batch, torch.ones(1, units))
        spread = torch.linalg.vector_norm(whole - whole.mean(1, keepdim=True))
        found = []
        for part in torch.arange(units).split(max(1, AT_ONCE // (units * size))):
            keep = torch.ones(len(part), units)
            keep[torch.arange(len(part)), part] = 0
            found.append(torch.linalg.vector_norm(_run(stack, batch, keep) - whole, dim=(1, 2)))
        return torch.cat(found).cpu() / torch.where(spread > 0, spread, torch.nan).cpu()


def ablation_cost(stack: Stack, batch: Batch) -> float:
    """Return about how many multiplications `ablate_units` takes."""
    size, steps, _ = batch.inputs.shape
    states = [cell.n_state for cell in stack.cells]
    each = sum(4.0 * n * (n + cell.n_inputs) for n, cell in zip(states, stack.cells, strict=True))
    return each * sum(states) * size * steps


def _run(stack: Stack, batch: Batch, keep: Tensor) -> Tensor:
    """Return the outputs (N, B, O) in float64 of runs with the states multiplied by ``keep`` (N, S)."""
    like = batch.inputs
    masks = keep.to(like)[:, None].split([cell.n_state for cell in stack.cells], dim=-1)
    states = [like.new_zeros(len(keep), len(like), cell.n_state) for cell in stack.cells]
    shown = like.new_zeros(len(keep), len(like), stack.cells[-1].n_outputs)
    for t in range(like.shape[1]):
        x = like[None, :, t].expand(len(keep), -1, -1)
        for place, (cell, mask) in enumerate(zip(stack.cells, masks, strict=True)):
            states[place] = cell.step(states[place], x) * mask
            x = cell.emit(states[place])
        shown = torch.where((batch.lengths == t + 1)[:, None], x, shown)
    return (shown @ stack.readout(shown).mT).double()


__all__ = ["ablate_units", "ablation_cost"]
