"""Open a model file that others wrote: bare weights become a `RecurrentModel`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hoplens.errors import FileError, ParameterError, UnsupportedModelError, check_choice
from hoplens.readers.files import KINDS, locate
from hoplens.readers.modules import PARTS
from hoplens.recurrent_model import CORES, KEY, ModelInfo, RecurrentModel, load_model


def read_model(
    path: str | Path,
    *,
    rnn: str | None = None,
    readout: str | None = None,
    nonlinearity: str = "tanh",
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
    nonlinearity : {"tanh", "relu"}, default "tanh"
        Of a plain RNN in bare weights: such a file does not say.
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
        If there is no recurrent module or no read-out in it, or several fit.
    """
    file = Path(path)
    if file.suffix == ".safetensors" and _described(file):
        if rnn is not None or readout is not None:
            raise ParameterError(f"{str(file)!r} says what it holds; leave the prefixes out")
        model = load_model(file)
    else:
        model = _from_weights(
            file, rnn, readout, check_choice("nonlinearity", nonlinearity, ("tanh", "relu"))
        )
    if every_step is not None:
        model.info = replace(model.info, every_step=every_step)
    return model.eval()


def _described(file: Path) -> bool:
    try:
        with safe_open(file, framework="pt") as opened:
            return KEY in (opened.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return False  # the reader of bare weights says what is wrong


def _from_weights(file: Path, rnn: str | None, readout: str | None, nonlinearity: str) -> RecurrentModel:
    state, prefix, linear = locate(file, rnn=rnn, readout=readout)
    if linear is None:
        raise UnsupportedModelError(
            f"{str(file)!r} holds no linear layer that takes the hidden units; save the read-out with it"
        )
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if "weight_hh" in own:  # a single cell: the same weights without the number of a layer
        own = {f"{part}_l0": own[part] for part in PARTS if part in own}
    own = {key: value for key, value in own.items() if key.split("_l")[0] in PARTS}
    w_ih, w_hh = own["weight_ih_l0"], own["weight_hh_l0"]
    projected = "weight_hr_l0" in own
    kind = KINDS[4 if projected else w_hh.shape[0] // w_hh.shape[1]]
    options: dict[str, Any] = {"rnn": {"nonlinearity": nonlinearity}, "lstm": {}, "gru": {}}[kind]
    if projected:
        options["proj_size"] = w_hh.shape[1]
    weight = state[linear + "weight"].flatten(1)
    bias = state.get(linear + "bias")
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, then replaced
        core: nn.Module = CORES[kind](
            w_ih.shape[1],
            w_hh.shape[0] // {"rnn": 1, "gru": 3, "lstm": 4}[kind],
            num_layers=sum(f"weight_hh_l{n}" in own for n in range(len(own))),
            bias="bias_ih_l0" in own,
            bidirectional="weight_hh_l0_reverse" in own,
            batch_first=True,
            **options,
        ).to(w_hh.dtype)
        head = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).to(weight.dtype)
    _fill(core, own, file)
    _fill(head, {"weight": weight, **({} if bias is None else {"bias": bias})}, file)
    return RecurrentModel(core, head, ModelInfo())


def _fill(module: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        why = str(error).splitlines()[-1].strip()
        raise FileError(
            f"the weights in {str(file)!r} do not fit together ({why}); save the model again"
        ) from None


__all__ = ["read_model"]
