"""What can be extended: tasks, recipes, measures (readers are registered with `hoplens.register_reader`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from hoplens.data.tasks.registry import TASKS, make_task
from hoplens.errors import ContractError, ParameterError
from hoplens.graph.pathways import Pathways
from hoplens.models.readers.own import READERS
from hoplens.registry import Registry, owner_of
from hoplens.training.recipes import BUILT_IN, Recipe

MakeRecipe = Callable[..., Recipe]
Measure = Callable[[Pathways, Any], Tensor]
F = TypeVar("F", bound=Callable[..., Any])

RECIPES: Registry[MakeRecipe] = Registry("recipe", "hoplens.recipes", BUILT_IN)
MEASURES: Registry[Measure] = Registry("measure", "hoplens.measures", {})
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


def register_measure(name: str) -> Callable[[F], F]:
    """Name a function that measures trained networks, as a decorator.

    Parameters
    ----------
    name : str
        The column of tables. Taken names are refused; the same function, defined again, replaces itself.

    Returns
    -------
    callable
        Takes a function ``(net, task) -> Tensor`` of a `Pathways` with leading axes (E,) and the task, which
        returns one number a network, shape (E,); returns it unchanged. Prove it with
        `hoplens.testing.check_measure`.
    """
    return partial(_register, MEASURES, name)


def _register(registry: Registry[Any], name: str, function: F) -> F:
    if not callable(function):
        raise ParameterError(f"a {registry.kind} is registered as a function, got {type(function).__name__}")
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


def apply_measures(names: Sequence[str], net: Pathways, task: Any) -> dict[str, Tensor]:
    """Return registered measures of an ensemble by name, each of the ensemble's shape (E,), float64.

    Parameters
    ----------
    names : sequence of str
        Names of `register_measure`.
    net : Pathways
        Leading axes (E,).
    task : TrainingTask
        What the networks were trained on.

    Raises
    ------
    UnknownNameError
        For a measure that does not exist.
    ContractError
        If a measure does not return one number a network.
    """
    return {name: one_number(MEASURES.get(name)(net, task), net, name) for name in names}


def one_number(value: Any, net: Pathways, name: str) -> Tensor:
    """Return a measure's value as float64, or raise unless it is one real number a network."""
    if not isinstance(value, Tensor) or value.shape != net.batch_shape or torch.is_complex(value):
        came = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ContractError(
            f"the measure {name!r} must return one real number a network, a tensor of shape "
            f"{tuple(net.batch_shape)}, got {came}"
        )
    return value.detach().double()


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
