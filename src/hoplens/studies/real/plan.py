"""What the study on real sequences trains: data sets, cells, methods, strengths, seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

from hoplens.studies.real.setting import REPORT, VALIDATION, WIRING, RealSet, RealSetting
from hoplens.studies.sweeps.plan import Member, Plan
from hoplens.training import recipes
from hoplens.training.recipes import Recipe
from hoplens.training.settings import Network

ARMS = ("all to all", "worm", "rewired", "random", "worm start", "rewired start")

Method = tuple[Recipe, tuple[float, ...]]


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

    def recipe(self, name: str) -> Recipe:
        """Return a method by its name."""
        return next(recipe for recipe, _ in self.methods if recipe.name == name)

    def first_plan(self) -> Plan:
        """Return the work that depends on nothing: parts "validation" and "wiring", a method of each arm."""
        members = []
        for data in self.sets:
            setting = RealSetting(VALIDATION, data, data.settings)
            pairs = [(recipe, strength) for recipe, strengths in self.methods for strength in strengths]
            for (recipe, strength), seed in product(pairs, self.validation_seeds):
                network = Network(recipe, strength, seed)
                members.append(Member(VALIDATION, data.name, network, "validation", setting))
        for data, arm in product(self.wired, ARMS):
            setting = RealSetting(WIRING, data, data.settings, arm)
            recipe = dataclasses.replace(recipes.none(), name=arm)
            members += [
                Member(WIRING, data.name, Network(recipe, 0.0, seed), "report", setting)
                for seed in self.wiring_seeds
            ]
        return Plan(self.name, tuple(members))

    def report_plan(self, chosen: Mapping[str, Iterable[tuple[str, float]]]) -> Plan:
        """Return the work that reports the chosen (method, strength) pairs of every set.

        Parameters
        ----------
        chosen : mapping of set name to pairs
        """
        members = []
        for data in self.sets:
            setting = RealSetting(REPORT, data, data.settings, followed=self.report_seeds[: self.followed])
            for (method, strength), seed in product(chosen[data.name], self.report_seeds):
                network = Network(self.recipe(method), strength, seed)
                members.append(Member(REPORT, data.name, network, "report", setting))
        return Plan(f"{self.name}, report", tuple(members))


def pruned(recipe: Recipe) -> Recipe:
    """Return a baseline with the recommended recipe's pruning, as an ablation."""
    return recipe.always_pruned(name=f"{recipe.name} + pruning", like=recipes.recommended())


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
        (pruned(recipes.none()), (0.0,)),
        (pruned(recipes.l1()), (1e-4, 1e-3, 3e-3)),
        (ours.without_pruning(name="recommended - pruning"), (1e-3, 3e-3, 1e-2)),
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
        (pruned(recipes.none()), (0.0,)),
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


__all__ = ["ARMS", "RealPlan", "all_methods", "all_sets", "full_real_plan", "pruned", "quick_real_plan"]
