"""Hand-written recurrence of an ensemble of cells, forwards and backwards, in preallocated memory.

The state buffer holds ``[h; x; 1]`` for every time step, so that a step is one batched product with
``[W_h; W_x; b]`` and its weight gradient is another (see `hoplens.bptt` for the same idea on plain cells).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hoplens.training.sequences.ensemble import SequenceEnsemble


class Recurrence:
    """Workspace for runs of an ensemble on batches up to one size.

    Parameters
    ----------
    ensemble : SequenceEnsemble
        The networks; read at every call.
    batch, length : int
        Sequences B of a batch, and the most time steps L.
    """

    def __init__(self, ensemble: SequenceEnsemble, batch: int, length: int) -> None:
        self.ensemble, self.cell = ensemble, ensemble.kernel
        e, f, k = ensemble.weight.shape
        h = ensemble.n_hidden
        new = ensemble.weight.new_empty
        states = new(length + 1, e, f, batch)  # the last one has no inputs
        states[:, :, -1] = 1.0
        states[0, :, :h] = 0.0
        self.states = states
        # views are made once: on small networks making them costs a tenth of a step
        self.before = list(states.unbind(0))
        self.hidden = list(states[:, :, :h].unbind(0))
        self.gates = list(new(length, e, k, batch).unbind(0))
        self.delta, self.grad = new(e, k, batch), new(e, h, batch)
        self.delta_t = self.delta.mT
        self.grad_weight = torch.empty_like(ensemble.weight)
        self.cells: list[Tensor] = []  # c of an LSTM before each step, and tanh c after it
        self.squashed: list[Tensor] = []
        if self.cell.memories:
            self.cells = list(new(length + 1, e, h, batch).unbind(0))
            self.cells[0].zero_()
            self.squashed = list(new(length, e, h, batch).unbind(0))
            self.grad_c = new(e, h, batch)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """Run all networks and return h after every step: views (E, H, B), valid until the next call.

        Parameters
        ----------
        inputs : Tensor, shape (L, E, I, B)
            L may be less than the workspace's.
        """
        h, i, steps = self.ensemble.n_hidden, self.ensemble.n_inputs, len(inputs)
        self.states[:steps, :, h : h + i].copy_(inputs)
        weight, cell = self.ensemble.weight.mT, self.cell
        for t in range(steps):
            z = self.gates[t]
            torch.bmm(weight, self.before[t], out=z)
            memory = (self.cells[t], self.cells[t + 1], self.squashed[t]) if self.cells else ()
            cell.forward(z, self.hidden[t], self.hidden[t + 1], memory)
        return self.hidden[1 : steps + 1]

    def backward(self, slopes: Sequence[Tensor | None]) -> Tensor:
        """Return the gradient by the weights (E, H + I + 1, K), in memory that is used again.

        Parameters
        ----------
        slopes : sequence of Tensor or None
            Gradient (E, H, B) of the loss by h after each step of the last ``forward``; None where it is 0.
        """
        steps, n_hidden = len(slopes), self.ensemble.n_hidden
        while steps and slopes[steps - 1] is None:
            steps -= 1
        if not steps:
            return self.grad_weight.zero_()
        grad, delta, cell = self.grad, self.delta, self.cell
        from_hidden = self.ensemble.weight[:, :n_hidden]  # (E, H, K)
        last = slopes[steps - 1]
        assert last is not None
        grad.copy_(last)
        if self.cells:
            self.grad_c.zero_()
        for t in range(steps - 1, -1, -1):
            memory = (self.cells[t], self.squashed[t], self.grad_c) if self.cells else ()
            kept = cell.backward(self.gates[t], self.hidden[t], grad, delta, memory)
            self.grad_weight.baddbmm_(self.before[t], self.delta_t, beta=float(t + 1 < steps))
            if t:
                grad.baddbmm_(from_hidden, delta, beta=float(kept))
                slope = slopes[t - 1]
                if slope is not None:
                    grad.add_(slope)
        return self.grad_weight


__all__ = ["Recurrence"]
