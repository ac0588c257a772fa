"""Studies as files: what `study.toml` may hold."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from hoplens import tasks
from hoplens.errors import FileError, HoplensError, ParameterError, check_choice, check_count
from hoplens.extensions.kinds import TASKS
from hoplens.models import INITS
from hoplens.recipes import PathwaySpec, Recipe, Term, WeightSpec
from hoplens.schedules import Schedule
from hoplens.settings import Network, Settings
from hoplens.streams import TrainingTask
from hoplens.sweeps.complaints import complain
from hoplens.sweeps.plan import MAIN, Member, Plan
from hoplens.sweeps.plugins import OwnMeasure, PluginSpec, own_recipe, own_task, read_plugins
from hoplens.sweeps.settings import MeasuredSetting, TaskSetting
from hoplens.sweeps.space import SearchSpec, Value
from hoplens.sweeps.strict import Strict, as_tuple, legal
from hoplens.thinning import Thinning

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROLES = ("validation", "report")

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


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
        return tuple(range(first, first + check_count("count", value["count"])))
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
    """One task: a built-in one, see `hoplens.tasks.make`, or a registered one with its ``options``."""

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
    label: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> TaskSpec:
        legal(self.build)
        return self

    def build(self) -> TrainingTask:
        """Return the task."""
        if self.name in tasks.names():
            if self.options is not None:
                raise ParameterError(
                    f"the task {self.name} is built in and takes its options as keys, not in options"
                )
            return tasks.make(**self.model_dump(exclude={"options", "label"}))
        check_choice("task", self.name, TASKS.names())
        alien = sorted(self.model_fields_set - {"name", "options", "label"})
        if alien:
            raise ParameterError(
                f"the task {self.name!r} is not built in, so {alien[0]} goes into options = {{...}}"
            )
        return own_task(self.name, self.options)

    def title(self, task: TrainingTask) -> str:
        """Return what tables call the task."""
        if self.label is not None or self.options is None:
            return self.label or getattr(task, "label", None) or self.name
        options = ", ".join(f"{name} {value}" for name, value in self.options.items())
        return f"{self.name} ({options})" if options else self.name


class PenaltySpec(Strict):
    """One penalty of a method; see `hoplens.recipes.PathwaySpec`, `WeightSpec` and `Term`."""

    penalty: Literal["pathway", "weight"]
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

    @model_validator(mode="after")
    def _fits(self) -> PenaltySpec:
        legal(self.build)
        return self

    def build(self) -> Term:
        """Return the term of a recipe."""
        given = self.model_dump(exclude_none=True, exclude={"penalty", "weight", "schedule"})
        kind: Any = PathwaySpec if self.penalty == "pathway" else WeightSpec
        alien = sorted(set(given) - set(kind.__dataclass_fields__))
        if alien:
            raise ParameterError(
                f"a {self.penalty} penalty has no {alien[0]}; it takes {', '.join(kind.__dataclass_fields__)}"
            )
        spec = kind(**given)
        spec(2)  # the penalty itself knows what goes together
        return Term(spec, self.weight, Schedule(self.schedule))


class ThinningSpec(Strict):
    """Gradual removal of weights; see `hoplens.Thinning`."""

    amount: Annotated[float, Field(ge=0, lt=1)]
    start: Share = 0.5
    stop: Share = 0.8
    release: Share = 1.0
    tolerance: Positive | None = None
    by: Literal["magnitude", "pathway"] = "magnitude"
    least_strength: NotNegative = 0.0

    @model_validator(mode="after")
    def _fits(self) -> ThinningSpec:
        legal(self.build)
        return self

    def build(self) -> Thinning:
        """Return the thinning."""
        given = self.model_dump(exclude={"tolerance"})
        return Thinning(tolerance=math.inf if self.tolerance is None else self.tolerance, **given)


class MethodSpec(Strict):
    """One method: a named recipe, changed where keys say so, or an own list of penalties."""

    name: str | None = None
    recipe: str | None = None
    options: dict[str, Any] | None = None
    penalties: Annotated[tuple[PenaltySpec, ...], BeforeValidator(as_tuple)] | None = None
    init: str | None = None
    thinning: ThinningSpec | Literal[False] | None = None
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
        thinning = base.thinning
        if self.thinning is not None:
            thinning = self.thinning.build() if self.thinning else None
        if base.uses == "dropout":
            raise ParameterError("dropout is for sequences of real data, not for these tasks")
        return replace(base, name=self.name or base.name, init=self.init or base.init, thinning=thinning)


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
    """How all networks are trained; see `hoplens.settings.Settings`."""

    hidden: Sizes = (32,)
    steps: Count = 2000
    batch: Count = 64
    lr: Positive = 6e-3
    decay: Share = 0.7
    clip: Positive = 1.0
    activation: Literal["tanh", "relu", "linear"] = "tanh"
    leak: Annotated[float, Field(gt=0, le=1)] = 1.0
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
        given = self.model_dump(exclude={"hidden", "device", "dtype"})
        return Settings(hidden=hidden, **given)


class Study(Strict):
    """A study: tasks crossed with methods, strengths, sizes and seeds.

    Parameters
    ----------
    name : str
    seeds : SeedSpec
        ``validation`` and ``report``, each a list or ``{first, count}``.
    tasks, methods : list
        The block "main"; may be left out if there are ``parts``.
    parts : list
        Further blocks, each with ``name``, ``tasks``, ``methods`` and, if you like, ``strengths``.
    strengths : list of float, optional
        Of every penalised method that does not say its own.
    training : TrainingSpec, optional
        ``hidden`` may be a list of sizes.
    weights : "none", "all" or list of seeds
        Whose trained weights are kept.
    plugins : list
        Python files that are run first; what they register may be named, see `hoplens.extensions`.
    measures : list of str
        Registered measures that become columns of the table.
    search : SearchSpec, optional
        What `hoplens.sweeps.search` chooses from.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")]
    seeds: SeedSpec
    plugins: Annotated[tuple[PluginSpec, ...], BeforeValidator(as_tuple)] = ()  # before all that names theirs
    measures: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    tasks: Annotated[tuple[TaskSpec, ...], BeforeValidator(as_tuple)] = ()
    methods: Annotated[tuple[MethodSpec, ...], BeforeValidator(as_tuple)] = ()
    parts: Annotated[tuple[PartSpec, ...], BeforeValidator(as_tuple)] = ()
    strengths: Strengths | None = None
    training: TrainingSpec = TrainingSpec()
    weights: Literal["none", "all"] | Annotated[tuple[Whole, ...], BeforeValidator(as_tuple)] = "none"
    search: SearchSpec | None = None

    @model_validator(mode="after")
    def _whole(self) -> Study:
        if bool(self.tasks) != bool(self.methods):
            raise ValueError("tasks and methods go together; one of them is missing")
        twice = [name for name in self.measures if self.measures.count(name) > 1]
        if twice:
            raise ValueError(f"the measures name {twice[0]} twice")
        for name in self.measures:
            legal(lambda name=name: OwnMeasure.of(name))
        names = [part.name for part in self.blocks]
        if not names:
            raise ValueError("a study needs [[tasks]] and [[methods]], or [[parts]]")
        if len(set(names)) < len(names):
            raise ValueError(f"parts need different names, got {', '.join(names)}")
        for block in self.blocks:
            for method in block.methods:
                if self.search is None or self.search.strength is None:
                    legal(lambda block=block, method=method: self.strengths_of(block, method))
        if self.search is None:
            legal(self.plan)
            return self
        for name, span in self.search.training():
            for value in span.ends():
                legal(lambda name=name, value=value: self.trained_with({name: value}))
        return self

    def trained_with(self, values: Mapping[str, Value]) -> TrainingSpec:
        """Return the training with some of its settings replaced.

        Raises
        ------
        ParameterError
            If one is not legal.
        """
        try:
            return TrainingSpec.model_validate({**self.training.model_dump(), **values})
        except ValidationError as error:
            raise ParameterError(complain(error, TrainingSpec, "", "search")) from None

    @property
    def blocks(self) -> tuple[PartSpec, ...]:
        """All blocks, "main" first."""
        first = (PartSpec(tasks=self.tasks, methods=self.methods),) if self.tasks else ()
        return (*first, *self.parts)

    def plan(self) -> Plan:
        """Return everything that the study trains, network by network."""
        return self._planned

    @cached_property
    def _planned(self) -> Plan:
        sources = tuple(plugin.source for plugin in self.plugins)
        return Plan(self.name, tuple(self._members()), self.model_dump_json(exclude_defaults=True), sources)

    def _members(self) -> Iterator[Member]:
        seeds = [(seed, role) for role in ROLES for seed in getattr(self.seeds, role)]
        for block in self.blocks:
            methods = [(method.build(), self.strengths_of(block, method)) for method in block.methods]
            for spec, hidden in product(block.tasks, self.training.hidden):
                task = spec.build()
                setting, label = self.setting(task, hidden), spec.title(task)
                if len(self.training.hidden) > 1:
                    label = f"{label}, {hidden} hidden"
                for recipe, strengths in methods:
                    for strength, (seed, role) in product(strengths, seeds):
                        yield Member(block.name, label, Network(recipe, strength, seed), role, setting)

    def setting(self, task: TrainingTask, hidden: int, training: TrainingSpec | None = None) -> TaskSetting:
        """Return what all networks of one task and size share."""
        t = training or self.training
        given: dict[str, Any] = {"device": t.device, "dtype": t.dtype, "weights": self.weights}
        if not self.measures:
            return TaskSetting(task, t.build(hidden), **given)
        measures = tuple(map(OwnMeasure.of, self.measures))
        return MeasuredSetting(task, t.build(hidden), **given, measures=measures)

    def strengths_of(self, block: PartSpec, method: MethodSpec) -> tuple[float, ...]:
        """Return the strengths that a method is listed with.

        Raises
        ------
        ParameterError
            If it has none, or some that it cannot use.
        """
        recipe = method.build()
        if not recipe.has_strength:
            if method.strengths not in (None, (0.0,)):
                raise ParameterError(
                    f"method {recipe.name} has nothing that a strength could scale, so it takes none"
                )
            return (0.0,)
        found = method.strengths or block.strengths or self.strengths
        if found is None:
            more = ", or let --search choose them" if self.search is not None else ""
            raise ParameterError(
                f"method {recipe.name} has no strengths; give it some, or the whole study{more}"
            )
        return found


def load_study(source: str | os.PathLike[str]) -> Study:
    """Read a study from a TOML file.

    Parameters
    ----------
    source : path
        The file; ``hoplens sweep --example`` prints one.

    Returns
    -------
    Study

    Raises
    ------
    FileError
        If it cannot be read.
    ParameterError
        If it is no TOML or no study: names file, line and key, what came and what is allowed.
    """
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise FileError(f"cannot read the study {path} ({why})") from None
    return parse_study(text, path.name, folder=path.parent)


def parse_study(text: str, name: str = "study.toml", *, folder: str | os.PathLike[str] = ".") -> Study:
    """Return the study that a TOML text holds; see `load_study`.

    Parameters
    ----------
    text : str
    name : str, default "study.toml"
        What errors call it.
    folder : path, default the working directory
        That its ``plugins`` are relative to.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ParameterError(f"{name} is no TOML: {error}") from None
    found.setdefault("name", Path(name).stem)
    return _validate(found, text, name, Path(folder))


def make_study(values: Mapping[str, Any]) -> Study:
    """Return the study of these values, named as in a study file; see `load_study`.

    Parameters
    ----------
    values : dict
        E.g. ``{"name": "mine", "tasks": [{"name": "averaging"}], ...}``.
    """
    return _validate(values, "", "the study", Path())


def _validate(values: Mapping[str, Any], text: str, name: str, folder: Path) -> Study:
    try:
        return Study.model_validate(read_plugins(values, folder, text, name))
    except ValidationError as error:
        raise ParameterError(complain(error, Study, text, name)) from None


__all__ = ["Study", "load_study", "make_study", "parse_study"]
