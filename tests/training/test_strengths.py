"""Strengths that are chosen by short trainings on validation data."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import hoplens as hl
from hoplens.training.recipes import BUILT_IN, FLOWS, WEIGHTS, default_strengths
from hoplens.training.settings import Network, Settings
from hoplens.training.strengths import search_strengths
from hoplens.training.training import train_networks

QUICK = {"hidden": 6, "steps": 24, "batch": 8}


def task():
    return hl.tasks.make("averaging", modules=2, module_size=2, length=4)


def test_every_recipe_has_strengths_to_try():
    for make in BUILT_IN.values():
        recipe = make()
        assert (default_strengths(recipe) == (0.0,)) == (not recipe.has_strength)
    assert default_strengths(hl.recipes.l1()) == WEIGHTS
    assert default_strengths(hl.recipes.recommended(sparse=0.5)) == FLOWS
    assert max(default_strengths(hl.recipes.dropout())) < 1


@pytest.mark.parametrize("source", ["task", "vowels"])
def test_the_chosen_strength_is_trained_in_full_as_if_it_had_been_given(source):
    source = task() if source == "task" else hl.data.load(source)
    found = hl.train(source, ["flow", "l1", "none"], seeds=3, strengths="auto", **QUICK)
    assert found.metrics["method"].tolist() == ["flow"] * 3 + ["L1"] * 3 + ["none"] * 3
    strength = found.metrics["strength"].iloc[0]
    alone = hl.train(source, "flow", seeds=3, strengths=strength, **QUICK)
    torch.testing.assert_close(found.ensemble.weight[:3], alone.ensemble.weight, rtol=1e-4, atol=1e-5)
    tried = found.search
    assert set(tried["seed"]) == {0, 1}  # at most two
    assert tried.groupby("method")["strength"].nunique().to_dict() == {"L1": 8, "flow": 8}
    measure = tried.columns[-1]
    means = tried[tried["method"] == "flow"].groupby("strength")[measure].mean()
    limit = means.min() * (1.05 if measure == "validation_loss" else 1.0)
    assert strength == max(means[means <= limit].index)


def test_trials_are_short_trainings_of_their_own():
    settings = Settings(hidden=4, steps=40, batch=4)
    asked = []

    def train(networks, short):
        asked.append((networks, short))
        return train_networks(task(), networks, short)

    recipe = hl.recipes.l2()
    chosen, table = search_strengths(task(), [recipe], [7], settings, train)
    ((networks, short),) = asked
    assert short == replace(settings, steps=10)  # the learning rate falls to 0 within them
    assert networks == [Network(recipe, strength, 7) for strength in WEIGHTS]
    assert chosen[recipe] in WEIGHTS
    assert len(table) == 8


def test_a_strength_that_ruins_a_network_is_not_chosen(monkeypatch):
    monkeypatch.setattr("hoplens.training.strengths.default_strengths", lambda recipe: (1e30, 1e-3))
    found = hl.train(task(), "l2", strengths="auto", hidden=4, steps=8, batch=4, clip=1e30)
    assert found.metrics["strength"].tolist() == [1e-3]


def test_what_auto_cannot_do_is_said():
    with pytest.raises(hl.errors.ParameterError, match="numbers or \"auto\", got 'best'"):
        hl.train(task(), "l1", strengths="best", **QUICK)
    with pytest.raises(hl.errors.ParameterError, match="one mask= and w_rec= for all"):
        hl.train(task(), "l1", strengths="auto", mask=torch.ones(1, 6, 6), **QUICK)
    found = hl.train(task(), "none", strengths="auto", **QUICK)
    assert found.search is None


def test_where_every_strength_ruins_the_networks_the_weakest_is_chosen():
    def train(networks, short):
        result = train_networks(task(), networks, short)
        result.metrics["diverged_at"] = 0
        return result

    recipe = hl.recipes.l2()
    chosen, _ = search_strengths(task(), [recipe], [0], Settings(hidden=4, steps=8, batch=4), train)
    assert chosen[recipe] == min(WEIGHTS)
