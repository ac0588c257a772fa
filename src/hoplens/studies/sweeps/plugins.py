"""Tasks, recipes and measures of one's own in a study: from files that it names, or by entry point."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import model_validator

from hoplens.data.streams import TrainingTask
from hoplens.errors import HoplensError, ParameterError
from hoplens.penalties.base import Penalty
from hoplens.studies import extensions
from hoplens.studies.extensions.files import SourceFile, load_source, loaded_sources, read_source
from hoplens.studies.measures import get_measure
from hoplens.studies.sweeps.describe import canonical, content_hash, describe
from hoplens.studies.sweeps.strict import Strict
from hoplens.text import printable
from hoplens.training.recipes import Recipe


class PluginSpec(Strict):
    """A Python file that a study names, with its text: a store needs no file to go on.

    Making the value runs nothing: who reads a study loads its files first, if they are to be trusted.
    """

    path: str
    text: str

    @model_validator(mode="after")
    def _is_loaded(self) -> PluginSpec:
        if self.source not in loaded_sources():
            raise ValueError(
                f"the code of {printable(self.path)} is not loaded, and reading a study runs none"
            )
        return self

    @property
    def source(self) -> SourceFile:
        """The file as extensions know it."""
        return SourceFile(self.path, self.text)


@dataclass(frozen=True)
class OwnMeasure:
    """A registered measure as part of a setting: its name, and the hash of what computes it."""

    name: str
    code: str

    @classmethod
    def of(cls, name: str) -> OwnMeasure:
        """Return the measure that has this name now."""
        return cls(name, content_hash(describe(get_measure(name).function)))


def read_plugins(values: Mapping[str, Any], folder: Path, name: str) -> dict[str, Any]:
    """Return a study's values with each file that it names, relative to the folder, read and run."""
    files = values.get("plugins")
    if not isinstance(files, list | tuple):
        return dict(values)
    read: list[Any] = []
    for file in files:
        if not isinstance(file, str | os.PathLike):
            read.append(file)  # the study says what is wrong with it
            continue
        try:
            source = read_source(folder / file)
            load_source(source)
        except HoplensError as error:
            raise type(error)(f"{name}: {error}") from error
        read.append({"path": source.path, "text": source.text})
    return {**values, "plugins": read}


def own_task(name: str, options: Mapping[str, Any] | None) -> TrainingTask:
    """Return a registered task, or raise if a store cannot keep it: frozen, of plain data, fit to be sent."""
    task: TrainingTask = _made("task", name, lambda: extensions.make_task(name, frozen(options)))
    return task


def own_recipe(name: str, options: Mapping[str, Any] | None) -> Recipe:
    """Return a recipe by name, a built-in or a registered one; see `own_task`."""
    recipe: Recipe = _made("recipe", name, lambda: extensions.make_recipe(name, frozen(options)))
    return recipe


def own_penalty(name: str, options: Mapping[str, Any] | None) -> Callable[..., Penalty]:
    """Return a penalty by name, a built-in or a registered one; see `own_task`."""
    given = frozen(dict(options or {}))
    penalty: Callable[..., Penalty] = _made("penalty", name, lambda: extensions.make_penalty(name, given))
    return penalty


def _made(kind: str, name: str, make: Any) -> Any:
    try:
        made = make()
    except (HoplensError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever the user's code raises, SystemExit too
        raise ParameterError(f"the {kind} {name!r} cannot be made: {_words(error)}") from error
    try:
        hash(made)
        canonical(describe(made))
        pickle.dumps(made)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ParameterError(
            f"the {kind} {name!r} cannot be kept and sent to workers ({_words(error)}); make it of frozen "
            "dataclasses of plain data and of functions that have a name"
        ) from error
    return made


def _words(error: BaseException) -> str:
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__


def frozen(value: Any) -> Any:
    """Return lists of the file as tuples, so that a frozen dataclass which holds them can be hashed."""
    if isinstance(value, list | tuple):
        return tuple(frozen(part) for part in value)
    if isinstance(value, dict):
        return {name: frozen(part) for name, part in value.items()}
    return value


def check_current(measures: Sequence[OwnMeasure]) -> list[str]:
    """Return the names of measures, or raise if one stands for other code by now."""
    for measure in measures:
        if OwnMeasure.of(measure.name) != measure:
            raise ParameterError(
                f"the measure {measure.name!r} is not the one that the study was planned with; read the "
                "study again"
            )
    return [measure.name for measure in measures]


__all__ = [
    "OwnMeasure",
    "PluginSpec",
    "check_current",
    "own_penalty",
    "own_recipe",
    "own_task",
    "read_plugins",
]
