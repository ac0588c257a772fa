"""Studies as files: what `study.toml` may hold."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from hoplens.data.streams import TrainingTask
from hoplens.errors import ParameterError, check_number
from hoplens.files import read_text
from hoplens.studies.sweeps.complaints import complain
from hoplens.studies.sweeps.limits import STUDY_BYTES, check_networks
from hoplens.studies.sweeps.plan import Member, Plan
from hoplens.studies.sweeps.plugins import OwnMeasure, PluginSpec, read_plugins
from hoplens.studies.sweeps.settings import DataSource, MeasuredSetting, TaskSetting
from hoplens.studies.sweeps.space import SearchSpec, Value
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
from hoplens.studies.sweeps.strict import Strict, as_tuple, legal
from hoplens.training.settings import Network

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


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

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=100)]
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
        for spec in (spec for block in self.blocks for spec in block.tasks if spec.training):
            if self.search is not None:
                raise ValueError("a search chooses the training of all tasks; take [tasks.training] out")
            legal(lambda spec=spec: self.training_of(spec))
        legal(lambda: check_networks(self._count()))
        if self.search is None:
            legal(self.plan)
            return self
        for name, span in self.search.training():
            for value in span.ends():
                legal(lambda name=name, value=value: self.trained_with({name: value}))
        return self

    def _count(self) -> int:
        """Return how many networks the study has, before any is planned; of a search, those of one trial."""
        seeds = sum(len(getattr(self.seeds, role)) for role in ROLES)
        per_task = 0
        for block in self.blocks:
            strengths = (
                1 if self.search is not None else len(self.strengths_of(block, m)) for m in block.methods
            )
            sizes = sum(len(self.training_of(spec).hidden) for spec in block.tasks)
            per_task += sizes * sum(strengths)
        return per_task * seeds

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
            cells = [
                (spec, own, hidden)
                for spec in block.tasks
                for own in (self.training_of(spec),)
                for hidden in own.hidden
            ]
            for spec, training, hidden in cells:
                task = spec.build()
                setting, label = self.setting(task, hidden, training), spec.title(task)
                if len(training.hidden) > 1:
                    label = f"{label}, {hidden} hidden"
                for recipe, strengths in methods:
                    for strength, (seed, role) in product(strengths, seeds):
                        yield Member(block.name, label, Network(recipe, strength, seed), role, setting)

    def training_of(self, spec: TaskSpec) -> TrainingSpec:
        """Return how the networks of a task are trained: as the study says, or as the task does."""
        return self.trained_with(spec.training) if spec.training else self.training

    def setting(
        self, task: TrainingTask | DataSource, hidden: int, training: TrainingSpec | None = None
    ) -> TaskSetting:
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
        If it is no TOML or no study: names file, line and key, what came and what is allowed.
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
    except RecursionError:
        raise ParameterError(f"{name} is nested too deeply; a study has lists in tables, no more") from None


__all__ = ["Study", "load_study", "make_study", "parse_study"]
