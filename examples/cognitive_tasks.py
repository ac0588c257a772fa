"""Two cognitive tasks as neurogym writes them, made into data sets, learnt, and read.

Run: python examples/cognitive_tasks.py. The environments follow neurogym's protocol without the package; one
of neurogym's own goes in the same way:
``hl.data.from_environment(neurogym.make("PerceptualDecisionMaking-v0"))``.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

import hoplens as hl


class Trials:
    """What both tasks share: spaces with names, a seed, and fixation until the last two steps."""

    def __init__(self, inputs: dict[str, int | list[int]], actions: dict[str, int | list[int]]) -> None:
        self.observation_space = SimpleNamespace(name=inputs)
        self.action_space = SimpleNamespace(name=actions, n=3)

    def reset(self, *, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def lay_out(self, length: int, answer: int) -> None:
        """Fixate (action 0) for ``length`` steps, then answer for two, in which the fixation input is off."""
        self.ob = np.zeros((length + 2, 3))
        self.ob[:length, 0] = 1.0
        self.gt = np.array([0] * length + [answer] * 2)


class PerceptualDecision(Trials):
    """Which of two noisy inputs was stronger over ten steps."""

    def __init__(self) -> None:
        super().__init__({"fixation": 0, "evidence": [1, 2]}, {"fixate": 0, "choose": [1, 2]})

    def new_trial(self) -> None:
        stronger = int(self.rng.integers(2))
        self.lay_out(10, 1 + stronger)
        self.ob[:10, 1:] = self.rng.normal(0.0, 1.0, (10, 2))
        self.ob[:10, 1 + stronger] += 1.0


class DelayedMatch(Trials):
    """Whether the second stimulus is the first one, after a delay of 2 to 6 steps."""

    def __init__(self) -> None:
        super().__init__({"fixation": 0, "stimulus": [1, 2]}, {"fixate": 0, "match": 1, "no match": 2})

    def new_trial(self) -> None:
        first, second = self.rng.integers(2, size=2)
        delay = int(self.rng.integers(2, 7))
        self.lay_out(4 + delay, 1 if first == second else 2)
        self.ob[:2, 1 + first] = 1.0
        self.ob[2 + delay : 4 + delay, 1 + second] = 1.0
        self.ob += self.rng.normal(0.0, 0.1, self.ob.shape)


def learn(data: hl.data.SequenceData, steps: int) -> hl.RecurrentModel:
    """Train a small GRU on the right action at every step."""
    info = hl.ModelInfo(every_step=True, input_names=data.input_names, output_names=data.output_names)
    model = hl.RecurrentModel(
        nn.GRU(data.n_inputs, 16, batch_first=True), nn.Linear(16, data.n_outputs), info
    )
    optimiser = torch.optim.Adam(model.parameters(), 2e-2)
    for _ in range(steps):
        logits = model(data.train.inputs)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), data.train.targets.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


def right_answers(model: hl.RecurrentModel, split: hl.data.Split) -> float:
    """Return the share of trials whose last step is right; fixation is easy and does not count."""
    rows, last = torch.arange(len(split)), split.lengths - 1
    with torch.no_grad():
        answers = model(split.inputs)[rows, last].argmax(dim=-1)
    return float((answers == split.targets[rows, last]).float().mean())


def main(steps: int = 300) -> None:
    torch.manual_seed(0)
    for env in (PerceptualDecision(), DelayedMatch()):
        data = hl.data.from_environment(env, trials=600)
        model = learn(data, steps)
        whole = data.test.inputs[data.test.lengths == data.test.lengths.max()]
        maps = hl.trajectory_maps(model.core, whole, readout=model.readout).values.detach()
        reach = (maps[:, :, 1] - maps[:, :, 2])[:, :, 1:].abs().mean(dim=(0, 2))  # (L,): of the two stimuli
        print(f"{data.name}: inputs {tuple(data.train.inputs.shape)}, actions {', '.join(data.output_names)}")
        print(f"  right answers on test trials: {right_answers(model, data.test):.3f}")
        shares = ", ".join(f"{share:.2f}" for share in (reach / reach.sum()).tolist())
        print(f"  share of each step in the answer at the end: {shares}")


if __name__ == "__main__":
    main()
