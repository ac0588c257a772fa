"""Batches of a data set for an ensemble: each seed has its own order of the training sequences."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hoplens.data.sets import SequenceData
from hoplens.seeds import generator


class SequenceStream:
    """Batches for an ensemble: each seed goes through the training split in its own order, again and again.

    All networks of a seed see the same batches and the same dropout noise. Every sequence comes once before
    any comes again; the rest of a round that fills no batch is left out of that round.

    Parameters
    ----------
    data : SequenceData
    seeds : sequence of int
        One a network.
    batch : int
        Sequences B a step; at most as many as there are.
    device, dtype
        Where and in what precision to train.
    """

    def __init__(
        self,
        data: SequenceData,
        seeds: Sequence[int],
        batch: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        distinct = list(dict.fromkeys(seeds))
        self.form, self.size = data.form, min(batch, len(data.train))
        self.sources = [generator("order of training data", seed) for seed in distinct]
        self.noises = [generator("dropout", seed) for seed in distinct]
        place = {seed: n for n, seed in enumerate(distinct)}
        self.index = torch.tensor([place[seed] for seed in seeds], device=device)
        self.shared = len(distinct) == len(seeds)
        train = data.train
        self.inputs = train.inputs.to(device, dtype).permute(1, 2, 0).contiguous()  # (L, I, N)
        self.targets = train.targets.to(device)
        if data.form in ("step labels", "step values"):
            self.targets = self.targets.to(dtype)
        if data.every_step:
            self.targets = self.targets.movedim(0, -1).contiguous()  # (L, N) or (L, O, N)
        self.lengths = train.lengths.to(device)
        self.orders = [torch.empty(0, dtype=torch.int64)] * len(distinct)

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

    def noise(self, rows: int) -> Tensor:
        """Return uniform numbers (E, rows, B) in [0, 1) for dropout, new ones each step."""
        drawn = torch.stack([torch.rand(rows, self.size, generator=source) for source in self.noises])
        drawn = drawn.to(self.index.device)
        return drawn if self.shared else drawn[self.index]

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


__all__ = ["SequenceStream"]
