"""Train many networks as one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hoplens.bptt import Backprop
from hoplens.errors import ParameterError, UnsupportedModelError, check_count, check_number
from hoplens.evaluation import evaluate
from hoplens.models import Ensemble, create_ensemble
from hoplens.pathways import Pathways
from hoplens.recipes import Recipe
from hoplens.schedules import ScheduledPenalty
from hoplens.tasks import Task
from hoplens.thinning import keep_mask, weight_scores

if TYPE_CHECKING:
    import pandas as pd

DATA_STREAM = 1 << 32  # added to a network's seed: weights and training data must not share numbers
CHUNK = 16  # steps whose data are drawn at once; part of what fixes the numbers of a seed
CHECK_EVERY = 25  # steps between looks at the loss: each look waits for the device
SMOOTH_STEPS = 50  # training error is averaged over so many steps before thinning looks at it
THIN_EVERY = 0.01  # share of training between two removals of weights


@dataclass(frozen=True)
class Network:
    """What one network of an ensemble is trained with."""

    recipe: Recipe
    strength: float
    seed: int


@dataclass(frozen=True)
class Settings:
    """How training runs; shared by all networks of an ensemble.

    Parameters
    ----------
    hidden : int, default 32
        Hidden units H.
    steps : int, default 2000
        Optimiser steps.
    batch : int, default 64
        Samples a step.
    lr : float, default 6e-3
        Adam's learning rate.
    decay : float, default 0.7
        The learning rate falls linearly to 0 over this last share of training.
    clip : float, default 1
        Largest norm of a network's gradient.
    activation : {"tanh", "relu", "linear"}
    """

    hidden: int = 32
    steps: int = 2000
    batch: int = 64
    lr: float = 6e-3
    decay: float = 0.7
    clip: float = 1.0
    activation: str = "tanh"

    def __post_init__(self) -> None:
        for name in ("hidden", "steps", "batch"):
            check_count(name, getattr(self, name))
        check_number("lr", self.lr, above=0.0)
        check_number("decay", self.decay, least=0.0, most=1.0)
        check_number("clip", self.clip, above=0.0)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step (0-based)."""
        left = (self.steps - step) / self.steps
        return self.lr * min(1.0, left / self.decay) if self.decay else self.lr


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """Trained networks and how they did.

    Attributes
    ----------
    task : Task
        What they were trained on.
    networks : tuple of Network
        Recipe, strength and seed of each, in the order of every E axis.
    ensemble : Ensemble
        The trained weights. A network that diverged holds its last finite weights.
    losses : Tensor, shape (steps, E)
        Training loss without penalty; NaN after a divergence.
    diverged_at : Tensor of int64, shape (E,)
        First step whose loss was not finite; -1 if none.
    metrics : pandas.DataFrame
        One row a network: penalty, strength, seed, test_mse (share of the target variance), accuracy
        (share of outputs on the right side of 0), diverged_at.
    """

    task: Task
    networks: tuple[Network, ...]
    ensemble: Ensemble
    losses: Tensor
    diverged_at: Tensor
    metrics: pd.DataFrame = field(repr=False)

    @property
    def pathways(self) -> Pathways:
        """The trained graphs, leading axis E in the order of ``metrics``."""
        net, task = self.ensemble.pathways(), self.task
        return Pathways(
            net.w_in,
            net.w_rec,
            net.w_out,
            input_modules=task.input_modules,
            output_modules=task.output_modules,
            provenance=net.provenance,
        )

    def predict(self, inputs: Tensor) -> Tensor:
        """Run all networks on the same sequences, without gradients.

        Parameters
        ----------
        inputs : Tensor, shape (B, L, I)

        Returns
        -------
        Tensor, shape (E, B, O)
        """
        with torch.no_grad():
            return self.ensemble.predict(inputs)


def train(
    task: Task,
    recipe: Recipe | Sequence[Recipe],
    *,
    seeds: Sequence[int] = (0,),
    strengths: Sequence[float] = (1e-3,),
    hidden: int = 32,
    steps: int = 2000,
    batch: int = 64,
    lr: float = 6e-3,
    decay: float = 0.7,
    clip: float = 1.0,
    activation: str = "tanh",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], Any] | None = None,
) -> TrainingResult:
    """Train one network for every (recipe, strength, seed), all as one batch.

    A network's numbers depend on its recipe, strength and seed and on the settings only: trained alone
    it comes out the same to float tolerance. Networks of one seed see the same data, so that methods can
    be compared in pairs. The global random state is not touched.

    Parameters
    ----------
    task : Task
        From `hoplens.tasks.make`.
    recipe : Recipe or sequence of Recipe
        From `hoplens.recipes`. A recipe without penalty is trained once a seed, with strength 0.
    seeds : sequence of int
        Seeds of weights and data.
    strengths : sequence of float
        Factors of the penalty.
    hidden, steps, batch, lr, decay, clip, activation
        See `Settings`.
    device, dtype
        Where and in what precision to train.
    progress : callable, optional
        Called as ``progress(steps done, steps)`` now and then.

    Returns
    -------
    TrainingResult

    Raises
    ------
    ParameterError
        For settings out of range, or no network at all.
    """
    recipes = (recipe,) if isinstance(recipe, Recipe) else tuple(recipe)
    networks = [
        Network(r, float(strength), int(seed))
        for r in recipes
        for strength in (strengths if r.terms else (0.0,))
        for seed in seeds
    ]
    settings = Settings(hidden, steps, batch, lr, decay, clip, activation)
    return train_networks(task, networks, settings, device=device, dtype=dtype, progress=progress)


def train_networks(
    task: Task,
    networks: Sequence[Network],
    settings: Settings,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], Any] | None = None,
) -> TrainingResult:
    """Train any mixture of networks of one shape as one batch; see `train`."""
    if not isinstance(task, Task):
        raise UnsupportedModelError(f"task must come from hoplens.tasks.make, got {type(task).__name__}")
    if not networks:
        raise ParameterError("nothing to train: give at least one recipe, strength and seed")
    for network in networks:
        check_number("strength", network.strength, least=0.0)
        check_count("seed", network.seed, least=0)
    # neighbours in the batch share a penalty, so that each penalty is computed on one slice
    order = sorted(range(len(networks)), key=lambda n: _first_use(networks, n))
    run = _Run(task, [networks[n] for n in order], settings, torch.device(device), dtype)
    with torch.no_grad():
        run.train(progress)
    back = torch.argsort(torch.tensor(order, device=run.ensemble.weight.device))
    weight, readout, offset = (tensor[back] for tensor in run.ensemble.tensors)
    ensemble = Ensemble(weight, readout, offset, settings.activation)
    losses, diverged = run.losses[:, back], run.diverged_at[back]
    return TrainingResult(
        task, tuple(networks), ensemble, losses, diverged, _metrics(task, networks, ensemble, diverged)
    )


def _first_use(networks: Sequence[Network], n: int) -> int:
    return next(m for m, other in enumerate(networks) if other.recipe == networks[n].recipe)


class _Run:
    """State of one training run; networks of one recipe are neighbours."""

    def __init__(
        self,
        task: Task,
        networks: list[Network],
        settings: Settings,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.task, self.settings = task, settings
        self.ensemble = create_ensemble(
            [n.seed for n in networks],
            [n.recipe.init for n in networks],
            n_inputs=task.n_inputs,
            hidden=settings.hidden,
            n_outputs=task.n_outputs,
            length=task.length,
            activation=settings.activation,
            dtype=dtype,
            device=device,
        )
        self.backprop = Backprop(self.ensemble, settings.batch, task.length, task.form)
        for tensor, grad in zip(self.ensemble.tensors, self.backprop.grads, strict=True):
            tensor.grad = grad
        self.optimiser = torch.optim.Adam(self.ensemble.tensors, lr=settings.lr, fused=True)
        self.data = _DataStream(task, [n.seed for n in networks], settings.batch, device, dtype)
        self.strengths = torch.tensor([n.strength for n in networks], dtype=dtype, device=device)
        self.groups = _recipe_groups(networks, task.length)
        self.mask: Tensor | None = None
        if any(recipe.thinning for recipe, _, _ in self.groups):
            self.mask = torch.ones_like(self.ensemble.recurrent())
        self.clock = torch.zeros_like(
            self.strengths
        )  # how far each network has come in being thinned, 0 .. 1
        self.smoothed = torch.full_like(self.strengths, math.inf)
        self.chance = math.log(2.0) if task.form == "sign" else 1.0  # loss of a constant best guess
        self.losses = torch.full((settings.steps, len(networks)), math.nan, dtype=dtype, device=device)
        self.diverged_at = torch.full((len(networks),), -1, dtype=torch.int64, device=device)
        self.safe = self.ensemble.clone()

    def train(self, progress: Callable[[int, int], Any] | None) -> None:
        steps = self.settings.steps
        thin_every = max(1, round(THIN_EVERY * steps))
        for step in range(steps):
            inputs, targets = self.data.batch(step)
            self.backprop.inputs.copy_(inputs)
            self.losses[step] = self.backprop.run(targets)
            self._add_penalties(step / steps)
            self._clip()
            self.optimiser.param_groups[0]["lr"] = self.settings.learning_rate(step)
            self.optimiser.step()
            if self.mask is not None:
                if (step + 1) % thin_every == 0:
                    self.smoothed = self.losses[max(0, step - SMOOTH_STEPS) : step + 1].mean(dim=0)
                    self._thin((step + 1) / steps, thin_every / steps)
                self.ensemble.recurrent().mul_(self.mask)
            if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps:
                self._set_aside_diverged(step)
                if progress is not None:
                    progress(step + 1, steps)

    def _add_penalties(self, progress: float) -> None:
        h, i = self.ensemble.n_hidden, self.ensemble.n_inputs
        grad_weight, grad_readout, _ = self.backprop.grads
        for _, rows, penalty in self.groups:
            terms = penalty.active(progress)
            if not terms:
                continue
            weight = self.ensemble.weight[rows]
            with torch.enable_grad():
                blocks = [weight[:, h : h + i].mT, weight[:, :h].mT, self.ensemble.readout[rows]]
                leaves = [block.detach().requires_grad_() for block in blocks]
                net = Pathways(*leaves)
                total = sum(factor * term(net) for factor, term in terms)
                value = (self.strengths[rows] * total).sum()
            w_in, w_rec, w_out = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
            grad_weight[rows, h : h + i] += w_in.mT
            grad_weight[rows, :h] += w_rec.mT
            grad_readout[rows] += w_out

    def _clip(self) -> None:
        # double, so that a large gradient's square does not overflow to a factor of 0
        square = torch.stack([grad.double().square().sum(dim=(1, 2)) for grad in self.backprop.grads]).sum(
            dim=0
        )
        factor = (self.settings.clip / square.sqrt()).clamp_max(1.0)[:, None, None].to(self.strengths.dtype)
        for grad in self.backprop.grads:
            grad.mul_(factor)

    def _thin(self, progress: float, interval: float) -> None:
        """Remove weights of the networks whose turn it is; ``interval`` is the progress since last time."""
        assert self.mask is not None
        for recipe, rows, _ in self.groups:
            thinning = recipe.thinning
            if thinning is None or progress < thinning.start:
                continue
            if progress >= thinning.release and thinning.release < 1:
                self.mask[rows] = 1.0
                continue
            if progress > thinning.stop:
                continue
            learnt = self.smoothed[rows] <= thinning.tolerance * self.chance
            self.clock[rows] += learnt * (interval / (thinning.stop - thinning.start))
            share = thinning.share(self.clock[rows])
            scores = weight_scores(self.ensemble.pathways()[rows], thinning.by, horizon=self.task.length)
            self.mask[rows] = keep_mask(scores, share).mT.to(self.mask.dtype)

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


class _DataStream:
    """Training data of an ensemble: each seed has its own stream, shared by all networks of that seed."""

    def __init__(
        self, task: Task, seeds: Sequence[int], batch: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        distinct = list(dict.fromkeys(seeds))
        self.task, self.size, self.dtype = task, batch, dtype
        self.sources = [torch.Generator(device).manual_seed(DATA_STREAM + seed) for seed in distinct]
        place = {seed: n for n, seed in enumerate(distinct)}
        self.index = torch.tensor([place[seed] for seed in seeds], device=device)
        self.shared = len(distinct) == len(seeds)
        self.inputs = self.targets = torch.empty(0)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return inputs (L, E, I, B) and targets (E, O, B) of a step; steps come in order."""
        place = step % CHUNK
        if place == 0:
            drawn = [self.task.sample(CHUNK * self.size, generator=g, dtype=self.dtype) for g in self.sources]
            inputs = torch.stack([b.inputs for b in drawn]).unflatten(1, (CHUNK, self.size))
            targets = torch.stack([b.targets for b in drawn]).unflatten(1, (CHUNK, self.size))
            self.inputs = inputs.permute(1, 3, 0, 4, 2).contiguous()  # (S, C, B, L, I) -> (C, L, S, I, B)
            self.targets = targets.permute(1, 0, 3, 2).contiguous()  # (S, C, B, O) -> (C, S, O, B)
        inputs, targets = self.inputs[place], self.targets[place]
        if self.shared:
            return inputs, targets
        return inputs.index_select(1, self.index), targets.index_select(0, self.index)


def _recipe_groups(networks: list[Network], length: int) -> list[tuple[Recipe, slice, ScheduledPenalty]]:
    groups: list[tuple[Recipe, slice, ScheduledPenalty]] = []
    for n, network in enumerate(networks):
        if groups and groups[-1][0] == network.recipe:
            recipe, rows, penalty = groups[-1]
            groups[-1] = (recipe, slice(rows.start, n + 1), penalty)
        else:
            groups.append((network.recipe, slice(n, n + 1), network.recipe.penalty(length)))
    return groups


def _metrics(task: Task, networks: Sequence[Network], ensemble: Ensemble, diverged: Tensor) -> pd.DataFrame:
    import pandas as pd

    error, accuracy = evaluate(task, ensemble)
    lost = diverged >= 0
    frame = pd.DataFrame(
        {
            "penalty": [n.recipe.name for n in networks],
            "strength": [n.strength for n in networks],
            "seed": [n.seed for n in networks],
            "test_mse": error.masked_fill(lost, math.nan).double().cpu().numpy(),
            "accuracy": accuracy.masked_fill(lost, math.nan).double().cpu().numpy(),
            "diverged_at": diverged.cpu().numpy(),
        }
    )
    return frame
