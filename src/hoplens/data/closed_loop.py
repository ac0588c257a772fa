"""Score recurrent policies by what they achieve when their actions count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hoplens.data.control import Plant, expert, plant_of, random_actions
from hoplens.data.sets import SequenceData
from hoplens.display import Shown
from hoplens.errors import ParameterError, ShapeError, UnsupportedModelError, check_count
from hoplens.graph.pathways import Pathways
from hoplens.models.ensemble import Ensemble
from hoplens.models.readers.models import find_parts, is_recurrent, parts_of
from hoplens.seeds import generator

Policy = Callable[[Tensor, Any], tuple[Tensor, Any]]


@dataclass(frozen=True, eq=False, repr=False)
class ClosedLoop(Shown):
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
    policy: Any,
    data: SequenceData,
    *,
    readout: Any = None,
    episodes: int = 32,
    seed: int = 0,
) -> ClosedLoop:
    """Let a policy act and add up the rewards, all episodes (and networks) at once.

    Parameters
    ----------
    policy : model, Ensemble or callable
        A model as every function takes it, the networks of an ensemble (``train(...).ensemble``), or a plain
        function ``policy(observations, state) -> (outputs, state)``: observations (episodes, I) first, or
        (..., episodes, I) where the outputs had leading axes, e.g. (E, episodes, I) for an ensemble, always
        standardised as ``data``; state is None first, then what the policy returned; outputs
        (..., episodes, O) as ``data``'s targets: two logits for the cart, the torque for the pendulum.
    data : SequenceData
        From `cartpole` or `pendulum`: tells the task and how inputs were standardised.
    readout : nn.Linear, optional
        After a bare core.
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
    act = step_by_step(policy, readout) if readout is not None or _is_model(policy) else policy
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


def step_by_step(model: Any, readout: Any = None) -> Policy:
    """Return a model, or an ensemble, as a policy for `closed_loop_return`; it runs without gradients.

    Parameters
    ----------
    model : model or Ensemble
        A model as every function takes it; it must run one way. It is left as it is.
    readout : nn.Linear, optional
        After a bare core.

    Returns
    -------
    callable
        Observations (B, I) and state to outputs (B, O) and state; of an ensemble, (B, I) or (E, B, I) to
        (E, B, O).

    Raises
    ------
    UnsupportedModelError
        For a bidirectional core, which needs the future, a model cut to its last steps, or what is neither
        model nor ensemble.
    """
    if isinstance(model, Ensemble):
        if readout is not None:
            raise ParameterError("the networks of an ensemble have their read-outs; leave readout= out")
        return _together(model)
    parts = parts_of(model, readout)
    stack = parts.stack()
    if isinstance(stack, Pathways):
        raise UnsupportedModelError("a reader that returns weights only is no model that can act")
    if stack.bidirectional:
        raise UnsupportedModelError(
            "a bidirectional core reads the future, so it cannot act; train one that runs one way"
        )
    if parts.info.runs_last is not None:
        raise UnsupportedModelError(
            f"this model runs the last {parts.info.runs_last} steps of a sequence from zero, so it has no "
            "single step; let the model that it was cut from act"
        )

    readout_weight, offset = stack.readout(stack.like(torch.empty(0))), parts.offset()

    def policy(observations: Tensor, state: Any) -> tuple[Tensor, Any]:
        seen = observations.to(stack.like(observations))
        with torch.no_grad():
            before = [seen.new_zeros(len(seen), c.n_state) for c in stack.cells] if state is None else state
            after, _ = stack.advance(before, seen)
            outputs = stack.levels[-1][0].emit(after[-1]) @ readout_weight.to(seen).mT
            return outputs if offset is None else outputs + offset.to(seen), after

    return policy


def _is_model(policy: Any) -> bool:
    """Return whether a policy is a network, not a function of observations and state."""
    if isinstance(policy, Ensemble) or not callable(policy):
        return True
    return is_recurrent(policy) or (isinstance(policy, nn.Module) and bool(find_parts(policy)[0]))


def _together(ensemble: Ensemble) -> Policy:
    """Return all networks of an ensemble as one policy."""

    def policy(observations: Tensor, state: Any) -> tuple[Tensor, Any]:
        seen = observations.to(ensemble.weight).mT
        after = ensemble.advance(seen if seen.dim() == 3 else seen[None], state)
        return torch.baddbmm(ensemble.offset, ensemble.readout, after[0]).mT, after

    return policy
