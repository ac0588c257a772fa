"""A recurrent module with its read-out: one object to train, explain, compress, save and export."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hoplens.errors import (
    ShapeError,
    UnsupportedModelError,
)
from hoplens.models.cells import CORES, CellModule
from hoplens.models.tensors import check_lengths, check_sequences

FORMAT = 1  # of descriptions
SHAPE = ("num_layers", "bias", "bidirectional")
OPTIONS = {
    "rnn": (*SHAPE, "nonlinearity"),
    "gru": SHAPE,
    "lstm": (*SHAPE, "proj_size"),
}  # of PyTorch's modules


@dataclass(frozen=True)
class ModelInfo:
    """What a saved model says of itself, beside its weights.

    Attributes
    ----------
    every_step : bool
        Whether outputs are read after every step, or after the last one.
    window : int or None
        Number of last steps that a read-out at the end needs: only these are run, from a zero state (see
        `hoplens.truncate`). None for all; of no effect with ``every_step``.
    input_names, output_names : tuple of str, or None
    input_mean, input_scale : tuple of float, or None
        Normalisation done before the model: ``(x - mean) / scale``, one an input. The model itself takes
        normalised inputs.
    assumed : str
        What was assumed of the network, as its file did not say; empty where nothing was.
    """

    every_step: bool = False
    window: int | None = None
    input_names: tuple[str, ...] | None = None
    output_names: tuple[str, ...] | None = None
    input_mean: tuple[float, ...] | None = None
    input_scale: tuple[float, ...] | None = None
    assumed: str = ""

    @property
    def runs_last(self) -> int | None:
        """How many of the last steps are run, or None where all are."""
        return None if self.every_step else self.window


class RecurrentModel(nn.Module):
    """A recurrent core and a linear read-out.

    Parameters
    ----------
    core : nn.RNN, nn.GRU, nn.LSTM, LeakyRNN, MinGRU or LRU
        With ``batch_first=True``.
    readout : nn.Linear
        From the core's outputs.
    info : ModelInfo, default ``ModelInfo()``

    Raises
    ------
    UnsupportedModelError
        For another core, or one that is not batch-first.
    ShapeError
        If the read-out does not fit the core.
    """

    def __init__(self, core: nn.Module, readout: nn.Linear, info: ModelInfo | None = None) -> None:
        super().__init__()
        if not isinstance(core, nn.RNN | nn.GRU | nn.LSTM | CellModule) or not core.batch_first:
            known = ", ".join(kind.__name__ for kind in CORES.values())
            raise UnsupportedModelError(
                f"core must be one of {known} made with batch_first=True, got {type(core).__name__}"
            )
        head: Any = readout  # whatever a caller gives
        if not isinstance(head, nn.Linear):
            came = type(head).__name__
            raise UnsupportedModelError(f"readout must be the nn.Linear after the core, got {came}")
        self.core, self.readout, self.info = core, readout, info or ModelInfo()
        width = core.proj_size if isinstance(core, nn.LSTM) and core.proj_size else core.hidden_size
        width *= 2 if core.bidirectional else 1
        if readout.in_features != width:
            raise ShapeError(f"the read-out takes {readout.in_features} units, but the core shows {width}")

    @property
    def n_inputs(self) -> int:
        """Number of inputs, I."""
        return int(self.core.input_size)

    @property
    def n_outputs(self) -> int:
        """Number of outputs, O."""
        return self.readout.out_features

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Run the model.

        Parameters
        ----------
        inputs : Tensor, shape (B, L, I)
            Padded at the end where sequences are shorter.
        lengths : Tensor of int64, shape (B,), optional
            Valid steps of each sequence; default all. Not for bidirectional cores.

        Returns
        -------
        Tensor, shape (B, O), or (B, L, O) where ``info.every_step``
        """
        weight = self.readout.weight
        own = next(iter(self.core.parameters())).dtype
        if own != weight.dtype:
            raise ShapeError(f"the core is {own}, but the read-out {weight.dtype}; convert one of them")
        inputs = check_sequences(inputs, self.n_inputs)
        if inputs.dtype != weight.dtype or inputs.device != weight.device:
            raise ShapeError(
                f"inputs must be {weight.dtype} on {weight.device} as the weights are, got {inputs.dtype} on "
                f"{inputs.device}; convert them with inputs.to(model.readout.weight)"
            )
        if lengths is not None and self.core.bidirectional:
            raise UnsupportedModelError("lengths are for cores that run one way; pass full sequences")
        lengths = check_lengths(lengths, inputs)
        if self.info.window is not None and not self.info.every_step:
            inputs, lengths = last_steps(inputs, self.info.window, lengths)
        states = self.core(inputs)[0]
        if self.info.every_step:
            return self.readout(states)  # type: ignore[no-any-return]
        if lengths is None:
            return self.readout(states[:, -1])  # type: ignore[no-any-return]
        rows = torch.arange(len(states), device=states.device)
        return self.readout(states[rows, lengths.to(states.device) - 1])  # type: ignore[no-any-return]


def last_steps(inputs: Tensor, window: int, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Return the last valid steps of every sequence and how many there are.

    Parameters
    ----------
    inputs : Tensor, shape (B, L, I)
        Padded at the end.
    window : int
        Steps kept, w; a shorter sequence is kept whole.
    lengths : Tensor of int64, shape (B,), optional
        Valid steps; default all.

    Returns
    -------
    Tensor, shape (B, min(w, L), I), and Tensor or None, shape (B,)
    """
    if lengths is None:
        return inputs[:, max(0, inputs.shape[1] - window) :], None
    lengths = lengths.to(inputs.device)
    steps = torch.arange(min(window, inputs.shape[1]), device=inputs.device)
    places = (lengths - window).clamp_min(0)[:, None] + steps
    places = places.clamp_max(inputs.shape[1] - 1)[..., None].expand(-1, -1, inputs.shape[-1])
    return inputs.gather(1, places), lengths.clamp_max(window)


def at_steps(values: Tensor, before: Tensor, steps: int) -> Tensor:
    """Put what belongs to the last steps of sequences (`last_steps`) at these steps, zeros before and after.

    Parameters
    ----------
    values : Tensor, shape (B, w, ...)
        Zero after the end of each sequence.
    before : Tensor of int64, shape (B,)
        Steps of each sequence before its window.
    steps : int
        L.

    Returns
    -------
    Tensor, shape (B, L, ...)
    """
    places = (before[:, None] + torch.arange(values.shape[1], device=values.device)).clamp_max(steps - 1)
    places = places.view(*places.shape, *[1] * (values.dim() - 2)).expand_as(values)
    return values.new_zeros(values.shape[0], steps, *values.shape[2:]).scatter_add(1, places, values)


def describe_model(model: RecurrentModel) -> dict[str, Any]:
    """Return all that is needed to build a model anew but its weights, fit for JSON."""
    core = model.core
    kind = next(kind for kind, module in CORES.items() if isinstance(core, module))
    return {
        "format": FORMAT,
        "core": kind,
        "leak": getattr(core, "leak", None),
        "nonlinearity": getattr(core, "nonlinearity", None),
        "input_size": core.input_size,
        "hidden_size": core.hidden_size,
        "num_layers": core.num_layers,
        "bidirectional": core.bidirectional,
        "bias": getattr(core, "bias", True),
        "proj_size": getattr(core, "proj_size", 0),
        "n_outputs": model.n_outputs,
        "readout_bias": model.readout.bias is not None,
        "info": asdict(model.info),
    }


def build_model(described: dict[str, Any], dtype: torch.dtype) -> RecurrentModel:
    """Return a model of random weights after `describe_model`; the global random state is not touched."""
    sizes = (int(described["input_size"]), int(described["hidden_size"]))
    info = _info(described["info"], sizes[0], int(described["n_outputs"]))
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, then replaced
        module: Any = CORES[described["core"]]
        options = [*OPTIONS.get(described["core"], ()), *getattr(module, "options", ())]
        core = module(*sizes, **{key: described[key] for key in options})
        core.batch_first = True
        width = described["proj_size"] or sizes[1]
        shown = width * (2 if described["bidirectional"] else 1)
        n_outputs = int(described["n_outputs"])
        readout = nn.Linear(shown, n_outputs, bias=described["readout_bias"])
    return RecurrentModel(core.to(dtype), readout.to(dtype), info)


def _info(said: dict[str, Any], n_inputs: int, n_outputs: int) -> ModelInfo:
    """Return what a description says beside sizes; raises ValueError or TypeError where it cannot be so."""
    found: dict[str, Any] = dict(said)
    kinds: dict[str, tuple[type[str] | type[float], int]] = {
        "input_names": (str, n_inputs),
        "output_names": (str, n_outputs),
    }
    kinds |= {"input_mean": (float, n_inputs), "input_scale": (float, n_inputs)}
    for key, (kind, count) in kinds.items():
        values = found.get(key)
        if values is None:
            continue
        if not isinstance(values, list | tuple) or len(values) != count:
            raise ValueError(f"{key} must be {count} entries")
        if not all(isinstance(value, kind | int if kind is float else kind) for value in values):
            raise ValueError(f"{key} must be {'texts' if kind is str else 'numbers'}")
        found[key] = tuple(kind(value) for value in values)
        if kind is float and not all(math.isfinite(value) for value in found[key]):
            raise ValueError(f"{key} must be finite numbers")
    made = ModelInfo(**found)
    if not isinstance(made.every_step, bool) or not isinstance(made.assumed, str):
        raise ValueError("every_step must be true or false, and assumed a text")
    if made.window is not None and (type(made.window) is not int or made.window < 1):
        raise ValueError(f"window must be a whole number from 1 on, got {made.window!r}")
    return made


__all__ = [
    "ModelInfo",
    "RecurrentModel",
    "at_steps",
    "build_model",
    "describe_model",
    "last_steps",
]
