"""One step of a cell, linearised exactly between two points instead of at one.

A Jacobian says what an endlessly small change would do. A secant says what the change from one point to
another did. With ``S = (f(b) - f(a)) / (b - a)`` in place of the slope of an activation, and products split
evenly, ``p_b q_b - p_a q_a = mean(p) (q_b - q_a) + mean(q) (p_b - p_a)``, the step of a cell is linear in
its differences without remainder. So the contributions of all inputs add up to the change of the output,
and so do the products along walks, hop by hop. Where both points agree, a secant is the Jacobian.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from hoplens.models.cells import TENSORS, Cell, Saved, WeightCell

NODES = 6  # Gauss-Legendre nodes for a cell of which only its step is known: exact to degree 11


Features = tuple[Tensor, ...]  # (L, N, .) each: what is kept of a run


class Rule(Protocol):
    """How a cell is run over many sequences at once, and linearised between any two of them."""

    exact: bool  # whether secants leave no remainder

    def run(self, x: Tensor, lengths: Tensor | None, reverse: bool) -> tuple[Tensor, Features]:
        """Return the states (L, N, S) after each step and the features, for inputs (L, N, I)."""

    def secants(self, a: Features, b: Features) -> Saved:
        """Return the linear maps between runs; every tensor keeps the leading axes (L, N)."""

    def pull(self, secant: Saved, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply rows (N, R, S) by the map of a step: (N, R, S) by state, and what `leave` takes."""

    def leave(self, inner: Tensor) -> Tensor:
        """Turn what `pull` returned for the input, last axis any, into rows (..., I)."""


def rule_for(cell: Cell) -> Rule:
    """Return how to linearise a cell.

    A subclass with a step of its own is another cell: what holds for its base need not hold for it.

    Parameters
    ----------
    cell : Cell
    """
    if isinstance(cell, WeightCell) and type(cell).step is WeightCell.step:
        return _Equations(cell)
    return _ByNodes(cell)


def _states(cell: Cell, x: Tensor, lengths: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    """Run a cell; return the states (L, N, S) before and after each step."""
    before = x.new_zeros(*x.shape[:2], cell.n_state)
    states = torch.empty_like(before)
    state = before[0]
    for t in range(len(x) - 1, -1, -1) if reverse else range(len(x)):
        before[t] = state
        new = cell.step(state, x[t])
        # padding comes first in reversed time: the state waits at its start until the sequence begins
        state = new if lengths is None else torch.where((t < lengths)[:, None], new, state)
        states[t] = state
    return before, states


class _Equations:
    """A cell of weights; features: what inputs and states contribute, and the state before each step."""

    exact = True

    def __init__(self, cell: WeightCell) -> None:
        self.cell, self.joined = cell, cell.from_input == cell.from_state

    def run(self, x: Tensor, lengths: Tensor | None, reverse: bool) -> tuple[Tensor, Features]:
        cell = self.cell
        kernel = cell.torch_kernel() if lengths is None and x.device.type == "cpu" else None
        if kernel is None:
            before, states = _states(cell, x, lengths, reverse)
        else:
            # several times faster than a loop in Python; on a GPU it asks for weights in one block of memory
            start, weights = (
                x.new_zeros(1, x.shape[1], cell.hidden),
                [cell.w_ih, cell.w_hh, cell.b_ih, cell.b_hh],
            )
            states = kernel(x.flip(0) if reverse else x, start, weights, True, 1, 0.0, False, False, False)[0]
            states = states.flip(0) if reverse else states
            before = pad(states[1:], (0, 0, 0, 0, 0, 1)) if reverse else pad(states[:-1], (0, 0, 0, 0, 1, 0))
        # not the states themselves: what a secant divides must come from the very same arguments
        by_x, by_h = linear(x, cell.w_ih, cell.b_ih), linear(cell.feed(before), cell.w_hh, cell.b_hh)
        return states, (by_x.add_(by_h), before) if self.joined else (by_x, by_h, before)

    def secants(self, a: Features, b: Features) -> Saved:
        rows, state = (
            list(zip(*each, strict=True)) for each in zip(self._leaves(a), self._leaves(b), strict=True)
        )
        return self.cell.linear_map(rows, state)

    def _leaves(self, features: Features) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        by_h = None if self.joined else features[1]
        return self.cell.join(TENSORS, features[0], by_h), features[-1].split(self.cell.sizes, dim=-1)

    def pull(self, secant: Saved, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.cell.pull_rows(secant, rows)

    def leave(self, inner: Tensor) -> Tensor:
        return linear(inner, self.cell.w_ih.mT)


class _ByNodes:
    """A cell known by its step alone: Jacobians averaged over the line from point to point.

    Features: state and input. Exact in the limit of many nodes.
    """

    exact = False

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        places, weights = np.polynomial.legendre.leggauss(NODES)
        self.nodes = [(0.5 + 0.5 * float(p), 0.5 * float(w)) for p, w in zip(places, weights, strict=True)]

    def run(self, x: Tensor, lengths: Tensor | None, reverse: bool) -> tuple[Tensor, Features]:
        before, states = _states(self.cell, x, lengths, reverse)
        return states, (before, x)

    def secants(self, a: Features, b: Features) -> Saved:
        return (*a, *(v - u for u, v in zip(a, b, strict=True)))

    def pull(self, secant: Saved, rows: Tensor) -> tuple[Tensor, Tensor]:
        state, x, by_state, by_x = secant
        total = None
        for place, weight in self.nodes:
            saved = self.cell.save(state + place * by_state, x + place * by_x)
            part = self.cell.pull(saved, weight * rows)
            total = part if total is None else (total[0] + part[0], total[1] + part[1])
        assert total is not None
        return total

    def leave(self, inner: Tensor) -> Tensor:
        return inner


__all__ = ["Features", "Rule", "rule_for"]
