"""Whole hidden units: the smaller module is the masked one, and what others can say goes first."""

import pytest
import torch
from test_pruning import data, model_of
from torch import nn
from torch.nn.utils import prune as torch_prune

import hoplens as hl
from hoplens.models.recurrent_model import RecurrentModel

CELLS = ["rnn", "gru", "lstm", "leaky", "stacked"]


def silenced(model, units):
    """Return the model of full size whose columns for some units of every layer are zero."""
    size, core = model.core.hidden_size, model.core
    ways = 2 if core.bidirectional else 1
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "weight_hh" in name:
                value[:, units] = 0
            elif name == "readout.weight" or ("weight_ih" in name and "_l0" not in name):
                value[:, [way * size + unit for way in range(ways) for unit in units]] = 0
    return model


@pytest.mark.parametrize("kind", CELLS)
def test_removed_units_leave_the_outputs_of_the_masked_model(kind):
    model, (inputs, _) = model_of(kind), data()
    layers = ["l0", "l0_reverse", "l1", "l1_reverse"] if kind == "stacked" else ["l0"]
    before = model(inputs)
    small = hl.compress.remove_units(model, {layer: [1, 4] for layer in layers})
    assert torch.equal(model(inputs), before)
    assert small.core.hidden_size == 4
    gates = {"gru": 3, "lstm": 4, "stacked": 3}.get(kind, 1)
    assert small.core.weight_hh_l0.shape == (4 * gates, 4)
    assert small.core.weight_ih_l0.shape == (4 * gates, 3)
    assert small.core.bias_hh_l0.shape == (4 * gates,)
    assert small.readout.in_features == (8 if kind == "stacked" else 4)
    torch.testing.assert_close(small(inputs), silenced(model, [1, 4])(inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("by", ["pathway", "magnitude", "taylor", "random"])
@pytest.mark.parametrize("kind", CELLS)
def test_pruned_units_are_really_gone(kind, by):
    model, (inputs, targets) = model_of(kind), data()
    small = hl.prune(model, 1 / 3, by=by, structure="unit", compensate=False, inputs=inputs, targets=targets)
    assert small.core.hidden_size == 4
    assert small.masks == {}
    gone = {layer: sorted(set(range(6)) - set(kept)) for layer, kept in small.units.items()}
    torch.testing.assert_close(small.model(inputs), hl.compress.remove_units(model, gone)(inputs))
    report = small.report.set_index("tensor")
    assert report.loc["core.weight_hh_l0", "shape"] == tuple(small.core.weight_hh_l0.shape)
    assert bool(report.loc["core.weight_hh_l0", "pruned"])


@pytest.mark.parametrize("kind", CELLS)
def test_what_others_take_over_keeps_the_outputs_better(kind):
    model, (inputs, targets) = model_of(kind, 8), data(60)
    test, _ = data(60, seed=2)
    wanted = model(test)

    def error(**options):
        small = hl.prune(model, 0.25, structure="unit", inputs=inputs, targets=targets, **options)
        return float((small.model(test) - wanted).square().mean().detach())

    found = error()
    assert found < 0.5 * error(compensate=False)
    assert found < 0.5 * min(error(by=by) for by in ("magnitude", "taylor"))


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_a_twin_of_another_unit_goes_first_and_nothing_is_lost(kind):
    model, (inputs, _) = model_of(kind), data(40)
    with torch.no_grad():
        for name, value in model.core.named_parameters():
            rows = value.unflatten(0, (-1, 6))
            rows[:, 4] = rows[:, 2]
            assert name.endswith("_l0")
    small = hl.prune(model, 1 / 6, structure="unit", inputs=inputs)
    assert len({2, 4} & set(small.units["l0"])) == 1
    torch.testing.assert_close(small.model(inputs), model(inputs), rtol=0, atol=1e-4)


def test_a_constant_unit_becomes_a_bias():
    model, (inputs, _) = model_of("rnn"), data(40)
    with torch.no_grad():
        model.core.weight_ih_l0[3] = model.core.weight_hh_l0[3] = 0
        model.core.weight_hh_l0[:, 3] = 0  # only the read-out hears it: at step 0 it was not yet there
        model.core.bias_ih_l0[3] = 1.0
    small = hl.prune(model, 1 / 6, structure="unit", inputs=inputs)
    assert 3 not in small.units["l0"]
    torch.testing.assert_close(small.model(inputs), model(inputs), rtol=0, atol=1e-5)


def test_a_module_without_biases_stays_without():
    core, readout = nn.GRU(3, 6, batch_first=True, bias=False, dropout=0.0), nn.Linear(6, 2, bias=False)
    inputs = data()[0].float()
    small = hl.prune(core, 0.5, structure="unit", readout=readout, inputs=inputs)
    assert not small.core.bias
    assert small.readout.bias is None
    assert small.model(inputs).dtype == torch.float32


def test_dropout_and_masks_survive_and_units_already_silent_go_first():
    core = nn.LSTM(3, 6, num_layers=2, dropout=0.25, batch_first=True).double()
    model = RecurrentModel(core, nn.Linear(6, 2).double())
    inputs, _ = data()
    mask = torch.ones_like(core.weight_hh_l1)
    mask[:, 5] = 0
    torch_prune.custom_from_mask(core, "weight_hh_l1", mask)
    with torch.no_grad():
        model.readout.weight[:, 5] = 0
    small = hl.prune(model, 1 / 6, structure="unit", inputs=inputs)
    assert small.core.dropout == 0.25
    assert 5 not in small.units["l1"]
    assert torch_prune.is_pruned(core)


def test_unit_removal_refuses_what_it_cannot_do():
    model, deep = model_of("rnn"), model_of("stacked")
    with pytest.raises(hl.errors.ParameterError, match="below 6"):
        hl.compress.remove_units(model, [6])
    with pytest.raises(hl.errors.ParameterError, match="not all of them"):
        hl.compress.remove_units(model, range(6))
    with pytest.raises(hl.errors.ParameterError, match="unit must be a whole number"):
        hl.compress.remove_units(model, [-1])
    with pytest.raises(hl.errors.UnknownNameError, match="l0, l0_reverse, l1, l1_reverse"):
        hl.compress.remove_units(deep, [1])
    with pytest.raises(hl.errors.ParameterError, match="same number"):
        hl.compress.remove_units(deep, {"l0": [1], "l0_reverse": [1], "l1": [1], "l1_reverse": []})
    with pytest.raises(hl.errors.UnsupportedModelError, match="projection"):
        hl.compress.remove_units(model_of("projected"), [0])
    with pytest.raises(hl.errors.UnsupportedModelError, match="projection"):
        hl.prune(model_of("projected"), 0.5, structure="unit")
    with pytest.raises(hl.errors.UnsupportedModelError, match="readout="):
        hl.compress.remove_units(model.core, [0])
