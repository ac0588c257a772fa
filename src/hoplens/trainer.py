"""The loop that trains many networks as one batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from hoplens.models import create_ensemble
from hoplens.objective import EagerObjective, FusedObjective, Objective, PenaltyGroup
from hoplens.recipes import Recipe, Term
from hoplens.settings import Network, Settings
from hoplens.streams import DataStream, TrainingTask
from hoplens.thinning import keep_mask, weight_scores

T = TypeVar("T")

CHECK_EVERY = 25  # steps between looks at the loss: each look waits for the device
SMOOTH_STEPS = 50  # training error is averaged over so many steps before thinning looks at it
THIN_EVERY = 0.01  # share of training between two removals of weights


class Trainer:
    """One training run of an ensemble, step by step.

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
    losses : Tensor, shape (steps, E)
        Losses without penalty; NaN where there is none yet, and from a divergence on.
    diverged_at : Tensor of int64, shape (E,)
        First step whose loss was not finite; -1 if none.
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
        self.task, self.settings = task, settings
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
        self.groups = runs(networks, lambda network: network.recipe)
        strengths = torch.tensor([n.strength for n in networks], dtype=dtype, device=device)
        self.objective = self._objective(networks, strengths)
        for tensor, grad in zip(self.ensemble.tensors, self.objective.grads, strict=True):
            tensor.grad = grad
        self.optimiser = torch.optim.Adam(self.ensemble.tensors, lr=settings.lr, fused=True)
        thinned = any(recipe.thinning for recipe, _ in self.groups)
        existing = torch.ones_like(self.ensemble.recurrent())
        self.wiring: Tensor | None = None  # what may exist at all; the mask is what exists now
        if mask is not None:
            self.wiring = existing * mask.mT.to(existing)
            self.ensemble.recurrent().mul_(self.wiring)
        self.mask = (existing if self.wiring is None else self.wiring.clone()) if thinned else self.wiring
        # how far each network has come in being thinned, 0 .. 1
        self.clock = torch.zeros_like(strengths)
        self.smoothed = torch.full_like(strengths, math.inf)
        self.chance = math.log(2.0) if task.form == "sign" else 1.0  # loss of a constant best guess
        self.losses = torch.full((settings.steps, len(networks)), math.nan, dtype=dtype, device=device)
        self.diverged_at = torch.full((len(networks),), -1, dtype=torch.int64, device=device)
        self.safe = self.ensemble.clone()

    def train(self, progress: Callable[[int, int], Any] | None = None) -> None:
        """Run all steps.

        Parameters
        ----------
        progress : callable, optional
            Called as ``progress(steps done, steps)`` now and then.
        """
        steps = self.settings.steps
        for step in range(steps):
            self.step(step, *self.data.batch(step))
            if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps:
                self._set_aside_diverged(step)
                if progress is not None:
                    progress(step + 1, steps)

    @torch.no_grad()
    def step(self, step: int, inputs: Tensor, targets: Tensor) -> None:
        """Do one step of the optimiser; waits for nothing on the device, except where weights are removed.

        Parameters
        ----------
        step : int
            Its number, from 0.
        inputs : Tensor, shape (L, E, I, B)
        targets : Tensor, shape (R, E, O, B)
            R is 1 (read out after the last step) or L (after every step).
        """
        steps = self.settings.steps
        self.losses[step] = self.objective.run(inputs, targets, step / steps)
        if self.wiring is not None:  # what does not exist shall not count in the norm of the gradient
            self.objective.grads[0][:, : self.ensemble.n_hidden].mul_(self.wiring)
        self._clip()
        self.optimiser.param_groups[0]["lr"] = self.settings.learning_rate(step)
        self.optimiser.step()
        if self.mask is None:
            return
        thin_every = max(1, round(THIN_EVERY * steps))
        if (step + 1) % thin_every == 0:
            self.smoothed = self.losses[max(0, step - SMOOTH_STEPS) : step + 1].mean(dim=0)
            self._thin((step + 1) / steps, thin_every / steps)
        self.ensemble.recurrent().mul_(self.mask)

    def _objective(self, networks: Sequence[Network], strengths: Tensor) -> Objective:
        task, settings = self.task, self.settings
        groups = [
            PenaltyGroup(rows, networks[rows.start].recipe.penalty(task.length), strengths[rows])
            for _, rows in runs(networks, lambda network: network.recipe.terms)
        ]
        if settings.eager:
            return EagerObjective(self.ensemble, groups, form=task.form)
        return FusedObjective(
            self.ensemble,
            groups,
            batch=settings.batch,
            length=task.length,
            form=task.form,
            every_step=self.data.every_step,
        )

    def _clip(self) -> None:
        # double, so that a large gradient's square does not overflow to a factor of 0
        norms = [
            torch.linalg.vector_norm(grad, dim=(1, 2), dtype=torch.float64) for grad in self.objective.grads
        ]
        norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        factor = (self.settings.clip / norm).clamp_max(1.0)[:, None, None].to(self.losses.dtype)
        for grad in self.objective.grads:
            grad.mul_(factor)

    def _thin(self, progress: float, interval: float) -> None:
        """Remove weights of the networks whose turn it is; ``interval`` is the progress since last time."""
        assert self.mask is not None
        for recipe, rows in self.groups:
            thinning = recipe.thinning
            if thinning is None or progress < thinning.start:
                continue
            if progress >= thinning.release and thinning.release < 1:
                self.mask[rows] = 1.0 if self.wiring is None else self.wiring[rows]
                continue
            if progress > thinning.stop:
                continue
            learnt = self.smoothed[rows] <= thinning.tolerance * self.chance
            self.clock[rows] += learnt * (interval / (thinning.stop - thinning.start))
            share = thinning.share(self.clock[rows])
            scores = weight_scores(self.ensemble.pathways()[rows], thinning.by, horizon=self.task.length)
            kept = keep_mask(scores, share).mT.to(self.mask.dtype)
            self.mask[rows] = kept if self.wiring is None else kept * self.wiring[rows]

    def _set_aside_diverged(self, step: int) -> None:
        """Record networks whose loss is no longer finite and put them back to their last finite weights."""
        running = self.diverged_at < 0
        since = max(0, step + 1 - CHECK_EVERY)
        bad = ~torch.isfinite(self.losses[since : step + 1])
        finite_weights = torch.stack(
            [torch.isfinite(t).flatten(1).all(1) for t in self.ensemble.tensors]
        ).all(0)
        newly = running & (bad.any(dim=0) | ~finite_weights)
        first = torch.where(bad.any(dim=0), since + bad.to(torch.int8).argmax(dim=0), step)
        self.diverged_at = torch.where(newly, first, self.diverged_at)
        dead = (self.diverged_at >= 0)[:, None, None]
        for now, safe in zip(self.ensemble.tensors, self.safe.tensors, strict=True):
            now.copy_(torch.where(dead, safe, now))
            safe.copy_(now)
        steps = torch.arange(since, step + 1, device=self.losses.device)[:, None]
        over = (self.diverged_at >= 0) & (steps >= self.diverged_at)
        self.losses[since : step + 1].masked_fill_(over, math.nan)


def neighbours(networks: Sequence[Network]) -> list[int]:
    """Return an order of the networks in which those of the same penalty and recipe lie side by side."""
    terms: dict[tuple[Term, ...], int] = {}
    recipes: dict[Recipe, int] = {}
    keys = [
        (
            terms.setdefault(network.recipe.terms, len(terms)),
            recipes.setdefault(network.recipe, len(recipes)),
        )
        for network in networks
    ]
    return sorted(range(len(networks)), key=keys.__getitem__)


def runs(networks: Sequence[Network], key: Callable[[Network], T]) -> list[tuple[T, slice]]:
    """Return the runs of neighbours with the same key, and where they lie."""
    found, start = [], 0
    for value, members in itertools.groupby(networks, key):
        stop = start + len(list(members))
        found.append((value, slice(start, stop)))
        start = stop
    return found
