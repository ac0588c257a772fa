"""Loss, penalties and their gradients for an ensemble: by hand-written kernels, or by plain autograd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from hoplens.errors import UnsupportedModelError
from hoplens.models.ensemble import Ensemble
from hoplens.penalties.base import Penalty, check_declared, terms_of
from hoplens.penalties.schedules import ScheduledPenalty
from hoplens.training.bptt import Backprop

Gradients = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class PenaltyGroup:
    """Neighbouring networks of an ensemble that share a penalty.

    Parameters
    ----------
    rows : slice
        Which networks.
    penalty : ScheduledPenalty
        What is penalised.
    strengths : Tensor, shape (rows,)
        Factor of each network.
    """

    rows: slice
    penalty: ScheduledPenalty
    strengths: Tensor


class Objective(Protocol):
    """What an optimiser step needs."""

    @property
    def grads(self) -> Gradients:
        """Gradients in the order of ``Ensemble.tensors``; always the same memory."""
        ...

    def run(self, inputs: Tensor, targets: Tensor, progress: float) -> Tensor:
        """Fill ``grads`` and return the losses without penalty, shape (E,).

        Parameters
        ----------
        inputs : Tensor, shape (L, E, I, B)
        targets : Tensor, shape (R, E, O, B)
            R is 1 (read out after the last step) or L (after every step).
        progress : float
            Share of training done, for the schedules of penalties.
        """
        ...


class FusedObjective:
    """The fast way: `Backprop` and `Penalty.gradients`, a handful of large operations a step."""

    def __init__(
        self,
        ensemble: Ensemble,
        groups: Sequence[PenaltyGroup],
        *,
        batch: int,
        length: int,
        form: str,
        every_step: bool,
    ) -> None:
        self.ensemble, self.groups = ensemble, groups
        check_groups(groups, ensemble.leak)
        # views of the weights, which change in place, where the graph is the weights themselves
        self.nets = [ensemble.select(group.rows).pathways() for group in groups] if ensemble.leak == 1 else []
        self.backprop = Backprop(ensemble, batch, length, form, every_step=every_step)

    @property
    def grads(self) -> Gradients:
        return self.backprop.grads

    @torch.no_grad()
    def run(self, inputs: Tensor, targets: Tensor, progress: float) -> Tensor:
        self.backprop.inputs.copy_(inputs)
        losses = self.backprop.run(targets)
        for n, group in enumerate(self.groups):
            for factor, penalty in group.penalty.active(progress):
                if self.nets:
                    _, grads = penalty.gradients(self.nets[n], group.strengths * factor)
                    self._add(group.rows, grads)
                else:
                    self._penalise_leaky(group, factor, penalty)
        return losses

    def _penalise_leaky(self, group: PenaltyGroup, factor: float, penalty: Penalty) -> None:
        part = self.ensemble.select(group.rows)
        net = part.pathways()
        for weight, term in terms_of(penalty):
            factors = group.strengths * (factor * weight)
            if term.acts_on == "weights":
                self._add(group.rows, term.slopes(*part.blocks(), factors))
            else:  # the graph holds leak * W: the chain rule
                self._add(group.rows, term.gradients(net, factors)[1], leak=self.ensemble.leak)

    def _add(
        self, rows: slice, grads: tuple[Tensor | None, Tensor | None, Tensor | None], *, leak: float = 1.0
    ) -> None:
        h, i = self.ensemble.n_hidden, self.ensemble.n_inputs
        weight, readout, _ = self.backprop.grads
        w_in, w_rec, w_out = grads
        if w_in is not None:
            weight[rows, h : h + i].add_(w_in.mT, alpha=leak)
        if w_rec is not None:
            weight[rows, :h].add_(w_rec.mT, alpha=leak)
        if w_out is not None:
            readout[rows].add_(w_out)


class EagerObjective:
    """The plain way, step by step through autograd: the reference of the fast one."""

    def __init__(self, ensemble: Ensemble, groups: Sequence[PenaltyGroup], *, form: str) -> None:
        self.ensemble, self.groups, self.form = ensemble, groups, form
        check_groups(groups, ensemble.leak)
        weight, readout, offset = (torch.zeros_like(tensor) for tensor in ensemble.tensors)
        self.grads: Gradients = (weight, readout, offset)

    @torch.enable_grad()
    def run(self, inputs: Tensor, targets: Tensor, progress: float) -> Tensor:
        weight, readout, offset = (tensor.detach().requires_grad_() for tensor in self.ensemble.tensors)
        ensemble = replace(self.ensemble, weight=weight, readout=readout, offset=offset)
        losses = ensemble_loss(ensemble, inputs, targets, form=self.form)
        total = losses.sum()
        for group in self.groups:
            part = ensemble.select(group.rows)
            for factor, penalty in group.penalty.active(progress):
                for share, term in terms_of(penalty):
                    on_weights = term.acts_on == "weights"
                    value = term.size(*part.blocks()) if on_weights else term(part.pathways())
                    total = total + (group.strengths * (factor * share) * value).sum()
        found = torch.autograd.grad(total, ensemble.tensors)
        for grad, new in zip(self.grads, found, strict=True):
            grad.copy_(new)
        return losses.detach()


def check_groups(groups: Sequence[PenaltyGroup], leak: float) -> None:
    """Raise where a penalty cannot act on a network of bare matrices, leaky or not."""
    for group in groups:
        for term in group.penalty.terms:
            if term.acts_on == "data":
                raise UnsupportedModelError(
                    "a penalty along data is known to hoplens.train_sequences, not to hoplens.train"
                )
            if leak < 1:
                check_declared(term, "a leaky unit")


def ensemble_loss(ensemble: Ensemble, inputs: Tensor, targets: Tensor, *, form: str = "regression") -> Tensor:
    """Return the mean loss of every network, differentiable, by plain PyTorch.

    Parameters
    ----------
    ensemble : Ensemble
        The networks.
    inputs : Tensor, shape (L, E, I, B)
    targets : Tensor, shape (R, E, O, B)
        R is 1 (read out after the last step) or L (after every step).
    form : {"regression", "sign"}
        Mean squared error, or binary cross-entropy on logits.

    Returns
    -------
    Tensor, shape (E,)
    """
    sequences = inputs.permute(1, 3, 0, 2)
    if len(targets) == 1:
        outputs = ensemble.predict(sequences).mT[None]
    else:
        outputs = ensemble.predict_steps(sequences).permute(2, 0, 3, 1)
    if form == "sign":
        cost = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    else:
        cost = (outputs - targets).square()
    return cost.mean(dim=(0, 2, 3))
