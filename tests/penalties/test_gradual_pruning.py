"""Scores, masks and gradual removal of recurrent weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from twins import assert_near, blocks_of, literal_maps, networks, one_by_one, random_network

import hoplens as hl
from hoplens.graph.scores import saliency, top_mask

# scores


def test_the_magnitude_score_is_the_magnitude():
    net = random_network(batch=(2,), requires_grad=True)
    scores = saliency(net)
    assert torch.equal(scores, net.w_rec.detach().abs())
    assert not scores.requires_grad


@given(networks(skips=(False,)), st.integers(1, 5))
def test_the_pathway_score_is_the_first_order_change_of_the_squared_maps(net, horizon):
    got = saliency(net, "pathway", horizon=horizon)
    assert got.shape == net.w_rec.shape
    assert not got.requires_grad
    for one, scores in zip(one_by_one(net), got.reshape(-1, *got.shape[-2:]), strict=True):
        w_rec = one.w_rec.clone().requires_grad_()
        mass = 0.5 * literal_maps(hl.Pathways(one.w_in, w_rec, one.w_out), horizon).square().sum()
        (slope,) = torch.autograd.grad(mass, w_rec)
        assert_near(scores, (w_rec.detach() * slope).abs(), 1e-11)


@pytest.mark.parametrize("grad", [True, False])
def test_scores_work_without_autograd_and_leave_no_gradient(grad):
    net = random_network(requires_grad=True)
    with torch.set_grad_enabled(grad):
        scores = saliency(net, "pathway", horizon=4)
    assert scores.any()
    assert all(block.grad is None for block in blocks_of(net))


def test_a_weight_that_leads_nowhere_has_no_pathway_score():
    # unit 2 hears the input but reaches no output: only the pathway score knows
    w_rec = torch.tensor([[0.5, 0.0, 0.0], [0.4, 0.0, 0.0], [9.0, 9.0, 9.0]])
    net = hl.Pathways(torch.ones(3, 1), w_rec, torch.tensor([[1.0, 1.0, 0.0]]))
    scores = saliency(net, "pathway", horizon=5)
    assert not scores[2].any()
    assert (scores[:2, 0] > 0).all()
    assert saliency(net)[2].min() > saliency(net)[:2].max()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"by": "pathways", "horizon": 3}, hl.errors.UnknownNameError, "did you mean 'pathway'"),
        ({"by": "pathway"}, hl.errors.ParameterError, "needs horizon="),
        ({"by": "pathway", "horizon": 0}, hl.errors.ParameterError, "horizon"),
    ],
    ids=str,
)
def test_scores_check_their_options(options, error, message):
    with pytest.raises(error, match=message):
        saliency(random_network(), **options)


@pytest.mark.parametrize("by", ["magnitude", "pathway"])
def test_scores_refuse_sparse_matrices(by):
    net = hl.Pathways(np.ones((3, 1)), sp.eye_array(3), np.ones((1, 3)))
    with pytest.raises(hl.errors.ParameterError, match="dense"):
        saliency(net, by, horizon=3)


# masks


@given(st.integers(1, 6), st.sampled_from([(), (3,), (2, 2)]), st.floats(0, 1), st.integers(0, 1000))
def test_exactly_the_lowest_scores_go(hidden, batch, amount, seed):
    source = torch.Generator().manual_seed(seed)
    scores = torch.rand(*batch, hidden, hidden, generator=source, dtype=torch.float64)
    scores = scores * (scores > 0.3)  # ties, at zero
    mask = top_mask(scores, amount)
    assert mask.dtype == torch.bool
    assert mask.shape == scores.shape
    for one, kept in zip(scores.reshape(-1, hidden**2), mask.reshape(-1, hidden**2), strict=True):
        assert int((~kept).sum()) == round(amount * hidden**2)
        if kept.any() and not kept.all():
            assert one[~kept].max() <= one[kept].min()


def test_ties_go_by_position():
    mask = top_mask(torch.ones(2, 2), 0.5)
    assert mask.tolist() == [[False, False], [True, True]]


def test_every_network_can_have_its_own_amount():
    scores = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    amounts = torch.tensor([0.0, 0.25, 1.0])
    mask = top_mask(scores, amounts)
    assert (~mask).sum(dim=(1, 2)).tolist() == [0, 4, 16]
    for n, amount in enumerate(amounts.tolist()):
        assert torch.equal(mask[n], top_mask(scores[n], amount))


@pytest.mark.parametrize("amount", [-0.1, 1.1, math.nan, torch.tensor([0.5, 2.0])])
def test_amounts_are_shares(amount):
    with pytest.raises(hl.errors.ParameterError, match=r"\[0, 1\]"):
        top_mask(torch.rand(2, 3, 3), amount)


# schedule


@given(st.floats(0, 0.99), st.lists(st.floats(-0.5, 1.5), min_size=2, max_size=5).map(sorted))
def test_the_share_follows_the_cubic_schedule(amount, done):
    pruning = hl.GradualPruning(amount, start=0.2, stop=0.6)
    ends = pruning.share(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([0.0, amount * 7 / 8, amount])
    shares = pruning.share(torch.tensor(done, dtype=torch.float64)).tolist()
    assert shares == sorted(shares)  # what is gone stays gone
    assert all(0 <= share <= amount for share in shares)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"amount": 1.0}, hl.errors.ParameterError),
        ({"amount": -0.1}, hl.errors.ParameterError),
        ({"amount": math.nan}, hl.errors.ParameterError),
        ({"amount": 0.5, "start": 0.8, "stop": 0.8}, hl.errors.ParameterError),
        ({"amount": 0.5, "start": -0.1}, hl.errors.ParameterError),
        ({"amount": 0.5, "stop": 1.1}, hl.errors.ParameterError),
        ({"amount": 0.5, "stop": 0.8, "release": 0.7}, hl.errors.ParameterError),
        ({"amount": 0.5, "release": math.nan}, hl.errors.ParameterError),
        ({"amount": 0.5, "tolerance": 0.0}, hl.errors.ParameterError),
        ({"amount": 0.5, "tolerance": math.nan}, hl.errors.ParameterError),
        ({"amount": 0.5, "by": "size"}, hl.errors.UnknownNameError),
    ],
    ids=str,
)
def test_gradual_pruning_checks_its_options(options, error):
    with pytest.raises(error):
        hl.GradualPruning(**options)


@pytest.mark.parametrize("by", ["magnitude", "pathway"])
def test_the_leak_of_a_unit_protects_none_of_its_weights(by):
    """A weight that is 0 scores 0, also where the leak's self-loop lies beside it."""
    task = hl.tasks.make("averaging", modules=2, module_size=2, length=4)
    ensemble = hl.train(task, hl.recipes.none(), hidden=5, steps=3, leak=0.3, dtype=torch.float64).ensemble
    ensemble.recurrent().diagonal(dim1=1, dim2=2).zero_()
    scores = ensemble.scores(by, horizon=4)
    assert torch.equal(scores.diagonal(dim1=1, dim2=2), torch.zeros(1, 5, dtype=torch.float64))
    assert (scores > 0).sum() == 20
    # against finite differences of what the score is defined by, in the weight itself
    if by == "pathway":

        def squared(w):
            moved = ensemble.clone()
            moved.recurrent().copy_(w)
            return 0.5 * hl.hop_maps(moved.pathways(), 4).values.square().sum()

        weight = ensemble.recurrent().clone()
        for i, j in ((0, 1), (3, 2)):
            step = torch.zeros_like(weight)
            step[0, i, j] = 1e-6
            slope = (squared(weight + step) - squared(weight - step)) / 2e-6
            torch.testing.assert_close(
                scores[0, i, j], (slope * weight[0, i, j]).abs(), rtol=1e-6, atol=1e-12
            )
