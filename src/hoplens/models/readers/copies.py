"""A user's model as a `RecurrentModel` of our own, and its parts by name."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from hoplens.errors import UnsupportedModelError
from hoplens.models.readers.models import parts_of
from hoplens.models.recurrent_model import RecurrentModel


def as_model(model: Any, readout: Any = None, *, needs: str = "") -> RecurrentModel:
    """Return a copy of a model, in evaluation mode, that may be changed; the user's stays as it was.

    Parameters
    ----------
    model : object
        What `hoplens.models.readers.models.parts_of` takes, with a core of batch_first=True.
    readout : nn.Linear, optional
        The linear layer after a bare core; not with a model that has one.
    needs : {"weight_ih", "weight_hh"}, optional
        Weights of the core that the caller works on.

    Raises
    ------
    UnsupportedModelError
        If the read-out is missing, or the core is none that can be compressed.
    ParameterError
        For a read-out beside a model that has one.
    """
    given = parts_of(model, readout).model()
    if needs and not hasattr(given.core, f"{needs}_l0"):
        raise UnsupportedModelError(
            f"this works on the weights {needs} of a core, and a {type(given.core).__name__} has none; use a "
            "core that has them"
        )
    return RecurrentModel(plain_copy(given.core), plain_copy(given.readout), given.info).eval()


def plain_copy(module: Any) -> Any:
    """Return a copy of a module that holds the weights it applies as plain parameters.

    Masks of ``torch.nn.utils.prune`` and parametrisations are applied and taken off; the module given stays
    as it was.

    Parameters
    ----------
    module : nn.Module
    """
    # a masked weight is no leaf of autograd, which deepcopy refuses; the copy computes it anew
    applied = [value for part in _parts(module) for value in vars(part).values() if isinstance(value, Tensor)]
    flat = getattr(module, "_flat_weights", [])
    memo = {id(w): w.detach().clone() for w in (*applied, *flat) if w is not None and not w.is_leaf}
    own = copy.deepcopy(module, memo)
    for part in _parts(own):
        masks = [name for name, _ in part.named_buffers(recurse=False) if name.endswith("_mask")]
        for name in (mask.removesuffix("_mask") for mask in masks):
            if hasattr(part, f"{name}_orig"):
                prune.remove(part, name)
        for name in list(getattr(part, "parametrizations", {})):
            parametrize.remove_parametrizations(part, name, leave_parametrized=True)
    return own


def _parts(module: Any) -> list[nn.Module]:
    return list(module.modules()) if isinstance(module, nn.Module) else []


__all__ = ["as_model", "plain_copy"]
