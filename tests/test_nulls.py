"""Null models keep what they promise, and p values are calibrated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hoplens as hl
from hoplens.errors import NonFiniteError, ParameterError, ShapeError

F64 = torch.float64


def network(seed: int, hidden: int = 8, density: float = 0.4) -> hl.Pathways:
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(hidden, hidden, generator=g, dtype=F64)
    w = w * (torch.rand(hidden, hidden, generator=g) < density)
    w_in, w_out = (torch.randn(*s, generator=g, dtype=F64) for s in ((hidden, 2), (2, hidden)))
    return hl.Pathways(w_in, w, w_out)


def check_degrees(drawn: np.ndarray, w: np.ndarray) -> None:
    for sign in (1, -1):
        for axis in (0, 1):
            np.testing.assert_array_equal((np.sign(drawn) == sign).sum(axis), (np.sign(w) == sign).sum(axis))


def check_out_strengths(drawn: np.ndarray, w: np.ndarray) -> None:
    for sign in (1, -1):
        sums = (np.maximum(sign * m, 0).sum(0) for m in (drawn, w))
        np.testing.assert_allclose(*sums, rtol=1e-12, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.sampled_from([0.4, 1.0]))
def test_what_each_null_model_keeps(seed: int, density: float) -> None:
    net = network(seed, density=density)
    w = net.w_rec.numpy()
    shuffled, rewired, strength, rotated = (
        hl.null_network(net, kind, seed).w_rec.numpy()
        for kind in ("shuffle", "rewire", "strength", "spectrum")
    )
    np.testing.assert_array_equal(shuffled != 0, w != 0)
    for drawn in (shuffled, rewired, strength):
        np.testing.assert_array_equal(np.sort(drawn[drawn != 0]), np.sort(w[w != 0]))
    for drawn in (rewired, strength):
        check_degrees(drawn, w)
        check_out_strengths(drawn, w)
    np.testing.assert_allclose(np.linalg.svd(rotated)[1], np.linalg.svd(w)[1], rtol=1e-9, atol=1e-9)
    for power in range(1, 5):  # same eigenvalues: same traces of powers
        traces = [np.trace(np.linalg.matrix_power(m, power)) for m in (rotated, w)]
        np.testing.assert_allclose(*traces, rtol=1e-8, atol=1e-8)
    assert np.array_equal(hl.null_network(net, "rewire", seed).w_rec.numpy(), rewired)


@pytest.mark.parametrize(
    ("density", "signed", "most"), [(0.3, False, 0.02), (0.3, True, 0.09), (1.0, True, 0.002)]
)
def test_strengths_are_matched(density: float, signed: bool, most: float) -> None:
    g = np.random.default_rng(0)
    w = g.lognormal(0, 1, (30, 30)) * (g.random((30, 30)) < density)
    w = w * g.choice([-1, 1], w.shape) if signed else w
    net = hl.Pathways(np.eye(30), w, np.eye(30))
    drawn = {kind: hl.null_network(net, kind, 1) for kind in ("shuffle", "rewire", "strength")}
    error = {kind: hl.strength_error(net, other) for kind, other in drawn.items()}
    assert error["strength"] < most < error["rewire"] < error["shuffle"]
    assert (drawn["strength"].w_rec.numpy() != w).mean() > 0.1
    into, out_of = hl.strengths(net)
    np.testing.assert_allclose(hl.strengths(drawn["strength"])[1], out_of)
    by_hand = sum(
        np.abs(np.maximum(s * w, 0).sum(a) - np.maximum(s * drawn["rewire"].w_rec.numpy(), 0).sum(a)).sum()
        for s in (1, -1)
        for a in (0, 1)
    )
    assert np.isclose(error["rewire"], by_hand / (2 * np.abs(w).sum()))
    assert into.shape == (30,)


def test_rewiring_reaches_all_networks_of_the_same_degrees_alike() -> None:
    """Three units with one edge out and one in: the six permutations, each in about a sixth of the draws."""
    net = hl.Pathways(np.eye(3), np.eye(3), np.eye(3))
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(600):
        key = tuple(hl.null_network(net, "rewire", seed).w_rec.argmax(1).tolist())
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 6
    assert all(60 < n < 145 for n in counts.values())  # binomial(600, 1/6): 5 standard deviations


def test_stacks_are_drawn_block_by_block() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = hl.read(torch.nn.GRU(3, 6, 2, bidirectional=True).double()).detach()
    parts = [(layer.level, slice(layer.start, layer.stop)) for layer in net.layers]
    for kind in ("shuffle", "rewire", "strength", "spectrum"):
        drawn = hl.null_network(net, kind, 3)
        hl.lag_maps(drawn, 3)  # edges stay between the same layers, or this raises
        assert drawn.layers == net.layers
        for high, to in parts:
            for low, source in parts:
                w, v = (one.w_rec[to, source].numpy() for one in (net, drawn))
                if kind == "spectrum":
                    np.testing.assert_allclose(*(np.linalg.svd(m)[1] for m in (v, w)), atol=1e-12)
                else:
                    np.testing.assert_array_equal(np.sort(v, axis=None), np.sort(w, axis=None))
                if kind in ("rewire", "strength"):
                    check_degrees(v, w)
                    check_out_strengths(v, w)
                if high == low and to != source:
                    assert not v.any()
        assert not torch.equal(drawn.w_rec, net.w_rec)
    result = hl.compare_to_null(net, size, "strength", 5, 0, horizon=3)
    assert result.hops.tolist() == [3, 4, 5]
    assert result.strength_error.shape == (5,)


@pytest.mark.parametrize("w", [np.ones((4, 4)), np.eye(3, k=1)[:2, :2]])
def test_a_graph_without_a_second_one_of_its_degrees_is_refused(w: np.ndarray) -> None:
    net = hl.Pathways(np.eye(len(w)), w, np.eye(len(w)))
    for kind in ("rewire", "strength"):
        with pytest.raises(ParameterError, match="only network with its degrees"):
            hl.null_network(net, kind, 0)
    empty = hl.Pathways(np.eye(2), np.zeros((2, 2)), np.eye(2))
    assert not hl.null_network(empty, "rewire", 0).w_rec.any()


def test_lag_shuffle_keeps_each_pair() -> None:
    maps = hl.hop_maps(network(0), 6)
    mixed = hl.shuffle_lags(maps, 3)
    torch.testing.assert_close(mixed.values.sort(0).values, maps.values.sort(0).values)
    assert not torch.equal(mixed.values, maps.values)


def size(maps: hl.HopMaps) -> torch.Tensor:
    return maps.values.abs().mean((1, 2))


@pytest.mark.parametrize("correction", ["min-p", "holm", "none"])
def test_p_values_hold_their_level(correction: str) -> None:
    """Under the null (a network drawn like the nulls) at most about 10 % of families reach p < 0.1."""
    hits, runs = 0, 60
    for seed in range(runs):
        net = hl.null_network(network(5), "shuffle", seed + 1000)
        result = hl.compare_to_null(net, size, "shuffle", 39, seed, horizon=4, correction=correction)
        assert result.hops.tolist() == [2, 3, 4, 5]
        assert bool((result.p_corrected >= result.p - 1e-12).all())
        hits += bool((result.p_corrected < 0.1).any())
    assert hits <= 13 if correction != "none" else hits > 3  # binomial(60, 0.1): above 13 in 0.2 % of runs


def test_a_planted_structure_is_found_and_the_hop_that_cannot_differ_is_not() -> None:
    ring = torch.roll(torch.eye(12, dtype=F64), 1, 0)
    eye = torch.eye(12, dtype=F64)
    net = hl.Pathways(eye, ring + 0.01, torch.roll(eye, 3, 1))  # output i reads unit i + 3, three steps on

    def on_time(maps: hl.HopMaps) -> torch.Tensor:
        return maps.values.diagonal(dim1=-2, dim2=-1).mean(-1)

    result = hl.compare_to_null(net, on_time, "shuffle", 99, 0, horizon=4)
    table = result.to_dataframe()
    assert table["p"].iloc[3] == 0.01
    assert table["p_corrected"].iloc[3] <= 0.05
    assert float(result.effect[3]) > 5
    assert table["p"].iloc[0] == 1.0  # hop 2 does not involve w_rec
    assert float(result.effect[0]) == 0
    result.plot().figure.canvas.draw()
    again = hl.compare_to_null(net, on_time, "shuffle", 99, 0, horizon=4)
    assert torch.equal(again.null, result.null)


def test_lags_null_and_bad_measures() -> None:
    net = network(2)
    one = hl.compare_to_null(net, lambda m: hl.temporal_sparsity(m).mean(), "lags", 20, 0)
    assert one.observed.shape == (1,)
    assert float(one.p[0]) == 1.0  # sparsity over lags does not depend on their order
    with pytest.raises(ShapeError, match="one number or one a hop"):
        hl.compare_to_null(net, lambda m: m.values, n=3)
    with pytest.raises(NonFiniteError):
        hl.compare_to_null(net, lambda m: m.values.sum() * torch.nan, n=3)
