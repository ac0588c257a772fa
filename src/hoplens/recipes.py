"""Ways to train: penalty, schedule, initialisation and thinning under one name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from hoplens.errors import check_choice
from hoplens.models import INITS
from hoplens.penalties import PathwayPenalty, Penalty, WeightPenalty
from hoplens.schedules import Schedule, ScheduledPenalty, constant
from hoplens.thinning import Thinning

SAMPLE_SEED = 20260503  # of the nodes that a sampled penalty follows


@dataclass(frozen=True)
class PathwaySpec:
    """A `PathwayPenalty` whose horizon is the length of the task it is used on.

    Parameters
    ----------
    across : {"hops", "sum"}, default "hops"
    damping : float, default 0.9
    norm : {"l1", "frobenius"}, default "l1"
    every : int, default 1
    sample : int, optional
        See `PathwayPenalty`. Nodes are drawn from a generator seeded with the constant `SAMPLE_SEED`, anew
        for each training: every network sees the same draws, whatever its seed and whatever it is trained
        beside.
    """

    across: Literal["hops", "sum"] = "hops"
    damping: float = 0.9
    norm: Literal["l1", "frobenius"] = "l1"
    every: int = 1
    sample: int | None = None

    def __call__(self, length: int) -> Penalty:
        """Return the penalty for sequences of ``length`` time steps."""
        source = None if self.sample is None else torch.Generator().manual_seed(SAMPLE_SEED)
        return PathwayPenalty(
            length,
            self.damping,
            across=self.across,
            norm=self.norm,
            every=self.every,
            sample=self.sample,
            generator=source,
        )


@dataclass(frozen=True)
class WeightSpec:
    """A `WeightPenalty`; the same for every task.

    Parameters
    ----------
    norm : {"l1", "l2"}, default "l1"
    blocks : tuple of {"in", "rec", "out"}, default all three
        See `WeightPenalty`.
    """

    norm: Literal["l1", "l2"] = "l1"
    blocks: tuple[str, ...] = ("in", "rec", "out")

    def __call__(self, length: int) -> Penalty:  # noqa: ARG002 - one signature for all
        """Return the penalty; ``length`` does not matter."""
        return WeightPenalty(self.norm, self.blocks)


@dataclass(frozen=True)
class Term:
    """One penalty of a recipe.

    Parameters
    ----------
    penalty : callable
        Takes a task's length and returns a `Penalty`.
    weight : float, default 1
        Factor relative to the recipe's strength.
    schedule : Schedule, default constant
        Factor over training.
    """

    penalty: Callable[[int], Penalty]
    weight: float = 1.0
    schedule: Schedule = field(default_factory=constant)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, but for the strength and the seed.

    Parameters
    ----------
    name : str
        Name in tables.
    terms : tuple of Term
        What is penalised; the strength multiplies all.
    init : {"gaussian", "orthogonal", "delay"}
        Initial weights, see `hoplens.models.create_ensemble`.
    thinning : Thinning, optional
        Gradual removal of recurrent weights.
    """

    name: str
    terms: tuple[Term, ...] = ()
    init: str = "orthogonal"
    thinning: Thinning | None = None

    def __post_init__(self) -> None:
        check_choice("init", self.init, INITS)

    def penalty(self, length: int) -> ScheduledPenalty:
        """Return the scheduled penalty for tasks of this length."""
        return ScheduledPenalty([(term.weight, term.penalty(length), term.schedule) for term in self.terms])

    def without_thinning(self, *, name: str) -> Recipe:
        """Return this recipe under another name with no thinning (for ablations)."""
        return replace(self, name=name, thinning=None)

    def but(self, *, name: str, init: str | None = None, thinning: Thinning | None = None) -> Recipe:
        """Return this recipe under another name with another start or thinning (for ablations)."""
        return replace(
            self, name=name, init=self.init if init is None else init, thinning=thinning or self.thinning
        )


def none() -> Recipe:
    """Return training without a penalty."""
    return Recipe("none")


def l1() -> Recipe:
    """Return the baseline ``strength * sum |W|`` over all weights."""
    return Recipe("L1", (Term(WeightSpec("l1")),))


def l2() -> Recipe:
    """Return the baseline ``strength * sum W^2`` over all weights."""
    return Recipe("L2", (Term(WeightSpec("l2")),))


def paper() -> Recipe:
    """Return the R-RNN of arXiv:2605.03598: ``strength * sum |sum_k a^k H_k|`` with a = 0.9."""
    return Recipe("R-RNN", (Term(PathwaySpec("sum")),))


def recommended() -> Recipe:
    """Return the recipe that hoplens recommends: "learn, align, thin, release".

    * Learn: half of the hidden units start as delay lines, so that no lag is out of reach and no gradient
      fades; the other half starts as a rotation.
    * Align: ``strength * sum_k sum |a^k H_k|`` with a = 0.9 from the first step to the last. Every hop
      counts by itself, so that hops of opposite sign cannot hide behind each other.
    * Thin: from 20 % to 75 % of training 90 % of the recurrent weights are removed, smallest first, while
      the error stays below a fifth of the target variance; a network that has not learnt yet is spared.
    * Release: from 80 % on removed weights may come back. They stay small, so that the network can be
      pruned again at little cost, and they win back what thinning had cost.

    The only thing to choose is the strength; 1e-3 does well on all tasks of the study whose targets are
    linear in the inputs, 3e-4 on the others.
    """
    thinning = Thinning(0.9, start=0.2, stop=0.75, release=0.8, tolerance=0.2)
    return Recipe("recommended", (Term(PathwaySpec("hops")),), init="delay", thinning=thinning)


BUILT_IN: dict[str, Callable[[], Recipe]] = {
    "none": none,
    "l1": l1,
    "l2": l2,
    "paper": paper,
    "recommended": recommended,
}
