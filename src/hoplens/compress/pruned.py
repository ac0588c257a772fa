"""What pruning returns, and ensembles as single models."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from hoplens.compress.sensitivity import block_of
from hoplens.models.ensemble import Ensemble
from hoplens.models.recurrent_model import RecurrentModel

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Pruned:
    """A pruned model; unpacks as ``core, readout = hl.prune(...)``.

    Attributes
    ----------
    model : RecurrentModel
        New modules; smaller ones where units were removed.
    masks : dict of Tensor of bool
        Which weights are left, by the name of the tensor in ``model``; of the pruned matrices only.
    units : dict of list of int, or None
        Of structure "unit": the hidden units that are left in every layer, by their old numbers.
    report : pandas.DataFrame
        One row a tensor of the model: block, pruned (whether it was asked for), shapes and numbers of
        non-zero weights before and after, sparsity (share of zeros).
    """

    model: RecurrentModel
    masks: dict[str, Tensor]
    units: dict[str, list[int]] | None
    report: pd.DataFrame

    @property
    def core(self) -> nn.Module:
        """The recurrent module."""
        return self.model.core

    @property
    def readout(self) -> nn.Linear:
        """The read-out."""
        return self.model.readout

    def __iter__(self) -> Iterator[nn.Module]:
        return iter((self.model.core, self.model.readout))

    def with_masks(self) -> RecurrentModel:
        """Return a copy of the model whose masks ``torch.nn.utils.prune`` holds, so that training keeps them.

        `torch.nn.utils.prune.remove`, or `prune` itself, makes plain weights of them again.
        """
        return hold_masks(copy.deepcopy(self.model), self.masks)


@dataclass(frozen=True, eq=False)
class PrunedEnsemble:
    """Pruned networks.

    Attributes
    ----------
    ensemble : Ensemble
    masks : dict of Tensor of bool
        Which weights are left: "in" (E, H, I), "rec" (E, H, H), "out" (E, O, H), pruned blocks only.
    report : pandas.DataFrame
        As of `Pruned`, with a column ``network``.
    """

    ensemble: Ensemble
    masks: dict[str, Tensor]
    report: pd.DataFrame


def hold_masks(model: RecurrentModel, masks: dict[str, Tensor]) -> RecurrentModel:
    """Put masks under ``torch.nn.utils.prune`` in place, and return the model.

    Parameters
    ----------
    model : RecurrentModel
    masks : dict of Tensor of bool
        By the names of the model's tensors.
    """
    for name, mask in masks.items():
        part, _, tensor = name.partition(".")
        torch_prune.custom_from_mask(getattr(model, part), tensor, mask)
    return model


def report_of(given: RecurrentModel, own: RecurrentModel, blocks: Sequence[str] | None) -> pd.DataFrame:
    """Return one row a tensor: what it was and what it is.

    Parameters
    ----------
    given, own : RecurrentModel
        Before and after.
    blocks : sequence of str, or None
        What was pruned; None: units.
    """
    import pandas as pd

    rows = []
    for (name, old), new in zip(given.state_dict().items(), own.state_dict().values(), strict=True):
        block = block_of(name)
        pruned = old.shape != new.shape if blocks is None else block in blocks
        zeros = float((new == 0).double().mean())
        shapes = (tuple(old.shape), tuple(new.shape))
        counts = (int((old != 0).sum()), int((new != 0).sum()))
        rows.append((name, block or "-", pruned, *shapes, *counts, zeros))
    columns = ["tensor", "block", "pruned", "shape_before", "shape", "weights_before", "weights", "sparsity"]
    return pd.DataFrame(rows, columns=columns)


def gather(ensemble: Ensemble, done: Sequence[Pruned]) -> PrunedEnsemble:
    """Return pruned networks as an ensemble like the one they came from.

    Parameters
    ----------
    ensemble : Ensemble
    done : sequence of Pruned
    """
    import pandas as pd

    own = ensemble.with_models([one.model for one in done])
    masks = {str(block_of(name)): torch.stack([one.masks[name] for one in done]) for name in done[0].masks}
    report = pd.concat([one.report.assign(network=n) for n, one in enumerate(done)], ignore_index=True)
    return PrunedEnsemble(own, masks, report)


__all__ = ["Pruned", "PrunedEnsemble", "gather", "hold_masks", "report_of"]
