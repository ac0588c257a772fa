"""Hop maps against powers, walks, impulse responses, and the laws that any of them must obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st
from twins import (
    assert_near,
    blocks_of,
    count_walks,
    literal_maps,
    networks,
    one_by_one,
    random_network,
)

import hoplens as hl

HORIZON = 6


def maps_of(net, horizon=HORIZON):
    return hl.hop_maps(net, horizon=horizon).values


# against other definitions


@given(networks())
def test_hop_maps_are_the_powers_of_the_full_adjacency_matrix(net):
    maps = hl.hop_maps(net, horizon=HORIZON)
    first = 0 if net.w_skip is not None else 1
    wanted = torch.stack([literal_maps(one, HORIZON)[first:] for one in one_by_one(net)])
    assert maps.values.shape[:-3] == net.batch_shape
    assert_near(maps.values.reshape(wanted.shape), wanted)
    assert maps.hops.tolist() == list(range(first + 1, HORIZON + 2))


@given(networks(batches=((),)))
def test_hop_maps_are_the_powers_of_the_networks_own_adjacency(net):
    adjacency, outputs = net.adjacency(), net.n_inputs + net.n_hidden
    maps = hl.hop_maps(net, horizon=HORIZON)
    for k, value in zip(maps.hops.tolist(), maps.values, strict=True):
        power = torch.linalg.matrix_power(adjacency, k)
        assert_near(value, power[: net.n_inputs, outputs:].T)


@pytest.mark.parametrize("seed", range(4))
def test_hop_maps_are_sums_over_all_walks(seed):
    net = random_network(seed, inputs=2, hidden=3, outputs=2, skip=True, density=0.7)
    graph = net.to_networkx()
    maps = hl.hop_maps(net, horizon=5)
    for k, value in zip(maps.hops.tolist(), maps.values, strict=True):
        walked = [[count_walks(graph, a, b, k) for a in net.input_names] for b in net.output_names]
        assert_near(value, torch.tensor(walked, dtype=torch.float64))


@pytest.mark.parametrize("skip", [False, True])
def test_hop_maps_are_scipys_impulse_response(skip):
    net = random_network(7, skip=skip)
    direct = net.w_skip if skip else torch.zeros(2, 3, dtype=torch.float64)
    system = scipy.signal.dlti(*(b.numpy() for b in (net.w_rec, net.w_in, net.w_out, direct)), dt=1)
    _, responses = scipy.signal.dimpulse(system, n=HORIZON + 1)  # one array (time, O) an input
    response = torch.tensor(np.stack(responses, axis=-1))  # at time n: hop n + 1; at 0 the direct edges
    assert_near(maps_of(net), response if skip else response[1:])


def test_a_delay_line_has_one_hop():
    line = torch.diag(torch.ones(4, dtype=torch.float64), -1)
    net = hl.Pathways(torch.eye(5, 1).double() * 2, line, torch.eye(1, 5).flip(1).double() * 3)
    maps = hl.hop_maps(net, horizon=8)
    assert maps.values.flatten().tolist() == [0, 0, 0, 0, 6.0, 0, 0, 0]
    assert maps.hops[4] == 6  # in, four steps along the line, out
    assert maps.lags[4] == 4


# laws


@given(networks(), st.randoms(use_true_random=False))
def test_permuting_hidden_units_changes_nothing(net, random):
    order = list(range(net.n_hidden))
    random.shuffle(order)
    permuted = hl.Pathways(
        net.w_in[..., order, :], net.w_rec[..., order, :][..., order], net.w_out[..., order], net.w_skip
    )
    assert_near(maps_of(permuted), maps_of(net))


@given(networks(), st.integers(0, 1000))
def test_similarity_transforms_change_nothing(net, seed):
    noise = torch.randn(net.n_hidden, net.n_hidden, generator=torch.Generator().manual_seed(seed)).double()
    change = torch.linalg.qr(noise).Q @ torch.diag(torch.linspace(1, 2, net.n_hidden).double())
    back = torch.linalg.inv(change)
    moved = hl.Pathways(change @ net.w_in, change @ net.w_rec @ back, net.w_out @ back, net.w_skip)
    assert_near(maps_of(moved), maps_of(net), 1e-11)


@given(networks())
def test_the_reversed_graph_has_the_transposed_maps(net):
    skip = None if net.w_skip is None else net.w_skip.mT
    reverse = hl.Pathways(net.w_out.mT, net.w_rec.mT, net.w_in.mT, skip)
    assert_near(maps_of(reverse), maps_of(net).mT)


def side_by_side(a, b):
    """Two networks that share nothing, as one."""
    return hl.Pathways(*(torch.block_diag(x, y) for x, y in zip(blocks_of(a), blocks_of(b), strict=True)))


@given(networks(batches=((),), skips=(True,)), networks(batches=((),), skips=(True,)))
def test_independent_networks_stay_independent(a, b):
    both = maps_of(side_by_side(a, b))
    assert_near(both[:, : a.n_outputs, : a.n_inputs], maps_of(a))
    assert_near(both[:, a.n_outputs :, a.n_inputs :], maps_of(b))
    assert not both[:, : a.n_outputs, a.n_inputs :].any()
    assert not both[:, a.n_outputs :, : a.n_inputs].any()


@given(networks(skips=(False,)))
def test_two_networks_in_parallel_add_up(net):
    other = hl.Pathways(net.w_in.flip(-1), net.w_rec * 0.7, -net.w_out)
    zeros = torch.zeros_like(net.w_rec)
    top, bottom = torch.cat([net.w_rec, zeros], -1), torch.cat([zeros, other.w_rec], -1)
    parallel = hl.Pathways(
        torch.cat([net.w_in, other.w_in], -2),
        torch.cat([top, bottom], -2),
        torch.cat([net.w_out, other.w_out], -1),
    )
    assert_near(maps_of(parallel), maps_of(net) + maps_of(other))


@given(networks(skips=(False,)))
def test_maps_are_linear_in_the_input_and_in_the_output_edges(net):
    half_in, half_out = net.w_in.flip(-1) * 0.3, net.w_out.flip(-2) * 0.3
    parts = [hl.Pathways(w, net.w_rec, net.w_out) for w in (half_in, net.w_in - half_in)]
    assert_near(sum(maps_of(part) for part in parts), maps_of(net))
    parts = [hl.Pathways(net.w_in, net.w_rec, w) for w in (half_out, net.w_out - half_out)]
    assert_near(sum(maps_of(part) for part in parts), maps_of(net))


@given(networks(), st.floats(-1.5, 1.5))
def test_scaling_the_graph_scales_hop_k_by_the_kth_power(net, factor):
    maps = hl.hop_maps(net, horizon=HORIZON)
    scaled = maps_of(hl.Pathways(*(factor * block for block in blocks_of(net))))
    assert_near(scaled, maps.values * (factor ** maps.hops.double())[:, None, None], 1e-11)
    assert_near(maps.damped(factor), scaled, 1e-11)


@given(networks(), st.integers(1, HORIZON))
def test_a_shorter_horizon_gives_the_same_first_hops(net, horizon):
    short = hl.hop_maps(net, horizon=horizon)
    assert len(short.hops) == horizon + (net.w_skip is not None)
    assert_near(short.values, maps_of(net)[..., : len(short.hops), :, :])


def test_hop_maps_are_differentiable_in_every_block():
    net = random_network(skip=True, batch=(2,), requires_grad=True)
    assert torch.autograd.gradcheck(lambda *blocks: maps_of(hl.Pathways(*blocks), 4), blocks_of(net))


def test_single_precision_stays_close():
    net = random_network(inputs=5, hidden=30, outputs=4, radius=1.0)
    single = hl.hop_maps(net.to(torch.float32), horizon=20)
    assert single.values.dtype == torch.float32
    assert_near(single.values.double(), maps_of(net, 20), 1e-5)


# errors


@pytest.mark.parametrize("horizon", [0, -1, 2.5, True])
def test_a_horizon_is_a_positive_whole_number(horizon):
    with pytest.raises(hl.errors.ParameterError, match="horizon must be a whole number of at least 1"):
        hl.hop_maps(random_network(), horizon=horizon)


def test_nan_is_refused():
    net = random_network()
    net.w_out[0, 0] = torch.nan
    with pytest.raises(hl.errors.NonFiniteError, match="w_out"):
        hl.hop_maps(net, horizon=3)


def test_maps_beyond_the_range_stay_in_proportion():
    one = torch.ones(2, 1, 1)
    net = hl.Pathways(one, torch.tensor([1.0, 1e10])[:, None, None], one)
    assert hl.hop_maps(net, horizon=4).values[1, -1].item() == pytest.approx(1e30)
    assert hl.hop_maps(net, horizon=4).shift is None
    maps = hl.hop_maps(net, horizon=9)
    assert maps.values.isfinite().all()
    assert maps.shift[0] == 0
    assert (maps.values[1, -1] / maps.values[1, -2]).item() == pytest.approx(1e10)
    assert maps.scaled().log2_size()[1, -1].item() == pytest.approx(80 * math.log2(10))
    assert torch.equal(maps[0].values, hl.hop_maps(net[0], horizon=9).values)


# the value


def test_lags_count_from_the_last_input():
    assert hl.hop_maps(random_network(), horizon=3).lags.tolist() == [0, 1, 2]
    assert hl.hop_maps(random_network(skip=True), horizon=3).lags.tolist() == [0, 0, 1, 2]


def test_damping_can_differ_between_networks():
    maps = hl.hop_maps(random_network(batch=(2, 3), skip=True), horizon=4)
    damping = torch.linspace(0.1, 0.9, 6).reshape(2, 3)
    got = maps.damped(damping)
    for a in range(2):
        for b in range(3):
            wanted = maps[a, b].damped(float(damping[a, b]))
            assert_near(got[a, b], wanted, 1e-7)
    assert_near(maps.damped(1.0), maps.values)


@pytest.mark.parametrize(
    ("batch", "axes"), [((), []), ((2,), ["network"]), ((2, 3), ["axis0", "axis1"])], ids=str
)
@pytest.mark.parametrize("skip", [False, True])
def test_the_table_has_one_row_a_cell(batch, axes, skip):
    blocks = blocks_of(random_network(batch=batch, skip=skip))
    net = hl.Pathways(*blocks, input_names=["a", "b", "c"], output_names=["u", "v"])
    maps = hl.hop_maps(net, horizon=3)
    table = maps.to_dataframe()
    assert list(table.columns) == [*axes, "hop", "lag", "output", "input", "weight"]
    assert len(table) == maps.values.numel()
    for row in table.itertuples():
        network = tuple(getattr(row, axis) for axis in axes)
        cell = (maps.hops.tolist().index(row.hop), "uv".index(row.output), "abc".index(row.input))
        assert row.weight == maps.values[(*network, *cell)].item()
        assert row.lag == max(row.hop - 2, 0)


def test_selection_keeps_hops_and_names():
    maps = hl.hop_maps(random_network(batch=(3,), skip=True), horizon=2)
    assert torch.equal(maps[1].values, maps.values[1])
    assert torch.equal(maps[..., [2, 0]].values, maps.values[[2, 0]])
    assert torch.equal(maps[1].hops, maps.hops)
    assert maps[1].input_names == maps.input_names
    assert "hops 1..3" in repr(maps)
    with pytest.raises(hl.errors.ShapeError, match="leading axes"):
        maps[0, 0]  # would cut out one hop
    with pytest.raises(hl.errors.ShapeError, match="one network"):
        maps[1][0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_graphics_card_gives_the_same_maps():
    net = random_network(batch=(3,), skip=True)
    maps = hl.hop_maps(net.to("cuda"), horizon=HORIZON)
    assert maps.values.is_cuda
    assert_near(maps.values.cpu(), maps_of(net))
    assert_near(maps.damped(0.5).cpu(), hl.hop_maps(net, horizon=HORIZON).damped(0.5))
