"""A command and the function that it is the face of have the same defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import hoplens as hl
from hoplens.cli import app as cli
from hoplens.studies.compression.candidates import TuningSettings
from hoplens.studies.sweeps import run_sweep

COMMANDS: dict[str, list[Callable[..., Any]]] = {
    "reproduce": [],
    "train": [hl.tasks.make, hl.train],
    "sweep": [run_sweep],
    "status": [],
    "analyze": [hl.analyze],
    "report": [],
    "explain": [hl.explain],
    "compress": [TuningSettings],
    "export": [hl.export_onnx, hl.export_nir],
    "tasks": [],
}
# what differs, and why
REASONS = {
    ("train", "seeds"): "the command shows how networks differ; Python trains one unless asked for more",
    ("train", "steps"): "the command trains on tasks; in Python the default follows the kind of data",
    ("sweep", "workers"): "0 stands for None, one process a core: options have no None",
    ("explain", "output"): "the largest output of the one sample; Python takes many samples at once",
    ("explain", "baseline"): "named on the command line, a tensor in Python; both start from zeros",
}


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    return {
        name: p.default
        for name, p in inspect.signature(function).parameters.items()
        if p.default is not inspect.Parameter.empty
    }


def commands() -> dict[str, Callable[..., Any]]:
    return {
        command.name or command.callback.__name__: command.callback
        for command in cli.app.registered_commands
        if command.callback is not None
    }


def test_every_command_is_in_the_table() -> None:
    assert set(commands()) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_options_have_the_defaults_of_the_function(name: str) -> None:
    options = defaults(commands()[name])
    # of a name in two functions (steps of a signal, and of training) the command has the last one's
    own = {option: value for function in COMMANDS[name] for option, value in defaults(function).items()}
    shared = options.keys() & own.keys()
    differ = {o: (options[o], own[o]) for o in shared if options[o] != own[o] and (name, o) not in REASONS}
    assert not differ
    assert shared or not COMMANDS[name]


def test_strength_and_strengths_agree() -> None:
    assert defaults(commands()["train"])["strength"] == defaults(hl.train)["strengths"]


def test_every_reason_is_needed() -> None:
    for name, option in REASONS:
        own = [defaults(f)[option] for f in COMMANDS[name] if option in defaults(f)]
        assert own
        assert any(value != defaults(commands()[name])[option] for value in own)
