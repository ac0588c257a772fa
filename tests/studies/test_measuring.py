"""What is measured on networks that were trained on a data set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hoplens as hl
from hoplens import recipes
from hoplens.data import closed_loop_return
from hoplens.studies.measuring import (
    FLOW_SEQUENCES,
    flow_measures,
    look_at_states,
    measure,
    play,
    prune,
    quantise,
)
from hoplens.training.training import train


@pytest.fixture(scope="module")
def trained():
    data = hl.data.cartpole(episodes=20, length=12)
    recipe = [recipes.none(), recipes.recommended()]
    return train(data, recipe, seeds=(0, 1), cell="gru", hidden=6, steps=15, batch=4)


def test_rounding_to_eight_bits_moves_no_weight_by_more_than_half_a_step(trained):
    ensemble, rounded = trained.ensemble, quantise(trained.ensemble)
    model, small = ensemble.model(1), rounded.model(1)
    for name in ("core.weight_ih_l0", "core.weight_hh_l0", "readout.weight"):
        weight, own = (dict(m.named_parameters())[name].detach() for m in (model, small))
        step = weight.abs().amax(dim=1, keepdim=True) / 127
        assert bool(((weight - own).abs() <= 0.501 * step).all())
        assert not torch.equal(weight, own)
        assert torch.allclose((own / step).round(), own / step, atol=1e-3)
    assert torch.equal(model.readout.bias, small.readout.bias)
    assert torch.equal(model.core.bias_hh_l0, small.core.bias_hh_l0)


def test_pruning_removes_the_smallest_of_the_weights_that_exist(trained):
    before, after = trained.ensemble, prune(trained.ensemble, 0.5)
    assert after.nonzero().tolist() == [3 * 36 // 2] * 4
    removed = (after.recurrent() == 0) & (before.recurrent() != 0)
    for n in range(4):
        assert (
            before.recurrent()[n][removed[n]].abs().max()
            <= after.recurrent()[n][after.recurrent()[n] != 0].abs().min()
        )


def test_an_ensemble_plays_as_its_models_do(trained):
    scores = play(trained.ensemble, trained.task)
    for n in (0, 3):
        alone = closed_loop_return(trained.model(n), trained.task, episodes=32).score
        assert float(scores[n]) == pytest.approx(float(alone), abs=1e-6)


@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_states_and_gates_are_those_of_the_model(cell):
    data = hl.data.cartpole(episodes=20, length=12)
    result = train(data, recipes.none(), cell=cell, hidden=6, steps=5, batch=4, lr=0.3)
    found = look_at_states(result)
    core = result.model(0).core
    inputs = data.test.inputs[:64]
    state, gates, shown = None, [], []
    h = torch.zeros(len(inputs), 6)
    for x in inputs.unbind(1):
        if cell != "tanh":  # r, z, n of a GRU; i, f, g, o of an LSTM
            part = slice(6, 12)
            z = x @ core.weight_ih_l0[part].T + core.bias_ih_l0[part]
            gates.append(torch.sigmoid(z + h @ core.weight_hh_l0[part].T + core.bias_hh_l0[part]))
        out, state = core(x[:, None], state)
        h = out[:, 0]
        shown.append(state[1][0].tanh() if cell == "lstm" else h)
    share = (torch.stack(shown).abs() > 0.9).float().mean()
    assert float(found["saturated"][0]) == pytest.approx(float(share), abs=1e-6)
    if cell == "tanh":
        assert "gate" not in found
    else:
        assert float(found["gate"][0]) == pytest.approx(float(torch.stack(gates).mean().detach()), abs=1e-5)


def test_the_flow_is_measured_for_followed_seeds_only(trained):
    frame = measure(trained, followed=(1,))
    assert frame.loc[frame["seed"] == 0, "explained"].isna().all()
    assert frame.loc[frame["seed"] == 1, "explained"].notna().all()
    found = flow_measures(trained, 1)
    split = trained.task.test
    maps = hl.hop_maps(
        trained.model(1), inputs=split.inputs[:FLOW_SEQUENCES], lengths=split.lengths[:FLOW_SEQUENCES]
    )
    agreed = hl.analysis.agreement(trained.pathways[1], maps)
    assert (found["explained"], found["correlation"]) == pytest.approx((agreed.explained, agreed.correlation))
    mass = maps.values.abs().sum(dim=(1, 2)).double()
    reach = (mass * torch.arange(len(mass))).sum() / mass.sum()
    assert found["flow_reach"] == pytest.approx(float(reach), rel=1e-5)
    for name in ("test_error", "test_error_90", "test_error_int8", "score", "active_hops"):
        assert np.isfinite(frame[name]).all()
