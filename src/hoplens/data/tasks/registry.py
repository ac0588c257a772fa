"""Make a task by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from hoplens.data.streams import TrainingTask
from hoplens.data.tasks.base import Task
from hoplens.data.tasks.functions import FUNCTIONS
from hoplens.data.tasks.signals import SIGNALS, signal_steps
from hoplens.errors import ContractError, ParameterError, check_choice, check_count, check_number
from hoplens.memory import check_memory
from hoplens.registry import Registry


def names() -> tuple[str, ...]:
    """Return the names of all task functions."""
    return tuple(FUNCTIONS)


def make(
    name: str,
    *,
    signal: str = "every",
    modules: int = 4,
    module_size: int = 4,
    length: int = 8,
    outputs_per_module: int = 1,
    lag: int | None = None,
    steps: int | None = None,
    noise: float = 1.0,
    target_noise: float = 0.0,
    form: str = "regression",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Task:
    """Make a hierarchically modular task.

    Parameters
    ----------
    name : {"averaging", "subtraction", "addition", "multiplication"}
        What is computed: a module's own aggregate; it minus, plus or times its sibling's. Or the name of an
        own task, see `hoplens.extensions.register_task`; it takes nothing but ``options``.
    signal : {"every", "on-off", "sparse"}
        Which time steps carry signal: all; alternate ones, the last included; few.
    modules : int, default 4
        Number of modules; even where siblings matter.
    module_size : int, default 4
        Inputs in a module.
    length : int, default 8
        Time steps L.
    outputs_per_module : int, default 1
        Copies of each module's target.
    lag : int, optional
        Sparse only: the one signal step comes this many steps before the last (0 .. length - 1).
    steps : int, optional
        Sparse only: number of signal steps, drawn by ``seed``; default a quarter of the length.
    noise : float, default 1
        Standard deviation of the inputs at steps without signal (the signal's own is 1).
    target_noise : float, default 0
        Standard deviation of noise on the targets (their own is 1).
    form : {"regression", "sign"}
        Predict the number, or whether it is above 0 (targets 0 and 1, outputs are logits).
    seed : int, default 0
        Draws the signal steps of a sparse pattern.
    options : dict, optional
        Of a registered task, by name.

    Returns
    -------
    Task
        A registered task comes as its function made it.

    Raises
    ------
    UnknownNameError
        For a name, signal or form that does not exist, with the nearest one.
    ParameterError
        For options out of range or that do not go together.
    """
    given = locals().copy()  # first of all, while it holds what was passed and nothing else
    if name not in FUNCTIONS:
        return _own_task(given)
    if options is not None:
        raise ParameterError(f"the task {name} is built in and takes keywords, not options=")
    function = FUNCTIONS[name]
    check_choice("signal", signal, SIGNALS)
    check_choice("form", form, ("regression", "sign"))
    if check_count("modules", modules) % 2 and function.paired:
        raise ParameterError(f"{name} pairs modules with siblings, so modules must be even, got {modules}")
    size = check_count("length", length)
    inputs = modules * check_count("module_size", module_size)
    outputs = modules * check_count("outputs_per_module", outputs_per_module)
    # what a task says of itself: its hop maps and mean input, and one sample
    check_memory("this task", 8 * size * inputs * (outputs + 2), "take a smaller length, or fewer modules")
    return Task(
        name=name,
        signal=signal,
        modules=modules,
        module_size=module_size,
        outputs_per_module=outputs_per_module,
        length=size,
        signal_steps=signal_steps(signal, size, lag, steps, seed),
        noise=check_number("noise", noise, least=0.0),
        target_noise=check_number("target_noise", target_noise, least=0.0),
        form=form,
    )


MakeTask = Callable[..., TrainingTask]
TASKS: Registry[MakeTask] = Registry(
    "task", "hoplens.tasks", {name: partial(make, name) for name in FUNCTIONS}
)


def _own_task(given: Mapping[str, Any]) -> Task:
    """Return a registered task, or raise if `make` was given what only built-in ones take."""
    name, options = given["name"], given["options"]
    check_choice("task", name, TASKS.names())
    usual = inspect.signature(make).parameters
    alien = [
        key for key, value in given.items() if key not in ("name", "options") and value != usual[key].default
    ]
    if alien:
        raise ParameterError(
            f"the task {name!r} is not built in and takes no {alien[0]}; give its own options as "
            "options={...}"
        )
    return cast(Task, make_task(name, options))


def make_task(name: str, options: Mapping[str, Any] | None = None) -> TrainingTask:
    """Make a task by name, a built-in or a registered one.

    Parameters
    ----------
    name : str
        E.g. "subtraction", see `hoplens.tasks.make`, or one of `register_task`.
    options : dict, optional
        Its options by name.
    """
    task = TASKS.call(name, options)
    if not isinstance(task, TrainingTask):
        raise ContractError(
            f"the task {name!r} of {TASKS.source(name)} must have n_inputs, n_outputs, length, form and "
            f"sample(n, generator=, dtype=), got {type(task).__name__}; see hoplens.testing.check_task"
        )
    return task
