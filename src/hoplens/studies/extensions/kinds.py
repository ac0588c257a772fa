"""What can be extended: tasks, recipes, measures (readers are registered with `hoplens.register_reader`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar

from hoplens.data.tasks.registry import TASKS, make_task
from hoplens.errors import ContractError, ParameterError
from hoplens.models.readers.own import READERS
from hoplens.registry import Registry, owner_of
from hoplens.studies.measures import MEASURES, Measure, apply_measures, bare, one_number
from hoplens.training.recipes import BUILT_IN, Recipe

MakeRecipe = Callable[..., Recipe]
F = TypeVar("F", bound=Callable[..., Any])

RECIPES: Registry[MakeRecipe] = Registry("recipe", "hoplens.recipes", BUILT_IN)
ALL: tuple[Registry[Any], ...] = (TASKS, RECIPES, MEASURES, READERS)


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


__all__ = [
    "ALL",
    "MEASURES",
    "RECIPES",
    "TASKS",
    "apply_measures",
    "make_recipe",
    "make_task",
    "one_number",
    "register_measure",
    "register_recipe",
    "register_task",
]
