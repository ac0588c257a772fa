"""The training run of an ensemble on a task or a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hoplens.data.sets import SequenceData
from hoplens.data.streams import TrainingTask, make_stream
from hoplens.models.ensemble import Ensemble
from hoplens.models.initial import create_ensemble
from hoplens.training.loop import Loop, neighbours, runs
from hoplens.training.losses import chance_loss
from hoplens.training.objective import Objective, PenaltyGroup
from hoplens.training.settings import Network, Settings


class Trainer(Loop):
    """One training run of an ensemble, step by step.

    Parameters
    ----------
    source : TrainingTask or SequenceData
        What is learnt.
    networks : sequence of Network
        Networks of one recipe, and recipes of the same terms, are neighbours (see `neighbours`): each
        penalty is computed on one slice.
    settings : Settings
    device, dtype
        Where and in what precision to train.
    mask, w_rec, input_units, output_units : Tensor, optional
        See `hoplens.train`; in the order of the networks here.

    Attributes
    ----------
    ensemble : Ensemble
        The networks as they are now.
    data : Stream
        Batches; see `hoplens.data.streams.make_stream`.
    """

    def __init__(
        self,
        source: TrainingTask | SequenceData,
        networks: Sequence[Network],
        settings: Settings,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        mask: Tensor | None = None,
        w_rec: Tensor | None = None,
        input_units: Tensor | None = None,
        output_units: Tensor | None = None,
    ) -> None:
        device, seeds = torch.device(device), [n.seed for n in networks]
        horizon = settings.horizon or source.length
        # of sequences of any length, delay lines take half of the units, no more
        lines = min(horizon, max(1, settings.hidden // 2)) if isinstance(source, SequenceData) else horizon
        ensemble = create_ensemble(
            seeds,
            [n.recipe.init for n in networks],
            cell=settings.cell,
            n_inputs=source.n_inputs,
            hidden=settings.hidden,
            n_outputs=source.n_outputs,
            length=lines,
            leak=settings.leak,
            w_rec=w_rec,
            dtype=dtype,
            device=device,
        )
        stream = make_stream(source, seeds, settings.batch, device, dtype)
        strengths = torch.tensor([n.strength for n in networks], dtype=dtype, device=device)
        dropped = torch.tensor([n.recipe.uses == "dropout" for n in networks], device=device)
        options: dict[str, Any] = (
            {"readouts": "every", "length": source.length} if stream.every_step else {"readouts": "last"}
        )
        groups = [
            PenaltyGroup(rows, networks[rows.start].recipe.penalty(horizon, **options), strengths[rows])
            for terms, rows in runs(networks, lambda network: network.recipe.terms)
            if terms
        ]
        objective = Objective(
            ensemble,
            stream,
            groups,
            length=source.length,
            at=settings.at,
            rates=strengths * dropped if bool(dropped.any()) else None,
            there=_terminals(ensemble, input_units, output_units),
            eager=settings.eager,
        )
        super().__init__(
            ensemble,
            stream,
            objective,
            networks,
            settings,
            chance=chance_loss(source),
            horizon=horizon,
            wiring=None if mask is None else _wiring(ensemble, mask),
        )


def _wiring(ensemble: Ensemble, mask: Tensor) -> Tensor:
    """Return which recurrent weights exist, as ``ensemble.recurrent()`` lies: the mask in every gate."""
    wide = mask.mT.to(ensemble.weight).repeat(*([1] * (mask.dim() - 1)), ensemble.kernel.blocks)
    return torch.ones_like(ensemble.recurrent()) * wide * ensemble.structure()[: ensemble.n_hidden]


def _terminals(
    ensemble: Ensemble, input_units: Tensor | None, output_units: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Set the weights between inputs or read-out and other units to 0; return what is there."""
    if input_units is None and output_units is None:
        return None
    h, weight, readout = ensemble.n_hidden, ensemble.structure(), torch.ones_like(ensemble.readout[0])
    if input_units is not None:
        weight[h:-1] *= input_units.to(weight).repeat(ensemble.kernel.blocks)
    if output_units is not None:
        readout *= output_units.to(readout)
    ensemble.weight.mul_(weight)
    ensemble.readout.mul_(readout)
    return weight, readout


__all__ = ["Trainer", "neighbours"]
