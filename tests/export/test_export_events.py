"""Event costs equal what a slow count of every message finds."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import hoplens as hl


@pytest.fixture(autouse=True)
def _own_numbers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def sparse(*shape):
    return torch.randn(*shape) * (torch.rand(*shape) < 0.5)


def pruned(module):
    with torch.no_grad():
        for weight in module.parameters():
            weight *= torch.rand_like(weight) < 0.6
    return module


def count(sent, weight):
    """Every weight that is not zero and starts at a sender, one by one."""
    weight = weight.detach()
    total = 0
    for j, active in enumerate(sent):
        for i in range(weight.shape[0]):
            total += int(bool(active) and float(weight[i, j]) != 0)
    return total


@pytest.mark.parametrize("every_step", [False, True])
def test_relu_stack_against_brute_force(every_step):
    core = pruned(nn.RNN(3, 5, 2, nonlinearity="relu", batch_first=True))
    readout = pruned(nn.Linear(5, 2))
    x = sparse(2, 6, 3)
    with torch.no_grad():
        low = nn.RNN(3, 5, nonlinearity="relu", batch_first=True)
        low.load_state_dict({k: v for k, v in core.state_dict().items() if k.endswith("l0")})
        h = [low(x)[0], core(x)[0]]
        outputs = readout(h[1] if every_step else h[1][:, -1])
    cost = hl.export.event_cost(core, x, readout=readout, info=hl.ModelInfo(every_step=every_step))
    torch.testing.assert_close(cost.outputs, outputs)
    for b in range(2):
        parts = dict.fromkeys(("in", "rec", "between", "out"), 0)
        messages = 0
        for t in range(6):
            messages += int((x[b, t] != 0).sum() + (h[0][b, t] != 0).sum() + (h[1][b, t] != 0).sum())
            parts["in"] += count(x[b, t] != 0, core.weight_ih_l0)
            parts["between"] += count(h[0][b, t] != 0, core.weight_ih_l1)
            if t:
                parts["rec"] += count(h[0][b, t - 1] != 0, core.weight_hh_l0)
                parts["rec"] += count(h[1][b, t - 1] != 0, core.weight_hh_l1)
            if every_step or t == 5:
                parts["out"] += count(h[1][b, t] != 0, readout.weight)
        assert {part: float(values[b]) for part, values in cost.by_part.items()} == parts
        assert float(cost.events[b]) == sum(parts.values())
        assert float(cost.messages[b]) == messages
    assert cost.hops.tolist() == [8, 8]
    weights = 2 * 25 + 15 + 25
    assert cost.dense.tolist() == [6 * weights + (6 if every_step else 1) * 10] * 2
    assert 0 < cost.share < 1


def cells():
    return {
        "leaky": hl.LeakyRNN(3, 4, 0.3),
        "gru": nn.GRU(3, 4, batch_first=True),
        "lstm": nn.LSTM(3, 4, batch_first=True),
    }


@pytest.mark.parametrize("kind", cells())
@pytest.mark.parametrize("threshold", [0.05, 0.3])
def test_delta_networks_against_a_loop_written_out(kind, threshold):
    core = pruned(cells()[kind])
    x = torch.randn(5, 3).cumsum(0) / 3
    cost = hl.export.event_cost(core, x[None], threshold=threshold)
    w_in, w_rec, b_in, b_rec = (p.detach() for p in core.parameters())
    if kind == "leaky":
        w_in, w_rec, b_in, b_rec = (
            getattr(core, f"{n}_l0").detach() for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
    known_x, known_h, h, c = torch.zeros(3), torch.zeros(4), torch.zeros(4), torch.zeros(4)
    sent_h = torch.zeros(4, dtype=torch.bool)
    events = messages = 0
    for t in range(5):
        sent_x = (x[t] - known_x).abs() > threshold
        known_x = torch.where(sent_x, x[t], known_x)
        a, r = w_in @ known_x + b_in, w_rec @ known_h + b_rec
        events += count(sent_x, w_in) + count(sent_h, w_rec)
        if kind == "leaky":
            h = 0.7 * h + 0.3 * (a + r).tanh()
        elif kind == "gru":
            (ar, az, an), (rr, rz, rn) = a.chunk(3), r.chunk(3)
            z = (az + rz).sigmoid()
            h = (1 - z) * (an + (ar + rr).sigmoid() * rn).tanh() + z * h
        else:
            i, f, g, o = (a + r).chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        sent_h = (h - known_h).abs() > threshold
        known_h = torch.where(sent_h, h, known_h)
        messages += int(sent_x.sum() + sent_h.sum())
    events += int((known_h != 0).sum())  # each hidden unit is an output: one weight a unit
    assert float(cost.events) == events
    assert float(cost.messages) == messages
    torch.testing.assert_close(cost.outputs[0], known_h)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_projection_hears_the_units_of_its_cell():
    core = nn.LSTM(3, 5, proj_size=2, batch_first=True)
    x = torch.randn(2, 4, 3)
    cost = hl.export.event_cost(core, x)
    torch.testing.assert_close(cost.outputs, core(x)[0][:, -1].detach())
    # nothing is zero: 4 steps of inputs and projections, 3 of recurrence
    assert cost.by_part["in"].tolist() == [4 * 20 * 3] * 2
    assert cost.by_part["rec"].tolist() == [4 * 2 * 5 + 3 * 20 * 2] * 2
    assert cost.messages.tolist() == [4 * (3 + 5 + 2)] * 2


def test_a_threshold_saves_events_and_none_changes_nothing():
    core, x = nn.GRU(3, 8, batch_first=True), torch.randn(4, 20, 3).cumsum(1) / 5
    costs = [
        float(hl.export.event_cost(core, x, threshold=value).events.mean()) for value in (0.0, 0.02, 0.1, 0.5)
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.3 * costs[0]
    plain = hl.export.event_cost(core, x)
    torch.testing.assert_close(plain.outputs, core(x)[0][:, -1].detach())
    assert plain.share == pytest.approx(1, abs=0.1)  # a dense tanh network sends nearly everything


def test_windows_lengths_and_layouts():
    core = nn.GRU(3, 4)  # time first
    x = torch.randn(6, 2, 3)
    whole = hl.export.event_cost(core, x)
    torch.testing.assert_close(whole.outputs, core(x)[0][-1].detach())
    short = hl.export.event_cost(core, x, info=hl.ModelInfo(window=2))
    assert short.hops.tolist() == [3, 3]
    torch.testing.assert_close(short.events, hl.export.event_cost(core, x[-2:]).events)
    torch.testing.assert_close(short.outputs, core(x[-2:])[0][-1].detach())
    packed = pack_padded_sequence(x, [6, 3])
    ragged = hl.export.event_cost(core, packed)
    assert ragged.hops.tolist() == [7, 4]
    torch.testing.assert_close(ragged.events[1], hl.export.event_cost(core, x[:3, 1:]).events[0])
    torch.testing.assert_close(ragged.outputs[1], core(x[:3, 1:])[0][-1, 0].detach())


def test_pruned_units_cost_nothing():
    model = hl.RecurrentModel(nn.RNN(3, 6, nonlinearity="relu", batch_first=True), nn.Linear(6, 2))
    x = torch.randn(3, 5, 3)
    before = hl.export.event_cost(model, x)
    with torch.no_grad():
        model.core.weight_hh_l0[:, :3] = 0
        model.readout.weight[:, :3] = 0
    after = hl.export.event_cost(model, x)
    assert (after.events < before.events).all()
    assert torch.equal(after.dense, before.dense)


def test_bad_requests_are_refused():
    rnn = nn.RNN(3, 4, batch_first=True)
    with pytest.raises(hl.errors.ParameterError, match="threshold"):
        hl.export.event_cost(rnn, torch.zeros(1, 2, 3), threshold=-1)
    with pytest.raises(hl.errors.UnsupportedModelError, match="one way"):
        hl.export.event_cost(nn.RNN(3, 4, bidirectional=True), torch.zeros(2, 1, 3))
    with pytest.raises(hl.errors.ShapeError, match="I = 3"):
        hl.export.event_cost(rnn, torch.zeros(1, 2, 4))
