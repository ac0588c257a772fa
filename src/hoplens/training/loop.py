"""The loop that trains many networks as one batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from hoplens.data.streams import Stream
from hoplens.models.ensemble import Ensemble
from hoplens.training.objective import Objective
from hoplens.training.recipes import Recipe, Term
from hoplens.training.settings import Network, Settings

T = TypeVar("T")

CHECK_EVERY = 25  # steps between looks at the loss: each look waits for the device
SMOOTH_STEPS = 50  # training error is averaged over so many steps before pruning looks at it
THIN_EVERY = 0.01  # share of training between two removals of weights


class Loop:
    """One training run of an ensemble, step by step.

    Parameters
    ----------
    ensemble : Ensemble
        The networks, trained in place.
    data : Stream
    objective : Objective
        Loss and gradients of these networks.
    networks : sequence of Network
        What each is trained with, in the ensemble's order. Networks of one recipe, and recipes of the same
        terms, are neighbours (see `neighbours`).
    settings : Settings
    chance : float
        Loss of a constant best guess.
    horizon : int
        Time steps, for pathway scores of weights.
    wiring : Tensor, optional
        Recurrent weights that exist, 0 or 1, in the shape of ``ensemble.recurrent()``; the others are 0
        from start to end.

    Attributes
    ----------
    losses : Tensor, shape (steps, E)
        Losses without penalty; NaN where there is none yet, and from a divergence on.
    diverged_at : Tensor of int64, shape (E,)
        First step whose loss was not finite; -1 if none.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        data: Stream,
        objective: Objective,
        networks: Sequence[Network],
        settings: Settings,
        *,
        chance: float,
        horizon: int,
        wiring: Tensor | None = None,
    ) -> None:
        self.ensemble, self.data, self.objective = ensemble, data, objective
        self.settings, self.chance, self.horizon = settings, chance, horizon
        self.groups = runs(networks, lambda network: network.recipe)
        for tensor, grad in zip(ensemble.tensors, objective.grads, strict=True):
            tensor.grad = grad
        self.optimiser = torch.optim.Adam(ensemble.tensors, lr=settings.lr, fused=True)
        recurrent = ensemble.recurrent()
        strengths = torch.tensor([n.strength for n in networks], dtype=recurrent.dtype)
        strengths = strengths.to(recurrent.device)
        decays = [n.recipe.uses == "weight decay" for n in networks]
        self.strengths = strengths
        # what one step with learning rate 1 takes off each weight
        self.shrink = strengths * torch.tensor(decays).to(strengths) if any(decays) else None
        pruned = any(recipe.pruning for recipe, _ in self.groups)
        existing = torch.ones_like(recurrent)
        self.wiring = wiring  # what may exist at all; the mask is what exists now
        if wiring is not None:
            recurrent.mul_(wiring)
        self.mask = (existing if wiring is None else wiring.clone()) if pruned else wiring
        # how far each network has come in being pruned, 0 .. 1
        self.clock = torch.zeros_like(strengths)
        self.smoothed = torch.full_like(strengths, math.inf)
        shape = (settings.steps, len(networks))
        self.losses = torch.full(shape, math.nan, dtype=recurrent.dtype, device=recurrent.device)
        self.diverged_at = torch.full((len(networks),), -1, dtype=torch.int64, device=recurrent.device)
        self.safe = ensemble.clone()

    def train(self, progress: Callable[[int, int], Any] | None = None) -> None:
        """Run all steps; ``progress(steps done, steps)`` is called now and then."""
        steps = self.settings.steps
        for step in range(steps):
            self.step(step, *self.data.batch(step))
            if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps:
                self._set_aside_diverged(step)
                if progress is not None:
                    progress(step + 1, steps)

    @torch.no_grad()
    def step(self, step: int, *batch: Any) -> None:
        """Do one step of the optimiser; waits for nothing on the device, except where weights are removed.

        Parameters
        ----------
        step : int
            Its number, from 0.
        *batch
            What the stream returned for it.
        """
        steps, trained = self.settings.steps, self.ensemble
        self.losses[step] = self.objective.run(*batch, progress=step / steps)
        if self.wiring is not None:  # what does not exist shall not count in the norm of the gradient
            self.objective.grads[0][:, : self.wiring.shape[1]].mul_(self.wiring)
        self._clip()
        rate = self.settings.learning_rate(step)
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()
        if self.shrink is not None:
            kept = (1 - rate * self.shrink)[:, None, None]
            weight, readout = trained.tensors[:2]
            weight[:, :-1].mul_(kept)  # biases stay
            readout.mul_(kept)
        if self.mask is None:
            return
        thin_every = max(1, round(THIN_EVERY * steps))
        if (step + 1) % thin_every == 0:
            self.smoothed = self.losses[max(0, step + 1 - SMOOTH_STEPS) : step + 1].mean(dim=0)
            self._thin((step + 1) / steps, thin_every / steps)
        trained.recurrent().mul_(self.mask)

    def _clip(self) -> None:
        grads = self.objective.grads
        # double, so that a large gradient's square does not overflow to a factor of 0
        norms = [torch.linalg.vector_norm(grad, dim=(1, 2), dtype=torch.float64) for grad in grads]
        norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        factor = (self.settings.clip / norm).clamp_max(1.0)[:, None, None].to(self.losses.dtype)
        for grad in grads:
            grad.mul_(factor)

    def _thin(self, progress: float, interval: float) -> None:
        """Remove weights of the networks whose turn it is; ``interval`` is the progress since last time."""
        assert self.mask is not None
        for recipe, rows in self.groups:
            pruning = recipe.pruning
            if pruning is None or progress < pruning.start:
                continue
            if progress >= pruning.release and pruning.release < 1:
                self.mask[rows] = 1.0 if self.wiring is None else self.wiring[rows]
                continue
            if progress > pruning.stop:
                continue
            learnt = self.smoothed[rows] <= pruning.tolerance * self.chance
            learnt &= self.strengths[rows] >= pruning.least_strength
            self.clock[rows] += learnt * (interval / (pruning.stop - pruning.start))
            share = pruning.share(self.clock[rows])
            kept = self.ensemble.keep(rows, share, by=pruning.by, horizon=self.horizon).to(self.mask.dtype)
            self.mask[rows] = kept if self.wiring is None else kept * self.wiring[rows]

    def _set_aside_diverged(self, step: int) -> None:
        """Record networks whose loss is no longer finite and put them back to their last finite weights."""
        tensors = self.ensemble.tensors
        running = self.diverged_at < 0
        since = max(0, step + 1 - CHECK_EVERY)
        bad = ~torch.isfinite(self.losses[since : step + 1])
        finite_weights = torch.stack([torch.isfinite(t).flatten(1).all(1) for t in tensors]).all(0)
        newly = running & (bad.any(dim=0) | ~finite_weights)
        first = torch.where(bad.any(dim=0), since + bad.to(torch.int8).argmax(dim=0), step)
        self.diverged_at = torch.where(newly, first, self.diverged_at)
        dead = (self.diverged_at >= 0)[:, None, None]
        for now, safe in zip(tensors, self.safe.tensors, strict=True):
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


__all__ = ["CHECK_EVERY", "Loop", "neighbours", "runs"]
