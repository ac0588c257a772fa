"""Fidelity: what is said follows the numbers, samples pooled; gain and pattern are told apart."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from size import few
from torch import nn

import hoplens as hl
from hoplens.reports import render_network_report

F64 = torch.float64


def network(seed: int = 0) -> hl.Pathways:
    g = torch.Generator().manual_seed(seed)
    blocks = (0.4 * torch.randn(s, generator=g, dtype=F64) for s in ((5, 2), (5, 5), (3, 5)))
    return hl.Pathways(*blocks)


def flowing(values: torch.Tensor) -> hl.TrajectoryMaps:
    """Trajectory maps (B, L, O, I), given by lag."""
    return hl.TrajectoryMaps(values.flip(1), torch.full((len(values),), values.shape[1]), "test")


def predicted(net: hl.Pathways, steps: int = 4) -> torch.Tensor:
    return hl.hop_maps(net, steps).values


@settings(max_examples=few(30), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    gains=st.lists(st.sampled_from([0.0, 1e-6, 0.01, 0.3, 1.0, 4.0, -1.0]), min_size=1, max_size=5),
    noise=st.sampled_from([0.0, 0.1, 3.0]),
)
def test_numbers_follow_their_definitions(seed, gains, noise):
    g = torch.Generator().manual_seed(seed)
    net = network(seed)
    guess = predicted(net)
    exact = torch.tensor(gains, dtype=F64)[:, None, None, None] * guess
    exact = exact + noise * (exact != 0) * guess.std() * torch.randn(exact.shape, generator=g, dtype=F64)
    fit = hl.fidelity(net, flowing(exact))
    e, p = exact.flatten(1).numpy(), guess.flatten().numpy()
    for n, row in enumerate(e):
        if not row.any():
            of_sample = (fit.relative_error[n], fit.explained[n], fit.gain[n], fit.pattern[n])
            assert all(math.isnan(float(x)) for x in of_sample)
            continue
        best = max(0.0, float(row @ p / (p @ p)))
        assert float(fit.gain[n]) == pytest.approx(best, rel=1e-9, abs=1e-12)
        assert float(fit.explained[n]) == pytest.approx(1 - ((row - p) ** 2).sum() / (row @ row), rel=1e-9)
        share = 1 - ((row - best * p) ** 2).sum() / (row @ row)
        assert float(fit.pattern[n]) == pytest.approx(share, rel=1e-9, abs=1e-9)
        assert 0 <= float(fit.pattern[n]) <= 1
        assert float(fit.explained[n]) <= float(fit.pattern[n])
    if not e.any():
        assert math.isnan(fit.pooled_explained)
        assert fit.verdict() == "nothing flows"
        assert "nothing flows" in fit.summary()
        return
    assert fit.pooled_explained == pytest.approx(1 - ((e - p) ** 2).sum() / (e**2).sum(), rel=1e-9)
    shares = fit.explained[~fit.explained.isnan()].numpy()
    assert fit.median_explained == np.sort(shares)[(len(shares) - 1) // 2]
    assert not any(math.isinf(float(x)) for x in fit.to_dataframe().to_numpy().ravel())
    if fit.verdict() == "both":
        assert min(fit.pooled_explained, fit.median_explained) >= 0.9


def test_a_few_saturated_samples_do_not_decide():
    guess = predicted(network())
    exact = torch.stack([guess] * 9 + [0.01 * guess])
    fit = hl.fidelity(network(), flowing(exact))
    assert float(fit.explained.mean()) < -900  # what a mean of ratios says
    assert fit.pooled_explained > 0.89
    assert fit.median_explained == 1
    assert fit.verdict() in ("both", "partly")
    assert "explain none" not in fit.summary()


def test_a_right_pattern_of_another_size_is_not_none():
    guess = predicted(network())
    fit = hl.fidelity(network(), flowing(torch.stack([0.3 * guess] * 3)))
    assert fit.pooled_explained < 0
    assert fit.pooled_gain == pytest.approx(0.3)
    assert fit.pooled_pattern == pytest.approx(1)
    assert fit.verdict() == "pattern"
    assert "pattern of the flow, not its size" in fit.summary()
    assert "times 0.3" in fit.summary()
    wrong = hl.fidelity(network(), flowing(torch.stack([-guess] * 3)))
    assert (wrong.verdict(), wrong.pooled_pattern) == ("neither", 0.0)


def test_nothing_flows_is_said_by_text_and_page():
    rnn, head = torch.nn.RNN(2, 4, nonlinearity="relu", batch_first=True), torch.nn.Linear(4, 1)
    with torch.no_grad():
        rnn.bias_ih_l0.fill_(-100)
    found = hl.analyze(rnn, head, inputs=torch.randn(3, 5, 2))
    assert "nothing flows on these inputs" in found.to_text()
    page = render_network_report(found)
    assert "nothing flows" in page
    assert "nan" not in page.split("<script")[0].lower()


def agreeing():
    rnn, x = nn.RNN(3, 5, batch_first=True).double(), torch.randn(6, 7, 3, dtype=torch.float64)
    return rnn, hl.hop_maps(rnn, inputs=x), hl.read(rnn, inputs=x, at="steps"), x


def test_agreement_compares_the_lags_that_the_maps_have():
    _, exact, net, _ = agreeing()
    mine = hl.hop_maps(net.detach()).values[[3, 5]]
    found = hl.analysis.agreement(net, exact.sel(lag=[3, 5]))
    share = 1 - float((mine - exact.values[[3, 5]]).norm() / exact.values[[3, 5]].norm()) ** 2
    assert found.explained == pytest.approx(share)


def test_agreement_refuses_maps_of_other_sizes_and_takes_models():
    rnn, exact, net, x = agreeing()
    assert hl.analysis.agreement(rnn, exact) == hl.analysis.agreement(hl.read(rnn), exact)
    groups = hl.hop_maps(rnn, inputs=x, groups=[0, 1] * 3)
    for graph, maps in ((net, groups), (net, exact.sel(output=[0])), (net[1:], exact)):
        with pytest.raises(hl.errors.ShapeError, match="agreement compares one network"):
            hl.analysis.agreement(graph, maps)
    assert hl.analysis.agreement(net, groups[0]).correlation > 0.5


def test_agreement_of_large_networks_is_that_of_some_samples_and_outputs(monkeypatch):
    rnn, exact, net, x = agreeing()
    module = importlib.import_module("hoplens.analysis.fidelity")  # a function has its name
    monkeypatch.setattr(module, "PRODUCTS", 7 * 5 * 8 * 2 * module.FEW)  # two outputs of 16 samples
    found = hl.read(rnn, inputs=x, at="steps").agreement
    wanted = hl.analysis.agreement(
        hl.Pathways(net.w_in, net.w_rec, net.w_out[:, [0, 3]], steps=True), exact.sel(output=[0, 3])
    )
    assert found == pytest.approx(wanted)
