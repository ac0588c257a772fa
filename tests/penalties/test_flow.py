"""The penalty along trajectories: against trajectory maps, plain autograd and the penalty on weights."""

from __future__ import annotations

import pytest
import torch
from ensembles import draw_inputs, each_cell, random_ensemble
from twins import assert_near

import hoplens as hl
from hoplens.models.ensemble import Ensemble
from hoplens.penalties.flow import FlowPenalty, FlowSpec


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def literal(model, inputs, lengths, damping, *, every_step=False):
    """Mean over sequences (and read-outs) of the damped size of the exact Jacobian maps."""
    core = model.core.to_hoplens() if isinstance(model.core, hl.LeakyRNN) else model.core
    readout = model.readout.weight if isinstance(model.core, hl.LeakyRNN) else model.readout
    total = 0.0
    for n, length in enumerate(lengths.tolist()):
        ends = range(1, length + 1) if every_step else (length,)
        for end in ends:
            maps = hl.trajectory_maps(core, inputs[n : n + 1, :end], readout=readout).values[0]
            hops = (end - torch.arange(end) + 1).double()
            total += float((damping ** hops[:, None, None] * maps.abs()).sum()) / len(ends)
    return total / len(lengths)


@each_cell
@pytest.mark.parametrize("lengths", [[6, 6, 6], [6, 2, 4]])
def test_following_everything_is_the_size_of_all_trajectory_maps(cell, lengths):
    ensemble = random_ensemble(cell)
    inputs, lengths = draw_inputs(3, 6, 2), torch.tensor(lengths)
    penalty = FlowPenalty(0.8, sequences=3, all_outputs=True, generator=source())
    batch = inputs.permute(1, 2, 0)[:, None].expand(-1, 3, -1, -1)
    got = penalty.along(ensemble, batch, lengths.expand(3, -1))
    for n in range(3):
        wanted = literal(ensemble.model(n), inputs, lengths, 0.8)
        assert float(got[n].detach()) == pytest.approx(wanted, rel=1e-10)
        own = penalty(ensemble.model(n), inputs, lengths)
        assert float(own.detach()) == pytest.approx(wanted, rel=1e-10)


def test_of_a_linear_network_it_is_the_penalty_on_its_pathways():
    net = hl.Pathways(draw_inputs(4, 2, seed=1), 0.5 * draw_inputs(4, 4, seed=2), draw_inputs(3, 4, seed=3))

    def run(x):
        state, outputs = x.new_zeros(len(x), 4), []
        for step in x.unbind(1):
            state = state @ net.w_rec.T + step @ net.w_in.T
            outputs.append(state @ net.w_out.T)
        return torch.stack(outputs, dim=1)

    penalty = FlowPenalty(0.9, all_outputs=True, generator=source())
    assert_near(penalty(run, draw_inputs(5, 7, 2)), hl.PathwayPenalty(7)(net))
    every = FlowPenalty(0.9, sequences=400, every_step=True, all_outputs=True, generator=source())
    wanted = hl.PathwayPenalty(7, readouts="every")(net)
    assert float(every(run, draw_inputs(400, 7, 2))) == pytest.approx(float(wanted), rel=0.03)


@pytest.mark.parametrize("every_step", [False, True])
def test_samples_have_the_whole_as_their_mean(every_step):
    ensemble = random_ensemble("gru", networks=1)
    model = ensemble.model(0)
    inputs, lengths = draw_inputs(5, 6, 2), torch.tensor([6, 3, 5, 6, 2])
    penalty = FlowPenalty(0.9, sequences=2, every_step=every_step, generator=source())
    mean = torch.stack([penalty(model, inputs, lengths).detach() for _ in range(800)]).mean()
    wanted = literal(model, inputs, lengths, 0.9, every_step=every_step)
    assert float(mean) == pytest.approx(wanted, rel=0.05)


@each_cell
def test_the_gradient_by_the_weights_passes_gradcheck(cell):
    ensemble = random_ensemble(cell, networks=2, hidden=3)
    inputs, lengths = draw_inputs(4, 2, 2, 3), torch.tensor([[4, 2, 3], [4, 4, 1]])

    def value(weight, readout):
        moved = Ensemble(weight, readout, ensemble.offset, ensemble.cell, ensemble.leak)
        penalty = FlowPenalty(0.9, sequences=2, generator=source(3))  # the same draws each time
        return penalty.along(moved, inputs, lengths)

    leaves = (ensemble.weight.requires_grad_(), ensemble.readout.requires_grad_())
    assert torch.autograd.gradcheck(value, leaves)


@pytest.mark.parametrize("kind", [torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM, "leaky"])
def test_a_users_own_model_learns_with_it(kind):
    core = hl.LeakyRNN(2, 8, 0.5) if kind == "leaky" else kind(2, 8, batch_first=True)
    model = hl.RecurrentModel(core, torch.nn.Linear(8, 3))
    generator = source(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    penalty = FlowPenalty(0.9, generator=generator)
    inputs = torch.randn(16, 7, 2, generator=generator)
    whole = FlowPenalty(0.9, sequences=16, all_outputs=True, generator=generator)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = float(whole(model, inputs).detach())
    for _ in range(40):
        optimiser.zero_grad()
        penalty(model, inputs).backward()
        optimiser.step()
    assert float(whole(model, inputs).detach()) < 0.5 * before


def test_a_specification_draws_anew_for_each_training():
    spec = FlowSpec(sequences=2)
    first, second = spec(6, readouts="every"), spec(6)
    assert first.every_step
    assert not second.every_step
    ensemble, inputs = random_ensemble("tanh"), draw_inputs(6, 3, 2, 5)
    lengths = torch.full((3, 5), 6)
    assert torch.equal(spec(6).along(ensemble, inputs, lengths), second.along(ensemble, inputs, lengths))


def test_what_it_cannot_follow_is_said():
    penalty = FlowPenalty(generator=source())
    model = random_ensemble("gru").model(0)
    with pytest.raises(hl.errors.UnsupportedModelError, match="along its data"):
        penalty(hl.read(model.core, readout=model.readout))
    with pytest.raises(hl.errors.ShapeError, match="inputs must have shape"):
        penalty(model, draw_inputs(6, 2))
    with pytest.raises(hl.errors.ShapeError, match="returns every step"):
        penalty(lambda x: x.sum(1), draw_inputs(3, 6, 2), torch.tensor([2, 6, 6]))
    with pytest.raises(hl.errors.ParameterError, match="needs generator="):
        FlowPenalty(generator=None)
    with pytest.raises(hl.errors.ParameterError, match="sequences must be"):
        FlowPenalty(sequences=0, generator=source())
