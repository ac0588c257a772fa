"""Exact time-resolved Jacobian maps of a network on given inputs, and how well the weights predict them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from hoplens.display import Shown
from hoplens.errors import HoplensError, ParameterError, ShapeError, UnsupportedModelError
from hoplens.graph.pathways import Pathways
from hoplens.models.adjoint import pull_stack
from hoplens.models.guard import untouched
from hoplens.models.readers.models import first_tensor, parts_of, recurrent_parts
from hoplens.models.readers.modules import leaky, readout_matrix, unreadable
from hoplens.models.recurrent_model import at_steps, last_steps
from hoplens.models.rollout import Batch, as_batch, run

MIXED = 1e-3  # of the largest output: rounding is far below, what other samples do far above
# layers whose axes are not (B, L, I), or that are no model of sequences by themselves
OTHER_LAYERS = (
    nn.modules.conv._ConvNd,
    nn.MultiheadAttention,
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
)


@dataclass(frozen=True, eq=False, repr=False)
class TrajectoryMaps(Shown):
    """Jacobians of the last output with respect to the input of every step.

    Attributes
    ----------
    values : Tensor, shape (B, L, O, I)
        ``values[b, t]`` is d output / d input_t of sample b, t = 1 .. L in this order; zero after the end
        of a shorter sequence.
    lengths : Tensor of int64, shape (B,)
        Valid steps; the output is read at the last one.
    label : str
        What was run.
    """

    values: Tensor
    lengths: Tensor
    label: str

    def by_lag(self) -> Tensor:
        """Return the maps in the order of hop maps, shape (B, L, O, I): entry n is lag n.

        Zero where the lag is longer than the sequence.
        """
        steps = torch.arange(self.values.shape[1], device=self.values.device)
        source = self.lengths[:, None] - 1 - steps  # (B, L)
        picked = self.values.gather(1, source.clamp_min(0)[..., None, None].expand_as(self.values))
        return picked * (source >= 0)[..., None, None]


def trajectory_maps(
    model: Any,
    inputs: Any,
    *,
    lengths: Tensor | None = None,
    readout: Any = None,
    state: Any = None,
    dt: Any = None,
    tau: Any = None,
) -> TrajectoryMaps:
    """Return the exact Jacobian maps ``d y_T / d x_t`` along given sequences.

    ``d y_T / d x_t = W_out J_T J_(T-1) .. J_(t+1) B_t`` with J and B the step's Jacobians at the states
    that the network really visits. Products are taken from the output side, O rows at a time, and no
    Jacobian matrix is formed. The model is left as it was and its hooks are not called.

    Parameters
    ----------
    model : module, cell, Stack or callable
        What `read` takes, files and arrays excepted (use `load_stack`). Any other module or function that
        maps (B, L, I) to (B, O), to (B, L, O), or to a tuple that begins with one of these, is differentiated
        by autograd, one backward pass an output; its samples must not depend on each other.
    inputs : Tensor (B, L, I) or PackedSequence
        In the layout that the module takes: (L, B, I) where it is not batch_first.
    lengths : Tensor of int64, shape (B,), optional
        Valid steps of sequences padded at the end; default all. Not for what autograd differentiates.
    readout : nn.Linear or matrix (O, H), optional
        Without one each hidden unit is an output. The bias of a read-out does not matter.
    state : Tensor or (h, c), optional
        Start state in torch's form; zeros by default.
    dt, tau : float or array, optional
        As in `read`.

    Returns
    -------
    TrajectoryMaps
        ``values`` of shape (B, L, O, I). A bidirectional network is read at the last step, where its
        backward direction has seen one input.

    Raises
    ------
    ShapeError
        If the inputs do not fit.
    """
    parts = recurrent_parts(model, readout)
    if parts is None:
        if lengths is not None:
            raise ParameterError("lengths= go with a recurrent network; pass sequences of one length")
        return autograd_maps(model, inputs, readout, state)
    stack = leaky(parts.stack(), dt, tau)
    if isinstance(stack, Pathways):
        raise UnsupportedModelError(
            f"the reader of {type(model).__name__} returns weights only; to follow a trajectory it must "
            "return a Cell or a Stack"
        )
    batch = as_batch(stack, inputs, lengths)
    seen, window = batch, parts.info.runs_last
    if window is not None:
        last, lengths = last_steps(batch.inputs, window, batch.lengths)
        assert lengths is not None
        seen = Batch(last, lengths)
    with torch.no_grad():
        values = pull_stack(stack, run(stack, seen, state), seen)
    if window is not None:  # steps before the window reach nothing
        values = at_steps(values, batch.lengths - seen.lengths, batch.inputs.shape[1])
    return TrajectoryMaps(values, batch.lengths, stack.label)


def autograd_maps(model: Any, inputs: Any, readout: Any = None, state: Any = None) -> TrajectoryMaps:
    """Return the maps of any module or function by autograd; arguments as of `trajectory_maps`."""
    if state is not None:
        raise UnsupportedModelError(
            "state= goes with recurrent modules and cells; build it into the function"
        )
    x = check_followed(model, inputs)
    with differentiating(model):
        x = x.clone().requires_grad_()
        y = last_output(model, x, readout_matrix(readout))
        last = y.shape[-1] - 1
        grads = [torch.autograd.grad(y[:, o].sum(), x, retain_graph=o < last)[0] for o in range(last + 1)]
    values = torch.stack(grads, dim=2).detach()
    lengths = torch.full((x.shape[0],), x.shape[1], device=x.device)
    return TrajectoryMaps(values, lengths, name_of(model))


def check_followed(model: Any, inputs: Any) -> Tensor:
    """Return inputs (B, L, I) for a module or function that autograd is to follow, or raise."""
    if isinstance(model, str | os.PathLike):
        parts_of(model)  # says how to open it
    if not callable(model) or isinstance(model, type):
        raise UnsupportedModelError(
            f"cannot run a {type(model).__name__}; pass a module, a Cell or a function"
        )
    if isinstance(inputs, PackedSequence):
        raise UnsupportedModelError("a PackedSequence goes with recurrent modules; pass a tensor (B, L, I)")
    x = torch.as_tensor(inputs).detach()
    if x.dim() != 3 or 0 in x.shape or not x.is_floating_point():
        raise ShapeError(
            f"inputs must be floating-point numbers (B, L, I), none of them 0, got {x.dtype} {tuple(x.shape)}"
        )
    if isinstance(model, OTHER_LAYERS):
        raise unreadable(model, "it is not recurrent; ")
    return x


@contextmanager
def differentiating(model: Any) -> Iterator[None]:
    """Run a block with gradients on, the model in evaluation mode and afterwards as it was.

    Without the kernels that have no second derivative, or (cuDNN's in evaluation mode) no first one.
    """
    guard = untouched(model) if isinstance(model, nn.Module) else nullcontext()
    cudnn = torch.backends.cudnn.flags(enabled=False)
    with guard, cudnn, sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        yield


def last_output(model: Callable[[Tensor], Any], x: Tensor, w_out: Tensor | None) -> Tensor:
    """Run a module or function on (B, L, I); return its last outputs (B, O), read out where that is given."""
    try:
        y = model(x)
        alone = model(x[-1:].detach())
    except HoplensError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        said = " ".join(str(error).split())[:160]
        raise UnsupportedModelError(
            f"{name_of(model)} could not be run on inputs of shape {tuple(x.shape)} ({type(error).__name__}: "
            f"{said}); pass a module or function that takes (B, L, I)"
        ) from error
    last, single = _at_end(y, x), _at_end(alone, x[-1:])
    if not last.requires_grad:
        raise UnsupportedModelError("the model's output does not depend on its input through autograd")
    beside, single = last[-1:].detach(), single.detach()
    if not beside.numel() or single.shape != beside.shape:
        raise ShapeError(f"the model must return (B, O) with at least one output, got {tuple(last.shape)}")
    if float((single - beside).abs().max()) > MIXED * max(1.0, float(beside.abs().max())):
        raise UnsupportedModelError(
            f"{name_of(model)} gives a sequence another output alone than beside others; pass one that takes "
            "(B, L, I), its samples independent of each other, in evaluation mode"
        )
    if w_out is not None and w_out.shape[-1] != last.shape[-1]:
        raise ShapeError(
            f"the readout takes {w_out.shape[-1]} features, but {name_of(model)} gives {last.shape[-1]} "
            "outputs"
        )
    return last if w_out is None else last @ w_out.to(last).mT


def _at_end(y: Any, x: Tensor) -> Tensor:
    """Return the last output (B, O) of what a model returned."""
    y = y[0] if isinstance(y, tuple | list) and y and isinstance(y[0], PackedSequence) else y
    if isinstance(y, PackedSequence):
        y = pad_packed_sequence(y, batch_first=True)[0]
    found = first_tensor(y)
    if found is None or found.dim() not in (2, 3) or found.shape[0] != x.shape[0]:
        came = type(y).__name__ if found is None else tuple(found.shape)
        raise ShapeError(f"the model must return (B, O) or (B, L, O) with B = {x.shape[0]}, got {came}")
    return found[:, -1] if found.dim() == 3 else found


def name_of(model: Any) -> str:
    """Return what messages call a module or function."""
    return str(getattr(model, "__name__", type(model).__name__))


__all__ = [
    "TrajectoryMaps",
    "autograd_maps",
    "check_followed",
    "differentiating",
    "last_output",
    "name_of",
    "trajectory_maps",
]
