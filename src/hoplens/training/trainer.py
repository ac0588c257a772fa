"""The training run of an ensemble on a task."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hoplens.data.streams import DataStream, TrainingTask
from hoplens.models.ensemble import Ensemble, create_ensemble
from hoplens.training.loop import Loop, neighbours, runs
from hoplens.training.objective import EagerObjective, FusedObjective, Objective, PenaltyGroup
from hoplens.training.settings import Network, Settings


class Trainer(Loop):
    """One training run of an ensemble on a task, step by step.

    Parameters
    ----------
    task : TrainingTask
        Source of data.
    networks : sequence of Network
        Networks of one recipe, and recipes of the same terms, are neighbours (see `neighbours`): each
        penalty is computed on one slice.
    settings : Settings
    device, dtype
        Where and in what precision to train.
    mask : Tensor of bool, shape (H, H) or (E, H, H), optional
        Recurrent weights that exist, in the orientation of W_rec; the others are 0 from start to end.

    Attributes
    ----------
    ensemble : Ensemble
        The networks as they are now.
    data : DataStream
        Batches: inputs (L, E, I, B) and targets (R, E, O, B), where R is 1 (read out after the last step) or
        L (after every step).
    """

    def __init__(
        self,
        task: TrainingTask,
        networks: Sequence[Network],
        settings: Settings,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        mask: Tensor | None = None,
    ) -> None:
        device = torch.device(device)
        self.ensemble = create_ensemble(
            [n.seed for n in networks],
            [n.recipe.init for n in networks],
            n_inputs=task.n_inputs,
            hidden=settings.hidden,
            n_outputs=task.n_outputs,
            length=task.length,
            activation=settings.activation,
            leak=settings.leak,
            dtype=dtype,
            device=device,
        )
        self.data = DataStream(task, [n.seed for n in networks], settings.batch, device, dtype)
        strengths = torch.tensor([n.strength for n in networks], dtype=dtype, device=device)
        self.objective = _objective(self.ensemble, self.data, networks, strengths, settings)
        existing = torch.ones_like(self.ensemble.recurrent())
        super().__init__(
            self.ensemble,
            self.data,
            self.objective,
            networks,
            settings,
            chance=math.log(2.0) if task.form == "sign" else 1.0,
            horizon=task.length,
            wiring=None if mask is None else existing * mask.mT.to(existing),
        )


def _objective(
    ensemble: Ensemble,
    data: DataStream,
    networks: Sequence[Network],
    strengths: Tensor,
    settings: Settings,
) -> Objective:
    task, readouts = data.task, "every" if data.every_step else "last"
    groups = [
        PenaltyGroup(
            rows, networks[rows.start].recipe.penalty(task.length, readouts=readouts), strengths[rows]
        )
        for _, rows in runs(networks, lambda network: network.recipe.terms)
    ]
    if settings.eager:
        return EagerObjective(ensemble, groups, form=task.form)
    return FusedObjective(
        ensemble,
        groups,
        batch=settings.batch,
        length=task.length,
        form=task.form,
        every_step=data.every_step,
    )


__all__ = ["Trainer", "neighbours"]
