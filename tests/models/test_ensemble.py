"""Ensembles of recurrent cells: torch's modules as twins, hand-written gradients, linearisation."""

from __future__ import annotations

import re

import pytest
import torch
from ensembles import draw_inputs, each_cell, random_ensemble
from twins import assert_near

import hoplens as hl
from hoplens.models.cells import CellModule, make_cell
from hoplens.models.ensemble import Ensemble
from hoplens.training.bptt import make_recurrence


@each_cell
@pytest.mark.parametrize("lengths", [None, [7, 1, 4, 7]])
def test_a_network_equals_torchs_module(cell, lengths):
    ensemble = random_ensemble(cell)
    inputs = draw_inputs(4, 7, 2)
    lengths = lengths and torch.tensor(lengths)
    got, steps = ensemble.predict(inputs, lengths), ensemble.predict_steps(inputs)
    for n in range(ensemble.size):
        model = ensemble.model(n)
        assert type(model.core) is make_cell(cell, ensemble.leak).module
        with torch.no_grad():
            assert_near(got[n], model(inputs, lengths))
            assert_near(steps[n], model.readout(model.core(inputs)[0]))


@each_cell
def test_own_sequences_for_each_network(cell):
    ensemble = random_ensemble(cell)
    inputs = draw_inputs(3, 4, 6, 2)
    got = ensemble.predict(inputs)
    for n in range(3):
        assert_near(got[n], ensemble.predict(inputs[n])[n])


@each_cell
@pytest.mark.parametrize("steps", [1, 6])
def test_the_hand_written_recurrence_is_the_plain_one(cell, steps):
    ensemble = random_ensemble(cell)
    for work in (make_recurrence(ensemble, 4, 8), make_recurrence(ensemble, 4, 8, eager=True)):
        for seed in (1, 2):  # twice: the memory is used again
            inputs = draw_inputs(steps, 3, 2, 4, seed=seed)
            leaf = ensemble.clone()
            leaf.weight.requires_grad_()
            wanted = torch.stack(list(leaf.states(inputs)))
            work.forward(inputs)
            assert_near(work.scale * torch.stack(list(work.hidden[1 : steps + 1])) + work.shift, wanted)
            slopes = draw_inputs(steps, 3, 4, 4, seed=9)
            slopes[steps // 2 :: 2] = 0.0
            given = [None if not bool(slope.any()) else slope for slope in slopes]
            mask = draw_inputs(3, 5, 4, seed=8) if seed == 2 else None
            shown = wanted if mask is None else wanted * mask
            (twin,) = torch.autograd.grad((slopes * (ensemble.readout @ shown)).sum(), leaf.weight)
            work.backward(given, mask)
            assert_near(work.grad_weight * ensemble.structure(), twin * ensemble.structure())


@each_cell
def test_nothing_to_go_back_is_no_gradient(cell):
    for eager in (False, True):
        work = make_recurrence(random_ensemble(cell), 4, 3, eager=eager)
        work.forward(draw_inputs(3, 3, 2, 4))
        work.backward([None] * 3)
        assert not bool(work.grad_weight.any())


@each_cell
@pytest.mark.parametrize("at", [None, "origin", "point"])
def test_the_graph_is_that_of_the_reader(cell, at):
    ensemble = random_ensemble(cell)
    width = 5 * len(ensemble.kernel.parts)
    state, x = 0.5 * draw_inputs(3, width, seed=5), draw_inputs(3, 2, seed=6)
    options = {"state": state, "x": x} if at == "point" else {}
    net = ensemble.pathways(at, **options)
    for n in range(3):
        model = ensemble.model(n)
        place = at
        if at == "point":
            own = state[n].split(5) if cell == "lstm" else state[n]
            place = (own, x[n])
        if isinstance(model.core, CellModule):
            twin = hl.read(model.core.to_hoplens(), readout=model.readout.weight, at=place)
        else:
            twin = hl.read(model.core, readout=model.readout, at=place)
        for ours, theirs in zip(
            (net.w_in, net.w_rec, net.w_out), (twin.w_in, twin.w_rec, twin.w_out), strict=True
        ):
            assert_near(ours[n], theirs)
        assert net.hidden_names == twin.hidden_names
        assert_near(hl.hop_maps(net[n], 6).values, hl.hop_maps(twin, 6).values)


@each_cell
@pytest.mark.parametrize("across", ["hops", "sum"])
def test_a_penalty_on_the_graph_passes_gradcheck(cell, across):
    ensemble = random_ensemble(cell, networks=2, hidden=3)
    penalty = hl.PathwayPenalty(4, across=across)
    place = "point"
    state, x = 0.3 * draw_inputs(2, 3 * len(ensemble.kernel.parts)), draw_inputs(2, 2)

    def value(weight, readout):
        moved = Ensemble(weight, readout, ensemble.offset, ensemble.cell, ensemble.leak)
        return penalty(moved.pathways(place, state=state, x=x))

    leaves = (ensemble.weight.requires_grad_(), ensemble.readout.requires_grad_())
    assert torch.autograd.gradcheck(value, leaves)


@each_cell
def test_keep_counts_the_weights_that_exist(cell):
    ensemble = random_ensemble(cell)
    h = ensemble.n_hidden
    there = ensemble.structure()[:h] != 0
    if not there.any():
        return  # units that do not hear of each other
    for by in ("magnitude", "pathway"):
        kept = ensemble.keep(slice(1, 3), torch.tensor([0.0, 0.6]), by=by, horizon=4)
        counts = (kept & there).sum(dim=(1, 2)).tolist()
        whole = int(there.sum())
        assert counts == [whole, whole - round(0.6 * whole)]
    scores = ensemble.weight[2, :h].abs()
    kept = ensemble.keep(slice(2, 3), torch.tensor([0.6]))[0]
    assert float(scores[kept & there].min()) > float(scores[~kept & there].max())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell": "gru"}, "gru cells needs weight (E, H + I + 1, 4 H)"),
        ({"cell": "grru"}, "did you mean 'gru'"),
        ({"leak": 1.5}, "leak must be"),
        ({"readout": torch.zeros(2, 1, 5)}, "got (3, 8, 5), (2, 1, 5)"),
    ],
)
def test_an_ensemble_is_checked(change, message):
    fields = {"weight": torch.zeros(3, 8, 5), "readout": torch.zeros(3, 1, 5), "offset": torch.zeros(3, 1, 1)}
    with pytest.raises(hl.HoplensError, match=re.escape(message)):
        Ensemble(**{**fields, **change})


@each_cell
def test_models_become_the_ensemble_again(cell):
    ensemble = random_ensemble(cell)
    again = ensemble.with_models(ensemble.models())
    for one, other in zip(again.tensors, ensemble.tensors, strict=True):
        assert torch.equal(one, other)


def test_inputs_and_places_are_checked():
    ensemble = random_ensemble("gru")
    with pytest.raises(hl.errors.ShapeError, match="inputs must be"):
        ensemble.predict(torch.zeros(4, 7, 3, dtype=torch.float64))
    with pytest.raises(hl.errors.ParameterError, match="no single recurrent matrix"):
        ensemble.pathways("raw")
    with pytest.raises(hl.errors.ParameterError, match="needs them"):
        ensemble.pathways("point")
    with pytest.raises(hl.errors.ParameterError, match="there are 3 networks, got number 3"):
        ensemble.model(3)
