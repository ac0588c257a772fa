"""PyTorch's GRU."""

# ruff: noqa: ARG002 - all kernels share one signature
from __future__ import annotations

import torch
from torch import Tensor

from hoplens.models.cells.base import Saved
from hoplens.models.cells.kernels import Slopes, tanh_
from hoplens.models.cells.weights import WeightCell


class GruCell(WeightCell):
    """PyTorch's GRU: ``h' = (1 - z) n + z h``, ``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``.

    Parameters
    ----------
    w_ih, w_hh : Tensor, shape (3H, I) and (3H, H), gates in torch's order r, z, n
    b_ih, b_hh : Tensor, shape (3H,), optional
    label : str
    """

    gates = 3

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

    def _gates(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        i_r, i_z, i_n = (x @ self.w_ih.mT + self.b_ih).chunk(3, dim=-1)
        h_r, h_z, h_n = (state @ self.w_hh.mT + self.b_hh).chunk(3, dim=-1)
        r, z = torch.sigmoid(i_r + h_r), torch.sigmoid(i_z + h_z)
        return r, z, torch.tanh(i_n + r * h_n), h_n

    def step(self, state: Tensor, x: Tensor) -> Tensor:
        """Take one step.

        Parameters
        ----------
        state : Tensor, shape (..., S)
        x : Tensor, shape (..., I)
        """
        _, z, n, _ = self._gates(state, x)
        return n + z * (state - n)

    def save(self, state: Tensor, x: Tensor) -> Saved:
        """Return d h' / d (gate before its nonlinearity) for r, z, n, (..., 3, H), with r and z.

        Parameters
        ----------
        state : Tensor, shape (..., S)
        x : Tensor, shape (..., I)
        """
        r, z, n, h_n = self._gates(state, x)
        by_n = (1 - z) * (1 - n * n)
        slopes = torch.stack([by_n * h_n * r * (1 - r), (state - n) * z * (1 - z), by_n], dim=-2)
        return slopes, r, z

    def pull(self, saved: Saved, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply rows by the Jacobians.

        Parameters
        ----------
        saved : tuple of Tensor
            What ``save`` returned for these points.
        rows : Tensor, shape (..., R, S)
        """
        slopes, r, z = saved
        inner = rows.unsqueeze(-2) * slopes.unsqueeze(-3)  # (..., R, 3, H)
        by_x = inner.flatten(-2) @ self.w_ih
        # the reset gate scales what the candidate sees of the state, not of the input
        seen = torch.cat([inner[..., :2, :].flatten(-2), inner[..., 2, :] * r.unsqueeze(-2)], dim=-1)
        return seen @ self.w_hh + rows * z.unsqueeze(-2), by_x

    def to(self, target: torch.dtype | torch.device) -> GruCell:
        """Return the cell on another device or in another dtype.

        Parameters
        ----------
        target : torch.dtype or torch.device
        """
        return GruCell(*self.moved(target), label=self.label)


class GruKernel:
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


__all__ = ["GruCell", "GruKernel"]
