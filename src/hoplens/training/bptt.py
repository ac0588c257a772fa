"""Hand-written backpropagation through time for an `Ensemble`: loss and gradients without autograd.

Everything is preallocated once a training run. The state buffer holds ``[s; x; 1]`` for every time step,
so that a step is one batched product with ``[W_rec; W_in; b]`` and its weight gradient is another.

For tanh the state holds ``s = sigmoid(2 z)`` in place of ``h = tanh(z) = 2 s - 1``, with the affine map
folded into the weights: PyTorch's vectorised sigmoid is many times faster than its tanh on CPUs, and the
result is the same function. A leaky state is an affine mean of such values, so that the fold holds for it
too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from hoplens.models.ensemble import Ensemble

TURN_FROM = 256  # from so many hidden units on, weights stored (H, F) are multiplied faster: worth a copy
TURN_ROWS = 32


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
    every_step : bool, default False
        Whether the loss reads out after every time step, or after the last one only.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        batch: int,
        length: int,
        form: str = "regression",
        *,
        every_step: bool = False,
    ) -> None:
        self.ensemble, self.length, self.form = ensemble, length, form
        self.first_read = 0 if every_step else length - 1
        e, f, h = ensemble.weight.shape
        new = ensemble.weight.new_empty
        self.folded = ensemble.activation == "tanh"
        self.states = new(length + 1, e, f, batch)  # the last one has no inputs
        self.states[:, :, -1] = 1.0
        self.states[0, :, :h] = 0.5 if self.folded else 0.0
        # views are made once: on small networks making them costs a tenth of a step
        self.before = list(self.states.unbind(0))
        self.hidden = list(self.states[:, :, :h].unbind(0))
        # what the activation returned, where the state itself is a mean of that and the state before
        self.renewed = self.hidden[1:] if ensemble.leak == 1 else list(new(length, e, h, batch).unbind(0))
        self.pre = new(e, h, batch)
        self.delta = new(e, h, batch)
        self.delta_t = self.delta.mT
        # the weights of the forward pass, (E, F, H): those of the ensemble, or a copy
        self.copied = self.folded or h >= TURN_FROM
        if h >= TURN_FROM:
            self.effective = new(e, h, f).mT
        else:
            self.effective = new(e, f, h) if self.folded else ensemble.weight
        self.grad_weight = torch.empty_like(ensemble.weight)
        self.grad_readout = torch.empty_like(ensemble.readout)
        self.grad_offset = torch.empty_like(ensemble.offset)

    @property
    def inputs(self) -> Tensor:
        """Where the batch's inputs go: a view of shape (L, E, I, B)."""
        h = self.ensemble.n_hidden
        return self.states[: self.length, :, h : h + self.ensemble.n_inputs]

    @property
    def grads(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the mean loss of each network, in the order of ``Ensemble.tensors``."""
        return self.grad_weight, self.grad_readout, self.grad_offset

    def run(self, targets: Tensor) -> Tensor:
        """Compute the loss of each network on ``inputs`` and fill ``grads``.

        Parameters
        ----------
        targets : Tensor, shape (R, E, O, B)
            R = L with ``every_step``, else 1.

        Returns
        -------
        Tensor, shape (E,)
            Mean loss over read-outs, outputs and samples.
        """
        self._forward()
        loss, slopes = self._loss(targets)
        self._backward(slopes)
        return loss

    def _loss(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses (E,) and their slopes (R, E, O, B); fill the gradients of the read-out."""
        readout, offset = self.ensemble.readout, self.ensemble.offset
        if self.folded:  # W (2 s - 1) + c
            offset = offset - readout.sum(dim=2, keepdim=True)
            readout = 2.0 * readout
        reads = self.hidden[1 + self.first_read :]
        outputs = torch.stack([torch.baddbmm(offset, readout, state) for state in reads])  # (R, E, O, B)
        share = 1.0 / (outputs.shape[0] * outputs.shape[2] * outputs.shape[3])
        if self.form == "sign":
            loss = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(
                dim=(0, 2, 3)
            )
            slopes = (outputs.sigmoid() - targets).mul_(share)
        else:
            slopes = outputs - targets
            loss = slopes.square().mean(dim=(0, 2, 3))
            slopes.mul_(2 * share)
        torch.sum(slopes, dim=(0, 3), out=self.grad_offset.squeeze(2))
        for n, (slope, state) in enumerate(zip(slopes, reads, strict=True)):
            self.grad_readout.baddbmm_(slope, state.mT, beta=float(n > 0))
        if self.folded:
            self.grad_readout.mul_(2.0).sub_(self.grad_offset)
        return loss, slopes

    def _forward(self) -> None:
        leak = self.ensemble.leak
        if self.copied:
            self._copy_weights(2.0 if self.folded else 1.0)
        if self.folded:  # 2 z = 2 (W_rec (2 s - 1) + W_in x + b)
            from_hidden = self.effective[:, : self.ensemble.n_hidden]
            self.effective[:, -1].sub_(from_hidden.sum(dim=1))
            from_hidden.mul_(2.0)
        pre, to_hidden, relu = self.pre, self.effective.mT, self.ensemble.activation == "relu"
        for t in range(self.length):
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

    def _backward(self, slopes: Tensor) -> None:
        """Backpropagate the slopes (R, E, O, B) of the loss by the outputs.

        The factors that all steps share are left to the end or to the products: ``delta`` is the slope by
        z divided by the leak and, for tanh, by 4, since d tanh(z) = 1 - h^2 = 4 s (1 - s).
        """
        h, leak, relu = self.ensemble.n_hidden, self.ensemble.leak, self.ensemble.activation == "relu"
        delta, delta_t, from_output = self.delta, self.delta_t, self.ensemble.readout.mT
        from_hidden = self.ensemble.recurrent()  # (E, H from, H to)
        factor = leak * (4.0 if self.folded else 1.0)
        sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
        threshold_backward = torch.ops.aten.threshold_backward.grad_input
        grad = torch.bmm(from_output, slopes[-1])  # by the state after step t
        for t in range(self.length - 1, -1, -1):
            if self.folded:
                sigmoid_backward(grad, self.renewed[t], grad_input=delta)
            elif relu:
                threshold_backward(grad, self.renewed[t], 0.0, grad_input=delta)
            else:
                delta.copy_(grad)
            self.grad_weight.baddbmm_(self.before[t], delta_t, beta=float(t + 1 < self.length))
            if t:
                grad.baddbmm_(from_hidden, delta, beta=1.0 - leak, alpha=factor)
            if t > self.first_read:
                grad.baddbmm_(from_output, slopes[t - 1 - self.first_read])
        if factor != 1:
            self.grad_weight[:, h:].mul_(factor)
        if self.folded:  # sum delta h^T = 2 sum delta s^T - sum delta 1^T
            self.grad_weight[:, :h].mul_(2.0 * factor).sub_(self.grad_weight[:, -1:])
        elif leak != 1:
            self.grad_weight[:, :h].mul_(leak)
