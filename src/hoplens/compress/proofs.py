"""Proven bounds on what a read-out at the end loses when only the last inputs are run."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hoplens.compress.intervals import (
    Box,
    activation_box,
    affine,
    box_step,
    check_one_way,
    gamma,
    part_step,
    slope_bound,
    up,
)
from hoplens.models.cells import RnnCell
from hoplens.models.stack import Stack

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

    The change is that of the network in exact arithmetic; see `hoplens.compress.intervals` on rounding.

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
    width = read.shape[-1] + 8  # operations of a sum over units and what goes with it
    contraction, scales = _contraction(stack, boxes, inputs)
    norm = math.inf if scales is None else _norm_up(apart[0] / scales)
    bounds = []
    for _ in range(steps + 1):
        shown = stack.cells[-1].emit(apart[-1])
        bound = up(read @ shown, width)
        if scales is not None:
            bound = torch.minimum(bound, up((read * scales).norm(dim=-1) * norm, width))
        bounds.append(bound)
        x, x_apart, new = inputs, None, []
        for cell, box, distance in zip(stack.cells, boxes, apart, strict=True):
            parted = part_step(cell, box, x, distance, x_apart)
            new.append(torch.minimum(parted, up(box.high - box.low)))  # both states are in the box
            x, x_apart = Box(*(cell.emit(end) for end in box)), cell.emit(new[-1])
        apart = new
        if scales is not None:  # each bound sharpens the other
            norm = min(contraction * norm * (1 + gamma(4)), _norm_up(apart[0] / scales))
            apart[0] = torch.minimum(apart[0], up(scales * norm))
    return torch.stack(bounds)


def _contraction(stack: Stack, boxes: list[Box], inputs: Box) -> tuple[float, Tensor | None]:
    """Return a bound of the scaled norm of a step's secant matrix, and the scales; (inf, None) without."""
    cell = stack.cells[0]
    if len(stack.cells) > 1 or not isinstance(cell, RnnCell):
        return math.inf, None
    slopes = largest_slopes(cell, boxes[0], inputs)
    scales = best_scales(slopes[:, None] * cell.w_hh)
    scaled = slopes[:, None] * cell.w_hh * scales / scales[:, None]
    # each entry is off by three operations
    inner = spectral_bound(scaled) + gamma(8) * _norm_up(scaled.flatten())
    if not cell.leaky:
        return inner * (1 + gamma(4)), scales
    leak = torch.as_tensor(cell.leak)
    return float((1 - leak).max() + leak.max() * inner) * (1 + gamma(8)), scales


def _norm_up(value: Tensor) -> float:
    """Return no less than the Euclidean norm of numbers that are each off by an operation or two."""
    return float(up(value.norm(), value.numel() + 8))


def spectral_bound(matrix: Tensor) -> float:
    """Return no less than the spectral norm of a float64 matrix, and little more.

    An SVD is trusted for nothing: its right vectors Q only make ``B = A Q`` have nearly orthogonal columns,
    so that the row sums of ``|B^T B|`` bound its norm tightly, and ``|A| <= |B| / sqrt(1 - |Q^T Q - I|)``.
    All roundings are bounded.

    Parameters
    ----------
    matrix : Tensor of float64, shape (m, n)
    """
    rows, columns = matrix.shape
    q = torch.linalg.svd(matrix).Vh.mT
    b = matrix @ q
    lost = gamma(columns + 2) * _norm_up((matrix.abs() @ q.abs()).flatten())
    gram = (b.mT @ b).abs() + gamma(rows + 2) * (b.abs().mT @ b.abs())
    image = float(up(gram.sum(1).max(), columns + 2 * rows + 8)) ** 0.5 * (1 + gamma(2)) + lost
    eye = torch.eye(columns, dtype=q.dtype, device=q.device)
    skew = (q.mT @ q - eye).abs() + gamma(columns + 4) * (q.abs().mT @ q.abs() + eye)
    off = float(up(skew.sum(1).max(), 3 * columns + 8))
    return image / (1 - off) ** 0.5 * (1 + gamma(8)) if off < 0.5 else float(_norm_up(matrix.flatten()))


def largest_slopes(cell: RnnCell, state: Box, x: Box) -> Tensor:
    """Return the largest slope of every unit's activation in a box, shape (S,)."""
    return slope_bound(cell.nonlinearity, activation_box(cell, state, x))


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
    alone = [Box(torch.zeros_like(box.low), torch.zeros_like(box.low)) for box in boxes]  # from zero states
    for x in inputs.unbind(1):
        boxes, alone = (_advance(stack, some, Box(x, x)) for some in (boxes, alone))
    cell = stack.cells[-1]
    shown, own = (Box(*(cell.emit(end) for end in some[-1])) for some in (boxes, alone))
    return affine(stack.readout(inputs), None, shown.minus(own)).size


__all__ = [
    "best_scales",
    "bound_after_any_past",
    "bound_everywhere",
    "largest_slopes",
    "reachable",
    "spectral_bound",
]
