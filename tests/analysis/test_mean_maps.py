"""Hop maps along data are the mean of the exact maps of each sample."""

from __future__ import annotations

import pytest
import torch
from ensembles import each_cell, random_ensemble
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from twins import assert_near

import hoplens as hl
from hoplens.analysis import mean_maps

F64 = torch.float64


def draw(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@each_cell
@pytest.mark.parametrize("chunk", [1, 1 << 26])
def test_they_are_the_mean_size_and_spread_of_the_trajectory_maps(cell, chunk, monkeypatch):
    monkeypatch.setattr(mean_maps, "CHUNK_BYTES", chunk)
    model, x = random_ensemble(cell, networks=1).model(0), draw(6, 5, 2)
    each = hl.trajectory_maps(model, x).by_lag()
    maps = hl.hop_maps(model, inputs=x)
    assert_near(maps.values, each.mean(0))
    assert_near(maps.absolute, each.abs().mean(0))
    assert_near(maps.spread, each.std(0, correction=0))
    assert_near(maps.standard_error, each.std(0) / 6**0.5)
    assert maps.samples.tolist() == [6] * 5
    assert maps.hops.tolist() == [2, 3, 4, 5, 6]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=7), st.integers(1, 200))
def test_of_ragged_sequences_each_lag_has_the_samples_that_are_long_enough(lengths, chunk):
    model, x = random_ensemble("gru", networks=1).model(0), draw(len(lengths), 6, 2)
    given_lengths = torch.tensor(lengths)
    each = hl.trajectory_maps(model, x, lengths=given_lengths).by_lag()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mean_maps, "CHUNK_BYTES", 8 * chunk)
        maps = hl.hop_maps(model, inputs=x, lengths=given_lengths)
    for lag in range(6):
        some = each[given_lengths > lag, lag]
        assert int(maps.samples[lag]) == len(some)
        wanted = some.mean(0) if len(some) else torch.zeros_like(maps.values[lag])
        assert_near(maps.values[lag], wanted)
        assert bool(maps.standard_error[lag].isnan().all()) == (len(some) < 2)


def test_groups_are_maps_of_their_own():
    model, x = random_ensemble("lstm", networks=1).model(0), draw(6, 4, 2)
    labels = ["b", "a", "b", "b", "a", "a"]
    maps = hl.hop_maps(model, inputs=x, groups=labels)
    assert maps.groups == ("a", "b")
    for n, label in enumerate(maps.groups):
        rows = [k for k, own in enumerate(labels) if own == label]
        alone = hl.hop_maps(model, inputs=x[rows])
        assert_near(maps.values[n], alone.values)
        assert_near(maps.spread[n], alone.spread)
        assert_near(maps[n].absolute, alone.absolute)
    assert torch.equal(hl.hop_maps(model, inputs=x, groups=torch.arange(6)).samples, torch.ones(6, 4).long())


def test_selection_keeps_what_was_measured():
    model, x = random_ensemble("tanh", networks=1).model(0), draw(6, 4, 2)
    maps = hl.hop_maps(model, inputs=x, horizon=3)
    one = maps.sel(lag=1, output="y2", input=0)
    assert_near(one.spread, maps.spread[1:2, 2:3, :1])
    assert_near(one.standard_error, maps.standard_error[1:2, 2:3, :1])
    assert one.samples.tolist() == [6]
    assert maps.values.shape == (3, 4, 2)
    assert hl.hop_maps(model, inputs=x, dtype=torch.float32).absolute.dtype == torch.float32


class Head(nn.Module):
    """A user's own module: core and head, and nothing else."""

    def __init__(self):
        super().__init__()
        self.core, self.head = nn.GRU(2, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.core(x)[0])


def test_layouts_readouts_and_modules_of_ones_own():
    core, head = nn.GRU(2, 4, num_layers=2).double(), nn.Linear(4, 3).double()  # (L, B, I)
    x = draw(5, 6, 2)
    maps = hl.hop_maps(core, inputs=x.transpose(0, 1), readout=head)
    each = hl.trajectory_maps(core, x.transpose(0, 1), readout=head).by_lag()
    assert_near(maps.values, each.mean(0))
    assert maps.hops.tolist() == [3, 4, 5, 6, 7, 8]
    assert maps.lags.tolist() == [0, 1, 2, 3, 4, 5]
    own = Head().double()
    ragged = hl.hop_maps(own, inputs=x.transpose(0, 1), lengths=torch.tensor([6, 1, 2, 3, 4]))
    alone = hl.hop_maps(
        own.core, inputs=x.transpose(0, 1), readout=own.head, lengths=torch.tensor([6, 1, 2, 3, 4])
    )
    assert_near(ragged.values, alone.values)
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([6, 5, 4, 3, 2]), batch_first=True)
    assert hl.hop_maps(core, inputs=packed, readout=head).samples.tolist() == [5, 5, 4, 3, 2, 1]
    conv = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    assert_near(hl.hop_maps(conv, inputs=x).values[0], conv[1].weight.detach()[:, 10:])


def test_progress_is_told():
    calls = []
    model, x = random_ensemble("tanh", networks=1).model(0), draw(6, 4, 2)
    hl.hop_maps(model, inputs=x, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (6, 6)


def test_a_graph_of_each_step_multiplies_the_factors_of_the_steps():
    blocks = draw(3, 4, 2, seed=1), draw(3, 4, 4, seed=2), draw(3, 5, 4, seed=3)
    net = hl.Pathways(*blocks, steps=True)
    w_in, w_rec, w_out = blocks
    maps = hl.hop_maps(net).values
    assert_near(maps[0], w_out[0] @ w_in[0])
    assert_near(maps[1], w_out[0] @ w_rec[0] @ w_in[1])
    assert_near(maps[2], w_out[0] @ w_rec[0] @ w_rec[1] @ w_in[2])
    assert_near(hl.hop_maps(net, 5).values[3:], torch.zeros(2, 5, 2, dtype=F64))
    same = hl.Pathways(*(block[:1].expand(6, -1, -1) for block in blocks), steps=True)
    assert_near(hl.hop_maps(same).values, hl.hop_maps(same[0], 6).values)


def test_bad_data_is_one_clear_error():
    model = random_ensemble("gru", networks=1).model(0)
    x = draw(3, 4, 2)
    for options, error, match in (
        ({"inputs": x[0]}, hl.errors.ShapeError, "inputs must have shape"),
        ({"inputs": x[:0]}, hl.errors.ShapeError, "sample|sequence"),
        ({"inputs": x, "groups": [1, 2]}, hl.errors.ShapeError, "one label a sample, 3, got 2"),
        ({"inputs": x, "groups": [1, "a", 2]}, hl.errors.ParameterError, "labels of one kind"),
        ({"lengths": torch.tensor([1])}, hl.errors.ParameterError, "lengths= says something of inputs="),
        ({"groups": [1]}, hl.errors.ParameterError, "groups= says something of inputs="),
        ({"inputs": x * torch.inf}, hl.errors.NonFiniteError, "inputs"),
    ):
        with pytest.raises(error, match=match):
            hl.hop_maps(model, **options)
    with pytest.raises(hl.errors.ParameterError, match="pass the module, not its Pathways"):
        hl.hop_maps(hl.read(model), inputs=x)
    with pytest.raises(hl.errors.ParameterError, match="readout= goes with a bare core"):
        hl.hop_maps(hl.read(model), readout=nn.Linear(4, 3))


def test_selections_and_tables_keep_groups_and_their_spread():
    model, x = random_ensemble("tanh", networks=1).model(0), draw(6, 4, 2)
    maps = hl.hop_maps(model, inputs=x, groups=["b", "a", "b", "b", "a", "a"])
    assert maps[0].groups is None
    for index, labels in (([1], ("b",)), (torch.tensor([1, 0]), ("b", "a")), (slice(1, None), ("b",))):
        part = maps[index]
        assert part.groups == labels
        assert part.samples is not None
        assert_near(part.spread, maps.spread[index])
    table = maps.to_dataframe()
    assert list(table.columns)[:2] == ["group", "hop"]
    some = table[(table.group == "b") & (table.hop == 3) & (table.output == "y1") & (table.input == "x0")]
    assert some.standard_error.item() == maps.standard_error[1, 1, 1, 0].item()
    assert some.absolute.item() == maps.absolute[1, 1, 1, 0].item()


def test_maps_that_are_not_finite_are_refused():
    model, x = nn.RNN(2, 3, nonlinearity="relu", batch_first=True), torch.ones(2, 40, 2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1e2)
    with pytest.raises(hl.errors.NonFiniteError, match="not finite"):
        hl.hop_maps(model, inputs=x)


@pytest.mark.parametrize("lengths", [[4] * 7, [4] * 5, [5] * 6, [0] * 6])
def test_lengths_that_do_not_fit_the_samples_are_refused(lengths):
    model = random_ensemble("tanh", networks=1).model(0)
    with pytest.raises(hl.errors.ShapeError, match="lengths must be 6 whole numbers"):
        hl.hop_maps(model, inputs=draw(6, 4, 2), lengths=lengths)
    with pytest.raises(hl.errors.ShapeError, match="inputs must be numbers"):
        hl.hop_maps(model, inputs="abc")
