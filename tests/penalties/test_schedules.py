"""Factors over training, and penalties that follow them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from twins import assert_near, random_network

import hoplens as hl

shares = st.floats(0.0, 1.0)


@given(shares, st.floats(-3, 3))
def test_a_constant_never_changes(progress, factor):
    assert hl.schedules.constant(factor)(progress) == factor
    assert hl.schedules.constant()(progress) == 1.0


@given(st.lists(st.tuples(shares, st.floats(-3, 3)), min_size=1, max_size=5), shares)
def test_a_schedule_is_linear_between_its_points(points, progress):
    points = sorted(points, key=lambda point: point[0])
    got = hl.schedules.Schedule(tuple(points))(progress)
    before = [point for point in points if point[0] <= progress]
    after = [point for point in points if point[0] > progress]
    if not before:
        assert got == after[0][1]
    elif not after:
        assert got == before[-1][1]
    else:
        (x0, y0), (x1, y1) = before[-1], after[0]
        assert got == pytest.approx(y0 + (y1 - y0) * (progress - x0) / (x1 - x0), abs=1e-9)


def test_two_points_at_one_place_make_a_jump():
    jump = hl.schedules.Schedule(((0.5, 1.0), (0.5, 3.0)))
    assert jump(math.nextafter(0.5, 0)) == 1.0
    assert jump(0.5) == 3.0  # right after the jump: the new one


@pytest.mark.parametrize(
    "points",
    [
        (),
        ((0.5, 1.0), (0.4, 1.0)),
        ((-0.1, 1.0),),
        ((0.0, 1.0), (1.1, 1.0)),
        ((math.nan, 1.0),),
        ((0.0, math.nan),),
        ((0.0, math.inf),),
        ((0.5,),),
        ((0.5, 1.0, 2.0),),
        (("a", 1.0),),
    ],
    ids=str,
)
def test_points_are_checked(points):
    with pytest.raises(hl.errors.ParameterError):
        hl.schedules.Schedule(points)


def test_a_schedule_made_of_lists_equals_one_made_of_tuples():
    assert hl.schedules.Schedule([[0, 1], [0.5, 2]]) == hl.schedules.Schedule(((0.0, 1.0), (0.5, 2.0)))
    assert len({hl.schedules.Schedule([[0, 1]]), hl.schedules.constant()}) == 1


def test_warm_up_rises_linearly():
    rise = hl.schedules.warm_up(0.6, start=0.2)
    got = [rise(p) for p in (0.0, 0.2, 0.3, 0.4, 0.6, 0.9, 1.0)]
    assert got == pytest.approx([0, 0, 0.25, 0.5, 1, 1, 1])
    assert hl.schedules.warm_up(0.5)(0.25) == pytest.approx(0.5)


def test_a_window_is_open_between_its_ends():
    sharp = hl.schedules.window(0.2, 0.7)
    assert [sharp(p) for p in (0.0, 0.19, 0.2, 0.5, 0.69, 0.7, 1.0)] == [0, 0, 1, 1, 1, 0, 0]
    soft = hl.schedules.window(0.2, 0.7, ramp=0.4)
    assert [soft(p) for p in (0.1, 0.2, 0.4, 0.6, 0.65, 0.7)] == pytest.approx([0, 0, 0.5, 1, 1, 0])
    assert [hl.schedules.window(0.0, 1.0)(p) for p in (0.0, 0.5, 1.0)] == [1, 1, 1]
    assert [hl.schedules.window(0.5, 1.0)(p) for p in (0.0, 0.49, 0.5, 1.0)] == [0, 0, 1, 1]
    assert [hl.schedules.window(0.0, 0.5)(p) for p in (0.0, 0.49, 0.5, 1.0)] == [1, 1, 0, 0]


@given(shares, shares, st.floats(0, 1), shares)
def test_every_legal_window_can_be_made_and_stays_between_0_and_1(a, b, part, progress):
    start, stop = min(a, b), max(a, b)
    if start == stop:
        with pytest.raises(hl.errors.ParameterError):
            hl.schedules.window(start, stop)
        return
    factor = hl.schedules.window(start, stop, ramp=part * (stop - start))(
        progress
    )  # part 1 may round up beyond stop
    assert 0.0 <= factor <= 1.0
    if progress < start or (progress >= stop and stop < 1):
        assert factor == 0.0


def test_the_longest_ramp_of_a_window_may_round_beyond_its_end():
    assert 0.15 + (0.45 - 0.15) > 0.45
    assert hl.schedules.window(0.15, 0.45, ramp=0.45 - 0.15)(0.3) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (hl.schedules.warm_up, (0.0,)),
        (hl.schedules.warm_up, (1.1,)),
        (hl.schedules.warm_up, (0.5, 0.5)),
        (hl.schedules.warm_up, (0.5, -0.1)),
        (hl.schedules.warm_up, (math.nan,)),
        (hl.schedules.window, (0.5, 0.5)),
        (hl.schedules.window, (-0.1, 0.5)),
        (hl.schedules.window, (0.5, 1.1)),
        (hl.schedules.window, (0.2, 0.4, 0.3)),
        (hl.schedules.window, (0.2, 0.4, -0.1)),
        (hl.schedules.constant, (math.nan,)),
    ],
)
def test_ranges_are_checked(make, arguments):
    with pytest.raises(hl.errors.ParameterError):
        make(*arguments)


# penalties over training


def test_a_scheduled_penalty_weighs_its_terms_by_progress():
    net = random_network(batch=(3,))
    a, b = hl.PathwayPenalty(4), hl.WeightPenalty()
    penalty = hl.schedules.ScheduledPenalty(
        [(2.0, a, hl.schedules.warm_up(0.5)), (3.0, b, hl.schedules.window(0.0, 0.5))]
    )
    for progress in (0.0, 0.1, 0.25, 0.49, 0.5, 0.75, 1.0):
        wanted = 2 * min(1, 2 * progress) * a(net) + 3 * (progress < 0.5) * b(net)
        assert_near(penalty(net, progress), wanted)
    assert_near(hl.schedules.ScheduledPenalty([])(net, 0.5), torch.zeros(3, dtype=torch.float64))


def test_terms_that_do_not_count_are_not_computed():
    class Costly(hl.Penalty):
        def forward(self, net):
            raise AssertionError("computed")

    cheap = hl.WeightPenalty()
    penalty = hl.schedules.ScheduledPenalty(
        [(1.0, Costly(), hl.schedules.window(0.5, 1.0)), (2.0, cheap, hl.schedules.constant())]
    )
    net = random_network()
    assert_near(penalty(net, 0.2), 2 * cheap(net))
    assert penalty.active(0.2) == [(2.0, cheap)]
    with pytest.raises(AssertionError, match="computed"):
        penalty(net, 0.5)


@pytest.mark.parametrize("ramp", [0.0, 0.25])
def test_switch_hands_over(ramp):
    net = random_network()
    first, second = hl.PathwayPenalty(4, across="sum"), hl.PathwayPenalty(4)
    penalty = hl.schedules.switch(first, second, at=0.5, ramp=ramp)
    assert_near(penalty(net, 0.0), first(net))
    assert_near(penalty(net, 0.49), first(net))
    assert_near(penalty(net, 0.5), second(net) * (0.0 if ramp else 1.0))
    assert_near(penalty(net, 0.6), second(net) * (0.4 if ramp else 1.0))
    assert_near(penalty(net, 1.0), second(net))


def test_switch_and_terms_are_checked():
    for at in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(hl.errors.ParameterError):
            hl.schedules.switch(hl.WeightPenalty(), hl.WeightPenalty(), at=at)
    with pytest.raises(hl.errors.ParameterError, match="Identity"):
        hl.schedules.ScheduledPenalty([(1.0, nn.Identity(), hl.schedules.constant())])
    with pytest.raises(hl.errors.ParameterError, match="weight of a penalty"):
        hl.schedules.ScheduledPenalty([(math.inf, hl.WeightPenalty(), hl.schedules.constant())])
    with pytest.raises(hl.errors.UnsupportedModelError, match="RNN"):
        hl.schedules.ScheduledPenalty([])(nn.RNN(2, 3), 0.5)
