"""Null models keep what they promise, and p values are calibrated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hoplens as hl
from hoplens.errors import NonFiniteError, ShapeError

F64 = torch.float64


def network(seed: int, hidden: int = 8) -> hl.Pathways:
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(hidden, hidden, generator=g, dtype=F64) * (torch.rand(hidden, hidden, generator=g) < 0.4)
    w_in, w_out = (torch.randn(*s, generator=g, dtype=F64) for s in ((hidden, 2), (2, hidden)))
    return hl.Pathways(w_in, w, w_out)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_what_each_null_model_keeps(seed: int) -> None:
    net = network(seed)
    w = net.w_rec.numpy()
    shuffled, rewired, strength, rotated = (
        hl.null_network(net, kind, seed).w_rec.numpy()
        for kind in ("shuffle", "rewire", "strength", "spectrum")
    )
    np.testing.assert_array_equal(shuffled != 0, w != 0)
    for drawn in (shuffled, rewired, strength):
        np.testing.assert_array_equal(np.sort(drawn[drawn != 0]), np.sort(w[w != 0]))
    for drawn in (rewired, strength):
        for sign in (1, -1):
            for axis in (0, 1):
                degrees = [(np.sign(m) == sign).sum(axis) for m in (drawn, w)]
                np.testing.assert_array_equal(*degrees)
    # weights travel with their source: what leaves a unit is the same
    np.testing.assert_allclose(rewired.sum(0), w.sum(0), atol=1e-12)
    np.testing.assert_allclose(np.linalg.svd(rotated)[1], np.linalg.svd(w)[1], rtol=1e-9, atol=1e-9)
    for power in range(1, 5):  # same eigenvalues: same traces of powers
        traces = [np.trace(np.linalg.matrix_power(m, power)) for m in (rotated, w)]
        np.testing.assert_allclose(*traces, rtol=1e-8, atol=1e-8)
    assert np.array_equal(hl.null_network(net, "rewire", seed).w_rec.numpy(), rewired)


def test_strengths_are_matched_closely_and_better_than_by_rewiring() -> None:
    g = np.random.default_rng(0)
    w = g.lognormal(0, 1, (30, 30)) * (g.random((30, 30)) < 0.3)
    net = hl.Pathways(np.eye(30), w, np.eye(30))
    drawn = {kind: hl.null_network(net, kind, 1).w_rec.numpy() for kind in ("rewire", "strength")}
    rho = {k: np.corrcoef(m.sum(1), w.sum(1))[0, 1] for k, m in drawn.items()}
    assert rho["strength"] > 0.95 > rho["rewire"]
    assert np.corrcoef(drawn["strength"].sum(0), w.sum(0))[0, 1] > 0.95
    assert (drawn["rewire"] != w).mean() > 0.1


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
