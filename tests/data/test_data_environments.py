"""Environments with neurogym's protocol become data sets."""

from __future__ import annotations

import runpy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from places import ROOT

import hoplens as hl

EXAMPLE = runpy.run_path(str(ROOT / "examples" / "cognitive_tasks.py"))


class Steady:
    """One input, one number to tell; ``gt`` and ``ob`` can be set to anything."""

    def __init__(self, ob: object = None, gt: object = None, n: int | None = None) -> None:
        self.observation_space = SimpleNamespace()
        self.action_space = SimpleNamespace() if n is None else SimpleNamespace(n=n)
        self.fixed = ob, gt

    def reset(self, *, seed: int) -> None:
        self.count = seed

    def new_trial(self) -> None:
        self.count += 1
        steps = 3 + self.count % 4
        ob, gt = self.fixed
        self.ob = np.full(steps, float(self.count)) if ob is None else ob
        self.gt = np.full(steps, 2.0 * self.count) if gt is None else gt


@pytest.mark.parametrize("task", ["PerceptualDecision", "DelayedMatch"])
def test_two_cognitive_tasks(task: str) -> None:
    env = EXAMPLE[task]()
    data = hl.data.from_environment(env, trials=100, fractions=(0.7, 0.1, 0.2))
    assert data.form == "step class"
    assert [len(data.train), len(data.validation), len(data.test)] == [70, 10, 20]
    assert data.name == task
    assert data.n_outputs == 3
    assert data.input_names[0] == "fixation"
    assert "stimulus 0" in data.input_names or "evidence 0" in data.input_names
    assert data.output_names[0] == "fixate"
    targets = data.train.targets
    rows, last = torch.arange(70), data.train.lengths - 1
    assert set(targets[rows, last].tolist()) == {1, 2}
    assert (targets[:, 0] == 0).all()
    assert (targets[~data.train.mask] == -100).all()
    again = hl.data.from_environment(EXAMPLE[task](), trials=100, fractions=(0.7, 0.1, 0.2))
    other = hl.data.from_environment(EXAMPLE[task](), trials=100, fractions=(0.7, 0.1, 0.2), seed=1)
    assert torch.equal(again.train.inputs, data.train.inputs)
    assert other.train.inputs.shape != data.train.inputs.shape or not torch.equal(
        other.train.inputs, data.train.inputs
    )


def test_numbers_to_tell_and_wrapped_environments() -> None:
    wrapped = SimpleNamespace(unwrapped=Steady())
    data = hl.data.from_environment(wrapped, trials=20, standardise=False, name="steady")
    assert data.form == "step values"
    assert data.name == "steady"
    assert torch.equal(data.train.targets, 2 * data.train.inputs)
    assert data.input_names == ("input 0",)


def test_environments_with_a_seed_method_are_seeded_by_it() -> None:
    class Seeded(Steady):
        def seed(self, seed: int) -> None:
            self.count = 1000 * seed

    data = hl.data.from_environment(Seeded(), trials=20, seed=2, standardise=False)
    assert data.train.inputs.max() > 2000


@pytest.mark.parametrize(
    ("env", "error", "what"),
    [
        (
            SimpleNamespace(reset=None),
            hl.errors.UnsupportedModelError,
            "no new_trial, observation_space, action_space",
        ),
        (Steady(gt=np.zeros(5)), hl.errors.ShapeError, r"observations \(\d,\) and ground truth \(5,\)"),
        (Steady(gt=np.zeros((3, 2)), ob=np.zeros((3, 1)), n=2), hl.errors.ShapeError, "ground truth"),
        (
            Steady(gt=np.full(3, 7), ob=np.zeros((3, 1)), n=2),
            hl.errors.ParameterError,
            r"actions 0 \.\. 1, got 7",
        ),
        (Steady(gt=np.zeros(3), ob=np.full((3, 1), np.nan)), hl.errors.NonFiniteError, "NaN"),
        (Steady(gt=np.zeros(0), ob=np.zeros((0, 1))), hl.errors.ShapeError, "a trial has"),
    ],
)
def test_wrong_environments(env: object, error: type[Exception], what: str) -> None:
    if hasattr(env, "count"):
        env.count = 0
    with pytest.raises(error, match=what):
        hl.data.from_environment(env, trials=5, seed=3)


def test_environments_without_right_answers() -> None:
    class Bandit(Steady):
        def new_trial(self) -> None:
            self.ob, self.gt = np.zeros((3, 1)), None

    with pytest.raises(hl.errors.UnsupportedModelError, match="no ground truth"):
        hl.data.from_environment(Bandit(), trials=5)
    with pytest.raises(hl.errors.ParameterError, match="add up to 1"):
        hl.data.from_environment(Steady(), trials=5, fractions=(1, 1, 1))
    with pytest.raises(hl.errors.ParameterError, match="too few"):
        hl.data.from_environment(Steady(), trials=3, fractions=(0.9, 0.05, 0.05))


def test_the_example_learns_both(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.random.fork_rng():
        EXAMPLE["main"](120)
    out = capsys.readouterr().out
    right = [float(line.split(": ")[1]) for line in out.splitlines() if "right answers" in line]
    assert len(right) == 2
    assert min(right) > 0.85  # chance is 0.5
