"""Networks without cycles, and those that rounding cannot tell from them: radius 0, and the plain sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from size import few

import hoplens as hl

F64 = torch.float64
HIDDEN = 12


def line(hidden: int = HIDDEN, weight: float = 1.0) -> np.ndarray:
    return np.diag(np.full(hidden - 1, weight), -1)


def rotation(hidden: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((hidden, hidden)))[0]


def network(w: np.ndarray, seed: int = 0, dtype: torch.dtype = F64) -> hl.Pathways:
    g = np.random.default_rng(seed)
    w_in, w_out = g.standard_normal((w.shape[0], 2)), g.standard_normal((3, w.shape[0]))
    return hl.Pathways(*(torch.as_tensor(block).to(dtype) for block in (w_in, w, w_out)))


def plain_sum(net: hl.Pathways, damping: float, terms: int = HIDDEN) -> np.ndarray:
    w_in, w_rec, w_out = (b.to_dense().double().numpy() for b in (net.w_in, net.w_rec, net.w_out))
    return sum(
        damping ** (n + 2) * w_out @ np.linalg.matrix_power(w_rec, n) @ w_in for n in range(terms)
    )  # fmt: skip


def noisy(noise: float, seed: int, hidden: int = HIDDEN, weight: float = 1.0) -> np.ndarray:
    g = np.random.default_rng(seed)
    order = g.permutation(hidden)
    w = line(hidden, weight) + noise * weight * g.standard_normal((hidden, hidden))
    return w[np.ix_(order, order)]


def test_a_delay_line_with_noise_as_in_the_last_digit_is_not_blown_up():
    net = network(line() + 1e-17 * np.random.default_rng(0).standard_normal((HIDDEN, HIDDEN)))
    assert np.abs(np.linalg.eigvals(net.w_rec.numpy())).max() > 0.02  # what an eigenvalue solver says
    found = hl.resolvent(net)
    assert hl.spectral_radius(net) == 0 == found.spectral_radius
    np.testing.assert_allclose(found.value, plain_sum(net, 0.8), rtol=1e-12)
    assert float(found.error_bound.max()) < 1e-10 * float(found.value.abs().max())


@settings(max_examples=few(25), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    hidden=st.sampled_from([2, 3, 5, 12, 25]),
    weight=st.sampled_from([1e-3, 1.0, 10.0]),
    noise=st.sampled_from([0.0, 1e-20, 1e-17]),
    single=st.booleans(),
    sparse=st.booleans(),
)
def test_what_is_nilpotent_up_to_rounding_has_the_plain_sum(seed, hidden, weight, noise, single, sparse):
    net = network(noisy(noise, seed, hidden, weight), seed, torch.float32 if single else F64)
    if sparse:
        net = hl.Pathways(net.w_in, csr_array(net.w_rec.numpy()), net.w_out)
    assert hl.spectral_radius(net) == 0
    found = hl.resolvent(net, damping=0.5, dtype=F64)
    np.testing.assert_allclose(found.value, plain_sum(net, 0.5, hidden), rtol=1e-9)
    with pytest.raises(hl.errors.ParameterError, match="no cycle"):
        hl.graph.rescale(net, 0.5)
    full = hl.PathwayPenalty(None, 0.5, across="sum", normalise=True)(net)
    assert float(full) == pytest.approx(np.abs(plain_sum(net, 0.5, hidden)).sum(), rel=1e-5)


@settings(max_examples=few(25), deadline=None)
@given(
    seed=st.integers(0, 10**6), hidden=st.sampled_from([2, 4, 12, 40]), weight=st.sampled_from([1e-3, 1, 1e3])
)
def test_a_rotated_delay_line_is_nilpotent_too(seed, hidden, weight):
    q = rotation(hidden, seed)
    net = network(q @ line(hidden, weight) @ q.T, seed)
    assert hl.spectral_radius(net) == 0
    exact = hl.Pathways(q.T @ net.w_in.numpy(), line(hidden, weight), net.w_out.numpy() @ q)
    wanted = plain_sum(exact, 0.5, hidden)
    found = hl.resolvent(net, damping=0.5).value.numpy()
    assert np.abs(found - wanted).max() <= 1e-8 * np.abs(wanted).max()


@settings(max_examples=few(40), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    hidden=st.sampled_from([1, 2, 3, 8, 48, 90]),
    kind=st.sampled_from(
        ["gauss", "no self-loops", "sparse", "ring", "triangular", "symmetric", "weak loop"]
    ),
)
def test_networks_with_cycles_keep_their_radius(seed, hidden, kind):
    g = np.random.default_rng(seed)
    w = g.standard_normal((hidden, hidden)) / hidden**0.5
    if kind == "no self-loops":
        w = w - np.diag(np.diag(w)) if hidden > 1 else w
    elif kind == "sparse":
        w = w * (g.random(w.shape) < 2 / hidden) + np.diag(np.full(hidden, 1e-3))
    elif kind == "ring":
        w = np.roll(np.eye(hidden), 1, axis=0)
    elif kind == "triangular":
        w = np.tril(w) + np.diag(np.full(hidden, 0.5))
    elif kind == "symmetric":
        w = w + w.T
    elif kind == "weak loop":
        w = line(hidden) + np.diag(np.r_[np.zeros(hidden - 1), 0.3])
    largest = np.abs(np.linalg.eigvals(w)).max()
    assert float(hl.spectral_radius(network(w))) == pytest.approx(largest, rel=1e-6)


def test_an_ensemble_of_both_kinds_treats_each_as_its_own():
    blocks = [line(), noisy(1e-17, 1), np.random.default_rng(2).standard_normal((HIDDEN, HIDDEN))]
    nets = [network(w, seed) for seed, w in enumerate(blocks)]
    both = hl.Pathways(*(torch.stack([getattr(n, b) for n in nets]) for b in ("w_in", "w_rec", "w_out")))
    found = hl.resolvent(both)
    for one, value, bound, radius in zip(
        nets, found.value, found.error_bound, found.spectral_radius, strict=True
    ):
        alone = hl.resolvent(one)
        torch.testing.assert_close(value, alone.value)
        torch.testing.assert_close(radius, alone.spectral_radius)
        assert float((bound - alone.error_bound).abs().max()) < 1e-10
    assert found.spectral_radius[:2].tolist() == [0, 0]
    assert float(found.spectral_radius[2]) > 1


@pytest.mark.parametrize("hidden", [30, 1500])
def test_the_error_bound_of_a_plain_sum_holds(hidden):
    g = np.random.default_rng(0)
    w = np.tril(g.standard_normal((hidden, hidden)), -1) * (g.random((hidden, hidden)) < 2 / hidden)
    order = g.permutation(hidden)
    net = network(w[np.ix_(order, order)].astype(np.float32), dtype=torch.float32)
    assert hl.spectral_radius(net) == 0
    found = hl.resolvent(net)
    system = np.eye(hidden) - 0.8 * net.w_rec.double().numpy()
    exact = 0.64 * net.w_out.double().numpy() @ np.linalg.solve(system, net.w_in.double().numpy())
    assert (np.abs(found.value.double().numpy() - exact) <= found.error_bound.numpy()).all()
    assert float(found.error_bound.max()) < 1e-4


def test_a_large_sparse_graph_without_cycles_is_summed():
    hidden = 3000
    g = np.random.default_rng(1)
    order = g.permutation(hidden)
    w = csr_array((np.full(hidden - 1, 0.5), (order[1:], order[:-1])), shape=(hidden, hidden))
    net = hl.Pathways(np.eye(hidden)[:, order[:1]], w, np.eye(hidden)[order[5:6]])
    assert hl.spectral_radius(net) == 0
    assert hl.resolvent(net, damping=0.5).value.item() == pytest.approx(0.5**2 * 0.25**5)
    ring = csr_array((np.full(hidden, 0.5), (np.roll(order, -1), order)), shape=(hidden, hidden))
    loop = ring + csr_array(([0.9], ([0], [0])), shape=(hidden, hidden))
    assert hl.spectral_radius(hl.Pathways(np.ones((hidden, 1)), loop, np.ones((1, hidden)))) > 0


def test_factors_that_hear_nothing_of_themselves_have_radius_zero():
    g = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(40, 6, generator=g, dtype=F64)).Q
    u, v = 3 * q[:, :3], 2 * q[:, 3:]
    net = hl.Pathways(torch.ones(40, 1, dtype=F64), hl.graph.LowRank(u, v), torch.ones(1, 40, dtype=F64))
    assert hl.spectral_radius(net) == 0
    dense = hl.Pathways(net.w_in, u @ v.mT, net.w_out)
    wanted = plain_sum(dense, 0.8, 2)
    np.testing.assert_allclose(hl.resolvent(net).value, wanted, rtol=1e-9)
    np.testing.assert_allclose(hl.resolvent(dense).value, wanted, rtol=1e-9)


def test_the_plain_sum_has_the_gradient_of_the_walks():
    blocks = [torch.as_tensor(b).requires_grad_() for b in (np.ones((4, 1)), line(4, 0.5), np.ones((1, 4)))]
    hl.resolvent(hl.Pathways(*blocks), damping=0.5).value.sum().backward()
    found = [block.grad.clone() for block in blocks]
    for block in blocks:
        block.grad = None
    maps = hl.hop_maps(hl.Pathways(*blocks), 4)
    maps.damped(0.5).sum().backward()
    for own, block in zip(found, blocks, strict=True):
        torch.testing.assert_close(own, block.grad)
    hl.PathwayPenalty(3, normalise=True)(hl.Pathways(*blocks)).backward()
    assert all(block.grad.isfinite().all() for block in blocks)


def test_a_sum_beyond_the_range_of_the_dtype_is_refused():
    net = network(line(25, 1e3), dtype=torch.float32)
    for call in (hl.resolvent, hl.PathwayPenalty(None, 0.8, across="sum", normalise=True)):
        with pytest.raises(hl.errors.RangeError, match=r"range of torch\.float32"):
            call(net)
    assert hl.resolvent(net, dtype=F64).value.isfinite().all()


@pytest.mark.parametrize("upward", [0.005, 0.02, 0.1])
def test_a_wide_float32_network_whose_radius_rounding_does_not_move_has_that_radius(upward: float):
    g, hidden = np.random.default_rng(3), 400
    w = np.tril(g.standard_normal((hidden, hidden)), -1) + upward * np.triu(
        g.standard_normal((hidden, hidden))
    )
    net = network(w / hidden**0.5, dtype=torch.float32)
    kept = net.w_rec.double().numpy()
    radius = np.abs(np.linalg.eigvals(kept)).max()
    again = np.abs(np.linalg.eigvals(kept * (1 + 2.0**-24 * g.uniform(-1, 1, kept.shape)))).max()
    assert abs(again - radius) < 1e-6  # rounding can tell it from a nilpotent one
    assert float(hl.spectral_radius(net)) == pytest.approx(radius, rel=1e-5)


@pytest.mark.parametrize("hidden", [6, 12, 60])
def test_a_turned_delay_line_in_float32_still_has_radius_0(hidden: int):
    turn = rotation(hidden, 0)
    assert hl.spectral_radius(network(turn @ line(hidden) @ turn.T, dtype=torch.float32)) == 0
