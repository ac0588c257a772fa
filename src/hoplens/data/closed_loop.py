"""Score recurrent policies by what they achieve when their actions count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hoplens.data.control import Plant, expert, plant_of, random_actions
from hoplens.data.sets import SequenceData
from hoplens.errors import ShapeError, UnsupportedModelError, check_count
from hoplens.models.cells import LeakyRNN
from hoplens.models.ensemble import Ensemble
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.seeds import generator

Policy = Callable[[Tensor, Any], tuple[Tensor, Any]]


@dataclass(frozen=True, eq=False)
class ClosedLoop:
    """Returns of a policy, and of two references in the same episodes.

    Attributes
    ----------
    returns : Tensor of float64, shape (..., episodes)
        Sum of rewards of each episode; leading axes as the policy's outputs have.
    expert, random : Tensor of float64, shape (episodes,)
        What the computed expert, which sees the speeds, and random actions get from the same starts.
    """

    returns: Tensor
    expert: Tensor
    random: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean return over the episodes, shape (...)."""
        return self.returns.mean(dim=-1)

    @property
    def score(self) -> Tensor:
        """Mean return on the scale where random actions get 0 and the expert 1, shape (...)."""
        floor, top = self.random.mean(), self.expert.mean()
        return (self.mean - floor) / (top - floor)


def closed_loop_return(
    policy: Policy | RecurrentModel | Ensemble,
    data: SequenceData,
    *,
    episodes: int = 32,
    seed: int = 0,
) -> ClosedLoop:
    """Let a policy act and add up the rewards, all episodes (and networks) at once.

    Parameters
    ----------
    policy : RecurrentModel, Ensemble or callable
        A model, the networks of an ensemble (``train(...).ensemble``), or a function
        ``policy(observations, state) -> (outputs, state)``: observations (episodes, I) in the first step, or
        (..., episodes, I) where the outputs had leading axes, e.g. (E, episodes, I) for an ensemble, always
        standardised as ``data``; state is None first, then what the policy returned; outputs
        (..., episodes, O) as ``data``'s targets: two logits for the cart, the torque for the pendulum.
    data : SequenceData
        From `cartpole` or `pendulum`: tells the task and how inputs were standardised.
    episodes : int, default 32
    seed : int, default 0
        Draws the starting states and the random actions of the reference.

    Returns
    -------
    ClosedLoop

    Raises
    ------
    UnknownNameError
        If ``data`` is of no control task.
    UnsupportedModelError
        For a model that cannot be run step by step.
    ShapeError
        If the policy's outputs do not have the right shape.

    Notes
    -----
    Rewards and limits are those of gymnasium's CartPole-v1 (at most 500) and Pendulum-v1 (at most 0 over 200
    steps); the steps agree with gymnasium's, which a test checks.
    """
    plant, n = plant_of(data.name), check_count("episodes", episodes)
    start = plant.start(n, generator("closed-loop starts", seed))
    act = policy if callable(policy) and not isinstance(policy, RecurrentModel) else _step_by_step(policy)
    memory: Any = None

    def clone(state: Tensor) -> Tensor:
        nonlocal memory
        seen = (plant.observe(state).float() - data.mean) / data.scale
        outputs, memory = act(seen, memory)
        if outputs.dim() < 2 or outputs.shape[-2:] != (n, data.n_outputs):
            raise ShapeError(
                f"a policy must return outputs (..., {n}, {data.n_outputs}), got {tuple(outputs.shape)}"
            )
        if data.form == "step class":
            return outputs.argmax(dim=-1).to(state)
        return outputs[..., 0].to(state)

    chance = generator("closed-loop actions", seed)
    with torch.no_grad():
        return ClosedLoop(
            returns=_play(plant, start, clone),
            expert=_play(plant, start, expert(plant.name)),
            random=_play(plant, start, lambda state: random_actions(plant, state.shape[:-1], chance)),
        )


def _play(plant: Plant, state: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the sums of rewards, (..., episodes); an episode that ended gets no more."""
    total = state.new_zeros(())
    going = torch.ones((), dtype=torch.bool)
    for _ in range(plant.steps):
        action = act(state)
        state = state.expand(*action.shape, state.shape[-1])  # leading axes come with the first action
        after, reward, inside = plant.step(state, action)
        total = total + torch.where(going, reward, 0.0)
        going = going & inside
        # an ended episode stays where it is, so that no number runs away
        state = torch.where(going[..., None], after, state)
        if not bool(going.any()):
            break
    return total


def _step_by_step(model: RecurrentModel | Ensemble) -> Policy:
    """Return a model, or an ensemble, as a policy: observations (B, I) and state to outputs (B, O) and state.

    Of an ensemble, (B, I) or (E, B, I) to (E, B, O).
    """
    if isinstance(model, Ensemble):
        ensemble = model

        def together(observations: Tensor, state: Any) -> tuple[Tensor, Any]:
            seen = observations.to(ensemble.weight).mT
            after = ensemble.advance(seen if seen.dim() == 3 else seen[None], state)
            return torch.baddbmm(ensemble.offset, ensemble.readout, after[0]).mT, after

        return together
    if not isinstance(model, RecurrentModel):
        raise UnsupportedModelError(
            f"a policy must be a RecurrentModel, an Ensemble or a callable, got {type(model).__name__}"
        )
    core = model.core
    if getattr(core, "bidirectional", False):
        raise UnsupportedModelError(
            "a bidirectional core reads the future, so it cannot act; train one that runs one way"
        )

    def policy(observations: Tensor, state: Any) -> tuple[Tensor, Any]:
        seen = observations.to(model.readout.weight)
        if isinstance(core, LeakyRNN):
            before = seen.new_zeros(len(seen), core.hidden_size) if state is None else state
            after = core.to_hoplens().step(before, seen)
            return model.readout(after), after
        outputs, after = core(seen[:, None], state)
        return model.readout(outputs[:, 0]), after

    return policy
