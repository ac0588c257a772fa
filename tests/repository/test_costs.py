"""The cost model counts work by hand-checkable rules, and its fit finds what made the times."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields, replace

import numpy as np
import pytest
import torch
from costs import (
    CALLS,
    NOTHING,
    REFERENCE,
    Machine,
    StepTimer,
    calibrate,
    fit_times,
    predict_seconds,
    work_of_step,
    work_of_test,
)

import hoplens as hl
from hoplens import recipes
from hoplens.penalties.schedules import window
from hoplens.training.recipes import PathwaySpec, Recipe, Term, WeightSpec
from hoplens.training.settings import Network, Settings

TASK = hl.tasks.make("averaging", modules=2, module_size=3, outputs_per_module=2, length=5)  # I = 6, O = 4
SETTINGS = Settings(hidden=8, batch=16, steps=100)


def networks(recipe, seeds):
    return [Network(recipe, 1e-3, seed) for seed in seeds]


def test_work_of_a_step_by_hand():
    work = work_of_step(TASK, networks(recipes.none(), [0, 0, 1]), SETTINGS)
    e, h, length, b, i, o, width = 3, 8, 5, 16, 6, 4, 15
    assert work.multiply == e * b * (length * 2 * h * width + (length - 1) * h * h + 3 * o * h)
    assert work.state == e * length * h * b
    assert work.weight == e * h * width
    assert work.copy == e * length * b * i
    assert work.draw == 2 * length * b * i  # two seeds draw
    assert (work.step, work.tick, work.far, work.pathway, work.weights) == (1, length, 0, 0, 0)


def test_penalties_count_by_group_and_network():
    mixed = [*networks(recipes.l1(), [0, 1]), *networks(recipes.paper(), [0, 1, 2])]
    work = work_of_step(TASK, mixed, SETTINGS)
    h, length = 8, 5
    assert (work.weights, work.entry) == (1, 2 * h * (h + 6 + 4))
    assert (work.pathway, work.hop) == (1, length)
    assert work.hop_product == 3 * 3 * length
    assert work.hop_multiply == 3 * 3 * length * 4 * h * h  # from the side of 4 outputs
    same_terms = [
        *networks(recipes.paper(), [0]),
        *networks(recipes.paper().with_start(name="other", init="delay"), [0]),
    ]
    assert work_of_step(TASK, same_terms, SETTINGS).pathway == 1


def test_savings_and_schedules_cost_their_share():
    def hops(*terms):
        return work_of_step(TASK, networks(Recipe("x", terms), [0]), SETTINGS)

    whole = hops(Term(PathwaySpec()))
    assert hops(Term(PathwaySpec(every=2))).hop_multiply == whole.hop_multiply / 2
    assert hops(Term(PathwaySpec(sample=2))).hop_multiply == whole.hop_multiply / 2
    assert hops(Term(PathwaySpec(), schedule=window(0.5, 1.0))).hop == pytest.approx(whole.hop / 2)
    assert hops(Term(PathwaySpec(), weight=0.0)).hop == 0
    both = hops(Term(lambda length: hl.PathwayPenalty(length) + hl.WeightPenalty()))
    assert (both.hop, both.weights) == (whole.hop, 1)

    class Own(hl.Penalty):
        def forward(self, net):
            return net.w_rec.square().sum((-2, -1))

    assert hops(Term(lambda length: Own())) == whole  # all that is known of it: as a pathway penalty
    assert hops(Term(WeightSpec())).hop == 0


@dataclass(frozen=True)
class EveryStep:
    n_inputs: int = 6
    n_outputs: int = 4
    length: int = 5
    form: str = "regression"

    def sample(self, n, *, generator, dtype):
        x = torch.randn(n, 5, 6, generator=generator, dtype=dtype)
        return x, x[..., :4]


def test_a_read_out_after_every_step_counts_every_step():
    one, all_steps = (work_of_step(t, networks(recipes.none(), [0]), SETTINGS) for t in (TASK, EveryStep()))
    assert all_steps.multiply - one.multiply == 16 * 3 * 4 * 4 * 8  # four more read-outs, B 3 O H each


def test_prediction_is_steps_times_step_and_the_test():
    nets = networks(recipes.recommended(), range(3))
    step = REFERENCE.seconds(work_of_step(TASK, nets, SETTINGS))
    test = REFERENCE.seconds(work_of_test(TASK, 3, SETTINGS))
    assert predict_seconds(TASK, nets, SETTINGS) == pytest.approx(100 * step + test)
    double = REFERENCE.scaled(2.0, 2.0)
    assert predict_seconds(TASK, nets, SETTINGS, machine=double) == pytest.approx(2 * (100 * step + test))
    # more networks, units, steps and samples never cost less
    for more in ({"hidden": 16}, {"steps": 101}, {"batch": 32}):
        assert predict_seconds(TASK, nets, replace(SETTINGS, **more)) > predict_seconds(TASK, nets, SETTINGS)
    assert predict_seconds(TASK, nets * 2, SETTINGS) > predict_seconds(TASK, nets, SETTINGS)
    with pytest.raises(hl.errors.ParameterError, match="at least one network"):
        predict_seconds(TASK, [], SETTINGS)


def test_every_coefficient_is_a_positive_time():
    assert all(value > 0 for value in astuple(REFERENCE))
    assert set(CALLS) < {f.name for f in fields(Machine)}
    calls, rest = REFERENCE.scaled(2.0, 1.0), REFERENCE.scaled(1.0, 3.0)
    assert (calls.step, calls.multiply) == (2 * REFERENCE.step, REFERENCE.multiply)
    assert (rest.step, rest.multiply) == (REFERENCE.step, 3 * REFERENCE.multiply)


def test_the_fit_finds_what_made_the_times():
    rng = np.random.default_rng(0)
    parts = rng.uniform(0.1, 1.0, size=(40, 4)) * [1.0, 1e3, 1e6, 1e9]
    wanted = np.array([1e-4, 1e-6, 1e-9, 1e-12])
    times = parts @ wanted
    np.testing.assert_allclose(fit_times(parts, times), wanted, rtol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_disturbed_times_hardly_move_the_fit(seed):
    rng = np.random.default_rng(seed)
    parts = rng.uniform(0.1, 1.0, size=(40, 4)) * [1.0, 1e3, 1e6, 1e9]
    wanted = np.array([1e-4, 1e-6, 1e-9, 1e-12])
    slow = np.ones(40)
    slow[rng.permutation(40)[:6]] = rng.uniform(1.5, 4.0, size=6)  # something else ran meanwhile
    true = parts @ wanted
    np.testing.assert_allclose(fit_times(parts, true * slow), wanted, rtol=0.05)
    noisy = fit_times(parts, true * slow * rng.normal(1.0, 0.02, size=40))
    np.testing.assert_allclose(parts @ noisy, true, rtol=0.05)  # what is predicted with it


def test_a_timer_leaves_threads_and_random_numbers_alone_and_trains_on():
    before = torch.get_rng_state()
    timer = StepTimer(TASK, networks(recipes.recommended(), [0, 1]), SETTINGS)
    assert 0 < timer.run(16) < 1
    assert torch.equal(before, torch.get_rng_state())
    threads = torch.get_num_threads()
    found = calibrate(rounds=1)
    assert torch.get_num_threads() == threads
    ratios = np.array(astuple(found)) / np.array(astuple(REFERENCE))
    assert len(set(np.round(ratios, 9))) <= 2  # two factors
    assert (ratios > 0.01).all()
    assert found.seconds(NOTHING) == 0.0


def test_a_training_takes_about_what_is_predicted():
    """Loose, as other work may share the machine: docs/scaling.md has the figures of a quiet one."""
    nets, settings = networks(recipes.paper(), range(16)), Settings(hidden=24, steps=60)
    timer = StepTimer(TASK, nets, settings)
    measured = min(timer.run(16) for _ in range(3))
    predicted = calibrate(rounds=2).seconds(work_of_step(TASK, nets, settings))
    assert 0.4 < predicted / measured < 2.5
