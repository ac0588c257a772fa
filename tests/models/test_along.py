"""Graphs along data: means of Jacobians that autograd takes point by point."""

from __future__ import annotations

import pytest
import torch
from ensembles import each_cell, random_ensemble
from torch import nn
from twins import assert_near

import hoplens as hl
from hoplens.models.readers import along
from hoplens.models.readers.models import parts_of
from hoplens.models.rollout import as_batch, run

F64 = torch.float64


def draw(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def jacobians(model, x, lengths):
    """d state' / d (state, input) at every valid point, by autograd: {(sample, step): matrix}."""
    stack = parts_of(model).stack()
    (cell,) = stack.cells
    ((states, inputs),) = run(stack, as_batch(stack, x, lengths)).points
    found = {}
    for b, length in enumerate(lengths.tolist()):
        for t in range(length):
            both = torch.cat([states[b, t], inputs[b, t]])

            def step(v):
                return cell.step(v[None, : cell.n_state], v[None, cell.n_state :])[0]

            found[b, t] = torch.autograd.functional.jacobian(step, both)
    return found


@each_cell
def test_the_static_graph_is_the_mean_over_steps_and_samples(cell):
    model = random_ensemble(cell, networks=1).model(0)
    x, lengths = draw(3, 5, 2), torch.tensor([5, 2, 4])
    wanted = torch.stack(list(jacobians(model, x, lengths).values())).mean(0)
    net = hl.read(model, inputs=x, lengths=lengths)
    assert_near(torch.cat([net.w_rec, net.w_in], dim=1), wanted)
    assert "mean Jacobian of the step" in net.provenance
    assert not net.steps


@each_cell
def test_the_graph_of_each_step_is_the_mean_over_samples_counted_from_the_read_out(cell):
    model = random_ensemble(cell, networks=1).model(0)
    x, lengths = draw(3, 5, 2), torch.tensor([5, 2, 4])
    every = jacobians(model, x, lengths)
    net = hl.read(model, at="steps", inputs=x, lengths=lengths)
    assert net.steps
    assert net.batch_shape == (5,)
    for n in range(5):
        some = [every[b, length - 1 - n] for b, length in enumerate(lengths.tolist()) if length > n]
        assert_near(torch.cat([net.w_rec[n], net.w_in[n]], dim=1), torch.stack(some).mean(0))
    assert not net[0].steps
    assert net[:2].steps
    assert not net[1:].steps


def test_some_samples_at_a_time_are_all_samples(monkeypatch):
    model = random_ensemble("lstm", networks=1).model(0)
    x, lengths = draw(7, 5, 2), torch.tensor([5, 2, 4, 5, 5, 1, 3])
    whole = [hl.read(model, at=at, inputs=x, lengths=lengths) for at in ("flow", "steps")]
    monkeypatch.setattr(along, "CHUNK_BYTES", 1)
    for net, at in zip(whole, ("flow", "steps"), strict=True):
        one = hl.read(model, at=at, inputs=x, lengths=lengths)
        assert_near(one.w_rec, net.w_rec)
        assert_near(one.w_in, net.w_in)


class Sine(hl.Cell):
    def step(self, state, x):
        return (0.5 * state + x).sin()


def test_a_cell_with_only_a_step():
    x = draw(2, 4, 3)
    states = torch.zeros(2, 4, 3, dtype=F64)
    for t in range(3):
        states[:, t + 1] = (0.5 * states[:, t] + x[:, t]).sin()
    slopes = (0.5 * states + x).cos().mean((0, 1))
    net = hl.read(Sine(3, 3), inputs=x)
    assert_near(net.w_rec, torch.diag(0.5 * slopes))
    assert_near(net.w_in, torch.diag(slopes))


def test_one_sample_of_a_network_is_predicted_exactly_by_its_steps():
    """The maps of one sequence are the product of its own Jacobians."""
    for kind in (nn.GRU(2, 4, num_layers=2, batch_first=True), nn.LSTM(2, 4, batch_first=True)):
        model = hl.RecurrentModel(kind, nn.Linear(4, 3)).double()
        x = draw(1, 6, 2)
        net = hl.read(model, at="steps", inputs=x)
        assert net.agreement.correlation == pytest.approx(1, abs=1e-12)
        assert net.agreement.explained == pytest.approx(1, abs=1e-12)
        assert_near(hl.hop_maps(net).values, hl.trajectory_maps(model, x).by_lag()[0])
        assert hl.hop_maps(net).hops.tolist() == hl.hop_maps(model, inputs=x).hops.tolist()


def test_a_linear_network_is_its_own_flow():
    model = random_ensemble("linear", networks=1).model(0)
    x = draw(3, 5, 2)
    net = hl.read(model, inputs=x)
    assert_near(net.w_rec, hl.read(model).w_rec)
    assert net.agreement.correlation == pytest.approx(1)
    assert net.agreement.explained == pytest.approx(1)
    assert net.agreement.gain == pytest.approx(1)


def test_saturated_units_do_not_flow_whatever_their_weights():
    """Bare weights say that everything grows; along data the units stand at their bounds: nothing passes."""
    rnn, head = nn.RNN(1, 2, batch_first=True).double(), nn.Linear(2, 1).double()
    with torch.no_grad():
        rnn.weight_ih_l0.fill_(30.0)
        rnn.weight_hh_l0.copy_(torch.eye(2) * 3)
    x = draw(8, 6, 1).sign()
    flow = hl.read(rnn, head, inputs=x).detach()
    assert float(hl.spectral_radius(hl.read(rnn, head).detach())) == pytest.approx(3)
    assert float(hl.spectral_radius(flow)) < 1e-3
    exact = hl.hop_maps(rnn, inputs=x, readout=head)
    assert float(exact.absolute.max()) < 1e-3


def test_the_graph_stays_differentiable_by_the_weights():
    rnn = nn.RNN(2, 3, batch_first=True).double()
    net = hl.read(rnn, inputs=draw(4, 5, 2))
    (grad,) = torch.autograd.grad(net.w_rec.sum(), rnn.weight_hh_l0)
    slopes = net.w_rec / rnn.weight_hh_l0  # held
    assert_near(grad, slopes.detach())


def test_what_does_not_go_along_data_is_said():
    rnn = nn.RNN(2, 3, batch_first=True, bidirectional=True)
    x = torch.randn(4, 5, 2)
    with pytest.raises(hl.errors.UnsupportedModelError, match='use at="flow"'):
        hl.read(rnn, at="steps", inputs=x)
    assert hl.read(rnn, inputs=x).agreement is not None
    with pytest.raises(hl.errors.ParameterError, match='at="flow" needs inputs='):
        hl.read(rnn, at="flow")
    with pytest.raises(hl.errors.ParameterError, match="does not go with inputs="):
        hl.read(rnn, at="raw", inputs=x)
    net = hl.read(nn.GRU(2, 3, batch_first=True), at="steps", inputs=x)
    with pytest.raises(hl.errors.ShapeError, match=r'one for each of 5 steps.*at="flow"'):
        hl.resolvent(net, damping=0.5)
    with pytest.raises(hl.errors.ShapeError, match="one leading axis, time"):
        hl.Pathways(torch.zeros(3, 2), torch.zeros(3, 3), torch.zeros(1, 3), steps=True)


def test_steps_that_no_sequence_has_are_left_out():
    model, x, lengths = random_ensemble("gru", networks=1).model(0), draw(3, 7, 2), torch.tensor([4, 2, 3])
    net = hl.read(model, at="steps", inputs=x, lengths=lengths)
    assert net.batch_shape == (4,)
    assert_near(net.w_rec, hl.read(model, at="steps", inputs=x[:, :4], lengths=lengths).w_rec)
    assert net.agreement is not None
    assert net.agreement.correlation > 0.5


@pytest.mark.parametrize("at", ["flow", "steps", "mean"])
def test_samples_are_taken_some_at_a_time(at, monkeypatch):
    model, x, lengths = random_ensemble("lstm", networks=1).model(0), draw(5, 6, 2), [6, 1, 4, 6, 3]
    wanted = hl.read(model, at=at, inputs=x, lengths=lengths)
    monkeypatch.setattr(along, "CHUNK_BYTES", 1)
    net = hl.read(model, at=at, inputs=x, lengths=lengths)
    assert_near(net.w_rec, wanted.w_rec)
    assert_near(net.w_in, wanted.w_in)


@pytest.mark.parametrize("at", ["flow", "steps", "mean"])
def test_of_a_model_that_runs_the_last_steps_these_are_read(at):
    model, x, lengths = random_ensemble("gru", networks=1).model(0), draw(3, 7, 2), torch.tensor([7, 2, 5])
    short = hl.truncate(model, 3)
    last = torch.stack([x[0, 4:], x[1, :3], x[2, 2:5]])
    wanted = hl.read(model, at=at, inputs=last, lengths=lengths.clamp_max(3))
    net = hl.read(short, at=at, inputs=x, lengths=lengths)
    assert_near(net.w_rec, wanted.w_rec)
    if at != "mean":
        exact = hl.hop_maps(short, horizon=3, inputs=x, lengths=lengths)
        assert tuple(net.agreement) == pytest.approx(tuple(hl.analysis.agreement(net, exact)))


@pytest.mark.parametrize("at", ["flow", "steps", "mean"])
def test_a_backward_layer_is_read_along_reversed_time(at):
    core, alone = nn.GRU(2, 4, batch_first=True, bidirectional=True), nn.GRU(2, 4, batch_first=True)
    alone.load_state_dict({name: getattr(core, f"{name}_reverse") for name in alone.state_dict()})
    x, lengths = draw(3, 5, 2).float(), torch.tensor([5, 2, 4])
    turned = torch.zeros_like(x)
    for n, length in enumerate(lengths.tolist()):
        turned[n, :length] = x[n, :length].flip(0)
    wanted = hl.read(alone, at=at, inputs=turned, lengths=lengths)
    net = hl.read(core, at=at, inputs=x, lengths=lengths, direction="backward")
    assert_near(net.w_rec, wanted.w_rec)
    assert_near(net.w_in, wanted.w_in)
    assert net.agreement == wanted.agreement
