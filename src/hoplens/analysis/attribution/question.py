"""What is to be explained: checked inputs, the baseline, the output and its read-out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from hoplens.errors import (
    NonFiniteError,
    ParameterError,
    ShapeError,
    UnsupportedModelError,
    unknown_name,
)
from hoplens.graph.parts import labels
from hoplens.graph.pathways import Pathways
from hoplens.models.readers.models import parts_of
from hoplens.models.readers.opening import open_parts
from hoplens.models.recurrent_model import last_steps
from hoplens.models.rollout import Batch, as_batch
from hoplens.models.stack import Stack


@dataclass(frozen=True, eq=False)
class Question:
    """One question, checked.

    Attributes
    ----------
    stack : Stack
        The network, cut from autograd.
    given : Batch
        Inputs (B, L, I), zero after the end of shorter sequences.
    given_baseline : Tensor, shape (B, L, I)
    batch : Batch
        Those of the given inputs that the network runs: all, or the last steps of a truncated model.
    baseline : Tensor, shape (B, w, I)
    outputs : Tensor of int64, shape (B,)
        Output to explain of each sample.
    bias : Tensor, shape (O,)
        Of the read-out; zeros where it is not known.
    input_names, output_names, unit_names : tuple of str
    """

    stack: Stack
    given: Batch
    given_baseline: Tensor
    batch: Batch
    baseline: Tensor
    outputs: Tensor
    bias: Tensor
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    unit_names: tuple[str, ...]


def make_question(
    model: Any,
    inputs: Any,
    lengths: Tensor | None,
    readout: Any,
    output: Any,
    baseline: Any,
    rnn: str | None,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    nonlinearity: str | None = None,
) -> Question:
    """Check everything that a user gives to `explain`."""
    stack, bias, window = _read(model, readout, rnn, nonlinearity)
    batch = as_batch(stack, inputs, lengths)
    values = batch.inputs
    if values.dtype in (torch.float16, torch.bfloat16):  # sums over a trajectory need more
        stack, values = stack.to(torch.float32), values.float()
    assert stack.w_out is not None  # _read saw to it
    # a read-out given as an array may have another dtype
    stack = Stack(stack.levels, stack.w_out.to(values), stack.label, stack.batch_first)
    assert stack.w_out is not None
    count = stack.w_out.shape[0]
    outs = labels("output_names", output_names, count, "y") or ()
    batch = Batch(values * batch.mask[..., None], batch.lengths)
    absent = _baseline(stack, baseline, batch, inputs)
    return Question(
        stack,
        batch,
        absent,
        *_seen(batch, absent, window),
        _outputs(output, outs, values),
        torch.zeros(count).to(values) if bias is None else bias.detach().to(values),
        labels("input_names", input_names, stack.n_inputs, "x") or (),
        outs,
        _unit_names(stack),
    )


def _seen(batch: Batch, baseline: Tensor, window: int | None) -> tuple[Batch, Tensor]:
    """Return the inputs and the baseline of the steps that are run."""
    if window is None:
        return batch, baseline
    last, lengths = last_steps(batch.inputs, window, batch.lengths)
    absent, _ = last_steps(baseline, window, batch.lengths)
    assert lengths is not None
    seen = Batch(last, lengths)
    return Batch(last * seen.mask[..., None], lengths), absent * seen.mask[..., None]


def _read(
    model: Any, readout: Any, rnn: str | None, nonlinearity: str | None
) -> tuple[Stack, Tensor | None, int | None]:
    if isinstance(model, str | os.PathLike):
        parts = open_parts(os.fspath(model), rnn=rnn, readout=readout, nonlinearity=nonlinearity)
    else:
        if rnn is not None or nonlinearity is not None:
            raise ParameterError(
                "rnn= and nonlinearity= go with a file; leave them out for a model in memory"
            )
        parts = parts_of(model, readout)
    stack, bias = parts.stack(), parts.offset()
    if isinstance(stack, Pathways):
        raise UnsupportedModelError(
            f"the reader of {type(model).__name__} returns weights only; to explain a prediction it must "
            "return a Cell or a Stack, which can be run"
        )
    if stack.w_out is None:
        raise UnsupportedModelError(
            f"explain needs the read-out that makes outputs of hidden units, but this {stack.label} comes "
            "without one; pass readout=, e.g. the nn.Linear that follows it"
        )
    stack = _detached(stack)
    _check_finite("the read-out", stack.w_out)
    for cell in stack.cells:
        for name in ("w_ih", "w_hh", "b_ih", "b_hh", "w_hr"):
            block = getattr(cell, name, None)
            if isinstance(block, Tensor):
                _check_finite(f"{name} of the {cell.label}", block)
    return stack, bias, parts.info.runs_last


def _detached(stack: Stack) -> Stack:
    w_out = None if stack.w_out is None else stack.w_out.detach()
    return Stack(stack.levels, w_out, stack.label, stack.batch_first)


def _check_finite(what: str, values: Tensor | None) -> None:
    if values is None:
        return
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise NonFiniteError(
            f"{what} must be finite numbers, but {bad} of {values.numel()} are NaN or infinite; clean them "
            "first"
        )


def _baseline(stack: Stack, baseline: Any, batch: Batch, inputs: Any) -> Tensor:
    values, mask = batch.inputs, batch.mask[..., None]
    if baseline is None:
        return torch.zeros_like(values)
    if isinstance(baseline, str):
        if baseline != "mean":
            raise ParameterError(f'baseline must be None (zeros), "mean" or a tensor, got {baseline!r}')
        if values.shape[0] < 2:
            raise ParameterError(
                'baseline="mean" of a single sample is the sample itself; give several samples, or the mean '
                "of your data as a tensor"
            )
        mean = (values * mask).sum(0) / mask.sum(0).clamp_min(1)  # (L, I)
        return mean.expand_as(values) * mask
    if isinstance(baseline, PackedSequence):
        raise ShapeError("baseline must be a tensor (I,), (L, I) or (B, L, I), not a PackedSequence")
    try:
        given = torch.as_tensor(baseline).detach().to(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(f"baseline must be a numeric array ({error})") from None
    if given.dim() == 3 and not stack.batch_first and not isinstance(inputs, PackedSequence):
        given = given.transpose(0, 1)
    size, steps, count = values.shape
    if tuple(given.shape) not in ((count,), (steps, count), (size, steps, count)):
        raise ShapeError(
            f"baseline must have shape ({count},), ({steps}, {count}) or ({size}, {steps}, {count}), as the "
            f"inputs, got {tuple(given.shape)}"
        )
    _check_finite("baseline", given)
    return given.expand_as(values) * mask


def _outputs(output: Any, names: tuple[str, ...], values: Tensor) -> Tensor:
    size = values.shape[0]
    if isinstance(output, str):
        if output not in names:
            raise unknown_name("output", output, names)
        return torch.full((size,), names.index(output), device=values.device)
    try:
        index = torch.as_tensor(output)
    except (TypeError, ValueError, RuntimeError):
        index = torch.empty(0, 0)
    whole = not (index.is_floating_point() or index.is_complex() or index.dtype == torch.bool)
    if not whole or index.dim() > 1 or (index.dim() == 1 and len(index) != size):
        came = tuple(index.shape) if isinstance(output, Tensor) else repr(output)
        raise ParameterError(
            f"output must be a name, a whole number, or one whole number for each of the {size} samples, "
            f"got {came}"
        )
    if bool(((index < 0) | (index >= len(names))).any()):
        wrong = index[(index < 0) | (index >= len(names))].flatten()[0]
        raise ParameterError(
            f"output must lie in 0 .. {len(names) - 1} for {len(names)} outputs, got {int(wrong)}"
        )
    return index.to(values.device, torch.int64).expand(size).clone()


def _unit_names(stack: Stack) -> tuple[str, ...]:
    """Return the names of the values that the read-out sees, as in the graph that `read` returns."""
    level = len(stack.levels) - 1
    names: list[str] = []
    for direction, cell in enumerate(stack.levels[-1]):
        prefix = "" if len(stack.cells) == 1 else f"l{level}{'r' if direction else ''}."
        own = cell.unit_names if cell.n_outputs <= len(cell.unit_names) else ()
        plain = cell.emission() is None or own[: cell.n_outputs] == tuple(
            f"h{j}" for j in range(cell.n_outputs)
        )
        shown = own[: cell.n_outputs] if plain else tuple(f"e{j}" for j in range(cell.n_outputs))
        names += [prefix + name for name in shown]
    return tuple(names)


__all__ = ["Question", "make_question"]
