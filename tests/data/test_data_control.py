"""Control: the equations are gymnasium's, experts are good, closed loops score as in gymnasium."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import hoplens as hl
from hoplens.data.control import (
    PLANTS,
    cartpole_gain,
    demonstrations,
    expert,
    pendulum_values,
    plant_of,
    wrapped,
)
from hoplens.seeds import generator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import gymnasium

IDS = {"cartpole": "CartPole-v1", "pendulum": "Pendulum-v1"}


def gym_env(name: str):
    return gymnasium.make(IDS[name], disable_env_checker=True)


def to_gym(name: str, action: float):
    return int(action) if name == "cartpole" else np.array([action], dtype=np.float64)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", IDS)
def test_steps_are_gymnasiums(name: str) -> None:
    plant, env = plant_of(name), gym_env(name)
    assert env.spec.max_episode_steps == plant.steps
    generator = np.random.default_rng(0)
    for seed in range(5):
        env.reset(seed=seed)
        state = torch.tensor(np.array(env.unwrapped.state))
        for _ in range(200):
            action = float(generator.integers(2)) if name == "cartpole" else generator.uniform(-3, 3)
            shown, reward, ended, _, _ = env.step(to_gym(name, action))
            state, ours, inside = plant.step(state, torch.tensor(action, dtype=torch.float64))
            assert np.allclose(state, env.unwrapped.state, rtol=0, atol=1e-9)
            assert np.isclose(float(ours), float(reward), rtol=0, atol=1e-9)
            assert bool(inside) == (not ended)
            seen = shown[[0, 2]] if name == "cartpole" else shown[:2]
            assert np.allclose(plant.observe(state), seen, atol=1e-6)
            if ended:
                break


@pytest.mark.parametrize("name", IDS)
def test_starts_are_as_wide_as_gymnasiums(name: str) -> None:
    states = plant_of(name).start(4000, torch.Generator().manual_seed(0))
    theirs = np.array(
        [np.array(e.state) for e in (gym_env(name).unwrapped,) for s in range(200) if e.reset(seed=s)]
    )
    assert np.allclose(states.abs().amax(0), np.abs(theirs).max(0), rtol=0.05)
    assert np.allclose(states.std(0), theirs.std(0), rtol=0.15)


class Memory(nn.Module):
    """A policy that finds the speeds from two positions; it holds the pole for a while."""

    def forward(self, shown: torch.Tensor, state):
        before = shown if state is None else state
        speed = shown - before
        push = (shown * torch.tensor([0.5, 1.0]) + 0.2 * speed).sum(-1)
        return torch.stack([torch.zeros_like(push), push], -1), shown


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", IDS)
def test_closed_loops_get_what_gymnasium_gives(name: str) -> None:
    data = hl.data.load(name)
    torch.manual_seed(0)
    core = nn.GRU(2, 8, batch_first=True)
    policy = hl.RecurrentModel(core, nn.Linear(8, data.n_outputs), hl.ModelInfo(every_step=True))
    act = Memory() if name == "cartpole" else hl.data.step_by_step(policy)
    found = hl.data.closed_loop_return(act, data, episodes=6, seed=3)
    starts = plant_of(name).start(6, generator("closed-loop starts", 3))
    env = gym_env(name)
    for start, ours in zip(starts, found.returns, strict=True):
        env.reset(seed=0)
        env.unwrapped.state = start.numpy().copy()
        shown = plant_of(name).observe(start).numpy()
        total, memory, over = 0.0, None, False
        while not over:
            seen = (torch.tensor(shown, dtype=torch.float32) - data.mean) / data.scale
            with torch.no_grad():
                outputs, memory = act(seen[None], memory)
            action = float(outputs.argmax(-1)) if name == "cartpole" else float(outputs[0, 0])
            _, reward, ended, cut, _ = env.step(to_gym(name, action))
            shown = plant_of(name).observe(torch.tensor(np.array(env.unwrapped.state))).numpy()
            total, over = total + float(reward), ended or cut
        assert np.isclose(float(ours), total, rtol=1e-5, atol=1e-3)
    if name == "cartpole":
        assert len(set(found.returns.tolist())) > 1  # episodes of several lengths were compared
    assert float(found.expert.mean()) > float(found.random.mean())


@pytest.mark.parametrize("name", IDS)
def test_experts_are_near_the_best(name: str) -> None:
    data = hl.data.load(name)
    n_outputs = data.n_outputs
    found = hl.data.closed_loop_return(
        lambda seen, state: (seen.new_zeros(*seen.shape[:-1], n_outputs), None), data, episodes=100
    )
    if name == "cartpole":
        assert (found.expert == 500).all()  # the most there is
        assert 15 < float(found.random.mean()) < 30
    else:
        # a grid of twice the resolution gets -135.2 over 2000 starts, this one -136.4
        assert -145 < float(found.expert.mean()) < -125
        assert float(found.random.mean()) < -1000
        # no policy does better than the value that iteration found, up to the coarseness of the grid
        assert abs(float(pendulum_values().amax())) < 1.0
    assert abs(float(found.score)) < 0.1  # doing nothing is about as good as random actions


def test_the_gain_solves_the_riccati_equation_and_balances() -> None:
    gain = torch.from_numpy(cartpole_gain())
    step = PLANTS["cartpole"].step
    state = torch.tensor([0.5, 0.0, 0.05, 0.0], dtype=torch.float64)
    # linear closed loop, by differences of the true step around upright: all modes decay
    zero, small = torch.zeros(4, dtype=torch.float64), 1e-6
    free = torch.stack(
        [
            (step(small * e, torch.tensor(1.0))[0] - step(-small * e, torch.tensor(1.0))[0]) / (2 * small)
            for e in torch.eye(4).double()
        ],
        dim=1,
    )
    force = (step(zero, torch.tensor(1.0))[0] - step(zero, torch.tensor(0.0))[0]) / 20.0
    modes = torch.linalg.eigvals(free - force[:, None] * gain)
    assert float(modes.abs().max()) < 1
    for _ in range(500):
        state = step(state, expert("cartpole")(state))[0]
    assert float(state[[0, 2]].abs().max()) < 0.2


def test_values_obey_bellmans_equation_where_the_pendulum_hangs() -> None:
    """From hanging at rest the expert's own return is its value, up to the grid."""
    plant = plant_of("pendulum")
    state, total = torch.tensor([[np.pi - 0.01, 0.0]], dtype=torch.float64), 0.0
    for _ in range(300):
        state, reward, _ = plant.step(state, expert("pendulum")(state))
        total += float(reward)
    value = float(pendulum_values()[0, 40])  # angle -pi, speed 0
    assert abs(total - value) < 0.1 * abs(value)
    assert abs(float(wrapped(state[0, 0]))) < 0.1


def test_demonstrations_hold_the_experts_actions_on_noisy_paths() -> None:
    plant = plant_of("pendulum")
    calm, wild = (demonstrations(plant, 20, 50, noise=p, seed=0, spread=1.0) for p in (0.0, 1.0))
    state = plant.start(50, torch.Generator().manual_seed(0))
    for t in range(20):  # without noise the path is the expert's
        assert torch.allclose(calm[0][:, t], plant.observe(state))
        action = expert("pendulum")(state)
        assert torch.equal(calm[1][:, t], action)
        state = plant.step(state, action)[0]
    assert torch.equal(wild[1][:, 0], calm[1][:, 0])  # the first target is the expert's all the same
    assert not torch.allclose(wild[0][:, 5], calm[0][:, 5])
    with pytest.raises(hl.errors.ParameterError, match="noise must be"):
        hl.data.cartpole(noise=2.0)
    with pytest.raises(hl.errors.ParameterError, match="episodes must be"):
        hl.data.pendulum(episodes=2)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm", "leaky"])
def test_models_step_as_they_run(kind: str) -> None:
    torch.manual_seed(0)
    cores = {
        "rnn": lambda: nn.RNN(2, 5, batch_first=True),
        "gru": lambda: nn.GRU(2, 5, num_layers=2, batch_first=True),
        "lstm": lambda: nn.LSTM(2, 5, batch_first=True),
        "leaky": lambda: hl.LeakyRNN(2, 5, 0.3),
    }
    model = hl.RecurrentModel(cores[kind](), nn.Linear(5, 2), hl.ModelInfo(every_step=True))
    inputs, policy, state = torch.randn(3, 7, 2), hl.data.step_by_step(model), None
    for t in range(7):
        outputs, state = policy(inputs[:, t], state)
        assert torch.allclose(outputs, model(inputs)[:, t], atol=1e-6)


def test_an_ensemble_acts_at_once() -> None:
    data = hl.data.load("cartpole")
    weights = torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(0))

    def policy(seen: torch.Tensor, state: None):
        return seen @ weights, None  # (episodes, 2) or (4, episodes, 2) to (4, episodes, 2)

    whole = hl.data.closed_loop_return(policy, data, episodes=5)
    assert whole.returns.shape == (4, 5)
    assert whole.mean.shape == whole.score.shape == (4,)
    for n in range(4):
        alone = hl.data.closed_loop_return(
            lambda seen, _, one=weights[n]: (seen @ one, None), data, episodes=5
        )
        assert torch.equal(alone.returns, whole.returns[n])


@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_a_trained_ensemble_acts_as_its_models_do(cell: str) -> None:
    data = hl.data.load("pendulum")
    result = hl.train(
        data, hl.recipes.none(), seeds=range(3), cell=cell, hidden=6, steps=2, dtype=torch.float64
    )
    whole = hl.data.closed_loop_return(result.ensemble, data, episodes=4)
    assert whole.returns.shape == (3, 4)
    for n in range(3):
        alone = hl.data.closed_loop_return(result.model(n), data, episodes=4)
        assert torch.allclose(alone.returns, whole.returns[n], rtol=1e-6)


def test_wrong_closed_loops() -> None:
    data = hl.data.load("cartpole")
    with pytest.raises(hl.errors.ShapeError, match=r"outputs \(\.\.\., 4, 2\), got \(4, 3\)"):
        hl.data.closed_loop_return(lambda seen, state: (torch.zeros(4, 3), None), data, episodes=4)
    with pytest.raises(hl.errors.UnknownNameError, match="control task"):
        hl.data.closed_loop_return(lambda seen, state: (seen, None), hl.data.load("power"))
    with pytest.raises(hl.errors.UnsupportedModelError, match="cannot read a int"):
        hl.data.closed_loop_return(3, data)
    both = hl.RecurrentModel(nn.GRU(2, 4, batch_first=True, bidirectional=True), nn.Linear(8, 2))
    with pytest.raises(hl.errors.UnsupportedModelError, match="reads the future"):
        hl.data.closed_loop_return(both, data)
