"""Run a `Stack` over sequences and keep every state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from hoplens.errors import ShapeError
from hoplens.models.cells import Cell, LstmCell
from hoplens.models.stack import Point, Stack
from hoplens.models.tensors import check_finite, check_lengths, numbers


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences, padded at the end.

    Attributes
    ----------
    inputs : Tensor, shape (B, L, I)
    lengths : Tensor of int64, shape (B,)
        Valid steps of each sequence.
    """

    inputs: Tensor
    lengths: Tensor

    @property
    def full(self) -> bool:
        """Whether all sequences have the same length."""
        return bool((self.lengths == self.inputs.shape[1]).all())

    @property
    def mask(self) -> Tensor:
        """Valid steps, bool, shape (B, L)."""
        steps = torch.arange(self.inputs.shape[1], device=self.inputs.device)
        return steps < self.lengths[:, None]


@dataclass(frozen=True, eq=False)
class Trace:
    """What a run went through.

    Attributes
    ----------
    points : list of (Tensor, Tensor)
        For every cell of the stack the state before each step (B, L, S) and its input (B, L, I_l).
    shown : Tensor, shape (B, L, n)
        What the last level passed on to the read-out.
    """

    points: Point
    shown: Tensor


def as_batch(stack: Stack, inputs: Any, lengths: Tensor | None = None) -> Batch:
    """Return inputs in the module's own layout as a Batch: (B, L, I), (L, B, I) or a PackedSequence.

    ``lengths``, shape (B,), are the valid steps of sequences padded at the end; a PackedSequence has its own.
    """
    if isinstance(inputs, PackedSequence) and lengths is not None:
        raise ShapeError("a PackedSequence has its own lengths; leave lengths= out")
    if isinstance(inputs, PackedSequence):
        values, lengths = pad_packed_sequence(inputs, batch_first=True)
        values = numbers(values, "inputs")
    else:
        values = numbers(inputs, "inputs")
        if values.dim() == 3 and not stack.batch_first:
            values = values.transpose(0, 1)
    layout = "(B, L, I)" if stack.batch_first else "(L, B, I) (this module is not batch_first)"
    if values.dim() != 3 or values.shape[-1] != stack.n_inputs:
        raise ShapeError(
            f"inputs must have shape {layout} with I = {stack.n_inputs}, got {tuple(values.shape)}; add an "
            "axis with unsqueeze for a single sequence"
        )
    if 0 in values.shape:
        raise ShapeError(
            f"inputs need at least one sequence of at least one step, got none in (B, L, I) = "
            f"{tuple(values.shape)}"
        )
    check_finite("inputs", values)
    values = values.to(stack.like(values))
    lengths = check_lengths(lengths, values)
    if lengths is None:
        lengths = torch.full((values.shape[0],), values.shape[1])
    return Batch(values, lengths.to(values.device))


def turn(x: Tensor, lengths: Tensor) -> Tensor:
    """Return sequences (B, L, I) back to front, or those so by step again; zero after the end."""
    other = lengths[:, None] - 1 - torch.arange(x.shape[1], device=x.device)
    turned = x.gather(1, other.clamp_min(0)[..., None].expand_as(x))
    return turned * (other >= 0)[..., None]


def split_state(stack: Stack, state: Any, leading: torch.Size, like: Tensor) -> list[Tensor]:
    """Return the start state of every cell, shape (*leading, S), from torch's form or flat vectors.

    ``state`` is None (zeros), a tensor (n_cells, *leading, S), a pair (h, c) of such tensors for LSTMs,
    or, for a single cell, one flat state (*leading, S).
    """
    cells = stack.cells
    if state is None:
        return [like.new_zeros(*leading, cell.n_state) for cell in cells]
    single = len(cells) == 1
    if isinstance(state, tuple | list):
        parts = [torch.as_tensor(part).to(like) for part in state]
        if len(parts) != 2 or not all(isinstance(cell, LstmCell) for cell in cells):
            raise ShapeError(f"a pair (h, c) is the state of an LSTM; {stack.label} takes one tensor")
        parts = [part.unsqueeze(0) if part.dim() == len(leading) + 1 and single else part for part in parts]
        if any(part.shape[0] != len(cells) for part in parts):
            raise _wrong_state(stack, leading, parts[0])
        states = [torch.cat([h, c], dim=-1) for h, c in zip(*parts, strict=True)]
    else:
        whole = torch.as_tensor(state).to(like)
        whole = whole.unsqueeze(0) if whole.dim() == len(leading) + 1 and single else whole
        if whole.dim() != len(leading) + 2 or whole.shape[0] != len(cells):
            raise _wrong_state(stack, leading, whole)
        states = list(whole.unbind(0))
    for cell, part in zip(cells, states, strict=True):
        if part.shape != (*leading, cell.n_state):
            raise _wrong_state(stack, leading, part)
    return states


def _wrong_state(stack: Stack, leading: torch.Size, came: Tensor) -> ShapeError:
    sizes = sorted({cell.n_state for cell in stack.cells})
    return ShapeError(
        f"the state must have shape {(len(stack.cells), *leading, sizes[-1])} (layers, ..., state), or be a "
        f"pair (h, c) for an LSTM; got {tuple(came.shape)}"
    )


def run(stack: Stack, batch: Batch, state: Any = None) -> Trace:
    """Run the network as `unroll` does, without gradients."""
    with torch.no_grad():
        return unroll(stack, batch, state)


def unroll(stack: Stack, batch: Batch, state: Any = None) -> Trace:
    """Run the network from a start state (zeros by default), differentiable any number of times.

    Dropout between layers is off, as in evaluation. The backward direction of a bidirectional level
    starts at the last valid step of each sequence.
    """
    starts = split_state(stack, state, batch.inputs.shape[:1], batch.inputs)
    points: Point = []
    x = batch.inputs
    for level in stack.levels:
        shown = []
        for direction, cell in enumerate(level):
            before, emitted = _run_cell(cell, x, starts[len(points)], batch.lengths, bool(direction))
            points.append((before, x))
            shown.append(emitted)
        x = torch.cat(shown, dim=-1)
    return Trace(points, x)


def _run_cell(cell: Cell, x: Tensor, start: Tensor, lengths: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    states = [start]
    times = range(x.shape[1] - 1, -1, -1) if reverse else range(x.shape[1])
    for t in times:
        new = cell.step(states[-1], x[:, t])
        # padding comes first in reversed time: the state waits at its start until the sequence begins
        states.append(torch.where((t < lengths)[:, None], new, states[-1]) if reverse else new)
    before, after = states[:-1], states[1:]
    if reverse:
        before, after = before[::-1], after[::-1]
    return torch.stack(before, dim=1), cell.emit(torch.stack(after, dim=1))


__all__ = ["Batch", "Trace", "as_batch", "run", "split_state", "turn", "unroll"]
