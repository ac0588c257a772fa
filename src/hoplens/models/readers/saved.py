"""Files of models with all that is needed to run them: safetensors, with a description in the metadata."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from hoplens.errors import FileError
from hoplens.files import regular_file, write_atomically
from hoplens.models.grids import unpack
from hoplens.models.readers.copies import as_model
from hoplens.models.readers.files import is_safetensors
from hoplens.models.recurrent_model import FORMAT, RecurrentModel, build_model, describe_model

KEY = "hoplens_model"  # of the description in a file's metadata
SCALES = ".scales"  # after the name of a quantised weight


def save_model(model: Any, path: str | Path, *, readout: nn.Linear | None = None) -> Path:
    """Write a model as safetensors with its description in the metadata; whole or not at all.

    The description says all that the weights do not: kind, nonlinearity, leak, layers, read-out, names,
    normalisation, window. Masks and parametrisations are applied.

    Parameters
    ----------
    model : model
        As `hoplens.prune` takes it. Of a `Quantised` the weights are written in their few bits, with their
        scales.
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
        If the model cannot be described: another core, or no read-out.
    FileError
        If the file cannot be written.
    """
    own = as_model(model, readout)
    described = describe_model(own)
    tensors = {key: value.detach().cpu().contiguous() for key, value in own.state_dict().items()}
    if hasattr(model, "packed"):  # Quantised
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


def description(file: Path) -> Any:
    """Return what a safetensors file says of its model; None where it says nothing."""
    with safe_open(file, framework="pt") as opened:
        return json.loads((opened.metadata() or {}).get(KEY, "null"))


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
    file = regular_file(path, "model saved with save_model")
    if not is_safetensors(file):
        raise FileError(
            f"{str(file)!r} is no file of save_model; open a state_dict of torch with hoplens.load"
        )
    try:
        described = description(file)
        tensors = load(file.read_bytes())
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"cannot read {str(file)!r} as safetensors ({error}); save it again") from None
    if not isinstance(described, dict):
        raise FileError(
            f"{str(file)!r} holds weights without a description of the model; open it with "
            "hoplens.load, or write it with save_model"
        )
    if described.get("format") != FORMAT:
        raise FileError(
            f"{str(file)!r} has format {described.get('format')!r}, this version reads "
            f"{FORMAT}; save it again"
        )
    try:
        tensors = unpacked(tensors, described.get("packed", {}))
        dtype = next(iter(tensors.values())).dtype
        if int(described["num_layers"]) > len(tensors):  # before as many are made
            raise ValueError(f"it is said to have {described['num_layers']} layers")
        with torch.device("meta"):  # sizes that are only said take no memory
            model = build_model(described, dtype)
        model.load_state_dict({name: value.to(dtype) for name, value in tensors.items()}, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, StopIteration) as error:
        why = str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
        raise FileError(f"{str(file)!r} does not describe its weights ({why}); save it again") from None
    return model


__all__ = ["KEY", "SCALES", "description", "load_model", "save_model", "unpacked"]
