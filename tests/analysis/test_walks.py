"""Walks, flow, lesions and modules against brute force on small networks."""

from __future__ import annotations

import itertools
import math

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from size import few

import hoplens as hl
from hoplens.errors import ParameterError, RangeError, ShapeError, UnknownNameError

F64 = torch.float64


def network(
    seed: int, inputs: int = 2, hidden: int = 4, outputs: int = 3, sparse: float = 0.3, **more
) -> hl.Pathways:
    g = torch.Generator().manual_seed(seed)
    blocks = []
    for shape in ((hidden, inputs), (hidden, hidden), (outputs, hidden)):
        w = torch.randn(*shape, generator=g, dtype=F64)
        blocks.append(w * (torch.rand(*shape, generator=g) > sparse))
    return hl.Pathways(*blocks, **more)


def all_walks(net: hl.Pathways, source: int, target: int, hops: int) -> list[tuple[float, tuple[int, ...]]]:
    walks = []
    for units in itertools.product(range(net.n_hidden), repeat=hops - 1):
        product = float(net.w_in[units[0], source])
        for a, b in itertools.pairwise(units):
            product *= float(net.w_rec[b, a])
        product *= float(net.w_out[target, units[-1]])
        if product:
            walks.append((product, units))
    return sorted(walks, key=lambda walk: (-abs(walk[0]), walk[1]))


@settings(max_examples=few(25), deadline=None)
@given(seed=st.integers(0, 10**6), hops=st.integers(2, 6), n=st.integers(1, 400))
def test_top_paths_are_the_best_of_all_walks(seed: int, hops: int, n: int) -> None:
    net = network(seed)
    wanted = all_walks(net, 1, 2, hops)
    got = hl.top_paths(net, 1, 2, hops, n)
    assert len(got) == min(n, len(wanted))
    exact = {units: product for product, units in wanted}
    assert len(set(got["units"])) == len(got)
    for row, (product, _) in zip(got.itertuples(), wanted, strict=False):
        assert math.isclose(abs(row.product), abs(product), rel_tol=1e-12)  # walks of the same edges tie
        assert math.isclose(row.product, exact[row.units], rel_tol=1e-12)
    if n >= len(wanted):
        summed = hl.hop_maps(net, hops).values[hops - 2, 2, 1]
        assert math.isclose(got["product"].sum(), float(summed), rel_tol=1e-9, abs_tol=1e-12)
        assert not wanted or math.isclose(got["share"].sum(), 1.0, rel_tol=1e-9)


def test_top_paths_long_sparse_named_and_direct() -> None:
    ring = sp.csr_array(np.roll(np.eye(5), 1, axis=0) * 1e-3)
    w_in, w_out = np.eye(5)[:, :1], np.eye(5)[:1]
    net = hl.Pathways(w_in, ring, w_out, [[2.0]], hidden_names=list("abcde"), output_names=["out"])
    walk = hl.top_paths(net, "x0", "out", 202)
    assert len(walk) == 1  # 200 edges of 1e-3: the product underflows, its logarithm does not
    assert walk["units"][0] == tuple(range(5)) * 40 + (0,)
    assert hl.top_paths(net, 0, 0, 1)["product"].tolist() == [2.0]
    assert hl.top_paths(net, 0, 0, 7)["path"].tolist() == ["x0 > a > b > c > d > e > a > out"]
    assert hl.top_paths(net, 0, 0, 3).empty
    with pytest.raises(UnknownNameError, match="target"):
        hl.top_paths(net, 0, "nowhere", 3)
    with pytest.raises(ShapeError, match="leading axes"):
        hl.top_paths(hl.Pathways(*(torch.ones(2, 3, 3) for _ in range(3))), 0, 0, 3)


@settings(max_examples=few(20), deadline=None)
@given(seed=st.integers(0, 10**6))
def test_flow_against_all_walks(seed: int) -> None:
    net = network(seed)
    shares = hl.flow(net, 5)
    for k, row in enumerate(shares):
        visits = np.zeros(net.n_hidden)
        for source, target in itertools.product(range(2), range(3)):
            for product, units in all_walks(net, source, target, k + 2):
                np.add.at(visits, list(units), abs(product))
        wanted = visits / visits.sum() if visits.sum() else visits
        np.testing.assert_allclose(row.numpy(), wanted, rtol=1e-10, atol=1e-14)


def test_flow_scale_batch_and_modules() -> None:
    net = network(3, hidden_modules=["a", "a", "b", "c"])
    loud = hl.Pathways(net.w_in, net.w_rec * 1e30, net.w_out * 1e-200)
    torch.testing.assert_close(hl.flow(loud, 30), hl.flow(net, 30))
    both = hl.Pathways(*(torch.stack([b, 2 * b]) for b in (net.w_in, net.w_rec, net.w_out)))
    torch.testing.assert_close(hl.flow(both, 6)[1], hl.flow(net, 6))
    frame = hl.analysis.module_flow(net, 4)
    assert list(frame.columns) == ["a", "b", "c"]
    np.testing.assert_allclose(frame.sum(axis=1), 1.0)
    np.testing.assert_allclose(frame["a"], hl.flow(net, 4)[:, :2].sum(1).numpy())


@settings(max_examples=few(20), deadline=None)
@given(seed=st.integers(0, 10**6), horizon=st.integers(1, 8))
def test_lesions_equal_networks_without_the_unit(seed: int, horizon: int) -> None:
    net = network(seed, sparse=0.1)
    whole = hl.hop_maps(net, horizon).values
    for j, delta in enumerate(hl.lesion(net, horizon).tolist()):
        rest = hl.hop_maps(hl.ablate(net, units=[j]), horizon).values
        assert math.isclose(delta, float((whole - rest).norm() / whole.norm()), rel_tol=1e-9, abs_tol=1e-12)
        assert math.isclose(float(hl.lesion(net, horizon, units=[j])[0]), delta, rel_tol=1e-9, abs_tol=1e-12)


def change(net: hl.Pathways, rest: hl.Pathways, horizon: int) -> float:
    whole = hl.hop_maps(net, horizon).values
    return float((whole - hl.hop_maps(rest, horizon).values).norm() / whole.norm())


@pytest.mark.parametrize("horizon", [1, 2, 3, 7])
@pytest.mark.parametrize("wide", [False, True])
def test_all_edges_equal_networks_without_the_edge(horizon: int, wide: bool) -> None:
    """Wide: more inputs and outputs than hops, where walks are rotated into fewer columns."""
    net = network(7, inputs=9, outputs=8, sparse=0.2) if wide else network(7, sparse=0.2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stack = hl.read(torch.nn.RNN(2, 3, 2).double()).detach()
    for one in (net, stack):
        table = hl.analysis.lesion_edges(one, horizon)
        assert table.shape == one.w_rec.shape
        for i, j in itertools.product(range(one.n_hidden), repeat=2):
            wanted = change(one, hl.ablate(one, edges=[(j, i)]), horizon)
            assert math.isclose(float(table[i, j]), wanted, rel_tol=1e-9, abs_tol=1e-12)
    assert bool((hl.analysis.lesion_edges(net, 4)[net.w_rec == 0] == 0).all())


def test_named_units_and_edges_one_by_one_or_together() -> None:
    net = network(5, hidden=6, sparse=0.1)
    each = hl.lesion(net, 9)
    torch.testing.assert_close(hl.lesion(net, 9, units=["h4", 1], together=False), each[[4, 1]])
    gone = hl.ablate(net, units=[0], edges=[(2, "h3"), (5, 5)])
    got = hl.lesion(net, 9, units=[0], edges=[(2, "h3"), (5, 5)])
    assert got.shape == (1,)
    assert math.isclose(float(got), change(net, gone, 9), rel_tol=1e-12)
    both = hl.Pathways(*(torch.stack([b, 2 * b]) for b in (net.w_in, net.w_rec, net.w_out)))
    torch.testing.assert_close(hl.analysis.lesion_edges(both, 3)[0], hl.analysis.lesion_edges(net, 3))
    assert hl.lesion(both, 3, units=[1, 2, 3], together=False).shape == (2, 3)
    with pytest.raises(ParameterError, match="lesion_edges"):
        hl.lesion(net, 3, edges=[(0, 1)], together=False)
    with pytest.raises(ParameterError, match="at least one"):
        hl.lesion(net, 3, units=[], edges=[])
    with pytest.raises(ParameterError, match="pair"):
        hl.lesion(net, 3, edges=[1])


def test_estimate_is_exact_without_cycles_and_ranks_well_with_them() -> None:
    chain = network(2, hidden=7, sparse=0.0)
    chain = hl.Pathways(chain.w_in, chain.w_rec.tril(-1), chain.w_out)
    torch.testing.assert_close(hl.analysis.lesion_estimate(chain, 6), hl.lesion(chain, 6))
    sparse = hl.Pathways(chain.w_in, sp.csr_array(chain.w_rec.numpy()), chain.w_out)
    torch.testing.assert_close(hl.analysis.lesion_estimate(sparse, 6), hl.lesion(chain, 6))
    torch.testing.assert_close(hl.lesion(sparse, 6), hl.lesion(chain, 6))
    large = network(3, hidden=100, sparse=0.0)
    large = hl.Pathways(large.w_in, large.w_rec * 0.09, large.w_out)
    exact, rough = hl.lesion(large, 10), hl.analysis.lesion_estimate(large, 10)
    assert float(torch.corrcoef(torch.stack([exact, rough]))[0, 1]) > 0.95
    assert not torch.allclose(exact, rough, rtol=1e-3)


def test_lesions_beyond_the_range_of_numbers_are_refused() -> None:
    net = network(1, sparse=0.0)
    loud = hl.Pathways(net.w_in, net.w_rec * 1e40, net.w_out)
    for call in (hl.lesion, hl.analysis.lesion_edges, hl.analysis.lesion_estimate):
        with pytest.raises(RangeError, match="shorter horizon"):
            call(loud, 20)


def test_lesions_of_stacks_ensembles_and_edges() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = hl.read(torch.nn.GRU(2, 3, 2).double()).detach()
    whole = hl.hop_maps(net, 4).values
    rest = hl.hop_maps(hl.ablate(net, units=["l1.h0"]), 4).values
    assert math.isclose(
        float(hl.lesion(net, 4)[3]), float((whole - rest).norm() / whole.norm()), rel_tol=1e-9
    )
    one = network(1)
    both = hl.Pathways(*(torch.stack([b, 3 * b]) for b in (one.w_in, one.w_rec, one.w_out)))
    torch.testing.assert_close(hl.lesion(both, 4)[0], hl.lesion(one, 4))
    cut = hl.ablate(one, edges=[("h1", 2)])
    assert float(cut.w_rec[2, 1]) == 0
    assert int((cut.w_rec != one.w_rec).sum()) == int(one.w_rec[2, 1] != 0)
    with pytest.raises(UnknownNameError):
        hl.ablate(one, units=["nobody"])


def test_blocks_and_modularity() -> None:
    w = torch.block_diag(
        *[torch.rand(3, 3, generator=torch.Generator().manual_seed(s), dtype=F64) for s in (0, 1)]
    )
    labels = ["a"] * 3 + ["b"] * 3
    net = hl.Pathways(
        torch.eye(6, dtype=F64), w, torch.eye(6, dtype=F64), input_modules=labels, output_modules=labels
    )
    result = hl.analysis.blocks(net, 4)
    assert result.hidden_modules == tuple(labels)
    maps = hl.hop_maps(net, 4).values
    torch.testing.assert_close(result.values[:, 0, 0], maps[:, :3, :3].abs().sum((1, 2)))
    assert float(result.values[:, 0, 1].abs().max()) == 0
    graph = net.to_networkx()
    groups = [
        {n for n in graph if int(n.split(":")[-1][1:]) < 3},
        {n for n in graph if int(n.split(":")[-1][1:]) >= 3},
    ]
    wanted = nx.community.modularity(graph, groups, weight="weight")
    assert math.isclose(result.wiring_modularity, wanted, rel_tol=1e-12)
    assert 0.3 < result.function_modularity <= 0.5
    assert len(result.to_dataframe()) == 4 * 4
    mixed = hl.Pathways(net.w_in, w.roll(3, 0), net.w_out, input_modules=labels, output_modules=labels)
    assert hl.analysis.blocks(mixed, 2).function_modularity < result.function_modularity
    with pytest.raises(ParameterError, match="input_modules"):
        hl.analysis.blocks(network(0), 3)


@pytest.mark.parametrize("kind", ["sparse", "low rank"])
def test_a_sparse_graph_is_made_dense_once_however_many_walks(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = torch.Generator().manual_seed(0)
    u, v = (
        torch.rand(12, 2, generator=g, dtype=torch.float64),
        torch.rand(12, 2, generator=g, dtype=torch.float64),
    )
    w_rec = sp.csr_array((u @ v.mT).numpy()) if kind == "sparse" else hl.graph.LowRank(u, v)
    net = hl.Pathways(torch.ones(12, 1).double(), w_rec, torch.ones(1, 12).double())
    whole = hl.Pathways(net.w_in, u @ v.mT, net.w_out)
    made: list[str] = []
    original = hl.Pathways.w_rec.fget
    dense = torch.Tensor.to_dense
    monkeypatch.setattr(torch.Tensor, "to_dense", lambda self, *a: made.append("dense") or dense(self, *a))
    monkeypatch.setattr(
        hl.Pathways, "w_rec", property(lambda self: (self.factors and made.append("built")) or original(self))
    )
    counts = []
    for n in (1, 50):
        made.clear()
        found = hl.top_paths(net, 0, 0, 5, n)
        counts.append(len(made))
    assert counts[0] == counts[1]
    monkeypatch.undo()
    wanted = hl.top_paths(whole, 0, 0, 5, 50)
    torch.testing.assert_close(torch.tensor(found["product"]), torch.tensor(wanted["product"]))
