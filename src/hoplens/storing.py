"""One function that saves whatever hoplens keeps in files, and one that loads it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hoplens.files import regular_file
from hoplens.models.readers.files import is_safetensors
from hoplens.models.readers.opening import read_model
from hoplens.models.readers.saved import save_model
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.training.result import TrainingResult, is_result


def save(thing: Any, path: str | Path, *, readout: Any = None) -> Path:
    """Write a model, or the result of `hoplens.train`, into one safetensors file; `load` reads it.

    Parameters
    ----------
    thing : model or TrainingResult
        A model as every function takes it, what `prune`, `quantise` and `reduce` return included (of a
        quantised one the weights are written in their few bits).
    path : str or Path
    readout : nn.Linear, optional
        After a bare core.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    UnsupportedModelError, ParameterError
        If a model cannot be described: another core, or no read-out.
    FileError
        If the file cannot be written.
    """
    if isinstance(thing, TrainingResult):
        return thing.save(path)
    return save_model(thing, path, readout=readout)


def load(
    path: str | Path,
    *,
    rnn: str | None = None,
    readout: str | None = None,
    nonlinearity: str | None = None,
    every_step: bool | None = None,
) -> RecurrentModel | TrainingResult:
    """Load what `save` wrote, or a safetensors or state_dict file of an RNN, GRU or LSTM and a read-out.

    Tensors only: a pickle that would run code is refused.

    Parameters
    ----------
    path : str or Path
    rnn, readout, nonlinearity, every_step : optional
        What a file of bare weights does not say; see `hoplens.models.read_model`.

    Returns
    -------
    RecurrentModel or TrainingResult

    Raises
    ------
    FileError
        If the file is missing, damaged, of another version, or would run code.
    UnsupportedModelError, ParameterError
        If there is no recurrent module or no read-out in it, or several fit.
    """
    if isinstance(path, str | os.PathLike):  # what is none is refused by name below
        file = regular_file(path, "file that hoplens or torch saved")
        if is_safetensors(file) and is_result(file):
            return TrainingResult.load(file)
    return read_model(path, rnn=rnn, readout=readout, nonlinearity=nonlinearity, every_step=every_step)


__all__ = ["load", "save"]
