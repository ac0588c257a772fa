"""The recurrent cells of PyTorch, with the products by their Jacobians written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hoplens.errors import ParameterError, ShapeError, check_choice
from hoplens.graph.parts import Leak
from hoplens.models.cells import Cell, Saved
from hoplens.models.tensors import check_weight

NONLINEARITIES = ("tanh", "relu", "linear")


class _WeightCell(Cell):
    """A cell of PyTorch: gates times hidden weights, biases folded where that is exact."""

    gates = 1

    def __init__(
        self,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None,
        b_hh: Tensor | None,
        *,
        label: str,
        projected: bool = False,
    ) -> None:
        check_weight(f"weight_ih of the {label}", w_ih)
        check_weight(f"weight_hh of the {label}", w_hh)
        rows = w_ih.shape[0] if w_ih.dim() == 2 else 0
        hidden = rows // self.gates
        shown = w_hh.shape[-1] if projected else hidden
        if not rows or rows % self.gates or w_hh.shape != (rows, shown) or 0 in (w_ih.shape[1], shown):
            width = "P" if projected else "H"
            raise ShapeError(
                f"{label} needs weights ({self.gates} H, I) and ({self.gates} H, {width}), "
                f"none of these sizes 0, got {tuple(w_ih.shape)} and {tuple(w_hh.shape)}"
            )
        for name, bias in (("bias_ih", b_ih), ("bias_hh", b_hh)):
            if bias is not None:
                check_weight(f"{name} of the {label}", bias, (rows,))
        self._one_kind(label, [block for block in (w_ih, w_hh, b_ih, b_hh) if block is not None])
        super().__init__(w_ih.shape[1], hidden, label=label)
        self.hidden = hidden
        self.w_ih, self.w_hh = w_ih, w_hh
        self.b_ih = w_ih.new_zeros(w_ih.shape[0]) if b_ih is None else b_ih
        self.b_hh = w_ih.new_zeros(w_ih.shape[0]) if b_hh is None else b_hh

    @staticmethod
    def _one_kind(label: str, blocks: list[Tensor]) -> None:
        kinds = {(block.dtype, block.device) for block in blocks}
        if len(kinds) > 1:
            came = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
            raise ShapeError(f"all weights of a {label} must have one dtype and device, got {came}")

    def _arguments(self, target: torch.dtype | torch.device) -> list[Tensor]:
        return [block.to(target) for block in (self.w_ih, self.w_hh, self.b_ih, self.b_hh)]


class RnnCell(_WeightCell):
    """``h' = (1 - a) h + a f(W_hh h + W_ih x + b)``, the plain (a = 1) or leaky recurrent cell.

    Parameters
    ----------
    w_ih, w_hh : Tensor, shape (H, I) and (H, H)
    b_ih, b_hh : Tensor, shape (H,), optional
    nonlinearity : {"tanh", "relu", "linear"}
        f.
    leak : float or Tensor, shape (H,), default 1
        a = dt / tau, the Euler step of ``tau dh/dt = -h + f(...)``.
    label : str
    """

    def __init__(
        self,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
        *,
        nonlinearity: str = "tanh",
        leak: float | Tensor = 1.0,
        label: str = "leaky RNN",
    ) -> None:
        super().__init__(w_ih, w_hh, b_ih, b_hh, label=label)
        self.nonlinearity = check_choice("nonlinearity", nonlinearity, NONLINEARITIES)
        # a plain cell is known as such without a look at a tensor, which on a GPU would wait for it
        plain = not isinstance(leak, Tensor) and leak == 1
        self.leak = 1.0 if plain else torch.as_tensor(leak, dtype=w_ih.dtype, device=w_ih.device)
        self.leaky = not plain and bool((torch.as_tensor(self.leak) != 1).any())

    def _activation(self, state: Tensor, x: Tensor) -> Tensor:
        z = x @ self.w_ih.mT + state @ self.w_hh.mT + (self.b_ih + self.b_hh)
        if self.nonlinearity == "tanh":
            return z.tanh()
        return z.relu() if self.nonlinearity == "relu" else z

    def step(self, state: Tensor, x: Tensor) -> Tensor:
        """Take one step.

        Parameters
        ----------
        state : Tensor, shape (..., S)
        x : Tensor, shape (..., I)
        """
        new = self._activation(state, x)
        return (1 - self.leak) * state + self.leak * new if self.leaky else new

    def raw(self) -> tuple[Tensor, Tensor]:
        """Return ``(1 - a) I + a W_hh`` and ``a W_ih``: f replaced by the identity."""
        if not self.leaky:
            return self.w_hh, self.w_ih
        leak = torch.as_tensor(self.leak).expand(self.hidden)
        stay, leak = torch.diag_embed(1 - leak), leak[:, None]
        return stay + leak * self.w_hh, leak * self.w_ih

    def leaking(self) -> Leak | None:
        """Return 1 - a and a of the units; None of plain ones."""
        if not self.leaky:
            return None
        leak = torch.as_tensor(self.leak).expand(self.hidden)
        return Leak(1 - leak, leak)

    def save(self, state: Tensor, x: Tensor) -> Saved:
        """Return a times the slope of f at each unit.

        Parameters
        ----------
        state : Tensor, shape (..., S)
        x : Tensor, shape (..., I)
        """
        new = self._activation(state, x)
        if self.nonlinearity == "tanh":
            slope = 1 - new * new
        else:
            slope = (new > 0).to(new) if self.nonlinearity == "relu" else torch.ones_like(new)
        return (self.leak * slope if self.leaky else slope,)

    def pull(self, saved: Saved, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply rows by the Jacobians.

        Parameters
        ----------
        saved : tuple of Tensor
            What ``save`` returned for these points.
        rows : Tensor, shape (..., R, S)
        """
        inner = rows * saved[0].unsqueeze(-2)
        by_state = inner @ self.w_hh
        if self.leaky:
            by_state = by_state + rows * (1 - self.leak)
        return by_state, inner @ self.w_ih

    def to(self, target: torch.dtype | torch.device) -> RnnCell:
        """Return the cell on another device or in another dtype.

        Parameters
        ----------
        target : torch.dtype or torch.device
        """
        return RnnCell(
            *self._arguments(target),
            nonlinearity=self.nonlinearity,
            leak=self.leak.to(target) if isinstance(self.leak, Tensor) else self.leak,
            label=self.label,
        )


class GruCell(_WeightCell):
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
        return GruCell(*self._arguments(target), label=self.label)


class LstmCell(_WeightCell):
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
            self._one_kind(label, [w_hh, w_hr])
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
        w_ih, w_hh, b_ih, b_hh = self._arguments(target)
        return LstmCell(w_ih, w_hh, b_ih, b_hh, w_hr, label=self.label)


def leak_of(dt: Any, tau: Any) -> Tensor:
    """Return a = dt / tau after checking that it lies in (0, 1]."""
    leak = torch.as_tensor(dt, dtype=torch.float64) / torch.as_tensor(tau, dtype=torch.float64)
    if not bool(((leak > 0) & (leak <= 1)).all()):
        raise ParameterError(
            f"dt / tau must lie in (0, 1] for every unit, got {leak.min():g} .. {leak.max():g}; take a "
            "shorter dt"
        )
    return leak


__all__ = ["GruCell", "LstmCell", "RnnCell", "leak_of"]
