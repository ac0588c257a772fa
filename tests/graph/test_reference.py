"""The literal equations: right on networks that can be worked out by hand, and what the fast ones compute."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from size import few
from twins import assert_near, networks

import hoplens as hl
from hoplens.graph import reference

F64 = torch.float64


def chain() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Input to unit 0 with 3, on to unit 1 with 2, to the output with 5; unit 1 to itself with 0.5."""
    w_in = torch.tensor([[3.0], [0.0]], dtype=F64)
    w_rec = torch.tensor([[0.0, 0.0], [2.0, 0.5]], dtype=F64)
    w_out = torch.tensor([[0.0, 5.0]], dtype=F64)
    return w_in, w_rec, w_out


def test_a_chain_worked_out_by_hand() -> None:
    w = reference.adjacency(*chain())
    assert w.tolist() == [[0, 0, 0, 0], [3, 0, 0, 0], [0, 2, 0.5, 0], [0, 0, 5, 0]]
    # input -> 0 -> output: no edge; input -> 0 -> 1 -> output: 3 * 2 * 5; once around the loop: half of it
    assert reference.hop_maps(w, 1, 1, 3).flatten().tolist() == [0.0, 30.0, 15.0]
    assert [float(reference.hop_map(*chain(), k)) for k in (2, 3, 4)] == [0.0, 30.0, 15.0]
    assert float(reference.spectral_radius(w)) == pytest.approx(0.5, rel=1e-12)
    assert float(reference.truncated_resolvent(w, 1, 1, 0.5, 3)) == pytest.approx(30 / 8 + 15 / 16)
    # all walks: 30 a^3 (1 + a/2 + a^2/4 + ...) = 30 a^3 / (1 - a/2)
    whole = reference.ends(reference.resolvent(w, 0.5), 1, 1)
    assert float(whole) == pytest.approx(30 / 8 / 0.75, rel=1e-12)
    assert float(reference.penalty_of_the_sum(w, 1, 1, 0.5, 3)) == pytest.approx(30 / 8 + 15 / 16)
    assert float(reference.penalty_of_each_hop(-w, 1, 1, 0.5, 3)) == pytest.approx(30 / 8 + 15 / 16)
    maps = reference.hop_maps(w, 1, 1, 4)
    assert reference.active_hops(maps, 0.3).tolist() == [[2]]
    assert float(reference.alignment(maps, 2 * maps + 1)) == pytest.approx(1.0)


@settings(max_examples=few(25))
@given(networks(batches=((),), skips=(False,), least_radius=0.1, most_radius=1.2), st.integers(1, 6))
def test_the_fast_functions_compute_these_equations(net: hl.Pathways, horizon: int) -> None:
    w = reference.adjacency(net.w_in, net.w_rec, net.w_out)
    sizes = net.n_inputs, net.n_outputs
    maps = hl.hop_maps(net, horizon)
    literal = reference.hop_maps(w, *sizes, horizon)
    assert_near(maps.values, literal)
    for hops in range(2, horizon + 2):
        assert_near(reference.hop_map(net.w_in, net.w_rec, net.w_out, hops), literal[hops - 2])
    for across, equation in (("sum", reference.penalty_of_the_sum), ("hops", reference.penalty_of_each_hop)):
        assert_near(hl.PathwayPenalty(horizon, 0.9, across=across)(net), equation(w, *sizes, 0.9, horizon))
    assert_near(
        hl.resolvent(net, damping=0.8, horizon=horizon, normalise=False).value,
        reference.truncated_resolvent(w, *sizes, 0.8, horizon),
    )
    assert torch.equal(hl.active_hops(literal, 0.1), reference.active_hops(literal, 0.1))
    other = literal.flip(0) + 0.1
    if float(literal.std(correction=0)) > 1e-6 * float(literal.abs().max()) > 0:
        assert_near(hl.alignment(literal, other), reference.alignment(literal, other), 1e-9)


@settings(max_examples=few(25))
@given(networks(batches=((),), skips=(False,), least_radius=0.3, most_radius=1.2))
def test_the_full_resolvent_is_that_of_the_normalised_graph(net: hl.Pathways) -> None:
    w = reference.adjacency(net.w_in, net.w_rec, net.w_out)
    if float(reference.spectral_radius(w)) < 0.2:  # drawn without a cycle
        return
    wanted = reference.ends(reference.resolvent(reference.normalised(w), 0.8), net.n_inputs, net.n_outputs)
    assert_near(hl.resolvent(net, damping=0.8).value, wanted, 1e-9)
