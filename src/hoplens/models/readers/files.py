"""Read weight files: safetensors, and state dicts saved by torch. Weights only, no code is run."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hoplens.errors import FileError, ParameterError, ShapeError, UnsupportedModelError, unknown_name
from hoplens.files import check_archive, regular_file
from hoplens.models.cells import Cell, LstmCell
from hoplens.models.readers.modules import PARTS, cell_from_blocks
from hoplens.models.tensors import check_weight, masked
from hoplens.text import printable

RECURRENT_KEY = re.compile(r"^(?P<prefix>.*?)weight_hh(?:_l0)?(?:_orig)?$")
KINDS = {1: "rnn", 3: "gru", 4: "lstm"}  # gates a hidden unit

# what an unpickler raises on bytes that are no pickle
DAMAGED = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    OSError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    struct.error,
)


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Load the tensors of a safetensors or state_dict file.

    Files of torch are opened with ``weights_only=True``: a pickle that would run code is refused. A
    checkpoint that holds its state dict under one key (``state_dict``, ``model``, ...) is unwrapped.

    Raises
    ------
    FileError
        If the file is missing, damaged, not a state dict, or asks to run code.
    """
    file = regular_file(path, ".safetensors or state_dict file")
    if is_safetensors(file):
        return _load_safetensors(file)
    check_archive(file)
    try:
        with warnings.catch_warnings():  # of torch's maintainers to each other, about odd pickles
            warnings.simplefilter("ignore")
            with file.open("rb") as opened:  # by a name torch would take it for safetensors
                content = torch.load(opened, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise FileError(
            f"{str(file)!r} does not hold tensors only and is refused, since loading it could run code; save "
            "model.state_dict(), or a .safetensors file"
        ) from None
    except DAMAGED as error:
        # what damaged bytes make of torch's unpickler: its own words (often none) would not help
        raise FileError(
            f"cannot read {str(file)!r} as a state_dict ({type(error).__name__}); save model.state_dict() "
            "with torch.save, or a .safetensors file"
        ) from None
    return _stored(_tensors(content, file), file)


def is_safetensors(file: Path) -> bool:
    """Return whether a file is safetensors by its first bytes, whatever it is called.

    A length of eight bytes, then a JSON object of that length; torch writes zip archives and pickles. A
    damaged file called ``.safetensors`` counts as one, so that the error speaks of that.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(9)
    except OSError as error:
        raise FileError(f"cannot read {str(file)!r} ({error.strerror or type(error).__name__})") from None
    pickled = start[:2] == b"PK" or start[:1] == b"\x80"
    return start[8:] == b"{" or (file.suffix == ".safetensors" and not pickled)


def _load_safetensors(file: Path) -> dict[str, Tensor]:
    import safetensors
    import safetensors.torch

    try:
        return dict(safetensors.torch.load_file(file))
    except (safetensors.SafetensorError, OSError) as error:
        raise FileError(f"cannot read {str(file)!r} as safetensors ({error}); save it again") from None


def _stored(state: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    for name, value in state.items():
        dense = value.layout is torch.strided and not value.is_meta
        if dense and value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise FileError(
                f"{printable(name)} in {str(file)!r} is a tensor {tuple(value.shape)}, of which the file "
                "holds less; save tensor.contiguous()"
            )
    return state


def _tensors(content: Any, file: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
        nested = [v for v in content.values() if isinstance(v, Mapping)]
        found = [{str(k): t for k, t in v.items() if isinstance(t, Tensor)} for v in nested]
        found = [state for state in found if any(RECURRENT_KEY.match(key) for key in state)]
        if len(found) == 1:
            return found[0]
    raise FileError(
        f"{str(file)!r} holds no state dict (name -> tensor), but a {type(content).__name__}; save "
        "model.state_dict()"
    )


def locate(
    path: str | Path, *, rnn: str | None = None, readout: str | None = None
) -> tuple[dict[str, Tensor], str, str | None]:
    """Return the tensors of a file, masks applied, and the prefixes of its recurrent module and read-out.

    Prefixes end in a dot or are empty; that of the read-out is None where no linear layer fits. Arguments and
    errors are those of `load_stack`.
    """
    state, prefix = _recurrent(path, rnn)
    return state, prefix, _linear(state, prefix, _levels(state, prefix, "tanh"), readout)


def _recurrent(path: str | Path, rnn: str | None) -> tuple[dict[str, Tensor], str]:
    state = _unmasked(load_state(path))
    prefixes = sorted({m["prefix"] for key in state if (m := RECURRENT_KEY.match(key))})
    if not prefixes:
        if any("parametrizations" in key for key in state):
            raise UnsupportedModelError(
                "the file stores parametrised weights without the functions that make them; read the module "
                "itself, or save it after torch.nn.utils.parametrize.remove_parametrizations"
            )
        raise UnsupportedModelError(
            f"{str(path)!r} holds no recurrent weights (no key ends in weight_hh or weight_hh_l0); its keys: "
            f"{', '.join(sorted(state)[:8])}"
        )
    return state, _choose("rnn", rnn, prefixes)


def _linear(
    state: dict[str, Tensor], prefix: str, levels: tuple[tuple[Cell, ...], ...], readout: str | None
) -> str | None:
    shown = sum(cell.n_outputs for cell in levels[-1])
    fits = [
        key.removesuffix("weight")
        for key, value in sorted(state.items())
        if key.endswith("weight") and not (prefix and key.startswith(prefix)) and _is_readout(value, shown)
    ]
    return None if readout is None and not fits else _choose("readout", readout, fits)


def _is_readout(value: Tensor, shown: int) -> bool:
    narrow = value.dim() == 2 or (value.dim() == 3 and value.shape[-1] == 1)
    return narrow and value.shape[1] == shown


def _choose(option: str, given: str | None, prefixes: list[str]) -> str:
    shown = [prefix.rstrip(".") for prefix in prefixes]
    if given is None:
        if len(prefixes) == 1:
            return prefixes[0]
        raise ParameterError(f"several modules fit, so {option}= must name one of: {', '.join(shown)}")
    if given.rstrip(".") not in shown:
        raise unknown_name(f"{option} prefix", given, shown)
    return prefixes[shown.index(given.rstrip("."))]


def _unmasked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace the pairs ``name_orig``, ``name_mask`` of a pruned module by their product."""
    plain = {k: v for k, v in state.items() if not k.endswith(("_orig", "_mask"))}
    for key, value in state.items():
        name = key.removesuffix("_orig")
        if name != key:
            mask = state.get(f"{name}_mask")
            plain[name] = value if mask is None else masked(name, value, mask)
        elif key.endswith("_mask") and f"{key.removesuffix('_mask')}_orig" not in state:
            plain[key] = value
    return plain


def _levels(state: dict[str, Tensor], prefix: str, nonlinearity: str) -> tuple[tuple[Cell, ...], ...]:
    if f"{prefix}weight_hh" in state:
        return ((_cell(state, prefix, "", nonlinearity),),)
    levels: list[tuple[Cell, ...]] = []
    while f"{prefix}weight_hh_l{len(levels)}" in state:
        suffix = f"_l{len(levels)}"
        cells = [_cell(state, prefix, suffix, nonlinearity)]
        if f"{prefix}weight_hh{suffix}_reverse" in state:
            cells.append(_cell(state, prefix, f"{suffix}_reverse", nonlinearity))
        levels.append(tuple(cells))
    return tuple(levels)


def _cell(state: dict[str, Tensor], prefix: str, suffix: str, nonlinearity: str) -> Cell:
    blocks = {part: state.get(f"{prefix}{part}{suffix}") for part in PARTS}
    for part, block in blocks.items():
        if block is not None:
            check_weight(f"{prefix}{part}{suffix}", block)
    w_ih, w_hh, w_hr = blocks["weight_ih"], blocks["weight_hh"], blocks["weight_hr"]
    if w_ih is None or w_hh is None or w_hh.dim() != 2 or w_hh.shape[0] != w_ih.shape[:1].numel():
        raise FileError(f"the file lacks {prefix}weight_ih{suffix}, or its shape does not fit weight_hh")
    if 0 in (*w_hh.shape, *w_ih.shape):
        raise ShapeError(
            f"{prefix}weight_hh{suffix} {tuple(w_hh.shape)} and weight_ih {tuple(w_ih.shape)} leave no "
            "hidden unit or no input; save a network that has some"
        )
    # a projection makes weight_hh narrower than a gate is tall; torch has it for LSTMs only
    gates = 4 if w_hr is not None else w_hh.shape[0] / w_hh.shape[1]
    if gates not in KINDS:
        raise UnsupportedModelError(
            f"{prefix}weight_hh{suffix} of shape {tuple(w_hh.shape)} is neither an RNN (H, H), a GRU (3H, H) "
            "nor an LSTM (4H, H)"
        )
    cell = cell_from_blocks(blocks, KINDS[int(gates)], nonlinearity)
    assert w_hr is None or isinstance(cell, LstmCell)
    return cell


__all__ = ["KINDS", "is_safetensors", "load_state", "locate"]
