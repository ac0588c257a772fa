"""Hand-written backpropagation through time for an `Ensemble`: loss and gradients without autograd.

Everything is preallocated once a training run. The state buffer holds ``[s; x; 1]`` for every time step,
so that a step is one batched product with ``[W_rec; W_in; b]`` and its weight gradient is another.

For tanh the state holds ``s = sigmoid(2 z)`` in place of ``h = tanh(z) = 2 s - 1``, with the affine map
folded into the weights: PyTorch's vectorised sigmoid is many times faster than its tanh on CPUs, and the
result is the same function.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from hoplens.models import Ensemble


class Backprop:
    """Workspace for the loss and gradient of an ensemble on batches of one fixed size.

    Parameters
    ----------
    ensemble : Ensemble
        The networks; read at every call.
    batch, length : int
        Samples B and time steps L of a batch.
    form : {"regression", "sign"}
        Mean squared error, or binary cross-entropy on logits.
    """

    def __init__(self, ensemble: Ensemble, batch: int, length: int, form: str = "regression") -> None:
        self.ensemble, self.length, self.form = ensemble, length, form
        e, f, h = ensemble.weight.shape
        new = ensemble.weight.new_empty
        self.folded = ensemble.activation == "tanh"
        self.states = new(length, e, f, batch)
        self.states[:, :, -1] = 1.0
        self.states[0, :, :h] = 0.5 if self.folded else 0.0
        self.last = new(e, h, batch)
        self.pre = new(e, h, batch)
        self.delta = new(e, h, batch)
        self.effective = new(e, f, h) if self.folded else ensemble.weight
        self.grad_weight = torch.empty_like(ensemble.weight)
        self.grad_readout = torch.empty_like(ensemble.readout)
        self.grad_offset = torch.empty_like(ensemble.offset)

    @property
    def inputs(self) -> Tensor:
        """Where the batch's inputs go: a view of shape (L, E, I, B)."""
        h = self.ensemble.n_hidden
        return self.states[:, :, h : h + self.ensemble.n_inputs]

    @property
    def grads(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the mean loss of each network, in the order of ``Ensemble.tensors``."""
        return self.grad_weight, self.grad_readout, self.grad_offset

    def run(self, targets: Tensor) -> Tensor:
        """Compute the loss of each network on ``inputs`` and fill ``grads``.

        Parameters
        ----------
        targets : Tensor, shape (E, O, B)

        Returns
        -------
        Tensor, shape (E,)
            Mean loss over outputs and samples.
        """
        self._forward()
        hidden = self.last if not self.folded else self.last.mul(2).sub_(1)
        outputs = torch.baddbmm(self.ensemble.offset, self.ensemble.readout, hidden)  # (E, O, B)
        share = 1.0 / (outputs.shape[1] * outputs.shape[2])
        if self.form == "sign":
            loss = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(
                (1, 2)
            )
            slope = (outputs.sigmoid() - targets).mul_(share)
        else:
            slope = outputs - targets
            loss = slope.square().mean(dim=(1, 2))
            slope.mul_(2 * share)
        torch.bmm(slope, hidden.mT, out=self.grad_readout)
        torch.sum(slope, dim=2, keepdim=True, out=self.grad_offset)
        self._backward(torch.bmm(self.ensemble.readout.mT, slope))
        return loss

    def _forward(self) -> None:
        weight, h = self.ensemble.weight, self.ensemble.n_hidden
        if self.folded:
            # 2 z = 2 (W_rec (2 s - 1) + W_in x + b)
            torch.mul(weight, 2.0, out=self.effective)
            self.effective[:, -1].sub_(self.effective[:, :h].sum(dim=1))
            self.effective[:, :h].mul_(2.0)
        to_hidden = self.effective.mT
        for t in range(self.length):
            torch.bmm(to_hidden, self.states[t], out=self.pre)
            out = self.states[t + 1, :, :h] if t + 1 < self.length else self.last
            if self.folded:
                torch.sigmoid(self.pre, out=out)
            elif self.ensemble.activation == "relu":
                torch.clamp_min(self.pre, 0.0, out=out)
            else:
                out.copy_(self.pre)

    def _backward(self, grad: Tensor) -> None:
        """Backpropagate ``grad`` (E, H, B), the loss's derivative by the last hidden state."""
        h = self.ensemble.n_hidden
        from_hidden = self.ensemble.recurrent()  # (E, H from, H to)
        self.grad_weight.zero_()
        for t in range(self.length - 1, -1, -1):
            after = self.states[t + 1, :, :h] if t + 1 < self.length else self.last
            if self.folded:
                # d tanh(z) = 1 - h^2 = 4 s (1 - s)
                torch.ops.aten.sigmoid_backward.grad_input(grad, after, grad_input=self.delta)
                self.delta.mul_(4.0)
            elif self.ensemble.activation == "relu":
                torch.ops.aten.threshold_backward.grad_input(grad, after, 0.0, grad_input=self.delta)
            else:
                self.delta.copy_(grad)
            self.grad_weight.baddbmm_(self.states[t], self.delta.mT)
            if t:
                torch.bmm(from_hidden, self.delta, out=grad)
        if self.folded:  # sum delta h^T = 2 sum delta s^T - sum delta 1^T
            recurrent = self.grad_weight[:, :h]
            recurrent.mul_(2.0).sub_(self.grad_weight[:, -1:])
