"""Windows: exact cases, refusals, and models that run only their last steps."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

import hoplens as hl
from hoplens.compress.window import candidates
from hoplens.models.recurrent_model import last_steps

F64 = torch.float64


def core_of(kind, layers=1, inputs=2, hidden=3):
    sizes = {"input_size": inputs, "hidden_size": hidden, "num_layers": layers, "batch_first": True}
    if kind == "leaky":
        return hl.LeakyRNN(inputs, hidden, 0.4)
    if kind == "gru":
        return nn.GRU(**sizes)
    if kind == "lstm":
        return nn.LSTM(**sizes)
    if kind == "projected":
        return nn.LSTM(**sizes, proj_size=2)
    return nn.RNN(**sizes, nonlinearity=kind)


def model_of(kind, layers=1, seed=0, gain=1.0, **sizes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        core = core_of(kind, layers, **sizes)
        readout = nn.Linear(2 if kind == "projected" else core.hidden_size, 2)
    model = hl.RecurrentModel(core, readout).to(F64)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.mul_(gain)
    return model


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def delay_line(length=4):
    """Return a network that shows the input of ``length - 1`` steps ago and forgets what is older."""
    core = nn.RNN(1, length, batch_first=True, nonlinearity="relu", bias=False)
    readout = nn.Linear(length, 1, bias=False)
    with torch.no_grad():
        core.weight_hh_l0.copy_(torch.diag(torch.ones(length - 1), -1))
        core.weight_ih_l0.copy_(torch.eye(length)[:, :1])
        readout.weight.copy_(torch.eye(length)[-1:])
    return hl.RecurrentModel(core, readout).double()


# windows


def test_a_delay_line_needs_exactly_its_length():
    found = hl.effective_window(delay_line(4), draw(0, 8, 12, 1), 1e-9)
    assert found.window == found.linear_window == 4
    assert found.error <= 1e-12
    assert found.reason == ""


def test_the_window_is_small_enough_and_the_one_before_is_not():
    model, inputs = model_of("gru", seed=2, gain=0.3), draw(1, 16, 30, 2)
    found = hl.effective_window(model, inputs, 1e-2)
    assert found.window < 30
    assert found.errors[found.window - 2] > 1e-2 >= found.errors[found.window - 1 :].max()
    small = hl.truncate(model, found)
    assert float((small(inputs) - model(inputs)).detach().abs().max()) == pytest.approx(found.error)


def test_the_stated_share_covers_the_choice_among_all_windows():
    found = hl.effective_window(delay_line(3), draw(0, 100, 10, 1), 1e-6)
    # had more than this share been beyond, all 100 draws would miss it in some window once in 20 at most
    assert 10 * (1 - found.share) ** 100 == pytest.approx(0.05)


def test_where_every_step_counts_it_says_so_and_truncate_refuses():
    model, inputs = model_of("tanh", hidden=8, seed=0, gain=2.5), draw(0, 8, 40, 2)
    found = hl.effective_window(model, inputs, 1e-12)
    assert found.window is None
    assert math.isnan(found.error)
    with pytest.raises(hl.errors.ParameterError, match=r"cannot be truncated: .*every step counts"):
        hl.truncate(model, found)


def test_a_bidirectional_network_is_measured_but_has_no_linear_window():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        core = nn.GRU(2, 3, batch_first=True, bidirectional=True)
        model = hl.RecurrentModel(core, nn.Linear(6, 1)).double()
    found = hl.effective_window(model, draw(0, 8, 30, 2), 1e-3)
    assert found.window < 30
    assert found.linear_window is None
    assert found.error <= 1e-3


def test_a_readout_after_every_step_and_bad_options_are_refused():
    model = model_of("tanh")
    model.info = hl.ModelInfo(every_step=True)
    with pytest.raises(hl.errors.UnsupportedModelError, match="after every step"):
        hl.effective_window(model, draw(0, 2, 5, 2), 0.1)
    with pytest.raises(hl.errors.UnsupportedModelError, match="after every step"):
        hl.truncate(model, 3)
    plain = model_of("tanh")
    with pytest.raises(hl.errors.ParameterError, match="tolerance"):
        hl.effective_window(plain, draw(0, 2, 5, 2), 0.0)
    with pytest.raises(hl.errors.ParameterError, match="window"):
        hl.truncate(plain, 0)
    with pytest.raises(hl.errors.UnsupportedModelError, match="readout="):
        hl.truncate(plain.core, 3)
    with pytest.raises(hl.errors.ParameterError, match="its own read-out"):
        hl.truncate(plain, 3, readout=plain.readout)


# truncated models


def test_a_truncated_model_runs_its_last_valid_steps(tmp_path):
    model = model_of("gru", seed=1)
    inputs, lengths = draw(0, 4, 9, 2), torch.tensor([9, 5, 3, 1])
    small = hl.truncate(model.core, 4, readout=model.readout)
    assert model.info.window is None
    got = small(inputs, lengths)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(got[row], model(inputs[row : row + 1, max(0, length - 4) : length])[0])
    torch.testing.assert_close(small(inputs), model(inputs[:, 5:]))
    torch.testing.assert_close(small(inputs[:, :2]), model(inputs[:, :2]))
    back = hl.load(hl.save(small, tmp_path / "small.safetensors"))
    assert torch.equal(back(inputs), small(inputs))


def test_lengths_count_in_the_search():
    line = delay_line(4)
    inputs, lengths = draw(0, 6, 12, 1), torch.tensor([12, 11, 8, 6, 5, 2])
    assert hl.effective_window(line, inputs, 1e-9, lengths=lengths).window == 4
    noisy = inputs.clone()
    noisy[torch.arange(12) >= lengths[:, None]] = 1e6  # padding is never looked at
    assert hl.effective_window(line, noisy, 1e-9, lengths=lengths).window == 4


def test_the_users_model_and_the_random_state_stay():
    model = model_of("tanh").train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    before = torch.get_rng_state()
    hl.truncate(model, hl.effective_window(model, draw(0, 4, 8, 2), 10.0))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_windows_tried_are_all_short_ones_and_a_grid():
    assert candidates(1).tolist() == [1]
    assert candidates(5).tolist() == [1, 2, 3, 4, 5]
    long = candidates(700).tolist()
    assert long[:64] == list(range(1, 65))
    assert long[-1] == 700
    assert max(b / a for a, b in itertools.pairwise(long[63:])) < 1.06


def test_last_steps_of_padded_sequences():
    x = torch.arange(10.0).view(2, 5, 1)
    kept, sizes = last_steps(x, 3, torch.tensor([4, 2]))
    assert kept[0, :, 0].tolist() == [1, 2, 3]
    assert kept[1, :2, 0].tolist() == [5, 6]
    assert sizes.tolist() == [3, 2]
    assert last_steps(x, 9)[0].shape == (2, 5, 1)
