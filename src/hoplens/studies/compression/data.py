"""Training and test data of `hoplens compress`: .npz files of inputs, targets and lengths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoplens.data.arrays import load_arrays, names_of, sequences_of
from hoplens.data.sets import IGNORED, Split
from hoplens.errors import FileError, ShapeError
from hoplens.models.recurrent_model import ModelInfo, RecurrentModel
from hoplens.seeds import generator

LEAST = 4  # sequences of a file: the test data are halved, and an interval needs two


def load_split(path: Path) -> Split:
    """Read sequences and their targets from an .npz file.

    ``path``: arrays ``inputs`` (N, L, I); ``targets``: whole numbers (N,) or (N, L) for classes, numbers
    (N,), (N, O) or (N, L, O) for values; and ``lengths`` (N,) if sequences are padded at the end. Returns
    classes as int64, -100 where padded; values as float32.
    """
    arrays = load_arrays(path)
    if "targets" not in arrays:
        raise FileError(f"{path} needs an array called 'targets'; it holds {', '.join(list(arrays)[:8])}")
    inputs = sequences_of(arrays, path).to(torch.float32)
    targets, lengths = arrays["targets"], arrays.get("lengths")
    if len(targets) != len(inputs) or targets.dtype.kind not in "fiu":
        raise FileError(
            f"{path}: targets must be numbers, one row for each of the {len(inputs)} sequences, got "
            f"{targets.dtype} {targets.shape}"
        )
    if len(inputs) < LEAST:
        raise FileError(f"{path} holds {len(inputs)} sequences; at least {LEAST} are needed")
    if not np.isfinite(targets).all():
        raise FileError(f"{path}: targets must be finite numbers; fill or drop the others")
    try:
        return _split(inputs, targets, lengths)
    except ShapeError as error:
        raise FileError(f"{path}: {error}") from None


def _split(inputs: Tensor, targets: Any, lengths: Any) -> Split:
    valid = torch.full((len(inputs),), inputs.shape[1])
    if lengths is not None:
        if lengths.shape != (len(inputs),) or lengths.dtype.kind not in "iu":
            raise ShapeError(
                f"lengths must be {len(inputs)} whole numbers, got {lengths.dtype} {lengths.shape}"
            )
        valid = torch.as_tensor(lengths.astype(np.int64))
    wanted = torch.as_tensor(targets)
    if not wanted.is_floating_point():
        wanted = wanted.to(torch.int64)
        fits = wanted.dim() == 1 or wanted.shape == inputs.shape[:2]
    else:
        wanted = wanted.to(torch.float32)
        wanted = wanted[:, None] if wanted.dim() == 1 else wanted
        fits = wanted.dim() == 2 or (wanted.dim() == 3 and wanted.shape[:2] == inputs.shape[:2])
    if not fits:
        raise ShapeError(
            f"targets must be classes (N,) or (N, L), or values (N, O) or (N, L, O) with (N, L) = "
            f"{tuple(inputs.shape[:2])}, got {wanted.dtype} {tuple(wanted.shape)}"
        )
    found = Split(inputs, wanted, valid)
    if not bool(found.mask.all()) and wanted.dim() == 3:
        raise ShapeError("values after every step need sequences of one length; cut them into equal pieces")
    if not bool(found.mask.all()) and wanted.dim() == 2 and not wanted.is_floating_point():
        found = replace(found, targets=torch.where(found.mask, wanted, IGNORED))
    return found


def lengths_of(split: Split) -> Tensor | None:
    """Return the lengths, or None where all sequences are full."""
    return None if bool(split.mask.all()) else split.lengths


def every_step(split: Split) -> bool:
    """Whether there is a target after every step."""
    return split.targets.dim() == (3 if split.targets.is_floating_point() else 2)


def halves(split: Split, seed: int) -> tuple[Split, Split]:
    """Return two halves of the sequences, at random: one to choose on, one to report on."""
    order = torch.randperm(len(split), generator=generator("halves of the test data", seed))
    middle = len(split) // 2

    def part(rows: Tensor) -> Split:
        rows = rows.sort().values
        return Split(split.inputs[rows], split.targets[rows], split.lengths[rows])

    return part(order[:middle]), part(order[middle:])


def fit_info(model: RecurrentModel, path: Path, split: Split) -> RecurrentModel:
    """Check that a model fits the data, and add names and normalisation that the file brings."""
    if split.inputs.shape[2] != model.n_inputs:
        raise ShapeError(
            f"the model takes {model.n_inputs} inputs, but {path} has sequences of {split.inputs.shape[2]}"
        )
    targets = split.targets
    if targets.is_floating_point():
        if targets.shape[-1] != model.n_outputs:
            raise ShapeError(f"the model gives {model.n_outputs} values, but {path} has {targets.shape[-1]}")
    else:
        valid = targets[targets != IGNORED]
        low, high = int(valid.min()), int(valid.max())
        if low < 0 or high >= model.n_outputs:
            raise ShapeError(
                f"classes must lie in 0 .. {model.n_outputs - 1}, as the model gives {model.n_outputs} "
                f"outputs, but {path} has {low} .. {high}"
            )
    arrays = load_arrays(path)
    brought: dict[str, Any] = {key: tuple(value) for key, value in names_of(arrays, path).items()}
    for key in ("input_mean", "input_scale"):
        if key in arrays:
            brought[key] = tuple(float(value) for value in np.ravel(arrays[key]))
    for key, value in brought.items():
        count = model.n_outputs if key == "output_names" else model.n_inputs
        if len(value) != count:
            raise FileError(f"{path}: {key} must have {count} entries, got {len(value)}")
    known: ModelInfo = model.info
    brought = {key: value for key, value in brought.items() if getattr(known, key) is None}
    model.info = replace(known, **brought)
    return model
