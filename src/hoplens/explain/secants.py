"""One step of a cell, linearised exactly between two points instead of at one.

A Jacobian says what an endlessly small change would do. A secant says what the change from one point to
another did. With ``S = (f(b) - f(a)) / (b - a)`` in place of the slope of an activation, and products split
evenly, ``p_b q_b - p_a q_a = mean(p) (q_b - q_a) + mean(q) (p_b - p_a)``, the step of a cell is linear in
its differences without remainder. So the contributions of all inputs add up to the change of the output,
and so do the products along walks, hop by hop. Where both points agree, a secant is the Jacobian.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hoplens.cells import Cell
from hoplens.torch_cells import GruCell, LstmCell, RnnCell

NODES = 6  # Gauss-Legendre nodes for a cell of which only its step is known: exact to degree 11


class Rule(Protocol):
    """How a cell is run and then linearised between two of its runs.

    What a run keeps of a step is one flat vector of features, shape (N, D).
    """

    exact: bool  # whether secants leave no remainder

    def enter(self, x: Tensor) -> Tensor:
        """Return what the inputs (L, N, I) of all steps contribute before the recursion."""

    def step(self, state: Tensor, entered: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next state (N, S) and the features (N, D)."""

    def secant(self, a: Tensor, b: Tensor) -> Any:
        """Return the linear map between two points given by their features."""

    def pull(self, secant: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply rows (N, R, S) by the map: (N, R, S) by state and (N, R, I) by input."""


def rule_for(cell: Cell) -> Rule:
    """Return how to linearise a cell.

    A subclass with a step of its own is another cell: what holds for its base need not hold for it.

    Parameters
    ----------
    cell : Cell
    """
    for kind, rule in ((RnnCell, _Rnn), (GruCell, _Gru), (LstmCell, _Lstm)):
        if isinstance(cell, kind) and type(cell).step is kind.step and type(cell).pull is kind.pull:
            return rule(cell)  # type: ignore[abstract, arg-type, no-any-return]
    return _ByNodes(cell)


def tanh_secant(gap: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the slope of tanh between two arguments, exact to rounding at any distance, 0 included.

    ``tanh v - tanh u = tanh(v - u) (1 - tanh u tanh v)``, so that nothing small is divided by another
    small difference.

    Parameters
    ----------
    gap : Tensor
        v - u.
    a, b : Tensor
        tanh u and tanh v.
    """
    same = gap == 0
    return torch.where(same, 1.0, gap.tanh() / torch.where(same, 1.0, gap)) * (1 - a * b)


def sigmoid_secant(gap: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the slope of the logistic function between two arguments, as `tanh_secant`.

    Parameters
    ----------
    gap : Tensor
        v - u.
    a, b : Tensor
        sigmoid u and sigmoid v.
    """
    return 0.25 * tanh_secant(0.5 * gap, 2 * a - 1, 2 * b - 1)


def _mean(a: Tensor, b: Tensor) -> Tensor:
    return 0.5 * (a + b)


class _Known:
    exact = True
    cell: Any

    def pull(self, secant: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
        by_state, by_x = self.cell.pull(secant, rows)
        return by_state, by_x


class _Rnn(_Known):
    """Features: the argument z of the activation and its value f(z)."""

    def __init__(self, cell: RnnCell) -> None:
        self.cell = cell

    def enter(self, x: Tensor) -> Tensor:
        return x @ self.cell.w_ih.mT + (self.cell.b_ih + self.cell.b_hh)

    def step(self, state: Tensor, entered: Tensor) -> tuple[Tensor, Tensor]:
        cell = self.cell
        z = torch.addmm(entered, state, cell.w_hh.mT)
        if cell.nonlinearity == "tanh":
            new = z.tanh()
        else:
            new = z.relu() if cell.nonlinearity == "relu" else z
        after = (1 - cell.leak) * state + cell.leak * new if cell.leaky else new
        return after, torch.cat([z, new], dim=-1)

    def secant(self, a: Tensor, b: Tensor) -> Any:
        (z_a, f_a), (z_b, f_b) = a.chunk(2, dim=-1), b.chunk(2, dim=-1)
        cell, gap = self.cell, z_b - z_a
        if cell.nonlinearity == "tanh":
            slope = tanh_secant(gap, f_a, f_b)
        elif cell.nonlinearity == "relu":
            same = gap == 0
            slope = torch.where(same, (z_a > 0).to(gap), (f_b - f_a) / torch.where(same, 1.0, gap))
        else:
            slope = torch.ones_like(gap)
        return (cell.leak * slope if cell.leaky else slope,)


class _Gru(_Known):
    """Features: the arguments of r, z, n, then r, z, n, what n sees of the state, and the state."""

    def __init__(self, cell: GruCell) -> None:
        self.cell = cell

    def enter(self, x: Tensor) -> Tensor:
        return x @ self.cell.w_ih.mT + self.cell.b_ih

    def step(self, state: Tensor, entered: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell.hidden
        seen = torch.addmm(self.cell.b_hh, state, self.cell.w_hh.mT)
        gates = entered[:, : 2 * h] + seen[:, : 2 * h]
        rz = gates.sigmoid()
        r, z = rz.chunk(2, dim=-1)
        h_n = seen[:, 2 * h :]
        by_n = entered[:, 2 * h :] + r * h_n
        n = by_n.tanh()
        return n + z * (state - n), torch.cat([gates, by_n, rz, n, h_n, state], dim=-1)

    def secant(self, a: Tensor, b: Tensor) -> Any:
        u, v = a.chunk(8, dim=-1), b.chunk(8, dim=-1)
        reset, keep, n, h_n, h = (_mean(u[k], v[k]) for k in (3, 4, 5, 6, 7))
        # h' = n + z (h - n), n = tanh(i_n + r h_n)
        by_n = (1 - keep) * tanh_secant(v[2] - u[2], u[5], v[5])
        by_r = by_n * h_n * sigmoid_secant(v[0] - u[0], u[3], v[3])
        by_z = (h - n) * sigmoid_secant(v[1] - u[1], u[4], v[4])
        return torch.stack([by_r, by_z, by_n], dim=-2), reset, keep


class _Lstm(_Known):
    """Features: the arguments of i, f, g, o, their values, the cell before and after, and its tanh."""

    def __init__(self, cell: LstmCell) -> None:
        self.cell = cell

    def enter(self, x: Tensor) -> Tensor:
        return x @ self.cell.w_ih.mT + (self.cell.b_ih + self.cell.b_hh)

    def step(self, state: Tensor, entered: Tensor) -> tuple[Tensor, Tensor]:
        cell = self.cell
        shown, c = state[:, : cell.shown], state[:, cell.shown :]
        z = torch.addmm(entered, shown, cell.w_hh.mT)
        h = cell.hidden
        i_f, g, o = z[:, : 2 * h].sigmoid(), z[:, 2 * h : 3 * h].tanh(), z[:, 3 * h :].sigmoid()
        new = i_f[:, h:] * c + i_f[:, :h] * g
        squashed = new.tanh()
        out = o * squashed
        out = out if cell.w_hr is None else out @ cell.w_hr.mT
        return torch.cat([out, new], dim=-1), torch.cat([z, i_f, g, o, c, new, squashed], dim=-1)

    def secant(self, a: Tensor, b: Tensor) -> Any:
        u, v = a.chunk(11, dim=-1), b.chunk(11, dim=-1)
        i, f, g, o, c, squashed = (_mean(u[k], v[k]) for k in (4, 5, 6, 7, 8, 10))
        # c' = f c + i g, h' = o tanh(c')
        by_i = g * sigmoid_secant(v[0] - u[0], u[4], v[4])
        by_f = c * sigmoid_secant(v[1] - u[1], u[5], v[5])
        by_g = i * tanh_secant(v[2] - u[2], u[6], v[6])
        by_o = squashed * sigmoid_secant(v[3] - u[3], u[7], v[7])
        by_cell = o * tanh_secant(v[9] - u[9], u[10], v[10])
        return torch.stack([by_i, by_f, by_g], dim=-2), by_cell, by_o, f


class _ByNodes:
    """A cell known by its step alone: Jacobians averaged over the line from point to point.

    Features: state and input. Exact in the limit of many nodes.
    """

    exact = False

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        places, weights = np.polynomial.legendre.leggauss(NODES)
        self.nodes = [
            (0.5 + 0.5 * float(p), 0.5 * float(w)) for p, w in zip(places, weights, strict=True)
        ]

    def enter(self, x: Tensor) -> Tensor:
        return x

    def step(self, state: Tensor, entered: Tensor) -> tuple[Tensor, Tensor]:
        return self.cell.step(state, entered), torch.cat([state, entered], dim=-1)

    def secant(self, a: Tensor, b: Tensor) -> Any:
        sizes = [self.cell.n_state, self.cell.n_inputs]
        points = [(a + place * (b - a)).split(sizes, dim=-1) for place, _ in self.nodes]
        return [self.cell.save(state, x) for state, x in points]

    def pull(self, secant: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
        by_state = by_x = None
        for (_, weight), saved in zip(self.nodes, secant, strict=True):
            part, own = self.cell.pull(saved, weight * rows)
            by_state = part if by_state is None else by_state + part
            by_x = own if by_x is None else by_x + own
        assert by_state is not None
        assert by_x is not None
        return by_state, by_x


__all__ = ["Rule", "rule_for", "sigmoid_secant", "tanh_secant"]
