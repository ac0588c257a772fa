"""Demonstrations of a computed expert, with velocities hidden: a recurrent policy has to remember."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hoplens.data.building import Origin, assemble, split_three
from hoplens.data.dynamics import Plant, plant_of
from hoplens.data.experts import expert
from hoplens.data.sets import SequenceData
from hoplens.errors import check_count, check_number
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


def cartpole(
    *,
    length: int = 64,
    episodes: int = 800,
    noise: float = 0.1,
    seed: int = 0,
    fractions: Sequence[float] | None = None,
) -> SequenceData:
    """Load demonstrations of balancing a pole on a cart: from position and angle to the push, left or right.

    The expert (`hoplens.data.experts`) sees the speeds, the policy does not and has to find them from what it
    saw before. Episodes start from states four times as wide as the environment's. Some steps carry out a
    random action instead of the expert's, while the target stays the expert's: so data show how to come back
    from mistakes (as in M. Laskey et al., DART: noise injection for robust imitation learning, CoRL 2017).

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
    plant = plant_of("cartpole")
    sizes = check_count("length", length), check_count("episodes", episodes, least=5)
    shown, actions = demonstrations(plant, *sizes, noise=noise, seed=seed, spread=4.0)
    return assemble(
        list(shown.numpy()),
        list(actions.numpy().astype(int)),
        split_three(np.zeros(episodes), fractions, split_generator(seed), names="episodes"),
        CARTPOLE,
        name="cartpole",
        form="step class",
        n_outputs=2,
        input_names=plant.shown,
        output_names=("left", "right"),
        standardise=True,
    )


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
    plant = plant_of("pendulum")
    sizes = check_count("length", length), check_count("episodes", episodes, least=5)
    shown, actions = demonstrations(plant, *sizes, noise=noise, seed=seed, spread=1.0)
    return assemble(
        list(shown.numpy()),
        list(actions[..., None].numpy()),
        split_three(np.zeros(episodes), fractions, split_generator(seed), names="episodes"),
        PENDULUM,
        name="pendulum",
        form="step values",
        n_outputs=1,
        input_names=plant.shown,
        output_names=("torque",),
        standardise=True,
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


__all__ = ["cartpole", "demonstrations", "pendulum", "random_actions"]
