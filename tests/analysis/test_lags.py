"""Lags against hops: stacks, and bidirectional networks against autograd."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn

import hoplens as hl
import hoplens.analysis.lags
from hoplens.errors import ShapeError, UnsupportedModelError

F64 = torch.float64


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_worked_example() -> None:
    assert doctest.testmod(hoplens.analysis.lags).failed == 0


def linear_cell(hidden: int, inputs: int, seed: int, nilpotent: int = 0) -> hl.models.RnnCell:
    w_hh = random(hidden, hidden, seed=seed)
    if nilpotent:
        w_hh = w_hh.tril(-1)
    return hl.models.RnnCell(random(hidden, inputs, seed=seed + 50), w_hh, nonlinearity="linear")


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_stack_has_one_lag_a_hop(depth: int) -> None:
    cells = [linear_cell(4, 3 if level == 0 else 4, level) for level in range(depth)]
    stack = hl.Stack(tuple((c,) for c in cells), random(2, 4, seed=9), "linear")
    net = hl.read(stack)
    maps, lags = hl.hop_maps(net, 5), hl.lag_maps(net, 5)
    assert maps.hops.tolist() == list(range(depth + 1, depth + 6))
    assert maps.lags.tolist() == lags.lags.tolist() == [0, 1, 2, 3, 4]
    exact = hl.trajectory_maps(stack, torch.zeros(1, 5, 3, dtype=F64)).by_lag()[0]
    torch.testing.assert_close(lags.values, exact, rtol=1e-11, atol=1e-12)
    # powers of the whole adjacency matrix count edges, whatever time they take
    power = torch.linalg.matrix_power(net.adjacency(), depth + 3)
    torch.testing.assert_close(maps.values[2], power[:3, -2:].mT, rtol=1e-11, atol=1e-12)
    assert maps.to_dataframe()["lag"].unique().tolist() == [0, 1, 2, 3, 4]


def test_direct_edges_take_no_time() -> None:
    net = hl.Pathways(random(3, 2, seed=0), random(3, 3, seed=1), random(2, 3, seed=2), random(2, 2, seed=3))
    maps, lags = hl.hop_maps(net, 4), hl.lag_maps(net, 4)
    torch.testing.assert_close(lags.values[0], maps.values[0] + maps.values[1])
    torch.testing.assert_close(lags.values.sum(0), maps.values.sum(0))


@pytest.mark.parametrize("depth", [1, 2])
def test_bidirectional_lags_against_autograd(depth: int) -> None:
    hidden = 3  # nilpotent recurrences: walks end by themselves, so a finite horizon is exact
    levels = tuple(
        (
            linear_cell(hidden, 2 if n == 0 else 6, 2 * n, 1),
            linear_cell(hidden, 2 if n == 0 else 6, 2 * n + 1, 1),
        )
        for n in range(depth)
    )
    stack = hl.Stack(levels, random(2, 6, seed=20), "linear")
    net = hl.read(stack)
    horizon = 2 * depth * hidden
    lags = hl.lag_maps(net, horizon)
    torch.testing.assert_close(lags.values.sum(0), hl.hop_maps(net, horizon).values.sum(0))
    module = nn.RNN(2, hidden, depth, bias=False, batch_first=True, bidirectional=True).double()
    flat = [w for level in levels for cell in level for w in (cell.w_ih, cell.w_hh)]
    with torch.no_grad():
        for parameter, weight in zip(module.parameters(), flat, strict=True):
            parameter.copy_(weight)
    # tanh at zero is the identity, so the module's Jacobian at zero input is the linear network's
    steps, middle = 2 * horizon + 1, horizon
    jacobian = torch.autograd.functional.jacobian(
        lambda x: module(x[None])[0][0, middle] @ stack.w_out.mT, torch.zeros(steps, 2, dtype=F64)
    )  # (O, L, I)
    for lag, value in zip(lags.lags.tolist(), lags.values, strict=True):
        torch.testing.assert_close(value, jacobian[:, middle - lag], rtol=1e-11, atol=1e-12)


def test_misfit_layers_are_refused() -> None:
    layers = [hl.graph.Layer("a", 0, 1, 0), hl.graph.Layer("b", 1, 2, 1)]
    feedback = hl.Pathways([[1.0], [0.0]], [[0.5, 1.0], [1.0, 0.5]], [[0.0, 1.0]], layers=layers)
    with pytest.raises(UnsupportedModelError, match="level to the next"):
        hl.lag_maps(feedback, 3)
    with pytest.raises(ShapeError, match="without gap"):
        hl.Pathways([[1.0], [0.0]], [[0.5, 1.0], [1.0, 0.5]], [[0.0, 1.0]], layers=layers[:1])


@pytest.mark.parametrize("sizes", [(2, 3), (3, 2)])
def test_maps_with_and_without_gradients_are_the_same(sizes: tuple[int, int]) -> None:
    """Without gradients the products are streamed; with them the rows are kept for the backward pass."""
    inputs, outputs = sizes
    blocks = random(4, 5, inputs, seed=0), random(4, 5, 5, seed=1), random(4, outputs, 5, seed=2)
    streamed = hl.hop_maps(hl.Pathways(*blocks), 6).values
    kept = hl.hop_maps(hl.Pathways(*(b.clone().requires_grad_() for b in blocks)), 6).values
    assert kept.requires_grad
    torch.testing.assert_close(streamed, kept.detach(), rtol=1e-13, atol=1e-13)
    wanted = blocks[2] @ torch.linalg.matrix_power(blocks[1], 5) @ blocks[0]
    torch.testing.assert_close(streamed[:, 5], wanted, rtol=1e-11, atol=1e-11)


def test_layers_by_hand_equal_those_of_the_reader() -> None:
    layers = [hl.graph.Layer("l0", 0, 2, 0), hl.graph.Layer("l1", 2, 4, 1)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = hl.read(nn.RNN(3, 2, 2).double()).detach()
    assert list(net.layers) == layers
    assert net.hidden_names == ("l0.h0", "l0.h1", "l1.h0", "l1.h1")
    assert net.hidden_modules == ("l0", "l0", "l1", "l1")
