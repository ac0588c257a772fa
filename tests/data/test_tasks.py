"""One contract for all tasks: the declared hop maps produce the targets from the inputs."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hoplens as hl
from hoplens import tasks
from hoplens.data.tasks import FUNCTIONS, SIGNALS
from hoplens.studies.testing import check_task

FORMS = ("regression", "sign")
OPTIONS = {
    "every": {},
    "on-off": {"length": 7},
    "sparse": {"length": 12, "seed": 3},
}
ALL = list(itertools.product(tasks.names(), SIGNALS, FORMS))
every_task = pytest.mark.parametrize(("name", "signal", "form"), ALL)
SAMPLES = 20_000


def make(name, signal, form="regression", **options):
    options = {**OPTIONS[signal], "modules": 4, "module_size": 3, "outputs_per_module": 2, **options}
    return tasks.make(name, signal=signal, form=form, **options)


def test_the_contract_covers_all_there_is():
    assert set(tasks.names()) == set(FUNCTIONS) >= {"averaging", "subtraction", "addition", "multiplication"}
    assert set(SIGNALS) == set(OPTIONS)


# the contract


@every_task
def test_the_contract(name, signal, form):
    check_task(make(name, signal, form), samples=SAMPLES)
    check_task(make(name, signal, form, target_noise=0.5), standardised=False, portable=False)


@every_task
def test_what_the_contract_leaves_open(name, signal, form):
    """Targets come to the bit from the clean ones, and the mean input gives the mean target."""
    task = make(name, signal, form)
    batch = task.sample(64, generator=0, dtype=torch.float64)
    clean = task.clean_targets(batch.inputs)
    assert torch.equal(batch.targets, clean if form == "regression" else (clean > 0).double())
    mean_target = task.clean_targets(task.mean_input)
    torch.testing.assert_close(mean_target, torch.zeros_like(mean_target), rtol=0, atol=1e-12)


@every_task
def test_a_linear_network_with_the_declared_maps_solves_the_task(name, signal, form):
    """The maps are hop maps of a real network: a delay line for each input."""
    task = make(name, signal, form, module_size=1, outputs_per_module=1, length=5)
    length, size = task.length, task.n_inputs
    shift = torch.diag(torch.ones(length - 1, dtype=torch.float64), -1)
    net = hl.Pathways(
        torch.kron(torch.eye(length, 1).double(), torch.eye(size).double()),
        torch.kron(shift, torch.eye(size).double()),
        torch.cat(list(task.target_maps), dim=1),
    )
    maps = hl.hop_maps(net, horizon=length)
    torch.testing.assert_close(maps.values, task.target_maps, rtol=0, atol=1e-12)
    assert hl.alignment(maps, task.target_maps).item() == pytest.approx(1.0)
    assert hl.analysis.signal_share(maps, task.signal_hops).item() == pytest.approx(1.0)


@every_task
def test_targets_have_mean_0_and_variance_1(name, signal, form):
    task = make(name, signal, form)
    inputs, targets = task.sample(SAMPLES, generator=1, dtype=torch.float64)
    clean = task.clean_targets(inputs)
    # six standard errors; the fourth moment of a product of normals is up to 20
    assert clean.mean(dim=0).abs().max() < 6 / math.sqrt(SAMPLES)
    assert (clean.var(dim=0) - 1).abs().max() < 6 * math.sqrt(20 / SAMPLES)
    if form == "sign":
        assert set(targets.unique().tolist()) == {0.0, 1.0}
        # half are positive, but for a product, whose median lies below its mean
        assert (targets.mean(dim=0) - 0.5).abs().max() < (6 / math.sqrt(SAMPLES) if task.is_linear else 0.25)


@every_task
def test_signal_hops_match_signal_steps(name, signal, form):
    task = make(name, signal, form)
    length = task.length
    assert task.signal_hops.dtype == torch.bool
    assert task.signal_hops.shape == (length,)
    for step in range(length):
        hop = 2 + (length - 1 - step)  # the last step is hop 2
        assert bool(task.signal_hops[hop - 2]) == (step in task.signal_steps)
    carried = task.target_maps.abs().sum(dim=(1, 2)) > 0
    assert torch.equal(carried, task.signal_hops)


@every_task
def test_shapes_types_and_names(name, signal, form):
    task = make(name, signal, form)
    inputs, targets = task.sample(5, generator=0)
    assert inputs.shape == (5, task.length, task.n_inputs) == (5, task.length, 12)
    assert targets.shape == (5, task.n_outputs) == (5, 8)
    assert inputs.dtype == targets.dtype == torch.float32  # the default
    seeded = task.sample(5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(inputs, seeded.inputs)
    assert torch.equal(targets, seeded.targets)
    assert task.target_maps.shape == (task.length, 8, 12)
    assert task.target_maps.dtype == task.mean_input.dtype == torch.float64
    assert task.input_modules == ("m0",) * 3 + ("m1",) * 3 + ("m2",) * 3 + ("m3",) * 3
    assert task.output_modules == ("m0",) * 2 + ("m1",) * 2 + ("m2",) * 2 + ("m3",) * 2
    assert name in task.label
    assert signal in task.label
    assert ("sign" in task.label) == (form == "sign")


# what each function computes


def test_functions_combine_modules_with_their_siblings():
    inputs = torch.zeros(1, 1, 4)
    inputs[0, 0] = torch.tensor([5.0, 3.0, 2.0, 7.0])  # one input a module, so that aggregates are inputs
    wanted = {
        "averaging": [5.0, 3.0, 2.0, 7.0],
        "subtraction": [2.0, -2.0, -5.0, 5.0],
        "addition": [8.0, 8.0, 9.0, 9.0],
        "multiplication": [14.0, 14.0, 13.0, 13.0],
    }
    scale = {"averaging": 1.0, "subtraction": 2.0, "addition": 2.0, "multiplication": 3.0}
    for name, targets in wanted.items():
        task = tasks.make(name, modules=4, module_size=1, length=1)
        got = task.clean_targets(inputs)[0] * math.sqrt(scale[name])
        assert got.tolist() == pytest.approx(targets, rel=1e-6), name


def test_only_products_are_not_linear():
    assert {name for name in tasks.names() if not tasks.make(name).is_linear} == {"multiplication"}


def test_target_maps_of_subtraction_by_hand():
    task = tasks.make("subtraction", signal="sparse", lag=1, modules=2, module_size=2, length=3)
    half = 1 / math.sqrt(2) / math.sqrt(2)
    hop_3 = torch.tensor([[half, half, -half, -half], [-half, -half, half, half]], dtype=torch.float64)
    maps = torch.stack([torch.zeros(2, 4).double(), hop_3, torch.zeros(2, 4).double()])
    torch.testing.assert_close(task.target_maps, maps, rtol=0, atol=1e-12)
    assert task.target_active_hops == 1.0
    assert tasks.make("averaging", signal="sparse", lag=1, modules=4).target_active_hops == 0.25


# signals


@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_signal_patterns(length):
    assert tasks.make("averaging", length=length).signal_steps == tuple(range(length))
    on_off = tasks.make("averaging", signal="on-off", length=length).signal_steps
    assert on_off[-1] == length - 1
    assert all(b - a == 2 for a, b in itertools.pairwise(on_off))
    assert len(on_off) == (length + 1) // 2
    for lag in range(length):
        task = tasks.make("averaging", signal="sparse", length=length, lag=lag)
        assert task.signal_steps == (length - 1 - lag,)
        assert task.is_one_lag
        assert f"(lag {lag})" in task.label
        assert task.signal_hops.nonzero().flatten().tolist() == [lag]


@given(st.integers(1, 20), st.integers(0, 1000), st.data())
def test_sparse_steps_are_drawn_by_the_seed(length, seed, data):
    count = data.draw(st.none() | st.integers(1, length))

    def draw(seed):
        return tasks.make("averaging", signal="sparse", length=length, steps=count, seed=seed).signal_steps

    steps = draw(seed)
    assert len(set(steps)) == len(steps) == (max(1, length // 4) if count is None else count)
    assert list(steps) == sorted(steps)
    assert set(steps) <= set(range(length))
    assert draw(seed) == steps


def test_seeds_draw_different_steps():
    drawn = {tasks.make("averaging", signal="sparse", length=20, seed=seed).signal_steps for seed in range(5)}
    assert len(drawn) == 5


@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0])
def test_noise_is_on_the_other_steps_only(noise):
    task = tasks.make("addition", signal="on-off", length=4, noise=noise)
    spread = task.sample(SAMPLES, generator=0, dtype=torch.float64).inputs.std(dim=(0, 2))
    wanted = torch.tensor([noise, 1.0, noise, 1.0], dtype=torch.float64)
    torch.testing.assert_close(spread, wanted, rtol=0.02, atol=0)


@pytest.mark.parametrize("name", ["addition", "multiplication"])
def test_target_noise_is_in_units_of_the_targets(name):
    task = tasks.make(name, target_noise=0.5)
    inputs, targets = task.sample(SAMPLES, generator=0, dtype=torch.float64)
    noise = targets - task.clean_targets(inputs)
    assert noise.std().item() == pytest.approx(0.5, rel=0.02)
    assert abs(noise.mean().item()) < 0.01
    plain = tasks.make(name).sample(SAMPLES, generator=0, dtype=torch.float64)
    assert torch.equal(plain.inputs, inputs)  # the noise is drawn after the inputs


# errors


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("subtracting", {}, hl.errors.UnknownNameError, "did you mean 'subtraction'"),
        ("addition", {"signal": "onoff"}, hl.errors.UnknownNameError, "did you mean 'on-off'"),
        ("addition", {"form": "signs"}, hl.errors.UnknownNameError, "did you mean 'sign'"),
        ("addition", {"modules": 3}, hl.errors.ParameterError, "modules must be even, got 3"),
        ("addition", {"modules": 0}, hl.errors.ParameterError, "modules"),
        ("addition", {"module_size": 0}, hl.errors.ParameterError, "module_size"),
        ("addition", {"outputs_per_module": 1.5}, hl.errors.ParameterError, "outputs_per_module"),
        ("addition", {"length": 0}, hl.errors.ParameterError, "length"),
        ("addition", {"noise": -0.1}, hl.errors.ParameterError, "noise"),
        ("addition", {"target_noise": math.nan}, hl.errors.ParameterError, "target_noise"),
        ("addition", {"lag": 2}, hl.errors.ParameterError, 'signal="sparse"'),
        ("addition", {"steps": 2, "signal": "on-off"}, hl.errors.ParameterError, 'signal="sparse"'),
        ("addition", {"signal": "sparse", "lag": 8}, hl.errors.ParameterError, "below the length 8, got 8"),
        ("addition", {"signal": "sparse", "lag": -1}, hl.errors.ParameterError, "lag"),
        (
            "addition",
            {"signal": "sparse", "steps": 9},
            hl.errors.ParameterError,
            "at most the length 8, got 9",
        ),
        ("addition", {"signal": "sparse", "steps": 0}, hl.errors.ParameterError, "steps"),
        ("addition", {"signal": "sparse", "lag": 1, "steps": 1}, hl.errors.ParameterError, "not both"),
        ("addition", {"signal": "sparse", "seed": 0.5}, hl.errors.ParameterError, "seed"),
    ],
    ids=str,
)
def test_options_are_checked(name, options, error, message):
    with pytest.raises(error, match=message):
        tasks.make(name, **options)


def test_an_odd_number_of_modules_is_fine_without_siblings():
    task = tasks.make("averaging", modules=3)
    assert task.sample(2, generator=0).targets.shape == (2, 3)


def test_sampling_checks_what_it_is_given():
    task = tasks.make("addition")
    for n in (0, 2.5):
        with pytest.raises(hl.errors.ParameterError, match="n must be"):
            task.sample(n, generator=0)
    for seed in (1.5, "0", None, -1):
        with pytest.raises(hl.errors.ParameterError, match="generator"):
            task.sample(2, generator=seed)
    with pytest.raises(hl.errors.ShapeError, match=r"L=8, I=16\), got \(2, 7, 16\)"):
        task.clean_targets(torch.zeros(2, 7, 16))
