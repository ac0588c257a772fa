"""Make a task by name."""

from __future__ import annotations

from hoplens.errors import ParameterError, check_choice, check_count, check_number
from hoplens.tasks.base import Task
from hoplens.tasks.functions import FUNCTIONS
from hoplens.tasks.signals import SIGNALS, signal_steps


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
) -> Task:
    """Make a hierarchically modular task.

    Parameters
    ----------
    name : {"averaging", "subtraction", "addition", "multiplication"}
        What is computed: a module's own aggregate; it minus, plus or times its sibling's.
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

    Returns
    -------
    Task

    Raises
    ------
    UnknownNameError
        For a name, signal or form that does not exist, with the nearest one.
    ParameterError
        For options out of range or that do not go together.
    """
    function = FUNCTIONS[check_choice("task", name, FUNCTIONS)]
    check_choice("signal", signal, SIGNALS)
    check_choice("form", form, ("regression", "sign"))
    if check_count("modules", modules) % 2 and function.paired:
        raise ParameterError(f"{name} pairs modules with siblings, so modules must be even, got {modules}")
    size = check_count("length", length)
    return Task(
        name=name,
        signal=signal,
        modules=modules,
        module_size=check_count("module_size", module_size),
        outputs_per_module=check_count("outputs_per_module", outputs_per_module),
        length=size,
        signal_steps=signal_steps(signal, size, lag, steps, seed),
        noise=check_number("noise", noise, least=0.0),
        target_noise=check_number("target_noise", target_noise, least=0.0),
        form=form,
    )
