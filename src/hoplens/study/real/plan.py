"""What the study on real sequences trains: data sets, cells, methods, strengths, seeds, and their shards."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import hoplens.data as data_sets
from hoplens import recipes
from hoplens.data import SequenceData
from hoplens.recipes import Recipe
from hoplens.sequences import SequenceSettings
from hoplens.settings import Network
from hoplens.study.plan import Method, content_hash

FORMAT = 1  # of what is measured; a change needs a new number
SHARD_SIZE = 48  # networks trained as one batch
LEAK = 0.5  # of the leaky cell
VALIDATION, REPORT, WIRING = "validation", "report", "wiring"
ARMS = ("all to all", "worm", "rewired", "random", "worm start", "rewired start")


@dataclass(frozen=True)
class RealSet:
    """A data set and the networks that learn it.

    Attributes
    ----------
    name : str
        In tables.
    cell : {"tanh", "leaky", "gru", "lstm"}
    loader : str
        Function of `hoplens.data`.
    options : tuple of (str, value)
        Its options.
    hidden, steps, batch : int
        See `SequenceSettings`.
    """

    name: str
    cell: str
    loader: str
    options: tuple[tuple[str, object], ...] = ()
    hidden: int = 48
    steps: int = 800
    batch: int = 32

    def load(self) -> SequenceData:
        """Return the data, cut the same way for all networks; read once a process."""
        return _load(self.loader, self.options)

    @property
    def settings(self) -> SequenceSettings:
        """What all networks of the set are trained with."""
        return SequenceSettings(
            hidden=self.hidden, steps=self.steps, batch=self.batch, cell=self.cell, leak=LEAK
        )


@functools.cache
def _load(loader: str, options: tuple[tuple[str, object], ...]) -> SequenceData:
    found: SequenceData = getattr(data_sets, loader)(**dict(options))
    return found


@dataclass(frozen=True)
class RealShard:
    """Networks that are trained as one batch and stored as one file.

    Attributes
    ----------
    stage : {"validation", "report", "wiring"}
    data : RealSet
    networks : tuple of Network
    arms : tuple of str
        Of the wiring stage, one a network: see `hoplens.study.real.wiring`.
    followed : tuple of int
        Seeds whose networks are also measured along trajectories.
    """

    stage: str
    data: RealSet
    networks: tuple[Network, ...]
    arms: tuple[str, ...] = ()
    followed: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """What it works on, for a progress bar."""
        return f"{self.data.name} ({self.stage})"

    @property
    def key(self) -> str:
        """Content hash: the same work has the same key, and any change of it another."""
        return content_hash(FORMAT, self.stage, self.data, self.arms, self.followed, *self.networks)


@dataclass(frozen=True)
class RealPlan:
    """Everything that fixes the study's numbers.

    Attributes
    ----------
    name : str
        "real quick" or "real".
    sets : tuple of RealSet
    methods : tuple of (Recipe, strengths)
    validation_seeds, report_seeds : tuple of int
        Seeds that choose strengths, on the validation split, and the others, reported on the test split.
    wired : tuple of RealSet
        Sets that networks with the worm's wiring learn.
    wiring_seeds : tuple of int
    followed : int
        So many of the report seeds are also measured along trajectories.
    """

    name: str
    sets: tuple[RealSet, ...]
    methods: tuple[Method, ...]
    validation_seeds: tuple[int, ...]
    report_seeds: tuple[int, ...]
    wired: tuple[RealSet, ...] = ()
    wiring_seeds: tuple[int, ...] = ()
    followed: int = 4

    @property
    def key(self) -> str:
        """Content hash of the plan; what it reports follows from its first stage."""
        return content_hash(
            *(shard.key for shard in self.first_shards()), self.report_seeds, self.followed, FORMAT
        )

    def recipe(self, name: str) -> Recipe:
        """Return a method by its name."""
        return next(recipe for recipe, _ in self.methods if recipe.name == name)

    def first_shards(self) -> list[RealShard]:
        """Return the work that depends on nothing: validation, and wiring."""
        shards = []
        for data in self.sets:
            networks = [
                Network(recipe, strength, seed)
                for recipe, strengths in self.methods
                for strength in strengths
                for seed in self.validation_seeds
            ]
            shards += _cut(VALIDATION, data, networks)
        for data in self.wired:
            pairs = [(arm, seed) for arm in ARMS for seed in self.wiring_seeds]
            networks = [Network(recipes.none(), 0.0, seed) for _, seed in pairs]
            shards += _cut(WIRING, data, networks, arms=tuple(arm for arm, _ in pairs))
        return shards

    def report_shards(self, chosen: Mapping[str, Iterable[tuple[str, float]]]) -> list[RealShard]:
        """Return the work that reports the chosen (method, strength) pairs of every set.

        Parameters
        ----------
        chosen : mapping of set name to pairs
        """
        shards = []
        for data in self.sets:
            networks = [
                Network(self.recipe(method), strength, seed)
                for method, strength in chosen[data.name]
                for seed in self.report_seeds
            ]
            shards += _cut(REPORT, data, networks, followed=self.report_seeds[: self.followed])
        return shards


def _cut(
    stage: str,
    data: RealSet,
    networks: list[Network],
    *,
    arms: tuple[str, ...] = (),
    followed: tuple[int, ...] = (),
) -> list[RealShard]:
    pieces = -(-len(networks) // SHARD_SIZE)
    size = -(-len(networks) // pieces)
    return [
        RealShard(stage, data, tuple(networks[n : n + size]), arms[n : n + size], followed)
        for n in range(0, len(networks), size)
    ]


def thinned(recipe: Recipe) -> Recipe:
    """Return a baseline with the recommended recipe's thinning, as an ablation."""
    return recipe.always_thinned(name=f"{recipe.name} + thinning", like=recipes.recommended())


def all_methods() -> tuple[Method, ...]:
    """Return the methods of the full study with the strengths that each may choose from."""
    ours = recipes.recommended()
    weights = (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2)
    pathways = (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2)
    return (
        (recipes.none(), (0.0,)),
        (recipes.l1(), weights),
        (recipes.l2(), (1e-6, 1e-5, 1e-4, 1e-3)),
        (recipes.weight_decay(), (0.01, 0.03, 0.1, 0.3, 1.0)),
        (recipes.dropout(), (0.05, 0.15, 0.3)),
        (recipes.paper(), pathways),
        (ours, pathways),
        (thinned(recipes.none()), (0.0,)),
        (thinned(recipes.l1()), (1e-4, 1e-3, 3e-3)),
        (ours.without_thinning(name="recommended - thinning"), (1e-3, 3e-3, 1e-2)),
    )


POOLED = (("fractions", (0.35, 0.25, 0.4)),)  # official training parts are small: pooled and cut anew


def all_sets() -> tuple[RealSet, ...]:
    """Return the eight data sets with their cells; chorales would take as long as four others."""
    return (
        RealSet("vowels", "gru", "vowels", POOLED, steps=600),
        RealSet("motions", "tanh", "motions", (("every", 4), *POOLED), steps=400),
        RealSet("power", "tanh", "power", (("fractions", (0.1, 0.2, 0.7)),), steps=600),
        RealSet("digits-rows", "tanh", "digits", (("rows", True),)),
        RealSet("digits", "lstm", "digits", hidden=32),
        RealSet("text", "gru", "text"),
        RealSet("cartpole", "tanh", "cartpole", hidden=64),
        RealSet("pendulum", "leaky", "pendulum", hidden=64),
    )


def quick_real_plan() -> RealPlan:
    """Return the study of a few minutes: four sets, 2 + 6 seeds."""
    ours, few = recipes.recommended(), (1e-5, 1e-4, 1e-3)
    methods = (
        (recipes.none(), (0.0,)),
        (recipes.l1(), (1e-4, 1e-3, 3e-3)),
        (recipes.dropout(), (0.15,)),
        (recipes.paper(), few),
        (ours, few),
        (thinned(recipes.none()), (0.0,)),
    )
    sizes = {"vowels": 300, "motions": 300, "power": 300, "digits-rows": 400}
    chosen = tuple(
        dataclasses.replace(data, hidden=32, steps=sizes[data.name])
        for data in all_sets()
        if data.name in sizes
    )
    wired = (RealSet("digits-rows", "tanh", "digits", (("rows", True),), hidden=280, steps=100),)
    return RealPlan(
        "real quick", chosen, methods, tuple(range(2)), tuple(range(100, 106)), wired, tuple(range(3)), 2
    )


def full_real_plan() -> RealPlan:
    """Return the whole study: eight sets, 3 + 10 seeds, and the worm's wiring on two of them."""
    wired = (
        RealSet("digits-rows", "tanh", "digits", (("rows", True),), hidden=280, steps=300),
        RealSet("vowels", "tanh", "vowels", POOLED, hidden=280, steps=300),
    )
    return RealPlan(
        "real",
        all_sets(),
        all_methods(),
        tuple(range(3)),
        tuple(range(100, 110)),
        wired,
        tuple(range(12)),
        4,
    )


__all__ = [
    "ARMS",
    "REPORT",
    "VALIDATION",
    "WIRING",
    "RealPlan",
    "RealSet",
    "RealShard",
    "full_real_plan",
    "quick_real_plan",
]
