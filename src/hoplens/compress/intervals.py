"""Sound bounds on recurrent cells: boxes that hold every state, and how far two trajectories can part.

Two trajectories see the same last inputs and differ in their past. `box_step` encloses all states that
follow from a box of states and a box of inputs. `part_step` bounds how far two states inside that box can
be apart after a step, given how far apart they were: element by element, monotone in the distances.
Everything is float64 and element-wise; rounding is covered by a small inflation a step.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hoplens.cells import Cell
from hoplens.errors import UnsupportedModelError
from hoplens.stack import Stack
from hoplens.torch_cells import GruCell, LstmCell, RnnCell

SLACK = 1e-13  # relative inflation of every box and distance a step: float64 rounds by less


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
        return Box(corners.amin(0), corners.amax(0))

    def plus(self, other: Box) -> Box:
        """Return the box of all sums."""
        return Box(self.low + other.low, self.high + other.high)

    def part(self, where: slice) -> Box:
        """Return some of the elements."""
        return Box(self.low[..., where], self.high[..., where])

    def inflated(self) -> Box:
        """Return a box that is wider by the rounding error of a step."""
        margin = SLACK * self.size.clamp_min(1.0)
        return Box(self.low - margin, self.high + margin)


def affine(weight: Tensor, bias: Tensor | None, box: Box) -> Box:
    """Return the box of ``W x + b`` for x in a box."""
    up, down = weight.clamp_min(0).mT, weight.clamp_max(0).mT
    low, high = box.low @ up + box.high @ down, box.high @ up + box.low @ down
    return Box(low, high) if bias is None else Box(low + bias, high + bias)


def _chunks(box: Box, n: int) -> list[Box]:
    pairs = zip(box.low.chunk(n, dim=-1), box.high.chunk(n, dim=-1), strict=True)
    return [Box(low, high) for low, high in pairs]


def _map(function: str, box: Box) -> Box:
    # tanh, sigmoid and relu grow, so ends go to ends
    return Box(getattr(torch, function)(box.low), getattr(torch, function)(box.high))


def tanh_slope(box: Box) -> Tensor:
    """Return the largest slope of tanh in a box: at the point nearest to 0."""
    nearest = torch.maximum(box.low, torch.minimum(box.high, torch.zeros_like(box.low)))
    return 1 - nearest.tanh().square()


def _sigmoid_slope(box: Box) -> Tensor:
    nearest = torch.maximum(box.low, torch.minimum(box.high, torch.zeros_like(box.low)))
    return nearest.sigmoid() * (1 - nearest.sigmoid())


def _apart(slope: Tensor, distance: Tensor, scale: float = 1.0) -> Tensor:
    """Bound how far tanh (scale 1) or sigmoid (scale 1/2) can part points that are a distance apart."""
    # of all pairs at a distance, tanh parts those most that lie around 0: 2 tanh(d / 2)
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
            new = Box(*((1 - cell.leak) * old + cell.leak * n for old, n in zip(state, new, strict=True)))
        return new.inflated()
    if isinstance(cell, GruCell):
        _, z, n, _ = _gru_gates(cell, state, x)
        # (1 - z) n + z h grows with n and h and is linear in z: its extremes are at the ends of z
        low = torch.minimum(*((1 - end) * n.low + end * state.low for end in z))
        high = torch.maximum(*((1 - end) * n.high + end * state.high for end in z))
        return Box(low, high).inflated()
    if isinstance(cell, LstmCell):
        *_, new, h = _lstm_gates(cell, state, x)
        return Box(torch.cat([h.low, new.low], -1), torch.cat([h.high, new.high], -1)).inflated()
    raise UnsupportedModelError(f'no sound bound is known for a {cell.label}; use bound="measured"')


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
    return result * (1 + SLACK)


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


__all__ = ["Box", "activation_box", "affine", "box_step", "check_one_way", "part_step", "tanh_slope"]
