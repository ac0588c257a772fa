"""Null models keep what they promise, and p values are calibrated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from size import few

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


@settings(max_examples=few(20), deadline=None)
@given(seed=st.integers(0, 10**6), density=st.sampled_from([0.4, 1.0]))
def test_what_each_null_model_keeps(seed: int, density: float) -> None:
    net = network(seed, density=density)
    w = net.w_rec.numpy()
    shuffled, rewired, strength, rotated = (
        hl.nulls.null_network(net, kind, seed).w_rec.numpy()
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
    assert np.array_equal(hl.nulls.null_network(net, "rewire", seed).w_rec.numpy(), rewired)


@pytest.mark.parametrize(
    ("density", "signed", "most"), [(0.3, False, 0.02), (0.3, True, 0.09), (1.0, True, 0.002)]
)
def test_strengths_are_matched(density: float, signed: bool, most: float) -> None:
    g = np.random.default_rng(0)
    w = g.lognormal(0, 1, (30, 30)) * (g.random((30, 30)) < density)
    w = w * g.choice([-1, 1], w.shape) if signed else w
    net = hl.Pathways(np.eye(30), w, np.eye(30))
    drawn = {kind: hl.nulls.null_network(net, kind, 1) for kind in ("shuffle", "rewire", "strength")}
    error = {kind: hl.nulls.strength_error(net, other) for kind, other in drawn.items()}
    assert error["strength"] < most < error["rewire"] < error["shuffle"]
    assert (drawn["strength"].w_rec.numpy() != w).mean() > 0.1
    into, out_of = hl.nulls.strengths(net)
    np.testing.assert_allclose(hl.nulls.strengths(drawn["strength"])[1], out_of)
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
        key = tuple(hl.nulls.null_network(net, "rewire", seed).w_rec.argmax(1).tolist())
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 6
    assert all(60 < n < 145 for n in counts.values())  # binomial(600, 1/6): 5 standard deviations


def test_stacks_are_drawn_block_by_block() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = hl.read(torch.nn.GRU(3, 6, 2, bidirectional=True).double()).detach()
    parts = [(layer.level, slice(layer.start, layer.stop)) for layer in net.layers]
    for kind in ("shuffle", "rewire", "strength", "spectrum"):
        drawn = hl.nulls.null_network(net, kind, 3)
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
    result = hl.compare_to_null(net, size, "strength", n=5, seed=0, horizon=3)
    assert result.hops.tolist() == [3, 4, 5]
    assert result.strength_error.shape == (5,)


@pytest.mark.parametrize("w", [np.ones((4, 4)), np.eye(3, k=1)[:2, :2]])
def test_a_graph_without_a_second_one_of_its_degrees_is_refused(w: np.ndarray) -> None:
    net = hl.Pathways(np.eye(len(w)), w, np.eye(len(w)))
    for kind in ("rewire", "strength"):
        with pytest.raises(ParameterError, match="only network with its degrees"):
            hl.nulls.null_network(net, kind, 0)
    empty = hl.Pathways(np.eye(2), np.zeros((2, 2)), np.eye(2))
    assert not hl.nulls.null_network(empty, "rewire", 0).w_rec.any()


def test_lag_shuffle_keeps_each_pair() -> None:
    maps = hl.hop_maps(network(0), 6)
    mixed = hl.nulls.shuffle_lags(maps, 3)
    torch.testing.assert_close(mixed.values.sort(0).values, maps.values.sort(0).values)
    assert not torch.equal(mixed.values, maps.values)


def size(maps: hl.HopMaps) -> torch.Tensor:
    return maps.values.abs().mean((1, 2))


@pytest.mark.parametrize("correction", ["min-p", "holm", "none"])
def test_p_values_hold_their_level(correction: str) -> None:
    """Under the null (a network drawn like the nulls) at most about 10 % of families reach p < 0.1."""
    hits, runs = 0, 60
    for seed in range(runs):
        net = hl.nulls.null_network(network(5), "shuffle", seed + 1000)
        result = hl.compare_to_null(net, size, "shuffle", n=39, seed=seed, horizon=4, correction=correction)
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

    result = hl.compare_to_null(net, on_time, "shuffle", n=99, seed=0, horizon=4)
    table = result.to_dataframe()
    assert table["p"].iloc[3] == 0.01
    assert table["p_corrected"].iloc[3] <= 0.05
    assert float(result.effect[3]) > 5
    assert table["p"].iloc[0] == 1.0  # hop 2 does not involve w_rec
    assert float(result.effect[0]) == 0
    result.plot().figure.canvas.draw()
    seen = []
    again = hl.compare_to_null(
        net, on_time, "shuffle", n=99, seed=0, horizon=4, progress=lambda *done: seen.append(done)
    )
    assert seen == [(draw, 99) for draw in range(1, 100)]
    assert torch.equal(again.null, result.null)


def test_lags_null_and_bad_measures() -> None:
    net = network(2)
    one = hl.compare_to_null(net, lambda m: hl.analysis.temporal_sparsity(m).mean(), "lags", n=20, seed=0)
    assert one.observed.shape == (1,)
    assert float(one.p[0]) == 1.0  # sparsity over lags does not depend on their order
    with pytest.raises(ShapeError, match="one number or one a hop"):
        hl.compare_to_null(net, lambda m: m.values, n=3)
    with pytest.raises(NonFiniteError):
        hl.compare_to_null(net, lambda m: m.values.sum() * torch.nan, n=3)


def leaky(seed: int, leak: torch.Tensor, loops: bool = True) -> hl.Pathways:
    w = network(seed, density=0.5).w_rec
    cell = hl.models.RnnCell(torch.ones(8, 2, dtype=F64), w if loops else w - torch.diag(w.diag()), leak=leak)
    return hl.read(cell, torch.ones(2, 8, dtype=F64))


KINDS = ("shuffle", "rewire", "strength", "spectrum")


@settings(max_examples=few(15), deadline=None)
@given(seed=st.integers(0, 10**6), one=st.booleans(), loops=st.booleans())
def test_time_constants_stay_and_only_the_weights_of_leaky_units_are_drawn(
    seed: int, one: bool, loops: bool
) -> None:
    g = torch.Generator().manual_seed(seed)
    leak = torch.full((8,), 0.2, dtype=F64) if one else torch.rand(8, generator=g, dtype=F64) * 0.8 + 0.1
    net = leaky(seed, leak, loops)
    plain = network(seed, density=0.5)
    w = plain.w_rec if loops else plain.w_rec - torch.diag(plain.w_rec.diag())
    plain = hl.Pathways(plain.w_in, w, plain.w_out)
    for kind in KINDS:
        drawn = hl.nulls.null_network(net, kind, seed)
        torch.testing.assert_close(drawn.leak.kept, 1 - leak)
        # what is drawn of W: as of the same network without a leak, up to rounding
        alone = hl.nulls.null_network(plain, kind, seed).w_rec
        torch.testing.assert_close(drawn.w_rec, torch.diag(1 - leak) + leak[:, None] * alone)
        assert hl.nulls.strength_error(net, drawn) == pytest.approx(
            hl.nulls.strength_error(plain, hl.nulls.null_network(plain, kind, seed)), abs=1e-9
        )
    for own, other in zip(hl.nulls.strengths(net), hl.nulls.strengths(plain), strict=True):
        torch.testing.assert_close(own, other)


def test_a_leak_follows_its_network_through_every_change() -> None:
    leak = torch.linspace(0.1, 0.9, 8, dtype=F64)
    net = leaky(3, leak)
    wanted = hl.nulls.null_network(net, "shuffle", 1).w_rec
    scaled = hl.graph.rescale(net, 0.5)
    factor = 0.5 / hl.spectral_radius(net)
    torch.testing.assert_close(hl.nulls.null_network(scaled, "shuffle", 1).w_rec, factor * wanted)
    torch.testing.assert_close(hl.nulls.null_network(net.detach().to(F64), "shuffle", 1).w_rec, wanted)
    single = hl.nulls.null_network(net.to(torch.float32), "shuffle", 1)
    torch.testing.assert_close(single.w_rec.double().diag().min(), wanted.diag().min(), atol=1e-5, rtol=0)
    cut = hl.ablate(net, units=[2])
    assert not hl.nulls.null_network(cut, "shuffle", 1).w_rec[2].any()
    both = hl.Pathways(
        *(torch.stack([b, b]) for b in (net.w_in, net.w_rec, net.w_out)), leak=hl.graph.Leak(1 - leak, leak)
    )
    torch.testing.assert_close(hl.nulls.null_network(both[1], "shuffle", 1).w_rec, wanted)


def readings() -> dict[str, hl.Pathways]:
    g = torch.Generator().manual_seed(0)
    w_in, w_rec, w_out = torch.randn(6, 2, generator=g), torch.randn(6, 6, generator=g), torch.ones(1, 6)
    model = hl.LeakyRNN(2, 6, leak=0.25)
    cell = hl.models.RnnCell(w_in, w_rec, leak=0.25)
    plain = hl.models.RnnCell(torch.randn(6, 6, generator=g), w_rec)
    task = hl.tasks.make("averaging", modules=2, module_size=1, length=3)
    trained = hl.train(task, hl.recipes.none(), seeds=[0], strengths=[1.0], hidden=6, steps=1, leak=0.25)
    return {
        "arrays": hl.read((w_in, w_rec, w_out), dt=0.25),
        "module": hl.read(model),
        "time constants": hl.read(torch.nn.RNN(2, 6, batch_first=True), dt=0.25, tau=1.0),
        "at the origin": hl.read(cell, at="origin"),
        "at a state": hl.read(cell, at=(torch.ones(6), torch.ones(2))),
        "trained": trained.pathways[0],
        "stack": hl.read([cell, plain]),
    }


@pytest.mark.parametrize(("name", "net"), readings().items(), ids=lambda x: x if isinstance(x, str) else "")
def test_every_way_to_read_a_leaky_network_keeps_its_leak(name: str, net: hl.Pathways) -> None:
    assert net.leak is not None
    assert net.leak.kept[:6].tolist() == [0.75] * 6
    for kind in KINDS:
        drawn = hl.nulls.null_network(net, kind, 0)
        off = (drawn.w_rec - torch.diag(drawn.leak.kept)).diag()[:6]
        assert (off.abs() > 0.5).sum() < 3  # no time constant among the weights
        assert not torch.equal(drawn.w_rec, net.w_rec)


def test_a_leak_of_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match="leak's kept"):
        hl.Pathways(
            np.ones((3, 1)), np.eye(3), np.ones((1, 3)), leak=hl.graph.Leak(torch.ones(2), torch.ones(2))
        )


@pytest.mark.parametrize("correction", ["min-p", "holm", "none"])
def test_too_few_draws_are_said_with_the_number_that_could(correction: str) -> None:
    """A value that is planted as far out as can be gets the p that was said to be the smallest."""
    spiked = iter([True] + [False] * 10_000)

    def planted(maps: hl.HopMaps) -> torch.Tensor:
        values = maps.values.abs().mean((1, 2)).log1p()
        return values + 1e6 * (maps.hops == 9) if next(spiked) else values

    net = network(4, hidden=12)
    few = hl.compare_to_null(net, planted, "shuffle", n=19, seed=0, horizon=29, correction=correction)
    assert float(few.p[7]) == 1 / 20
    torch.testing.assert_close(few.p_corrected[7], few.smallest_p[7])
    if correction == "none":
        assert few.smallest_p.tolist() == [1 / 20] * 29
        assert "n = 20" in repr(few)
        return
    assert float(few.smallest_p.min()) >= 0.05
    assert "n = 580" in repr(few)
    assert "too few draws" in repr(few)
    spiked = iter([True] + [False] * 10_000)
    assert few.draws_for() == 580
    enough = hl.compare_to_null(net, planted, "shuffle", n=580, seed=0, horizon=29, correction=correction)
    assert float(enough.p_corrected[7]) < 0.05
    assert float(enough.smallest_p.max()) < 0.05
    assert "too few" not in repr(enough)


def test_the_draws_asked_for_are_as_few_as_the_level_allows() -> None:
    result = hl.compare_to_null(network(1), lambda m: m.values.sum(), n=5)
    assert [result.draws_for(level) for level in (0.05, 0.01, 0.3)] == [20, 100, 3]
    assert 1 / (result.draws_for(0.05) + 1) < 0.05 <= 1 / result.draws_for(0.05)
    assert list(result.to_dataframe()["smallest_p"]) == [1 / 6]
