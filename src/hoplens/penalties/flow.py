"""A penalty on what flows along given sequences, sampled to bound the cost; see `docs/flow.md`."""

# ruff: noqa: ARG002 - all specifications share one signature
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from hoplens import seeds
from hoplens.errors import (
    ParameterError,
    ShapeError,
    UnsupportedModelError,
    check_choice,
    check_count,
    check_number,
)
from hoplens.graph.pathways import Pathways
from hoplens.models.adjoint import pull_stack
from hoplens.models.cells import WeightCell
from hoplens.models.readers.models import ModelParts, is_recurrent, parts_of, recurrent_parts
from hoplens.models.rollout import Batch, as_batch, run, unroll
from hoplens.models.stack import Stack
from hoplens.penalties.base import Penalty
from hoplens.penalties.free import following, module_batch, outputs_at
from hoplens.penalties.held import HeldFlow, by_lag, held_flow, plain_flow, slopes_along, states_before

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hoplens.models.ensemble import Ensemble

ALL_OUTPUTS = 16  # up to so many outputs are all followed; of more, so many drawn ones cost as much


class _Draw(NamedTuple):
    """What a call follows.

    Attributes
    ----------
    rows : Tensor of int64, shape (b,)
        Sequences of the batch.
    outputs : Tensor of int64 or None
        Outputs; None: all.
    scale : float
        Factor that makes the mean over draws the whole: outputs there are, by outputs followed.
    """

    rows: Tensor
    outputs: Tensor | None
    scale: float


class FlowPenalty(Penalty):
    """Penalise the pathways that data take through a network: its Jacobians along given sequences.

    With T the step of a read-out, J_t and B_t the Jacobians of step t by state and input, k = T - t + 2 the
    hops of an input at step t, and a the damping,

        P = mean over sequences of  sum_(t <= T) |a^k  W_out J_T J_(T-1) .. J_(t+1) B_t|

    For tanh units this is ``W_out D_T W_rec D_(T-1) .. W_rec D_t W_in`` with the slopes D of the units, and
    for gated cells every coefficient that gates and candidates set. With ``slopes="held"`` these coefficients
    are constants, and the gradient goes through the weights only: the optimiser can make P small by cutting
    wires, and not by driving units into saturation, where slopes vanish and gradients of the loss with them.
    Of a linear network it is `PathwayPenalty` with ``across="hops"``.

    A call takes a random part of it that has P as its expectation: some sequences of the batch; where there
    are many outputs, some of them; and where every step is read out, one step T of each sequence (the mean
    over read-outs, as ``readouts="every"`` of `PathwayPenalty`).

    Parameters
    ----------
    damping : float, default 1
        Factor on every hop, above 0 and at most 1. Below 1 long hops are nearly free and grow back.
    sequences : int, default 2
        Sequences followed a call; all where the batch has fewer.
    norm : {"l1", "frobenius"}, default "l1"
        Of the map (O, I) of a hop. L1 by hop is what makes hops few.
    slopes : {"held", "free"}, default "held"
        "free" differentiates the slopes too, by a second backward pass: the loophole that "held" closes, for
        comparison, and for modules that are not made of known cells.
    outputs : int, optional
        Outputs followed a call, drawn anew each time; default all, or 16 where there are more.
    every_step : bool, optional
        Whether the loss reads out after every step, else after the last valid one; default what a
        `RecurrentModel` says of itself, else False.
    generator : torch.Generator
        Source of the draws, a CPU generator. The global random state is never used.

    Raises
    ------
    ParameterError
        For options out of range, and for a sample of outputs with the Frobenius norm, whose expectation would
        not be that of all outputs.
    """

    acts_on = "data"

    def __init__(
        self,
        damping: float = 1.0,
        *,
        sequences: int = 2,
        norm: Literal["l1", "frobenius"] = "l1",
        slopes: Literal["held", "free"] = "held",
        outputs: int | None = None,
        every_step: bool | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.damping = check_number("damping", damping, above=0.0, most=1.0)
        self.sequences = check_count("sequences", sequences)
        self.norm = check_choice("norm", norm, ("l1", "frobenius"))
        self.slopes_are = check_choice("slopes", slopes, ("held", "free"))
        self.outputs = None if outputs is None else check_count("outputs", outputs)
        if norm == "frobenius" and outputs is not None:
            raise ParameterError("a sample of outputs= goes with norm='l1'; leave it out")
        self.every_step = every_step
        if not isinstance(generator, torch.Generator):
            raise ParameterError("FlowPenalty needs generator=torch.Generator().manual_seed(...)")
        self.generator = generator

    def forward(
        self, net: Any, inputs: Tensor | None = None, lengths: Tensor | None = None, *, readout: Any = None
    ) -> Tensor:
        """Return the penalty of a model on sequences.

        Parameters
        ----------
        net : model
            Anything recurrent that `read` takes, files and arrays excepted; dropout between its layers is
            off, as in evaluation. With ``slopes="free"`` also any module (run in evaluation mode) or
            function from (B, L, I) to (B, L, O) or (B, O) whose samples do not depend on each other.
        inputs : Tensor, shape (B, L, I)
        lengths : Tensor of int64, shape (B,), optional
            Valid steps; default all.
        readout : nn.Linear or matrix (O, H), optional
            After a bare core.

        Returns
        -------
        Tensor, shape ()

        Raises
        ------
        UnsupportedModelError
            If it is called without inputs, or the slopes of a model cannot be held.
        ShapeError
            If the inputs do not fit.
        """
        if inputs is None or isinstance(net, Pathways) or not (callable(net) or is_recurrent(net)):
            raise UnsupportedModelError(
                "FlowPenalty follows a model along its data: call penalty(model, inputs (B, L, I))"
            )
        if isinstance(inputs, Tensor) and inputs.dim() != 3:
            raise ShapeError(f"inputs must have shape (B, L, I), got {tuple(inputs.shape)}")
        return (
            self._held(net, inputs, lengths, readout)
            if self.slopes_are == "held"
            else self._free(net, inputs, lengths, readout)
        )

    def _held(self, net: Any, inputs: Any, lengths: Tensor | None, readout: Any) -> Tensor:
        parts = parts_of(net, readout)
        stack = parts.stack()
        if isinstance(stack, Pathways) or not all(isinstance(cell, WeightCell) for cell in stack.cells):
            raise UnsupportedModelError(
                f"the slopes of a {type(net).__name__} cannot be held, as its step is not made of known "
                'equations; FlowPenalty(slopes="free") follows it by autograd'
            )
        _check_window(parts)
        batch = as_batch(stack, inputs, lengths)
        readouts = stack.readout(batch.inputs)
        draw = self._draw(len(batch.inputs), len(readouts))
        part, reads = self._part(batch, draw.rows, parts.info.every_step)
        if draw.outputs is not None:
            readouts = readouts[draw.outputs.to(readouts.device)]
        followed = Stack(stack.levels, readouts, stack.label, stack.batch_first)
        maps = pull_stack(followed, run(stack, part), part, reads)  # (b, L, O, I)
        return self._size(maps, _hops(reads, maps, len(stack.levels))) * draw.scale / len(maps)

    def _part(self, batch: Batch, rows: Tensor, every_step: bool) -> tuple[Batch, Tensor]:
        """Return the sequences drawn, and the step (b,) at which each is read out."""
        rows = rows.to(batch.inputs.device)
        part = Batch(batch.inputs[rows], batch.lengths[rows])
        every = every_step if self.every_step is None else self.every_step
        return part, self._reads(part.lengths.cpu(), every).to(rows.device)

    def _size(self, maps: Tensor, hops: Tensor) -> Tensor:
        """Return the damped size of maps (b, L, O, I) of so many hops (b, L)."""
        sizes = maps.abs().sum((2, 3)) if self.norm == "l1" else torch.linalg.vector_norm(maps, dim=(2, 3))
        return (self.damping ** hops.to(sizes) * sizes).sum()

    def _free(self, net: Any, inputs: Any, lengths: Tensor | None, readout: Any) -> Tensor:
        parts = recurrent_parts(net, readout)
        stack = None if parts is None else parts.stack()
        if isinstance(stack, Pathways):
            raise UnsupportedModelError(
                f"the reader of a {type(net).__name__} returns weights only, which cannot be followed"
            )
        if parts is None or stack is None:
            return self._free_module(net, inputs, lengths, readout)
        _check_window(parts)
        batch = as_batch(stack, inputs, lengths)
        part, reads = self._part(batch, self._draw(len(batch.inputs), 1).rows, parts.info.every_step)
        with torch.enable_grad():
            x = part.inputs.detach().clone().requires_grad_()
            shown = unroll(stack, Batch(x, part.lengths)).shown[torch.arange(len(x), device=x.device), reads]
            return self._free_size(shown @ stack.readout(shown).mT, x, reads, len(stack.levels))

    def _free_module(self, net: Any, inputs: Any, lengths: Tensor | None, readout: Any) -> Tensor:
        whole = module_batch(net, inputs, lengths, readout)
        part, reads = self._part(whole, self._draw(len(whole.inputs), 1).rows, every_step=False)
        with following(net):
            x = part.inputs.clone().requires_grad_()
            return self._free_size(outputs_at(net, x, reads, bool(self.every_step)), x, reads, 1)

    def _free_size(self, outputs: Tensor, x: Tensor, reads: Tensor, levels: int) -> Tensor:
        """Return the penalty of outputs (b, O) of inputs (b, L, I), differentiable once more."""
        draw = self._draw(len(x), outputs.shape[1], sequences=False)
        chosen = range(outputs.shape[1]) if draw.outputs is None else draw.outputs.tolist()
        maps = torch.stack(
            [torch.autograd.grad(outputs[:, o].sum(), x, create_graph=True)[0] for o in chosen], dim=2
        )
        return self._size(maps, _hops(reads, maps, levels)) * draw.scale / len(x)

    def along(self, ensemble: Ensemble, inputs: Tensor, lengths: Tensor, every_step: bool = False) -> Tensor:
        """Return the penalty of every network of an ensemble on its batch, shape (E,), by autograd.

        Training takes `gradients_along` where slopes are held; this is its twin.

        Parameters
        ----------
        ensemble : Ensemble
            With weights that require gradients.
        inputs : Tensor, shape (L, E, I, B)
        lengths : Tensor of int64, shape (E, B)
        every_step : bool, default False
            Whether every step is read out, where the penalty does not say.
        """
        draw = self._draw(inputs.shape[-1], ensemble.n_outputs)
        every = every_step if self.every_step is None else self.every_step
        reads = self._reads(lengths[:, draw.rows.to(lengths.device)], every)
        steps = int(reads.max()) + 1
        x = inputs[:steps].detach().index_select(-1, draw.rows.to(inputs.device))
        x = x.expand(-1, ensemble.size, -1, -1)
        follow = self._held_along if self.slopes_are == "held" else self._free_along
        return follow(ensemble, x, draw, reads) * (draw.scale / len(draw.rows))

    def _held_along(self, ensemble: Ensemble, x: Tensor, draw: _Draw, reads: Tensor) -> Tensor:
        with torch.no_grad():
            slopes, routes = slopes_along(ensemble, states_before(ensemble, x), x)
            slopes = by_lag(slopes, reads)
        weights = self.damping ** (torch.arange(len(slopes), device=x.device) + 2).to(x)
        return plain_flow(ensemble, slopes, routes, weights, draw.outputs, self.norm)

    def _free_along(self, ensemble: Ensemble, x: Tensor, draw: _Draw, reads: Tensor) -> Tensor:
        chosen = range(ensemble.n_outputs) if draw.outputs is None else draw.outputs.tolist()
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            states = torch.stack(list(ensemble.states(x)))  # (L, E, H, b)
            place = reads[None, :, None].expand(1, -1, ensemble.n_hidden, -1)
            outputs = torch.baddbmm(ensemble.offset, ensemble.readout, states.gather(0, place)[0])
            maps = torch.stack(
                [torch.autograd.grad(outputs[:, o].sum(), x, create_graph=True)[0] for o in chosen]
            )  # (O, L, E, I, b)
            lags = (reads - torch.arange(len(x), device=x.device)[:, None, None]).clamp_min(0)  # (L, E, b)
            # steps after the read-out have no flow, where a root would have no slope
            l1 = self.norm == "l1"
            sizes = maps.abs().sum((0, 3)) if l1 else torch.linalg.vector_norm(maps, dim=(0, 3))
            return (self.damping ** (lags + 2).to(x) * sizes).sum((0, 2))

    def gradients_along(
        self,
        ensemble: Ensemble,
        inputs: Tensor,
        lengths: Tensor | None,
        every_step: bool,
        factors: Tensor,
        states: Callable[[Tensor, int], Sequence[Tensor]],
    ) -> HeldFlow:
        """Return the penalty of every network on its batch and its gradients times factors, slopes held.

        Parameters
        ----------
        ensemble : Ensemble
        inputs : Tensor, shape (L, E, I, B)
        lengths : Tensor of int64, shape (E, B), or None
            None: all steps are valid.
        every_step : bool
            Whether every step is read out, where the penalty does not say.
        factors : Tensor, shape (E,)
        states : callable
            Takes the sequences drawn (b,) and a number of steps; returns the parts of the state before each
            step, (L, E, H, b) each.
        """
        draw = self._draw(inputs.shape[3], ensemble.n_outputs)
        columns = draw.rows.to(inputs.device)
        every = every_step if self.every_step is None else self.every_step
        reads = None  # all at the last step: nothing has to be looked at on the device
        if lengths is not None or every:
            ends = (
                torch.full((1, len(columns)), len(inputs)) if lengths is None else lengths.cpu()[:, draw.rows]
            )
            reads = self._reads(ends, every)
        steps = len(inputs) if reads is None else int(reads.max()) + 1
        x = inputs[:steps].index_select(3, columns)
        slopes, routes = slopes_along(ensemble, states(columns, steps), x)
        slopes = slopes.flip(0) if reads is None else by_lag(slopes, reads)
        hops = torch.arange(len(slopes), device=inputs.device) + 2
        weights = self.damping ** hops.to(inputs) * (draw.scale / len(columns))
        chosen = None if draw.outputs is None else draw.outputs.to(inputs.device)
        return held_flow(ensemble, slopes, routes, weights, factors, outputs=chosen, norm=self.norm)

    def _draw(self, batch: int, outputs: int, *, sequences: bool = True) -> _Draw:
        """Return what the next call follows: some sequences, unless all are taken, and outputs."""
        rows = torch.randperm(batch, generator=self.generator) if sequences else torch.arange(batch)
        limit = outputs if self.norm != "l1" else min(self.outputs or ALL_OUTPUTS, outputs)
        chosen = None if limit == outputs else torch.randperm(outputs, generator=self.generator)[:limit]
        return _Draw(rows[: self.sequences] if sequences else rows, chosen, outputs / limit)

    def _reads(self, lengths: Tensor, every_step: bool) -> Tensor:
        """Return the step (from 0) of the read-out of every sequence (..., b): the last, or a random one."""
        if not every_step:
            return lengths - 1
        place = torch.rand(lengths.shape[-1], generator=self.generator, dtype=torch.float64)
        read: Tensor = (place.to(lengths.device) * lengths).long()
        return torch.minimum(read, lengths - 1)

    def extra_repr(self) -> str:
        """Show the options."""
        sample = f"damping={self.damping}, sequences={self.sequences}"
        return f"{sample}, norm={self.norm!r}, slopes={self.slopes_are!r}"


def _check_window(parts: ModelParts) -> None:
    """Raise for a model of which only the last steps of a sequence are run."""
    if parts.info.runs_last is not None:
        raise UnsupportedModelError(
            f"this model runs only the last {parts.info.runs_last} steps of a sequence; penalise the "
            "model that it was made of"
        )


def _hops(reads: Tensor, maps: Tensor, levels: int) -> Tensor:
    """Return the hops (b, L) from each step to the read-outs (b,)."""
    return (reads[:, None] - torch.arange(maps.shape[1], device=reads.device)).abs() + levels + 1


@dataclass(frozen=True)
class FlowSpec:
    """A `FlowPenalty` for a recipe; draws are the same for every network of every training.

    Parameters
    ----------
    damping : float, default 1
    sequences : int, default 2
    norm : {"l1", "frobenius"}, default "l1"
    slopes : {"held", "free"}, default "held"
        See `FlowPenalty`.
    """

    damping: float = 1.0
    sequences: int = 2
    norm: Literal["l1", "frobenius"] = "l1"
    slopes: Literal["held", "free"] = "held"

    def __call__(
        self,
        horizon: int,
        *,
        readouts: Literal["last", "every"] = "last",
        length: int | None = None,
    ) -> Penalty:
        """Return the penalty; it covers all steps, whatever the horizon.

        Parameters
        ----------
        horizon : int
        readouts : {"last", "every"}, default "last"
        length : int, optional
        """
        return FlowPenalty(
            self.damping,
            sequences=self.sequences,
            norm=self.norm,
            slopes=self.slopes,
            every_step=readouts == "every",
            generator=seeds.generator("sampled sequences", 0),
        )


__all__ = ["FlowPenalty", "FlowSpec"]
