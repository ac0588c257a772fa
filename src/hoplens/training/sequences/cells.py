"""One time step of E networks as one batch: forwards, backwards, and its Jacobian.

A cell computes from the pre-activations ``z = W_h h + W_x x + b`` of its K rows, which one batched product
gives. Every tensor of a step has shape (E, rows, B), so that a gate is one block of memory a network.
"""

# ruff: noqa: ARG002 - all cells share one signature
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CELLS = ("tanh", "leaky", "gru", "lstm")


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


class TanhCell:
    """``h' = (1 - a) h + a tanh(z)``: the plain (a = 1) and the leaky cell."""

    blocks = 1
    memories = 0  # states beside h that a step hands on

    def __init__(self, leak: float = 1.0) -> None:
        self.leak = leak

    def step(self, z: Tensor, h: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the next h and memory; differentiable."""
        new = z.tanh()
        return (new if self.leak == 1 else torch.lerp(h, new, self.leak)), memory

    def forward(self, z: Tensor, h: Tensor, out: Tensor, memory: tuple[Tensor, ...]) -> None:
        """Turn ``z`` into the activations, in place, and write the next h."""
        tanh_(z)
        if self.leak == 1:
            out.copy_(z)
        else:
            torch.lerp(h, z, self.leak, out=out)

    def backward(self, z: Tensor, h: Tensor, grad: Tensor, delta: Tensor, memory: tuple[Tensor, ...]) -> bool:
        """Write the gradient by the pre-activations to ``delta`` and what goes past them to ``grad``.

        Returns whether ``grad`` holds something.
        """
        torch.ops.aten.tanh_backward.grad_input(grad, z, grad_input=delta)
        if self.leak == 1:
            return False
        delta.mul_(self.leak)
        grad.mul_(1 - self.leak)
        return True

    def slopes(self, z: Tensor, h: Tensor, memory: Tensor | None) -> Slopes:
        """Return the Jacobian where the pre-activations (E, K) and the state (E, H) are these."""
        gate = self.leak * (1 - z.tanh().square())
        return Slopes(gate.unsqueeze(1), torch.full_like(h, 1 - self.leak))


class GruCell:
    """``h' = n + u (h - n)``, ``n = tanh(z_x + r z_h)``; rows r, u, z_x, z_h.

    The rows z_x see the input only and the rows z_h the state only, as in torch's GRU, whose update gate
    u is there called z.
    """

    blocks = 4
    memories = 0

    def step(self, z: Tensor, h: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the next h and memory; differentiable."""
        z_r, z_u, z_x, z_h = z.chunk(4, dim=1)
        new = torch.tanh(z_x + z_r.sigmoid() * z_h)
        return torch.lerp(new, h, z_u.sigmoid()), memory

    def forward(self, z: Tensor, h: Tensor, out: Tensor, memory: tuple[Tensor, ...]) -> None:
        """Turn ``z`` into r, u, n, z_h in place and write the next h."""
        size = h.shape[1]
        z[:, : 2 * size].sigmoid_()
        r, u, n, z_h = z.split(size, dim=1)
        tanh_(n.addcmul_(r, z_h))
        torch.lerp(n, h, u, out=out)

    def backward(self, z: Tensor, h: Tensor, grad: Tensor, delta: Tensor, memory: tuple[Tensor, ...]) -> bool:
        """Write the gradient by the pre-activations to ``delta`` and what goes past them to ``grad``."""
        size = h.shape[1]
        r, u, n, z_h = z.split(size, dim=1)
        d_r, d_u, d_x, d_h = delta.split(size, dim=1)
        torch.sub(h, n, out=d_u).mul_(grad)
        torch.addcmul(grad, grad, u, value=-1.0, out=d_x)
        torch.ops.aten.tanh_backward.grad_input(d_x, n, grad_input=d_x)
        torch.mul(d_x, r, out=d_h)
        torch.mul(d_x, z_h, out=d_r)
        gates = delta[:, : 2 * size]
        torch.ops.aten.sigmoid_backward.grad_input(gates, z[:, : 2 * size], grad_input=gates)
        grad.mul_(u)
        return True

    def slopes(self, z: Tensor, h: Tensor, memory: Tensor | None) -> Slopes:
        """Return the Jacobian where the pre-activations (E, K) and the state (E, H) are these."""
        z_r, z_u, z_x, z_h = z.chunk(4, dim=1)
        r, u = z_r.sigmoid(), z_u.sigmoid()
        n = torch.tanh(z_x + r * z_h)
        by_n = (1 - u) * (1 - n * n)
        return Slopes(
            torch.stack([by_n * z_h * r * (1 - r), (h - n) * u * (1 - u), by_n, by_n * r], dim=1), u
        )


class LstmCell:
    """``c' = f c + i g``, ``h' = o tanh(c')``; rows i, f, o, g (torch's order is i, f, g, o)."""

    blocks = 4
    memories = 1

    def step(self, z: Tensor, h: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the next h and c; differentiable."""
        z_i, z_f, z_o, z_g = z.chunk(4, dim=1)
        assert memory is not None
        c = z_f.sigmoid() * memory + z_i.sigmoid() * z_g.tanh()
        return z_o.sigmoid() * c.tanh(), c

    def forward(self, z: Tensor, h: Tensor, out: Tensor, memory: tuple[Tensor, ...]) -> None:
        """Turn ``z`` into the gates in place; write the next h, c and tanh(c)."""
        size = h.shape[1]
        c, c_next, squashed = memory
        z[:, : 3 * size].sigmoid_()
        i, f, o, g = z.split(size, dim=1)
        tanh_(g)
        torch.mul(f, c, out=c_next).addcmul_(i, g)
        tanh_(squashed.copy_(c_next))
        torch.mul(o, squashed, out=out)

    def backward(self, z: Tensor, h: Tensor, grad: Tensor, delta: Tensor, memory: tuple[Tensor, ...]) -> bool:
        """Write the gradient by the pre-activations to ``delta`` and that by c to its place in ``memory``."""
        size = h.shape[1]
        c, squashed, grad_c = memory
        i, f, o, g = z.split(size, dim=1)
        d_i, d_f, d_o, d_g = delta.split(size, dim=1)
        torch.mul(grad, squashed, out=d_o)
        grad.mul_(o)
        torch.ops.aten.tanh_backward.grad_input(grad, squashed, grad_input=grad)
        grad_c.add_(grad)
        torch.mul(grad_c, g, out=d_i)
        torch.mul(grad_c, c, out=d_f)
        torch.mul(grad_c, i, out=d_g)
        gates = delta[:, : 3 * size]
        torch.ops.aten.sigmoid_backward.grad_input(gates, z[:, : 3 * size], grad_input=gates)
        torch.ops.aten.tanh_backward.grad_input(d_g, g, grad_input=d_g)
        grad_c.mul_(f)
        return False

    def slopes(self, z: Tensor, h: Tensor, memory: Tensor | None) -> Slopes:
        """Return the Jacobian where the pre-activations (E, K) and the state (E, H) twice are these."""
        z_i, z_f, z_o, z_g = z.chunk(4, dim=1)
        assert memory is not None
        i, f, o, g = z_i.sigmoid(), z_f.sigmoid(), z_o.sigmoid(), z_g.tanh()
        squashed = torch.tanh(f * memory + i * g)
        gates = [g * i * (1 - i), memory * f * (1 - f), torch.zeros_like(g), i * (1 - g * g)]
        return Slopes(torch.stack(gates, dim=1), f, o * (1 - squashed * squashed), squashed * o * (1 - o))


AnyCell = TanhCell | GruCell | LstmCell


def make_cell(name: str, leak: float) -> AnyCell:
    """Return the cell of this name."""
    if name == "gru":
        return GruCell()
    return LstmCell() if name == "lstm" else TanhCell(leak if name == "leaky" else 1.0)


__all__ = ["CELLS", "AnyCell", "GruCell", "LstmCell", "Slopes", "TanhCell", "make_cell", "tanh_"]
