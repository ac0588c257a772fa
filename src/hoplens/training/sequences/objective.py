"""Loss, penalties and their gradients of an ensemble of recurrent cells on a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hoplens.errors import UnsupportedModelError
from hoplens.penalties.base import Penalty, check_declared, terms_of
from hoplens.penalties.flow import FlowPenalty
from hoplens.training.objective import PenaltyGroup
from hoplens.training.sequences.batches import SequenceStream
from hoplens.training.sequences.ensemble import SequenceEnsemble
from hoplens.training.sequences.losses import losses, valid_steps
from hoplens.training.sequences.recurrence import Recurrence

AT = ("raw", "origin", "mean")


class SequenceObjective:
    """Hand-written gradients of the loss, and those of each group's penalty.

    Weight penalties act on the weights of all gates. Pathway penalties act on the graph of the cell
    linearised at ``at``. Trajectory penalties follow the batch.

    Parameters
    ----------
    ensemble : SequenceEnsemble
    stream : SequenceStream
        Source of dropout noise; says batch size and form.
    groups : sequence of PenaltyGroup
    length : int
        Most time steps of a batch.
    at : {"raw", "origin", "mean"}, optional
        See `SequenceEnsemble.pathways`; "mean" is the mean state and input over the steps of the batch, taken
        as constants.
    rates : Tensor, shape (E,), optional
        Dropout rates.
    there : (Tensor, Tensor), optional
        Input weights (H + I + 1, K) and read-out weights (O, H) that exist, 0 or 1: gradients of the others
        are 0. Default all that the cell has.
    """

    def __init__(
        self,
        ensemble: SequenceEnsemble,
        stream: SequenceStream,
        groups: Sequence[PenaltyGroup],
        *,
        length: int,
        at: str | None = None,
        rates: Tensor | None = None,
        there: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.ensemble, self.stream, self.groups = ensemble, stream, groups
        self.at, self.rates, self.form = at, rates, stream.form
        self._check(groups)
        self.recurrence = Recurrence(ensemble, stream.size, length)
        self.structure = ensemble.structure() if ensemble.cell == "gru" else None
        self.shown = None
        if there is not None:
            self.structure, self.shown = there
        self.grad_readout = torch.empty_like(ensemble.readout)
        self.grad_offset = torch.empty_like(ensemble.offset)

    def _check(self, groups: Sequence[PenaltyGroup]) -> None:
        for term in (term for group in groups for term in group.penalty.terms):
            if self.ensemble.cell != "tanh":
                check_declared(term, f"a {self.ensemble.cell} cell")
            if term.acts_on == "data" and not isinstance(term, FlowPenalty):
                raise UnsupportedModelError(
                    f"of penalties along data an ensemble knows FlowPenalty, got {type(term).__name__}"
                )

    @property
    def grads(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients in the order of ``SequenceEnsemble.tensors``; always the same memory."""
        return self.recurrence.grad_weight, self.grad_readout, self.grad_offset

    @torch.no_grad()
    def run(self, inputs: Tensor, targets: Tensor, lengths: Tensor, *, progress: float) -> Tensor:
        """Fill ``grads`` and return the losses without penalty, shape (E,).

        Parameters
        ----------
        inputs, targets, lengths : Tensor
            See `SequenceStream.batch`.
        progress : float
            Share of training done, for the schedules of penalties.
        """
        mask = None
        if self.rates is not None:
            drop, mask = self._masks(inputs)
            inputs = inputs * drop
        hidden = self.recurrence.forward(inputs)
        reads = [self._last(lengths)] if self.form == "class" else hidden
        if mask is not None:
            reads = [h * mask for h in reads]
        loss, slopes = self._read_out(reads, targets, lengths)
        back: list[Tensor | None] = [torch.bmm(self.ensemble.readout.mT, slope) for slope in slopes]
        if mask is not None:
            back = [None if slope is None else slope.mul_(mask) for slope in back]
        if self.form == "class":
            back = _spread(back[0], lengths, len(hidden))
        self.recurrence.backward(back)
        for group in self.groups:
            self._penalise(group, inputs, lengths, progress)
        if self.structure is not None:  # weights that the cell does not have stay zero
            self.recurrence.grad_weight.mul_(self.structure)
        if self.shown is not None:
            self.grad_readout.mul_(self.shown)
        return loss

    def _masks(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return dropout's factors on inputs (E, I, B) and on read-out (E, H, B): one mask a sequence."""
        assert self.rates is not None
        count = inputs.shape[2]
        noise = self.stream.noise(count + self.ensemble.n_hidden).to(inputs)
        rates = self.rates[:, None, None]
        masks = (noise >= rates).to(inputs) / (1 - rates)
        return masks[:, :count], masks[:, count:]

    def _last(self, lengths: Tensor) -> Tensor:
        steps, h = int(lengths.max()), self.ensemble.n_hidden
        states = self.recurrence.states[1 : steps + 1, :, :h]
        return states.gather(0, (lengths - 1)[None, :, None].expand(1, -1, h, -1))[0]

    def _read_out(self, reads: Sequence[Tensor], targets: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses (E,) and slopes (R, E, O, B); fill the gradients of the read-out."""
        readout, offset = self.ensemble.readout, self.ensemble.offset
        outputs = torch.stack([torch.baddbmm(offset, readout, h) for h in reads])
        with torch.enable_grad():
            outputs.requires_grad_()
            loss = losses(outputs, targets, lengths, self.form)
            (slopes,) = torch.autograd.grad(loss.sum(), outputs)
        torch.sum(slopes, dim=(0, 3), out=self.grad_offset.squeeze(2))
        for n, (slope, h) in enumerate(zip(slopes, reads, strict=True)):
            self.grad_readout.baddbmm_(slope, h.mT, beta=float(n > 0))
        return loss.detach(), slopes

    def _penalise(self, group: PenaltyGroup, inputs: Tensor, lengths: Tensor, progress: float) -> None:
        linear: list[tuple[float, Penalty]] = []
        for factor, penalty in group.penalty.active(progress):
            for weight, term in terms_of(penalty):
                if term.acts_on == "weights":
                    self._add_weights(term, group.rows, group.strengths * (factor * weight))
                elif term.acts_on == "data":
                    assert isinstance(term, FlowPenalty)  # __init__ has seen to it
                    strengths = group.strengths * (factor * weight)
                    self._add_flow(term, group.rows, strengths, inputs, lengths)
                else:
                    linear.append((factor * weight, term))
        if linear:
            self._add_pathways(linear, group, inputs, lengths)

    def _add_weights(self, penalty: Penalty, rows: slice, factors: Tensor) -> None:
        h = self.ensemble.n_hidden
        weight = self.ensemble.weight[rows]
        w_in, w_rec, w_out = penalty.slopes(
            weight[:, h:-1], weight[:, :h], self.ensemble.readout[rows], factors
        )
        grad, readout, _ = self.grads
        for part, slope in ((grad[rows, h:-1], w_in), (grad[rows, :h], w_rec), (readout[rows], w_out)):
            if slope is not None:
                part.add_(slope)

    def _add_pathways(
        self, terms: Sequence[tuple[float, Penalty]], group: PenaltyGroup, inputs: Tensor, lengths: Tensor
    ) -> None:
        part = self.ensemble.select(group.rows)
        leaf = part.weight.detach().requires_grad_()
        state, x = self._mean_point(group.rows, inputs, lengths) if self.at == "mean" else (None, None)
        with torch.enable_grad():
            net = replace(part, weight=leaf).pathways(
                "point" if self.at == "mean" else self.at, state=state, x=x
            )
        still = net.detach()
        for factor, penalty in terms:
            _, (w_in, w_rec, w_out) = penalty.gradients(still, group.strengths * factor)
            if w_out is not None:
                self.grad_readout[group.rows].add_(w_out[..., : self.ensemble.n_hidden])
            pairs = [(y, g) for y, g in ((net.w_in, w_in), (net.w_rec, w_rec)) if g is not None]
            if pairs:
                (slope,) = torch.autograd.grad(
                    [y for y, _ in pairs], leaf, [g for _, g in pairs], retain_graph=True
                )
                self.recurrence.grad_weight[group.rows].add_(slope)

    def _add_flow(
        self, penalty: FlowPenalty, rows: slice, factors: Tensor, inputs: Tensor, lengths: Tensor
    ) -> None:
        part = self.ensemble.select(rows)
        leaves = part.weight.detach().requires_grad_(), part.readout.detach().requires_grad_()
        moved = replace(part, weight=leaves[0], readout=leaves[1])
        value = penalty.along(moved, inputs[:, rows], lengths[rows])
        with torch.enable_grad():
            slopes = torch.autograd.grad((factors * value).sum(), leaves)
        self.recurrence.grad_weight[rows].add_(slopes[0])
        self.grad_readout[rows].add_(slopes[1])

    def _mean_point(self, rows: slice, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean state before a step (rows, S) and input (rows, I) over the batch's valid steps."""
        steps = len(inputs)
        valid = valid_steps(lengths[rows], steps).to(inputs)  # (L, E, B)
        share = (valid / valid.sum(dim=(0, 2))[:, None]).unsqueeze(3)
        runs = [self.recurrence.hidden] + ([self.recurrence.cells] if self.recurrence.cells else [])
        means = [
            torch.stack([torch.bmm(run[t][rows], share[t]) for t in range(steps)]).sum(dim=0) for run in runs
        ]
        x = torch.matmul(inputs[:, rows], share).sum(dim=0)
        return torch.cat(means, dim=1)[..., 0], x[..., 0]


def _spread(slope: Tensor | None, lengths: Tensor, steps: int) -> list[Tensor | None]:
    """Return the slope (E, H, B) of each sequence's read-out at the step where it ends."""
    assert slope is not None
    if int(lengths.min()) == steps:
        return [*([None] * (steps - 1)), slope]
    there = set(lengths.unique().tolist())
    return [
        slope * (lengths == t + 1).to(slope).unsqueeze(1) if t + 1 in there else None for t in range(steps)
    ]


__all__ = ["AT", "SequenceObjective"]
