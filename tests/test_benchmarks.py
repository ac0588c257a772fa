"""Benchmarks that cannot run everywhere compare the same thing, and stop cleanly."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import hoplens as hl
from hoplens.objective import FusedObjective

FOLDER = Path(__file__).parent.parent / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("gpu")


def test_without_a_gpu_it_says_so_in_one_line_and_succeeds():
    script = FOLDER / "gpu.py"
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=hidden)
    assert result.returncode == 0
    assert result.stdout == "no CUDA device at hand: nothing was measured\n"


def test_its_report_is_that_line_too(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.report(1.0) == gpu.NO_DEVICE


def test_the_compiled_contestant_computes_what_ours_does(gpu):
    nets, (inputs, targets) = gpu.ensemble(2, 6, CPU), gpu.data(2, CPU)
    objective = FusedObjective(
        nets, [gpu.penalty_group(2, CPU)], batch=64, length=20, form="regression", every_step=False
    )
    losses = objective.run(inputs, targets, 0.5)
    leaves = [tensor.clone().requires_grad_() for tensor in nets.tensors]
    value = gpu.plain_loss(*leaves, inputs, targets)
    penalty = hl.PathwayPenalty(20)(nets.pathways())
    torch.testing.assert_close(value.detach(), (losses + gpu.STRENGTH * penalty).sum())
    for got, wanted in zip(torch.autograd.grad(value, leaves), objective.grads, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


def test_its_checks_see_a_difference_and_pass_without_one(gpu, monkeypatch):
    found = gpu.differences(CPU)
    assert len(found) == 10
    assert max(found.values()) == 0.0
    other = iter([1.0, 1.001])
    plain = gpu.penalty_group
    monkeypatch.setattr(
        gpu,
        "penalty_group",
        lambda n, where: replace(plain(n, where), strengths=torch.full((n,), next(other))),
    )
    found = gpu.differences(CPU)
    assert found["step by weight"] > gpu.TOLERANCE
    assert found["penalty by w_rec"] == 0.0


def test_every_contestant_runs_and_is_timed(gpu, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    (row,) = gpu.rows([(10, 5)], CPU, 0.0)
    assert row[:2] == ["10", "5"]
    assert len(row) == 6
    assert all(float(cell) > 0 for cell in row[2:])


def test_a_size_that_does_not_fit_or_compile_is_said_as_such(gpu):
    def too_large():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    def broken():
        raise NotImplementedError("no backend")

    assert gpu.measure(too_large, CPU, 0.0) == "out of memory"
    assert gpu.measure(broken, CPU, 0.0) == "failed: NotImplementedError"
    assert gpu.measure(lambda: lambda: None, CPU, 0.0, 2.0) == "0.00"


@pytest.mark.parametrize(
    "name",
    [
        "bench_readers", "cost_plot", "gpu", "penalty_cost", "penalty_memory", "pruning", "pruning_gated",
        "range_cost", "savings", "solve_scale", "sparse_scale",
    ],
)  # fmt: skip
def test_every_benchmark_reports_the_same_way(name, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module(name)
    seconds, full = inspect.signature(module.report).parameters.values()
    assert (seconds.name, full.name, full.kind) == ("seconds", "full", full.KEYWORD_ONLY)
    assert 0 < seconds.default <= 60 or name == "gpu"
    assert "run(report, __doc__" in (FOLDER / f"{name}.py").read_text()


def test_a_short_report_is_a_table_with_its_aims(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("range_cost")
    monkeypatch.setattr(module, "HORIZON", 20)
    lines = module.report(0.0).splitlines()
    assert len(lines) == 2 + 2 * 3
    assert len({line.count("|") for line in lines}) == 1
    assert all("at most 1.2: " in line for line in lines[2:] if "plain" not in line)
