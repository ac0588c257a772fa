"""Benchmarks that cannot run everywhere compare the same thing, and stop cleanly."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from places import ROOT
from size import full

import hoplens as hl
from hoplens.training.objective import Objective

FOLDER = ROOT / "benchmarks"
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
    objective = Objective(nets, gpu.BATCHES, [gpu.penalty_group(2, CPU)], length=20)
    losses = objective.run(inputs, targets, None, progress=0.5)
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
    assert 0 <= float(gpu.measure(lambda: lambda: None, CPU, 0.0, 2.0)) < 1


@pytest.mark.parametrize(
    "name",
    [
        "bench_readers", "cost_plot", "gpu", "latency", "penalty_cost", "penalty_memory", "pruning",
        "pruning_gated", "quantising", "range_cost", "reducing", "savings", "solve_scale", "sparse_scale",
        "windows",
    ],
)  # fmt: skip
def test_every_benchmark_reports_the_same_way(name, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module(name)
    seconds, full = inspect.signature(module.report).parameters.values()
    assert (seconds.name, full.name, full.kind) == ("seconds", "full", full.KEYWORD_ONLY)
    assert 0 < seconds.default <= 60 or name == "gpu"
    assert "run(report, __doc__" in (FOLDER / f"{name}.py").read_text()


@full
def test_a_short_report_is_a_table_with_its_aims(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("range_cost")
    monkeypatch.setattr(module, "HORIZON", 20)
    lines = module.report(0.0).splitlines()
    assert len(lines) == 2 + 2 * 3
    assert len({line.count("|") for line in lines}) == 1
    assert all("at most 1.2: " in line for line in lines[2:] if "plain" not in line)


def test_networks_of_an_ensemble_run_and_tune_as_one_batch_like_one_by_one(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    batched = importlib.import_module("batched")
    task = hl.tasks.make("averaging", modules=2, length=4)
    ensemble = hl.train(task, hl.recipes.none(), seeds=range(3), hidden=5, steps=2).ensemble
    inputs, _ = data = batched.samples(task, 40, 1)
    models = batched.models_of(ensemble)
    tensors = batched.tensors_of(ensemble)
    torch.testing.assert_close(batched.outputs(tensors, inputs), ensemble.predict(inputs))
    for row, model in enumerate(models):
        torch.testing.assert_close(model(inputs), ensemble.predict(inputs)[row])
    again = batched.stacked(models)
    assert all(torch.equal(value, again[name]) for name, value in tensors.items())
    whole = batched.tune(tensors, data, steps=5, lr=1e-2)
    alone = batched.tune(batched.stacked(models[1:2]), data, steps=5, lr=1e-2)
    torch.testing.assert_close(whole["core.weight_hh_l0"][1:2], alone["core.weight_hh_l0"])
    assert (batched.explained(whole, data) > batched.explained(tensors, data)).all()


def test_each_network_gets_its_best_grids(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    batched, quantising = importlib.import_module("batched"), importlib.import_module("quantising")
    task = hl.tasks.make("averaging", modules=2, length=4)
    ensemble = hl.train(task, hl.recipes.none(), seeds=range(2), hidden=5, steps=2).ensemble
    inputs, _ = batched.samples(task, 40, 1)
    tensors = batched.tensors_of(ensemble)
    on_grid, _, grids = quantising.quantised(tensors, "int4", inputs)
    got = batched.outputs(on_grid, inputs, quantising.rounded(grids))
    for row, model in enumerate(batched.models_of(ensemble)):
        alone = hl.quantise(model, "int4", inputs=inputs)
        torch.testing.assert_close(got[row], alone.simulate(inputs), rtol=1e-3, atol=1e-4)
