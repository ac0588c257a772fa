"""Thin products by repeated squaring: few large products in place of many small ones."""

from __future__ import annotations

import torch
from torch import Tensor

from hoplens.graph.steps import DenseStep, Grads


class Doubling:
    """All hop maps of one small dense network from ``log2(length)`` products.

    With ``S_j`` the stacked rows of the first 2^j hops and ``P_j = (factor W)^(2^j)``,
    ``S_(j+1) = [S_j; S_j P_j]`` and ``P_(j+1) = P_j P_j``. More arithmetic than one hop at a time
    (``6 log2(length) H^3``), fewer calls: worth it where a call costs more than its arithmetic.

    ``step``: of one network. ``length``: number of hop maps. ``factor``: multiplies every hop.
    """

    def __init__(self, step: DenseStep, length: int, factor: float = 1.0) -> None:
        self.step, self.length, self.factor = step, length, factor
        self.rows = step.start.new_empty(0)
        self.powers: list[Tensor] = []

    def forward(self, *, keep: bool) -> Tensor:
        """Return the maps as seen from the step's side, (1, L, c, d)."""
        start = self.step.start[0]
        c, h = start.shape
        rows = start.new_empty(self.length * c, h)
        rows[:c].copy_(start)
        power, powers, have = self.step.step[0] * self.factor, [], 1
        while have < self.length:
            take = min(have, self.length - have)
            torch.mm(rows[: take * c], power, out=rows[have * c : (have + take) * c])
            powers.append(power)
            have += take
            if have < self.length:
                power = power @ power
        if keep:
            self.rows, self.powers = rows, powers
        return (rows @ self.step.other[0]).view(1, self.length, c, -1)

    def backward(self, grad: Tensor, needs: tuple[bool, bool, bool]) -> Grads:
        """Return the gradients of w_in, w_rec, w_out for ``grad`` (1, L, c, d)."""
        rows, c = self.rows, grad.shape[2]
        flat = grad.reshape(self.length * c, -1)
        other = (rows.T @ flat)[None]
        adjoint = flat @ self.step.other[0].T
        above: Tensor | None = None  # gradient by the next power
        for j in range(len(self.powers) - 1, -1, -1):
            power, have = self.powers[j], 2**j
            take = min(have, self.length - have)
            upper, lower = adjoint[have * c : (have + take) * c], adjoint[: take * c]
            slope = rows[: take * c].T @ upper
            if above is not None:
                slope.addmm_(above, power.T).addmm_(power.T, above)
            lower.addmm_(upper, power.T)
            above = slope
        rec = None
        if needs[1]:
            rec = self.step.new_rec() if above is None else (above * self.factor)[None]
            rec = rec.mT if self.step.from_inputs != self.step.turned else rec  # as `finish` expects it
        return self.step.finish(adjoint[None, :c], rec, other)
