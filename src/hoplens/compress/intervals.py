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

from typing import NamedTuple

import torch
from torch import Tensor

from hoplens.errors import UnsupportedModelError
from hoplens.models.cells import Cell, GruCell, LstmCell, RnnCell
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


def _chunks(box: Box, n: int) -> list[Box]:
    pairs = zip(box.low.chunk(n, dim=-1), box.high.chunk(n, dim=-1), strict=True)
    return [Box(low, high) for low, high in pairs]


def _map(function: str, box: Box) -> Box:
    # tanh, sigmoid and relu grow, so ends go to ends
    ends = Box(getattr(torch, function)(box.low), getattr(torch, function)(box.high))
    if function == "relu":
        return ends
    least = -1.0 if function == "tanh" else 0.0
    return Box(*(end.clamp(least, 1.0) for end in ends.rounded(ULPS)))


def tanh_slope(box: Box) -> Tensor:
    """Return the largest slope of tanh in a box: at the point nearest to 0."""
    nearest = torch.maximum(box.low, torch.minimum(box.high, torch.zeros_like(box.low)))
    # 1 - t^2 loses what t is off by in all digits, so the margin is absolute
    return (1 - nearest.tanh().square() + 4 * ULPS * UNIT).clamp_max(1.0)


def _sigmoid_slope(box: Box) -> Tensor:
    nearest = torch.maximum(box.low, torch.minimum(box.high, torch.zeros_like(box.low)))
    return (nearest.sigmoid() * (1 - nearest.sigmoid()) + 4 * ULPS * UNIT).clamp_max(0.25)


def _apart(slope: Tensor, distance: Tensor, scale: float = 1.0) -> Tensor:
    """Bound how far tanh (scale 1) or sigmoid (scale 1/2) can part points that are a distance apart."""
    # of all pairs at a distance, tanh parts those most that lie around 0: 2 tanh(d / 2)
    # its own rounding is covered where `part_step` rounds up
    return torch.minimum(slope * distance, 2 * scale * (scale * distance / 2).tanh())


def _gates(cell: GruCell | LstmCell | RnnCell, state: Box, x: Box) -> tuple[Box, Box]:
    shown = Box(*(cell.emit(end) for end in state))
    return affine(cell.w_ih, cell.b_ih, x), affine(cell.w_hh, cell.b_hh, shown)


def activation_box(cell: RnnCell, state: Box, x: Box) -> Box:
    """Return the box of ``W_hh h + W_ih x + b``."""
    by_x, by_h = _gates(cell, state, x)
    return by_x.plus(by_h)


def box_step(cell: Cell, state: Box, x: Box) -> Box:
    """Return a box of all next states.

    Parameters
    ----------
    cell : RnnCell, GruCell or LstmCell
        In float64.
    state, x : Box, shape (..., S) and (..., I)
    """
    if isinstance(cell, RnnCell):
        z = activation_box(cell, state, x)
        new = z if cell.nonlinearity == "linear" else _map(cell.nonlinearity, z)
        if cell.leaky:
            leak = torch.as_tensor(cell.leak).expand(cell.n_state)
            kept = Box(1 - leak, 1 - leak).rounded()
            new = kept.times(state).plus(Box(leak, leak).times(new))
        return new
    if isinstance(cell, GruCell):
        _, z, n, _ = _gru_gates(cell, state, x)
        # (1 - z) n + z h grows with n and h and is linear in z: its extremes are at the ends of z
        mixed = [_between(Box(end, end), n, state) for end in z]
        return mixed[0].hull(mixed[1])
    if isinstance(cell, LstmCell):
        *_, new, h = _lstm_gates(cell, state, x)
        return Box(torch.cat([h.low, new.low], -1), torch.cat([h.high, new.high], -1))
    raise UnsupportedModelError(f'no sound bound is known for a {cell.label}; use bound="measured"')


def _between(share: Box, first: Box, second: Box) -> Box:
    """Return the box of ``(1 - share) first + share second`` for a share that is one number an element."""
    rest = Box(1 - share.low, 1 - share.high).rounded()
    return rest.times(first).plus(share.times(second))


def _gru_gates(cell: GruCell, state: Box, x: Box) -> tuple[Box, Box, Box, Box]:
    by_x, by_h = (_chunks(box, 3) for box in _gates(cell, state, x))
    r, z = (_map("sigmoid", by_x[k].plus(by_h[k])) for k in (0, 1))
    return r, z, _map("tanh", by_x[2].plus(r.times(by_h[2]))), by_h[2]


def _lstm_gates(cell: LstmCell, state: Box, x: Box) -> tuple[Box, Box, Box, Box, Box, Box]:
    by_x, by_h = _gates(cell, state, x)
    pre = _chunks(by_x.plus(by_h), 4)
    i, f, o = (_map("sigmoid", pre[k]) for k in (0, 1, 3))
    g = _map("tanh", pre[2])
    new = f.times(state.part(slice(cell.shown, None))).plus(i.times(g))
    h = o.times(_map("tanh", new))
    return i, f, g, o, new, h if cell.w_hr is None else affine(cell.w_hr, None, h)


def part_step(cell: Cell, state: Box, x: Box, apart: Tensor, x_apart: Tensor | None) -> Tensor:
    """Bound how far apart two next states can be, shape (..., S).

    Parameters
    ----------
    cell : RnnCell, GruCell or LstmCell
        In float64.
    state, x : Box, shape (..., S) and (..., I)
        Hold both states and both inputs.
    apart : Tensor, shape (..., S)
        How far apart the states can be.
    x_apart : Tensor, shape (..., I), optional
        The same of the inputs, for a level above the first.
    """
    if isinstance(cell, RnnCell):
        result = _part_rnn(cell, state, x, apart, x_apart)
    elif isinstance(cell, GruCell):
        result = _part_gru(cell, state, x, apart, x_apart)
    elif isinstance(cell, LstmCell):
        result = _part_lstm(cell, state, x, apart, x_apart)
    else:
        raise UnsupportedModelError(f'no sound bound is known for a {cell.label}; use bound="measured"')
    # sums and products of numbers that are 0 or more: relative errors add up, nothing cancels
    return up(result, 2 * (cell.w_ih.shape[-1] + cell.w_hh.shape[-1] + cell.n_state) + STEP_OPERATIONS)


def _distances(
    cell: RnnCell | GruCell | LstmCell, apart: Tensor, x_apart: Tensor | None
) -> tuple[Tensor, Tensor]:
    by_h = cell.emit(apart) @ cell.w_hh.abs().mT
    return by_h, torch.zeros_like(by_h) if x_apart is None else x_apart @ cell.w_ih.abs().mT


def _part_rnn(cell: RnnCell, state: Box, x: Box, apart: Tensor, x_apart: Tensor | None) -> Tensor:
    distance = sum(_distances(cell, apart, x_apart), apart.new_zeros(()))
    z = activation_box(cell, state, x)
    if cell.nonlinearity == "tanh":
        new = _apart(tanh_slope(z), distance)
    else:
        new = distance * (z.high > 0) if cell.nonlinearity == "relu" else distance
    return (1 - cell.leak) * apart + cell.leak * new if cell.leaky else new


def _part_gru(cell: GruCell, state: Box, x: Box, apart: Tensor, x_apart: Tensor | None) -> Tensor:
    # h1' - h2' = (1 - z1)(n1 - n2) + z1 (h1 - h2) + (z1 - z2)(h2 - n2)
    by_x, by_h = (_chunks(box, 3) for box in _gates(cell, state, x))
    r, z, n, h_n = _gru_gates(cell, state, x)
    from_h, from_x = (d.chunk(3, dim=-1) for d in _distances(cell, apart, x_apart))
    r_apart, z_apart = (
        _apart(_sigmoid_slope(by_x[k].plus(by_h[k])), from_x[k] + from_h[k], 0.5) for k in (0, 1)
    )
    # r1 u1 - r2 u2 = r1 (u1 - u2) + (r1 - r2) u2 with u the candidate's part of the state
    inner = from_x[2] + r.high * from_h[2] + r_apart * h_n.size
    n_apart = _apart(tanh_slope(by_x[2].plus(r.times(h_n))), inner)
    gap = torch.maximum(state.high - n.low, n.high - state.low)
    kept = torch.maximum(*((1 - end) * n_apart + end * apart for end in z))
    return kept + z_apart * gap


def _part_lstm(cell: LstmCell, state: Box, x: Box, apart: Tensor, x_apart: Tensor | None) -> Tensor:
    # c1' - c2' = f1 (c1 - c2) + (f1 - f2) c2 + i1 (g1 - g2) + (i1 - i2) g2, and h' = o tanh c' alike
    by_x, by_h = _gates(cell, state, x)
    pre = _chunks(by_x.plus(by_h), 4)
    i, f, g, o, new, _ = _lstm_gates(cell, state, x)
    distance = sum(_distances(cell, apart, x_apart), apart.new_zeros(())).chunk(4, dim=-1)
    i_apart, f_apart, o_apart = (_apart(_sigmoid_slope(pre[k]), distance[k], 0.5) for k in (0, 1, 3))
    g_apart = _apart(tanh_slope(pre[2]), distance[2])
    held = state.part(slice(cell.shown, None))
    c_apart = f.high * apart[..., cell.shown :] + f_apart * held.size + i.high * g_apart + i_apart * g.size
    squashed = _map("tanh", new)
    h_apart = o.high * _apart(tanh_slope(new), c_apart) + o_apart * squashed.size
    if cell.w_hr is not None:
        h_apart = h_apart @ cell.w_hr.abs().mT
    return torch.cat([h_apart, c_apart], dim=-1)


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
    "tanh_slope",
    "up",
]
