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
from torch.nn.functional import linear, pad

from hoplens.models.cells import Cell, GruCell, LstmCell, RnnCell, Saved

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
    if isinstance(cell, RnnCell) and type(cell).step is RnnCell.step:
        return _Rnn(cell)
    if isinstance(cell, GruCell) and type(cell).step is GruCell.step:
        return _Gru(cell)
    if isinstance(cell, LstmCell) and type(cell).step is LstmCell.step:
        return _Lstm(cell)
    return _ByNodes(cell)


def tanh_secant(gap: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the slope of tanh between two arguments, exact to rounding at any distance, 0 included.

    ``tanh v - tanh u = tanh(v - u) (1 - tanh u tanh v)``, so that no two nearly equal numbers are subtracted.

    Parameters
    ----------
    gap : Tensor
        v - u.
    a, b : Tensor
        tanh u and tanh v.
    """
    # tanh(d) / d is even in d and 1 to rounding below these sizes, so that 0 needs no case of its own
    if gap.dtype == torch.float32:
        size = gap.abs().clamp_min_(3e-3)
        whole = _tanh(size)  # its rounding, of size 1e-7, counts for 1e-7 in the difference too
    else:
        size = gap.abs().clamp_min_(1e-12)
        whole = size.tanh()
    return whole.div_(size).mul_(torch.rsub(a * b, 1.0))


def _tanh(z: Tensor) -> Tensor:
    # many times the speed of tanh itself on CPUs, and as good where values, not slopes, are wanted
    return torch.sigmoid(2.0 * z).mul_(2.0).sub_(1.0)


def _mean(a: Tensor, b: Tensor) -> Tensor:
    return (a + b).mul_(0.5)


def _order(steps: int, reverse: bool) -> range:
    return range(steps - 1, -1, -1) if reverse else range(steps)


def _hold(new: Tensor, old: Tensor, t: int, lengths: Tensor | None) -> Tensor:
    """Keep a state of reversed time at its start until the sequence begins: padding comes first there."""
    return new if lengths is None else torch.where((t < lengths)[:, None], new, old)


def _visible(cell: Any, kernel: Any, x: Tensor, lengths: Tensor | None, reverse: bool) -> Tensor:
    """Return the visible state (L, N, P) after each step.

    By PyTorch's own kernel on the CPU, where it is several times faster than a loop in Python; on a GPU it
    would ask for weights in one block of memory, and with a projection it gains nothing and warns.
    """
    start = x.new_zeros(1, x.shape[1], cell.w_hh.shape[1])
    projected = isinstance(cell, LstmCell) and cell.w_hr is not None
    if lengths is None and x.device.type == "cpu" and not projected:
        weights = [cell.w_ih, cell.w_hh, cell.b_ih, cell.b_hh]
        hidden: Any = (start, torch.zeros_like(start)) if isinstance(cell, LstmCell) else start
        ahead = x.flip(0) if reverse else x
        out: Tensor = kernel(ahead, hidden, weights, True, 1, 0.0, False, False, False)[0]
        return out.flip(0) if reverse else out
    states = x.new_empty(*x.shape[:2], cell.n_state)
    state = torch.zeros_like(states[0])
    for t in _order(len(x), reverse):
        states[t] = state = _hold(cell.step(state, x[t]), state, t, lengths)
    return states[..., : start.shape[-1]]


def _before(states: Tensor, reverse: bool) -> Tensor:
    """Return the states before each step, from those after it; the first is zero."""
    return pad(states[1:], (0, 0, 0, 0, 0, 1)) if reverse else pad(states[:-1], (0, 0, 0, 0, 1, 0))


class _Rnn:
    """Features: the argument of the activation and its value."""

    exact = True

    def __init__(self, cell: RnnCell) -> None:
        self.cell = cell

    def run(self, x: Tensor, lengths: Tensor | None, reverse: bool) -> tuple[Tensor, Features]:
        cell = self.cell
        if cell.leaky or cell.nonlinearity == "linear":
            return self._run_by_steps(x, lengths, reverse)
        kernel = torch.rnn_tanh if cell.nonlinearity == "tanh" else torch.rnn_relu
        states = _visible(cell, kernel, x, lengths, reverse)
        z = linear(x, cell.w_ih, cell.b_ih + cell.b_hh) + linear(_before(states, reverse), cell.w_hh)
        # not the states themselves: what a secant divides must come from the very same arguments
        return states, (z, _tanh(z) if cell.nonlinearity == "tanh" else z.relu())

    def _run_by_steps(self, x: Tensor, lengths: Tensor | None, reverse: bool) -> tuple[Tensor, Features]:
        cell = self.cell
        z = linear(x, cell.w_ih, cell.b_ih + cell.b_hh)
        value, states = torch.empty_like(z), torch.empty_like(z)
        state = torch.zeros_like(z[0])
        for t in _order(len(x), reverse):
            z[t] += state @ cell.w_hh.mT
            if cell.nonlinearity == "tanh":
                new = z[t].tanh()
            else:
                new = z[t].relu() if cell.nonlinearity == "relu" else z[t]
            value[t] = new
            states[t] = state = _hold((1 - cell.leak) * state + cell.leak * new, state, t, lengths)
        return states, (z, value)

    def secants(self, a: Features, b: Features) -> Saved:
        cell, gap = self.cell, b[0] - a[0]
        if cell.nonlinearity == "tanh":
            slope = tanh_secant(gap, a[1], b[1])
        elif cell.nonlinearity == "relu":
            same = gap == 0
            slope = torch.where(same, (a[0] > 0).to(gap), (b[1] - a[1]) / torch.where(same, 1.0, gap))
        else:
            slope = torch.ones_like(gap)
        return (cell.leak * slope if cell.leaky else slope,)

    def pull(self, secant: Saved, rows: Tensor) -> tuple[Tensor, Tensor]:
        inner = rows * secant[0].unsqueeze(-2)
        by_state = inner @ self.cell.w_hh
        return (by_state + rows * (1 - self.cell.leak) if self.cell.leaky else by_state), inner

    def leave(self, inner: Tensor) -> Tensor:
        return linear(inner, self.cell.w_ih.mT)


class _Gru:
    """Features: half the arguments of r and z with that of n, tanh of these three, what n sees, the state.

    ``sigmoid(z) = (1 + tanh(z / 2)) / 2`` lets one call serve all gates.
    """

    exact = True

    def __init__(self, cell: GruCell) -> None:
        self.cell = cell

    def run(self, x: Tensor, lengths: Tensor | None, reverse: bool) -> tuple[Tensor, Features]:
        cell, h = self.cell, self.cell.hidden
        states = _visible(cell, torch.gru, x, lengths, reverse)
        before = _before(states, reverse)
        entered, seen = linear(x, cell.w_ih, cell.b_ih), linear(before, cell.w_hh, cell.b_hh)
        h_n = seen[..., 2 * h :]
        gates = (entered[..., : 2 * h] + seen[..., : 2 * h]).mul_(0.5)
        opened = _tanh(gates)
        by_n = torch.addcmul(entered[..., 2 * h :], 0.5 + 0.5 * opened[..., :h], h_n)
        arguments, value = torch.cat([gates, by_n], -1), torch.cat([opened, _tanh(by_n)], -1)
        return states, (arguments, value, h_n, before)

    def secants(self, a: Features, b: Features) -> Saved:
        slope_r, slope_z, slope_n = tanh_secant(b[0] - a[0], a[1], b[1]).chunk(3, dim=-1)
        mean_r, mean_z, mean_n = _mean(a[1], b[1]).chunk(3, dim=-1)
        reset, keep = 0.5 + 0.5 * mean_r, 0.5 + 0.5 * mean_z
        # h' = n + z (h - n), n = tanh(i_n + r h_n); d sigmoid = half the slope times half the difference
        by_n = (1 - keep) * slope_n
        by_r = 0.25 * by_n * _mean(a[2], b[2]) * slope_r
        by_z = 0.25 * (_mean(a[3], b[3]) - mean_n) * slope_z
        return torch.cat([by_r, by_z, by_n], dim=-1), reset, keep

    def pull(self, secant: Saved, rows: Tensor) -> tuple[Tensor, Tensor]:
        slopes, reset, keep = (part.unsqueeze(-2) for part in secant)
        h = self.cell.hidden
        inner = rows.repeat(1, 1, 3) * slopes
        # the reset gate scales what the candidate sees of the state, not of the input
        seen = torch.cat([inner[..., : 2 * h], inner[..., 2 * h :] * reset], dim=-1)
        return torch.addcmul(seen @ self.cell.w_hh, rows, keep), inner

    def leave(self, inner: Tensor) -> Tensor:
        return linear(inner, self.cell.w_ih.mT)


class _Lstm:
    """Features: arguments (halved for i, f, o) and tanh of these for i, f, g, o; cell before, after, tanh."""

    exact = True

    def __init__(self, cell: LstmCell) -> None:
        self.cell = cell

    def run(self, x: Tensor, lengths: Tensor | None, reverse: bool) -> tuple[Tensor, Features]:
        cell, h = self.cell, self.cell.hidden
        shown = _visible(cell, torch.lstm, x, lengths, reverse)
        z = linear(x, cell.w_ih, cell.b_ih + cell.b_hh) + linear(_before(shown, reverse), cell.w_hh)
        z[..., : 2 * h].mul_(0.5)
        z[..., 3 * h :].mul_(0.5)
        value = _tanh(z)
        i, f, g, _ = value.chunk(4, dim=-1)
        wanted, kept = (0.5 + 0.5 * i) * g, 0.5 + 0.5 * f
        after = torch.empty_like(wanted)
        c = torch.zeros_like(wanted[0])
        for t in _order(len(x), reverse):
            after[t] = c = _hold(torch.addcmul(wanted[t], kept[t], c), c, t, lengths)
        states = torch.cat([shown, after], dim=-1)
        return states, (z, value, _before(after, reverse), after, _tanh(after))

    def secants(self, a: Features, b: Features) -> Saved:
        slopes = tanh_secant(b[0] - a[0], a[1], b[1])
        slope_i, slope_f, slope_g, slope_o = slopes.chunk(4, dim=-1)
        mean_i, mean_f, g, mean_o = _mean(a[1], b[1]).chunk(4, dim=-1)
        i, f, o = (0.5 + 0.5 * part for part in (mean_i, mean_f, mean_o))
        # c' = f c + i g, h' = o tanh(c'); d sigmoid = half the slope times half the difference
        by_i, by_f = 0.25 * g * slope_i, 0.25 * _mean(a[2], b[2]) * slope_f
        by_cell = o * tanh_secant(b[3] - a[3], a[4], b[4])
        by_o = 0.25 * _mean(a[4], b[4]) * slope_o
        return torch.cat([by_i, by_f, i * slope_g], dim=-1), by_o, by_cell, f

    def pull(self, secant: Saved, rows: Tensor) -> tuple[Tensor, Tensor]:
        slopes, by_o, by_cell, f = (part.unsqueeze(-2) for part in secant)
        cell = self.cell
        rows_h, rows_c = rows[..., : cell.shown], rows[..., cell.shown :]
        rows_h = rows_h if cell.w_hr is None else rows_h @ cell.w_hr
        rows_c = torch.addcmul(rows_c, rows_h, by_cell)
        inner = torch.cat([rows_c.repeat(1, 1, 3) * slopes, rows_h * by_o], dim=-1)
        return torch.cat([inner @ cell.w_hh, rows_c * f], dim=-1), inner

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
        before = x.new_zeros(*x.shape[:2], self.cell.n_state)
        states = torch.empty_like(before)
        state = before[0]
        for t in _order(len(x), reverse):
            before[t] = state
            states[t] = state = _hold(self.cell.step(state, x[t]), state, t, lengths)
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


__all__ = ["Features", "Rule", "rule_for", "tanh_secant"]
