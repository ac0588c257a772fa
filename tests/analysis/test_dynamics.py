"""Dynamics against SciPy and python-control, and the link to hop maps and the resolvent."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

import hoplens as hl
from hoplens.errors import ParameterError, ShapeError, UnstableError, UnsupportedModelError

F64 = torch.float64


def stable(seed: int = 0, hidden: int = 6, radius: float = 0.8, skip: bool = False) -> hl.Pathways:
    g = torch.Generator().manual_seed(seed)
    w_in, w_out = (torch.randn(*s, generator=g, dtype=F64) for s in ((hidden, 2), (3, hidden)))
    w = torch.randn(hidden, hidden, generator=g, dtype=F64)
    w = w * radius / torch.linalg.eigvals(w).abs().max()
    return hl.Pathways(w_in, w, w_out, torch.randn(3, 2, generator=g, dtype=F64) if skip else None)


def stack_net() -> hl.Pathways:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return hl.read(nn.GRU(2, 3, 2).double(), nn.Linear(3, 2).double()).detach()


def as_control(net: hl.Pathways):
    control = pytest.importorskip("control")
    a, b, c, d = (m.numpy() for m in hl.dynamics.state_space(net))
    return control, control.ss(a, b, c @ a, c @ b + d, True)


@pytest.mark.parametrize("net", [stable(), stable(1, skip=True), stack_net()], ids=["plain", "skip", "stack"])
def test_transfer_function(net: hl.Pathways) -> None:
    f = torch.tensor([0.0, 0.1, 0.33, 0.5], dtype=F64)
    got = hl.dynamics.transfer_function(net, f)
    _, system = as_control(net)
    for value, frequency in zip(got, f.tolist(), strict=True):
        wanted = system(np.exp(2j * np.pi * frequency), squeeze=False)
        np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-8, atol=1e-10)
    # the generating function of the lag maps
    lags = hl.lag_maps(net, 400)
    z = torch.polar(torch.ones_like(f), 2 * torch.pi * f)
    summed = torch.einsum("nf,noi->foi", z[None] ** -lags.lags[:, None], lags.values.to(torch.complex128))
    torch.testing.assert_close(got, summed, rtol=1e-9, atol=1e-10)


def test_the_resolvent_is_the_transfer_function_at_one_over_damping() -> None:
    net = stable(2, skip=True)
    r = hl.resolvent(net, damping=0.7, normalise=False).value
    t = hl.dynamics.transfer_function(net, torch.zeros(1), radius=1 / 0.7)[0].real
    torch.testing.assert_close(0.7**2 * (t - net.w_skip) + 0.7 * net.w_skip, r, rtol=1e-10, atol=1e-12)
    with pytest.raises(ParameterError, match="eigenvalue"):
        hl.dynamics.transfer_function(hl.Pathways([[1.0]], [[1.0]], [[1.0]]), torch.zeros(1))


@pytest.mark.parametrize("net", [stable(), stack_net()], ids=["plain", "stack"])
def test_gramians_and_hankel_values(net: hl.Pathways) -> None:
    a, b, c, _ = (m.numpy() for m in hl.dynamics.state_space(net))
    control, system = as_control(net)
    reach, show = (
        hl.dynamics.controllability_gramian(net).numpy(),
        hl.dynamics.observability_gramian(net).numpy(),
    )
    np.testing.assert_allclose(reach, scipy.linalg.solve_discrete_lyapunov(a, b @ b.T), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        show, scipy.linalg.solve_discrete_lyapunov(a.T, c.T @ c), rtol=1e-8, atol=1e-10
    )
    np.testing.assert_allclose(
        hl.dynamics.controllability_gramian(net, 800).numpy(), reach, rtol=1e-8, atol=1e-10
    )
    short = sum(np.linalg.matrix_power(a, n) @ b @ b.T @ np.linalg.matrix_power(a.T, n) for n in range(3))
    np.testing.assert_allclose(
        hl.dynamics.controllability_gramian(net, 3).numpy(), short, rtol=1e-12, atol=1e-12
    )
    hankel = hl.dynamics.hankel_singular_values(net).numpy()
    wanted = np.sort(np.sqrt(np.abs(np.linalg.eigvals(reach @ show))))[::-1]
    np.testing.assert_allclose(hankel, wanted, rtol=1e-8, atol=1e-8 * wanted[0])
    # the Hankel matrix of the lag maps themselves
    maps = hl.lag_maps(net, 400).values.numpy()
    matrix = np.block([[maps[r + s] for s in range(180)] for r in range(180)])
    values = np.linalg.svd(matrix, compute_uv=False)[: len(hankel)]
    np.testing.assert_allclose(hankel, values, rtol=1e-7, atol=1e-8 * values[0])
    # python-control's system is read one step later (y = c a x), so its observability lacks the first term
    later = control.ss(a, b, c, np.zeros((len(c), b.shape[1])), True)
    np.testing.assert_allclose(control.dlyap(a, b @ b.T), reach, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        np.abs(later(np.exp(0.3j), squeeze=False)), np.abs(system(np.exp(0.3j), squeeze=False)), rtol=1e-8
    )


def test_unstable_and_bidirectional_networks_are_refused() -> None:
    with pytest.raises(UnstableError, match="give a horizon"):
        hl.dynamics.controllability_gramian(stable(radius=1.1))
    assert torch.isfinite(hl.dynamics.controllability_gramian(stable(radius=1.1), 5)).all()
    with pytest.raises(UnsupportedModelError, match="direction"):
        hl.dynamics.state_space(hl.read(nn.RNN(2, 3, bidirectional=True)))
    batch = hl.Pathways(*(torch.stack([b, 0.5 * b]) for b in (stable().w_in, stable().w_rec, stable().w_out)))
    torch.testing.assert_close(
        hl.dynamics.hankel_singular_values(batch)[0], hl.dynamics.hankel_singular_values(stable())
    )


def test_memory_of_a_delay_line_and_the_rank_law() -> None:
    line = hl.Pathways(torch.eye(5)[:, :1], torch.diag(torch.ones(4), -1), torch.eye(5))
    torch.testing.assert_close(
        hl.dynamics.memory_function(line, 7)[:, 0], torch.tensor([1.0] * 5 + [0.0] * 2, dtype=F64)
    )
    assert abs(float(hl.dynamics.memory_capacity(stable(3), 400).sum()) - 6) < 1e-6
    net = stable(4, radius=0.6)
    noisy = hl.dynamics.memory_function(net, 30, noise=0.1)
    # brute force: regress each past input on the noisy state of a long history
    a, b = net.w_rec.numpy(), net.w_in.numpy()
    cov = hl.dynamics.controllability_gramian(net).numpy() + 0.1 * np.eye(6)
    cross = np.linalg.matrix_power(a, 4) @ b[:, 1]
    np.testing.assert_allclose(float(noisy[4, 1]), cross @ np.linalg.solve(cov, cross), rtol=1e-10)


def test_spectrum_pseudospectrum_and_growth() -> None:
    net = stable(5)
    values = hl.dynamics.spectrum(net)
    assert abs(float(values[0].abs()) - 0.8) < 1e-9
    result = hl.dynamics.pseudospectrum(net, points=7, extent=1.0)
    z = complex(result.real[2], result.imag[5])
    wanted = np.linalg.svd(z * np.eye(6) - net.w_rec.numpy(), compute_uv=False)[-1]
    np.testing.assert_allclose(float(result.values[5, 2]), wanted, rtol=1e-9)
    result.plot().figure.canvas.draw()
    growth = hl.dynamics.transient_growth(net, 4)
    np.testing.assert_allclose(
        float(growth[3]), np.linalg.norm(np.linalg.matrix_power(net.w_rec, 3), 2), rtol=1e-10
    )
    line = hl.Pathways(torch.eye(5), torch.diag(torch.ones(4), -1), torch.eye(5))
    rotation = hl.Pathways(torch.eye(5), torch.roll(torch.eye(5), 1, 0), torch.eye(5))
    assert abs(float(hl.dynamics.henrici_departure(line)) - 1) < 1e-9
    assert float(hl.dynamics.henrici_departure(rotation)) < 1e-6
    with pytest.raises(ShapeError, match="one network"):
        hl.dynamics.pseudospectrum(hl.Pathways(*(torch.ones(2, 3, 3) for _ in range(3))))


def test_fixed_points_of_a_bistable_unit_are_all_found() -> None:
    cell = hl.models.RnnCell(torch.zeros(1, 1, dtype=F64), torch.tensor([[2.0]], dtype=F64))
    points = hl.dynamics.fixed_points(cell, n=30, seed=1)
    wanted = 0.9575040240772687  # tanh(2 h) = h
    np.testing.assert_allclose(sorted(points.states[:, 0].tolist()), [-wanted, 0.0, wanted], atol=1e-8)
    assert float(points.residual.max()) < 1e-9
    by_state = dict(zip(points.states[:, 0].round(decimals=3).tolist(), points.stable.tolist(), strict=True))
    assert sorted(by_state.values()) == [False, True, True]
    assert int(points.starts.sum()) + points.failed == 30
    assert list(points.to_dataframe().columns) == ["residual", "spectral_radius", "stable", "starts"]


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_fixed_points_of_stacks_stay_under_torch_and_have_the_right_eigenvalues(kind: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        module = getattr(nn, kind)(2, 3, 2).double()
    x = torch.tensor([0.5, -1.0], dtype=F64)
    points = hl.dynamics.fixed_points(module, inputs=x, n=4)
    assert len(points.states) >= 1
    parts = points.states[0].reshape(2, 1, -1)
    state = (parts[..., :3].contiguous(), parts[..., 3:].contiguous()) if kind == "LSTM" else parts

    def step(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.reshape(2, 1, -1)
        given = (parts[..., :3].contiguous(), parts[..., 3:].contiguous()) if kind == "LSTM" else parts
        new = module(x[None, None], given)[1]
        return (torch.cat(new, -1) if kind == "LSTM" else new).reshape(-1)

    new = module(x[None, None], state)[1]
    new = torch.cat(new, dim=-1) if kind == "LSTM" else new
    torch.testing.assert_close(new.reshape(-1), points.states[0], rtol=0, atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(step, points.states[0])
    got, wanted = points.spectral_radius[0], torch.linalg.eigvals(jacobian).abs().max()
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-10)
