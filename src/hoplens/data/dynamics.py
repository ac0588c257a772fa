"""Gymnasium's CartPole-v1 and Pendulum-v1 as equations on tensors: any number of episodes at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hoplens.errors import check_choice


@dataclass(frozen=True)
class Plant:
    """A controlled system with fixed episodes; states in float64.

    ``steps``: length of an episode. ``shown``: names of what a policy sees. ``starts``: half-widths of the
    uniform distribution of starting states, around 0. ``step``: state (..., S) and action (...) to the next
    state, the reward (...), and whether the episode goes on. ``observe``: state (..., S) to what is shown
    (..., I).
    """

    name: str
    steps: int
    shown: tuple[str, ...]
    starts: tuple[float, ...]
    step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    observe: Callable[[Tensor], Tensor]

    def start(self, episodes: int, generator: torch.Generator, *, spread: float = 1.0) -> Tensor:
        """Draw starting states (episodes, S), ``spread`` times as wide as the environment's own."""
        unit = 2 * torch.rand(episodes, len(self.starts), generator=generator, dtype=torch.float64) - 1
        return unit * spread * torch.tensor(self.starts, dtype=torch.float64)


GRAVITY, CART, POLE, HALF_POLE, FORCE, CART_STEP = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
TOTAL = CART + POLE
MOST_POSITION, MOST_ANGLE = 2.4, math.radians(12)


def cartpole_step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One Euler step of 0.02 s of CartPole-v1: state (position, speed, angle, its speed), action 0 or 1.

    With F = +-10 N, total mass M, pole mass m and half length l,

        b = (F + m l w^2 sin a) / M
        w' = (g sin a - b cos a) / (l (4/3 - m cos^2 a / M)),   v' = b - m l w' cos a / M
    """
    x, v, a, w = state.unbind(-1)
    sin, cos = a.sin(), a.cos()
    push = (torch.where(action > 0.5, FORCE, -FORCE) + POLE * HALF_POLE * w**2 * sin) / TOTAL
    turn = (GRAVITY * sin - cos * push) / (HALF_POLE * (4 / 3 - POLE * cos**2 / TOTAL))
    pull = push - POLE * HALF_POLE * turn * cos / TOTAL
    after = torch.stack(
        [x + CART_STEP * v, v + CART_STEP * pull, a + CART_STEP * w, w + CART_STEP * turn], dim=-1
    )
    inside = (after[..., 0].abs() <= MOST_POSITION) & (after[..., 2].abs() <= MOST_ANGLE)
    return after, torch.ones_like(x), inside


SPEED, TORQUE, SWING_STEP = 8.0, 2.0, 0.05
WEIGHT, LEVER = 15.0, 3.0  # 3 g / (2 l) and 3 / (m l^2), with g = 10, m = l = 1


def pendulum_step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of 0.05 s of Pendulum-v1: state (angle from upright, its speed), torque within +-2.

        w' = clip(w + 0.05 (15 sin a + 3 u), -8, 8),   a' = a + 0.05 w',   reward -(a^2 + 0.1 w^2 + 0.001 u^2)

    with a in -pi .. pi for the reward. Episodes never end early.
    """
    a, w = state.unbind(-1)
    u = action.clamp(-TORQUE, TORQUE)
    reward = -(wrapped(a) ** 2 + 0.1 * w**2 + 0.001 * u**2)
    speed = (w + SWING_STEP * (WEIGHT * a.sin() + LEVER * u)).clamp(-SPEED, SPEED)
    return torch.stack([a + SWING_STEP * speed, speed], dim=-1), reward, torch.ones_like(a, dtype=torch.bool)


def wrapped(angle: Tensor) -> Tensor:
    """Return angles in -pi .. pi."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


PLANTS = {
    "cartpole": Plant(
        "cartpole",
        steps=500,
        shown=("position", "angle"),
        starts=(0.05, 0.05, 0.05, 0.05),
        step=cartpole_step,
        observe=lambda state: state[..., [0, 2]],
    ),
    "pendulum": Plant(
        "pendulum",
        steps=200,
        shown=("cos", "sin"),
        starts=(math.pi, 1.0),
        step=pendulum_step,
        observe=lambda state: torch.stack([state[..., 0].cos(), state[..., 0].sin()], dim=-1),
    ),
}


def plant_of(name: str) -> Plant:
    """Return a plant by its name."""
    return PLANTS[check_choice("control task", name, PLANTS)]
