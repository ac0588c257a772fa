"""Training data of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from hoplens.seeds import generator

CHUNK = 16  # steps whose data are drawn at once; part of what fixes the numbers of a seed


@runtime_checkable
class TrainingTask(Protocol):
    """What training needs of a task; `hoplens.tasks.Task` has it, and an own task may.

    ``sample`` returns ``(inputs (B, L, I), targets)`` of the asked dtype on the generator's device. Targets
    (B, O) belong to a read-out after the last step, targets (B, L, O) to one after every step. ``form`` is
    "regression" or "sign" (targets 0 and 1).
    """

    @property
    def n_inputs(self) -> int:
        """Number of inputs, I."""
        ...

    @property
    def n_outputs(self) -> int:
        """Number of outputs, O."""
        ...

    @property
    def length(self) -> int:
        """Time steps, L."""
        ...

    @property
    def form(self) -> str:
        """Kind of targets."""
        ...

    def sample(self, n: int, *, generator: torch.Generator, dtype: torch.dtype) -> Any:
        """Return ``n`` sequences and their targets."""
        ...


class DataStream:
    """Batches for an ensemble: each seed has its own stream, shared by all networks of that seed.

    Parameters
    ----------
    task : TrainingTask
    seeds : sequence of int
        One a network.
    batch : int
        Samples B a step.
    device, dtype
        Where and in what precision to draw.
    """

    def __init__(
        self,
        task: TrainingTask,
        seeds: Sequence[int],
        batch: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        distinct = list(dict.fromkeys(seeds))
        self.task, self.size, self.dtype = task, batch, dtype
        self.sources = [generator("training data", seed, device=device) for seed in distinct]
        place = {seed: n for n, seed in enumerate(distinct)}
        self.index = torch.tensor([place[seed] for seed in seeds], device=device)
        self.shared = len(distinct) == len(seeds)
        self._draw()

    @property
    def every_step(self) -> bool:
        """Whether there is a target after every time step."""
        return len(self.targets[0]) > 1

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return inputs (L, E, I, B) and targets (R, E, O, B) of a step; steps come in order from 0."""
        place = step % CHUNK
        if step and place == 0:
            self._draw()
        inputs, targets = self.inputs[place], self.targets[place]
        if self.shared:
            return inputs, targets
        return inputs.index_select(1, self.index), targets.index_select(1, self.index)

    def _draw(self) -> None:
        drawn = [self.task.sample(CHUNK * self.size, generator=g, dtype=self.dtype) for g in self.sources]
        inputs = torch.stack([inputs for inputs, _ in drawn]).unflatten(1, (CHUNK, self.size))
        targets = torch.stack([targets for _, targets in drawn]).unflatten(1, (CHUNK, self.size))
        if targets.dim() == 4:
            targets = targets.unsqueeze(3)
        self.inputs = inputs.permute(1, 3, 0, 4, 2).contiguous()  # (S, C, B, L, I) -> (C, L, S, I, B)
        self.targets = targets.permute(1, 3, 0, 4, 2).contiguous()  # (S, C, B, R, O) -> (C, R, S, O, B)
