"""Proven bounds on what a read-out at the end loses when only the last inputs are run."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hoplens.compress.intervals import (
    Box,
    activation_box,
    box_step,
    check_one_way,
    part_step,
    tanh_slope,
)
from hoplens.stack import Stack
from hoplens.torch_cells import RnnCell

SCALING_STEPS = 150  # of the search for unit scales in which the recurrent matrix contracts most
SCALING_RATE = 0.03


def reachable(stack: Stack, inputs: Box, steps: int) -> list[Box]:
    """Return for every cell a box of all states that it can be in after 0 .. ``steps`` steps from zero.

    Parameters
    ----------
    stack : Stack
        In float64, forward only.
    inputs : Box, shape (I,)
        Range of the inputs at every step.
    steps : int
    """
    check_one_way(stack)
    boxes = [Box(*(inputs.low.new_zeros(cell.n_state),) * 2) for cell in stack.cells]
    for _ in range(steps):
        new = [old.hull(box) for old, box in zip(boxes, _advance(stack, boxes, inputs), strict=True)]
        if all(
            torch.equal(a, b)
            for old, box in zip(boxes, new, strict=True)
            for a, b in zip(old, box, strict=True)
        ):
            break  # nothing new is reached from here on
        boxes = new
    return boxes


def _advance(stack: Stack, boxes: list[Box], x: Box) -> list[Box]:
    new = []
    for cell, box in zip(stack.cells, boxes, strict=True):
        new.append(box_step(cell, box, x))
        x = Box(*(cell.emit(end) for end in new[-1]))
    return new


def bound_everywhere(stack: Stack, inputs: Box, steps: int) -> Tensor:
    """Bound the change of every output for every sequence in a range, window by window.

    Two sound bounds go together step by step, the smaller wins: the element-wise one of `part_step`, which
    knows that walks end (a delay line forgets exactly), and, for one layer of plain or leaky units, the
    spectral norm of ``D^-1 diag(s) W_hh D`` with s the largest slopes and D the unit scales that make it
    small, which knows that walks of opposite sign cancel.

    Parameters
    ----------
    stack : Stack
        In float64, forward only, with its read-out.
    inputs : Box, shape (I,)
    steps : int
        Longest sequence.

    Returns
    -------
    Tensor, shape (steps + 1, O)
        Row w for a window of w steps; row 0 bounds the change of what is read out of zero states.
    """
    boxes = reachable(stack, inputs, steps)
    apart = [box.size for box in boxes]
    read = stack.readout(inputs.low).abs()
    contraction, scales = _contraction(stack, boxes, inputs)
    norm = math.inf if scales is None else float((apart[0] / scales).norm())
    bounds = []
    for _ in range(steps + 1):
        shown = stack.cells[-1].emit(apart[-1])
        bound = read @ shown
        if scales is not None:
            bound = torch.minimum(bound, (read * scales).norm(dim=-1) * norm)
        bounds.append(bound)
        x, x_apart, new = inputs, None, []
        for cell, box, distance in zip(stack.cells, boxes, apart, strict=True):
            parted = part_step(cell, box, x, distance, x_apart)
            new.append(torch.minimum(parted, box.high - box.low))  # both states are in the box
            x, x_apart = Box(*(cell.emit(end) for end in box)), cell.emit(new[-1])
        apart = new
        if scales is not None:  # each bound sharpens the other
            norm = min(contraction * norm * (1 + 1e-12), float((apart[0] / scales).norm()))
            apart[0] = torch.minimum(apart[0], scales * norm)
    return torch.stack(bounds)


def _contraction(stack: Stack, boxes: list[Box], inputs: Box) -> tuple[float, Tensor | None]:
    """Return a bound of the scaled norm of a step's secant matrix, and the scales; (inf, None) without."""
    cell = stack.cells[0]
    if len(stack.cells) > 1 or not isinstance(cell, RnnCell):
        return math.inf, None
    slopes = largest_slopes(cell, boxes[0], inputs)
    scales = best_scales(slopes[:, None] * cell.w_hh)
    inner = float(torch.linalg.matrix_norm(slopes[:, None] * cell.w_hh * scales / scales[:, None], ord=2))
    inner *= 1 + 1e-10
    if not cell.leaky:
        return inner, scales
    leak = torch.as_tensor(cell.leak)
    return float((1 - leak).max() + leak.max() * inner), scales


def largest_slopes(cell: RnnCell, state: Box, x: Box) -> Tensor:
    """Return the largest slope of every unit's activation in a box, shape (S,)."""
    z = activation_box(cell, state, x)
    if cell.nonlinearity == "tanh":
        return tanh_slope(z)
    return (z.high > 0).to(z.high) if cell.nonlinearity == "relu" else torch.ones_like(z.high)


def best_scales(matrix: Tensor) -> Tensor:
    """Return positive scales D, shape (S,), that make the spectral norm of ``D^-1 M D`` small.

    Any scales give a sound bound; these come from a descent on the logarithms, from the best of no scaling
    and the Perron vectors of ``|M|`` (with which the norm is the spectral radius of ``|M|`` at most).
    """
    matrix = matrix.detach()
    size = matrix.abs() + 1e-9
    right, left = torch.ones_like(size[0]), torch.ones_like(size[0])
    for _ in range(200):
        right, left = size @ right, size.mT @ left
        right, left = right / right.norm(), left / left.norm()
    perron = ((right / left).log() / 2).clamp(-20, 20)

    def norm(log: Tensor) -> Tensor:
        value: Tensor = torch.linalg.matrix_norm(matrix * (log[None] - log[:, None]).exp(), ord=2)
        return value

    with torch.enable_grad():
        starts = [torch.zeros_like(perron), perron]
        log = min(starts, key=lambda start: float(norm(start))).clone().requires_grad_()
        optimiser = torch.optim.Adam([log], lr=SCALING_RATE)
        best, least = log.detach().clone(), math.inf
        for _ in range(SCALING_STEPS):
            value = norm(log)
            if float(value.detach()) < least:
                best, least = log.detach().clone(), float(value.detach())
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
    return best.exp()


def bound_after_any_past(stack: Stack, inputs: Tensor, pasts: list[Box]) -> Tensor:
    """Bound the change of every output for given last inputs, whatever came before.

    Parameters
    ----------
    stack : Stack
        In float64, forward only, with its read-out.
    inputs : Tensor, shape (B, w, I)
        The last w inputs.
    pasts : list of Box
        For every cell, all states that a past can leave behind: `reachable`.

    Returns
    -------
    Tensor, shape (B, O)
    """
    rows = len(inputs)
    boxes = [Box(*(end.expand(rows, -1) for end in box)) for box in pasts]
    states = [torch.zeros_like(box.low) for box in boxes]
    for x in inputs.unbind(1):
        boxes = _advance(stack, boxes, Box(x, x))
        states, _ = stack.advance(states, x)
    cell, box, state = stack.cells[-1], boxes[-1], states[-1]
    read = stack.readout(inputs)
    low, high = (cell.emit(end) - cell.emit(state) for end in box)
    up, down = read.clamp_min(0).mT, read.clamp_max(0).mT
    return torch.maximum(high @ up + low @ down, -(low @ up + high @ down))


__all__ = ["best_scales", "bound_after_any_past", "bound_everywhere", "largest_slopes", "reachable"]
