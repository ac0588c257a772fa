"""A recurrent module with its read-out: one object to train, explain, compress, save and export."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from hoplens.cells import Cell
from hoplens.compress.grids import unpack
from hoplens.errors import FileError, ShapeError, UnsupportedModelError, check_number
from hoplens.files import write_atomically
from hoplens.torch_cells import RnnCell

if TYPE_CHECKING:
    from hoplens.compress.quantisation import Quantised

FORMAT = 1  # of saved models
KEY = "hoplens_model"  # of the description in a file's metadata
SCALES = ".scales"  # after the name of a quantised weight
CORES: dict[str, Any] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class LeakyRNN(nn.Module):
    """``h' = (1 - a) h + a f(W_hh h + W_ih x + b)`` with weights named as in ``nn.RNN``.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    leak : float
        a = dt / tau in (0, 1].
    nonlinearity : {"tanh", "relu"}, default "tanh"
        f.
    """

    batch_first = True
    num_layers = 1
    bidirectional = False

    def __init__(self, input_size: int, hidden_size: int, leak: float, *, nonlinearity: str = "tanh") -> None:
        super().__init__()
        self.leak = check_number("leak", leak, above=0.0, most=1.0)
        self.input_size, self.hidden_size, self.nonlinearity = input_size, hidden_size, nonlinearity
        bound = hidden_size**-0.5

        def draw(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

        self.weight_ih_l0, self.weight_hh_l0 = draw(hidden_size, input_size), draw(hidden_size, hidden_size)
        self.bias_ih_l0, self.bias_hh_l0 = draw(hidden_size), draw(hidden_size)

    def to_hoplens(self) -> Cell:
        """Return the cell that `hoplens.read` sees."""
        return RnnCell(
            self.weight_ih_l0,
            self.weight_hh_l0,
            self.bias_ih_l0,
            self.bias_hh_l0,
            nonlinearity=self.nonlinearity,
            leak=self.leak,
        )

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return all states (B, L, H) and the last one (1, B, H) for inputs (B, L, I)."""
        cell = self.to_hoplens()
        state, states = inputs.new_zeros(inputs.shape[0], self.hidden_size), []
        for x in inputs.unbind(1):
            state = cell.step(state, x)
            states.append(state)
        return torch.stack(states, dim=1), state[None]


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
    """

    every_step: bool = False
    window: int | None = None
    input_names: tuple[str, ...] | None = None
    output_names: tuple[str, ...] | None = None
    input_mean: tuple[float, ...] | None = None
    input_scale: tuple[float, ...] | None = None


class RecurrentModel(nn.Module):
    """A recurrent core and a linear read-out.

    Parameters
    ----------
    core : nn.RNN, nn.GRU, nn.LSTM or LeakyRNN
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
        if not isinstance(core, nn.RNN | nn.GRU | nn.LSTM | LeakyRNN) or not core.batch_first:
            raise UnsupportedModelError(
                "core must be an nn.RNN, nn.GRU, nn.LSTM or LeakyRNN made with batch_first=True, got "
                f"{type(core).__name__}"
            )
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
        if inputs.dim() != 3 or inputs.shape[-1] != self.n_inputs:
            raise ShapeError(
                f"inputs must have shape (B, L, I) with I = {self.n_inputs}, got {tuple(inputs.shape)}"
            )
        if lengths is not None and self.core.bidirectional:
            raise UnsupportedModelError("lengths are for cores that run one way; pass full sequences")
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


def describe_model(model: RecurrentModel) -> dict[str, Any]:
    """Return all that is needed to build a model anew but its weights, fit for JSON."""
    core = model.core
    kind = "leaky" if isinstance(core, LeakyRNN) else type(core).__name__.lower()
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


def save_model(model: RecurrentModel | Quantised, path: str | Path) -> Path:
    """Write a model as safetensors with its description in the metadata; whole or not at all.

    Parameters
    ----------
    model : RecurrentModel, or Quantised
        Of a `Quantised` the weights are written in their few bits, with their scales.
    path : str or Path

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    own = model if isinstance(model, RecurrentModel) else model.model
    described = describe_model(own)
    tensors = {key: value.detach().cpu().contiguous() for key, value in own.state_dict().items()}
    if not isinstance(model, RecurrentModel):
        described["packed"] = {name: [model.form, *tensors[name].shape] for name in model.levels}
        tensors |= model.packed()
        tensors |= {name + SCALES: scales.contiguous() for name, scales in model.scales.items()}
    return write_atomically(path, save(tensors, metadata={KEY: json.dumps(described)}))


def unpacked(tensors: dict[str, Tensor], packed: dict[str, list[Any]]) -> dict[str, Tensor]:
    """Return the tensors of a file with packed weights as levels times scales."""
    found = {name: value for name, value in tensors.items() if name.removesuffix(SCALES) not in packed}
    for name, (form, *shape) in packed.items():
        levels = unpack(tensors[name], form, math.prod(shape)).view(shape)
        found[name] = levels * tensors[name + SCALES]
    return found


def load_model(path: str | Path) -> RecurrentModel:
    """Load a model that `save_model` wrote, quantised or not. No code is run.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    RecurrentModel

    Raises
    ------
    FileError
        If the file is missing, damaged, of another format, or not a saved model.
    """
    file = Path(path)
    if not file.is_file():
        raise FileError(f"no file {str(file)!r}; pass the path of a model saved with save_model")
    try:
        with safe_open(file, framework="pt") as opened:
            described = json.loads((opened.metadata() or {}).get(KEY, "null"))
        tensors = load(file.read_bytes())
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"cannot read {str(file)!r} as safetensors ({error}); save it again") from None
    if not isinstance(described, dict):
        raise FileError(
            f"{str(file)!r} holds weights without a description of the model; write it with save_model"
        )
    if described.get("format") != FORMAT:
        raise FileError(
            f"{str(file)!r} has format {described.get('format')!r}, this version reads "
            f"{FORMAT}; save it again"
        )
    try:
        tensors = unpacked(tensors, described.get("packed", {}))
        model = build_model(described, next(iter(tensors.values())).dtype)
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, StopIteration) as error:
        why = str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
        raise FileError(f"{str(file)!r} does not describe its weights ({why}); save it again") from None
    return model


def build_model(described: dict[str, Any], dtype: torch.dtype) -> RecurrentModel:
    """Return a model of random weights after `describe_model`; the global random state is not touched."""
    sizes = (int(described["input_size"]), int(described["hidden_size"]))
    info: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in described["info"].items()
    }
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, then replaced
        core: nn.Module
        if described["core"] == "leaky":
            core = LeakyRNN(*sizes, leak=described["leak"], nonlinearity=described["nonlinearity"])
        else:
            options: dict[str, Any] = {"nonlinearity": described["nonlinearity"]}
            if described["core"] == "lstm":
                options = {"proj_size": described["proj_size"]}
            core = CORES[described["core"]](
                *sizes,
                num_layers=described["num_layers"],
                bias=described["bias"],
                bidirectional=described["bidirectional"],
                batch_first=True,
                **(options if described["core"] != "gru" else {}),
            )
        width = described["proj_size"] or sizes[1]
        shown = width * (2 if described["bidirectional"] else 1)
        n_outputs = int(described["n_outputs"])
        readout = nn.Linear(shown, n_outputs, bias=described["readout_bias"])
    return RecurrentModel(core.to(dtype), readout.to(dtype), ModelInfo(**info))


__all__ = [
    "LeakyRNN",
    "ModelInfo",
    "RecurrentModel",
    "build_model",
    "describe_model",
    "last_steps",
    "load_model",
    "save_model",
]
