"""Rows of the Hessian of an output by the inputs of a sequence, and their mean over samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from hoplens.analysis.mean_maps import Sums
from hoplens.analysis.trajectories import check_followed, last_output, name_of
from hoplens.errors import ParameterError, UnsupportedModelError
from hoplens.graph.pathways import Pathways
from hoplens.models.readers.models import recurrent_parts
from hoplens.models.readers.modules import readout_matrix
from hoplens.models.rollout import Batch, as_batch, turn, unroll
from hoplens.models.stack import Stack

CHUNK_BYTES = 1 << 25  # that the forward passes done at once keep; their derivatives keep some times that
Moments = tuple[Tensor, Tensor, Tensor, Tensor]  # mean, mean size, spread, standard error of the mean


@dataclass(frozen=True, eq=False)
class ByLag:
    """Sequences counted back from the read-out, and a model as a function of them.

    Attributes
    ----------
    inputs : Tensor, shape (B, L, I)
        By lag, zero where a sequence has no such lag.
    lengths : Tensor of int64, shape (B,)
    run : callable
        Takes inputs by lag (n, L, I) and lengths (n,), returns outputs (n, O), differentiable twice.
    module : nn.Module or None
        What is to be left as it was: a model that is run as it is.
    input_names, output_names : tuple of str, or None
        None: not known.
    label : str
    """

    inputs: Tensor
    lengths: Tensor
    run: Callable[[Tensor, Tensor], Tensor]
    module: Any
    input_names: tuple[str, ...] | None
    output_names: tuple[str, ...] | None
    label: str

    def begin(self) -> tuple[int, int]:
        """Run one sample; return the number of outputs, and how many runs are to be done at once."""
        kept: dict[int, int] = {}

        def pack(value: Tensor) -> Tensor:  # weights, kept at every step, count once
            kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return value.detach()

        with saved_tensors_hooks(pack, lambda value: value):
            outputs = self.run(self.inputs[:1].clone().requires_grad_(), self.lengths[:1])
        rows = 4 * 8 * self.inputs[0].numel()  # of inputs, slopes and Hessian, where nothing else is kept
        return outputs.shape[1], max(1, CHUNK_BYTES // (rows + sum(kept.values())))

    def flow(self, output: int, width: int) -> Tensor:
        """Return the mean size of the first derivatives of an output, float64 (L, I)."""
        sums: Sums | None = None
        for part in torch.arange(len(self.inputs), device=self.inputs.device).split(width):
            u, lengths = self.inputs[part].clone().requires_grad_(), self.lengths[part]
            by_input = torch.autograd.grad(self.run(u, lengths)[:, output].sum(), u)[0]
            each = by_input.double()[:, :, None]  # (b, L, 1, I)
            sums = sums or Sums(1, each)
            sums.add(each, self._has(lengths), lengths.new_zeros(len(part)))
        assert sums is not None
        return sums.absolute[0, :, 0]

    def rows(self, output: int, rows: Tensor, width: int) -> Moments:
        """Return the moments over samples, float64 (R, L, I), of some rows of the Hessian.

        ``rows`` (R, 2) are lags and inputs; ``width`` samples are done at once.
        """
        sums: Sums | None = None
        for part in torch.arange(len(self.inputs), device=self.inputs.device).split(width):
            found = self._hessian(output, rows, part).double()  # (b, R, L, I)
            has = self._has(self.lengths[part])
            both = has[:, rows[:, 0], None] & has[:, None]  # (b, R, L)
            flat = found.flatten(1, 2)[:, :, None]  # (b, R L, 1, I)
            sums = sums or Sums(1, flat)
            sums.add(flat, both.flatten(1), part.new_zeros(len(part)))
        assert sums is not None
        mean, absolute, spread, error = (
            kind[0, :, 0].view(len(rows), *self.inputs.shape[1:]) for kind in sums.moments()
        )
        return mean, absolute, spread, error

    def _has(self, lengths: Tensor) -> Tensor:
        return torch.arange(self.inputs.shape[1], device=lengths.device) < lengths[:, None]

    def _hessian(self, output: int, rows: Tensor, samples: Tensor) -> Tensor:
        """Return rows of the Hessians of some samples, (b, R, L, I): a run for each row, all at once."""
        count, (lags, places) = len(rows), rows.repeat(len(samples), 1).unbind(1)
        u = self.inputs[samples].repeat_interleave(count, dim=0).requires_grad_()
        y = self.run(u, self.lengths[samples].repeat_interleave(count))[:, output]
        slopes = torch.autograd.grad(y.sum(), u, create_graph=True)[0]
        chosen = slopes[torch.arange(len(u), device=u.device), lags, places].sum()
        second = None
        if chosen.requires_grad:  # else the output is linear in its inputs
            try:
                second = torch.autograd.grad(chosen, u, allow_unused=True)[0]
            except RuntimeError as error:
                said = " ".join(str(error).split())[:160]
                raise UnsupportedModelError(
                    f"{self.label} cannot be differentiated twice ({said})"
                ) from error
        second = torch.zeros_like(u) if second is None else second.detach()
        return second.view(len(samples), count, *u.shape[1:])


def follow(model: Any, inputs: Any, lengths: Tensor | None, readout: Any) -> ByLag:
    """Return a model as a function of inputs by lag; arguments as of `trajectory_maps`."""
    parts = recurrent_parts(model, readout)
    if parts is None:
        if lengths is not None:
            raise ParameterError("lengths= go with a recurrent network; pass sequences of one length")
        x = check_followed(model, inputs)
        w_out = readout_matrix(readout)
        full = torch.full((len(x),), x.shape[1], device=x.device)
        return ByLag(
            x.flip(1),
            full,
            lambda u, _: last_output(model, u.flip(1), w_out),
            model,
            None,
            None,
            name_of(model),
        )
    stack = parts.stack()
    if isinstance(stack, Pathways):
        raise UnsupportedModelError(
            f"the reader of {type(model).__name__} returns weights only; to follow a run it must return a "
            "Cell or a Stack"
        )
    batch = as_batch(stack, inputs, lengths)
    x = batch.inputs
    if x.dtype in (torch.float16, torch.bfloat16):  # second derivatives need more
        stack, x = stack.to(torch.float32), x.float()
    info = parts.info
    return ByLag(
        turn(x, batch.lengths),
        batch.lengths,
        lambda u, n: _run_stack(stack, u, n, info.runs_last),
        None,
        info.input_names,
        info.output_names,
        stack.label,
    )


def _run_stack(stack: Stack, u: Tensor, lengths: Tensor, window: int | None) -> Tensor:
    if window is not None:
        u, lengths = u[:, :window], lengths.clamp_max(window)
    shown = unroll(stack, Batch(turn(u, lengths), lengths)).shown
    last: Tensor = shown[torch.arange(len(u), device=u.device), lengths - 1]
    return last @ stack.readout(last).mT


__all__ = ["ByLag", "follow"]
