"""Trajectory maps equal autograd's Jacobians; fidelity is exact for linear networks; nothing is touched."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import hoplens as hl
from hoplens.errors import ShapeError, UnsupportedModelError

F64 = torch.float64


def make(kind: str, inputs: int = 3, hidden: int = 4, **options: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return getattr(nn, kind)(inputs, hidden, **options).double()


def linear(inputs: int) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return nn.Linear(inputs, 2).double()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def twin(module: nn.Module, head: nn.Module, x: Tensor, lengths: Tensor, state: object = None) -> Tensor:
    """Return d head(out_last) / d x by autograd through torch's own forward pass; x is (B, L, I)."""
    x = x.clone().requires_grad_()
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    fed = (
        packed
        if module.batch_first
        else pack_padded_sequence(x.transpose(0, 1), lengths, enforce_sorted=False)
    )
    out = pad_packed_sequence(module(fed, state)[0], batch_first=True)[0]
    y = head(out[torch.arange(len(x)), lengths - 1])
    return torch.stack(
        [torch.autograd.grad(y[:, o].sum(), x, retain_graph=True)[0] for o in range(y.shape[1])], 2
    )


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("GRU", {}), ("LSTM", {}), ("LSTM", {"proj_size": 2})],
)
def test_against_autograd(kind: str, options: dict, layers: int, bidirectional: bool) -> None:
    module = make(kind, num_layers=layers, bidirectional=bidirectional, batch_first=True, **options)
    shown = (options.get("proj_size") or 4) * (1 + bidirectional)
    head = linear(shown)
    x = noise(3, 6, 3)
    wanted = twin(module, head, x, torch.tensor([6, 6, 6]))
    traj = hl.trajectory_maps(module, x, readout=head)
    torch.testing.assert_close(traj.values, wanted, rtol=1e-11, atol=1e-13)
    lengths = torch.tensor([2, 6, 4])
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    ragged = hl.trajectory_maps(module, packed, readout=head)
    torch.testing.assert_close(ragged.values, twin(module, head, x, lengths), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(ragged.by_lag()[0, 0], ragged.values[0, 1])
    assert not ragged.by_lag()[0, 2:].any()


def test_start_states_and_time_first_layout() -> None:
    lstm, head = make("LSTM", num_layers=2), linear(4)
    x, h, c = noise(3, 5, 3), noise(2, 3, 4, seed=1), noise(2, 3, 4, seed=2)
    wanted = twin(lstm, head, x, torch.tensor([5, 5, 5]), (h, c))
    got = hl.trajectory_maps(lstm, x.transpose(0, 1), readout=head, state=(h, c))
    torch.testing.assert_close(got.values, wanted, rtol=1e-11, atol=1e-13)
    gru = make("GRU", batch_first=True)
    got = hl.trajectory_maps(gru, x, readout=head, state=noise(1, 3, 4))
    torch.testing.assert_close(got.values, twin(gru, head, x, torch.tensor([5, 5, 5]), noise(1, 3, 4)))


def test_own_cells_leaky_cells_and_functions() -> None:
    rnn, head = make("RNN", batch_first=True), linear(4)
    x = noise(2, 5, 3)

    def step(state: Tensor, u: Tensor) -> Tensor:
        z = u @ rnn.weight_ih_l0.mT + state @ rnn.weight_hh_l0.mT + rnn.bias_ih_l0 + rnn.bias_hh_l0
        return 0.7 * state + 0.3 * z.tanh()

    def whole(u: Tensor) -> tuple[Tensor, None]:
        state = u.new_zeros(len(u), 4)
        for t in range(u.shape[1]):
            state = step(state, u[:, t])
        return head(state), None

    cell = hl.trajectory_maps(hl.models.FunctionCell(step, n_inputs=3, n_state=4), x, readout=head).values
    torch.testing.assert_close(cell, hl.trajectory_maps(whole, x).values, rtol=1e-11, atol=1e-13)
    leaky = hl.trajectory_maps(rnn, x, readout=head, dt=0.3).values
    torch.testing.assert_close(cell, leaky, rtol=1e-11, atol=1e-13)


def test_fidelity_of_a_linear_network_is_one_and_falls_with_saturation() -> None:
    rnn, head = make("RNN", batch_first=True, bias=False), linear(4)
    cell = hl.models.RnnCell(rnn.weight_ih_l0, rnn.weight_hh_l0, nonlinearity="linear")
    stack = hl.Stack(((cell,),), head.weight, "linear")
    x = noise(3, 6, 3)
    fit = hl.fidelity(hl.read(stack), hl.trajectory_maps(stack, x))
    torch.testing.assert_close(fit.correlation, torch.ones(3, dtype=F64))
    assert float(fit.relative_error.max()) < 1e-12
    assert fit.hops.tolist() == [2, 3, 4, 5, 6, 7]
    weak, strong = (
        hl.fidelity(hl.read(rnn, head), hl.trajectory_maps(rnn, s * x, readout=head)) for s in (0.01, 10.0)
    )
    assert bool((weak.relative_error < strong.relative_error).all())
    assert "explain" in weak.summary()
    assert len(strong.to_dataframe()) == 6
    with pytest.raises(ShapeError, match="same readout"):
        hl.fidelity(hl.read(rnn), hl.trajectory_maps(rnn, x, readout=head))


def test_fidelity_counts_valid_steps_of_ragged_sequences_only() -> None:
    rnn, head = make("RNN", batch_first=True), linear(4)
    x = noise(2, 6, 3)
    lengths = torch.tensor([6, 3])
    packed = pack_padded_sequence(x, lengths, batch_first=True)
    fit = hl.fidelity(hl.read(rnn, head), hl.trajectory_maps(rnn, packed, readout=head))
    short = hl.fidelity(hl.read(rnn, head), hl.trajectory_maps(rnn, x[1:, :3], readout=head))
    torch.testing.assert_close(fit.relative_error[1:], short.relative_error)
    torch.testing.assert_close(fit.correlation[1:], short.correlation)


class Wrapped(nn.Module):
    """A model hoplens has no reader for, with dropout, batch norm, a hook and a possible error inside."""

    def __init__(self, fail: bool = False) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(3), nn.Dropout(0.5)
        self.gru, self.head, self.fail = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2), fail

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out, h = self.gru(self.drop(self.norm(x.mT).mT))
        if self.fail:
            self.register_forward_hook(lambda *_: None)
            raise RuntimeError("inside")
        return self.head(out), h


@pytest.mark.parametrize("fail", [False, True])
def test_the_model_is_left_as_it_was(fail: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = Wrapped(fail).double().train()
    model.gru.eval()
    model.head.weight.requires_grad_(False)
    model.head.bias.grad = torch.ones(2, dtype=F64)
    calls: list[int] = []
    model.gru.register_forward_hook(lambda *_: calls.append(1))
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    hooks = [len(m._forward_hooks) for m in model.modules()]
    rng, cudnn = torch.get_rng_state(), torch.backends.cudnn.enabled
    if fail:
        with pytest.raises(UnsupportedModelError, match="inside"):
            hl.trajectory_maps(model, noise(3, 5, 3))
    else:
        hl.trajectory_maps(model, noise(3, 5, 3))
        hl.trajectory_maps(model.gru, noise(3, 5, 3), readout=model.head)
        hl.read(model.gru, model.head)
        assert len(calls) == 2  # once on all sequences, once on one by itself
    assert modes == [m.training for m in model.modules()]
    assert flags == [p.requires_grad for p in model.parameters()]
    assert hooks == [len(m._forward_hooks) for m in model.modules()]
    assert torch.equal(model.head.bias.grad, torch.ones(2, dtype=F64))
    assert all(p.grad is None for n, p in model.named_parameters() if n != "head.bias")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    assert cudnn == torch.backends.cudnn.enabled


def test_wrong_inputs_are_named() -> None:
    gru = make("GRU")
    with pytest.raises(ShapeError, match=r"\(L, B, I\)"):
        hl.trajectory_maps(gru, noise(5, 3))
    with pytest.raises(ShapeError, match="state must have shape"):
        hl.trajectory_maps(gru, noise(5, 2, 3), state=noise(1, 3, 4))
    with pytest.raises(UnsupportedModelError, match="does not depend"):
        hl.trajectory_maps(lambda x: x.detach()[..., 0], noise(2, 5, 3))
    with pytest.raises(ShapeError, match="must return"):
        hl.trajectory_maps(lambda x: x.sum(), noise(2, 5, 3))
