"""A user's model as a `RecurrentModel` of our own, and its parts by name."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from hoplens.errors import UnsupportedModelError
from hoplens.recurrent_model import RecurrentModel


def as_model(model: Any, readout: Any = None) -> RecurrentModel:
    """Return a copy of a model, in evaluation mode, that may be changed; the user's stays as it was.

    Parameters
    ----------
    model : RecurrentModel, or nn.RNN, nn.GRU, nn.LSTM, LeakyRNN with batch_first=True
    readout : nn.Linear, optional
        The linear layer after a bare core; not with a RecurrentModel, which has its own.

    Raises
    ------
    UnsupportedModelError
        If the read-out is missing or doubled, or the core is none that can be compressed.
    """
    if isinstance(model, RecurrentModel):
        if readout is not None:
            raise UnsupportedModelError("a RecurrentModel has its own read-out; leave readout= out")
        return copy.deepcopy(model).eval()
    if not isinstance(readout, nn.Linear):
        came = "none" if readout is None else f"a {type(readout).__name__}"
        raise UnsupportedModelError(
            f"a bare core needs the nn.Linear that follows it as readout=, got {came}"
        )
    return RecurrentModel(copy.deepcopy(model), copy.deepcopy(readout)).eval()


__all__ = ["as_model"]
