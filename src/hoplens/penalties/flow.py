"""A penalty on what flows along given sequences: Jacobians by double backward, sampled to bound the cost."""

# ruff: noqa: ARG002 - all specifications share one signature
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from hoplens import seeds
from hoplens.errors import ParameterError, ShapeError, UnsupportedModelError, check_count, check_number
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.penalties.base import Penalty

if TYPE_CHECKING:
    from hoplens.models.ensemble import Ensemble


class FlowPenalty(Penalty):
    """Penalise the pathways that a network really uses: Jacobians of its outputs along given sequences.

    With T the step of a read-out, k = T - t + 2 the hops of an input at step t, and a the damping,

        P = mean over sequences of  sum_(t <= T) sum_(o, i) a^k |d y_o(T) / d x_i(t)|

    which for a linear network is `PathwayPenalty` with ``across="hops"``, and for a gated one takes every
    gate as the data sets it. A call takes a random part of it that has P as its expectation: some sequences
    of the batch; of each, one output, times O; and where every step is read out, one step T of each (the mean
    over read-outs, as ``readouts="every"`` of `PathwayPenalty`).

    The gradient by the weights goes through the Jacobian, by a second backward pass over the sampled
    sequences: about four times the arithmetic of a plain training step on as many sequences
    (`docs/gated.md` has measured times).

    Parameters
    ----------
    damping : float, default 0.9
        Factor on every hop, above 0 and at most 1.
    sequences : int, default 4
        Sequences followed a call; all where the batch has fewer.
    every_step : bool, default False
        Whether the loss reads out after every step; else after the last valid one.
    all_outputs : bool, default False
        Follow every output of the sampled sequences rather than one each, at O times the cost.
    generator : torch.Generator
        Source of the draws, a CPU generator. The global random state is never used.
    """

    acts_on = "data"

    def __init__(
        self,
        damping: float = 0.9,
        *,
        sequences: int = 4,
        every_step: bool = False,
        all_outputs: bool = False,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.damping = check_number("damping", damping, above=0.0, most=1.0)
        self.sequences = check_count("sequences", sequences)
        self.every_step, self.all_outputs = every_step, all_outputs
        if not isinstance(generator, torch.Generator):
            raise ParameterError("FlowPenalty needs generator=torch.Generator().manual_seed(...)")
        self.generator = generator

    def forward(self, net: Any, inputs: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        """Return the penalty of a model on sequences.

        Parameters
        ----------
        net : RecurrentModel, or any module or function from (B, L, I) to (B, L, O) or (B, O)
            Samples must not depend on each other. Where sequences differ in length it must return every step,
            (B, L, O); a `RecurrentModel` is run that way.
        inputs : Tensor, shape (B, L, I)
        lengths : Tensor of int64, shape (B,), optional
            Valid steps; default all.

        Returns
        -------
        Tensor, shape ()
        """
        if inputs is None or not callable(net):
            raise UnsupportedModelError(
                "a trajectory penalty follows a model along its data: call penalty(model, inputs (B, L, I))"
            )
        if inputs.dim() != 3:
            raise ShapeError(f"inputs must have shape (B, L, I), got {tuple(inputs.shape)}")
        rows = self._rows(len(inputs))
        x = inputs.detach()[rows.to(inputs.device)].requires_grad_()
        ends = torch.full((len(x),), x.shape[1]) if lengths is None else lengths.to("cpu")[rows]
        read = self._reads(ends)
        # cuDNN has no second derivative of recurrent layers; the flag is put back
        with torch.backends.cudnn.flags(enabled=False), torch.enable_grad():
            outputs = self._outputs(net, x, read)  # (b, O)
            steps = torch.arange(x.shape[1])
            hops = (read[:, None] - steps + 2).to(x)  # (b, L); the read-out's own step has 2
            weights = torch.where(hops >= 2, self.damping**hops, 0.0)
            return self._flow(outputs.T, x, weights[:, :, None])[0] / len(x)

    def along(self, ensemble: Ensemble, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return the penalty of every network of an ensemble on its batch, shape (E,).

        Parameters
        ----------
        ensemble : Ensemble
            With weights that require gradients.
        inputs : Tensor, shape (L, E, I, B)
        lengths : Tensor of int64, shape (E, B)
        """
        rows = self._rows(inputs.shape[-1]).to(inputs.device)
        read = self._reads(lengths[:, rows])  # (E, b)
        steps = int(read.max()) + 1
        x = inputs[:steps].detach().index_select(-1, rows).requires_grad_()
        with torch.enable_grad():
            states = torch.stack(list(ensemble.states(x)))  # (L, E, H, b)
            place = read[None, :, None].expand(1, -1, ensemble.n_hidden, -1)
            outputs = torch.baddbmm(
                ensemble.offset, ensemble.readout, states.gather(0, place)[0]
            )  # (E, O, b)
            hops = (read - torch.arange(steps, device=x.device)[:, None, None] + 2).to(x)  # (L, E, b)
            weights = torch.where(hops >= 2, self.damping**hops, 0.0)
            return self._flow(outputs.movedim(1, 0), x, weights[:, :, None]) / len(rows)

    def _rows(self, count: int) -> Tensor:
        order: Tensor = torch.randperm(count, generator=self.generator)
        return order[: self.sequences]

    def _reads(self, lengths: Tensor) -> Tensor:
        """Return the step (from 0) of the read-out of every sequence (..., b)."""
        if not self.every_step:
            return lengths - 1
        place = torch.rand(lengths.shape[-1], generator=self.generator, dtype=torch.float64)
        read: Tensor = (place.to(lengths.device) * lengths).long()
        return torch.minimum(read, lengths - 1)

    def _outputs(self, net: Any, x: Tensor, read: Tensor) -> Tensor:
        """Return the outputs (b, O) of one model at the steps that are read out."""
        outputs: Tensor = net.readout(net.core(x)[0]) if isinstance(net, RecurrentModel) else net(x)
        if outputs.dim() == 3:
            return outputs[torch.arange(len(x), device=x.device), read.to(x.device)]
        if self.every_step or bool((read + 1 < x.shape[1]).any()):
            raise ShapeError(
                "a read-out before the last step needs a model that returns every step, (B, L, O); got "
                f"{tuple(outputs.shape)}"
            )
        return outputs

    def _flow(self, outputs: Tensor, x: Tensor, weights: Tensor) -> Tensor:
        """Return ``sum a^k |d y / d x|`` of each network from outputs (O, ..., b) and inputs x."""
        count = len(outputs)
        if self.all_outputs:
            chosen = list(outputs)
        else:
            one = torch.randint(count, (outputs.shape[-1],), generator=self.generator).to(x.device)
            chosen = [outputs.gather(0, one.expand(1, *outputs.shape[1:]))[0] * count]
        total: Tensor | None = None
        for y in chosen:
            (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
            size = weights * slope.abs()
            # (L, E, I, b) of an ensemble, (b, L, I) of one model
            value = size.sum(dim=(0, 2, 3)) if x.dim() == 4 else size.sum().view(1)
            total = value if total is None else total + value
        assert total is not None
        return total

    def extra_repr(self) -> str:
        """Show the options."""
        return f"damping={self.damping}, sequences={self.sequences}, every_step={self.every_step}"


@dataclass(frozen=True)
class TrajectorySpec:
    """A `FlowPenalty` for a recipe; draws are the same for every network of every training.

    Parameters
    ----------
    damping : float, default 0.9
    sequences : int, default 4
        See `FlowPenalty`.
    """

    damping: float = 0.9
    sequences: int = 4

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
            every_step=readouts == "every",
            generator=seeds.generator("sampled sequences", 0),
        )


__all__ = ["FlowPenalty", "TrajectorySpec"]
