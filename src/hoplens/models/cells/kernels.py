"""One time step of E networks as one batch: forwards, backwards, and its Jacobian.

The kernel of a cell computes from the pre-activations ``z = W_h h + W_x x + b`` of its K rows, which one
batched product gives. Every tensor of a step has shape (E, rows, B), so that a gate is one block of memory a
network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from hoplens.models.cells.algebra import TensorOps
from hoplens.models.cells.weights import Equations

ROWS = TensorOps(axis=1)


class Slopes(NamedTuple):
    """A step's Jacobian at a point, as what multiplies the weights and what is kept of the state.

    With W_h (E, K, H) and W_x (E, K, I) the Jacobians by h and x are ``sum over row blocks of
    diag(gates) W`` (+ ``diag(keep)`` by the cell's own memory).
    """

    gates: Tensor  # (E, blocks, H): slope of the memory by the rows of each block
    keep: Tensor  # (E, H): slope of the memory by the memory before
    shown: Tensor | None = None  # (E, H): slope of h by the memory, where the two differ (LSTM)
    output: Tensor | None = None  # (E, H): slope of h by the rows of the last block (LSTM's output gate)


def tanh_(z: Tensor) -> Tensor:
    """Put tanh in the place of ``z``; as 2 sigmoid(2 z) - 1, which PyTorch computes three times as fast."""
    return z.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)


class Kernel(Equations):
    """A cell's step for many networks at once, with the gradient written by hand.

    Attributes
    ----------
    module : type of nn.Module
        What one network becomes.
    """

    module: type[nn.Module]

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

    def step(self, z: Tensor, h: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the next h and memory; differentiable."""
        state: Sequence[Tensor] = (h,) if memory is None else (h, memory)
        new = self.update(ROWS, ROWS.split(z, len(self.from_input)), state)
        return new[0], new[1] if len(new) > 1 else None

    def forward(self, z: Tensor, h: Tensor, out: Tensor, memory: tuple[Tensor, ...]) -> None:
        """Turn ``z`` into the gates in place, and write the next h (and memory)."""
        raise NotImplementedError

    def backward(self, z: Tensor, h: Tensor, grad: Tensor, delta: Tensor, memory: tuple[Tensor, ...]) -> bool:
        """Write the gradient by the pre-activations to ``delta`` and what goes past them to ``grad``.

        Returns whether ``grad`` holds something.
        """
        raise NotImplementedError

    def slopes(self, z: Tensor, h: Tensor, memory: Tensor | None) -> Slopes:
        """Return the Jacobian where the pre-activations (E, K) and the state (E, H) are these."""
        raise NotImplementedError


__all__ = ["Kernel", "Slopes", "tanh_"]
