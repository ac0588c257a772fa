"""Balanced truncation: bounds and exact cases of linear networks, and smaller recurrent models."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from size import few
from torch import nn
from twins import random_network

import hoplens as hl
from hoplens.compress.gramians import Gramians, choose_units, data_gramians, linear_gramians
from hoplens.compress.tuning import score

F64 = torch.float64
FREQUENCIES = torch.linspace(0, 0.5, 101, dtype=F64)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def model_of(core, outputs=2, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in core.parameters():
            nn.init.uniform_(parameter, -0.4, 0.4)
        return hl.RecurrentModel(core, nn.Linear(core.hidden_size, outputs))


def core_of(kind, hidden=6):
    with torch.random.fork_rng(devices=[]):
        if kind == "leaky":
            return hl.LeakyRNN(3, hidden, 0.5)
        if kind == "relu":
            return nn.RNN(3, hidden, batch_first=True, nonlinearity="relu", bias=False)
        return {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[kind](3, hidden, batch_first=True)


KINDS = pytest.mark.parametrize("kind", ["rnn", "relu", "leaky", "gru", "lstm"])


def worst_gain(net, other):
    gap = hl.dynamics.transfer_function(net, FREQUENCIES) - hl.dynamics.transfer_function(other, FREQUENCIES)
    return torch.linalg.matrix_norm(gap, ord=2).amax(-1)


# linear networks


@settings(max_examples=few(25))
@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([0.3, 0.9, 0.98]))
def test_the_error_is_never_above_the_bound_nor_below_the_next_value(seed, units, radius):
    net = random_network(seed, hidden=6, radius=radius)
    got = hl.compress.balanced_truncation(net, units)
    gain = worst_gain(net, got.net)
    assert gain <= got.bound * (1 + 1e-9)
    assert got.bound == pytest.approx(float(2 * got.values[units:].sum()))
    torch.testing.assert_close(got.left @ got.right, torch.eye(units, dtype=F64), rtol=0, atol=1e-7)
    torch.testing.assert_close(got.values, hl.dynamics.hankel_singular_values(net))
    # stays stable (Pernebo and Silverman 1982), and keeps the first Hankel values in sight
    assert torch.linalg.eigvals(got.net.w_rec).abs().max() < 1


def test_it_is_the_textbook_reduction():
    net = random_network(3, hidden=6, radius=0.8)
    a, b, c = (m.numpy() for m in (net.w_rec, net.w_in, net.w_out))
    reach = scipy.linalg.solve_discrete_lyapunov(a, b @ b.T)
    show = scipy.linalg.solve_discrete_lyapunov(a.T, c.T @ c)
    # balancing by Cholesky factors: another way than ours, equal up to the signs of states
    lower = np.linalg.cholesky(reach)
    values, vectors = np.linalg.eigh(lower.T @ show @ lower)
    order = values.argsort()[::-1]
    t = lower @ vectors[:, order] * values[order] ** -0.25
    back = np.linalg.inv(t)
    control = pytest.importorskip("control")
    wanted = control.ss((back @ a @ t)[:3, :3], (back @ b)[:3], (c @ t)[:, :3], np.zeros((2, 3)), True)
    got = hl.compress.balanced_truncation(net, 3)
    np.testing.assert_allclose(np.sort(values)[::-1] ** 0.5, got.values, rtol=1e-6)
    small = [m.numpy() for m in (got.net.w_rec, got.net.w_in, got.net.w_out)]
    found = control.ss(*small, np.zeros((2, 3)), True)
    for f in (0.0, 0.13, 0.5):
        z = np.exp(2j * np.pi * f)
        np.testing.assert_allclose(found(z, squeeze=False), wanted(z, squeeze=False), rtol=1e-6, atol=1e-8)
    both = (
        hl.dynamics.controllability_gramian(got.net),
        hl.dynamics.observability_gramian(hl.compress.balanced_truncation(net, 6).net),
    )
    torch.testing.assert_close(both[1], torch.diag(got.values), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(both[0].diagonal(), got.values[:3], rtol=0.5, atol=0)


def test_states_that_nothing_reaches_or_sees_go_at_no_cost():
    net = random_network(1, hidden=4, radius=0.9)
    # two more units: one hears inputs but speaks to nobody, one speaks but hears nobody
    w_rec = torch.zeros(6, 6, dtype=F64)
    w_rec[:4, :4], w_rec[4, :4], w_rec[:4, 5], w_rec[4, 4] = net.w_rec, 1.0, 1.0, 0.5
    w_in = torch.cat([net.w_in, torch.ones(1, 3, dtype=F64), torch.zeros(1, 3, dtype=F64)])
    w_out = torch.cat([net.w_out, torch.zeros(2, 1, dtype=F64), torch.ones(2, 1, dtype=F64)], dim=1)
    wide = hl.Pathways(w_in, w_rec, w_out)
    got = hl.compress.balanced_truncation(wide, 4)
    torch.testing.assert_close(hl.hop_maps(got.net, 12).values, hl.hop_maps(net, 12).values)
    with pytest.raises(hl.errors.ParameterError, match="only 4 states"):
        hl.compress.balanced_truncation(wide, 5)


def test_unstable_networks_need_a_horizon_and_get_no_bound():
    net = random_network(2, hidden=5, radius=1.2)
    with pytest.raises(hl.errors.UnstableError, match="give a horizon"):
        hl.compress.balanced_truncation(net, 3)
    got = hl.compress.balanced_truncation(net, 5, horizon=8)
    assert math.isinf(float(got.bound))
    torch.testing.assert_close(hl.hop_maps(got.net, 8).values, hl.hop_maps(net, 8).values)


def test_ensembles_skips_and_stacks():
    nets = random_network(4, hidden=5, batch=(3,), skip=True)
    got = hl.compress.balanced_truncation(nets, 3)
    assert got.bound.shape == (3,)
    for n in range(3):
        one = hl.compress.balanced_truncation(nets[n], 3)
        torch.testing.assert_close(
            hl.dynamics.transfer_function(one.net, FREQUENCIES),
            hl.dynamics.transfer_function(got.net, FREQUENCIES)[n],
        )
        assert worst_gain(nets[n], one.net) <= one.bound
    stack = hl.read(nn.GRU(2, 3, 2).double(), nn.Linear(3, 2).double()).detach()
    small = hl.compress.balanced_truncation(stack, 3)
    assert worst_gain(stack, small.net) <= small.bound * (1 + 1e-9)


# Gramians along data


@KINDS
@pytest.mark.parametrize("every_step", [False, True])
def test_gramians_along_data_are_covariances_of_states_and_slopes(kind, every_step):
    model = model_of(core_of(kind, 4)).double()
    model.info = hl.ModelInfo(every_step=every_step)
    x = draw(0, 5, 6, 3)
    got = data_gramians(model, x)
    states = model.core(x)[0].detach()
    flat = states.transpose(0, 1).reshape(-1, 4)
    torch.testing.assert_close(got.mean, flat.mean(0))
    torch.testing.assert_close(got.reach, flat.mT.cov(correction=0))
    if every_step:  # by random signs: right on average only
        assert torch.linalg.eigvalsh(got.show)[0] > -1e-12
        return
    cell = hl.Stack(((hl.models.readers.models.to_stack(model.core).cells[0],),), None, "x").cells[0]
    show = torch.zeros(4, 4, dtype=F64)
    for row in x:  # brute force: the Jacobian of what follows a state by that state
        state = torch.zeros(cell.n_state, dtype=F64)
        for t in range(6):
            state = cell.step(state, row[t]).detach()

            def rest(h, state=state, t=t, row=row):
                s = torch.cat([h, state[4:]])
                for later in row[t + 1 :]:
                    s = cell.step(s, later)
                return model.readout(cell.emit(s))

            slope = torch.autograd.functional.jacobian(rest, state[:4])
            show += slope.mT @ slope
    torch.testing.assert_close(got.show, show / 30)


def test_linear_gramians_are_those_of_the_network_at_rest():
    model = model_of(core_of("rnn", 4))
    net = hl.read(model.core, readout=model.readout).detach()
    got = linear_gramians(model, 7)
    torch.testing.assert_close(got.reach, hl.dynamics.controllability_gramian(net, 7))
    torch.testing.assert_close(got.show, hl.dynamics.observability_gramian(net, 7))


# recurrent models


def doubled(model):
    """Return a model with each unit twice, which computes the same."""
    core, hidden = model.core, model.core.hidden_size
    wide = core_of(
        {nn.GRU: "gru", nn.LSTM: "lstm", nn.RNN: "rnn", hl.LeakyRNN: "leaky"}[type(core)], 2 * hidden
    )
    if isinstance(core, nn.RNN) and core.nonlinearity == "relu":
        wide = core_of("relu", 2 * hidden)
    gates = core.weight_hh_l0.shape[0] // hidden
    twin = torch.arange(2 * hidden) // 2
    rows = torch.cat([twin + g * hidden for g in range(gates)])
    readout = nn.Linear(2 * hidden, model.n_outputs)
    with torch.no_grad():
        wide.weight_ih_l0.copy_(core.weight_ih_l0[rows])
        wide.weight_hh_l0.copy_(core.weight_hh_l0[rows][:, twin] / 2)
        if getattr(core, "bias", True):
            wide.bias_ih_l0.copy_(core.bias_ih_l0[rows])
            wide.bias_hh_l0.copy_(core.bias_hh_l0[rows])
        readout.weight.copy_(model.readout.weight[:, twin] / 2)
        readout.bias.copy_(model.readout.bias)
    return hl.RecurrentModel(wide, readout)


@KINDS
def test_doubled_units_are_found_and_removed_at_no_cost(kind):
    model = model_of(core_of(kind, 4))
    x = draw(0, 32, 8, 3).float()
    wide = doubled(model)
    torch.testing.assert_close(wide(x), model(x))
    got = hl.reduce(wide, 4, basis="units", inputs=x)
    assert sorted(unit // 2 for unit in got.kept) == [0, 1, 2, 3]
    assert got.model.core.weight_hh_l0.shape[1] == 4
    assert type(got.model.core) is type(wide.core)
    torch.testing.assert_close(got.model(x), model(x), rtol=1e-3, atol=1e-4)
    assert got.scores["reduced"] > 0.9999


@KINDS
def test_all_units_kept_is_the_model_itself(kind):
    model = model_of(core_of(kind))
    x = draw(0, 16, 7, 3).float()
    got = hl.reduce(model.core, 6, readout=model.readout, inputs=x)
    assert got.basis == "units"
    assert got.kept == tuple(range(6))
    torch.testing.assert_close(got.model(x), model(x), rtol=1e-4, atol=1e-5)
    without_data = hl.reduce(model, 6, horizon=8)
    torch.testing.assert_close(without_data.model(x), model(x), rtol=1e-4, atol=1e-5)
    assert math.isinf(without_data.bound)


def test_balanced_states_follow_linear_theory_where_the_network_is_linear():
    model = model_of(core_of("rnn"))
    with torch.no_grad():
        for bias in (model.core.bias_ih_l0, model.core.bias_hh_l0, model.readout.bias):
            bias.zero_()
    x = 1e-2 * draw(0, 16, 9, 3).float()  # tanh is linear here to 1e-4
    got = hl.reduce(model, 3, basis="states")
    net = hl.read(model.core, readout=model.readout).detach()
    linear = hl.compress.balanced_truncation(net, 3)
    assert got.bound == pytest.approx(float(linear.bound))
    maps = hl.hop_maps(linear.net, 9).values.flip(0).float()  # by time step
    wanted = torch.einsum("toi,bti->bo", maps, x)
    torch.testing.assert_close(got.model(x), wanted, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("kind", ["rnn", "leaky"])
def test_states_along_data_keep_a_constant_offset(kind):
    model = model_of(core_of(kind, 4))
    x = draw(0, 64, 8, 3).float() + 1.0
    got = hl.reduce(model, 4, basis="states", inputs=x)
    rest = hl.reduce(model, 4, basis="states", horizon=8)  # knows of no mean input
    with torch.no_grad():
        assert score(rest.model(x), model(x)) < 0.5 < 0.8 < got.scores["reduced"]
    assert got.kept == ()
    fewer = hl.reduce(model, 2, basis="states", inputs=x)
    assert fewer.model.core.weight_hh_l0.shape == (2, 2)


def test_the_best_basis_is_the_one_that_changes_less():
    model = model_of(core_of("rnn", 8))
    x = draw(0, 64, 8, 3).float()
    for units in (2, 6):
        shares = {
            basis: hl.reduce(model, units, basis=basis, inputs=x).scores["reduced"]
            for basis in ("units", "states")
        }
        best = hl.reduce(model, units, inputs=x)
        assert best.scores["reduced"] == max(shares.values())
        assert best.basis == max(shares, key=shares.get)
        assert len(best.kept) == (units if best.basis == "units" else 0)
    assert hl.reduce(model, 2, horizon=8).basis == "units"


def test_fine_tuning_wins_back():
    model = model_of(core_of("gru", 8))
    x, fresh = draw(0, 256, 6, 3).float(), draw(1, 128, 6, 3).float()
    weights = {n: v.clone() for n, v in model.state_dict().items()}
    before = torch.get_rng_state()
    got = hl.reduce(model, 2, inputs=x, steps=100, lr=1e-2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(v, weights[n]) for n, v in model.state_dict().items())
    assert got.scores["before"] == pytest.approx(1.0)
    assert got.scores["fine-tuned"] > got.scores["reduced"]
    assert got.scores["fine-tuned"] == pytest.approx(score(got.model(x).detach(), model(x).detach()))
    untuned = hl.reduce(model, 2, inputs=x).model
    shares = [score(one(fresh).detach(), model(fresh).detach()) for one in (untuned, got.model)]
    assert shares[1] > shares[0]  # on sequences that it was not tuned on


@settings(max_examples=few(25))
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_the_first_unit_taken_is_the_best_single_one(seed, hidden):
    roots = draw(seed, 2, hidden, hidden + 1)
    reach, show = roots @ roots.mT

    def unexplained(unit):
        left = reach - reach[:, unit, None] * reach[unit] / reach[unit, unit]
        return float((show @ left).trace())

    (unit,) = choose_units(Gramians(reach, show, reach[0]), 1)
    assert unexplained(unit) <= min(unexplained(n) for n in range(hidden)) * (1 + 1e-9) + 1e-9


def test_units_without_variance_are_taken_last():
    reach = torch.diag(torch.tensor([1.0, 0.0, 2.0, 0.0], dtype=F64))
    show = torch.eye(4, dtype=F64)
    assert choose_units(Gramians(reach, show, reach[0]), 2) == (0, 2)
    assert len(choose_units(Gramians(reach, show, reach[0]), 4)) == 4


# refusals


def test_what_cannot_be_reduced_is_refused():
    deep = hl.RecurrentModel(nn.RNN(3, 4, 2, batch_first=True), nn.Linear(4, 2))
    with pytest.raises(hl.errors.UnsupportedModelError, match="2 layers"):
        hl.reduce(deep, 2)
    both = hl.RecurrentModel(nn.GRU(3, 4, batch_first=True, bidirectional=True), nn.Linear(8, 2))
    with pytest.raises(hl.errors.UnsupportedModelError, match="both directions"):
        hl.reduce(both, 2)
    model = model_of(core_of("gru"))
    with pytest.raises(hl.errors.UnsupportedModelError, match="gates"):
        hl.reduce(model, 2, basis="states")
    with pytest.raises(hl.errors.UnsupportedModelError, match="relu"):
        hl.reduce(model_of(core_of("relu")), 2, basis="states", horizon=5)
    with pytest.raises(hl.errors.ParameterError, match="at most 6"):
        hl.reduce(model, 7)
    with pytest.raises(hl.errors.ParameterError, match="need inputs="):
        hl.reduce(model, 2, steps=3)
    with pytest.raises(hl.errors.UnknownNameError, match="units"):
        hl.reduce(model, 2, basis="unit")
    wild = model_of(core_of("rnn"))
    with torch.no_grad():
        wild.core.weight_hh_l0.mul_(10)
    with pytest.raises(hl.errors.UnstableError, match="horizon"):
        hl.reduce(wild, 2)
