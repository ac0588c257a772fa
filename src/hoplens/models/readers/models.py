"""What a model is made of: its recurrent core, the read-out on it, and how to run the two.

Every function of the library that takes a model takes it apart here, so that all take the same models.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hoplens.errors import ParameterError, ShapeError, UnsupportedModelError
from hoplens.graph.pathways import Pathways
from hoplens.models.cells import Cell
from hoplens.models.ensemble import Ensemble
from hoplens.models.guard import untouched
from hoplens.models.readers.modules import has_readout, leaky, read_core, readout_matrix, unreadable
from hoplens.models.readers.own import find_reader
from hoplens.models.readers.weights import effective_weight
from hoplens.models.recurrent_model import ModelInfo, RecurrentModel
from hoplens.models.rollout import Batch, run
from hoplens.models.stack import Stack
from hoplens.models.tensors import check_weight
from hoplens.seeds import generator

TRIED = (4, 4)  # sequences and steps on which a module must do what its core and its linear layer do
SIZES = (0.1, 1.0, 10.0, 100.0)  # of their inputs: what clamps or saturates shows at some of them
AGREE = 1e-4  # of the largest output, in float32; rounding is far below, another computation far above
RECURRENT = (nn.RNNBase, nn.RNNCell, nn.GRUCell, nn.LSTMCell)
PLAIN = (nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell, nn.LSTMCell, nn.RNNBase)


@dataclass(frozen=True, eq=False)
class ModelParts:
    """A model taken apart; nothing is copied.

    Attributes
    ----------
    core : object
        The recurrent module, cell, list of cells or Stack.
    head : nn.Linear, nn.Conv1d, matrix (O, n) or None
        The read-out on it; None: the units are the outputs.
    info : ModelInfo
        Of a `RecurrentModel`; of other models what is known of them.
    whole : nn.Module or None
        The model that core and head were found in.
    label : str
        What messages call the network; empty: what its core is.
    """

    core: Any
    head: Any
    info: ModelInfo
    whole: nn.Module | None = None
    label: str = ""

    def stack(self) -> Stack | Pathways:
        """Return the network as cells (or the Pathways that the core's own reader returns)."""
        stack = read_core(self.core, self.head)
        if isinstance(stack, Pathways):
            return stack
        label = self.label or stack.label
        label += f"; assumed: {self.info.assumed}" if self.info.assumed else ""
        return Stack(stack.levels, stack.w_out, label, stack.batch_first)

    def offset(self) -> Tensor | None:
        """Return the bias of the read-out, shape (O,), or None."""
        bias = effective_weight(self.head, "bias") if isinstance(self.head, nn.Module) else None
        weight = readout_matrix(self.head)
        if bias is None or weight is None:
            return None
        check_weight("bias of the readout", bias, (len(weight),))
        if bias.dtype != weight.dtype or bias.device != weight.device:
            raise ShapeError(
                f"weight and bias of the readout must have one dtype and device, got {weight.dtype} on "
                f"{weight.device} and {bias.dtype} on {bias.device}"
            )
        return bias

    def model(self) -> RecurrentModel:
        """Return core and read-out as a `RecurrentModel` on the same tensors.

        Raises
        ------
        UnsupportedModelError
            If the core is no RNN, GRU, LSTM or LeakyRNN with batch_first=True, or the read-out no nn.Linear.
        """
        stack = self.stack()
        self.offset()  # these two check all weights
        if isinstance(self.whole, RecurrentModel):
            return self.whole
        if isinstance(stack, Pathways):
            raise UnsupportedModelError("a reader that returns weights only is no model that can be run")
        if not isinstance(self.head, nn.Linear):
            came = "none" if self.head is None else f"a {type(self.head).__name__}"
            raise UnsupportedModelError(
                f"a bare core needs the nn.Linear that follows it as readout=, got {came}"
            )
        return RecurrentModel(self.core, self.head, self.info)

    def states(self, inputs: Tensor) -> Tensor:
        """Run the core as the user gave it, in evaluation mode; return what it shows, (B, L, n).

        Parameters
        ----------
        inputs : Tensor, shape (B, L, I)
        """
        core = self.core
        if isinstance(core, nn.RNNBase) or (isinstance(core, nn.Module) and hasattr(core, "batch_first")):
            weight: Any = next(iter(core.parameters()))
            x = inputs.to(weight.device, weight.dtype)
            with untouched(core), torch.no_grad():
                shown = core(x if core.batch_first else x.transpose(0, 1))[0]
            return shown if core.batch_first else shown.transpose(0, 1)  # type: ignore[no-any-return]
        stack = read_core(core)
        assert isinstance(stack, Stack)  # whoever runs a model has read it before
        x = inputs.to(stack.like(inputs))
        return run(stack, Batch(x, torch.full((len(x),), x.shape[1], device=x.device))).shown

    def read_out(self, states: Tensor) -> Tensor:
        """Apply the read-out as the user gave it to states (..., n); return (..., O)."""
        with torch.no_grad():
            if self.head is None:
                return states
            if isinstance(self.head, nn.Conv1d):
                rows = states.to(self.head.weight).reshape(1, -1, states.shape[-1])
                return self.head(rows.mT).mT.reshape(*states.shape[:-1], -1)  # type: ignore[no-any-return]
            if isinstance(self.head, nn.Module):
                head: Any = self.head
                return head(states.to(head.weight))  # type: ignore[no-any-return]
            return states @ torch.as_tensor(self.head).to(states).mT


def parts_of(model: Any, readout: Any = None) -> ModelParts:
    """Take a model apart into its recurrent core and its read-out.

    Parameters
    ----------
    model : object
        A `RecurrentModel`; what `hoplens.prune`, `hoplens.quantise` and `hoplens.reduce`
        return; an `Ensemble` of one network; nn.RNN, nn.GRU, nn.LSTM, their cells,
        LeakyRNN, a Cell, a Stack, a class with a reader; or a module that holds exactly one of these and at
        most one linear layer, and does nothing but run the one after the other: it is run to see that.
    readout : nn.Linear, 1-wide nn.Conv1d or matrix (O, n), optional
        After a core that comes without one.

    Raises
    ------
    ParameterError
        For a read-out beside a model that has one, and an ensemble of several networks.
    UnsupportedModelError
        If it is no recurrent model, or one that must be taken apart by hand.
    """
    if isinstance(model, str | os.PathLike):
        raise UnsupportedModelError(
            f"this takes a model, got the path {os.fspath(model)!r}; open it with hoplens.load first"
        )
    if isinstance(model, ModelParts):
        if readout is not None:
            raise has_readout(model)
        return model
    own = _returned(model)
    if own is not None:
        if readout is not None:
            raise has_readout(model)
        return ModelParts(own.core, own.readout, own.info, own)
    if isinstance(model, nn.Module) and not isinstance(model, PLAIN) and find_reader(model) is None:
        return _inside(model, readout)
    if isinstance(model, RECURRENT):
        _check_override(model)
    return ModelParts(model, readout, ModelInfo())


def recurrent_parts(model: Any, readout: Any = None) -> ModelParts | None:
    """Return a model taken apart, or None for a module or function that only autograd can follow."""
    if isinstance(model, ModelParts) or is_recurrent(model) or isinstance(model, str | os.PathLike):
        return parts_of(model, readout)
    if not isinstance(model, nn.Module) or not find_parts(model)[0]:
        return None
    try:
        return parts_of(model, readout)
    except UnsupportedModelError:  # it computes something else, or has several recurrent parts
        return None


def samples_axis(model: Any, readout: Any = None) -> int:
    """Return the axis of samples in the inputs of a model: 0, or 1 where it is not batch_first."""
    parts = recurrent_parts(model, readout)
    stack = None if parts is None else parts.stack()
    return 1 if isinstance(stack, Stack) and not stack.batch_first else 0


def to_stack(model: Any, readout: Any = None, *, dt: Any = None, tau: Any = None) -> Stack | Pathways:
    """Return a model as cells; arguments and errors as of `parts_of` and `hoplens.read`."""
    return leaky(parts_of(model, readout).stack(), dt, tau)


def is_recurrent(model: Any) -> bool:
    """Return whether a model is known to be recurrent without a look into it."""
    known = isinstance(model, (Cell, Stack, list, tuple, *RECURRENT)) or find_reader(model) is not None
    return known or _returned(model) is not None


def _returned(model: Any) -> RecurrentModel | None:
    """Return the model in what the library itself returns as one; None for anything else."""
    if isinstance(model, Ensemble):
        if model.size != 1:
            raise ParameterError(
                f"this takes one network, got an ensemble of {model.size}; take one with "
                "ensemble.select(slice(n, n + 1))"
            )
        return model.model(0).eval()
    if isinstance(model, nn.Module):
        return model if isinstance(model, RecurrentModel) else None
    inner = getattr(model, "model", None)  # Pruned, Quantised, Reduced
    return inner if isinstance(inner, RecurrentModel) else None


def find_parts(module: nn.Module) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """Return the recurrent parts and the linear layers beside them in a module, by name."""
    cores: dict[str, nn.Module] = {}
    heads: dict[str, nn.Module] = {}
    for name, part in module.named_modules():
        if any(name.startswith(f"{core}.") for core in cores):
            continue
        if isinstance(part, RECURRENT) or find_reader(part) is not None:
            cores[name] = part
        elif isinstance(part, nn.Linear) or (isinstance(part, nn.Conv1d) and part.kernel_size == (1,)):
            heads[name] = part
    return cores, heads


def _inside(module: nn.Module, readout: Any) -> ModelParts:
    """Return core and head of a module that holds one of each and does nothing else."""
    cores, heads = find_parts(module)
    kind = type(module).__name__
    if not cores:
        raise unreadable(module)
    advice = f"pass its recurrent part, {_named(cores)}, and the linear layer after it as readout="
    if len(cores) > 1 or len(heads) > 1:
        raise UnsupportedModelError(
            f"this {kind} has {_count(cores, 'recurrent part')} and {_count(heads, 'linear layer')}, and how "
            f"they work together is not known; {advice}"
        )
    if heads and readout is not None:
        raise has_readout(module)
    core, head = next(iter(cores.values())), next(iter(heads.values()), None)
    # a container that cannot be run, e.g. an nn.ModuleDict, has nothing of its own to compute
    runs = type(module).forward is not nn.Module.forward
    every_step = _check_runs(module, core, head, advice) if runs else False
    info = ModelInfo(every_step=every_step)
    # with a read-out from outside the module is a core only
    return ModelParts(core, head, info, module) if readout is None else ModelParts(core, readout, info)


def _tried(stack: Stack) -> Tensor:
    """Return inputs (B, L, I) of several sizes that a module is run on."""
    drawn = torch.randn(*TRIED, stack.n_inputs, generator=generator("samples", 0))
    return drawn * torch.tensor(SIZES)[:, None, None]


def _agree(given: Tensor, wanted: Tensor) -> bool:
    """Whether outputs are the same to rounding, those of each sequence by their own size."""
    gap = (given.to(wanted) - wanted).abs().flatten(1).amax(1)
    return bool((gap <= AGREE * wanted.abs().flatten(1).amax(1).clamp_min(1.0)).all())


def _check_runs(module: nn.Module, core: nn.Module, head: Any, advice: str) -> bool:
    """Raise unless a module computes what its core and head do; return whether after every step."""
    kind = type(module).__name__
    stack = read_core(core, head)
    if isinstance(stack, Pathways):
        raise UnsupportedModelError(f"the recurrent part of this {kind} is read as weights only; {advice}")
    like = stack.like(torch.empty(0))
    x = _tried(stack).to(like)
    with torch.no_grad():
        parts = ModelParts(core, head, ModelInfo())
        wanted = parts.read_out(parts.states(x).to(like))
        try:
            with untouched(module):
                given = first_tensor(module(x if stack.batch_first else x.transpose(0, 1)))
        except Exception as error:  # whatever a user's module raises
            said = " ".join(str(error).split())[:120]
            raise UnsupportedModelError(
                f"this {kind} could not be run on inputs of shape {tuple(x.shape)} ({type(error).__name__}: "
                f"{said}), so it is not known what it does besides; {advice}"
            ) from None
    if given is not None and given.dim() == 3 and not stack.batch_first:
        given = given.transpose(0, 1)
    for every_step, outputs in ((True, wanted), (False, wanted[:, -1])):
        if given is not None and given.shape == outputs.shape and _agree(given, outputs):
            return every_step
    raise UnsupportedModelError(
        f"this {kind} computes something else than its recurrent part and its linear layer one after the "
        f"other; {advice}"
    )


def _check_override(core: nn.Module) -> None:
    """Raise if a subclass of torch's module runs another way than the class whose weights it has."""
    torchs = next(kind for kind in PLAIN if isinstance(core, kind))
    if type(core).forward is torchs.forward:
        return
    stack = read_core(core)
    assert isinstance(stack, Stack)
    name, like = type(core).__name__, stack.like(torch.empty(0))
    x = _tried(stack).to(like)
    wanted = run(stack, Batch(x, torch.full((len(x),), x.shape[1]))).shown
    try:
        given = ModelParts(core, None, ModelInfo()).states(x)
    except Exception as error:  # whatever a user's module raises
        given, said = x.new_empty(0), f" ({type(error).__name__})"
    else:
        said = ""
    if given.shape != wanted.shape or not _agree(given, wanted):
        raise UnsupportedModelError(
            f"{name} is an nn.{torchs.__name__} with a forward of its own, which computes something "
            f"else{said}; teach hoplens its step with register_reader or to_hoplens"
        )


def first_tensor(given: Any) -> Tensor | None:
    """Return a tensor, or the first of the tensors that a module returned."""
    while isinstance(given, tuple | list) and given:
        given = given[0]
    return given if isinstance(given, Tensor) else None


def _named(parts: dict[str, nn.Module]) -> str:
    found = [f"model[{name}]" if name[:1].isdigit() else f"model.{name}" for name in _few(parts)]
    return " or ".join(found)


def _few(parts: dict[str, nn.Module]) -> Iterator[str]:
    return itertools.islice(parts, 3)


def _count(parts: dict[str, nn.Module], what: str) -> str:
    names = f" ({', '.join(_few(parts))}{', ...' if len(parts) > 3 else ''})" if parts else ""
    return f"{len(parts)} {what}{'s' if len(parts) != 1 else ''}{names}"


__all__ = [
    "ModelParts",
    "find_parts",
    "first_tensor",
    "is_recurrent",
    "parts_of",
    "recurrent_parts",
    "samples_axis",
    "to_stack",
]
