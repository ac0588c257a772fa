"""Sound bounds on recurrent cells: boxes that hold every state, and how far two trajectories can part.

Two trajectories see the same last inputs and differ in their past. `box_step` encloses all states that
follow from a box of states and a box of inputs. `part_step` bounds how far two states inside that box can
be apart after a step, given how far apart they were: element by element, monotone in the distances.

What is enclosed is the network in exact arithmetic, of the weights as they stand in float64: every
operation is rounded outward, by a bound of its own error. With u = 2^-53, an addition or product is off by
u of its result, a sum of n products by ``gamma_n = n u / (1 - n u)`` times the sum of their magnitudes
(Higham 2002, section 3.1), tanh and the logistic function of PyTorch by a few units in the last place, for
which `ULPS` leaves room.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hoplens.errors import UnsupportedModelError
from hoplens.models.cells import Cell, WeightCell
from hoplens.models.stack import Stack

UNIT = 2.0**-52  # twice the unit roundoff u, so that bounds may be computed in float64 themselves
ULPS = 8  # that tanh and the logistic function may be off by; vectorised ones are off by one to four
TINY = 1e-300  # more than an underflow loses
STEP_OPERATIONS = 64  # of the longest formula in `part_step` besides its matrix products, generously


class Box(NamedTuple):
    """All points between ``low`` and ``high``, element by element, shape (..., n)."""

    low: Tensor
    high: Tensor

    @property
    def size(self) -> Tensor:
        """Largest magnitude in the box."""
        return torch.maximum(self.low.abs(), self.high.abs())

    def hull(self, other: Box) -> Box:
        """Return the smallest box that holds both."""
        return Box(torch.minimum(self.low, other.low), torch.maximum(self.high, other.high))

    def times(self, other: Box) -> Box:
        """Return a box of all products."""
        corners = torch.stack([a * b for a in self for b in other])
        return Box(corners.amin(0), corners.amax(0)).rounded()

    def plus(self, other: Box) -> Box:
        """Return the box of all sums."""
        return Box(self.low + other.low, self.high + other.high).rounded()

    def part(self, where: slice) -> Box:
        """Return some of the elements."""
        return Box(self.low[..., where], self.high[..., where])

    def minus(self, other: Box) -> Box:
        """Return the box of all differences."""
        return Box(self.low - other.high, self.high - other.low).rounded()

    def rounded(self, ulps: int = 1) -> Box:
        """Return the box rounded outward, its ends being off by so many units in the last place."""
        return Box(-up(-self.low, ulps), up(self.high, ulps))


def gamma(n: int) -> float:
    """Return a bound of the relative error of n operations on numbers of one sign."""
    return n * UNIT / (1 - n * UNIT)


def up(value: Tensor, operations: int = 1) -> Tensor:
    """Return no less than the exact value of what took so many operations, each off by u of its result."""
    return value + (gamma(operations + 2) * value.abs() + TINY)


def affine(weight: Tensor, bias: Tensor | None, box: Box) -> Box:
    """Return the box of ``W x + b`` for x in a box."""
    more, less = weight.clamp_min(0).mT, weight.clamp_max(0).mT
    low, high = box.low @ more + box.high @ less, box.high @ more + box.low @ less
    size = box.size @ weight.abs().mT
    if bias is not None:
        low, high, size = low + bias, high + bias, size + bias.abs()
    margin = up(gamma(2 * weight.shape[-1] + 4) * size, 2 * weight.shape[-1] + 4)
    return Box(low - margin, high + margin).rounded()


class _Boxes:
    """The equations of a cell on boxes."""

    def add(self, a: Box, b: Box) -> Box:
        return a.plus(b)

    def mul(self, a: Box, b: Box) -> Box:
        return a.times(b)

    def mix(self, share: Any, a: Box, b: Box) -> Box:
        # grows with a and b and is linear in the share: its extremes are at the ends of the share
        def at(end: Tensor) -> Box:
            return Box(end, end).times(a).plus(Box(1 - end, 1 - end).rounded().times(b))

        low, high = _ends(share, a.low)
        return at(low).hull(at(high))

    def apply(self, function: str, a: Box) -> Box:
        if function == "linear":
            return a
        # tanh, sigmoid and relu grow, so ends go to ends
        ends = Box(getattr(torch, function)(a.low), getattr(torch, function)(a.high))
        if function == "relu":
            return ends
        least = -1.0 if function == "tanh" else 0.0
        return Box(*(end.clamp(least, 1.0) for end in ends.rounded(ULPS)))

    def split(self, a: Box, count: int) -> list[Box]:
        pairs = zip(a.low.chunk(count, dim=-1), a.high.chunk(count, dim=-1), strict=True)
        return [Box(low, high) for low, high in pairs]


class _Pair(NamedTuple):
    """Two values in a box, and how far apart they can be."""

    box: Box
    apart: Tensor


class _Pairs:
    """The equations of a cell on pairs; distances are rounded up by `part_step`, all at once."""

    def add(self, a: _Pair, b: _Pair) -> _Pair:
        return _Pair(a.box.plus(b.box), a.apart + b.apart)

    def mul(self, a: _Pair, b: _Pair) -> _Pair:
        # p1 q1 - p2 q2 = p1 (q1 - q2) + (p1 - p2) q2
        return _Pair(a.box.times(b.box), a.box.size * b.apart + a.apart * b.box.size)

    def mix(self, share: Any, a: _Pair, b: _Pair) -> _Pair:
        # s1 a1 + (1 - s1) b1 - ... = s1 (a1 - a2) + (1 - s1)(b1 - b2) + (s1 - s2)(a2 - b2)
        gate = share.box if isinstance(share, _Pair) else share
        ends = (end * a.apart + (1 - end) * b.apart for end in _ends(gate, a.apart))
        apart = torch.maximum(*ends)
        if isinstance(share, _Pair):
            gap = torch.maximum(a.box.high - b.box.low, b.box.high - a.box.low)
            apart = apart + share.apart * gap
        return _Pair(BOXES.mix(gate, a.box, b.box), apart)

    def apply(self, function: str, a: _Pair) -> _Pair:
        return _Pair(BOXES.apply(function, a.box), _apart(function, *a))

    def split(self, a: _Pair, count: int) -> list[_Pair]:
        pairs = zip(BOXES.split(a.box, count), a.apart.chunk(count, dim=-1), strict=True)
        return [_Pair(box, apart) for box, apart in pairs]


BOXES, PAIRS = _Boxes(), _Pairs()


def _ends(share: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the largest share, of a box or of a constant."""
    if isinstance(share, Box):
        return share.low, share.high
    constant = torch.as_tensor(share).to(like)
    return constant, constant


def slope_bound(function: str, box: Box) -> Tensor:
    """Return the largest slope of a function in a box."""
    if function == "relu":
        return (box.high > 0).to(box.high)
    if function == "linear":
        return torch.ones_like(box.high)
    nearest = torch.maximum(box.low, torch.minimum(box.high, torch.zeros_like(box.low)))  # to 0
    # 1 - t^2 loses what t is off by in all digits, so the margin is absolute
    if function == "tanh":
        return (1 - nearest.tanh().square() + 4 * ULPS * UNIT).clamp_max(1.0)
    return (nearest.sigmoid() * (1 - nearest.sigmoid()) + 4 * ULPS * UNIT).clamp_max(0.25)


def _apart(function: str, box: Box, distance: Tensor) -> Tensor:
    """Bound how far a function can part points of a box that are a distance apart."""
    most = slope_bound(function, box) * distance
    if function in ("relu", "linear"):
        return most
    # of all pairs at a distance, tanh parts those most that lie around 0: 2 tanh(d / 2)
    scale = 1.0 if function == "tanh" else 0.5
    return torch.minimum(most, 2 * scale * (scale * distance / 2).tanh())


def _known(cell: Cell) -> WeightCell:
    if not isinstance(cell, WeightCell) or type(cell).step is not WeightCell.step:
        raise UnsupportedModelError(f'no sound bound is known for a {cell.label}; use bound="measured"')
    return cell


def _entering(cell: WeightCell, state: Box, x: Box) -> tuple[Box, Box]:
    fed = Box(*(cell.feed(end) for end in state))
    return affine(cell.w_ih, cell.b_ih, x), affine(cell.w_hh, cell.b_hh, fed)


def activation_box(cell: WeightCell, state: Box, x: Box) -> Box:
    """Return the box of ``W_hh h + W_ih x + b``."""
    by_x, by_h = _entering(cell, state, x)
    return by_x.plus(by_h)


def box_step(cell: Cell, state: Box, x: Box) -> Box:
    """Return a box of all next states.

    Parameters
    ----------
    cell : RnnCell, GruCell, LstmCell or another cell of weights
        In float64.
    state, x : Box, shape (..., S) and (..., I)

    Raises
    ------
    UnsupportedModelError
        For a cell of which only the step is known.
    """
    cell = _known(cell)
    rows = cell.join(BOXES, *_entering(cell, state, x))
    parts = [Box(*ends) for ends in zip(*(end.split(cell.sizes, dim=-1) for end in state), strict=True)]
    new = list(cell.update(BOXES, rows, parts))
    if cell.w_hr is not None:
        new[0] = affine(cell.w_hr, None, new[0])
    return Box(*(torch.cat(ends, dim=-1) for ends in zip(*new, strict=True)))


def part_step(cell: Cell, state: Box, x: Box, apart: Tensor, x_apart: Tensor | None) -> Tensor:
    """Bound how far apart two next states can be, shape (..., S).

    Parameters
    ----------
    cell : RnnCell, GruCell, LstmCell or another cell of weights
        In float64.
    state, x : Box, shape (..., S) and (..., I)
        Hold both states and both inputs.
    apart : Tensor, shape (..., S)
        How far apart the states can be.
    x_apart : Tensor, shape (..., I), optional
        The same of the inputs, for a level above the first.

    Raises
    ------
    UnsupportedModelError
        For a cell of which only the step is known.
    """
    cell = _known(cell)
    by_x, by_h = _entering(cell, state, x)
    from_h = cell.feed(apart) @ cell.w_hh.abs().mT
    from_x = torch.zeros_like(by_x.low) if x_apart is None else x_apart @ cell.w_ih.abs().mT
    rows = cell.join(PAIRS, _Pair(by_x, from_x), _Pair(by_h, from_h))
    parts = zip(*(each.split(cell.sizes, dim=-1) for each in (*state, apart)), strict=True)
    new = [pair.apart for pair in cell.update(PAIRS, rows, [_Pair(Box(a, b), d) for a, b, d in parts])]
    if cell.w_hr is not None:
        new[0] = new[0] @ cell.w_hr.abs().mT
    # sums and products of numbers that are 0 or more: relative errors add up, nothing cancels
    operations = 2 * (cell.w_ih.shape[-1] + cell.w_hh.shape[-1] + cell.n_state) + STEP_OPERATIONS
    return up(torch.cat(new, dim=-1), operations)


def check_one_way(stack: Stack) -> None:
    """Raise unless the network runs forward only."""
    if stack.bidirectional:
        raise UnsupportedModelError(
            'no bound is proven for a bidirectional network; use bound="measured", which runs it'
        )


__all__ = [
    "Box",
    "activation_box",
    "affine",
    "box_step",
    "check_one_way",
    "gamma",
    "part_step",
    "slope_bound",
    "up",
]
