"""Open files of models: of `save_model`, or bare weights that others wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from hoplens.errors import FileError, ParameterError, UnsupportedModelError, check_choice
from hoplens.files import regular_file
from hoplens.graph.pathways import Pathways
from hoplens.models.cells import CORES, NONLINEARITIES, LeakyRNN
from hoplens.models.readers.files import KINDS, is_safetensors, locate
from hoplens.models.readers.models import ModelParts
from hoplens.models.readers.modules import PARTS
from hoplens.models.readers.saved import description, load_model
from hoplens.models.recurrent_model import ModelInfo, RecurrentModel
from hoplens.models.stack import Stack
from hoplens.models.tensors import check_weight

ASSUMED = "tanh"  # of plain RNNs in files that do not say


def open_parts(
    path: str | Path, *, rnn: str | None = None, readout: Any = None, nonlinearity: str | None = None
) -> ModelParts:
    """Open a file of a model; arguments and errors as of `read_model`, but a read-out need not be there.

    Parameters
    ----------
    path : str or Path
    rnn : str, optional
    readout : str, nn.Linear or matrix (O, n), optional
        Prefix of the read-out's keys, or a read-out that is not in the file.
    nonlinearity : {"tanh", "relu", "linear"}, optional
    """
    file = regular_file(path, ".safetensors or state_dict file")
    if nonlinearity is not None:
        check_choice("nonlinearity", nonlinearity, NONLINEARITIES)
    if not _described(file):
        return _from_weights(file, rnn, readout, nonlinearity)
    if rnn is not None or readout is not None:
        raise ParameterError(f"{str(file)!r} says what it holds; leave rnn= and readout= out")
    model = load_model(file)
    said = getattr(model.core, "nonlinearity", None)
    if nonlinearity is not None and nonlinearity != said:
        units = f"{said} units" if said else f"a {type(model.core).__name__}"
        raise ParameterError(f"{str(file)!r} says that it holds {units}; leave nonlinearity= out")
    own = type(model.core).__name__ + (f" ({said})" if said else "")
    return ModelParts(model.core, model.readout, model.info, model, f"{own} of {file.name}")


def read_model(
    path: str | Path,
    *,
    rnn: str | None = None,
    readout: str | None = None,
    nonlinearity: str | None = None,
    every_step: bool | None = None,
) -> RecurrentModel:
    """Open a file of `save_model`, or a safetensors or state_dict file of an RNN, GRU or LSTM and a read-out.

    Tensors only: a pickle that would run code is refused. Sizes, layers, directions and projections follow
    from the shapes of the weights under torch's names.

    Parameters
    ----------
    path : str or Path
    rnn, readout : str, optional
        Prefixes of the keys of the recurrent module and of the linear layer, of bare weights; guessed where
        one fits.
    nonlinearity : {"tanh", "relu", "linear"}, optional
        Of a plain RNN in bare weights: such a file does not say. Without it tanh is assumed, which
        ``info.assumed`` then says.
    every_step : bool, optional
        Whether to read out after every step; default what the file says, or after the last.

    Returns
    -------
    RecurrentModel
        In float32, unless the file has other floats.

    Raises
    ------
    FileError
        If the file is missing, damaged, of another version, or would run code.
    UnsupportedModelError, ParameterError
        If there is no recurrent module or no read-out in it, or several fit; or for a nonlinearity where the
        file says another.
    """
    parts = open_parts(path, rnn=rnn, readout=readout, nonlinearity=nonlinearity)
    if parts.head is None:
        raise UnsupportedModelError(
            f"{str(path)!r} holds no linear layer that takes the hidden units; save the read-out with it"
        )
    model = parts.model()
    if every_step is not None:
        model.info = replace(model.info, every_step=every_step)
    return model.eval()


def load_stack(
    path: str | Path, *, rnn: str | None = None, readout: Any = None, nonlinearity: str | None = None
) -> Stack:
    """Read the recurrent network in a file of `save_model`, or in a safetensors or state_dict file.

    Parameters
    ----------
    path : str or Path
    rnn : str, optional
        Prefix of the recurrent module's keys in bare weights, e.g. ``"encoder.rnn"``; guessed where the file
        holds one.
    readout : str, nn.Linear or matrix, optional
        Prefix of the read-out's keys; guessed where one linear layer fits, no read-out where none does.
    nonlinearity : {"tanh", "relu", "linear"}, optional
        Of a plain RNN in bare weights: such a file does not say, and tanh is assumed, as the label then says.
        Bare weights do not depend on it, Jacobians do.

    Returns
    -------
    Stack

    Raises
    ------
    FileError
        If the file cannot be read or trusted.
    ParameterError
        If a prefix must be given because several fit.
    """
    stack = open_parts(path, rnn=rnn, readout=readout, nonlinearity=nonlinearity).stack()
    assert not isinstance(stack, Pathways)  # a file holds modules of torch, which are read as cells
    return stack


def _described(file: Path) -> bool:
    try:
        return is_safetensors(file) and description(file) is not None
    except (SafetensorError, OSError, ValueError):
        return False  # the reader of bare weights says what is wrong


def _from_weights(file: Path, rnn: str | None, readout: Any, nonlinearity: str | None) -> ModelParts:
    named = readout if isinstance(readout, str) else None
    state, prefix, linear = locate(file, rnn=rnn, readout=named)
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if "weight_hh" in own:  # a single cell: the same weights without the number of a layer
        own = {f"{part}_l0": own[part] for part in PARTS if part in own}
    own = {key: value for key, value in own.items() if key.split("_l")[0] in PARTS}
    w_hh = own["weight_hh_l0"]
    kind = KINDS[4 if "weight_hr_l0" in own else w_hh.shape[0] // w_hh.shape[1]]
    if kind != "rnn" and nonlinearity is not None:
        raise ParameterError(f"{str(file)!r} holds a {kind.upper()}; nonlinearity= goes with a plain RNN")
    core = _core(kind, own, nonlinearity or ASSUMED, file)
    head = readout
    if named is not None or (readout is None and linear is not None):
        assert linear is not None
        head = _head(state, linear, file)
    info, units = ModelInfo(), ""
    if kind == "rnn":
        units = f" ({nonlinearity or ASSUMED})"
        if nonlinearity is None:
            info = ModelInfo(assumed=f"{ASSUMED} units without leak, as {file.name} does not say")
    label = f"{kind.upper()}{units} {prefix.rstrip('.') or '(no prefix)'} of {file.name}"
    return ModelParts(core, head, info, None, label)


def _core(kind: str, own: dict[str, Tensor], nonlinearity: str, file: Path) -> nn.Module:
    w_ih, w_hh = own["weight_ih_l0"], own["weight_hh_l0"]
    sizes = w_ih.shape[1], w_hh.shape[0] // {"rnn": 1, "gru": 3, "lstm": 4}[kind]
    layers = sum(f"weight_hh_l{n}" in own for n in range(len(own)))
    with torch.device("meta"):  # shapes that do not fit together may claim more than the file holds
        if kind == "rnn" and nonlinearity == "linear":
            if layers > 1 or "weight_hh_l0_reverse" in own:
                raise UnsupportedModelError("linear units are for one layer that runs forward")
            core: nn.Module = LeakyRNN(*sizes, 1.0, nonlinearity="linear").to(w_hh.dtype)
            own = {
                **{
                    f"bias_{part}_l0": torch.zeros(sizes[1], dtype=w_hh.dtype, device=w_hh.device)
                    for part in ("ih", "hh")
                },
                **own,
            }
        else:
            options: dict[str, Any] = {"nonlinearity": nonlinearity} if kind == "rnn" else {}
            if "weight_hr_l0" in own:
                options["proj_size"] = w_hh.shape[1]
            core = CORES[kind](
                *sizes,
                num_layers=layers,
                bias="bias_ih_l0" in own,
                bidirectional="weight_hh_l0_reverse" in own,
                batch_first=True,
                **options,
            ).to(w_hh.dtype)
    _fill(core, own, file)
    return core


def _head(state: dict[str, Tensor], prefix: str, file: Path) -> nn.Linear:
    weight, bias = (
        check_weight(prefix + "weight", state[prefix + "weight"]).flatten(1),
        state.get(prefix + "bias"),
    )
    if bias is not None:
        check_weight(prefix + "bias", bias, (len(weight),))
    with torch.device("meta"):
        head = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).to(weight.dtype)
    _fill(head, {"weight": weight, **({} if bias is None else {"bias": bias})}, file)
    return head


def _fill(module: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    try:
        dtype = next(module.parameters()).dtype
        module.load_state_dict({key: value.to(dtype) for key, value in state.items()}, assign=True)
    except RuntimeError as error:
        why = str(error).splitlines()[-1].strip()
        raise FileError(
            f"the weights in {str(file)!r} do not fit together ({why}); save the model again"
        ) from None


__all__ = ["load_stack", "open_parts", "read_model"]
