"""Grids, rounding laws, packed bytes, and quantised models of every kind."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from quantisable import KINDS, draw, model_of
from torch import nn

import hoplens as hl
from hoplens.compress.simulation import record, run_model
from hoplens.compress.tuning import score
from hoplens.models.grids import (
    LARGEST,
    METHODS,
    activation_grid,
    fake_quantise,
    pack,
    row_scales,
    to_levels,
    unpack,
)

FORMS = tuple(LARGEST)


matrices = st.builds(draw, st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 12))


# grids


@given(matrices, st.sampled_from(FORMS))
def test_rounding_errs_by_half_a_scale_at_most_and_is_idempotent(weight, form):
    scales = row_scales(weight, form, "minmax")
    levels = to_levels(weight, scales, LARGEST[form])
    back = levels * scales
    assert ((back - weight).abs() <= scales / 2 * (1 + 1e-5)).all()
    assert torch.equal(to_levels(back, scales, LARGEST[form]), levels)
    again = row_scales(back, form, "minmax")
    torch.testing.assert_close(again, scales)  # the largest of a row is on the grid
    torch.testing.assert_close(to_levels(back, again, LARGEST[form]) * again, back)


@given(matrices, st.sampled_from(FORMS), st.sampled_from(METHODS))
def test_rows_have_few_values_and_signs_and_zeros_stay(weight, form, method):
    weight = weight * (weight.abs() > 0.5)
    scales = row_scales(weight, form, method)
    assert (scales > 0).all()
    back = to_levels(weight, scales, LARGEST[form]) * scales
    for row in back:
        assert len(row.unique()) <= 2 * LARGEST[form] + 1
    assert (back * weight >= 0).all()
    assert (back[weight == 0] == 0).all()
    # a row's scale depends on nothing but the row
    alone = row_scales(weight[:1], form, method)
    torch.testing.assert_close(alone, scales[:1])


@given(matrices, st.sampled_from(FORMS))
def test_least_error_scales_err_least(weight, form):
    def error(scales):
        return (to_levels(weight, scales, LARGEST[form]) * scales - weight).square().sum(-1)

    best = error(row_scales(weight, form, "mse"))
    for method in ("minmax", "percentile"):
        assert (best <= error(row_scales(weight, form, method)) * (1 + 1e-4) + 1e-9).all()
    if form == "ternary":  # against all ways to choose which weights are not zero
        for row, found in zip(weight.double(), best.double(), strict=True):
            size = row.abs().sort(descending=True).values
            kept = [size[:n].sum() ** 2 / n for n in range(1, len(size) + 1)]  # energy that n weights catch
            assert found <= row.square().sum() - max(kept) + 1e-5 + 0.02 * row.square().sum()


@given(st.sampled_from(FORMS), st.integers(1, 40), st.integers(0, 10**6))
def test_packed_levels_come_back_from_exactly_so_many_bytes(form, count, seed):
    top = LARGEST[form]
    levels = torch.randint(-top, top + 1, (count,), generator=torch.Generator().manual_seed(seed))
    data = pack(levels, form)
    assert data.dtype == torch.uint8
    assert len(data) == {"int8": count, "int4": -(-count // 2), "ternary": -(-count // 5)}[form]
    assert torch.equal(unpack(data, form, count), levels.to(torch.int8))


def test_gradients_pass_through_the_rounding_and_reach_the_scale():
    weight = torch.tensor([[0.26, -0.9, 5.0]], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)
    fake_quantise(weight, scale, 7).sum().backward()
    assert weight.grad.tolist() == [[1.0, 1.0, 0.0]]  # clipped weights do not move
    # rounding errors inside, the last level outside: (1 - 0.52) + (-2 + 1.8) + 7
    assert scale.grad.item() == pytest.approx(0.48 - 0.2 + 7)


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from(METHODS))
def test_activation_grids_have_256_levels_at_most_and_hold_zero(seed, positive, method):
    values = draw(seed, 2, 500)
    values = values.abs() if positive else values
    grid = activation_grid(values, method)
    assert (grid.zero == (0 if positive else 128)).all()
    from hoplens.models.grids import Grid

    back = Grid(grid.scale[:, None], grid.zero[:, None])(values)
    levels = back / grid.scale[:, None] + grid.zero[:, None]
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
    assert levels.min() >= 0
    assert levels.max() <= 255.001
    if method == "minmax":
        assert ((back - values).abs() <= grid.scale[:, None] * 0.5001).all()


# running


@KINDS
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_the_simulation_without_rounding_is_the_model(core):
    for info in ({}, {"every_step": True}, {"window": 4}):
        model = model_of(core, **info).double()
        x = draw(0, 6, 9, 3).double()
        with torch.no_grad():
            torch.testing.assert_close(run_model(model, model.state_dict(), x), model(x))
            if not core.bidirectional and not info.get("every_step"):
                lengths = torch.tensor([9, 8, 5, 3, 2, 1])
                got = run_model(model, model.state_dict(), x, lengths)
                torch.testing.assert_close(got, model(x, lengths))


def test_many_networks_run_as_one_batch():
    models = [model_of(core) for core in (nn.GRU(3, 5, batch_first=True) for _ in range(3))]
    tensors = {n: torch.stack([m.state_dict()[n] for m in models]) for n in models[0].state_dict()}
    x = draw(0, 4, 6, 3)
    got = run_model(models[0], tensors, x)
    assert got.shape == (3, 4, 2)
    lengths = torch.tensor([6, 4, 2, 1])
    cut = run_model(models[0], tensors, x, lengths)
    for one, model, short in zip(got, models, cut, strict=True):
        torch.testing.assert_close(one, model(x))
        torch.testing.assert_close(short, model(x, lengths))
    seen = record(models[0], tensors, x, None)
    assert seen["h_l0"].shape == (3, 6 * 4 * 5)
    assert seen["x_l0"].shape == (3, 6 * 4 * 3)


# quantised models


@KINDS
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("form", FORMS)
def test_every_matrix_is_quantised_and_the_bytes_are_exact(core, form):
    model = model_of(core)
    weights = {n: v.clone() for n, v in model.state_dict().items()}
    x = draw(0, 16, 6, 3)
    got = hl.quantise(model, form, inputs=x)
    matrices = [n for n, v in weights.items() if v.dim() == 2]
    assert got.counts == (len(matrices), len(weights))
    assert set(got.levels) == set(matrices)
    assert list(got.table["form"][got.table["tensor"].isin(matrices)].unique()) == [form]
    for name in matrices:
        torch.testing.assert_close(got.model.state_dict()[name], got.levels[name] * got.scales[name])
        assert int(got.levels[name].abs().max()) <= LARGEST[form]
        row = got.table.set_index("tensor").loc[name]
        assert row["bytes_after"] == len(got.packed()[name]) + 4 * len(weights[name])
    for name in set(weights) - set(matrices):
        assert torch.equal(got.model.state_dict()[name], weights[name])
    assert got.bytes_before == 4 * sum(v.numel() for v in weights.values())
    assert all(torch.equal(v, weights[n]) for n, v in model.state_dict().items())


@KINDS
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_eight_bits_change_little_and_fewer_change_more(core):
    model, x = model_of(core), draw(0, 64, 8, 3)
    wanted = model(x).detach()
    errors = [
        float((hl.quantise(model, form, inputs=x).simulate(x) - wanted).square().mean().sqrt())
        for form in FORMS
    ]
    assert errors[0] < 0.02 * float(wanted.square().mean().sqrt())
    assert errors[0] < errors[1] < errors[2]


def test_the_best_scales_are_the_ones_that_changed_least():
    model, x = model_of(nn.GRU(3, 5, batch_first=True)), draw(0, 64, 8, 3)
    wanted = model(x).detach()
    best = hl.quantise(model, "int4", inputs=x)
    assert len(best.tried) == 9
    error = float((best.simulate(x) - wanted).square().mean().sqrt())
    assert error == pytest.approx(best.tried["error"].min(), rel=1e-4)
    for method in METHODS:
        one = hl.quantise(model, "int4", inputs=x, scales=method)
        assert error <= float((one.simulate(x) - wanted).square().mean().sqrt()) * (1 + 1e-5)
        assert len(one.tried) == 1


def test_fine_tuning_wins_back_accuracy_and_keeps_the_grid():
    model, x = model_of(nn.RNN(3, 5, batch_first=True)), draw(0, 256, 6, 3)
    y = model(x).detach()
    fresh = draw(1, 256, 6, 3)
    unseen = model(fresh).detach()
    got = hl.quantise(model, "ternary", inputs=x, targets=y, steps=150, lr=5e-3)
    assert got.scores["before"] == pytest.approx(1.0)
    assert 1 - got.scores["fine-tuned"] < 0.75 * (1 - got.scores["quantised"])
    assert got.scores["fine-tuned"] == pytest.approx(score(got.simulate(x), y), abs=1e-5)
    for name, levels in got.levels.items():
        assert set(levels.unique().tolist()) <= {-1, 0, 1}
        torch.testing.assert_close(got.model.state_dict()[name], levels * got.scales[name])
    # without targets it aims at the model itself, which here is the same
    again = hl.quantise(model, "ternary", inputs=x, steps=150, lr=5e-3)
    assert score(again.simulate(fresh), unseen) == pytest.approx(score(got.simulate(fresh), unseen), abs=1e-4)


def test_classes_lengths_and_weights_alone():
    model, x = model_of(nn.LSTM(3, 5, batch_first=True)), draw(0, 40, 8, 3)
    lengths = torch.randint(1, 9, (40,), generator=torch.Generator().manual_seed(0))
    classes = model(x, lengths).argmax(-1)
    got = hl.quantise(model, "int8", inputs=x, lengths=lengths, targets=classes, steps=3)
    assert got.scores["before"] == 1.0
    assert got.scores["quantised"] > 0.9
    plain = hl.quantise(model.core, "int8", readout=model.readout)
    assert plain.grids == {}
    torch.testing.assert_close(plain.simulate(x), plain.model(x))


def test_pruned_weights_stay_zero_even_ternary_and_in_double_precision():
    model = model_of(nn.RNN(3, 5, batch_first=True)).double()
    with torch.no_grad():
        model.core.weight_hh_l0[:, ::2] = 0
        model.core.weight_hh_l0[3] = 0
    for form in FORMS:
        got = hl.quantise(model, form, inputs=draw(0, 8, 4, 3))
        assert (got.model.core.weight_hh_l0[:, ::2] == 0).all()
        assert (got.model.core.weight_hh_l0[3] == 0).all()


def test_bad_requests_are_refused_and_no_global_state_changes():
    model, x = model_of(nn.RNN(3, 5, batch_first=True)), draw(0, 8, 4, 3)
    with pytest.raises(hl.errors.UnknownNameError, match="did you mean 'int8'"):
        hl.quantise(model, "int9")
    with pytest.raises(hl.errors.UnknownNameError, match="mse"):
        hl.quantise(model, scales="msee")
    with pytest.raises(hl.errors.ParameterError, match="need inputs="):
        hl.quantise(model, steps=5)
    with pytest.raises(hl.errors.ParameterError, match="steps"):
        hl.quantise(model, inputs=x, steps=-1)
    with pytest.raises(hl.errors.ShapeError, match="targets must have shape"):
        hl.quantise(model, inputs=x, targets=torch.zeros(8, 3))
    with torch.no_grad():
        model.readout.weight[0, 0] = torch.nan
    with pytest.raises(hl.errors.NonFiniteError, match=r"readout\.weight"):
        hl.quantise(model)
    other = model_of(nn.RNN(3, 5, batch_first=True))
    before = torch.get_rng_state()
    pair = [hl.quantise(other, "int4", inputs=x, steps=4, seed=3) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    for name, levels in pair[0].levels.items():
        assert torch.equal(levels, pair[1].levels[name])


def test_scores_of_numbers_and_classes():
    targets = draw(0, 30, 2)
    assert score(targets, targets) == 1.0
    assert score(targets.mean(0).expand(30, 2), targets) == pytest.approx(0.0, abs=1e-6)
    classes = torch.tensor([0, 1, -100])
    outputs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert score(outputs, classes) == 0.5


def test_each_activation_is_rounded_where_it_is_multiplied():
    # one unit, one step: y = w_out round(h), h = tanh(w round(x)); nothing else is rounded
    core = nn.RNN(1, 1, batch_first=True, bias=False)
    model = hl.RecurrentModel(core, nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        for value, parameter in zip((0.7, 0.5, 1.3), model.parameters(), strict=True):
            parameter.fill_(value)
    x = torch.linspace(-2, 2, 50)[:, None, None]
    got = hl.quantise(model, "int8", inputs=x, scales="minmax")
    in_scale = 2 / 127
    h = (0.7 * (x[:, 0] / in_scale).round() * in_scale).tanh()
    out_scale = h.abs().max() / 127
    torch.testing.assert_close(
        got.simulate(x), 1.3 * (h / out_scale).round() * out_scale, rtol=1e-3, atol=1e-3
    )
    assert {len(g.scale.shape) for g in got.grids.values()} == {0}
    assert set(got.grids) == {"x_l0", "h_l0", "shown"}
    assert list(itertools.chain(got.scores)) == []


@pytest.mark.parametrize("data", [torch.ones(2, 4, 2), torch.ones(0, 4, 3), torch.ones(4, 3)], ids=str)
def test_calibration_of_a_wrong_shape_is_refused(data):
    with pytest.raises(hl.errors.ShapeError, match=r"^inputs .*\(B, L, I\)"):
        hl.quantise(model_of(nn.GRU(3, 5, batch_first=True)), "int8", inputs=data)


def test_calibration_with_nan_is_refused():
    with pytest.raises(hl.errors.NonFiniteError, match="inputs"):
        hl.quantise(model_of(nn.GRU(3, 5, batch_first=True)), "int8", inputs=torch.full((2, 4, 3), torch.nan))
