"""Penalties against a paper-literal twin, their gradients, and how they behave in a training loop."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from twins import assert_near, blocks_of, literal_penalty, networks, one_by_one, random_network

import hoplens as hl

# every legal combination: the full resolvent adds hops first
KINDS = [
    {"horizon": horizon, "across": across, "norm": norm, "normalise": normalise}
    for horizon, across, norm, normalise in itertools.product(
        (5, None), ("hops", "sum"), ("l1", "frobenius"), (False, True)
    )
    if not (horizon is None and across == "hops")
]
kinds = st.sampled_from(KINDS)
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))


def has_cycles(net):
    return bool((torch.linalg.eigvals(net.w_rec).abs().amax(-1) > 1e-3).all())


# against the twin


@given(networks(least_radius=0.1, most_radius=1.2), kinds, st.floats(0.1, 0.8))
def test_pathway_penalties_equal_the_papers_full_matrices(net, kind, damping):
    assume(has_cycles(net))
    got = hl.PathwayPenalty(damping=damping, **kind)(net)
    wanted = torch.stack([literal_penalty(one, damping, **kind) for one in one_by_one(net)])
    assert_near(got, wanted.reshape(net.batch_shape), 1e-10)


@each_kind
@pytest.mark.parametrize("skip", [False, True])
def test_gradients_equal_the_papers_full_matrices(kind, skip):
    net = random_network(4, skip=skip, requires_grad=True)
    own = torch.autograd.grad(hl.PathwayPenalty(damping=0.8, **kind)(net), blocks_of(net))
    twin = torch.autograd.grad(literal_penalty(net, 0.8, **kind), blocks_of(net))
    for a, b in zip(own, twin, strict=True):
        assert float(b.abs().max()) > 1e-3
        assert_near(a, b, 1e-10)


@each_kind
@pytest.mark.parametrize("skip", [False, True])
def test_gradcheck(kind, skip):
    net = random_network(6, skip=skip, batch=(2,), requires_grad=True)
    penalty = hl.PathwayPenalty(damping=0.8, **kind)
    assert torch.autograd.gradcheck(lambda *blocks: penalty(hl.Pathways(*blocks)), blocks_of(net))


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize(
    "blocks", [("in",), ("rec",), ("out",), ("in", "out"), ("in", "rec", "out")], ids=str
)
def test_weight_penalties_are_sums_over_weights(norm, blocks):
    net = random_network(batch=(2, 3), skip=True)
    got = hl.WeightPenalty(norm, blocks)(net)
    assert got.shape == (2, 3)
    for a, b in itertools.product(range(2), range(3)):
        weights = torch.cat([getattr(net, f"w_{block}")[a, b].flatten() for block in blocks]).tolist()
        assert got[a, b].item() == pytest.approx(sum(abs(w) if norm == "l1" else w * w for w in weights))


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_weight_penalties_pass_gradcheck(norm):
    net = random_network(batch=(2,), requires_grad=True)
    penalty = hl.WeightPenalty(norm)
    assert torch.autograd.gradcheck(lambda *blocks: penalty(hl.Pathways(*blocks)), blocks_of(net))


PENALTIES = {
    "hops": hl.PathwayPenalty(6),
    "sum": hl.PathwayPenalty(6, across="sum", norm="frobenius"),
    "normalised": hl.PathwayPenalty(6, normalise=True),
    "l1": hl.WeightPenalty(),
    "l2": hl.WeightPenalty("l2"),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_a_sparse_network_has_the_penalty_of_its_dense_twin(name):
    dense = random_network(3, density=0.6)
    net = hl.Pathways(dense.w_in, sp.coo_array(dense.w_rec.numpy()), dense.w_out)
    assert_near(PENALTIES[name](net), PENALTIES[name](dense))


# ensembles


@each_kind
@pytest.mark.parametrize("batch", [(3,), (2, 2)], ids=str)
def test_an_ensemble_gives_every_network_its_own_value(kind, batch):
    net = random_network(batch=batch, skip=True)
    penalty = hl.PathwayPenalty(damping=0.8, **kind)
    got = penalty(net)
    assert got.shape == batch
    assert_near(got.flatten(), torch.stack([penalty(one) for one in one_by_one(net)]))


@each_kind
def test_networks_of_an_ensemble_do_not_feel_each_other(kind):
    net = random_network(batch=(3,), requires_grad=True)
    hl.PathwayPenalty(damping=0.8, **kind)(net)[1].backward()
    for block in blocks_of(net):
        assert not block.grad[[0, 2]].any()
        assert block.grad[1].any()


def test_one_network_has_a_scalar_penalty():
    net = random_network()
    for penalty in (*PENALTIES.values(), hl.penalties.PenaltySum([]), 2 * hl.WeightPenalty()):
        assert penalty(net).shape == ()


# laws


@given(networks(most_radius=1.1, skips=(False, True)), st.sampled_from(["l1", "frobenius"]))
def test_adding_hops_first_never_gives_more(net, norm):
    by_hop = hl.PathwayPenalty(6, norm=norm)(net)
    added = hl.PathwayPenalty(6, norm=norm, across="sum")(net)
    assert bool((added <= by_hop * (1 + 1e-12)).all())


@given(networks(skips=(False, True)))
def test_without_signs_nothing_cancels(net):
    positive = hl.Pathways(*(block.abs() for block in blocks_of(net)))
    assert_near(hl.PathwayPenalty(6, across="sum")(positive), hl.PathwayPenalty(6)(positive), 1e-11)


def test_opposite_hops_cancel_in_the_sum_only():
    # hop 2 is +1, hop 3 is -1 after damping 1: the loophole of the paper's penalty
    net = hl.Pathways([[1.0]], [[-1.0]], [[1.0]])
    assert hl.PathwayPenalty(2, 1.0, across="sum")(net).item() == 0.0
    assert hl.PathwayPenalty(2, 1.0, across="hops")(net).item() == 2.0


@given(networks(batches=((),)), kinds, st.randoms(use_true_random=False))
def test_permuting_hidden_units_changes_nothing(net, kind, random):
    assume(has_cycles(net))
    order = list(range(net.n_hidden))
    random.shuffle(order)
    permuted = hl.Pathways(net.w_in[order], net.w_rec[order][:, order], net.w_out[:, order], net.w_skip)
    for penalty in (hl.PathwayPenalty(damping=0.7, **kind), hl.WeightPenalty(), hl.WeightPenalty("l2")):
        assert_near(penalty(permuted), penalty(net), 1e-9)


@given(networks(batches=((),), skips=(True,)), networks(batches=((),), skips=(True,)))
def test_independent_networks_add_up(a, b):
    both = hl.Pathways(*(torch.block_diag(x, y) for x, y in zip(blocks_of(a), blocks_of(b), strict=True)))
    for across in ("hops", "sum"):
        penalty = hl.PathwayPenalty(6, across=across)
        assert_near(penalty(both), penalty(a) + penalty(b), 1e-11)
    assert_near(hl.WeightPenalty()(both), hl.WeightPenalty()(a) + hl.WeightPenalty()(b))


@given(networks(least_radius=0.1), st.floats(0.1, 10.0))
def test_a_normalised_penalty_does_not_depend_on_the_scale(net, factor):
    assume(has_cycles(net))
    scaled = hl.Pathways(*(factor * block for block in blocks_of(net)))
    penalty = hl.PathwayPenalty(5, normalise=True)
    assert_near(penalty(scaled), penalty(net), 1e-9)


# where the numbers get difficult


@pytest.mark.parametrize("norm", ["l1", "frobenius"])
@pytest.mark.parametrize("across", ["hops", "sum"])
@pytest.mark.parametrize("radius", [1.0, 1.5, 3.0])
def test_a_finite_horizon_is_finite_at_any_spectral_radius(radius, across, norm):
    net = random_network(batch=(2,), radius=radius).to(torch.float32)
    for block in blocks_of(net):
        block.requires_grad_()
    value = hl.PathwayPenalty(20, 1.0, across=across, norm=norm)(net)
    value.sum().backward()
    assert value.isfinite().all()
    for block in blocks_of(net):
        assert block.grad.isfinite().all()
        assert block.grad.any()


@each_kind
def test_zero_weights_have_penalty_zero_and_a_finite_gradient(kind):
    zeros = [torch.zeros(4, 3), torch.eye(4) * 0.5, torch.zeros(2, 4), torch.zeros(2, 3)]
    blocks = [block.double().requires_grad_() for block in zeros]
    value = hl.PathwayPenalty(damping=0.8, **kind)(hl.Pathways(*blocks))
    value.backward()
    assert value.item() == 0.0
    assert all(not block.grad.isnan().any() for block in blocks)


@pytest.mark.parametrize("radius", [1.25, 2.0])
def test_a_full_resolvent_that_diverges_names_the_radius_and_the_largest_damping(radius):
    net = random_network(radius=radius * (1 + 1e-9))
    with pytest.raises(hl.errors.UnstableError, match=rf"0\.8 \* {radius:g}") as caught:
        hl.PathwayPenalty(None, 0.8, across="sum")(net)
    largest = float(re.search(r"damping below ([\d.]+),", str(caught.value)).group(1))
    assert largest == pytest.approx(1 / radius, rel=1e-5)
    assert hl.PathwayPenalty(None, 0.999 * largest, across="sum")(net).isfinite()
    assert hl.PathwayPenalty(None, 0.8, across="sum", normalise=True)(net).isfinite()


def test_normalising_leaves_a_network_without_cycles_as_it_is():
    net = hl.Pathways(np.ones((2, 1)), np.array([[0.0, 0.0], [1.0, 0.0]]), np.ones((1, 2)))
    assert hl.PathwayPenalty(4, normalise=True)(net) == hl.PathwayPenalty(4)(net) > 0


# options


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"horizon": 0}, hl.errors.ParameterError, "horizon"),
        ({"horizon": 2.5}, hl.errors.ParameterError, "horizon"),
        ({"horizon": 5, "damping": 0.0}, hl.errors.ParameterError, "damping"),
        ({"horizon": 5, "damping": 1.01}, hl.errors.ParameterError, "damping"),
        ({"horizon": 5, "damping": math.nan}, hl.errors.ParameterError, "damping"),
        ({"horizon": 5, "across": "hop"}, hl.errors.UnknownNameError, "did you mean 'hops'"),
        ({"horizon": 5, "norm": "l2"}, hl.errors.UnknownNameError, "frobenius"),
        ({"horizon": None}, hl.errors.ParameterError, 'across="sum"'),
        (
            {"horizon": None, "across": "sum", "damping": 1.0, "normalise": True},
            hl.errors.ParameterError,
            "below 1",
        ),
    ],
    ids=str,
)
def test_options_are_checked_when_the_penalty_is_made(options, error, message):
    with pytest.raises(error, match=message):
        hl.PathwayPenalty(**options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"norm": "l3"}, hl.errors.UnknownNameError),
        ({"blocks": ("in", "skip")}, hl.errors.UnknownNameError),
        ({"blocks": ()}, hl.errors.ParameterError),
        ({"blocks": "rec"}, hl.errors.ParameterError),
    ],
    ids=str,
)
def test_options_of_weight_penalties_are_checked(options, error):
    with pytest.raises(error):
        hl.WeightPenalty(**options)


@pytest.mark.parametrize("name", [*PENALTIES, "nothing"])
def test_a_penalty_takes_pathways_only(name):
    penalty = {**PENALTIES, "nothing": hl.penalties.PenaltySum([])}[name]
    with pytest.raises(hl.errors.UnsupportedModelError, match=r"got RNN; write penalty\(hl\.read"):
        penalty(nn.RNN(2, 3))


def test_options_are_shown():
    shown = repr(hl.PathwayPenalty(7, 0.5, across="sum", norm="frobenius", normalise=True))
    for part in ("horizon=7", "damping=0.5", "'sum'", "'frobenius'", "normalise=True"):
        assert part in shown
    assert "blocks=('rec',)" in repr(hl.WeightPenalty(blocks=["rec"]))
    assert "weights=[2.0]" in repr(2 * hl.WeightPenalty())


# sums


def test_penalties_add_up_and_scale():
    net = random_network(batch=(3,))
    a, b, c = hl.PathwayPenalty(4), hl.WeightPenalty(), hl.WeightPenalty("l2")
    wanted = 2 * (a(net) + 0.5 * b(net)) + 3 * c(net)
    assert_near((2 * (a + 0.5 * b) + c * 3)(net), wanted)
    assert_near((2 * (a + b * 0.5) + 3.0 * c)(net), wanted)
    assert_near(hl.penalties.PenaltySum([(2, a), (1, b), (3, c)])(net), wanted)
    assert_near(sum([a, b, c])(net), a(net) + b(net) + c(net))
    assert_near((a + a)(net), 2 * a(net))
    assert_near(hl.penalties.PenaltySum([])(net), torch.zeros(3, dtype=torch.float64))
    assert_near((hl.penalties.PenaltySum([]) + a)(net), a(net))


def test_sums_are_flat():
    total = 2 * (hl.WeightPenalty() + 3 * (hl.WeightPenalty("l2") + hl.PathwayPenalty(3)))
    assert total.weights == [2.0, 6.0, 6.0]
    assert not any(isinstance(penalty, hl.penalties.PenaltySum) for penalty in total.penalties)


def test_an_own_penalty_joins_in():
    class Norm(hl.Penalty):
        def forward(self, net):
            return net.w_rec.norm(dim=(-2, -1))

    net = random_network(batch=(2,))
    assert_near((Norm() + hl.WeightPenalty())(net), net.w_rec.norm(dim=(-2, -1)) + hl.WeightPenalty()(net))
    with pytest.raises(hl.errors.UnsupportedModelError, match="Penalty must implement forward"):
        hl.Penalty()(net)


def test_sums_refuse_what_is_no_penalty():
    with pytest.raises(hl.errors.ParameterError, match=r"hl\.Penalty objects, got Identity"):
        hl.penalties.PenaltySum([(1.0, nn.Identity())])
    with pytest.raises(hl.errors.ParameterError, match="weight of a penalty"):
        math.nan * hl.WeightPenalty()
    for wrong in (3, "x", nn.Identity()):
        with pytest.raises(TypeError):
            hl.WeightPenalty() + wrong
        with pytest.raises(TypeError):
            wrong + hl.WeightPenalty()


# in a training loop of the user's own


@pytest.mark.parametrize("across", ["hops", "sum"])
def test_a_users_own_module_trains_with_a_penalty(across):
    rnn, linear = nn.RNN(3, 12, batch_first=True), nn.Linear(12, 1)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (*rnn.parameters(), *linear.parameters()):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=source))
    penalty = hl.PathwayPenalty(horizon=6, across=across)
    optimiser = torch.optim.Adam([*rnn.parameters(), *linear.parameters()], lr=1e-2)
    task, route = [], []
    for _ in range(150):
        inputs = torch.randn(32, 6, 3, generator=source)
        states, _ = rnn(inputs)
        loss = (linear(states[:, -1])[:, 0] - inputs[:, 4, 0]).square().mean()
        pathways = penalty(hl.read(rnn, readout=linear))
        optimiser.zero_grad()
        (loss + 1e-2 * pathways).backward()
        optimiser.step()
        task.append(loss.item())
        route.append(pathways.item())
    assert np.mean(task[-10:]) < 0.3 * np.mean(task[:10])
    assert route[-1] < 0.5 * max(route)
    maps = hl.hop_maps(hl.read(rnn, readout=linear), horizon=6)
    assert hl.analysis.dominant_hop(maps)[0, 0] == 3  # the target came one step before the last


# gradients without autograd


@pytest.mark.parametrize(
    "penalty",
    [
        hl.PathwayPenalty(9),
        hl.PathwayPenalty(9, across="sum"),
        hl.PathwayPenalty(9, norm="frobenius"),
        hl.PathwayPenalty(9, normalise=True),
        hl.WeightPenalty(),
        hl.WeightPenalty("l2", blocks=("rec",)),
        hl.PathwayPenalty(4) + 0.3 * hl.WeightPenalty(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 2)], ids=str)
@pytest.mark.parametrize("skip", [False, True])
def test_gradients_are_those_of_autograd(penalty, batch, skip):
    net = random_network(3, hidden=5, inputs=2, outputs=4, batch=batch, requires_grad=True, skip=skip)
    factors = torch.rand(batch, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    value, grads = penalty.gradients(net, factors)
    wanted = penalty(net)
    assert_near(value, wanted)
    twins = torch.autograd.grad((factors * wanted).sum(), blocks_of(net)[:3], materialize_grads=True)
    for own, twin in zip(grads, twins, strict=True):
        assert_near(torch.zeros_like(twin) if own is None else own, twin)


def test_gradients_are_due_in_one_call_out_of_every_so_many():
    net = random_network(3)
    factor = torch.tensor(1.0, dtype=torch.float64)
    saving, exact = hl.PathwayPenalty(5, every=3), hl.PathwayPenalty(5)
    wanted_value, wanted = exact.gradients(net, factor)
    for call in range(6):
        value, grads = saving.gradients(net, factor)
        assert_near(value, wanted_value * (3 if call % 3 == 0 else 0))
        for own, twin in zip(grads, wanted, strict=True):
            assert own is None if call % 3 else torch.allclose(own, 3 * twin)


# a loss that reads out after every step


def literal_every(net, damping, horizon, length, **kind):
    """The mean over read-outs t = 1 .. L of the penalty that a read-out after step t deserves."""
    return sum(literal_penalty(net, damping, min(t, horizon), **kind) for t in range(1, length + 1)) / length


EVERY = [{k: v for k, v in kind.items() if k != "horizon"} for kind in KINDS if kind["horizon"] is not None]


@given(
    networks(least_radius=0.1, most_radius=1.2), st.sampled_from(EVERY), st.integers(1, 4), st.integers(0, 3)
)
def test_with_every_read_out_it_is_the_mean_over_read_outs(net, kind, horizon, more):
    assume(has_cycles(net))
    penalty = hl.PathwayPenalty(horizon, 0.8, readouts="every", length=horizon + more, **kind)
    wanted = [literal_every(one, 0.8, horizon, horizon + more, **kind) for one in one_by_one(net)]
    assert_near(penalty(net), torch.stack(wanted).reshape(net.batch_shape), 1e-10)


@pytest.mark.parametrize("kind", EVERY, ids=str)
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("length", [5, 8])
def test_gradients_with_every_read_out(kind, skip, length):
    net = random_network(4, skip=skip, requires_grad=True)
    penalty = hl.PathwayPenalty(5, 0.8, readouts="every", length=length, **kind)
    twins = torch.autograd.grad(literal_every(net, 0.8, 5, length, **kind), blocks_of(net))
    for own, twin in zip(torch.autograd.grad(penalty(net), blocks_of(net)), twins, strict=True):
        assert_near(own, twin, 1e-10)
    _, by_hand = penalty.gradients(net, torch.tensor(1.0, dtype=torch.float64))
    for own, twin in zip(by_hand, twins, strict=False):
        assert_near(own, twin, 1e-10)


@pytest.mark.parametrize("across", ["hops", "sum"])
def test_every_read_out_of_a_sparse_network_and_by_repeated_squaring(across):
    net = random_network(5, hidden=6)
    penalty = hl.PathwayPenalty(12, readouts="every", across=across)  # long enough to be squared
    wanted = literal_every(net, 0.9, 12, 12, across=across, norm="l1", normalise=False)
    assert_near(penalty(net), wanted, 1e-10)
    sparse = hl.Pathways(net.w_in, sp.csr_array(net.w_rec.numpy()), net.w_out)
    assert_near(penalty(sparse), wanted, 1e-10)


def test_the_mean_of_every_read_out_is_unbiased_when_sampled():
    net = random_network(6, inputs=4, requires_grad=True)
    penalty = hl.PathwayPenalty(4, readouts="every", sample=1, generator=torch.Generator().manual_seed(0))
    mean = torch.stack([penalty(net).detach() for _ in range(2000)]).mean()
    assert math.isclose(float(mean), float(penalty.eval()(net.detach())), rel_tol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 5, "readouts": "all"}, "unknown readouts 'all'"),
        ({"horizon": 5, "length": 7}, 'length= goes with readouts="every"'),
        (
            {"horizon": 5, "readouts": "every", "length": 4},
            "length must be a whole number of at least 5, got 4",
        ),
        ({"horizon": None, "across": "sum", "readouts": "every"}, 'readouts="every" needs a finite horizon'),
    ],
)
def test_options_of_read_outs_are_checked(options, message):
    with pytest.raises(hl.HoplensError, match=re.escape(message)):
        hl.PathwayPenalty(**options)
