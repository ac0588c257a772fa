"""Loss, penalties and their gradients for an ensemble on a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hoplens.data.streams import Stream
from hoplens.errors import UnsupportedModelError
from hoplens.models.ensemble import Ensemble
from hoplens.penalties.base import Penalty, check_declared, terms_of
from hoplens.penalties.flow import FlowPenalty
from hoplens.penalties.held import is_direct
from hoplens.penalties.schedules import ScheduledPenalty
from hoplens.training.bptt import make_recurrence
from hoplens.training.losses import loss_and_slopes, valid_steps

Blocks = tuple[Tensor | None, Tensor | None, Tensor | None]


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


class Objective:
    """Gradients of the loss, and those of each group's penalty.

    Penalties on weights act on the weights of all gates, those on the graph on the graph of the cell
    linearised at ``at``, those along data on the batch.

    Parameters
    ----------
    ensemble : Ensemble
    stream : Stream
        Says batch size and form; source of dropout noise.
    groups : sequence of PenaltyGroup
    length : int
        Most time steps of a batch.
    at : {"raw", "origin", "mean"}, optional
        See `Ensemble.pathways`; "mean" is the mean state and input over the steps of the batch, taken as
        constants.
    rates : Tensor, shape (E,), optional
        Dropout rates.
    there : (Tensor, Tensor), optional
        Input weights (H + I + 1, K) and read-out weights (O, H) that exist, 0 or 1: gradients of the others
        are 0. Default all that the cell has.
    eager : bool, default False
        By plain autograd: several times slower, the reference of the hand-written kernels.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        stream: Stream,
        groups: Sequence[PenaltyGroup],
        *,
        length: int,
        at: str | None = None,
        rates: Tensor | None = None,
        there: tuple[Tensor, Tensor] | None = None,
        eager: bool = False,
    ) -> None:
        self.ensemble, self.stream, self.groups = ensemble, stream, groups
        self.at, self.rates, self.eager = at, rates, eager
        self.form, self.every_step = stream.form, stream.every_step
        self._check()
        self.recurrence = make_recurrence(ensemble, stream.size, length, eager=eager)
        self.structure = None if ensemble.plain else ensemble.structure()
        self.shown = None
        if there is not None:
            self.structure, self.shown = there
        self.grad_readout = torch.empty_like(ensemble.readout)
        self.grad_offset = torch.empty_like(ensemble.offset)
        # views of the weights, which change in place, where the graph is the weights themselves
        self.bare = ensemble.plain and ensemble.leak == 1 and at in (None, "raw")
        self.nets = [ensemble.select(group.rows).pathways() for group in groups] if self.bare else []

    def _check(self) -> None:
        for term in (term for group in self.groups for term in group.penalty.terms):
            if not self.ensemble.plain:
                check_declared(term, f"a {self.ensemble.cell} cell")
            elif self.ensemble.leak < 1:
                check_declared(term, "a leaky unit")
            if term.acts_on == "data" and not isinstance(term, FlowPenalty):
                raise UnsupportedModelError(
                    f"of penalties along data an ensemble knows FlowPenalty, got {type(term).__name__}"
                )

    @property
    def grads(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients in the order of ``Ensemble.tensors``; always the same memory."""
        return self.recurrence.grad_weight, self.grad_readout, self.grad_offset

    @torch.no_grad()
    def run(self, inputs: Tensor, targets: Tensor, lengths: Tensor | None, *, progress: float) -> Tensor:
        """Fill ``grads`` and return the losses without penalty, shape (E,).

        Parameters
        ----------
        inputs, targets, lengths : Tensor
            See `hoplens.data.streams.make_stream`.
        progress : float
            Share of training done, for the schedules of penalties.
        """
        mask = None
        if self.rates is not None:
            drop, mask = self._masks(inputs)
            inputs = inputs * drop
        self.recurrence.forward(inputs)
        loss, slopes = self._read_out(len(inputs), targets, lengths, mask)
        self.recurrence.backward(self._by_step(slopes, lengths, len(inputs)), mask)
        for n, group in enumerate(self.groups):
            self._penalise(n, group, inputs, lengths, progress)
        if self.structure is not None:  # weights that do not exist stay zero
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

    def _reads(self, steps: int, lengths: Tensor | None) -> Sequence[Tensor]:
        """Return the kept states that are read out, each (E, H, B)."""
        states = self.recurrence.hidden[1 : steps + 1]
        if self.every_step:
            return states
        if lengths is None or int(lengths.min()) == steps:
            return states[-1:]
        ends = (lengths - 1)[None, :, None].expand(1, -1, self.ensemble.n_hidden, -1)
        return [torch.stack(list(states)).gather(0, ends)[0]]

    def _read_out(
        self, steps: int, targets: Tensor, lengths: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return losses (E,) and slopes (R, E, O, B); fill the gradients of the read-out."""
        readout, offset = self.ensemble.readout, self.ensemble.offset
        scale, shift = self.recurrence.scale, self.recurrence.shift
        reads = self._reads(steps, lengths)
        if mask is not None:
            reads = [(scale * state + shift) * mask for state in reads]
            scale, shift = 1.0, 0.0
        if shift:
            offset = offset + shift * readout.sum(dim=2, keepdim=True)
        if scale != 1:
            readout = scale * readout
        outputs = torch.stack([torch.baddbmm(offset, readout, state) for state in reads])
        loss, slopes = loss_and_slopes(outputs, targets, lengths, self.form)
        torch.sum(slopes, dim=(0, 3), out=self.grad_offset.squeeze(2))
        for n, (slope, state) in enumerate(zip(slopes, reads, strict=True)):
            self.grad_readout.baddbmm_(slope, state.mT, beta=float(n > 0))
        if scale != 1:
            self.grad_readout.mul_(scale)
        if shift:
            self.grad_readout.add_(self.grad_offset, alpha=shift)
        return loss, slopes

    def _by_step(self, slopes: Tensor, lengths: Tensor | None, steps: int) -> Sequence[Tensor | None]:
        """Return the slopes after every step; that of the end of a sequence where it ends."""
        if self.every_step:
            return slopes.unbind(0)
        if lengths is None or int(lengths.min()) == steps:
            return [*([None] * (steps - 1)), slopes[0]]
        ends = set(lengths.unique().tolist())
        return [
            slopes[0] * (lengths == t + 1).to(slopes).unsqueeze(1) if t + 1 in ends else None
            for t in range(steps)
        ]

    def _penalise(
        self, n: int, group: PenaltyGroup, inputs: Tensor, lengths: Tensor | None, progress: float
    ) -> None:
        linear: list[tuple[float, Penalty]] = []
        for factor, penalty in group.penalty.active(progress):
            terms = terms_of(penalty)
            if self.bare and not any(term.acts_on == "data" for _, term in terms):
                self._add(group.rows, self._gradients(penalty, self.nets[n], group.strengths * factor))
                continue
            for weight, term in terms:
                strengths = group.strengths * (factor * weight)
                if term.acts_on == "weights":
                    own = self.ensemble.select(group.rows).blocks()
                    self._add(group.rows, self._slopes(term, own, strengths))
                elif term.acts_on == "data":
                    assert isinstance(term, FlowPenalty)  # __init__ has seen to it
                    self._add_flow(term, group.rows, strengths, inputs, lengths)
                else:
                    linear.append((factor * weight, term))
        if linear:
            self._add_pathways(linear, group, inputs, lengths)

    def _gradients(self, penalty: Penalty, net: object, factors: Tensor) -> Blocks:
        """Return the gradients by the graph's blocks; by autograd where the plain way is asked for."""
        way = Penalty.gradients if self.eager else type(penalty).gradients
        return way(penalty, net, factors)[1]  # type: ignore[arg-type]

    def _slopes(self, term: Penalty, blocks: tuple[Tensor, Tensor, Tensor], factors: Tensor) -> Blocks:
        return (Penalty.slopes if self.eager else type(term).slopes)(term, *blocks, factors)

    def _add(self, rows: slice, blocks: Blocks, *, leak: float = 1.0) -> None:
        """Add gradients by W_in, W_rec and W_out, of which the graph holds ``leak`` times the first two."""
        h = self.ensemble.n_hidden
        grad = self.recurrence.grad_weight
        w_in, w_rec, w_out = blocks
        if w_in is not None:
            grad[rows, h:-1].add_(w_in.mT, alpha=leak)
        if w_rec is not None:
            grad[rows, :h].add_(w_rec.mT, alpha=leak)
        if w_out is not None:
            self.grad_readout[rows].add_(w_out)

    def _add_pathways(
        self,
        terms: Sequence[tuple[float, Penalty]],
        group: PenaltyGroup,
        inputs: Tensor,
        lengths: Tensor | None,
    ) -> None:
        part = self.ensemble.select(group.rows)
        if part.plain and self.at in (None, "raw"):  # the chain rule of a leak is a factor
            still = part.pathways()
            for factor, penalty in terms:
                slopes = self._gradients(penalty, still, group.strengths * factor)
                self._add(group.rows, slopes, leak=self.ensemble.leak)
            return
        leaf = part.weight.detach().requires_grad_()
        state, x = self._mean_point(group.rows, inputs, lengths) if self.at == "mean" else (None, None)
        with torch.enable_grad():
            place = "point" if self.at == "mean" else self.at
            net = replace(part, weight=leaf).pathways(place, state=state, x=x)
        still = net.detach()
        for factor, penalty in terms:
            w_in, w_rec, w_out = self._gradients(penalty, still, group.strengths * factor)
            if w_out is not None:
                self.grad_readout[group.rows].add_(w_out[..., : self.ensemble.n_hidden])
            pairs = [(y, g) for y, g in ((net.w_in, w_in), (net.w_rec, w_rec)) if g is not None]
            if pairs:
                (slope,) = torch.autograd.grad(
                    [y for y, _ in pairs], leaf, [g for _, g in pairs], retain_graph=True
                )
                self.recurrence.grad_weight[group.rows].add_(slope)

    def _add_flow(
        self,
        penalty: FlowPenalty,
        rows: slice,
        factors: Tensor,
        inputs: Tensor,
        lengths: Tensor | None,
    ) -> None:
        if penalty.slopes_are == "held" and not self.eager:
            ends = None if lengths is None else lengths[rows]
            self._add_held(penalty, rows, factors, inputs, ends)
            return
        part = self.ensemble.select(rows)
        leaves = part.weight.detach().requires_grad_(), part.readout.detach().requires_grad_()
        moved = replace(part, weight=leaves[0], readout=leaves[1])
        with torch.enable_grad():
            ends = _all_of(lengths, inputs)[rows]
            value = penalty.along(moved, inputs[:, rows], ends, self.every_step)
            slopes = torch.autograd.grad((factors * value).sum(), leaves)
        self.recurrence.grad_weight[rows].add_(slopes[0])
        self.grad_readout[rows].add_(slopes[1])

    def _add_held(
        self, penalty: FlowPenalty, rows: slice, factors: Tensor, inputs: Tensor, ends: Tensor | None
    ) -> None:
        part = self.ensemble.select(rows)
        flow = penalty.gradients_along(
            part,
            inputs[:, rows],
            ends,
            self.every_step,
            factors,
            lambda columns, steps: self.recurrence.before_steps(rows, columns, steps),
        )
        self.grad_readout[rows].add_(flow.readout)
        grad, h = self.recurrence.grad_weight[rows], part.n_hidden
        if is_direct(part.kernel):
            grad[:, :h].add_(flow.w_h.mT)
            grad[:, h:-1].add_(flow.w_x.mT)
            return
        with torch.enable_grad():  # what the projections are made of
            leaf = part.weight.detach().requires_grad_()
            w_x, w_h, _ = part.kernel.projections(leaf, h)
            grad.add_(torch.autograd.grad([w_x, w_h], leaf, [flow.w_x, flow.w_h])[0])

    def _mean_point(self, rows: slice, inputs: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the mean state before a step (rows, S) and input (rows, I) over the batch's valid steps."""
        steps, run = len(inputs), self.recurrence
        valid = valid_steps(_all_of(lengths, inputs)[rows], steps).to(inputs)  # (L, E, B)
        share = (valid / valid.sum(dim=(0, 2))[:, None]).unsqueeze(3)

        def mean(states: Sequence[Tensor]) -> Tensor:
            return torch.stack([torch.bmm(states[t][rows], share[t]) for t in range(steps)]).sum(dim=0)

        means = [run.scale * mean(run.hidden) + run.shift, *([mean(run.cells)] if run.cells else [])]
        x = torch.matmul(inputs[:, rows], share).sum(dim=0)
        return torch.cat(means, dim=1)[..., 0], x[..., 0]


def _all_of(lengths: Tensor | None, inputs: Tensor) -> Tensor:
    """Return lengths (E, B), those of whole sequences where none are given."""
    if lengths is not None:
        return lengths
    return torch.full((inputs.shape[1], inputs.shape[3]), len(inputs), device=inputs.device)


__all__ = ["Objective", "PenaltyGroup"]
