"""Interactions are the mean Hessian by lag, and they recover the pairs that a task multiplies."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from ensembles import draw_inputs, each_cell, random_ensemble
from matplotlib.collections import QuadMesh
from torch import nn
from torch.autograd.functional import hessian
from torch.nn.utils.rnn import pack_padded_sequence
from twins import assert_near

import hoplens as hl
from hoplens import errors
from hoplens.analysis import hessian as engine

F64 = torch.float64


def slow(run, x, output=0):
    """Return the Hessian of each sample by lag, (B, L, I, L, I), by torch's own function."""
    each = [hessian(lambda one: run(one[None])[0, output], sample) for sample in x]
    return torch.stack(each).flip(1, 3)


@each_cell
@pytest.mark.parametrize("chunk", [1, 1 << 12, 1 << 25])
def test_they_are_the_mean_size_and_spread_of_the_hessians(cell, chunk, monkeypatch):
    monkeypatch.setattr(engine, "CHUNK_BYTES", chunk)
    model, x = random_ensemble(cell, networks=1).model(0), draw_inputs(3, 4, 2)
    wanted = slow(model, x, 2).flatten(1, 2)
    pairs = hl.interactions(model, x, 2)
    assert_near(pairs.values, wanted.mean(0))
    assert_near(pairs.absolute, wanted.abs().mean(0))
    assert_near(pairs.spread, wanted.std(0, correction=0))
    assert_near(pairs.standard_error, wanted.std(0) / 3**0.5)
    assert_near(pairs.flow, hl.hop_maps(model, inputs=x).absolute[:, 2])
    assert pairs.samples.tolist() == [3] * 4
    assert (pairs.output, pairs.coverage, pairs.covered) == ("y2", 1.0, "all")


@pytest.mark.parametrize(
    ("core", "width"),
    [
        (nn.GRU(2, 4, num_layers=2), 4),
        (nn.LSTM(2, 4, bidirectional=True, batch_first=True), 8),
        (nn.LSTM(2, 4, proj_size=3, batch_first=True), 3),
    ],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_layers_directions_layouts_and_ragged_sequences(core, width):
    core, head = core.double(), nn.Linear(width, 2).double()
    lengths = torch.tensor([5, 2, 4])
    x = draw_inputs(3, 5, 2)
    given = x if core.batch_first else x.transpose(0, 1)

    def run(one):
        states = core(one if core.batch_first else one.transpose(0, 1))[0]
        return head(states[:, -1] if core.batch_first else states[-1])

    each = torch.zeros(3, 5, 2, 5, 2, dtype=F64)
    for n, length in enumerate(lengths.tolist()):
        each[n, :length, :, :length] = slow(run, x[n : n + 1, :length])[0]
    pairs = hl.interactions(core, given, lengths=lengths, readout=head)
    packed = pack_padded_sequence(given, lengths, batch_first=core.batch_first, enforce_sorted=False)
    assert_near(hl.interactions(core, packed, readout=head).values, pairs.values)
    for lag in range(5):
        for other in range(5):
            some = each[lengths > max(lag, other), lag, :, other]
            assert_near(pairs.values.view(5, 2, 5, 2)[lag, :, other], some.mean(0))
    assert pairs.samples.tolist() == [3, 3, 2, 2, 1]
    order = torch.tensor([2, 0, 1])
    again = hl.interactions(
        core, x[order] if core.batch_first else given[:, order], lengths=lengths[order], readout=head
    )
    assert_near(again.values, pairs.values)
    assert_near(again.spread, pairs.spread)


def test_products_linear_networks_and_relu():
    x = draw_inputs(6, 3, 2)
    pairs = hl.interactions(lambda x: (3 * x[:, 0, 1] * x[:, 2, 0] + x[:, 1, 1] ** 2)[:, None], x)
    frame = pairs.strongest()
    assert len(frame) == 1  # a square is no pair of two
    assert frame.iloc[0, :6].tolist() == [1, 0, "x0", 2, "x1", 3.0]
    whole = pairs.to_dataframe()
    assert len(whole) == 21
    square = whole[
        (whole.lag == 1) & (whole.other_lag == 1) & (whole.input == "x1") & (whole.other_input == "x1")
    ]
    assert square.second_derivative.tolist() == [2.0]
    # of a product of three the mean hides the pairs, whose sign is that of the third
    three = hl.interactions(lambda x: (x[:, 0, 1] * x[:, 1, 0] * x[:, 2, 1])[:, None], x)
    sizes = three.strongest(by="absolute").absolute.tolist()
    wanted = [float(x[:, t, i].abs().mean()) for t, i in ((0, 1), (1, 0), (2, 1))]
    assert sizes == pytest.approx(sorted(wanted, reverse=True))
    linear = hl.LeakyRNN(2, 4, 0.5, nonlinearity="linear").double()
    relu = nn.RNN(2, 4, nonlinearity="relu", batch_first=True).double()
    for core in (linear, relu):
        none = hl.interactions(core, x)
        assert not none.values.any()
        assert none.flow.any()
        assert none.strongest().empty
    assert not hl.interactions(lambda x: x.sum(1), x).values.any()


@pytest.mark.parametrize("signal", ["sparse", "on-off", "every"])
def test_they_recover_the_pairs_that_a_task_multiplies(signal):
    task = hl.tasks.make("multiplication", signal=signal, modules=4, module_size=2, length=4)
    model = hl.train(task, "none", seeds=[0], hidden=24, steps=1000).model(0)
    x = task.sample(200, generator=1).inputs
    lags = [task.length - 1 - step for step in task.signal_steps]
    for output in range(4):
        first = 2 * (output - output % 2)  # inputs of the module and of its sibling
        wanted = {
            frozenset([(a, f"x{first + i}"), (b, f"x{first + 2 + j}")])
            for a in lags for b in lags for i in range(2) for j in range(2)
        }  # fmt: skip
        frame = hl.interactions(model, x, output).strongest(len(wanted))
        assert {
            frozenset([(p.lag, p.input), (p.other_lag, p.other_input)]) for p in frame.itertuples()
        } == wanted
        assert frame["rank"].tolist() == list(range(1, len(wanted) + 1))
        assert (frame.second_derivative > 0).all()


def test_of_long_sequences_rows_are_sampled_by_a_rule_and_what_was_covered_is_said():
    model, x = random_ensemble("gru", networks=1).model(0), draw_inputs(3, 8, 2)
    whole = hl.interactions(model, x)
    some = hl.interactions(model, x, rows=8, seed=3)
    again = hl.interactions(model, x, rows=8, seed=3)
    other = hl.interactions(model, x, rows=8, seed=4)
    cells = some.rows[:, 0] * 2 + some.rows[:, 1]
    assert cells.tolist() == sorted(set(cells.tolist()))
    assert set(whole.flow.flatten().topk(6).indices.tolist()) <= set(cells.tolist())
    assert torch.equal(some.rows, again.rows)
    assert not torch.equal(some.rows, other.rows)
    assert_near(some.values, whole.values[cells])
    assert "6 of largest flow and 2 drawn (seed 3) of 16" in repr(some)
    frame, all_pairs = some.to_dataframe(), whole.to_dataframe()
    assert some.coverage == pytest.approx(len(frame) / len(all_pairs))
    assert len(frame.merge(all_pairs[["lag", "input", "other_lag", "other_input"]])) == len(frame)
    assert len(all_pairs) == 16 * 17 // 2
    wanted = [(7, 1), (0, 0)]
    given = hl.interactions(model, x, rows=wanted)
    assert given.rows.tolist() == [[0, 0], [7, 1]]
    assert_near(given.values, whole.values[[0, 15]])
    assert torch.equal(hl.interactions(model, x, rows=some.rows).values, some.values)
    calls = []
    hl.interactions(model, x, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (16, 16)


class Gated(nn.Module):
    """A user's own module with attention and an LSTM, dropout and batch norm inside."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(2), nn.Dropout(0.5)
        self.look, self.core = nn.MultiheadAttention(2, 1, batch_first=True), nn.LSTM(2, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.drop(self.norm(x.mT).mT)
        return self.head(self.core(self.look(x, x, x, need_weights=False)[0])[0])


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_modules_of_ones_own_are_differentiated_and_left_as_they_were(dtype):
    model, x = Gated().to(dtype), draw_inputs(3, 4, 2).to(dtype)
    model.core.weight_ih_l0.requires_grad_(False)
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    pairs = hl.interactions(model, x, output=1)
    assert model.training
    assert torch.backends.cudnn.enabled
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    twin = model.double().eval()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        wanted = slow(lambda one: twin(one)[:, -1], x.double(), 1).flatten(1, 2)
    assert_near(pairs.values, wanted.mean(0), 1e-12 if dtype == F64 else 1e-5)


def test_half_precision_windows_and_names():
    model = random_ensemble("tanh", networks=1).model(0)
    x = draw_inputs(3, 6, 2)
    short = hl.truncate(model, 2)
    pairs = hl.interactions(short, x)
    assert_near(pairs.values.view(6, 2, 6, 2)[:2, :, :2], slow(short, x[:, -2:]).mean(0))
    assert not pairs.values.view(6, 2, 6, 2)[2:].any()
    half = hl.interactions(copy.deepcopy(model).to(torch.bfloat16), x)
    assert_near(half.values, hl.interactions(model, x).values, 0.05)
    info = hl.ModelInfo(input_names=("light", "sound"), output_names=("a", "b", "c", "d"))
    named = hl.interactions(hl.RecurrentModel(model.core, model.readout, info), x, output="c")
    assert named.output == "c"
    assert set(named.strongest().input) <= {"light", "sound"}
    assert_near(named.values, hl.interactions(model, x, 2).values)


def test_the_picture_shows_the_strongest_and_what_was_not_computed():
    model, x = random_ensemble("gru", networks=1).model(0), draw_inputs(3, 8, 2)
    pairs = hl.interactions(model, x)
    ax = pairs.plot(n=5)
    (mesh,) = [artist for artist in ax.collections if isinstance(artist, QuadMesh)]
    drawn = np.ma.filled(mesh.get_array(), np.nan).reshape(5, 5)
    best = pairs.strongest(1).iloc[0]
    np.testing.assert_allclose(drawn, drawn.T, atol=1e-12)
    off = np.abs(drawn - np.diag(np.diag(drawn)))
    assert off.max() == pytest.approx(abs(best.second_derivative))
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert {f"{best.input}, lag {best.lag}", f"{best.other_input}, lag {best.other_lag}"} <= set(names)
    some = hl.interactions(model, x, rows=[(0, 0)]).plot(n=4)
    assert "the others grey" in some.get_title(loc="left")


def test_bad_questions_are_one_clear_error():
    model, x = random_ensemble("gru", networks=1).model(0), draw_inputs(3, 4, 2)
    for options, error, match in (
        ({"output": 4}, errors.ParameterError, r"output must lie in 0 \.\. 3 for 4 outputs, got 4"),
        ({"output": "z"}, errors.UnknownNameError, "unknown output 'z'"),
        ({"output": -1}, errors.ParameterError, "output must be a whole number"),
        ({"rows": 0}, errors.ParameterError, "rows must be a whole number"),
        ({"rows": [(4, 0)]}, errors.ParameterError, r"distinct pairs \(lag, input\) in 0 \.\. 3"),
        ({"rows": [(1, 0), (1, 0)]}, errors.ParameterError, "distinct pairs"),
        ({"rows": [(1.5, 0)]}, errors.ParameterError, "distinct pairs"),
        ({"rows": "few"}, errors.ParameterError, "distinct pairs"),
        ({"rows": []}, errors.ParameterError, "distinct pairs"),
        ({"inputs": x[0]}, errors.ShapeError, "inputs must have shape"),
        ({"inputs": x[:0]}, errors.ShapeError, "sequence"),
        ({"readout": nn.Linear(5, 2)}, errors.ParameterError, "own read-out"),
    ):
        with pytest.raises(error, match=match):
            hl.interactions(model, **{"inputs": x, **options})
    with pytest.raises(errors.ParameterError, match="lengths= go with a recurrent network"):
        hl.interactions(lambda x: x.sum(1), x, lengths=torch.tensor([1, 2, 3]))
    with pytest.raises(errors.NonFiniteError, match="second derivatives are NaN or infinite"):
        hl.interactions(lambda x: x.sum(1).abs().sqrt(), 0 * x)
    with pytest.raises(errors.UnknownNameError, match="unknown by 'size'"):
        hl.interactions(model, x).strongest(by="size")

    with pytest.raises(errors.UnsupportedModelError, match="cannot be differentiated twice"):
        hl.interactions(lambda x: torch.stack([torch.pdist(one) for one in x]), x)
