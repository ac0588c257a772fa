"""Ensembles against torch's own RNN, and their initial weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from twins import assert_near

import hoplens as hl
from hoplens.models.initial import INITS, create_ensemble, delay_lines

SIZES = {"n_inputs": 3, "hidden": 8, "n_outputs": 2, "length": 4, "dtype": torch.float64}


def make(seeds=(0, 1, 2), init="gaussian", **options):
    ensemble = create_ensemble(seeds, [init] * len(seeds), **{**SIZES, **options})
    source = torch.Generator().manual_seed(9)  # biases start at zero: move them, so that they are tested
    for bias in (ensemble.weight[:, -1], ensemble.offset):
        bias.copy_(torch.randn(bias.shape, generator=source, dtype=bias.dtype) / 3)
    return ensemble


def torch_twin(ensemble, n):
    """One network of an ensemble as nn.RNN and nn.Linear."""
    h, i = ensemble.n_hidden, ensemble.n_inputs
    weight = ensemble.weight[n].detach()
    rnn = nn.RNN(i, h, nonlinearity=ensemble.cell, batch_first=True, dtype=weight.dtype)
    linear = nn.Linear(h, ensemble.readout.shape[1], dtype=weight.dtype)
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(weight[:h].T)
        rnn.weight_ih_l0.copy_(weight[h : h + i].T)
        rnn.bias_ih_l0.copy_(weight[-1])
        rnn.bias_hh_l0.zero_()
        linear.weight.copy_(ensemble.readout[n])
        linear.bias.copy_(ensemble.offset[n, :, 0])
    return rnn, linear


@pytest.mark.parametrize("cell", ["tanh", "relu"])
@pytest.mark.parametrize("own", [False, True])
def test_predictions_equal_torchs_rnn(cell, own):
    ensemble = make(cell=cell)
    shape = (3, 5, 4, 3) if own else (5, 4, 3)
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = ensemble.predict(inputs)
    assert got.shape == (3, 5, 2)
    for n in range(3):
        rnn, linear = torch_twin(ensemble, n)
        states, _ = rnn(inputs[n] if own else inputs)
        assert_near(got[n], linear(states[:, -1]))


def test_the_pathways_of_an_ensemble_are_those_of_its_torch_twins():
    ensemble = make()
    net = ensemble.pathways()
    assert net.batch_shape == (3,)
    for n in range(3):
        rnn, linear = torch_twin(ensemble, n)
        twin = hl.read(rnn, readout=linear)
        for name in ("w_in", "w_rec", "w_out"):
            assert torch.equal(getattr(net[n], name), getattr(twin, name))
    ensemble.weight.zero_()
    assert not net.w_rec.any()  # views, no copies


def test_the_impulse_response_of_a_linear_ensemble_is_its_hop_maps():
    ensemble = make(cell="linear")
    ensemble.weight[:, -1].zero_()
    ensemble.offset.zero_()
    maps = hl.hop_maps(ensemble.pathways(), horizon=4)
    impulses = torch.eye(12, dtype=torch.float64).reshape(12, 4, 3)  # one a (time step, input)
    response = ensemble.predict(impulses).reshape(3, 4, 3, 2)  # (E, L, I, O)
    assert_near(response.permute(0, 1, 3, 2).flip(1), maps.values)


def test_sizes_and_clones():
    ensemble = make()
    assert (ensemble.size, ensemble.n_hidden, ensemble.n_inputs) == (3, 8, 3)
    assert torch.equal(ensemble.recurrent(), ensemble.weight[:, :8])
    copy = ensemble.clone()
    copy.weight.zero_()
    assert ensemble.weight.any()
    assert copy.cell == ensemble.cell


# initial weights


@pytest.mark.parametrize("init", INITS)
def test_a_networks_start_depends_on_its_own_seed_only(init):
    before = torch.get_rng_state()
    many = create_ensemble([5, 3, 5], [init, "orthogonal", init], **SIZES)
    alone = create_ensemble([5], [init], **SIZES)
    assert torch.equal(before, torch.get_rng_state())
    for whole, one in zip(many.tensors, alone.tensors, strict=True):
        assert torch.equal(whole[0], one[0])
        assert torch.equal(whole[2], one[0])
    assert not torch.equal(many.readout[0], many.readout[1])
    other = create_ensemble([6], [init], **SIZES)
    assert not torch.equal(other.weight, alone.weight)


def test_networks_of_one_seed_share_what_their_starts_have_in_common():
    gaussian, orthogonal, delay = create_ensemble([4, 4, 4], INITS, **SIZES).pathways()
    assert torch.equal(gaussian.w_in, orthogonal.w_in)
    assert torch.equal(gaussian.w_out, orthogonal.w_out)
    assert torch.equal(gaussian.w_out, delay.w_out)
    entries = delay.w_in.abs().sum(dim=1) > 0
    assert torch.equal(delay.w_in[entries], gaussian.w_in[entries])


def test_gaussian_weights_have_the_variance_of_their_fan_in():
    net = create_ensemble(range(20), ["gaussian"] * 20, **{**SIZES, "hidden": 50, "n_inputs": 10}).pathways()
    assert net.w_rec.var().item() == pytest.approx(1 / 50, rel=0.05)
    assert net.w_in.var().item() == pytest.approx(1 / 10, rel=0.05)
    assert net.w_out.var().item() == pytest.approx(1 / 50, rel=0.1)
    assert abs(net.w_rec.mean().item()) < 0.005


def test_orthogonal_weights_are_rotations_of_all_kinds():
    net = create_ensemble(range(200), ["orthogonal"] * 200, **{**SIZES, "hidden": 3}).pathways()
    assert_near(net.w_rec @ net.w_rec.mT, torch.eye(3, dtype=torch.float64).expand(200, 3, 3))
    # uniform over all rotations every entry has mean 0; without the sign fix the diagonal is negative
    assert float(net.w_rec.mean(dim=0).abs().max()) < 6 * (1 / 3 / 200) ** 0.5


@pytest.mark.parametrize(("hidden", "length"), [(1, 1), (1, 5), (4, 4), (5, 8), (8, 2), (13, 3), (7, 1)])
def test_a_delay_start_is_half_lines_and_half_a_rotation(hidden, length):
    noise = torch.randn(hidden, hidden, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    w_rec, entries = delay_lines(noise, length)
    span = min(length, hidden)
    lines = max(1, hidden // (2 * span))
    taken, rest = lines * span, hidden - lines * span
    assert_near(w_rec[taken:, taken:] @ w_rec[taken:, taken:].T, torch.eye(rest, dtype=torch.float64))
    assert entries[taken:].all()
    assert not w_rec[:taken, taken:].any()
    assert not w_rec[taken:, :taken].any()
    assert int(entries[:taken].sum()) == lines
    state, held = entries.clone(), []
    state[taken:] = 0.0
    for _ in range(span):  # what entered the lines moves on by a unit a step, with nothing lost
        assert sorted(state.unique().tolist(), reverse=True)[0] == 1.0
        assert int(state.sum()) == lines
        held += state.nonzero().flatten().tolist()
        state = w_rec @ state
    assert not state.any()  # it leaves at the end of the line
    assert sorted(held) == list(range(taken))  # no two lags share a unit


def test_a_delay_start_has_pathways_of_every_lag():
    net = create_ensemble([0], ["delay"], **SIZES).pathways()
    size = hl.hop_maps(net, horizon=4).values.abs().amax(dim=(0, 2, 3))
    assert size.min() > 0.1 * size.max()


def test_type_and_sizes_are_as_asked():
    ensemble = create_ensemble([1], ["gaussian"], **{**SIZES, "dtype": torch.float32})
    assert ensemble.weight.shape == (1, 8 + 3 + 1, 8)
    assert ensemble.readout.shape == (1, 2, 8)
    assert ensemble.offset.shape == (1, 2, 1)
    assert all(tensor.dtype == torch.float32 for tensor in ensemble.tensors)
    assert not ensemble.weight[:, -1].any()
    assert not ensemble.offset.any()
    assert_near(ensemble.weight.double(), create_ensemble([1], ["gaussian"], **SIZES).weight, 1e-6)


# errors


def test_names_are_checked():
    with pytest.raises(hl.errors.UnknownNameError, match="orthogonal"):
        create_ensemble([0], ["orthogonale"], **SIZES)
    with pytest.raises(hl.errors.UnknownNameError, match="relu"):
        create_ensemble([0], ["gaussian"], **SIZES, cell="rely")
    with pytest.raises(hl.errors.UnknownNameError, match="unknown cell 'sigmoid'"):
        hl.Ensemble(*make().tensors, "sigmoid")


@pytest.mark.parametrize(
    "shapes",
    [
        [(12, 8), (2, 8), (2, 1)],
        [(1, 9, 8), (1, 2, 8), (1, 2, 1)],
        [(1, 12, 8), (1, 2, 7), (1, 2, 1)],
        [(1, 12, 8), (2, 2, 8), (2, 2, 1)],
        [(1, 12, 8), (1, 2, 8), (1, 2)],
        [(1, 12, 8), (1, 2, 8), (1, 3, 1)],
    ],
    ids=str,
)
def test_shapes_are_checked(shapes):
    with pytest.raises(hl.errors.ShapeError, match=r"weight \(E, H \+ I \+ 1, H\)"):
        hl.Ensemble(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("shape", [(4, 3), (5, 4, 2), (2, 5, 4, 3), (1, 3, 5, 4, 3)], ids=str)
def test_inputs_are_checked(shape):
    with pytest.raises(hl.errors.ShapeError, match=r"\(B, L, I=3\) or \(E=3, B, L, I=3\)"):
        make().predict(torch.zeros(shape, dtype=torch.float64))
    with pytest.raises(hl.errors.ShapeError, match=r"got torch\.float32"):
        make().predict(torch.zeros(5, 4, 3))
