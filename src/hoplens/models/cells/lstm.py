"""PyTorch's LSTM."""

# ruff: noqa: ARG002 - all kernels share one signature
from __future__ import annotations

import torch
from torch import Tensor

from hoplens.models.cells.base import Saved
from hoplens.models.cells.kernels import Slopes, tanh_
from hoplens.models.cells.weights import WeightCell
from hoplens.models.tensors import check_weight


class LstmCell(WeightCell):
    """PyTorch's LSTM with state [h, c], and its projection ``h = W_hr (o tanh c)`` where it has one.

    Parameters
    ----------
    w_ih, w_hh : Tensor, shape (4H, I) and (4H, P), gates in torch's order i, f, g, o
    b_ih, b_hh : Tensor, shape (4H,), optional
    w_hr : Tensor, shape (P, H), optional
        Projection; without it P = H.
    label : str
    """

    gates = 4

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
        super().__init__(w_ih, w_hh, b_ih, b_hh, label=label, projected=w_hr is not None)
        if w_hr is not None:
            check_weight(f"weight_hr of the {label}", w_hr, (w_hh.shape[1], self.hidden))
            self.check_one_kind(label, [w_hh, w_hr])
        self.w_hr = w_hr
        self.shown = w_hh.shape[1]  # P, the size of h
        self.n_state = self.shown + self.hidden

    @property
    def unit_names(self) -> tuple[str, ...]:
        """Names ``h0, ...`` of the visible states, then ``c0, ...`` of the cells."""
        return (*(f"h{j}" for j in range(self.shown)), *(f"c{j}" for j in range(self.hidden)))

    def emission(self) -> Tensor:
        """Return the selection of h out of [h, c]."""
        return torch.eye(self.shown, self.n_state, dtype=self.w_hh.dtype, device=self.w_hh.device)

    def emit(self, state: Tensor) -> Tensor:
        """Return h.

        Parameters
        ----------
        state : Tensor, shape (..., S)
        """
        return state[..., : self.shown]

    def _gates(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        h, c = state.split([self.shown, self.hidden], dim=-1)
        z = x @ self.w_ih.mT + h @ self.w_hh.mT + (self.b_ih + self.b_hh)
        z_i, z_f, z_g, z_o = z.chunk(4, dim=-1)
        i, f, o = torch.sigmoid(z_i), torch.sigmoid(z_f), torch.sigmoid(z_o)
        g = torch.tanh(z_g)
        return i, f, g, o, c, f * c + i * g

    def step(self, state: Tensor, x: Tensor) -> Tensor:
        """Take one step.

        Parameters
        ----------
        state : Tensor, shape (..., S)
        x : Tensor, shape (..., I)
        """
        *_, o, _, new = self._gates(state, x)
        h = o * new.tanh()
        return torch.cat([h if self.w_hr is None else h @ self.w_hr.mT, new], dim=-1)

    def save(self, state: Tensor, x: Tensor) -> Saved:
        """Return the slopes of c' by the gates i, f, g (..., 3, H), of o tanh(c') by c' and o, and f.

        Parameters
        ----------
        state : Tensor, shape (..., S)
        x : Tensor, shape (..., I)
        """
        i, f, g, o, c, new = self._gates(state, x)
        squashed = new.tanh()
        slopes = torch.stack([g * i * (1 - i), c * f * (1 - f), i * (1 - g * g)], dim=-2)
        return slopes, o * (1 - squashed * squashed), squashed * o * (1 - o), f

    def pull(self, saved: Saved, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply rows by the Jacobians.

        Parameters
        ----------
        saved : tuple of Tensor
            What ``save`` returned for these points.
        rows : Tensor, shape (..., R, S)
        """
        slopes, by_cell, by_o, f = saved
        rows_h, rows_c = rows.split([self.shown, self.hidden], dim=-1)
        if self.w_hr is not None:
            rows_h = rows_h @ self.w_hr
        rows_c = rows_c + rows_h * by_cell.unsqueeze(-2)
        inner = (rows_c.unsqueeze(-2) * slopes.unsqueeze(-3)).flatten(-2)  # (..., R, 3H)
        inner = torch.cat([inner, rows_h * by_o.unsqueeze(-2)], dim=-1)
        by_state = torch.cat([inner @ self.w_hh, rows_c * f.unsqueeze(-2)], dim=-1)
        return by_state, inner @ self.w_ih

    def to(self, target: torch.dtype | torch.device) -> LstmCell:
        """Return the cell on another device or in another dtype.

        Parameters
        ----------
        target : torch.dtype or torch.device
        """
        w_hr = None if self.w_hr is None else self.w_hr.to(target)
        w_ih, w_hh, b_ih, b_hh = self.moved(target)
        return LstmCell(w_ih, w_hh, b_ih, b_hh, w_hr, label=self.label)


class LstmKernel:
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


__all__ = ["LstmCell", "LstmKernel"]
