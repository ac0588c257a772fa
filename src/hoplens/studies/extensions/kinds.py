"""What can be extended: tasks, recipes, penalties, measures, formats (readers: `register_reader`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar

from hoplens.data.tasks.registry import TASKS
from hoplens.errors import ContractError, ParameterError, unknown_name
from hoplens.export.exporters import EXPORTERS, Exporter
from hoplens.models.readers.own import READERS
from hoplens.penalties.base import Penalty
from hoplens.penalties.flow import FlowPenalty
from hoplens.registry import Registry, owner_of
from hoplens.seeds import generator
from hoplens.studies.measures import MEASURES, Measure, bare
from hoplens.training.recipes import BUILT_IN, PathwaySpec, Recipe, WeightSpec

MakeRecipe = Callable[..., Recipe]
F = TypeVar("F", bound=Callable[..., Any])

RECIPES: Registry[MakeRecipe] = Registry("recipe", "hoplens.recipes", BUILT_IN)
PENALTIES: Registry[Callable[..., Any]] = Registry(
    "penalty",
    "hoplens.penalties",
    {"pathway": PathwaySpec, "weight": WeightSpec, "flow": FlowPenalty},
)
ALL: tuple[Registry[Any], ...] = (TASKS, RECIPES, PENALTIES, MEASURES, READERS, EXPORTERS)


@dataclass(frozen=True)
class OwnPenalty:
    """A registered penalty with its options, made anew for each task: the ``penalty`` of a `Term`."""

    make: Callable[..., Any]
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, horizon: int, *, readouts: str = "last", length: int | None = None) -> Penalty:
        """Return the penalty for a task of so many time steps."""
        takes = inspect.signature(self.make).parameters
        known = {
            "horizon": horizon,
            "readouts": readouts,
            "every_step": readouts == "every",
            "length": length,
            "generator": generator("sampled nodes", 0),
        }
        given = {name: value for name, value in known.items() if name in takes} | dict(self.options)
        penalty = self.make(**given)
        if not isinstance(penalty, Penalty):
            name = getattr(self.make, "__name__", "it")
            raise ContractError(f"the penalty {name} must be a hoplens.Penalty, got {type(penalty).__name__}")
        return penalty


def register_penalty(name: str) -> Callable[[F], F]:
    """Name a penalty, as a decorator, so that study files can use it in a method.

    Parameters
    ----------
    name : str
        What studies call it. Taken names are refused; the same class or function, defined again, replaces
        itself.

    Returns
    -------
    callable
        Takes a `hoplens.Penalty` class or a function that returns one, whose keyword arguments are options;
        one called ``horizon`` gets the task's time steps; returns it unchanged. Prove it with
        `hoplens.testing.check_penalty`.
    """
    return partial(_register, PENALTIES, name)


def register_exporter(exporter: Exporter) -> Exporter:
    """Add a format to ``hoplens export`` and, where it takes the model, to what ``hoplens compress`` writes.

    Parameters
    ----------
    exporter : Exporter
        See `hoplens.export.exporters.Exporter`. Taken names are refused.
    """
    if not isinstance(exporter, Exporter):
        raise ParameterError(f"expected a hoplens.extensions.Exporter, got {type(exporter).__name__}")
    EXPORTERS.add(exporter.name, exporter, owner=owner_of(exporter.write))
    return exporter


def make_penalty(name: str, options: Mapping[str, Any] | None = None) -> Callable[..., Penalty]:
    """Return a registered penalty with its options, as the ``penalty`` of a `hoplens.recipes.Term`.

    Parameters
    ----------
    name : str
        "pathway", "weight", "flow", or one of `register_penalty`.
    options : dict, optional
        Its options by name.

    Raises
    ------
    UnknownNameError
        For a penalty or option that does not exist, with the nearest one.
    ParameterError
        If an option is wrong or missing.
    """
    make, given = PENALTIES.get(name), dict(options or {})
    takes = inspect.signature(make).parameters
    for option in given:
        if option not in takes:
            raise unknown_name(f"option of the penalty {name!r}:", option, list(takes))
    if make in (PathwaySpec, WeightSpec):
        made: Callable[..., Penalty] = make(**given)
    else:
        made = OwnPenalty(make, tuple(given.items()))
    try:
        made(2)
    except TypeError as error:
        raise ParameterError(f"the penalty {name!r} cannot be made: {error}") from None
    return made


def register_task(name: str) -> Callable[[F], F]:
    """Name a function that makes a task, as a decorator.

    Parameters
    ----------
    name : str
        What studies call it. Taken names are refused; the same function, defined again, replaces itself.

    Returns
    -------
    callable
        Takes a function (or class) whose keyword arguments are the task's options and which returns a
        `hoplens.data.streams.TrainingTask`; returns it unchanged. Prove the task with
        `hoplens.testing.check_task`.
    """
    return partial(_register, TASKS, name)


def register_recipe(name: str) -> Callable[[F], F]:
    """Name a function that makes a recipe (penalties and how they are used), as a decorator.

    Parameters
    ----------
    name : str
        What studies call it. Taken names are refused; the same function, defined again, replaces itself.

    Returns
    -------
    callable
        Takes a function whose keyword arguments are options and which returns a `Recipe`; returns it
        unchanged. Prove its penalties with `hoplens.testing.check_recipe`.
    """
    return partial(_register, RECIPES, name)


def register_measure(
    name: str,
    *,
    label: str | None = None,
    better: Literal["lower", "higher", "target", "none"] = "none",
    meaning: str | None = None,
    plot: Callable[..., Any] | None = None,
) -> Callable[[F], F]:
    """Name a function that measures trained networks, as a decorator.

    Parameters
    ----------
    name : str
        The column of tables. Taken names are refused; the same function, defined again, replaces itself.
    label, better, meaning, plot
        What tables, pages and plots say of it, see `hoplens.studies.measures.Measure`; label and meaning are
        by default its name and the first line of its docstring.

    Returns
    -------
    callable
        Takes a function ``(net, task) -> Tensor`` of a `Pathways` with leading axes (E,) and the task, which
        returns one number a network, shape (E,); returns it unchanged. Prove it with
        `hoplens.testing.check_measure`.
    """

    def register(function: F) -> F:
        _check_function(MEASURES, function)
        own = bare(name, function) if isinstance(name, str) else Measure("", "")
        value = replace(
            own, label=label or own.label, better=better, meaning=meaning or own.meaning, plot=plot
        )
        MEASURES.add(name, value, owner=owner_of(function))
        return function

    return register


def _check_function(registry: Registry[Any], function: object) -> None:
    if not callable(function):
        raise ParameterError(f"a {registry.kind} is registered as a function, got {type(function).__name__}")


def _register(registry: Registry[Any], name: str, function: F) -> F:
    _check_function(registry, function)
    registry.add(name, function, owner=owner_of(function))
    return function


def make_recipe(name: str, options: Mapping[str, Any] | None = None) -> Recipe:
    """Make a recipe by name, a built-in or a registered one.

    Parameters
    ----------
    name : str
        "none", "l1", "l2", "paper", "recommended", or one of `register_recipe`.
    options : dict, optional
        Its options by name.

    Raises
    ------
    UnknownNameError
        For a recipe or option that does not exist, with the nearest one.
    ParameterError
        If an option is missing or wrong.
    """
    recipe = RECIPES.call(name, options)
    if not isinstance(recipe, Recipe):
        raise ContractError(
            f"the recipe {name!r} of {RECIPES.source(name)} must return a hoplens.Recipe, got "
            f"{type(recipe).__name__}"
        )
    return recipe
