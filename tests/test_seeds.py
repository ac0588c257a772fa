"""Random streams share no number: neither over seeds, nor over what they are for."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import hoplens as hl
from hoplens import seeds
from hoplens.data.closed_loop import plant_of
from hoplens.data.streams import SetStream
from hoplens.models.initial import create_ensemble

SOURCE = Path(hl.__file__).parent
MAKERS = {"Generator", "manual_seed", "default_rng", "RandomState", "SeedSequence", "Random"}
TEN = range(10)
F64 = torch.float64


def calls(name: str | None = None) -> list[tuple[Path, ast.Call, str]]:
    """Return every call in the source with the last part of what it calls."""
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name is None or called == name:
                    found.append((path, node, called))
    return found


def stream_names(function: str) -> set[str]:
    names = set()
    for path, call, _ in calls(function):
        if path.name == "seeds.py" or (path.parent.name == "testing" and len(call.args) == 1):
            continue
        first = call.args[0]
        assert isinstance(first, ast.Constant), f"{path.name}:{call.lineno}: a stream's name is a literal"
        names.add(first.value)
    return names


def all_different(*values: Tensor) -> bool:
    """Whether no two of the float64 numbers agree to 12 digits."""
    drawn = torch.cat([v.flatten() for v in values]).sort().values
    return bool((drawn.diff() > 1e-13).all())


def test_generators_are_made_in_one_module_only() -> None:
    elsewhere = {
        f"{path.relative_to(SOURCE)}:{call.lineno}"
        for path, call, called in calls()
        if called in MAKERS and path.name != "seeds.py"
    }
    assert not elsewhere


def test_no_two_streams_and_no_two_seeds_share_a_draw() -> None:
    names = stream_names("generator")
    assert {"initial weights", "initial gates", "training data", "test data", "dropout"} <= names
    drawn = [torch.randn(8, generator=seeds.generator(name, n), dtype=F64) for name in names for n in TEN]
    bare = [torch.randn(8, generator=torch.Generator().manual_seed(n), dtype=F64) for n in TEN]
    assert all_different(*drawn, *bare)
    names = stream_names("numpy_generator")
    arrays = [seeds.numpy_generator(name, n).normal(size=8) for name in names for n in TEN]
    arrays += [np.random.default_rng(n).normal(size=8) for n in TEN]
    assert all_different(*(torch.from_numpy(a) for a in arrays))


@pytest.mark.parametrize("far", [1 << 32, 1 << 33, 1 << 40, (1 << 64) + 5, 1 << 200])
def test_seeds_that_agree_in_their_low_bits_give_other_numbers(far: int) -> None:
    near, distant = (torch.rand(8, generator=seeds.generator("test data", n)) for n in (far % (1 << 32), far))
    assert not torch.equal(near, distant)


@pytest.mark.parametrize("bad", [-1, 0.5, "0", None, True])
def test_other_seeds_are_refused(bad: Any) -> None:
    for make in (seeds.generator, seeds.numpy_generator):
        with pytest.raises(hl.errors.ParameterError, match="seed must be a whole number"):
            make("test data", bad)


class Recorder:
    """A task that remembers what was drawn."""

    n_inputs, n_outputs, length, form = 2, 1, 3, "regression"

    def __init__(self) -> None:
        self.drawn: list[Tensor] = []

    def sample(self, n: int, *, generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        inputs = torch.randn(n, 3, 2, generator=generator, dtype=F64)
        self.drawn.append(inputs)
        return inputs.to(dtype), inputs.sum(dim=(1, 2))[:, None].to(dtype)


def test_what_training_sees_is_neither_tested_on_nor_seen_by_another_seed() -> None:
    task = Recorder()
    result = hl.train(task, hl.recipes.none(), seeds=TEN, hidden=3, steps=40, batch=4, dtype=F64)
    *training, test = task.drawn
    assert len(test) == 4096
    assert len(training) >= 2 * len(TEN)
    # what training began with: networks of the same seeds, before the first step
    start = create_ensemble(
        TEN, ["gaussian"] * len(TEN), n_inputs=2, hidden=3, n_outputs=1, length=3, dtype=F64
    )
    weights = [start.weight[:, :3] * 3**0.5, start.weight[:, 3:5] * 2**0.5, start.readout * 3**0.5]
    assert result.ensemble.size == len(TEN)
    assert all_different(*training, test, *weights)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_gates_and_candidates_of_all_seeds_have_numbers_of_their_own(cell: str) -> None:
    h, i = 4, 3
    ensemble = create_ensemble(
        TEN, ["gaussian"] * len(TEN), cell=cell, n_inputs=i, hidden=h, n_outputs=2, length=6, dtype=F64
    )
    standard = torch.cat([ensemble.weight[:, :h] * h**0.5, ensemble.weight[:, h:-1] * i**0.5], dim=1)
    drawn = [part[part != 0] for part in (standard, ensemble.readout * h**0.5)]
    gates = {"gru": 2, "lstm": 3}[cell]
    assert len(drawn[0]) == len(TEN) * (gates + 1) * h * (h + i)
    assert all_different(*drawn)


def test_order_of_data_and_dropout_do_not_follow_one_another() -> None:
    data = hl.data.load("digits-rows")
    stream = SetStream(data, TEN, 8, torch.device("cpu"), torch.float32)
    drawn = [torch.rand(8, generator=g, dtype=F64) for g in (*stream.sources, *stream.noises)]
    assert all_different(*drawn)


@pytest.mark.parametrize("name", ["cartpole", "pendulum"])
def test_closed_loops_start_where_no_recorded_episode_did(name: str) -> None:
    plant = plant_of(name)
    recorded = plant.start(20, seeds.bare_generator(0))
    tried = plant.start(20, seeds.generator("closed-loop starts", 0))
    assert not bool(torch.isclose(recorded[:, None], tried[None], atol=1e-12).all(dim=-1).any())


def test_parts_of_a_definition_are_those_of_earlier_versions() -> None:
    """Stored networks are read with the tasks and splits that they were trained on."""
    assert seeds.signal_order(8, 0) == torch.randperm(8, generator=torch.Generator().manual_seed(0)).tolist()
    assert seeds.split_generator(3).integers(100, size=5).tolist() == (
        np.random.default_rng(3).integers(100, size=5).tolist()
    )
