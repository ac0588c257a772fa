"""PyTorch's GRU."""

# ruff: noqa: ARG002 - all kernels share one signature
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hoplens.models.cells.algebra import Ops, V
from hoplens.models.cells.kernels import Kernel, tanh_
from hoplens.models.cells.weights import Equations, Operator, WeightCell


class GruEquations(Equations):
    """``h' = n + u (h - n)``, ``n = tanh(x_n + r h_n)``; rows r, u, x_n, h_n.

    The candidate's rows see the input only and the state only. The update gate u is called z in torch.
    """

    from_input = (0, 1, 2, None)
    from_state = (0, 1, None, 2)

    def update(self, ops: Ops[V], rows: Sequence[V], state: Sequence[V]) -> tuple[V, ...]:
        """Return the next h."""
        r, u = (ops.apply("sigmoid", row) for row in rows[:2])
        n = ops.apply("tanh", ops.add(rows[2], ops.mul(r, rows[3])))
        return (ops.mix(u, state[0], n),)


class GruCell(GruEquations, WeightCell):
    """PyTorch's GRU: ``h' = (1 - z) n + z h``, ``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``.

    Parameters
    ----------
    w_ih, w_hh : Tensor, shape (3H, I) and (3H, H), gates in torch's order r, z, n
    b_ih, b_hh : Tensor, shape (3H,), optional
    label : str
    """

    def __init__(
        self,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
        *,
        label: str = "GRU",
    ) -> None:
        super().__init__(w_ih, w_hh, b_ih, b_hh, label=label)

    def operator(self) -> Operator:
        """Return ONNX's GRU: z, r, n."""
        return Operator("GRU", (1, 0, 2), {"linear_before_reset": 1})

    def torch_kernel(self) -> Callable[..., Any]:
        """Return PyTorch's run over time."""
        return torch.gru


class GruKernel(GruEquations, Kernel):
    """``h' = n + u (h - n)``, ``n = tanh(z_x + r z_h)``; rows r, u, z_x, z_h.

    The rows z_x see the input only and the rows z_h the state only, as in torch's GRU, whose update gate
    u is there called z.
    """

    module = nn.GRU

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


__all__ = ["GruCell", "GruKernel"]
