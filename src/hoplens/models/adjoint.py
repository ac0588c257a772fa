"""Exact Jacobians along a run, pulled back from the read-out through levels and steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hoplens.models.cells import Cell
from hoplens.models.rollout import Batch, Trace
from hoplens.models.stack import Stack


def pull_stack(stack: Stack, trace: Trace, batch: Batch, reads: Tensor | None = None) -> Tensor:
    """Return the Jacobians of one output a sequence by the input of every step, shape (B, L, O, I).

    Products are taken from the output side, O rows at a time. With gradients on, they are differentiable by
    the weights of cells that are made of weights, whose slopes are held: taken as numbers.

    Parameters
    ----------
    stack : Stack
    trace : Trace
        Of a run on ``batch``.
    batch : Batch
    reads : Tensor of int64, shape (B,), optional
        Steps (from 0) whose output is taken; default the last valid one.
    """
    reads = batch.lengths - 1 if reads is None else reads
    seed = stack.readout(trace.shown)  # (O, n)
    size, steps, _ = trace.shown.shape

    def pull(place: int, part: slice, above: Tensor | None) -> Tensor:
        cell = stack.cells[place]
        top = seed[:, part] if above is None else None
        entering = _Entering(top, above, reads, batch.lengths, cell.emission())
        return _pull_cell(cell, trace.points[place], entering, place in stack.backward_cells)

    rows = stack.pull_back(pull)  # (B, L, O, I)
    return rows.reshape(size, steps, seed.shape[0], stack.n_inputs)


@dataclass(frozen=True, eq=False)
class _Entering:
    """Rows (B, O, S) that enter a cell's adjoint at each step: the read-out's seed, or the level above."""

    seed: Tensor | None
    rows: Tensor | None
    reads: Tensor
    lengths: Tensor
    emission: Tensor | None

    @property
    def n_rows(self) -> int:
        if self.rows is not None:
            return self.rows.shape[-2]
        assert self.seed is not None
        return self.seed.shape[0]

    def add(self, t: int, to: Tensor) -> Tensor:
        if self.rows is not None:
            here: Tensor | None = self.rows[:, t]
        else:
            assert self.seed is not None
            ends = self.reads == t
            here = self.seed * ends[:, None, None] if bool(ends.any()) else None
        if here is None:
            return to
        return to + (here if self.emission is None else here @ self.emission.to(here))


def _pull_cell(cell: Cell, point: tuple[Tensor, Tensor], entering: _Entering, reverse: bool) -> Tensor:
    states, inputs = point
    size, steps, _ = states.shape
    with torch.no_grad():  # slopes are numbers
        saved = cell.save(states, inputs)
    rows = states.new_zeros(size, entering.n_rows, cell.n_state)
    order = range(steps) if reverse else range(steps - 1, -1, -1)
    reached: list[Tensor] = []
    for t in order:
        rows = entering.add(t, rows)
        if reverse:  # padding never fed the state
            rows = rows * (t < entering.lengths)[:, None, None]
        rows, by_input = cell.pull(tuple(part[:, t] for part in saved), rows)
        reached.append(by_input)
    return torch.stack(reached if reverse else reached[::-1], dim=1)


__all__ = ["pull_stack"]
