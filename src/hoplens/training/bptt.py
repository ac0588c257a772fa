"""Recurrences of an ensemble, forwards and backwards, in memory that is made once a training run.

The state buffer holds ``[h; x; 1]`` for every time step, so that a step is one batched product with
``[W_h; W_x; b]`` and its weight gradient is another. Three ways to go through it: `PlainRecurrence` for cells
without gates, `GatedRecurrence` for cells with a hand-written step, and `AutogradRecurrence`, the plain way
that both are tested against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hoplens.models.cells import State
from hoplens.models.ensemble import Ensemble

TURN_FROM = 256  # from so many hidden units on, weights stored (H, F) are multiplied faster: worth a copy
TURN_ROWS = 32

Slopes = Sequence[Tensor | None]  # (E, O, B) by the outputs after each step; None where there is no read-out


class Recurrence:
    """Workspace for runs of an ensemble on batches up to one size.

    Parameters
    ----------
    ensemble : Ensemble
        The networks; read at every call.
    batch, length : int
        Sequences B of a batch, and the most time steps L.

    Attributes
    ----------
    hidden : list of Tensor
        What is kept of the states after 0, 1, ... steps, (E, H, B): ``h = scale * kept + shift``.
    grad_weight : Tensor, shape (E, H + I + 1, K)
        What ``backward`` fills; always the same memory.
    """

    scale, shift = 1.0, 0.0
    hidden: Sequence[Tensor]
    cells: Sequence[Tensor]  # c of an LSTM, after 0, 1, ... steps

    def __init__(self, ensemble: Ensemble, batch: int, length: int) -> None:
        self.ensemble, self.batch, self.length = ensemble, batch, length
        self.grad_weight = torch.empty_like(ensemble.weight)
        self.cells = []

    def _buffer(self, start: float = 0.0) -> None:
        """Make the state buffer, and its views: made every step they would cost a small network a tenth."""
        e, f, _ = self.ensemble.weight.shape
        h = self.ensemble.n_hidden
        self.states = self.ensemble.weight.new_empty(self.length + 1, e, f, self.batch)
        self.states[:, :, -1] = 1.0
        self.states[0, :, :h] = start
        self.before = list(self.states.unbind(0))
        self.hidden = list(self.states[:, :, :h].unbind(0))

    def _enter(self, inputs: Tensor) -> None:
        h = self.ensemble.n_hidden
        self.states[: len(inputs), :, h : h + self.ensemble.n_inputs].copy_(inputs)

    def before_steps(self, rows: slice, columns: Tensor, steps: int) -> list[Tensor]:
        """Return the parts of the state before each step, (L, E, H, b) each, of some networks and sequences.

        Parameters
        ----------
        rows : slice
            Networks.
        columns : Tensor of int64, shape (b,)
            Sequences of the batch of the last `forward`.
        steps : int
            L.
        """
        kinds = [self.hidden, self.cells] if self.cells else [self.hidden]
        h, *others = [
            torch.stack([kind[t][rows].index_select(-1, columns) for t in range(steps)]) for kind in kinds
        ]
        if self.scale != 1 or self.shift:
            h = h.mul_(self.scale).add_(self.shift)
        return [h, *(part for other in others for part in other.split(self.ensemble.n_hidden, dim=2))]

    def forward(self, inputs: Tensor) -> None:
        """Run all networks; the states are in ``hidden`` until the next call.

        Parameters
        ----------
        inputs : Tensor, shape (L, E, I, B)
            L may be less than the workspace's.
        """
        raise NotImplementedError

    def backward(self, slopes: Slopes, mask: Tensor | None = None) -> None:
        """Fill ``grad_weight`` for the last ``forward``.

        Parameters
        ----------
        slopes : sequence of Tensor (E, O, B) or None
            Gradient of the loss by the outputs after each step.
        mask : Tensor, shape (E, H, B), optional
            What the states are multiplied by before they are read out (dropout).
        """
        raise NotImplementedError

    def _into(self, grad: Tensor, slope: Tensor, mask: Tensor | None, *, first: bool) -> None:
        """Add to the gradient by h what comes from the outputs; ``first`` overwrites."""
        from_output = self.ensemble.readout.mT
        if mask is None:
            if first:
                torch.bmm(from_output, slope, out=grad)
            else:
                grad.baddbmm_(from_output, slope)
        elif first:
            torch.mul(torch.bmm(from_output, slope), mask, out=grad)
        else:
            grad.addcmul_(torch.bmm(from_output, slope), mask)


def _steps(slopes: Slopes) -> int:
    """Return how many steps count: none after the last read-out."""
    steps = len(slopes)
    while steps and slopes[steps - 1] is None:
        steps -= 1
    return steps


class PlainRecurrence(Recurrence):
    """Cells without gates.

    For tanh the state holds ``s = sigmoid(2 z)`` in place of ``h = tanh(z) = 2 s - 1``, with the affine map
    folded into the weights: PyTorch's vectorised sigmoid is many times faster than its tanh on CPUs, and the
    result is the same function. A leaky state is an affine mean of such values, so that the fold holds for it
    too.
    """

    def __init__(self, ensemble: Ensemble, batch: int, length: int) -> None:
        super().__init__(ensemble, batch, length)
        e, f, h = ensemble.weight.shape
        new = ensemble.weight.new_empty
        self.function = getattr(ensemble.kernel, "nonlinearity", "tanh")
        self.folded = self.function == "tanh"
        if self.folded:
            self.scale, self.shift = 2.0, -1.0
        self._buffer(0.5 if self.folded else 0.0)
        # what the activation returned, where the state itself is a mean of that and the state before
        self.renewed = self.hidden[1:] if ensemble.leak == 1 else list(new(length, e, h, batch).unbind(0))
        self.pre, self.grad, self.delta = (new(e, h, batch) for _ in range(3))
        self.delta_t = self.delta.mT
        # the weights of the forward pass, (E, F, H): those of the ensemble, or a copy
        self.copied = self.folded or h >= TURN_FROM
        if h >= TURN_FROM:
            self.effective = new(e, h, f).mT
        else:
            self.effective = new(e, f, h) if self.folded else ensemble.weight

    def forward(self, inputs: Tensor) -> None:
        self._enter(inputs)
        leak = self.ensemble.leak
        if self.copied:
            self._copy_weights(2.0 if self.folded else 1.0)
        if self.folded:  # 2 z = 2 (W_rec (2 s - 1) + W_in x + b)
            from_hidden = self.effective[:, : self.ensemble.n_hidden]
            self.effective[:, -1].sub_(from_hidden.sum(dim=1))
            from_hidden.mul_(2.0)
        pre, to_hidden, relu = self.pre, self.effective.mT, self.function == "relu"
        for t in range(len(inputs)):
            torch.bmm(to_hidden, self.before[t], out=pre)
            out = self.renewed[t]
            if self.folded:
                torch.sigmoid(pre, out=out)
            elif relu:
                torch.clamp_min(pre, 0.0, out=out)
            else:
                out.copy_(pre)
            if leak != 1:
                torch.lerp(self.hidden[t], out, leak, out=self.hidden[t + 1])

    def _copy_weights(self, factor: float) -> None:
        weight, copy = self.ensemble.weight, self.effective
        if copy.is_contiguous():
            torch.mul(weight, factor, out=copy)
            return
        # few rows at a time stay in the cache: five times as fast as one transposed copy of a large matrix
        for some, part in zip(weight.split(TURN_ROWS, dim=1), copy.split(TURN_ROWS, dim=1), strict=True):
            torch.mul(some, factor, out=part)

    def backward(self, slopes: Slopes, mask: Tensor | None = None) -> None:
        """Fill ``grad_weight``.

        The factors that all steps share are left to the end or to the products: ``delta`` is the slope by
        z divided by the leak and, for tanh, by 4, since d tanh(z) = 1 - h^2 = 4 s (1 - s).
        """
        steps = _steps(slopes)
        if not steps:
            self.grad_weight.zero_()
            return
        h, leak, relu = self.ensemble.n_hidden, self.ensemble.leak, self.function == "relu"
        grad, delta, delta_t = self.grad, self.delta, self.delta_t
        from_hidden = self.ensemble.recurrent()  # (E, H from, H to)
        factor = leak * (4.0 if self.folded else 1.0)
        sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
        threshold_backward = torch.ops.aten.threshold_backward.grad_input
        for t in range(steps - 1, -1, -1):
            slope = slopes[t]
            if slope is not None:
                self._into(grad, slope, mask, first=t == steps - 1)
            if self.folded:
                sigmoid_backward(grad, self.renewed[t], grad_input=delta)
            elif relu:
                threshold_backward(grad, self.renewed[t], 0.0, grad_input=delta)
            else:
                delta.copy_(grad)
            self.grad_weight.baddbmm_(self.before[t], delta_t, beta=float(t + 1 < steps))
            if t:
                grad.baddbmm_(from_hidden, delta, beta=1.0 - leak, alpha=factor)
        if factor != 1:
            self.grad_weight[:, h:].mul_(factor)
        if self.folded:  # sum delta h^T = 2 sum delta s^T - sum delta 1^T
            self.grad_weight[:, :h].mul_(2.0 * factor).sub_(self.grad_weight[:, -1:])
        elif leak != 1:
            self.grad_weight[:, :h].mul_(leak)


class GatedRecurrence(Recurrence):
    """Cells whose step and its gradient are written by hand; see `hoplens.models.cells.kernels.Kernel`."""

    def __init__(self, ensemble: Ensemble, batch: int, length: int) -> None:
        super().__init__(ensemble, batch, length)
        self._buffer()
        e, _, k = ensemble.weight.shape
        h, new = ensemble.n_hidden, ensemble.weight.new_empty
        self.gates = list(new(length, e, k, batch).unbind(0))
        self.delta, self.grad = new(e, k, batch), new(e, h, batch)
        self.delta_t = self.delta.mT
        self.squashed: list[Tensor] = []  # tanh c of an LSTM after each step
        if ensemble.kernel.memories:
            self.cells = list(new(length + 1, e, h, batch).unbind(0))
            self.cells[0].zero_()
            self.squashed = list(new(length, e, h, batch).unbind(0))
            self.grad_c = new(e, h, batch)

    def forward(self, inputs: Tensor) -> None:
        self._enter(inputs)
        weight, cell = self.ensemble.weight.mT, self.ensemble.kernel
        for t in range(len(inputs)):
            z = self.gates[t]
            torch.bmm(weight, self.before[t], out=z)
            memory = (self.cells[t], self.cells[t + 1], self.squashed[t]) if self.cells else ()
            cell.forward(z, self.hidden[t], self.hidden[t + 1], memory)

    def backward(self, slopes: Slopes, mask: Tensor | None = None) -> None:
        steps = _steps(slopes)
        if not steps:
            self.grad_weight.zero_()
            return
        grad, delta, cell = self.grad, self.delta, self.ensemble.kernel
        from_hidden = self.ensemble.recurrent()  # (E, H, K)
        if self.cells:
            self.grad_c.zero_()
        for t in range(steps - 1, -1, -1):
            slope = slopes[t]
            if slope is not None:
                self._into(grad, slope, mask, first=t == steps - 1)
            memory = (self.cells[t], self.squashed[t], self.grad_c) if self.cells else ()
            kept = cell.backward(self.gates[t], self.hidden[t], grad, delta, memory)
            self.grad_weight.baddbmm_(self.before[t], self.delta_t, beta=float(t + 1 < steps))
            if t:
                grad.baddbmm_(from_hidden, delta, beta=float(kept))


class AutogradRecurrence(Recurrence):
    """Any cell, by autograd through its differentiable run: for cells without a step written by hand."""

    def forward(self, inputs: Tensor) -> None:
        with torch.enable_grad():
            self.leaf = self.ensemble.weight.detach().requires_grad_()
            self.run = replace(self.ensemble, weight=self.leaf).run(inputs)
        kernel, shape = self.ensemble.kernel, (self.ensemble.size, self.ensemble.n_hidden, self.batch)
        self.hidden = _Kept(self.run, 0, inputs.new_zeros(shape))
        if kernel.memories:
            wide = inputs.new_zeros(shape[0], kernel.memories * shape[1], shape[2])
            self.cells = _Kept(self.run, 1, wide)

    def backward(self, slopes: Slopes, mask: Tensor | None = None) -> None:
        reads = [(self.run[t][0], slope) for t, slope in enumerate(slopes) if slope is not None]
        if not reads:
            self.grad_weight.zero_()
            return
        given = []
        for h, slope in reads:
            grad = torch.empty_like(h)
            self._into(grad, slope, mask, first=True)
            given.append(grad)
        (found,) = torch.autograd.grad([h for h, _ in reads], self.leaf, given)
        self.grad_weight.copy_(found)


class _Kept(Sequence[Tensor]):
    """A part of the states after some of 0, 1, ... steps, each made when it is asked for."""

    def __init__(self, run: Sequence[State], part: int, start: Tensor, steps: range | None = None) -> None:
        self.run, self.part, self.start = run, part, start
        self.steps = range(len(run) + 1) if steps is None else steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, n: Any) -> Any:
        if isinstance(n, slice):
            return _Kept(self.run, self.part, self.start, self.steps[n])
        t = self.steps[n]
        found = self.run[t - 1][self.part] if t else self.start
        return None if found is None else found.detach()


def make_recurrence(ensemble: Ensemble, batch: int, length: int, *, eager: bool = False) -> Recurrence:
    """Return the fastest workspace that knows the ensemble's cell; with ``eager`` the plain one."""
    if eager:
        return AutogradRecurrence(ensemble, batch, length)
    if ensemble.plain:
        return PlainRecurrence(ensemble, batch, length)
    kind = GatedRecurrence if ensemble.kernel.fused else AutogradRecurrence
    return kind(ensemble, batch, length)


__all__ = [
    "AutogradRecurrence",
    "GatedRecurrence",
    "PlainRecurrence",
    "Recurrence",
    "make_recurrence",
]
