"""Readers of modules: the graph equals the autograd Jacobian of one step, and the model stays as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import hoplens as hl
from hoplens.errors import ParameterError, ShapeError, UnsupportedModelError

F64 = torch.float64


def make(kind: str, **options: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return getattr(nn, kind)(3, 5, **options).double()


def readout(inputs: int) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return nn.Linear(inputs, 2).double()


def flat_step(module: nn.Module, layers: int):
    """Return the module's own step on one flat state: torch's forward pass, not hoplens."""
    lstm = isinstance(module, nn.LSTM)
    shown = module.proj_size or module.hidden_size

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        parts = state.reshape(layers, -1)
        hidden = parts[:, None, :shown].contiguous()
        h = (hidden, parts[:, None, shown:].contiguous()) if lstm else hidden
        x = x[None, None]
        out, new = module(x, h)
        new = torch.cat([new[0], new[1]], dim=-1) if lstm else new
        return new.reshape(-1), out.reshape(-1)

    return step


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("GRU", {}), ("LSTM", {}), ("LSTM", {"proj_size": 2})],
)
@pytest.mark.parametrize("bias", [True, False])
def test_step_jacobian_of_torch_modules(kind: str, options: dict, layers: int, bias: bool) -> None:
    module = make(kind, num_layers=layers, bias=bias, batch_first=True, **options)
    g = torch.Generator().manual_seed(0)
    size = 5 if kind != "LSTM" else 5 + (options.get("proj_size") or 5)
    state = torch.randn(layers, size, generator=g, dtype=F64)
    x = torch.randn(3, generator=g, dtype=F64)
    shown = options.get("proj_size") or 5
    given = (state[:, :shown], state[:, shown:]) if kind == "LSTM" else state
    net = hl.read(module, at=(given, x))
    step = flat_step(module, layers)
    (by_state, by_x) = torch.autograd.functional.jacobian(lambda s, u: step(s, u)[0], (state.reshape(-1), x))
    out_by_state, out_by_x = torch.autograd.functional.jacobian(
        lambda s, u: step(s, u)[1], (state.reshape(-1), x)
    )
    # edges inside layers take a step, edges between layers none: new = (I - S)^-1 (R old + W_in x)
    same = torch.zeros_like(net.w_rec)
    for layer in net.layers or ():
        same[layer.start : layer.stop, layer.start : layer.stop] = 1
    timed = net.w_rec * same if layers > 1 else net.w_rec
    now = torch.eye(net.n_hidden, dtype=F64) - (net.w_rec - timed)
    torch.testing.assert_close(torch.linalg.solve(now, timed), by_state, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(torch.linalg.solve(now, net.w_in), by_x, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(net.w_out @ by_state, out_by_state, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(net.w_out @ by_x, out_by_x, rtol=1e-12, atol=1e-13)
    assert "given state" in net.provenance


@pytest.mark.parametrize("kind", ["RNNCell", "GRUCell", "LSTMCell"])
def test_cells_of_torch(kind: str) -> None:
    cell = make(kind)
    g = torch.Generator().manual_seed(1)
    h, c = torch.randn(2, 5, generator=g, dtype=F64)
    x = torch.randn(3, generator=g, dtype=F64)
    if kind == "LSTMCell":
        net = hl.read(cell, at=((h, c), x))
        blocks = torch.autograd.functional.jacobian(lambda *a: torch.cat(cell(a[2], a[:2])), (h, c, x))
        wanted, by_x = torch.cat(blocks[:2], dim=1), blocks[2]
    else:
        net = hl.read(cell, at=(h, x))
        wanted, by_x = torch.autograd.functional.jacobian(lambda a, u: cell(u, a), (h, x))
    torch.testing.assert_close(net.w_rec, wanted, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(net.w_in, by_x, rtol=1e-12, atol=1e-13)


def test_defaults_say_where_they_linearised() -> None:
    rnn, gru = make("RNN"), make("GRU")
    net = hl.read(rnn)
    assert net.w_rec is rnn.weight_hh_l0
    assert net.provenance == "raw weights of nn.RNN (tanh)"
    zero = (torch.zeros(5, dtype=F64), torch.zeros(3, dtype=F64))
    assert torch.equal(hl.read(gru).w_rec, hl.read(gru, at=zero).w_rec)
    assert "nn.GRU at the origin" in hl.read(gru).provenance
    with pytest.raises(UnsupportedModelError, match="gated"):
        hl.read(gru, at="raw")


def test_the_jacobian_at_the_mean_point() -> None:
    gru = make("GRU", batch_first=True)
    g = torch.Generator().manual_seed(5)
    x = torch.randn(4, 6, 3, generator=g, dtype=F64)
    with torch.no_grad():
        before = torch.cat([torch.zeros(4, 1, 5, dtype=F64), gru(x)[0][:, :-1]], dim=1)
    mean = hl.read(gru, at="mean", inputs=x)
    wanted = hl.read(gru, at=(before.mean((0, 1)), x.mean((0, 1))))
    torch.testing.assert_close(mean.w_rec, wanted.w_rec, rtol=1e-12, atol=1e-13)
    assert "mean of 24 steps" in mean.provenance
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([6, 3, 2, 1]), batch_first=True)
    assert "mean of 12 steps" in hl.read(gru, at="mean", inputs=packed).provenance


def test_gradients_flow_through_gated_readings() -> None:
    lstm = make("LSTM", num_layers=2)
    hl.hop_maps(hl.read(lstm), 4).values.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in lstm.parameters() if p.dim() == 2)


def test_leaky_euler_step() -> None:
    rnn = make("RNN")
    tau = torch.linspace(1, 3, 5, dtype=F64)
    net = hl.read(rnn, dt=0.5, tau=tau)
    a = (0.5 / tau)[:, None]
    torch.testing.assert_close(net.w_rec, torch.eye(5, dtype=F64) * (1 - a) + a * rnn.weight_hh_l0)
    arrays = hl.read((rnn.weight_ih_l0, rnn.weight_hh_l0, torch.eye(5, dtype=F64)), dt=0.5, tau=tau)
    torch.testing.assert_close(arrays.w_rec, net.w_rec)
    torch.testing.assert_close(arrays.w_in, net.w_in)
    h, x = torch.full((5,), 0.3, dtype=F64), torch.ones(3, dtype=F64)

    def step(state: Tensor) -> Tensor:
        z = rnn.weight_ih_l0 @ x + rnn.weight_hh_l0 @ state + rnn.bias_ih_l0 + rnn.bias_hh_l0
        return state + 0.5 / tau * (-state + z.tanh())

    at = hl.read(rnn, dt=0.5, tau=tau, at=(h, x))
    torch.testing.assert_close(at.w_rec, torch.autograd.functional.jacobian(step, h), rtol=1e-12, atol=1e-13)
    with pytest.raises(ParameterError, match="plain recurrent"):
        hl.read(make("GRU"), dt=0.5)
    with pytest.raises(ParameterError, match="shorter dt"):
        hl.read(rnn, dt=2.0, tau=1.0)


class Positive(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w.abs()


def test_parametrised_and_pruned_weights() -> None:
    rnn, head = make("RNN"), readout(5)
    parametrize.register_parametrization(rnn, "weight_hh_l0", Positive())
    assert bool((hl.read(rnn).w_rec >= 0).all())
    prune.l1_unstructured(head, "weight", amount=0.5)
    with torch.no_grad():
        head.weight_orig += 1.0  # as an optimiser step does: the plain attribute is now stale
    net = hl.read(rnn, head)
    assert torch.equal(net.w_out, head.weight_orig * head.weight_mask)
    assert int((net.w_out == 0).sum()) == 5


def test_reading_a_spectral_norm_moves_nothing() -> None:
    rnn = make("RNN")
    nn.utils.parametrizations.spectral_norm(rnn, "weight_hh_l0")
    before = copy.deepcopy(rnn.state_dict())
    torch_state = torch.get_rng_state()
    net = hl.read(rnn.train())
    assert float(torch.linalg.matrix_norm(net.w_rec.detach(), 2)) < 1.5
    assert rnn.training
    assert all(module.training for module in rnn.modules())
    assert all(torch.equal(value, before[key]) for key, value in rnn.state_dict().items())
    assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_bidirectional_blocks_and_reversed_time(kind: str) -> None:
    module = make(kind, bidirectional=True, batch_first=True)
    head = readout(10)
    net = hl.read(module, head)
    assert [layer.reverse for layer in net.layers] == [False, True]
    forward, backward = (hl.read(module, head, direction=d) for d in ("forward", "backward"))
    both = hl.hop_maps(net, 5).values
    torch.testing.assert_close(both, hl.hop_maps(forward, 5).values + hl.hop_maps(backward, 5).values)
    assert "reversed time" in backward.provenance
    with pytest.raises(UnsupportedModelError, match="one layer"):
        hl.read(make(kind, bidirectional=True, num_layers=2), direction="forward")


def test_user_function_and_registered_module() -> None:
    g = torch.Generator().manual_seed(2)
    w, u = torch.randn(4, 4, generator=g, dtype=F64), torch.randn(4, 2, generator=g, dtype=F64)

    def cell(state: Tensor, x: Tensor) -> Tensor:
        return torch.sin(state @ w.mT) * 0.5 + torch.tanh(x @ u.mT) * state

    h, x = torch.randn(4, generator=g, dtype=F64), torch.randn(2, generator=g, dtype=F64)
    net = hl.read(cell, torch.ones(1, 4, dtype=F64), at=(h, x))
    by_state, by_x = torch.autograd.functional.jacobian(cell, (h, x))
    torch.testing.assert_close(net.w_rec, by_state, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(net.w_in, by_x, rtol=1e-12, atol=1e-13)

    class Mine(nn.Module):
        pass

    with pytest.raises(UnsupportedModelError, match="register_reader"):
        hl.read(Mine())
    hl.extensions.register_reader(Mine, lambda _: hl.models.FunctionCell(cell, n_inputs=2, n_state=4))
    assert hl.read(Mine(), at=(h, x)).w_rec.equal(net.w_rec)
    with pytest.raises(ParameterError, match="FunctionCell"):
        hl.read(cell)


def test_wrong_things_are_named() -> None:
    with pytest.raises(ShapeError, match=r"nn.Linear\(5, O\)"):
        hl.read(make("LSTM"), nn.Linear(4, 2))
    with pytest.raises(ShapeError, match="pair"):
        hl.read(make("GRU"), at=((torch.zeros(5), torch.zeros(5)), torch.zeros(3)))
    with pytest.raises(UnsupportedModelError, match="supported"):
        hl.read(object)
    with pytest.raises(ParameterError, match="needs inputs="):
        hl.read(make("GRU"), at="mean")


def test_low_rank_stays_factored() -> None:
    g = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 9, 2, generator=g, dtype=F64)
    w_in, w_out = torch.randn(9, 3, generator=g, dtype=F64), torch.randn(4, 9, generator=g, dtype=F64)
    net = hl.read((w_in, hl.graph.LowRank(u, v), w_out))
    assert net.factors is not None
    assert net.to(torch.float32).factors is not None
    dense = hl.Pathways(w_in, u @ v.mT, w_out)
    torch.testing.assert_close(hl.hop_maps(net, 7).values, hl.hop_maps(dense, 7).values)
