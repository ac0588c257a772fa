"""Studies as files: what `study.toml` may hold."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from hoplens.data.streams import TrainingTask
from hoplens.data.tasks import Task
from hoplens.errors import HoplensError, ParameterError, check_number
from hoplens.files import read_text
from hoplens.studies.statistics.purposes import choose
from hoplens.studies.sweeps.limits import STUDY_BYTES, check_networks
from hoplens.studies.sweeps.plan import Member, Plan
from hoplens.studies.sweeps.plugins import OwnMeasure, PluginSpec, read_plugins
from hoplens.studies.sweeps.settings import DataSource, MeasuredSetting, TaskSetting
from hoplens.studies.sweeps.specs import (
    ROLES,
    MethodSpec,
    PartSpec,
    SeedSpec,
    Strengths,
    TaskSpec,
    TrainingSpec,
    Whole,
)
from hoplens.studies.sweeps.strict import Strict, as_tuple, complain, legal
from hoplens.training.settings import Network

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    import pandas as pd

Purpose = Literal["best", "pruned", "lean"]
Seeds = Annotated[tuple[Whole, ...], BeforeValidator(as_tuple)]
VALIDATION = ROLES[0]


class Study(Strict):
    """A study file: tasks crossed with methods, strengths, sizes and seeds.

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
    followed : list of seeds, optional
        Whose networks on data sets are also measured along test sequences.
    plugins : list
        Python files that are run first; what they register may be named, see `hoplens.extensions`.
    measures : list of str
        Registered measures that become columns of the table.
    report : list of {"best", "pruned", "lean"}, optional
        Report seeds are trained only at the strengths that the validation seeds choose for these, see
        `hoplens.studies.statistics.purposes.choose`; default at every strength.
    aims : {"paper", "real"}, optional
        What the study is held to, see `hoplens.studies.comparison.aims`.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=100)]
    seeds: SeedSpec
    plugins: Annotated[tuple[PluginSpec, ...], BeforeValidator(as_tuple)] = ()  # before all that names theirs
    measures: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    tasks: Annotated[tuple[TaskSpec, ...], BeforeValidator(as_tuple)] = ()
    methods: Annotated[tuple[MethodSpec, ...], BeforeValidator(as_tuple)] = ()
    parts: Annotated[tuple[PartSpec, ...], BeforeValidator(as_tuple)] = ()
    strengths: Strengths | None = None
    training: TrainingSpec = TrainingSpec()
    weights: Literal["none", "all"] | Seeds = "none"
    followed: Seeds = ()
    report: Annotated[tuple[Purpose, ...], BeforeValidator(as_tuple)] = ()
    aims: Literal["paper", "real"] | None = None

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
        legal(lambda: check_networks(self._count()))
        legal(lambda: self.grid)
        if self.aims is not None:
            self._check_aims()
        return self

    def _check_aims(self) -> None:
        """Raise unless the main block holds what the aims speak of."""
        lacking = {"L1", "paper", "recommended"} - {method.build().name for method in self.methods}
        if lacking:
            raise ValueError(f"aims compare L1, paper and recommended; the methods lack {sorted(lacking)[0]}")
        wanted = Task if self.aims == "paper" else DataSource
        if not all(isinstance(spec.build(), wanted) for block in self.blocks for spec in block.tasks):
            kind = "tasks that are built in" if self.aims == "paper" else "data sets"
            raise ValueError(f'aims = "{self.aims}" are those of {kind}')
        if self.aims == "real" and set(self.purposes) != {"best", "pruned", "lean"}:
            raise ValueError('aims = "real" need report = ["best", "pruned", "lean"]')

    def _count(self) -> int:
        """Return how many networks the study has at most, before any is planned."""
        seeds = sum(len(getattr(self.seeds, role)) for role in ROLES)
        per_task = 0
        for block in self.blocks:
            strengths = sum(len(self.strengths_of(block, method)) for method in block.methods)
            per_task += strengths * sum(len(self.training_of(spec).hidden) for spec in block.tasks)
        return per_task * seeds

    @property
    def blocks(self) -> tuple[PartSpec, ...]:
        """All blocks, "main" first."""
        first = (PartSpec(tasks=self.tasks, methods=self.methods),) if self.tasks else ()
        return (*first, *self.parts)

    @property
    def in_stages(self) -> bool:
        """Whether the report seeds wait for the strengths that the validation seeds choose."""
        return bool(self.report)

    @property
    def purposes(self) -> tuple[Purpose, ...]:
        """What strengths are chosen for."""
        return tuple(dict.fromkeys(("best", *self.report)))

    def plan(self) -> Plan:
        """Return what is trained first: everything, or the validation seeds of a study `in_stages`."""
        if not self.in_stages:
            return self.grid
        members = (member for member in self.grid.members if member.role == VALIDATION)
        return self._plan(f"{self.name}, choosing", members)

    def chosen_plan(self, rows: pd.DataFrame) -> Plan:
        """Return everything that a study `in_stages` trains, by the finished networks of `plan`."""
        chosen = set()
        for part, own in rows[rows["role"] == VALIDATION].groupby("part"):
            choices = choose(own, self.purposes)[["task", "method", "strength"]]
            chosen |= {(part, *choice) for choice in choices.itertuples(index=False, name=None)}
        members = (m for m in self.grid.members if m.role == VALIDATION or m.row[:4] in chosen)
        return self._plan(self.name, members)

    def load_data(self) -> None:
        """Load every data set: what is missing or wrong is to be said before anything is trained."""
        for source in (spec.build() for block in self.blocks for spec in block.tasks):
            if isinstance(source, DataSource):
                source.load()

    @cached_property
    def grid(self) -> Plan:
        """Every task with every method, strength and seed."""
        return self._plan(self.name, self._members())

    def _plan(self, name: str, members: Iterable[Member]) -> Plan:
        sources = tuple(plugin.source for plugin in self.plugins)
        return Plan(name, tuple(members), self.model_dump_json(exclude_defaults=True), sources)

    def settings_of(self, part: str) -> dict[str, TaskSetting]:
        """Return what the networks of a part are trained on and with, by what tables call the task."""
        found = {member.task: member.setting for member in self.grid.members if member.part == part}
        return {label: setting for label, setting in found.items() if isinstance(setting, TaskSetting)}

    def _members(self) -> Iterator[Member]:
        seeds = [(seed, role) for role in ROLES for seed in getattr(self.seeds, role)]
        for block in self.blocks:
            methods = [(method.build(), self.strengths_of(block, method)) for method in block.methods]
            cells = [
                (spec, own, hidden)
                for spec in block.tasks
                for own in (self.training_of(spec),)
                for hidden in own.hidden
            ]
            for spec, training, hidden in cells:
                task = spec.build()
                setting, label = self._setting(task, hidden, training), spec.title(task)
                if len(training.hidden) > 1:
                    label = f"{label}, {hidden} hidden"
                for recipe, strengths in methods:
                    for strength, (seed, role) in product(strengths, seeds):
                        yield Member(block.name, label, Network(recipe, strength, seed), role, setting)

    def training_of(self, spec: TaskSpec) -> TrainingSpec:
        """Return how the networks of a task are trained: as the study says, or as the task does."""
        if not spec.training:
            return self.training
        try:
            return TrainingSpec.model_validate({**self.training.model_dump(), **spec.training})
        except ValidationError as error:
            raise ParameterError(complain(error, TrainingSpec, f"training of {spec.name}")) from None

    def _setting(self, task: TrainingTask | DataSource, hidden: int, t: TrainingSpec) -> TaskSetting:
        """Return what all networks of one task and size share."""
        followed = self.followed if self.followed and isinstance(task, DataSource) else None
        given: dict[str, Any] = {"weights": self.weights, "followed": followed}
        given |= {"device": t.device, "dtype": t.dtype}
        if not self.measures:
            return TaskSetting(task, t.build(hidden), **given)
        measures = tuple(map(OwnMeasure.of, self.measures))
        return MeasuredSetting(task, t.build(hidden), **given, measures=measures)

    def strengths_of(self, block: PartSpec, method: MethodSpec) -> tuple[float, ...]:
        """Return the strengths that a method is listed with, or raise if it has none, or cannot use them."""
        recipe = method.build()
        if not recipe.has_strength:
            if method.strengths not in (None, (0.0,)):
                raise ParameterError(
                    f"method {recipe.name} has nothing that a strength could scale, so it takes none"
                )
            return (0.0,)
        found = method.strengths or block.strengths or self.strengths
        if found is None:
            raise ParameterError(f"method {recipe.name} has no strengths; give it some, or the whole study")
        if recipe.uses == "dropout":
            for rate in found:
                check_number(f"dropout rate of method {recipe.name}", rate, least=0.0, below=1.0)
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
        If it is no TOML or no study: names file and key, what came and what is allowed.
    """
    text = read_text(source, "study", most=STUDY_BYTES)
    path = Path(source)
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
    except ValueError as error:  # also of a number of thousands of digits
        raise ParameterError(f"{name} is no TOML: {error}") from None
    except RecursionError:
        raise ParameterError(f"{name} is nested too deeply; a study has lists in tables, no more") from None
    found.setdefault("name", Path(name).stem)
    return _validate(found, name, Path(folder))


def make_study(values: Mapping[str, Any]) -> Study:
    """Return the study of these values, named as in a study file; see `load_study`.

    Parameters
    ----------
    values : dict
        E.g. ``{"name": "mine", "tasks": [{"name": "averaging"}], ...}``.
    """
    return _validate(values, "the study", Path())


def _validate(values: Mapping[str, Any], name: str, folder: Path) -> Study:
    try:
        study = Study.model_validate(read_plugins(values, folder, name))
    except ValidationError as error:
        raise ParameterError(complain(error, Study, name)) from None
    except RecursionError:
        raise ParameterError(f"{name} is nested too deeply; a study has lists in tables, no more") from None
    try:
        study.load_data()
    except HoplensError as error:
        raise type(error)(f"{name}: {error}") from None
    return study


__all__ = ["Study", "load_study", "make_study", "parse_study"]
