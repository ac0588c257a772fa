"""Sparse, low-rank and large networks: products, radii, resolvents and the bounds that come with them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from twins import assert_near, blocks_of, random_network

import hoplens as hl
from hoplens.graph import chain as kernels
from hoplens.graph import radius, solves, steps
from hoplens.graph import solvers as systems
from hoplens.graph.chain import thin_products


def dense_value(net, a):
    w_in, w_rec, w_out = blocks_of(net)
    w_rec = w_rec.to_dense() if w_rec.layout != torch.strided else w_rec
    eye = torch.eye(w_rec.shape[-1], dtype=torch.float64)
    return a**2 * w_out @ torch.linalg.solve(eye - a * w_rec, w_in)


def sparse_twins(seed=5, **options):
    dense = random_network(seed, density=0.4, **options)
    return hl.Pathways(dense.w_in, sp.coo_array(dense.w_rec.numpy()), dense.w_out), dense


# sparse products


@pytest.mark.parametrize("keep", [0, kernels.KEEP_BYTES])
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 3), (3, 2), (2, 2)])
def test_sparse_penalties_equal_their_dense_twins(inputs, outputs, keep, monkeypatch):
    monkeypatch.setattr(kernels, "KEEP_BYTES", keep)
    monkeypatch.setattr(kernels, "SEGMENT_BYTES", 0)
    net, dense = sparse_twins(hidden=9, inputs=inputs, outputs=outputs)
    w_rec, twin = net.w_rec.requires_grad_(), dense.w_rec.requires_grad_()
    for options in ({"across": "hops"}, {"across": "sum"}, {"norm": "frobenius"}):
        penalty = hl.PathwayPenalty(11, 0.9, **options)
        own, wanted = penalty(net), penalty(dense)
        assert_near(own, wanted)
        (slope,) = torch.autograd.grad(own, w_rec)
        (full,) = torch.autograd.grad(wanted, twin)
        assert slope.layout == torch.sparse_csr
        assert_near(slope.to_dense(), torch.where(dense.w_rec != 0, full, 0.0))


def test_the_gradient_reaches_the_values_that_a_sparse_matrix_was_built_from():
    net, dense = sparse_twins()
    values = net.w_rec.values().clone().requires_grad_()
    built = steps.csr(net.w_rec.crow_indices(), net.w_rec.col_indices(), values, net.w_rec.shape)
    hl.PathwayPenalty(6)(hl.Pathways(net.w_in, built, net.w_out)).backward()
    twin = dense.w_rec.requires_grad_()
    hl.PathwayPenalty(6)(dense).backward()
    assert_near(values.grad, twin.grad[dense.w_rec != 0])


def test_a_sparse_run_without_gradients_keeps_two_blocks_only(monkeypatch):
    made = []
    original = torch.empty_like
    monkeypatch.setattr(kernels.torch, "empty_like", lambda *a, **k: made.append(1) or original(*a, **k))
    net, _ = sparse_twins(hidden=8)
    before = net.w_in.clone()
    hl.hop_maps(net, 40)
    assert 0 < len(made) <= 3
    assert torch.equal(net.w_in, before)


def test_narrow_indices_hold_the_same_matrix():
    net, dense = sparse_twins(hidden=9)
    narrow = steps.narrow_csr(net.w_rec)
    assert narrow.crow_indices().dtype == torch.int32
    assert_near(narrow.to_dense(), dense.w_rec)
    assert_near(steps.transpose_csr(net.w_rec).to_dense(), dense.w_rec.mT)


# spectral radii


@pytest.mark.parametrize("kind", ["dense", "sparse", "low rank"])
def test_the_leading_eigenvalue_equals_the_largest_of_all(kind):
    source = torch.Generator().manual_seed(0)
    if kind == "low rank":
        u, v = (torch.randn(120, 2, generator=source, dtype=torch.float64) for _ in range(2))
        own = 0.1 * torch.rand(120, generator=source, dtype=torch.float64)
        w_rec, dense = hl.graph.LowRank(u, v, own), u @ v.mT + torch.diag(own)
    else:
        dense = torch.rand(120, 120, generator=source, dtype=torch.float64)
        dense = torch.where(dense > 0.8, dense, 0.0)
        w_rec = sp.csr_array(dense.numpy()) if kind == "sparse" else dense
    net = hl.Pathways(torch.ones(120, 1), w_rec, torch.ones(1, 120))
    found = hl.graph.leading_eigenvalue(net)
    wanted = float(torch.linalg.eigvals(dense).abs().max())
    assert found.radius == pytest.approx(wanted, rel=1e-7)
    assert found.residual < 1e-7
    assert found.products < 500
    assert hl.graph.leading_eigenvalue(net) == found  # the start vector is fixed
    assert float(hl.spectral_radius(net)) == pytest.approx(wanted, rel=1e-9)


def test_large_networks_take_the_iterative_radius(monkeypatch):
    net, dense = sparse_twins(hidden=40, radius=0.7)
    monkeypatch.setattr(radius, "DENSE_LIMIT", 10)
    assert float(hl.spectral_radius(net)) == pytest.approx(0.7, rel=1e-6)
    pair = hl.Pathways(*(torch.stack([b, 2 * b]) for b in blocks_of(dense)))
    assert_near(hl.spectral_radius(pair), torch.tensor([0.7, 1.4]).double(), 1e-6)
    net.w_rec.requires_grad_()
    with pytest.raises(hl.errors.ParameterError, match="no gradient"):
        hl.PathwayPenalty(4, normalise=True)(net)


def test_a_dense_network_without_a_leading_eigenvalue_falls_back_on_all(monkeypatch):
    monkeypatch.setattr(radius, "DENSE_LIMIT", 10)
    monkeypatch.setattr(radius, "RESTARTS", 1)
    monkeypatch.setattr(radius, "KRYLOV_VECTORS", 4)
    net = random_network(hidden=60, radius=0.7)
    assert float(hl.spectral_radius(net)) == pytest.approx(0.7, rel=1e-9)
    monkeypatch.setattr(radius, "PATIENT_LIMIT", 50)
    with pytest.raises(hl.errors.ConvergenceError, match="did not converge"):
        hl.spectral_radius(net)


def test_a_leading_eigenvalue_needs_one_network_and_says_when_it_fails(monkeypatch):
    with pytest.raises(hl.errors.ParameterError, match="one network"):
        hl.graph.leading_eigenvalue(random_network(batch=(2,), hidden=8))
    monkeypatch.setattr(radius, "RESTARTS", 1)
    monkeypatch.setattr(radius, "KRYLOV_VECTORS", 4)
    with pytest.raises(hl.errors.ConvergenceError, match="did not converge"):
        hl.graph.leading_eigenvalue(random_network(hidden=200))


# full resolvents


def check(result, wanted):
    """The truth lies within the bound, and the bound is not idle."""
    error = (result.value.double() - wanted).abs()
    assert (error <= result.error_bound).all()
    assert (result.error_bound < 1e-6 * wanted.abs().max()).all()
    assert float(result.residual) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("damping", [0.05, 0.8, 0.99])
@pytest.mark.parametrize("kind", ["dense", "Krylov", "sparse", "low rank"])
def test_certified_resolvents_hold_what_they_promise(kind, damping, dtype, monkeypatch):
    dense = random_network(3, hidden=60, radius=1.0, density=0.2 if kind == "sparse" else 1.0).to(dtype)
    net, method = dense, "LU"
    if kind == "Krylov":
        monkeypatch.setattr(solves, "prefers_krylov", lambda *_: True)
        method = "Krylov iterations"
    elif kind == "sparse":
        net = hl.Pathways(dense.w_in, sp.coo_array(dense.w_rec.numpy()), dense.w_out)
        method = "Krylov iterations"
    elif kind == "low rank":
        source = torch.Generator().manual_seed(1)
        u, v = (torch.randn(60, 3, generator=source).to(dtype) / 8 for _ in range(2))
        net = hl.Pathways(
            dense.w_in, hl.graph.LowRank(u, v, 0.3 * torch.rand(60, generator=source)), dense.w_out
        )
        method = "Woodbury's identity"
    size = float(torch.linalg.eigvals(net.to(torch.float64).w_rec.to_dense()).abs().max())
    result = hl.resolvent(net, damping=damping, radius=size)
    assert result.method == method
    assert result.bound_kind
    assert result.value.dtype == dtype
    wanted = dense_value(net.to(torch.float64), damping / size)
    if dtype == torch.float64:
        check(result, wanted)
    else:
        assert ((result.value.double() - wanted).abs() <= result.error_bound.double()).all()
        assert (result.error_bound < 1e-4 * wanted.abs().max()).all()


def test_a_small_norm_gives_a_bound_that_cannot_fail():
    net = random_network(3, hidden=30, radius=1.0)
    assert hl.resolvent(net, damping=1e-3).bound_kind == "norm of a W below 1"
    assert "probes" in hl.resolvent(net, damping=0.99).bound_kind


def test_probes_bound_the_norm_of_the_inverse():
    net = random_network(3, hidden=40, radius=1.0)
    system = systems.dense_system(net.w_rec, 0.95)
    found, _ = systems.bound_inverse(system, 40)
    eye = torch.eye(40, dtype=torch.float64)
    truth = 1.0 / float(torch.linalg.svdvals(eye - 0.95 * net.w_rec)[-1])
    assert truth <= found < 60 * truth


def test_an_unsolved_system_is_bounded_by_what_it_leaves():
    # a solver that is off by a tenth: the certificate must say so
    net = random_network(3, hidden=40, radius=0.5)
    good = systems.dense_system(net.w_rec, 0.5)
    poor = systems.System(
        good.apply,
        good.apply_t,
        lambda b: 0.9 * good.solve(b),
        lambda b: 0.9 * good.solve_t(b),
        good.contraction,
        good.rounding,
    )
    inverse = systems.bound_inverse(good, 40)
    found = systems.certify(poor, net.w_in, net.w_out, inverse=inverse)
    error = (0.25 * found.value - dense_value(net, 0.5)).abs()
    assert found.residual == pytest.approx(0.1)
    assert (error <= 0.25 * found.bound).all()
    assert float(error.max()) > 1e-3


def test_sparse_full_penalties_have_the_gradient_of_their_dense_twins():
    net, dense = sparse_twins(hidden=20, radius=0.9)
    w_rec, w_in, twin = net.w_rec.requires_grad_(), net.w_in.requires_grad_(), dense.w_rec.requires_grad_()
    penalty = hl.PathwayPenalty(None, 0.8, across="sum")
    (slope, thin) = torch.autograd.grad(penalty(net), (w_rec, w_in))
    (full,) = torch.autograd.grad(penalty(dense), twin)
    assert_near(slope.to_dense(), torch.where(dense.w_rec != 0, full, 0.0), 1e-8)
    assert thin.isfinite().all()
    (through,) = torch.autograd.grad(hl.resolvent(net, normalise=False).value.sum(), w_in)
    assert through.abs().sum() > 0


def test_direct_edges_join_the_certified_value():
    net = random_network(2, hidden=10, radius=0.5, skip=True)
    bare = hl.Pathways(*blocks_of(net)[:3])
    with_skip, without = (hl.resolvent(n, damping=0.5, normalise=False) for n in (net, bare))
    assert_near(with_skip.value, without.value + 0.5 * net.w_skip)


def test_krylov_iterations_that_fail_raise():
    matrix = sp.csr_array(np.roll(np.eye(50), 1, axis=0))  # I - W is singular and ones are not in its range
    with pytest.raises(hl.errors.ConvergenceError, match="did not converge"):
        systems.krylov(matrix, 1.0, np.ones((50, 1)), np.ones(50), 1e-11)


def test_the_cost_model_takes_lu_for_small_and_krylov_for_large_networks():
    assert not systems.prefers_krylov(100, 100**2, 18, 0.8)
    assert systems.prefers_krylov(8192, 8192**2, 18, 0.5)
    assert not systems.prefers_krylov(8192, 8192**2, 18, 0.8)
    assert systems.prefers_krylov(16384, 16384**2, 18, 0.8)
    assert not systems.prefers_krylov(8192, 8192**2, 500, 0.99)


def test_a_diagonal_belongs_to_the_factors():
    source = torch.Generator().manual_seed(1)
    u, v = (torch.randn(2, 6, 2, generator=source, dtype=torch.float64) / 3 for _ in range(2))
    own = 0.5 * torch.rand(2, 6, generator=source, dtype=torch.float64)
    net = hl.Pathways(torch.ones(2, 6, 2), hl.graph.LowRank(u, v, own), torch.ones(2, 1, 6))
    dense = hl.Pathways(net.w_in, u @ v.mT + torch.diag_embed(own), net.w_out)
    assert_near(net.w_rec, dense.w_rec)
    assert_near(hl.hop_maps(net, 6).values, hl.hop_maps(dense, 6).values)
    assert_near(hl.resolvent(net).value, hl.resolvent(dense).value, 1e-9)
    assert_near(hl.resolvent(net, horizon=5).value, hl.resolvent(dense, horizon=5).value, 1e-9)
    assert_near(net[1].w_rec, dense.w_rec[1])
    with pytest.raises(hl.errors.ShapeError, match="diagonal"):
        hl.Pathways(torch.ones(6, 2), hl.graph.LowRank(u[0], v[0], own[0, :3]), torch.ones(1, 6))
    own[0, 0] = torch.nan
    with pytest.raises(hl.errors.NonFiniteError, match="diagonal"):
        hl.Pathways(torch.ones(2, 6, 2), hl.graph.LowRank(u, v, own), torch.ones(2, 1, 6)).check_finite()


# the approximate mode, and the paper's worry: weak pathways that a low-rank approximation loses


RANK = 4
WEAK = 1e-2


def planted_network():
    """A strong hub of rank 4 between inputs 0, 1 and outputs 0, 1; a weak chain from input 2 to output 2."""
    source = torch.Generator().manual_seed(3)
    hidden, hub = 80, 60
    left, right = (
        torch.linalg.qr(torch.randn(hub, RANK, generator=source, dtype=torch.float64)).Q for _ in "ab"
    )
    w_rec = torch.zeros(hidden, hidden, dtype=torch.float64)
    w_rec[:hub, :hub] = left @ right.mT
    for unit in range(hub, hub + 3):
        w_rec[unit + 1, unit] = WEAK
    w_in, w_out = torch.zeros(hidden, 3).double(), torch.zeros(3, hidden).double()
    w_in[:hub, :2] = torch.randn(hub, 2, generator=source, dtype=torch.float64)
    w_out[:2, :hub] = torch.randn(2, hub, generator=source, dtype=torch.float64)
    w_in[hub, 2] = w_out[2, hub + 3] = 1.0
    return hl.Pathways(w_in, w_rec, w_out)


def low_rank_approximations(w_rec):
    """What one would do without a bound: W_rec replaced by a matrix of rank 4."""
    u, s, vh = torch.linalg.svd(w_rec)
    values, vectors = torch.linalg.eig(w_rec)
    top = values.abs().argsort(descending=True)[:RANK]
    inverse = torch.linalg.pinv(vectors)
    source = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(w_rec @ torch.randn(80, RANK, generator=source, dtype=torch.float64)).Q
    return {
        "singular values": u[:, :RANK] * s[:RANK] @ vh[:RANK],
        "eigenvalues": (vectors[:, top] * values[top] @ inverse[top]).real,
        "random range": basis @ basis.mT @ w_rec,
    }


@pytest.mark.parametrize("name", ["singular values", "eigenvalues", "random range"])
def test_plain_low_rank_approximations_lose_a_weak_pathway_unnoticed(name):
    net = planted_network()
    truth = dense_value(net, 0.5)
    assert truth[2, 2] == pytest.approx(0.5**5 * WEAK**3)
    close = low_rank_approximations(net.w_rec)[name]
    plain = dense_value(hl.Pathways(net.w_in, close, net.w_out), 0.5)
    if name == "singular values":  # all looks well on the strong pathways
        assert_near(plain[:2, :2], truth[:2, :2], 1e-9)
    # gone, or drowned in what the random range stirs up
    assert abs(float(plain[2, 2] - truth[2, 2])) > 0.95 * float(truth[2, 2])


@pytest.mark.parametrize("rank", [RANK, 20, 80])
def test_ours_reports_the_weak_pathway_that_it_cannot_tell(rank, monkeypatch):
    monkeypatch.setattr("hoplens.analysis.approximate.OVERSAMPLE", 0)
    net = planted_network()
    truth = dense_value(net, 0.5)
    result = hl.analysis.approximate_resolvent(
        net, rank=rank, damping=0.5, normalise=False, power_iterations=2
    )
    assert ((result.value - truth).abs() <= result.error_bound).all()
    assert result.resolved[:2, :2].all()  # the strong pathways are certain
    if rank == RANK:
        assert not result.resolved[2, 2]  # the weak one is not, and it says so: the truth may be anything
        assert result.error_bound[2, 2] >= truth[2, 2]
    if rank == 80:
        assert result.resolved[2, 2]
        assert float(result.value[2, 2]) == pytest.approx(float(truth[2, 2]), rel=1e-6)


@pytest.mark.parametrize("damping", [0.3, 0.9])
@pytest.mark.parametrize("rank", [1, 10, 40])
@pytest.mark.parametrize("sparse", [False, True])
def test_the_bound_of_the_approximate_mode_holds_on_networks_of_full_rank(sparse, rank, damping):
    dense = random_network(7, hidden=40, radius=1.0, density=0.3, inputs=2, outputs=3)
    net = hl.Pathways(dense.w_in, sp.coo_array(dense.w_rec.numpy()), dense.w_out) if sparse else dense
    result = hl.analysis.approximate_resolvent(net, rank=rank, damping=damping, normalise=False)
    truth = dense_value(dense, damping)
    assert ((result.value - truth).abs() <= result.error_bound).all()
    assert result.error_bound.isfinite().all()
    if rank == 40:
        assert (result.error_bound < 1e-8).all()
    again = hl.analysis.approximate_resolvent(net, rank=rank, damping=damping, normalise=False)
    assert torch.equal(result.value, again.value)


def test_the_approximate_mode_checks_what_it_is_given():
    with pytest.raises(hl.errors.ParameterError, match="one network"):
        hl.analysis.approximate_resolvent(random_network(batch=(2,)), rank=2)
    with pytest.raises(hl.errors.UnstableError, match="damping"):
        hl.analysis.approximate_resolvent(random_network(radius=2.0), rank=2, normalise=False)
    with pytest.raises(hl.errors.ParameterError, match="rank"):
        hl.analysis.approximate_resolvent(random_network(), rank=0)


def test_sparse_products_in_half_precision_come_back_as_asked():
    net, dense = sparse_twins(hidden=9, radius=0.9)
    blocks = [b.to(torch.float16) for b in (net.w_in, net.w_rec, net.w_out)]
    assert thin_products(*blocks, 5).dtype == torch.float16
    assert_near(thin_products(*blocks, 5).double(), thin_products(*blocks_of(dense), 5), 1e-2)
