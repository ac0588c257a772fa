"""Measures of hop maps against their definitions, by hand and by loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from twins import assert_near, random_network

import hoplens as hl

numbers = st.floats(-4, 4, width=32)
any_maps = arrays(np.float64, array_shapes(min_dims=3, max_dims=4, max_side=4), elements=numbers).map(
    torch.tensor
)


def hop_maps_of(values, first=2):
    """Hop maps with these values, (K, O, I)."""
    values = torch.as_tensor(values, dtype=torch.float64)
    _, outputs, inputs = values.shape[-3:]
    hops = torch.arange(first, first + values.shape[-3])
    return hl.HopMaps(
        values, hops, tuple(f"x{n}" for n in range(inputs)), tuple(f"y{n}" for n in range(outputs))
    )


# how many hops, which ones


def test_active_hops_counts_what_exceeds_a_share_of_the_largest_entry():
    maps = torch.tensor([[[10.0, 1.1]], [[-1.0, -2.0]], [[0.5, 1.0]]])  # (3 hops, 1 output, 2 inputs)
    assert hl.active_hops(maps).tolist() == [[1, 2]]  # above 1.0, not at it
    assert hl.active_hops(maps, threshold=0.04).tolist() == [[3, 3]]
    assert hl.active_hops(maps, threshold=0.0).tolist() == [[3, 3]]
    assert hl.active_hops(maps, threshold=0.999).tolist() == [[1, 0]]


def test_active_hops_measures_every_network_by_its_own_largest_entry():
    maps = torch.tensor([[[[100.0]], [[1.0]]], [[[1.0]], [[0.5]]], [[[0.0]], [[0.0]]]])
    counts = hl.active_hops(maps)
    assert counts.tolist() == [[[1]], [[2]], [[0]]]
    assert counts.dtype == torch.int64


@given(any_maps, st.floats(0.0, 0.99))
def test_active_hops_is_a_loop_over_cells(values, threshold):
    got = hl.active_hops(values, threshold)
    flat = values.reshape(-1, *values.shape[-3:])
    for network, counts in zip(flat, got.reshape(-1, *values.shape[-2:]), strict=True):
        largest = network.abs().max()
        for o in range(network.shape[1]):
            for i in range(network.shape[2]):
                wanted = sum(float(v.abs()) > threshold * float(largest) for v in network[:, o, i])
                assert int(counts[o, i]) == wanted


@pytest.mark.parametrize("threshold", [-0.1, 1.0, math.nan])
def test_active_hops_checks_its_threshold(threshold):
    with pytest.raises(hl.errors.ParameterError, match="threshold"):
        hl.active_hops(torch.ones(2, 1, 1), threshold)


@pytest.mark.parametrize("measure", [hl.active_hops, hl.analysis.temporal_sparsity])
def test_measures_take_hop_maps_and_refuse_matrices(measure):
    maps = hl.hop_maps(random_network(batch=(2,)), horizon=4)
    assert torch.equal(measure(maps), measure(maps.values))
    with pytest.raises(hl.errors.ShapeError, match=r"\(\.\.\., K, O, I\), got \(2, 3\)"):
        measure(torch.ones(2, 3))


@pytest.mark.parametrize("first", [1, 2])
def test_dominant_hop_is_the_hop_of_the_largest_magnitude(first):
    values = [[[1.0, 0.0], [2.0, -3.0]], [[-2.0, 0.0], [2.0, 1.0]], [[1.5, 0.0], [-2.0, 3.0]]]
    got = hl.analysis.dominant_hop(hop_maps_of(values, first))
    assert got.tolist() == [[first + 1, 0], [first, first]]  # no pathway: 0; a tie: the shortest
    assert got.dtype == torch.int64


@given(any_maps)
def test_dominant_hop_agrees_with_numpy(values):
    got = hl.analysis.dominant_hop(hop_maps_of(values))
    size = values.abs().numpy()
    wanted = np.where(size.max(axis=-3) > 0, size.argmax(axis=-3) + 2, 0)  # numpy takes the first maximum
    assert got.tolist() == wanted.tolist()


# concentration over hops


def test_temporal_sparsity_at_its_ends():
    maps = torch.tensor([[[1.0, 2.0, 0.0]], [[-1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]], [[-1.0, 0.0, 0.0]]])
    gini, hill = hl.analysis.temporal_sparsity(maps)[0], hl.analysis.temporal_sparsity(maps, "effective")[0]
    assert gini[:2].tolist() == pytest.approx([0.0, 1.0])
    assert hill[:2].tolist() == pytest.approx([4.0, 1.0])
    assert math.isnan(gini[2])
    assert math.isnan(hill[2])


@given(any_maps.filter(lambda values: values.shape[-3] > 1))
def test_gini_is_the_mean_difference_of_all_pairs(values):
    size = values.abs()
    count = size.shape[-3]
    differences = (size.unsqueeze(-3) - size.unsqueeze(-4)).abs().sum(dim=(-3, -4))
    mean = size.mean(dim=-3)
    wanted = differences / (2 * count**2 * mean) * count / (count - 1)
    got = hl.analysis.temporal_sparsity(values)
    assert torch.equal(got.isnan(), mean == 0)
    assert_near(got.nan_to_num(), wanted.nan_to_num(nan=0.0), 1e-10)


@given(
    any_maps, st.floats(1e-3, 1e3), st.sampled_from(["gini", "effective"]), st.randoms(use_true_random=False)
)
def test_concentration_depends_on_neither_scale_nor_sign_nor_order(values, scale, method, random):
    if values.shape[-3] == 1:
        method = "effective"
    order = list(range(values.shape[-3]))
    random.shuffle(order)
    one = hl.analysis.temporal_sparsity(values, method)
    other = hl.analysis.temporal_sparsity(-scale * values[..., order, :, :], method)
    assert_near(one.nan_to_num(nan=-1.0), other.nan_to_num(nan=-1.0), 1e-9)


@given(st.integers(1, 6), st.integers(1, 6))
def test_the_effective_number_of_equal_hops_is_their_number(count, silent):
    maps = torch.cat([torch.full((count, 1, 1), -0.3), torch.zeros(silent, 1, 1)])
    assert hl.analysis.temporal_sparsity(maps, "effective").item() == pytest.approx(count, rel=1e-5)


def test_gini_needs_two_hops_and_methods_have_names():
    with pytest.raises(hl.errors.ParameterError, match="at least two hops"):
        hl.analysis.temporal_sparsity(torch.ones(1, 2, 2))
    with pytest.raises(hl.errors.UnknownNameError, match="gini"):
        hl.analysis.temporal_sparsity(torch.ones(2, 2, 2), "ginny")


def test_signal_share_is_the_mass_on_signal_hops():
    maps = torch.tensor([[[1.0, -1.0]], [[3.0, 0.0]], [[-5.0, 0.0]]])
    assert hl.analysis.signal_share(maps, torch.tensor([True, False, False])).item() == pytest.approx(0.2)
    assert hl.analysis.signal_share(maps, torch.tensor([False, True, True])).item() == pytest.approx(0.8)
    both = torch.stack([maps, torch.zeros_like(maps)])
    share = hl.analysis.signal_share(both, torch.tensor([True] * 3))
    assert share[0].item() == 1.0
    assert math.isnan(share[1])


@pytest.mark.parametrize(
    "signal", [torch.tensor([True, False]), torch.tensor([1, 0, 1]), torch.ones(1, 3, dtype=torch.bool)]
)
def test_signal_share_checks_its_mask(signal):
    with pytest.raises(hl.errors.ShapeError, match=r"bool tensor with one entry a hop, shape \(3,\)"):
        hl.analysis.signal_share(torch.ones(3, 2, 2), signal)


# correlation


def correlation(values, target):
    return np.corrcoef(values.numpy().ravel(), target.numpy().ravel())[0, 1]


@pytest.mark.parametrize("signed", [True, False])
def test_alignment_is_pearsons_correlation(signed):
    source = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 4, 2, 5, generator=source, dtype=torch.float64)
    target = torch.randn(4, 2, 5, generator=source, dtype=torch.float64)
    got = hl.alignment(maps, target, signed=signed)
    assert got.shape == (2, 3)
    for a in range(2):
        for b in range(3):
            pair = (maps[a, b], target) if signed else (maps[a, b].abs(), target.abs())
            assert got[a, b].item() == pytest.approx(correlation(*pair), abs=1e-12)


@pytest.mark.parametrize("signed", [True, False])
def test_map_correlation_is_pearsons_correlation(signed):
    net = random_network(batch=(3,))
    value, target = hl.resolvent(net).value, torch.tensor([[1, 0, -2], [0, 1, 0]])
    got = hl.analysis.map_correlation(value, target, signed=signed)
    assert got.shape == (3,)
    for one, rho in zip(value, got, strict=True):
        pair = (one, target) if signed else (one.abs(), target.abs())
        assert rho.item() == pytest.approx(correlation(*pair), abs=1e-12)


@given(st.integers(0, 1000), st.floats(-300, 300), st.booleans())
def test_alignment_depends_on_neither_scale_nor_offset(seed, power, flip):
    source = torch.Generator().manual_seed(seed)
    maps = torch.randn(3, 2, 2, generator=source, dtype=torch.float64)
    target = torch.randn(3, 2, 2, generator=source, dtype=torch.float64)
    rho, sign = hl.alignment(maps, target), -1.0 if flip else 1.0
    scaled = hl.alignment(maps * sign * 10.0**power, target * 10.0**-power)
    assert scaled.item() == pytest.approx(sign * rho.item(), abs=1e-9)
    assert hl.alignment(maps + 3.0, target - 2.0).item() == pytest.approx(rho.item(), abs=1e-9)
    assert hl.alignment(maps, maps).item() == pytest.approx(1.0)
    assert -1.0 <= hl.alignment(maps, -maps).item() == pytest.approx(-1.0)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1 / 3, -7e5])
def test_a_network_that_routes_nothing_has_alignment_zero(constant):
    # 0.1 is not its own mean after rounding: what is left of it must not be correlated with anything
    source = torch.Generator().manual_seed(1)
    target = torch.randn(7, 3, 3, generator=source)
    maps = torch.stack([torch.full((7, 3, 3), constant), target])
    rho = hl.alignment(maps, target)
    assert rho[0].item() == 0.0
    assert rho[1].item() == pytest.approx(1.0)


def test_alignment_is_differentiable_also_beside_a_constant():
    maps = torch.stack([torch.zeros(3, 2, 2), torch.arange(12.0).reshape(3, 2, 2) ** 2]).requires_grad_()
    hl.alignment(maps, torch.arange(12.0).reshape(3, 2, 2)).sum().backward()
    assert maps.grad.isfinite().all()
    assert maps.grad[1].abs().sum() > 0


def test_alignment_refuses_other_shapes_and_constant_targets():
    with pytest.raises(hl.errors.ShapeError, match=r"last 3 axes, got \(3, 2, 2\) and \(4, 2, 2\)"):
        hl.alignment(torch.randn(3, 2, 2), torch.randn(4, 2, 2))
    with pytest.raises(hl.errors.ShapeError, match="last 2 axes"):
        hl.analysis.map_correlation(torch.randn(2, 3), torch.randn(3, 2))
    with pytest.raises(hl.errors.ParameterError, match="constant"):
        hl.alignment(torch.randn(3, 2, 2), torch.full((3, 2, 2), 0.1))


def test_alignment_takes_hop_maps():
    maps = hl.hop_maps(random_network(batch=(2,)), horizon=4)
    assert hl.alignment(maps, maps[0])[0].item() == pytest.approx(1.0)
    assert torch.equal(hl.alignment(maps, maps[0]), hl.alignment(maps.values, maps.values[0]))


# weights alone


def test_weight_map_adds_up_the_edges_between_the_units_of_a_pair():
    w_in = torch.tensor([[1.0, 0.2], [0.1, -2.0], [0.0, 3.0]])  # unit 0 belongs to input 0, 1 and 2 to 1
    w_out = torch.tensor([[5.0, 0.0, -4.0], [1.0, 2.0, 0.0]])  # units 0 and 2 belong to output 0, 1 to 1
    w_rec = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    got = hl.analysis.weight_map(hl.Pathways(w_in, w_rec, w_out))
    # M[o, i]: edges from the units of i (columns) to the units of o (rows)
    assert got.tolist() == [[1 + 7, 2 + 3 + 8 + 9], [4, 5 + 6]]


@given(st.integers(0, 1000))
def test_weight_map_does_not_depend_on_the_numbering_of_the_units(seed):
    net = random_network(seed, hidden=5, batch=(2,))
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    permuted = hl.Pathways(net.w_in[:, order], net.w_rec[:, order][:, :, order], net.w_out[:, :, order])
    assert_near(hl.analysis.weight_map(permuted), hl.analysis.weight_map(net))
    assert_near(hl.analysis.weight_map(net).sum(dim=(-2, -1)), net.w_rec.sum(dim=(-2, -1)))  # every edge once
