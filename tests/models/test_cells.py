"""Cells: one set of equations for all that is done with them, and what is written by hand beside it."""

from __future__ import annotations

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import assert_near

import hoplens as hl
from hoplens.models.cells import CORES, CellModule, WeightCell, kernels, make_cell, registry
from hoplens.models.cells.lru import LRU, scan
from hoplens.models.readers.modules import read_core

I, H = 3, 4  # noqa: E741
NAMES = tuple(registry.MAKERS)
each = pytest.mark.parametrize("name", NAMES)
FUSED = [name for name in NAMES if type(make_cell(name)).forward is not kernels.Kernel.forward]


def draw(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def perturbed(module):
    """Return a module with no weight at the value it starts from."""
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel())))
    return module


def reader_cell(name: str) -> WeightCell:
    """Return the cell of a module of random weights, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = make_cell(name, 0.4).module
        core = perturbed(module(I, H, 0.4) if module is hl.LeakyRNN else module(I, H))
    (cell,) = read_core(core).cells
    return cell.to(torch.float64)


@each
def test_products_by_the_jacobian_are_those_of_autograd(name):
    cell = reader_cell(name)
    state, x = draw(2, cell.n_state), draw(2, I, seed=2)
    by_state, by_x = cell.pull(
        cell.save(state, x), torch.eye(cell.n_state, dtype=state.dtype).expand(2, -1, -1)
    )
    for n in range(2):
        wanted = torch.autograd.functional.jacobian(cell.step, (state[n], x[n]))
        assert_near(by_state[n], wanted[0])
        assert_near(by_x[n], wanted[1])


@each
@given(seed=st.integers(0, 10**6), far=st.sampled_from([1e-9, 0.1, 30.0]))
@settings(max_examples=15, deadline=None)
def test_a_secant_leaves_no_remainder(name, seed, far):
    cell = reader_cell(name)
    a, b = (draw(cell.n_state + I, seed=seed + n) for n in (0, 1))
    b = a + far * b
    ends = [(part[: cell.n_state], part[cell.n_state :]) for part in (a, b)]
    rows = [cell.rows(*end) for end in ends]
    parts = [end[0].split(cell.sizes) for end in ends]
    secant = cell.linear_map(list(zip(*rows, strict=True)), list(zip(*parts, strict=True)))
    by_state, by_x = cell.pull(secant, torch.eye(cell.n_state, dtype=a.dtype))
    moved = by_state @ (ends[1][0] - ends[0][0]) + by_x @ (ends[1][1] - ends[0][1])
    assert_near(moved, cell.step(*ends[1]) - cell.step(*ends[0]), 1e-11 * max(1.0, far))


@pytest.mark.parametrize("name", FUSED)
def test_the_step_written_by_hand_is_that_of_the_equations(name):
    kernel, e, b = make_cell(name, 0.4), 2, 3
    z, h = draw(e, kernel.blocks * H, b), draw(e, H, b, seed=2)
    memory = [draw(e, H, b, seed=3)] * kernel.memories
    for part in (z, h, *memory):
        part.requires_grad_()
    shown, after = kernel.step(z, h, memory[0] if memory else None)
    slope, slope_c = draw(e, H, b, seed=4), draw(e, H, b, seed=5)
    total = (shown * slope).sum() + (0 if after is None else (after * slope_c).sum())
    wanted = torch.autograd.grad(total, [z, h, *memory], allow_unused=True)
    with torch.no_grad():
        gates, out, grad, delta = z.clone(), torch.empty_like(h), slope.clone(), torch.empty_like(z)
        new, squashed, grad_c = torch.empty_like(h), torch.empty_like(h), slope_c.clone()
        kernel.forward(gates, h, out, (memory[0], new, squashed) if memory else ())
        kept = kernel.backward(gates, h, grad, delta, (memory[0], squashed, grad_c) if memory else ())
    assert_near(out, shown)
    assert_near(delta, wanted[0])
    if kept or wanted[1] is not None:
        assert_near(grad if kept else torch.zeros_like(grad), wanted[1])
    if memory:
        assert_near(new, after)
        assert_near(grad_c, wanted[2])


@given(seed=st.integers(0, 10**6), steps=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_a_scan_is_the_loop(seed, steps):
    turn = torch.complex(draw(2, 3, 1, seed=seed), draw(2, 3, 1, seed=seed + 1))
    turn = turn / turn.abs() * turn.abs().tanh()
    drive = torch.complex(draw(steps, 2, 3, 4, seed=seed + 2), draw(steps, 2, 3, 4, seed=seed + 3))
    x, states = torch.zeros_like(drive[0]), []
    for v in drive:
        x = turn * x + v
        states.append(x)
    assert float((scan(turn, drive) - torch.stack(states)).abs().max()) < 1e-12


def test_the_gradient_of_a_scan_is_that_of_autograd():
    turn = torch.complex(draw(2, 1), draw(2, 1, seed=2)).mul(0.5).requires_grad_()
    drive = torch.complex(draw(6, 2, 3, seed=3), draw(6, 2, 3, seed=4)).requires_grad_()
    assert torch.autograd.gradcheck(scan, (turn, drive))
    assert torch.autograd.gradgradcheck(scan, (turn, drive))


def test_a_linear_recurrent_unit_follows_its_equations():
    unit, u = perturbed(LRU(I, H)).double(), draw(2, 17, I)
    y, last = unit(u)
    turn = torch.exp(torch.complex(-unit.nu.exp(), unit.theta.exp()))
    assert bool((turn.abs() < 1).all())
    gamma = (1 - turn.abs() ** 2).sqrt()
    b, c = torch.complex(unit.b_re, unit.b_im), torch.complex(unit.c_re, unit.c_im)
    x = torch.zeros(2, H, dtype=torch.complex128)
    for t in range(17):
        x = turn * x + gamma * (u[:, t].to(b) @ b.mT)
        wanted = torch.tanh((x @ c.mT).real + u[:, t] @ unit.d.mT + unit.bias_y)
        assert_near(y[:, t], wanted)
    assert_near(last[0], torch.cat([wanted, x.real, x.imag], dim=-1))
    ahead = u.permute(1, 2, 0).unsqueeze(1)
    assert_near(torch.view_as_real(unit.weights().last_state(ahead)[0].mT), torch.view_as_real(x))


@pytest.mark.parametrize("kind", [kind for kind, module in CORES.items() if issubclass(module, CellModule)])
def test_a_module_runs_the_cell_that_is_read_of_it(kind):
    module = CORES[kind]
    core = module(I, H, 0.4) if "leak" in inspect.signature(module).parameters else module(I, H)
    core, x = perturbed(core).double(), draw(2, 9, I)
    cell, shown = core.to_hoplens(), []
    state = x.new_zeros(2, cell.n_state)
    for part in x.unbind(1):
        state = cell.step(state, part)
        shown.append(cell.emit(state))
    got, last = core(x)
    assert_near(got, torch.stack(shown, dim=1))
    assert_near(last[0], state)
