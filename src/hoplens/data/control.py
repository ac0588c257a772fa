"""Gymnasium's CartPole-v1 and Pendulum-v1 as equations on tensors, any number of episodes at once.

The experts are computed from the equations (an LQR for the cart, value iteration for the pendulum) and see
all; their demonstrations hide the velocities, so a recurrent policy has to remember.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoplens.data.building import Origin, assemble, split_three
from hoplens.data.sets import SequenceData
from hoplens.errors import check_choice, check_count, check_number
from hoplens.memory import check_memory
from hoplens.seeds import bare_generator, split_generator

LICENCE = "computed here from the equations of gymnasium's environment (MIT licence)"
GYM = (
    "M. Towers et al., Gymnasium: a standard interface for reinforcement learning environments, "
    "arXiv:2407.17032"
)
CARTPOLE = Origin(
    "demonstrations of a linear-quadratic regulator on gymnasium's CartPole-v1, computed when loaded",
    LICENCE,
    "A. G. Barto, R. S. Sutton, C. W. Anderson, Neuronlike adaptive elements that can solve difficult "
    "learning control problems, IEEE Transactions on Systems, Man, and Cybernetics 13 (1983) 834-846; " + GYM,
)
PENDULUM = Origin(
    "demonstrations of a policy from value iteration on gymnasium's Pendulum-v1, computed when loaded",
    LICENCE,
    GYM,
)


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


def cartpole(
    *,
    length: int = 64,
    episodes: int = 800,
    noise: float = 0.1,
    seed: int = 0,
    fractions: Sequence[float] | None = None,
) -> SequenceData:
    """Load demonstrations of balancing a pole on a cart: from position and angle to the push, left or right.

    The expert, a linear-quadratic regulator, sees the speeds; the policy does not and has to find them from
    what it saw before. Episodes start from states four times as wide as the environment's. Some steps carry
    out a random action instead of the expert's, while the target stays the expert's: so data show how to come
    back from mistakes (as in M. Laskey et al., DART: noise injection for robust imitation learning, CoRL
    2017).

    Parameters
    ----------
    length : int, default 64
        Steps of an episode.
    episodes : int, default 800
        In all splits together.
    noise : float, default 0.1
        Chance that a step carries out a random action.
    seed : int, default 0
        Draws episodes and the cut.
    fractions : three numbers, default (0.6, 0.2, 0.2)
        Training, validation and test, of episodes.

    Returns
    -------
    SequenceData
        Of form "step class": left or right. Score a policy with `closed_loop_return`.

    Raises
    ------
    ParameterError
        For options out of range.
    """
    options = {"spread": 4.0, "noise": noise, "seed": seed, "fractions": fractions}
    return _demonstrated("cartpole", CARTPOLE, ("left", "right"), length, episodes, **options)


def pendulum(
    *,
    length: int = 64,
    episodes: int = 800,
    noise: float = 0.1,
    seed: int = 0,
    fractions: Sequence[float] | None = None,
) -> SequenceData:
    """Load demonstrations of swinging a pendulum up and holding it: from the angle to the torque.

    The torque is too weak to lift the pendulum at once. Expert, noise and hidden speeds as in `cartpole`;
    episodes start where the environment's do.

    Parameters
    ----------
    length, episodes, noise, seed, fractions : see `cartpole`

    Returns
    -------
    SequenceData
        Of form "step values": the torque, -2 .. 2. Score a policy with `closed_loop_return`.

    Raises
    ------
    ParameterError
        For options out of range.
    """
    options = {"spread": 1.0, "noise": noise, "seed": seed, "fractions": fractions}
    return _demonstrated("pendulum", PENDULUM, ("torque",), length, episodes, **options)


def _demonstrated(
    name: str, origin: Origin, output_names: tuple[str, ...], length: int, episodes: int, **options: Any
) -> SequenceData:
    """Return demonstrations as a data set: classes where there are several outputs, else values."""
    plant, seed, fractions = plant_of(name), options["seed"], options["fractions"]
    sizes = check_count("length", length), check_count("episodes", episodes, least=5)
    chances = {"noise": options["noise"], "seed": seed, "spread": options["spread"]}
    shown, actions = demonstrations(plant, *sizes, **chances)
    classes = len(output_names) > 1
    return assemble(
        list(shown.numpy()),
        list(actions.numpy().astype(int) if classes else actions[..., None].numpy()),
        split_three(np.zeros(episodes), fractions, split_generator(seed), names="episodes"),
        origin,
        name=name,
        form="step class" if classes else "step values",
        input_names=plant.shown,
        output_names=output_names,
    )


def random_actions(plant: Plant, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw actions evenly from all legal ones, float64."""
    unit = torch.rand(*shape, generator=generator, dtype=torch.float64)
    return (unit > 0.5).double() if plant.name == "cartpole" else 4.0 * unit - 2.0


def demonstrations(
    plant: Plant, length: int, episodes: int, *, noise: float, seed: int, spread: float
) -> tuple[Tensor, Tensor]:
    """Return what is shown (episodes, length, I) and what the expert does there (episodes, length)."""
    chance = check_number("noise", noise, least=0.0, most=1.0)
    size = 8 * episodes * length * (len(plant.shown) + 1)
    check_memory(f"{episodes} episodes of {length} steps", size, "take fewer or shorter ones")
    generator = bare_generator(seed)
    state, act = plant.start(episodes, generator, spread=spread), expert(plant.name)
    shown, actions = [], []
    for _ in range(length):
        shown.append(plant.observe(state))
        actions.append(act(state))
        astray = torch.rand(episodes, generator=generator) < chance
        done = torch.where(astray, random_actions(plant, (episodes,), generator), actions[-1])
        state = plant.step(state, done)[0]
    return torch.stack(shown, dim=1), torch.stack(actions, dim=1)
