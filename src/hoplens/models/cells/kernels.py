"""One time step of E networks as one batch: forwards, backwards, and its Jacobian.

The kernel of a cell computes from the pre-activations ``z = W_h h + W_x x + b`` of its K rows, which one
batched product gives. Every tensor of a step has shape (E, rows, B), so that a gate is one block of memory a
network.
"""

# ruff: noqa: ARG002 - all kernels share one signature
from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hoplens.models.cells.algebra import CHANGES, Change, TensorOps, leaf
from hoplens.models.cells.weights import Equations

ROWS = TensorOps(axis=1)


State = tuple[Tensor, Tensor | None]  # h, and the other parts of the state, one below the other


def tanh_(z: Tensor) -> Tensor:
    """Put tanh in the place of ``z``; as 2 sigmoid(2 z) - 1, which PyTorch computes three times as fast."""
    return z.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)


class Kernel(Equations):
    """A cell's step for many networks at once, with the gradient written by hand.

    Attributes
    ----------
    module : type of nn.Module
        What one network becomes.
    unbiased : tuple of int
        Rows without a bias.
    mixes : bool
        Whether units hear of each other by recurrent weights (H, H).
    """

    module: type[nn.Module]
    unbiased: tuple[int, ...] = ()
    mixes = True

    @property
    def memories(self) -> int:
        """Number of parts of the state beside h that a step hands on."""
        return len(self.parts) - 1

    @property
    def blocks(self) -> int:
        """Number of rows of H units each."""
        return len(self.from_input)

    @property
    def fused(self) -> bool:
        """Whether ``forward`` and ``backward`` are written by hand."""
        return type(self).forward is not Kernel.forward

    def step(self, z: Tensor, h: Tensor, memory: Tensor | None) -> State:
        """Return the next h and memory; differentiable."""
        state = (h,) if memory is None else (h, *memory.chunk(self.memories, dim=1))
        new = self.update(ROWS, ROWS.split(z, z.shape[1] // h.shape[1]), state)
        return new[0], torch.cat(new[1:], dim=1) if len(new) > 2 else new[1] if len(new) > 1 else None

    def projections(self, weight: Tensor, hidden: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return W_x (E, K, I), W_h (E, K, fed) and the bias (E, K, 1) of the rows that `update` takes.

        Parameters
        ----------
        weight : Tensor, shape (E, H + I + 1, blocks H)
            As an ensemble has it.
        hidden : int
            H.
        """
        w_h, w_x, bias = weight.mT.split([hidden, weight.shape[1] - hidden - 1, 1], dim=2)
        return w_x, w_h, bias

    def feed(self, h: Tensor, memory: Tensor | None) -> Tensor:
        """Return the parts of the state that W_h sees."""
        return h if memory is None or self.fed == (0,) else memory

    def run(self, weight: Tensor, hidden: int, inputs: Tensor) -> Sequence[State]:
        """Return the states after each step; plain PyTorch, differentiable.

        Parameters
        ----------
        weight : Tensor, shape (E, H + I + 1, blocks H)
        hidden : int
            H.
        inputs : Tensor, shape (L, 1 or E, I, B)
        """
        state, found = None, []
        for x in inputs.unbind(0):
            state = self.advance(weight, hidden, x, state)
            found.append(state)
        return found

    def advance(self, weight: Tensor, hidden: int, x: Tensor, state: State | None) -> State:
        """Take one step from a state, zeros by default, for inputs (1 or E, I, B); differentiable."""
        w_x, w_h, bias = self.projections(weight, hidden)
        if state is None:
            zeros = weight.new_zeros(len(weight), hidden * len(self.parts), x.shape[-1])
            state = zeros[:, :hidden], zeros[:, hidden:] if self.memories else None
        entering = torch.baddbmm(bias, w_x, x.expand(len(weight), -1, -1))
        return self.step(torch.baddbmm(entering, w_h, self.feed(*state)), *state)

    def jacobian(self, weight: Tensor, hidden: int, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return d state' / d x (E, S, I) and d state' / d state (E, S, S), differentiable by the weights.

        Parameters
        ----------
        weight : Tensor, shape (E, H + I + 1, blocks H)
        hidden : int
            H.
        state, x : Tensor, shape (E, S) and (E, I)
        """
        w_x, w_h, bias = self.projections(weight, hidden)
        parts = state.split(hidden, dim=1)
        fed = torch.cat([parts[n] for n in self.fed], dim=1)
        z = (w_x @ x.unsqueeze(2) + w_h @ fed.unsqueeze(2) + bias)[..., 0].split(hidden, dim=1)
        leaves = [leaf(n, value) for n, value in enumerate((*z, *parts))]
        new = self.update(CHANGES, leaves[: len(z)], leaves[len(z) :])
        found = [self._weighed(part, (w_x, w_h), hidden) for part in new]
        ones = torch.ones_like(state[:, :hidden])
        by_state = []
        for part, (_, seen) in zip(new, found, strict=True):
            columns = [torch.diag_embed(0 * ones)] * len(parts)
            for n, block in zip(self.fed, seen.split(hidden, dim=2), strict=True):
                columns[n] = block
            for n in range(len(parts)):
                if len(z) + n in part.by:
                    kept = part.by[len(z) + n]
                    columns[n] = columns[n] + torch.diag_embed(ones if kept is None else kept * ones)
            by_state.append(torch.cat(columns, dim=2))
        return torch.cat([by_x for by_x, _ in found], dim=1), torch.cat(by_state, dim=1)

    @staticmethod
    def _weighed(part: Change, weights: tuple[Tensor, ...], hidden: int) -> list[Tensor]:
        """Return for each weight the sum over rows of ``diag(slope) W``, (E, H, columns)."""
        totals = []
        for weight in weights:
            total = weight.new_zeros(len(weight), hidden, weight.shape[2])
            ones = weight.new_ones(len(weight), hidden)  # some slopes are one number
            for n, block in enumerate(weight.split(hidden, dim=1)):
                if n in part.by:
                    slope = part.by[n]
                    total = total + (block if slope is None else (slope * ones).unsqueeze(2) * block)
            totals.append(total)
        return totals

    def to_module(self, weight: Tensor, hidden: int) -> dict[str, Tensor]:
        """Return the weights (H + I + 1, blocks H) of one network by the names of its module.

        Where a row hears both inputs and state, its bias is once beside the inputs.
        """
        rows = weight.mT.unflatten(0, (self.blocks, hidden))  # (blocks, H, H + I + 1)
        found = {}
        for kind, order in (("ih", self.from_input), ("hh", self.from_state)):
            places = [order.index(place) for place in range(len(order)) if place in order]
            columns = slice(hidden, -1) if kind == "ih" else slice(0, hidden)
            once = [1.0 if kind == "ih" else float(self.from_input[n] is None) for n in places]
            if places:
                found[f"weight_{kind}_l0"] = torch.cat([rows[n][:, columns] for n in places])
                found[f"bias_{kind}_l0"] = torch.cat(
                    [s * rows[n][:, -1] for s, n in zip(once, places, strict=True)]
                )
        return found

    def from_module(self, state: Mapping[str, Tensor], hidden: int) -> Tensor:
        """Return the weights (H + I + 1, blocks H) of a module's."""
        w_ih = state["weight_ih_l0"]
        rows = w_ih.new_zeros(self.blocks, hidden, hidden + w_ih.shape[1] + 1)
        for row, by_x, by_h in zip(rows, self.from_input, self.from_state, strict=True):
            for place, kind, columns in ((by_x, "ih", slice(hidden, -1)), (by_h, "hh", slice(0, hidden))):
                if place is not None:
                    block = slice(place * hidden, (place + 1) * hidden)
                    row[:, columns] = state[f"weight_{kind}_l0"][block]
                    row[:, -1] += state[f"bias_{kind}_l0"][block]
        return rows.flatten(0, 1).mT

    def start(self, weight: Tensor, sources: Sequence[torch.Generator], length: int) -> Tensor | None:
        """Return the weights before training where the cell has a start of its own; None where it has none.

        Parameters
        ----------
        weight : Tensor, shape (E, H + I + 1, H)
            Those of a plain cell.
        sources : sequence of torch.Generator
            One a network.
        length : int
            Time steps that things are to be kept for.
        """
        return None

    def forward(self, z: Tensor, h: Tensor, out: Tensor, memory: tuple[Tensor, ...]) -> None:
        """Turn ``z`` into the gates in place, and write the next h (and memory)."""
        raise NotImplementedError

    def backward(self, z: Tensor, h: Tensor, grad: Tensor, delta: Tensor, memory: tuple[Tensor, ...]) -> bool:
        """Write the gradient by the pre-activations to ``delta`` and what goes past them to ``grad``.

        Returns whether ``grad`` holds something.
        """
        raise NotImplementedError


__all__ = ["Kernel", "State", "tanh_"]
