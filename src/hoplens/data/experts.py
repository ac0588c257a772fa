"""Experts that are computed from the equations: an LQR for the cart, value iteration for the pendulum."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoplens.data.dynamics import (
    CART_STEP,
    FORCE,
    GRAVITY,
    HALF_POLE,
    POLE,
    SPEED,
    TORQUE,
    TOTAL,
    pendulum_step,
    plant_of,
)

Expert = Callable[[Tensor], Tensor]  # states (..., S) to actions (...)


def expert(name: str) -> Expert:
    """Return the expert of a control task: full states to actions."""
    return {"cartpole": cartpole_expert, "pendulum": pendulum_expert}[plant_of(name).name]


@lru_cache(maxsize=1)
def cartpole_gain() -> NDArray[np.float64]:
    """Return the feedback gain K of the linear-quadratic regulator of the cart, u = -K s.

    Near upright, sin a = a, cos a = 1 and products of small numbers vanish. With k = l (4/3 - m / M),

        w' = (g a - F / M) / k,     v' = F / M - (m l / M) w'

    so one Euler step is s+ = A s + B F. K = (R + B'PB)^-1 B'PA, where P solves the discrete Riccati equation
    for the cost sum (x^2 + 0.1 v^2 + 10 a^2 + 0.1 w^2 + 0.01 F^2).
    """
    from scipy.linalg import solve_discrete_are

    k, coupling = HALF_POLE * (4 / 3 - POLE / TOTAL), POLE * HALF_POLE / TOTAL
    turn = np.array([0, 0, GRAVITY / k, 0, -1 / (TOTAL * k)])  # w' by (x, v, a, w, F)
    pull = np.array([0, 0, 0, 0, 1 / TOTAL]) - coupling * turn
    change = np.stack([[0, 1, 0, 0, 0], pull, [0, 0, 0, 1, 0], turn])
    a, b = np.eye(4) + CART_STEP * change[:, :4], CART_STEP * change[:, 4:]
    cost = np.array([[0.01]])
    p = solve_discrete_are(a, b, np.diag([1.0, 0.1, 10.0, 0.1]), cost)
    gain: NDArray[np.float64] = np.linalg.solve(cost + b.T @ p @ b, b.T @ p @ a)[0]
    return gain


def cartpole_expert(state: Tensor) -> Tensor:
    """Push where the regulator's force points: action 1 if -K s > 0. The only forces are +-10 N."""
    force = -FORCE * (state @ torch.from_numpy(cartpole_gain()))
    return (force > 0).double()


ANGLES, SPEEDS, TORQUES, LOOKS = 100, 81, 11, 41  # grid of the value function; torques tried in use
CHANGE = 1e-3  # of the value, in units of reward, at which iteration ends


@lru_cache(maxsize=1)
def pendulum_values() -> Tensor:
    """Return the value (100, 81) of each angle and speed on a grid: the best return from there on.

    Value iteration, undiscounted: V(s) <- max_u r(s, u) + V(s+), s+ by the environment's own step and V
    between grid points by bilinear interpolation (angles are periodic), until no value changes by 1e-3. It
    converges as the reward is 0 upright and at rest, which is reached from anywhere.
    """
    angle = torch.arange(ANGLES, dtype=torch.float64) * (2 * math.pi / ANGLES) - math.pi
    speed = torch.linspace(-SPEED, SPEED, SPEEDS, dtype=torch.float64)
    torque = torch.linspace(-TORQUE, TORQUE, TORQUES, dtype=torch.float64)
    a, w, u = torch.meshgrid(angle, speed, torque, indexing="ij")
    after, reward, _ = pendulum_step(torch.stack([a, w], dim=-1), u)
    corners, weights = _corners(after)
    values = torch.zeros(ANGLES * SPEEDS, dtype=torch.float64)
    change = math.inf
    while change > CHANGE:
        best = (reward + (values[corners] * weights).sum(dim=-1)).amax(dim=-1).flatten()
        change = float((best - values).abs().max())
        values = best
    return values.reshape(ANGLES, SPEEDS)


def _corners(state: Tensor) -> tuple[Tensor, Tensor]:
    """Return the flat indices (..., 4) and weights of the four grid points around each state."""
    across = (state[..., 0] + math.pi) % (2 * math.pi) * (ANGLES / (2 * math.pi))
    along = (state[..., 1] + SPEED) * ((SPEEDS - 1) / (2 * SPEED))
    i, j = across.floor().long(), along.floor().long().clamp(0, SPEEDS - 2)
    p, q = across - i, along - j
    i, above = i % ANGLES, (i + 1) % ANGLES
    corners = torch.stack(
        [i * SPEEDS + j, i * SPEEDS + j + 1, above * SPEEDS + j, above * SPEEDS + j + 1], -1
    )
    return corners, torch.stack([(1 - p) * (1 - q), (1 - p) * q, p * (1 - q), p * q], -1)


def pendulum_expert(state: Tensor) -> Tensor:
    """Apply the torque, of 41 even ones, with the best reward plus value of where it leads."""
    torque = torch.linspace(-TORQUE, TORQUE, LOOKS, dtype=torch.float64)
    after, reward, _ = pendulum_step(state[..., None, :].expand(*state.shape[:-1], LOOKS, 2), torque)
    corners, weights = _corners(after)
    worth = reward + (pendulum_values().flatten()[corners] * weights).sum(dim=-1)
    return torque[worth.argmax(dim=-1)]
