"""What the study trains: tasks, methods, strengths, seeds, and how they are cut into shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hoplens import recipes
from hoplens.recipes import Recipe
from hoplens.settings import Network, Settings
from hoplens.tasks import Task, make

FORMAT = 1  # of the stored shards; a change of what is measured needs a new number
SHARD_SIZE = 48  # networks trained as one batch: fits the second-level cache at the study's sizes
ABLATION = "ablation"
MAIN = "main"
REACH = "reach"

Method = tuple[Recipe, tuple[float, ...]]


@dataclass(frozen=True)
class Part:
    """One block of the study: tasks crossed with methods.

    Attributes
    ----------
    name : {"main", "ablation", "reach"}
        What the block is for.
    tasks : tuple of Task
    methods : tuple of (Recipe, strengths)
    """

    name: str
    tasks: tuple[Task, ...]
    methods: tuple[Method, ...]


@dataclass(frozen=True)
class StudyPlan:
    """Everything that fixes the study's numbers.

    Attributes
    ----------
    name : str
        "quick" or "full".
    parts : tuple of Part
    validation_seeds, report_seeds : tuple of int
        Seeds that choose each method's strength, and the others, which are reported.
    settings : Settings
        Of all training.
    """

    name: str
    parts: tuple[Part, ...]
    validation_seeds: tuple[int, ...]
    report_seeds: tuple[int, ...]
    settings: Settings

    def shards(self) -> list[Shard]:
        """Return the units of work, in the order in which they should run."""
        return [shard for part in self.parts for task in part.tasks for shard in self._cut(part, task)]

    def part(self, name: str) -> Part | None:
        """Return a block by name, or None if the plan has none such."""
        return next((part for part in self.parts if part.name == name), None)

    @property
    def key(self) -> str:
        """Content hash of the plan."""
        return content_hash(*(shard.key for shard in self.shards()))

    def _cut(self, part: Part, task: Task) -> Iterator[Shard]:
        seeds = (*self.validation_seeds, *self.report_seeds)
        networks = [
            Network(recipe, strength, seed)
            for recipe, strengths in part.methods
            for strength in (strengths if recipe.has_strength else (0.0,))
            for seed in seeds
        ]
        pieces = -(-len(networks) // SHARD_SIZE)
        size = -(-len(networks) // pieces)
        for start in range(0, len(networks), size):
            yield Shard(part.name, task, tuple(networks[start : start + size]), self.settings)


@dataclass(frozen=True)
class Shard:
    """Networks that are trained as one batch and stored as one file."""

    part: str
    task: Task
    networks: tuple[Network, ...]
    settings: Settings

    @property
    def label(self) -> str:
        """What it works on, for a progress bar."""
        return self.task.label

    @property
    def key(self) -> str:
        """Content hash: the same work has the same key, and any change of it another."""
        return content_hash(self.part, self.task, self.settings, *self.networks)

    @property
    def cost(self) -> float:
        """Relative training time, for a progress bar."""
        s, t = self.settings, self.task
        width = s.hidden * (s.hidden + t.n_inputs + 1)
        return float(len(self.networks) * s.steps * s.batch * t.length * width)


def content_hash(*parts: object) -> str:
    """Return a short hash of the parts' text form."""
    text = "\n".join([str(FORMAT), *(repr(part) for part in parts)])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def suite(length: int, lag: int) -> tuple[Task, ...]:
    """Return every task function under every signal pattern; sparse means one step at ``lag``."""
    patterns: list[dict[str, object]] = [
        {"signal": "every"},
        {"signal": "on-off"},
        {"signal": "sparse", "lag": lag},
    ]
    names = ("averaging", "subtraction", "addition", "multiplication")
    return tuple(make(name, length=length, **pattern) for name in names for pattern in patterns)  # type: ignore[arg-type]


def methods(strengths: Sequence[float], own: Sequence[float]) -> tuple[Method, ...]:
    """Return the five methods of the comparison with the strengths that each may choose from."""
    return (
        (recipes.none(), (0.0,)),
        (recipes.l1(), tuple(strengths)),
        (recipes.l2(), tuple(strengths)),
        (recipes.paper(), tuple(strengths)),
        (recipes.recommended(), tuple(own)),
    )


def ablation_arms(strengths: Sequence[float], own: Sequence[float]) -> tuple[Method, ...]:
    """Return the arms that show which part of the recommended recipe brings what.

    Each other method gets the recipe's start, then its start and thinning; the recipe loses each.
    """
    ours = recipes.recommended()
    start = ours.init
    arms: list[Method] = []
    for base in (recipes.none(), recipes.l1(), recipes.paper()):
        own_strengths = tuple(strengths) if base.terms else (0.0,)
        started = base.but(name=f"{base.name} + start", init=start)
        arms.append((started, own_strengths))
        both = started.always_thinned(name=f"{base.name} + start + thinning", like=ours)
        arms.append((both, own_strengths))
    arms.append((ours, tuple(own)))
    arms.append((ours.but(name="recommended - start", init="orthogonal"), tuple(own)))
    arms.append((ours.without_thinning(name="recommended - thinning"), tuple(own)))
    return tuple(arms)


def reach_tasks(length: int, lags: Iterable[int]) -> tuple[Task, ...]:
    """Return subtraction of two modules whose one signal step lies further and further back."""
    return tuple(make("subtraction", signal="sparse", modules=2, length=length, lag=lag) for lag in lags)


def quick_plan() -> StudyPlan:
    """Return the study of the demo: four tasks, 4 + 8 seeds."""
    tasks = (
        make("averaging", signal="on-off", length=10),
        make("subtraction", signal="sparse", length=10, lag=8),
        make("addition", signal="every", length=10),
        make("multiplication", signal="sparse", length=10, lag=8),
    )
    compared = methods((1e-4, 3e-4, 1e-3), (3e-4, 1e-3))
    settings = Settings(hidden=48, steps=1500)
    return StudyPlan(
        "quick", (Part(MAIN, tasks, compared),), tuple(range(4)), tuple(range(100, 108)), settings
    )


def full_plan() -> StudyPlan:
    """Return the whole study: twelve tasks, ablation and reach, 8 + 20 seeds."""
    tasks = suite(10, 8)
    strengths, own = (3e-5, 1e-4, 3e-4, 1e-3), (3e-4, 1e-3)
    shown = tuple(t for t in tasks if t.signal == "sparse" and t.name in ("subtraction", "multiplication"))
    short = (1e-4, 5e-4)
    without_l2 = tuple(m for m in methods(short, own) if m[0].name != recipes.l2().name)
    parts = (
        Part(MAIN, tasks, methods(strengths, own)),
        Part(ABLATION, shown, ablation_arms(short, own)),
        Part(REACH, reach_tasks(30, (8, 12, 16, 28)), without_l2),
    )
    settings = Settings(hidden=48, steps=2000)
    return StudyPlan("full", parts, tuple(range(8)), tuple(range(100, 120)), settings)
