"""A graph of each step: maps, walks, shares and lesions against every walk one by one."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from twins import assert_near

import hoplens as hl

F64 = torch.float64
STEPS, UNITS = 4, 3


def draw(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def network():
    blocks = draw(STEPS, UNITS, 2, seed=1), draw(STEPS, UNITS, UNITS, seed=2), draw(STEPS, 2, UNITS, seed=3)
    blocks[1][1, 0, 2] = 0.0
    return hl.Pathways(*blocks, steps=True)


def walks(net, source, target, lag):
    """Every walk of an input ``lag`` steps before the read-out: {units: product}."""
    found = {}
    for units in itertools.product(range(UNITS), repeat=lag + 1):
        product = float(net.w_in[lag, units[0], source]) * float(net.w_out[0, target, units[-1]])
        for n, (tail, head) in enumerate(itertools.pairwise(units)):
            product *= float(net.w_rec[lag - 1 - n, head, tail])
        found[units] = product
    return found


@pytest.mark.parametrize("lag", range(STEPS))
def test_top_paths_are_the_strongest_of_all_walks(lag):
    net = network()
    every = walks(net, 1, 0, lag)
    assert sum(every.values()) == pytest.approx(float(hl.hop_maps(net).values[lag, 0, 1]))
    frame = hl.top_paths(net, 1, 0, lag + 2, n=4)
    best = sorted(every.items(), key=lambda item: -abs(item[1]))[:4]
    assert frame["product"].tolist() == pytest.approx([value for _, value in best])
    assert frame["units"].tolist() == [units for units, _ in best]
    assert frame["share"][0] == pytest.approx(abs(best[0][1]) / sum(map(abs, every.values())))
    assert len(hl.top_paths(net, 1, 0, STEPS + 2)) == 0


def test_shares_are_those_of_the_visits_of_all_walks():
    net = network()
    shares = hl.flow(net, STEPS + 1)
    for lag in range(STEPS):
        wanted = torch.zeros(UNITS, dtype=F64)
        for source, target in itertools.product(range(2), range(2)):
            for units, product in walks(net, source, target, lag).items():
                for unit in units:
                    wanted[unit] += abs(product) / len(units)
        assert_near(shares[lag], wanted / wanted.sum())
    assert float(shares[STEPS].sum()) == 0


def test_lesions_lose_the_walks_through_a_unit():
    net = network()
    whole = hl.hop_maps(net).values
    lost = hl.lesion(net, STEPS)
    for unit in range(UNITS):
        rest = torch.zeros_like(whole)
        for lag, source, target in itertools.product(range(STEPS), range(2), range(2)):
            every = walks(net, source, target, lag)
            rest[lag, target, source] = sum(v for units, v in every.items() if unit not in units)
        wanted = float((whole - rest).norm() / whole.norm())
        assert float(lost[unit]) == pytest.approx(wanted)
        assert float(hl.lesion(net, STEPS, units=[unit])) == pytest.approx(wanted)
        assert float(hl.lesion(net, STEPS, units=[unit], together=False)) == pytest.approx(wanted)


def test_a_stack_has_maps_and_lesions_of_each_step_and_no_single_walks():
    model = hl.RecurrentModel(nn.GRU(2, 3, num_layers=2, batch_first=True), nn.Linear(3, 2)).double()
    net = hl.read(model, at="steps", inputs=draw(1, STEPS, 2)).detach()
    zeroed = hl.ablate(net, units=["l0.h1"])
    place = net.hidden_names.index("l0.h1")
    wanted = (hl.hop_maps(net).values - hl.hop_maps(zeroed).values).norm() / hl.hop_maps(net).values.norm()
    assert float(hl.lesion(net, STEPS)[place]) == pytest.approx(float(wanted))
    for function in (lambda: hl.top_paths(net, 0, 0, 4), lambda: hl.flow(net, 4)):
        with pytest.raises(hl.errors.UnsupportedModelError, match='at="flow"'):
            function()


def test_the_first_steps_are_a_graph_of_each_step_and_others_are_not():
    """Entry n must be n steps before the read-out: of others the maps would be those of no network."""
    net = network()
    assert_near(hl.hop_maps(net[:2]).values, hl.hop_maps(net).values[:2])
    for part in (net[1:], net[::2], net[[0, 1]], net[None]):
        assert not part.steps
        assert part.batch_shape


@pytest.mark.parametrize("penalty", [hl.PathwayPenalty(horizon=3), hl.WeightPenalty()], ids=str)
def test_penalties_on_weights_do_not_take_it_for_many_networks(penalty):
    with pytest.raises(hl.errors.ShapeError, match="each of 4 steps"):
        penalty(network())
