"""Ways to train: penalty, schedule, initialisation and pruning under one name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hoplens.errors import ParameterError, check_choice, check_number
from hoplens.models.initial import INITS
from hoplens.penalties.flow import FlowSpec
from hoplens.penalties.gradual_pruning import GradualPruning
from hoplens.penalties.pathway import PathwayPenalty, Penalty, WeightPenalty
from hoplens.penalties.schedules import Schedule, ScheduledPenalty, constant
from hoplens.seeds import generator

USES = ("penalty", "weight decay", "dropout")


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
        See `PathwayPenalty`. Nodes are drawn from one stream of random numbers, begun anew for each
        training: every network sees the same draws, whatever its seed and whatever it is trained
        beside.
    """

    across: Literal["hops", "sum"] = "hops"
    damping: float = 0.9
    norm: Literal["l1", "frobenius"] = "l1"
    every: int = 1
    sample: int | None = None

    def __call__(
        self, horizon: int, *, readouts: Literal["last", "every"] = "last", length: int | None = None
    ) -> Penalty:
        """Return the penalty for a task.

        Parameters
        ----------
        horizon : int
            Time steps covered.
        readouts : {"last", "every"}, default "last"
            Where the loss reads out; see `PathwayPenalty`.
        length : int, optional
            Steps of a sequence with ``readouts="every"``; default ``horizon``.
        """
        source = None if self.sample is None else generator("sampled nodes", 0)
        return PathwayPenalty(
            horizon,
            self.damping,
            across=self.across,
            norm=self.norm,
            every=self.every,
            sample=self.sample,
            readouts=readouts,
            length=length,
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

    def __call__(
        self,
        horizon: int,  # noqa: ARG002 - one signature for all specifications
        *,
        readouts: Literal["last", "every"] = "last",  # noqa: ARG002
        length: int | None = None,  # noqa: ARG002
    ) -> Penalty:
        """Return the penalty; the task does not matter.

        Parameters
        ----------
        horizon : int
        readouts : {"last", "every"}, default "last"
        length : int, optional
        """
        return WeightPenalty(self.norm, self.blocks)


@dataclass(frozen=True)
class Term:
    """One penalty of a recipe.

    Parameters
    ----------
    penalty : callable
        Takes a task's length and returns a `Penalty`. Where the loss reads out after every step it is called
        as ``penalty(horizon, readouts="every", length=L)``.
    weight : float, default 1
        Factor relative to the recipe's strength.
    schedule : Schedule, default constant
        Factor over training.
    """

    penalty: Callable[..., Penalty]
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
        Initial weights, see `hoplens.models.ensemble.create_ensemble`.
    pruning : GradualPruning, optional
        Gradual removal of recurrent weights.
    uses : {"penalty", "weight decay", "dropout"}, default "penalty"
        What the strength is: the factor of the terms; a decoupled weight decay (a step with learning rate r
        multiplies all weights but biases by 1 - r strength); or a dropout rate below 1 on inputs and read-out
        (`hoplens.train` only). The latter two take no terms.
    """

    name: str
    terms: tuple[Term, ...] = ()
    init: str = "orthogonal"
    pruning: GradualPruning | None = None
    uses: str = "penalty"

    def __post_init__(self) -> None:
        check_choice("init", self.init, INITS)
        check_choice("use of the strength", self.uses, USES)
        if self.uses != "penalty" and self.terms:
            raise ParameterError(f"a recipe that uses its strength as {self.uses} takes no terms")

    @property
    def has_strength(self) -> bool:
        """Whether the strength matters."""
        return bool(self.terms) or self.uses != "penalty"

    def penalty(
        self, horizon: int, *, readouts: Literal["last", "every"] = "last", length: int | None = None
    ) -> ScheduledPenalty:
        """Return the scheduled penalty for a task.

        Parameters
        ----------
        horizon : int
            Time steps covered.
        readouts : {"last", "every"}, default "last"
            Where the loss reads out.
        length : int, optional
            Steps of a sequence with ``readouts="every"``; default ``horizon``.
        """
        options: dict[str, Any] = {} if readouts == "last" else {"readouts": readouts, "length": length}
        terms = [(term.weight, term.penalty(horizon, **options), term.schedule) for term in self.terms]
        return ScheduledPenalty(terms)

    def without_pruning(self, *, name: str) -> Recipe:
        """Return this recipe under another name with no pruning (for ablations)."""
        return replace(self, name=name, pruning=None)

    def always_pruned(self, *, name: str, like: Recipe) -> Recipe:
        """Return this recipe with another's pruning, at every strength (for ablations).

        Parameters
        ----------
        name : str
            Name of the new recipe.
        like : Recipe
            Whose pruning to take.
        """
        pruning = None if like.pruning is None else replace(like.pruning, least_strength=0.0)
        return replace(self, name=name, pruning=pruning)

    def with_start(self, *, name: str, init: str | None = None) -> Recipe:
        """Return this recipe under another name with another start (for ablations)."""
        return replace(self, name=name, init=self.init if init is None else init)


def none() -> Recipe:
    """Return training without a penalty."""
    return Recipe("none")


def l1() -> Recipe:
    """Return the baseline ``strength * sum |W|`` over all weights."""
    return Recipe("L1", (Term(WeightSpec("l1")),))


def l2() -> Recipe:
    """Return the baseline ``strength * sum W^2`` over all weights."""
    return Recipe("L2", (Term(WeightSpec("l2")),))


def weight_decay() -> Recipe:
    """Return decoupled weight decay (Loshchilov and Hutter 2019): the strength is its coefficient."""
    return Recipe("weight decay", uses="weight decay")


def dropout() -> Recipe:
    """Return dropout on inputs and read-out, one mask a sequence (Gal and Ghahramani 2016).

    The strength is the rate. For `hoplens.train` only.
    """
    return Recipe("dropout", uses="dropout")


def paper() -> Recipe:
    """Return the R-RNN of arXiv:2605.03598: ``strength * sum |sum_k a^k H_k|`` with a = 0.9."""
    return Recipe("paper", (Term(PathwaySpec("sum")),))


def flow() -> Recipe:
    """Return ``strength * sum_k sum |a^k H_k|`` with the hop maps H_k along the data, slopes held, a = 1.

    See `hoplens.FlowPenalty`.
    """
    return Recipe("flow", (Term(FlowSpec()),))


def hops() -> Recipe:
    """Return delay lines, and ``strength * sum_k sum |a^k H_k|`` of the weights' own hop maps, a = 0.9."""
    return Recipe("hops", (Term(PathwaySpec("hops")),), init="delay")


def recommended(sparse: float | None = None) -> Recipe:
    """Return the recipe that hoplens recommends: delay lines to start from, and what flows penalised.

    * Half of the hidden units start as delay lines, so that no lag is out of reach and no gradient fades;
      the other half starts as a rotation.
    * ``strength * sum_k sum |a^k H_k|`` with the hop maps along the data and a = 1: `hoplens.FlowPenalty`,
      slopes held. Every hop counts by itself, so that hops of opposite sign cannot hide behind each other.
    * With ``sparse`` this share of the recurrent weights is removed from 20 % to 75 % of training, smallest
      first, while the loss is below nine tenths of what a constant best guess has; a network that has not
      learnt yet is spared. From 80 % on they may come back: they stay small, so that the network can be
      pruned again at little cost, and win back what pruning had cost.

    Nothing is left to choose with ``hl.train(..., strengths="auto")``; else 1e-3 does well where a sequence
    is read out once, 3e-5 where every step is.

    Parameters
    ----------
    sparse : float, optional
        Share of recurrent weights to remove, in (0, 1), e.g. 0.9; default none.
    """
    term = Term(FlowSpec())
    if sparse is None:
        return Recipe("recommended", (term,), init="delay")
    share = check_number("sparse", sparse, above=0.0, below=1.0)
    pruning = GradualPruning(share, start=0.2, stop=0.75, release=0.8, tolerance=0.9)
    return Recipe("recommended, sparse", (term,), init="delay", pruning=pruning)


WEIGHTS = (1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # strengths tried where none are given
FLOWS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # of penalties along data
OTHERS = {"weight decay": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0), "dropout": (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)}


def default_strengths(recipe: Recipe) -> tuple[float, ...]:
    """Return the strengths of a recipe that ``strengths="auto"`` tries; (0,) where it has none.

    Parameters
    ----------
    recipe : Recipe
    """
    if not recipe.has_strength:
        return (0.0,)
    along_data = any(isinstance(term.penalty, FlowSpec) for term in recipe.terms)
    return OTHERS.get(recipe.uses, FLOWS if along_data else WEIGHTS)


BUILT_IN: dict[str, Callable[[], Recipe]] = {
    "none": none,
    "l1": l1,
    "l2": l2,
    "weight_decay": weight_decay,
    "dropout": dropout,
    "paper": paper,
    "flow": flow,
    "hops": hops,
    "recommended": recommended,
}


__all__ = [
    "PathwaySpec",
    "Recipe",
    "Term",
    "WeightSpec",
    "dropout",
    "flow",
    "hops",
    "l1",
    "l2",
    "none",
    "paper",
    "recommended",
    "weight_decay",
]
