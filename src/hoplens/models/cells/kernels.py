"""One time step of E networks as one batch: forwards, backwards, and its Jacobian.

The kernel of a cell computes from the pre-activations ``z = W_h h + W_x x + b`` of its K rows, which one
batched product gives. Every tensor of a step has shape (E, rows, B), so that a gate is one block of memory a
network.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


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


__all__ = ["Slopes", "tanh_"]
