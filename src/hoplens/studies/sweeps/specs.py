"""The tables of a study file: tasks, penalties, methods, parts, seeds and training."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, model_validator

from hoplens.data import registry as data_sets
from hoplens.data import tasks
from hoplens.data.streams import TrainingTask
from hoplens.data.tasks.registry import TASKS
from hoplens.errors import HoplensError, ParameterError, check_choice, check_count, unknown_name
from hoplens.models.cells import CELLS
from hoplens.models.initial import INITS
from hoplens.penalties.gradual_pruning import GradualPruning
from hoplens.penalties.schedules import Schedule
from hoplens.studies.sweeps.limits import MOST_SEED, check_networks, check_task
from hoplens.studies.sweeps.plan import MAIN
from hoplens.studies.sweeps.plugins import frozen, own_penalty, own_recipe, own_task
from hoplens.studies.sweeps.settings import DataSource
from hoplens.studies.sweeps.strict import Strict, as_tuple, legal
from hoplens.training.recipes import Recipe, Term
from hoplens.training.settings import Settings
from hoplens.training.training import LEAK

ROLES = ("validation", "report")

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0, le=MOST_SEED)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


def _known_cell(value: str) -> str:
    legal(lambda: check_choice("cell", value, CELLS))
    return value


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _as_seeds(value: Any) -> Any:
    """Return the seeds of ``{ first = 0, count = 8 }``; a list stays."""
    if not isinstance(value, dict):
        return value
    if not {"count"} <= set(value) <= {"first", "count"}:
        raise ValueError(
            f"a range of seeds has count and, if you like, first, got {', '.join(value) or 'nothing'}"
        )
    try:
        first = check_count("first", value.get("first", 0), least=0)
        count = check_count("count", value["count"])
        check_networks(count)
        return tuple(range(first, first + count))
    except HoplensError as error:
        raise ValueError(str(error)) from None


Strengths = Annotated[tuple[NotNegative, ...], BeforeValidator(as_tuple), Field(min_length=1)]
SeedList = Annotated[
    tuple[Whole, ...], BeforeValidator(as_tuple), BeforeValidator(_as_seeds), Field(min_length=1)
]
Sizes = Annotated[
    tuple[Count, ...], BeforeValidator(as_tuple), BeforeValidator(_as_list), Field(min_length=1)
]


class TaskSpec(Strict):
    """One task: a built-in one (`hoplens.tasks.make`), a data set (`hoplens.data.load`), or a registered one.

    The latter two take their keywords as ``options``. ``training`` replaces settings of the study for it.
    """

    name: str
    signal: str = "every"
    modules: Count = 4
    module_size: Count = 4
    length: Count = 8
    outputs_per_module: Count = 1
    lag: Whole | None = None
    steps: Count | None = None
    noise: NotNegative = 1.0
    target_noise: NotNegative = 0.0
    form: str = "regression"
    seed: Whole = 0
    options: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    label: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> TaskSpec:
        legal(self.build)
        return self

    def build(self) -> TrainingTask | DataSource:
        """Return the task, or the data set by its name."""
        if self.name in tasks.names():
            if self.options is not None:
                raise ParameterError(
                    f"the task {self.name} is built in and takes its options as keys, not in options"
                )
            inputs, outputs = self.modules * self.module_size, self.modules * self.outputs_per_module
            check_task(self.length, inputs, outputs)
            return tasks.make(**self.model_dump(exclude={"options", "label", "training"}))
        known = [*TASKS.names(), *data_sets.names()]
        if self.name not in known:
            raise unknown_name("task or data set", self.name, known)
        alien = sorted(self.model_fields_set - {"name", "options", "label", "training"})
        if alien:
            raise ParameterError(
                f"the task {self.name!r} is not built in, so {alien[0]} goes into options = {{...}}"
            )
        if self.name in TASKS.names():
            return own_task(self.name, self.options)
        known = list(inspect.signature(data_sets.SETS[self.name].load).parameters)
        options = frozen(self.options or {})
        for option in options:
            if option not in known:
                raise unknown_name(f"option of the data set {self.name!r}:", option, known)
        more = tuple(sorted((name, v) for name, v in options.items() if name not in ("seed", "fractions")))
        source = DataSource(self.name, options.get("seed", 0), options.get("fractions"), more or None)
        try:
            hash(source)
        except TypeError:
            raise ParameterError(
                f"options of the data set {self.name!r} are numbers, texts and lists of them, got {options}"
            ) from None
        return source

    def title(self, task: TrainingTask | DataSource) -> str:
        """Return what tables call the task."""
        if self.label is not None or self.options is None:
            return self.label or getattr(task, "label", None) or self.name
        options = ", ".join(f"{name} {value}" for name, value in self.options.items())
        return f"{self.name} ({options})" if options else self.name


class PenaltySpec(Strict):
    """One penalty of a method: a built-in one, or a registered one with its ``options``; see `Term`."""

    penalty: str
    weight: NotNegative = 1.0
    schedule: Annotated[
        tuple[Annotated[tuple[Share, NotNegative], BeforeValidator(as_tuple)], ...],
        BeforeValidator(as_tuple),
        Field(min_length=1),
    ] = ((0.0, 1.0),)
    across: Literal["hops", "sum"] | None = None
    damping: Annotated[float, Field(gt=0, le=1)] | None = None
    norm: Literal["l1", "l2", "frobenius"] | None = None
    every: Count | None = None
    sample: Count | None = None
    blocks: Annotated[tuple[Literal["in", "rec", "out"], ...], BeforeValidator(as_tuple)] | None = None
    options: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _fits(self) -> PenaltySpec:
        legal(self.build)
        return self

    def build(self) -> Term:
        """Return the term of a recipe."""
        about = {"penalty", "weight", "schedule", "options"}
        given = self.model_dump(exclude_none=True, exclude=about)
        if self.options is not None:
            if given:
                raise ParameterError(f"give {next(iter(given))} and options in one place, in options")
            given = self.options
        return Term(own_penalty(self.penalty, given), self.weight, Schedule(self.schedule))


class PruningSpec(Strict):
    """Gradual removal of weights; see `hoplens.GradualPruning`."""

    amount: Annotated[float, Field(ge=0, lt=1)]
    start: Share = 0.5
    stop: Share = 0.8
    release: Share = 1.0
    tolerance: Positive | None = None
    by: Literal["magnitude", "pathway"] = "magnitude"
    least_strength: NotNegative = 0.0

    @model_validator(mode="after")
    def _fits(self) -> PruningSpec:
        legal(self.build)
        return self

    def build(self) -> GradualPruning:
        """Return the pruning."""
        given = self.model_dump(exclude={"tolerance"})
        return GradualPruning(tolerance=math.inf if self.tolerance is None else self.tolerance, **given)


class MethodSpec(Strict):
    """One method: a named recipe, changed where keys say so, or an own list of penalties."""

    name: str | None = None
    recipe: str | None = None
    options: dict[str, Any] | None = None
    penalties: Annotated[tuple[PenaltySpec, ...], BeforeValidator(as_tuple)] | None = None
    init: str | None = None
    pruning: PruningSpec | Literal[False] | None = Field(
        None,
        validation_alias=AliasChoices("pruning", "thinning"),  # the name in older stores
    )
    strengths: Strengths | None = None

    @model_validator(mode="after")
    def _fits(self) -> MethodSpec:
        legal(self.build)
        return self

    def build(self) -> Recipe:
        """Return the recipe."""
        if self.init is not None:
            check_choice("init", self.init, INITS)
        if (self.recipe is None) == (self.penalties is None):
            raise ParameterError("a method needs either recipe or penalties")
        if self.options is not None and self.recipe is None:
            raise ParameterError("options are those of a recipe; a method of own penalties takes none")
        if self.recipe is not None:
            base = own_recipe(self.recipe, self.options)
        else:
            if self.name is None:
                raise ParameterError("a method of own penalties needs a name")
            base = Recipe(self.name, tuple(spec.build() for spec in self.penalties or ()))
        pruning = base.pruning
        if self.pruning is not None:
            pruning = self.pruning.build() if self.pruning else None
        return replace(base, name=self.name or base.name, init=self.init or base.init, pruning=pruning)


class PartSpec(Strict):
    """One block: tasks crossed with methods."""

    name: Annotated[str, Field(min_length=1)] = MAIN
    tasks: Annotated[tuple[TaskSpec, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    methods: Annotated[tuple[MethodSpec, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    strengths: Strengths | None = None


class SeedSpec(Strict):
    """Seeds that choose each method's strength, and the others, which are reported."""

    validation: SeedList
    report: SeedList

    @model_validator(mode="after")
    def _apart(self) -> SeedSpec:
        both = sorted(set(self.validation) & set(self.report))
        if both:
            raise ValueError(f"validation and report seeds must be apart, but both hold {both[0]}")
        for role in ROLES:
            seeds = getattr(self, role)
            if len(set(seeds)) < len(seeds):
                raise ValueError(f"the {role} seeds hold one seed twice")
        return self


class TrainingSpec(Strict):
    """How all networks are trained; see `hoplens.training.settings.Settings`."""

    hidden: Sizes = (32,)
    steps: Count = 2000
    batch: Count = 64
    lr: Positive = 6e-3
    decay: Share = 0.7
    clip: Positive = 1.0
    cell: Annotated[str, AfterValidator(_known_cell)] = "tanh"
    leak: Annotated[float, Field(gt=0, le=1)] | None = None
    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _fits(self) -> TrainingSpec:
        import torch

        try:
            torch.device(self.device)
        except RuntimeError:
            raise ValueError(f"device must be cpu or cuda, got {self.device!r}") from None
        return self

    def build(self, hidden: int) -> Settings:
        """Return the settings of networks of one size."""
        given = self.model_dump(exclude={"hidden", "device", "dtype", "leak"})
        leak = self.leak if self.leak is not None else LEAK if self.cell == "leaky" else 1.0
        return Settings(hidden=hidden, leak=leak, **given)
