"""One figure for how good outputs are: accuracy of classes, or the share of the variance explained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hoplens.data.sets import IGNORED
from hoplens.errors import ShapeError


def score(outputs: Tensor, targets: Any) -> float:
    """Return the accuracy for whole-number targets, else 1 minus the error's share of the targets' variance.

    Parameters
    ----------
    outputs : Tensor, shape (N, O) or (N, L, O)
        Scores of classes, or values.
    targets : Tensor
        Classes (N,) or (N, L) of whole numbers, -100 where padded; or values in the shape of the outputs, NaN
        where padded.

    Returns
    -------
    float
        At most 1; more is better.

    Raises
    ------
    ShapeError
        If targets do not fit outputs.
    """
    wanted = torch.as_tensor(targets).detach().cpu()
    found = outputs.detach().cpu().double()
    if not wanted.is_floating_point():
        if wanted.shape != found.shape[:-1]:
            raise ShapeError(
                f"class targets must have shape {tuple(found.shape[:-1])}, got {tuple(wanted.shape)}"
            )
        valid = wanted != IGNORED
        return float((found.argmax(dim=-1) == wanted)[valid].double().mean())
    if wanted.shape != found.shape:
        raise ShapeError(
            f"targets must have the outputs' shape {tuple(found.shape)}, got {tuple(wanted.shape)}"
        )
    wanted = wanted.double()
    valid = torch.isfinite(wanted)
    error = (found - wanted)[valid].square().mean()
    flat = wanted.flatten(0, -2)
    spread = torch.stack([column[torch.isfinite(column)].var(correction=0) for column in flat.unbind(-1)])
    return float(1 - error / spread.mean())


__all__ = ["score"]
