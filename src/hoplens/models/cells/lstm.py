"""PyTorch's LSTM."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hoplens.models.cells.algebra import Ops, V
from hoplens.models.cells.kernels import Kernel, tanh_
from hoplens.models.cells.weights import Equations, Operator, WeightCell


class LstmEquations(Equations):
    """``c' = f c + i g``, ``h' = o tanh(c')``; rows i, f, o, g (torch's order is i, f, g, o)."""

    from_input = from_state = (0, 1, 3, 2)
    parts = ("h", "c")

    def update(self, ops: Ops[V], rows: Sequence[V], state: Sequence[V]) -> tuple[V, ...]:
        """Return the next h and c."""
        i, f, o = (ops.apply("sigmoid", row) for row in rows[:3])
        c = ops.add(ops.mul(f, state[1]), ops.mul(i, ops.apply("tanh", rows[3])))
        return ops.mul(o, ops.apply("tanh", c)), c


class LstmCell(LstmEquations, WeightCell):
    """PyTorch's LSTM with state [h, c], and its projection ``h = W_hr (o tanh c)`` where it has one.

    Parameters
    ----------
    w_ih, w_hh : Tensor, shape (4H, I) and (4H, P), gates in torch's order i, f, g, o
    b_ih, b_hh : Tensor, shape (4H,), optional
    w_hr : Tensor, shape (P, H), optional
        Projection; without it P = H.
    label : str
    """

    def __init__(
        self,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
        w_hr: Tensor | None = None,
        *,
        label: str = "LSTM",
    ) -> None:
        super().__init__(w_ih, w_hh, b_ih, b_hh, w_hr, label=label)

    def operator(self) -> Operator | None:
        """Return ONNX's LSTM: i, o, f, g; it knows no projection."""
        return None if self.w_hr is not None else Operator("LSTM", (0, 3, 1, 2))


class LstmKernel(LstmEquations, Kernel):
    """``c' = f c + i g``, ``h' = o tanh(c')``; rows i, f, o, g (torch's order is i, f, g, o)."""

    module = nn.LSTM

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


__all__ = ["LstmCell", "LstmKernel"]
