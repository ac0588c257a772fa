"""Modules and functions that only autograd can follow, for the flow penalty with free slopes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from hoplens.errors import ShapeError, UnsupportedModelError
from hoplens.models.guard import untouched
from hoplens.models.rollout import Batch
from hoplens.models.tensors import check_lengths, numbers


def module_batch(net: Any, inputs: Any, lengths: Any, readout: Any) -> Batch:
    """Return the sequences that a module or function is run on, or raise."""
    if readout is not None or isinstance(inputs, PackedSequence):
        raise UnsupportedModelError(
            f"readout= and packed sequences go with recurrent networks; a {type(net).__name__} takes inputs "
            "(B, L, I) and returns outputs (B, L, O) or (B, O)"
        )
    x = numbers(inputs, "inputs")
    if x.dim() != 3 or 0 in x.shape:
        raise ShapeError(f"inputs must have shape (B, L, I), none of them 0, got {tuple(x.shape)}")
    ends = check_lengths(lengths, x)
    return Batch(x, torch.full((len(x),), x.shape[1], device=x.device) if ends is None else ends)


@contextmanager
def following(net: Any) -> Iterator[None]:
    """Run a block with gradients on, a module in evaluation mode and afterwards as it was."""
    guard = untouched(net) if isinstance(net, nn.Module) else nullcontext()
    # cuDNN has no second derivative of recurrent layers; the flag is put back
    with guard, torch.backends.cudnn.flags(enabled=False), torch.enable_grad():
        yield


def outputs_at(net: Any, x: Tensor, reads: Tensor, every_step: bool) -> Tensor:
    """Return the outputs (b, O) of a module or function at the steps that are read out."""
    outputs = net(x)
    if not isinstance(outputs, Tensor) or outputs.dim() not in (2, 3) or len(outputs) != len(x):
        came = tuple(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise ShapeError(f"a model that autograd follows must return (B, L, O) or (B, O), got {came}")
    if not outputs.requires_grad:
        raise UnsupportedModelError("the model's output does not depend on its input through autograd")
    if outputs.dim() == 3:
        last: Tensor = outputs[torch.arange(len(x), device=x.device), reads]
        return last
    if every_step or bool((reads + 1 < x.shape[1]).any()):
        raise ShapeError(
            "a read-out before the last step needs a model that returns every step, (B, L, O); got "
            f"{tuple(outputs.shape)}"
        )
    return outputs


__all__ = ["following", "module_batch", "outputs_at"]
