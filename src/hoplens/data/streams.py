"""Training data of an ensemble: drawn from a task, or batches of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from hoplens.data.sets import SequenceData
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


class _Stream:
    """The random sources of the distinct seeds, and which network has which."""

    def __init__(
        self, make: Callable[[int], torch.Generator], seeds: Sequence[int], batch: int, device: torch.device
    ) -> None:
        distinct = list(dict.fromkeys(seeds))
        self.size = batch
        self.sources = [make(seed) for seed in distinct]
        self.noises = [generator("dropout", seed) for seed in distinct]
        self.index = torch.tensor([distinct.index(seed) for seed in seeds], device=device)
        self.shared = len(distinct) == len(seeds)

    def noise(self, rows: int) -> Tensor:
        """Return uniform numbers (E, rows, B) in [0, 1) for dropout, the same for each seed."""
        drawn = torch.stack([torch.rand(rows, self.size, generator=source) for source in self.noises])
        drawn = drawn.to(self.index.device)
        return drawn if self.shared else drawn[self.index]


class TaskStream(_Stream):
    """Batches of a task: each seed has its own stream, shared by all networks of that seed."""

    def __init__(
        self,
        task: TrainingTask,
        seeds: Sequence[int],
        batch: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(lambda seed: generator("training data", seed, device=device), seeds, batch, device)
        self.task, self.dtype, self.form = task, dtype, task.form
        self._draw()

    @property
    def every_step(self) -> bool:
        """Whether there is a target after every time step."""
        return len(self.targets[0]) > 1

    def batch(self, step: int) -> tuple[Tensor, Tensor, None]:
        """Return inputs (L, E, I, B) and targets (R, E, O, B) of a step; steps come in order from 0.

        The third value stands for lengths: all sequences have all steps.
        """
        place = step % CHUNK
        if step and place == 0:
            self._draw()
        inputs, targets = self.inputs[place], self.targets[place]
        if self.shared:
            return inputs, targets, None
        return inputs.index_select(1, self.index), targets.index_select(1, self.index), None

    def _draw(self) -> None:
        drawn = [self.task.sample(CHUNK * self.size, generator=g, dtype=self.dtype) for g in self.sources]
        inputs = torch.stack([inputs for inputs, _ in drawn]).unflatten(1, (CHUNK, self.size))
        targets = torch.stack([targets for _, targets in drawn]).unflatten(1, (CHUNK, self.size))
        if targets.dim() == 4:
            targets = targets.unsqueeze(3)
        self.inputs = inputs.permute(1, 3, 0, 4, 2).contiguous()  # (S, C, B, L, I) -> (C, L, S, I, B)
        self.targets = targets.permute(1, 3, 0, 4, 2).contiguous()  # (S, C, B, R, O) -> (C, R, S, O, B)


class SetStream(_Stream):
    """Batches of a data set: each seed goes through the training split in its own order, again and again.

    All networks of a seed see the same batches and the same dropout noise. Every sequence comes once before
    any comes again; the rest of a round that fills no batch is left out of that round.
    """

    def __init__(
        self,
        data: SequenceData,
        seeds: Sequence[int],
        batch: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        batch = min(batch, len(data.train))
        super().__init__(lambda seed: generator("order of training data", seed), seeds, batch, device)
        self.form, train = data.form, data.train
        self.inputs = train.inputs.to(device, dtype).permute(1, 2, 0).contiguous()  # (L, I, N)
        self.targets = train.targets.to(device)
        if data.form in ("step labels", "step values"):
            self.targets = self.targets.to(dtype)
        if data.every_step:
            self.targets = self.targets.movedim(0, -1).contiguous()  # (L, N) or (L, O, N)
        self.lengths = train.lengths.to(device)
        self.every_step = data.every_step
        self.orders = [torch.empty(0, dtype=torch.int64)] * len(self.sources)

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002 - steps come in order
        """Return inputs (L, E, I, B), targets and lengths (E, B) of the next step.

        L is the longest sequence of the batch. Targets have shape (E, B), (L, E, B) or (L, E, O, B).
        """
        rows = torch.stack([self._next(n) for n in range(len(self.orders))]).to(self.index.device)  # (S, B)
        if not self.shared:
            rows = rows[self.index]
        lengths = self.lengths[rows]
        longest = int(lengths.max())
        inputs = self._pick(self.inputs[:longest], rows)
        if self.form == "class":
            return inputs, self.targets[rows], lengths
        return inputs, self._pick(self.targets[:longest], rows), lengths

    def _pick(self, values: Tensor, rows: Tensor) -> Tensor:
        """Return columns (..., N) -> (..., B) for each network, networks on the second axis."""
        picked = values.index_select(-1, rows.flatten())
        # (L, ..., E, B)
        return picked.view(*values.shape[:-1], *rows.shape).movedim(-2, 1)

    def _next(self, n: int) -> Tensor:
        if len(self.orders[n]) < self.size:
            self.orders[n] = torch.randperm(len(self.lengths), generator=self.sources[n])
        rows, self.orders[n] = self.orders[n][: self.size], self.orders[n][self.size :]
        return rows


Stream = TaskStream | SetStream


def make_stream(
    source: TrainingTask | SequenceData,
    seeds: Sequence[int],
    batch: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Stream:
    """Return the batches of a task or a data set for an ensemble; see `TaskStream` and `SetStream`."""
    kind = SetStream if isinstance(source, SequenceData) else TaskStream
    return kind(source, seeds, batch, device, dtype)  # type: ignore[arg-type]
