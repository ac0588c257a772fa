"""Hop maps at any spectral radius and horizon, in any precision."""

from __future__ import annotations

import mpmath
import pytest
import scipy.sparse as sp
import torch
from twins import assert_near, blocks_of, random_network

import hoplens as hl
from hoplens.graph import chain as kernels
from hoplens.graph.chain import thin_products
from hoplens.graph.scaled import times_power

HORIZON = 1000
CHECKED = (0, 1, 7, 99, 500, 999)  # hop numbers compared with mpmath


def exact_maps(net, wanted):
    """The twin: 30 digits and unbounded exponents."""
    with mpmath.workdps(30):
        w_in, w_rec, w_out = (mpmath.matrix(block.double().tolist()) for block in blocks_of(net))
        maps, block = {}, w_in
        for n in range(max(wanted) + 1):
            if n in wanted:
                maps[n] = w_out * block
            block = w_rec * block
    return maps


def relative_error(maps, net):
    worst = 0.0
    scaled = maps.scaled()
    for n, twin in exact_maps(net, CHECKED).items():
        size = max(abs(cell) for cell in twin)
        for o in range(twin.rows):
            for i in range(twin.cols):
                own = mpmath.ldexp(mpmath.mpf(scaled.mantissas[n, o, i].item()), int(scaled.exponents[n]))
                worst = max(worst, float(abs(own - twin[o, i]) / size))
    return worst


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
@pytest.mark.parametrize("radius", [3.0, 1.0, 0.3, 0.01])
def test_a_thousand_hops_at_any_radius_equal_exact_arithmetic(radius, dtype, bound):
    net = random_network(4, hidden=6, radius=radius).to(dtype)
    maps = hl.hop_maps(net, HORIZON)
    assert maps.values.isfinite().all()
    assert maps.values.dtype == dtype
    assert relative_error(maps, net) < bound
    assert (maps.shift is not None) == (radius == 3.0)
    assert (maps.exact is not None) == (radius != 1.0)


def test_shifted_maps_stay_in_proportion_and_measures_take_them():
    net = random_network(4, hidden=6, radius=3.0).to(torch.float32)
    maps = hl.hop_maps(net, HORIZON)
    scaled = maps.scaled()
    assert 0.5 <= maps.values.abs().max() < 1.0
    rebuilt = torch.ldexp(scaled.mantissas.double(), (scaled.exponents - maps.shift)[:, None, None])
    assert_near(rebuilt, maps.values.double(), 1e-37)
    twin = hl.HopMaps(rebuilt, maps.hops, maps.input_names, maps.output_names)
    assert torch.equal(hl.active_hops(maps), hl.active_hops(twin))
    assert torch.equal(hl.analysis.dominant_hop(maps), hl.analysis.dominant_hop(twin))
    assert float(hl.alignment(maps, twin)) == pytest.approx(1.0, abs=1e-5)
    assert hl.analysis.temporal_sparsity(maps).isfinite().all()
    assert len(maps.to_dataframe()) == maps.values.numel()


def test_maps_that_fit_are_the_plain_products_and_carry_no_exponents():
    net = random_network(1, hidden=7, radius=0.9, batch=(2,))
    maps = hl.hop_maps(net, 30)
    assert maps.shift is None
    assert maps.exact is None
    assert torch.equal(maps.values, thin_products(*blocks_of(net), 30))
    scaled = maps.scaled()
    assert_near(torch.ldexp(scaled.mantissas, scaled.exponents[..., None, None]), maps.values)
    largest = scaled.mantissas.abs().amax(dim=(-2, -1))
    assert ((largest >= 0.5) & (largest < 1)).all()


def test_each_network_of_an_ensemble_has_its_own_exponents():
    nets = [random_network(seed, hidden=6, radius=radius) for seed, radius in enumerate((3.0, 0.2, 1.0))]
    both = hl.Pathways(*(torch.stack(blocks) for blocks in zip(*(blocks_of(n) for n in nets), strict=True)))
    maps = hl.hop_maps(both, HORIZON)
    for n, net in enumerate(nets):
        alone = hl.hop_maps(net, HORIZON)
        assert_near(maps[n].values, alone.values, 1e-12)
        assert_near(maps[n].scaled().log2_size(), alone.scaled().log2_size(), 1e-9)


def test_damped_maps_may_fit_where_the_maps_do_not():
    net = random_network(4, hidden=6, radius=3.0)
    maps = hl.hop_maps(net, HORIZON)
    wanted = hl.hop_maps(hl.Pathways(*(block * 0.3 for block in blocks_of(net))), HORIZON)
    assert maps.shift is not None
    assert wanted.shift is None
    assert_near(maps.damped(0.3), wanted.values, 1e-9)
    with pytest.raises(hl.errors.RangeError, match="smaller damping"):
        maps.damped(0.99)


def test_a_finite_resolvent_beyond_the_range_raises_and_a_damped_one_does_not():
    net = random_network(4, hidden=6, radius=3.0).to(torch.float32)
    assert hl.resolvent(net, damping=0.3, horizon=HORIZON, normalise=False).value.isfinite().all()
    with pytest.raises(hl.errors.RangeError, match="overflows"):
        hl.resolvent(net, damping=0.9, horizon=HORIZON, normalise=False)


@pytest.mark.parametrize("radius", [3.0, 0.05])
def test_gradients_through_rescaled_blocks(radius):
    # a ratio of two late maps: its gradient is the same whatever they were divided by
    net = random_network(2, hidden=5, radius=radius, requires_grad=True)

    def ratio(maps):
        return (maps[-1] / maps[-2].abs().sum()).square().sum()

    wanted = torch.autograd.grad(ratio(thin_products(*blocks_of(net), 150)), blocks_of(net))
    single = [block.detach().float().requires_grad_() for block in blocks_of(net)]
    maps = hl.hop_maps(hl.Pathways(*single), 150)
    mantissas, exponents = maps.scaled().mantissas, maps.scaled().exponents
    last = mantissas[-1] * 2.0 ** float(exponents[-1] - exponents[-2])
    got = torch.autograd.grad(ratio(torch.stack([mantissas[-2], last])), single)
    for own, twin in zip(got, wanted, strict=True):
        assert_near(own.double(), twin, 2e-3 * float(twin.abs().max()))


def test_one_hop_beyond_the_range_raises():
    huge = torch.full((2, 2), 3e38)
    with pytest.raises(hl.errors.RangeError, match="one hop alone"):
        hl.hop_maps(hl.Pathways(torch.ones(2, 1), huge, torch.ones(1, 2)), 3)


@pytest.mark.parametrize("power", [-300, -140, 0, 140, 300])
def test_powers_of_two_are_exact(power):
    values = torch.tensor([1.5, -0.75, 0.0], dtype=torch.float32)
    got = times_power(values * 2.0 ** min(max(-power, -120), 120), torch.tensor(power))
    wanted = torch.ldexp(values.double() * 2.0 ** min(max(-power, -120), 120), torch.tensor(power)).float()
    wanted[wanted.abs() < torch.finfo(torch.float32).tiny] = 0.0
    assert torch.equal(got, wanted)


# half precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single_and_returned_as_asked(dtype):
    net = random_network(3, hidden=40, radius=1.0, requires_grad=False).to(dtype)
    blocks = [block.requires_grad_() for block in blocks_of(net)]
    twin = hl.Pathways(*(block.detach().float() for block in blocks))
    maps = hl.hop_maps(net, 30)
    assert maps.values.dtype == dtype
    assert torch.equal(maps.values, hl.hop_maps(twin, 30).values.to(dtype))
    assert torch.equal(hl.hop_maps(net, 30, dtype=torch.float32).values, hl.hop_maps(twin, 30).values)
    for penalty in (hl.PathwayPenalty(30), hl.PathwayPenalty(None, 0.5, across="sum")):
        value = penalty(net)
        assert value.dtype == dtype
        assert torch.equal(value, penalty(twin).to(dtype))
        gradients = torch.autograd.grad(value, blocks)
        assert all(g.dtype == dtype and g.isfinite().all() for g in gradients)
    assert hl.PathwayPenalty(30, dtype=torch.float32)(net).dtype == torch.float32
    assert hl.resolvent(net, dtype=torch.float64).value.dtype == torch.float64


def test_half_precision_maps_beyond_their_range_are_shifted():
    net = random_network(3, radius=2.0).to(torch.float16)
    maps = hl.hop_maps(net, 40)
    assert maps.shift is not None
    assert maps.values.isfinite().all()
    assert hl.hop_maps(net, 40, dtype=torch.float32).shift is None


# denormals


def test_denormals_never_arise_between_two_flushes(monkeypatch):
    seen = []
    tiny = torch.finfo(torch.float32).tiny
    original = kernels.Chain._run

    def watch(self, *args):
        run = original(self, *args)
        seen.append(int(((run != 0) & (run.abs() < tiny)).sum()))
        return run

    monkeypatch.setattr(kernels.Chain, "_run", watch)
    # one module fades and the other does not, so that no common scale could help
    w_rec = torch.block_diag(0.5 * torch.eye(4), torch.linalg.qr(torch.arange(16.0).view(4, 4).cos()).Q)
    blocks = [torch.ones(8, 2), w_rec, torch.ones(2, 8)]
    thin_products(*(block.requires_grad_() for block in blocks), 400)
    assert seen == [0]
    monkeypatch.setattr(kernels, "FLUSH_BITS", -60)
    thin_products(*blocks, 400)
    assert seen[-1] > 0  # the watch does see them where nothing is flushed


def test_flushing_changes_nothing_that_float32_can_see():
    net = random_network(5, hidden=20, radius=0.5)
    single = thin_products(*(block.float() for block in blocks_of(net)), 200)
    double = thin_products(*blocks_of(net), 200)
    assert_near(single.double(), double, 1e-5)
    assert float((single.double() - double)[100:].abs().max()) < 1e-26


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
@pytest.mark.parametrize("radius", [3.0, 0.05])
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 3), (3, 2)])
def test_a_thousand_sparse_hops_equal_exact_arithmetic(inputs, outputs, radius, dtype, bound):
    dense = random_network(4, inputs=inputs, hidden=6, outputs=outputs, radius=radius, density=0.6).to(dtype)
    net = hl.Pathways(dense.w_in, sp.csr_array(dense.w_rec.numpy()), dense.w_out)
    maps = hl.hop_maps(net, HORIZON)
    assert net.is_sparse
    assert maps.values.isfinite().all()
    assert (maps.shift is not None) == (radius == 3.0)
    assert relative_error(maps, dense) < bound
