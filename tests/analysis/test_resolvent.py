"""The resolvent against the paper's inverse, hop sums, Katz's centrality, and its own laws."""

from __future__ import annotations

import math
import re

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from twins import (
    assert_near,
    blocks_of,
    full_matrix,
    literal_resolvent,
    networks,
    one_by_one,
    random_network,
)

import hoplens as hl


def value_of(net, **options):
    return hl.resolvent(net, **options).value


def stacked(net, function):
    """Apply a twin to every network of an ensemble."""
    values = torch.stack([function(one) for one in one_by_one(net)])
    return values.reshape(*net.batch_shape, *values.shape[1:])


def has_cycles(net):
    return bool((torch.linalg.eigvals(net.w_rec).abs().amax(-1) > 1e-3).all())


# against other definitions


@given(networks(most_radius=1.2), st.floats(0.1, 0.8))
def test_the_full_resolvent_is_the_papers_inverse(net, damping):
    wanted = stacked(net, lambda one: literal_resolvent(one, damping, None, normalise=False))
    assert_near(value_of(net, damping=damping, normalise=False), wanted, 1e-11)


@given(networks(least_radius=0.1), st.floats(0.1, 0.8))
def test_the_normalised_resolvent_is_the_papers_inverse_of_w_star(net, damping):
    assume(has_cycles(net))
    wanted = stacked(net, lambda one: literal_resolvent(one, damping, None, normalise=True))
    assert_near(value_of(net, damping=damping), wanted, 1e-10)


@given(networks(least_radius=0.1), st.floats(0.1, 0.95), st.integers(1, 6), st.booleans())
def test_the_truncated_resolvent_is_a_sum_of_powers(net, damping, horizon, normalise):
    assume(has_cycles(net))
    wanted = stacked(net, lambda one: literal_resolvent(one, damping, horizon, normalise))
    assert_near(value_of(net, damping=damping, horizon=horizon, normalise=normalise), wanted, 1e-10)


@given(networks(most_radius=1.0), st.floats(0.1, 0.5))
def test_the_damped_hop_sum_is_the_resolvent(net, damping):
    hops = hl.hop_maps(net, horizon=80).damped(damping).sum(dim=-3)
    assert_near(value_of(net, damping=damping, normalise=False), hops, 1e-11)


@pytest.mark.parametrize("damping", [0.7, 0.95])
def test_the_truncated_resolvent_approaches_the_full_one_geometrically(damping):
    net = random_network(1, radius=0.9)
    full = value_of(net, damping=damping, normalise=False)
    missing = [
        float((full - value_of(net, damping=damping, horizon=n, normalise=False)).norm()) for n in (20, 60)
    ]
    # 40 more steps: the rest shrinks by (damping * radius)^40, but for the phase of complex eigenvalues
    shrink = (damping * 0.9) ** 40
    assert shrink / 20 < missing[1] / missing[0] < 20 * shrink


@given(networks(batches=((),), most_radius=0.9), st.floats(0.1, 0.9))
def test_the_resolvent_is_networkxs_katz_centrality(net, damping):
    graph = net.to_networkx()
    for i, source in enumerate(net.input_names):
        start = {node: float(node == source) for node in graph}
        katz = nx.katz_centrality_numpy(graph, alpha=damping, beta=start, normalized=False, weight="weight")
        reached = torch.tensor([katz[name] for name in net.output_names], dtype=torch.float64)
        assert_near(value_of(net, damping=damping, normalise=False)[:, i], reached, 1e-11)


# laws


@given(networks(least_radius=0.1, most_radius=1.0), st.integers(0, 1000), st.sampled_from([None, 5]))
def test_permutations_and_similarity_transforms_change_nothing(net, seed, horizon):
    assume(has_cycles(net))
    source = torch.Generator().manual_seed(seed)
    order = torch.randperm(net.n_hidden, generator=source)
    change = torch.linalg.qr(torch.randn(net.n_hidden, net.n_hidden, generator=source).double()).Q[order]
    moved = hl.Pathways(change @ net.w_in, change @ net.w_rec @ change.mT, net.w_out @ change.mT, net.w_skip)
    for normalise in (False, True):
        options = {"damping": 0.8, "horizon": horizon, "normalise": normalise}
        assert_near(value_of(moved, **options), value_of(net, **options), 1e-9)
    assert_near(hl.spectral_radius(moved), hl.spectral_radius(net), 1e-9)


@given(networks(least_radius=0.1, most_radius=1.0), st.sampled_from([None, 5]), st.booleans())
def test_the_reversed_graph_has_the_transposed_resolvent(net, horizon, normalise):
    assume(has_cycles(net))
    skip = None if net.w_skip is None else net.w_skip.mT
    reverse = hl.Pathways(net.w_out.mT, net.w_rec.mT, net.w_in.mT, skip)
    options = {"damping": 0.8, "horizon": horizon, "normalise": normalise}
    assert_near(value_of(reverse, **options), value_of(net, **options).mT, 1e-10)


@given(networks(batches=((),), skips=(True,)), networks(batches=((),), skips=(True,)))
def test_independent_networks_stay_independent(a, b):
    both = hl.Pathways(*(torch.block_diag(x, y) for x, y in zip(blocks_of(a), blocks_of(b), strict=True)))
    options = {"damping": 0.7, "normalise": False}
    wanted = torch.block_diag(value_of(a, **options), value_of(b, **options))
    assert_near(value_of(both, **options), wanted, 1e-11)
    radii = torch.stack([hl.spectral_radius(a), hl.spectral_radius(b)])
    assert_near(hl.spectral_radius(both), radii.max(), 1e-9)


@given(networks(skips=(False,), most_radius=1.0), st.sampled_from([None, 5]))
def test_it_is_linear_in_the_input_edges(net, horizon):
    first = net.w_in.flip(-1) * 0.3
    parts = [hl.Pathways(w, net.w_rec, net.w_out) for w in (first, net.w_in - first)]
    options = {"damping": 0.8, "horizon": horizon, "normalise": False}
    assert_near(sum(value_of(part, **options) for part in parts), value_of(net, **options), 1e-11)


@given(networks(least_radius=0.1), st.floats(0.1, 10.0), st.sampled_from([None, 5]))
def test_normalised_it_does_not_depend_on_the_scale_of_the_graph(net, factor, horizon):
    assume(has_cycles(net))
    scaled = hl.Pathways(*(factor * block for block in blocks_of(net)))
    assert_near(value_of(scaled, horizon=horizon), value_of(net, horizon=horizon), 1e-9)
    assert_near(hl.spectral_radius(scaled), factor * hl.spectral_radius(net), 1e-9)


@pytest.mark.parametrize("horizon", [None, 4])
@pytest.mark.parametrize("normalise", [False, True])
def test_it_is_differentiable_in_every_block(horizon, normalise):
    net = random_network(skip=True, batch=(2,), requires_grad=True)

    def value(*blocks):
        return value_of(hl.Pathways(*blocks), damping=0.8, horizon=horizon, normalise=normalise)

    assert torch.autograd.gradcheck(value, blocks_of(net))


# spectral radius


@given(networks())
def test_the_spectral_radius_is_that_of_the_whole_graph(net):
    wanted = [max(abs(np.linalg.eigvals(full_matrix(one).numpy()))) for one in one_by_one(net)]
    got = hl.spectral_radius(net)
    assert got.shape == net.batch_shape
    # a defective matrix (no cycle) has its eigenvalues to eps^(1/H) only
    np.testing.assert_allclose(got.numpy().ravel(), wanted, atol=1e-3 if min(wanted) < 1e-2 else 1e-9)


def test_the_spectral_radius_counts_complex_eigenvalues():
    turn = 3.0 * torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    net = hl.Pathways(torch.ones(2, 1), turn, torch.ones(1, 2))
    radius = hl.spectral_radius(net)
    assert radius.item() == pytest.approx(3.0)
    assert radius.dtype == torch.float32


@pytest.mark.parametrize("power", [-300, -243, -164, -30, 0, 150])
def test_the_spectral_radius_of_tiny_and_huge_weights(power):
    # LAPACK alone fails to converge on the first three
    net = random_network(0, hidden=3, radius=1.0)
    blocks = [net.w_in, net.w_rec * 10.0**power, net.w_out]
    assert hl.spectral_radius(hl.Pathways(*blocks)).item() == pytest.approx(10.0**power, rel=1e-9)
    both = torch.block_diag(net.w_rec, blocks[1])
    beside = hl.Pathways(torch.ones(6, 1).double(), both, torch.ones(1, 6).double())
    assert hl.spectral_radius(beside).item() == pytest.approx(10.0 ** max(power, 0), rel=1e-9)


def test_a_solver_that_gives_up_is_an_error_of_the_library(monkeypatch):
    def give_up(matrix):
        raise torch.linalg.LinAlgError("failed to converge")

    monkeypatch.setattr(torch.linalg, "eigvals", give_up)
    with pytest.raises(hl.errors.ConvergenceError, match=r"failed to converge.*rescale"):
        hl.spectral_radius(random_network())


def test_a_delay_line_has_radius_zero():
    line = torch.diag(torch.ones(19), -1)
    net = hl.Pathways(torch.ones(20, 1), line, torch.ones(1, 20))
    assert hl.spectral_radius(net).item() == 0.0
    assert hl.resolvent(net, horizon=3, damping=0.5).value.item() == 20 * 0.5**2 + 19 * 0.5**3 + 18 * 0.5**4
    total = value_of(net, damping=1.0, normalise=False).item()
    assert total == pytest.approx(sum(range(1, 21)))  # 20 - lag ways to stay on the line for each lag


# what comes with the value


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)], ids=str)
def test_the_result_records_how_it_was_made(batch):
    net = random_network(batch=batch, radius=0.7)
    full = hl.resolvent(net, damping=0.6)
    assert full.value.shape == (*batch, 2, 3)
    assert full.spectral_radius.shape == full.residual.shape == batch
    assert_near(full.spectral_radius, torch.full(batch, 0.7, dtype=torch.float64))
    assert (full.damping, full.horizon, full.normalised) == (0.6, None, True)
    assert (full.input_names, full.output_names) == (net.input_names, net.output_names)
    short = hl.resolvent(net, damping=0.6, horizon=4, normalise=False)
    assert (short.damping, short.horizon, short.normalised) == (0.6, 4, False)
    assert_near(short.spectral_radius, full.spectral_radius)
    assert not short.residual.any()  # nothing was solved


def test_the_residual_is_what_the_solve_left_over():
    net = random_network(inputs=5, hidden=40, radius=0.99)
    exact, single = (hl.resolvent(n, damping=0.999) for n in (net, net.to(torch.float32)))
    assert 0 < float(exact.residual) < 1e-13
    assert 0 < float(single.residual) < 1e-13  # solved in float64, whatever the weights are stored in
    assert single.value.dtype == torch.float32
    empty = hl.Pathways(torch.zeros(4, 3), random_network().w_rec, torch.ones(2, 4))
    assert float(hl.resolvent(empty).residual) == 0.0


def test_half_precision_is_solved_in_single():
    net = random_network(radius=0.5)
    half = hl.resolvent(net.to(torch.float16), damping=0.5)
    assert half.value.dtype == torch.float16
    assert_near(half.value.double(), value_of(net, damping=0.5), 5e-2)


def test_an_empty_ensemble_has_an_empty_resolvent():
    assert value_of(random_network(batch=(2,))[:0]).shape == (0, 2, 3)


@pytest.mark.parametrize(("batch", "axes"), [((), []), ((2,), ["network"]), ((2, 3), ["axis0", "axis1"])])
def test_the_table_has_one_row_a_cell(batch, axes):
    result = hl.resolvent(random_network(batch=batch))
    table = result.to_dataframe()
    assert list(table.columns) == [*axes, "output", "input", "weight"]
    assert len(table) == result.value.numel()
    for row in table.itertuples():
        network = tuple(getattr(row, axis) for axis in axes)
        cell = (result.output_names.index(row.output), result.input_names.index(row.input))
        assert row.weight == result.value[(*network, *cell)].item()


# errors


@pytest.mark.parametrize(("radius", "damping"), [(1.25, 0.8), (2.0, 0.8), (1.0, 1.0), (0.5, 3.0)])
def test_a_diverging_sum_names_the_radius_and_a_damping_that_works(radius, damping):
    net = random_network(2, radius=radius * (1 + 1e-9))
    with pytest.raises(hl.errors.UnstableError, match=r"damping \* spectral radius < 1") as caught:
        hl.resolvent(net, damping=damping, normalise=False)
    product = re.search(r"got ([\d.]+) \* ([\d.]+) = ([\d.]+)", str(caught.value))
    assert [float(n) for n in product.groups()] == pytest.approx([damping, radius, damping * radius])
    largest = float(re.search(r"damping below ([\d.]+),", str(caught.value)).group(1))
    assert largest == pytest.approx(1 / radius, rel=1e-5)
    assert torch.isfinite(value_of(net, damping=0.999 * largest, normalise=False)).all()


def test_one_diverging_network_of_an_ensemble_is_enough():
    nets = [random_network(n, radius=r) for n, r in enumerate((0.5, 1.5, 0.7))]
    blocks = zip(*(blocks_of(net) for net in nets), strict=True)
    ensemble = hl.Pathways(*(torch.stack(block) for block in blocks))
    with pytest.raises(hl.errors.UnstableError, match=r"1\.5"):
        hl.resolvent(ensemble, damping=0.8, normalise=False)
    assert value_of(ensemble, damping=0.8).isfinite().all()
    assert value_of(ensemble, damping=0.8, horizon=30, normalise=False).isfinite().all()


@pytest.mark.parametrize("damping", [0.0, -0.5, math.nan, "0.5", None])
@pytest.mark.parametrize("normalise", [False, True])
def test_damping_is_a_positive_number(damping, normalise):
    with pytest.raises(hl.errors.ParameterError, match="damping must be a finite number above 0"):
        hl.resolvent(random_network(), damping=damping, normalise=normalise)


def test_normalised_damping_is_below_one_and_horizons_are_counts():
    with pytest.raises(hl.errors.ParameterError, match="below 1"):
        hl.resolvent(random_network(), damping=1.0)
    with pytest.raises(hl.errors.ParameterError, match="horizon"):
        hl.resolvent(random_network(), horizon=0)


def test_nan_is_refused():
    net = random_network()
    net.w_rec[0, 0] = torch.nan
    with pytest.raises(hl.errors.NonFiniteError, match="w_rec"):
        hl.resolvent(net)
    with pytest.raises(hl.errors.NonFiniteError, match="w_rec"):
        hl.spectral_radius(net)


@pytest.mark.parametrize("normalise", [False, True])
def test_a_sparse_network_is_truncated_like_its_dense_twin(normalise):
    dense = random_network(density=0.7, seed=4)
    net = hl.Pathways(dense.w_in, sp.coo_array(dense.w_rec.numpy()), dense.w_out)
    options = {"damping": 0.8, "horizon": 5, "normalise": normalise}
    assert_near(value_of(net, **options), value_of(dense, **options))


def test_a_sparse_network_has_the_full_resolvent_of_its_dense_twin():
    dense = random_network(density=0.7, seed=4)
    net = hl.Pathways(dense.w_in, sp.coo_array(dense.w_rec.numpy()), dense.w_out)
    assert_near(value_of(net, damping=0.8), value_of(dense, damping=0.8), 1e-9)
