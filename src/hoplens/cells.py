"""Recurrent cells: one step forward, and exact rows of its Jacobian.

The protocol that readers speak. A cell that only defines `Cell.step` gets its Jacobian products from
torch.func; the cells of PyTorch have theirs written out, which is faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hoplens.errors import ParameterError, ShapeError, check_choice, check_count

NONLINEARITIES = ("tanh", "relu", "linear")
Saved = tuple[Tensor, ...]


class Cell:
    """One recurrent layer: ``state_t = step(state_(t-1), x_t)`` with a flat state of S numbers.

    To teach hoplens a layer of your own, subclass and define ``step`` (plain tensor operations, any
    leading axes); the rest is derived by torch.func. Where the next layer or the read-out sees only part
    of the state, or a projection of it, override ``emission``.

    Parameters
    ----------
    n_inputs, n_state : int
        Sizes I and S.
    label : str
        What messages and provenance call it.
    """

    n_inputs: int
    n_state: int
    label: str

    def __init__(self, n_inputs: int, n_state: int, *, label: str = "user cell") -> None:
        self.n_inputs = check_count("n_inputs", n_inputs)
        self.n_state = check_count("n_state", n_state)
        self.label = label

    @property
    def n_outputs(self) -> int:
        """Number of values that the next layer or the read-out sees."""
        emission = self.emission()
        return self.n_state if emission is None else emission.shape[0]

    @property
    def unit_names(self) -> tuple[str, ...]:
        """Names of the S numbers of the state."""
        return tuple(f"h{j}" for j in range(self.n_state))

    def step(self, state: Tensor, x: Tensor) -> Tensor:
        """Return the next state, shape (..., S), from the state (..., S) and the input (..., I)."""
        raise NotImplementedError(f"{type(self).__name__} must define step(state, x)")

    def emission(self) -> Tensor | None:
        """Return the matrix from state to what is passed on, shape (n_outputs, S); None: all of it."""
        return None

    def emit(self, state: Tensor) -> Tensor:
        """Return what is passed on, shape (..., n_outputs)."""
        emission = self.emission()
        return state if emission is None else state @ emission.mT

    def raw(self) -> tuple[Tensor, Tensor] | None:
        """Return the blocks (S, S) and (S, I) read off the bare weights; None where there are none."""
        return None

    def save(self, state: Tensor, x: Tensor) -> Saved:
        """Return all that ``pull`` needs of the points (..., S) and (..., I), leading axes kept."""
        return (state, x)

    def pull(self, saved: Saved, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply rows (..., R, S) from the right by the step's two Jacobians.

        Returns
        -------
        tuple of Tensor
            ``rows d state' / d state`` of shape (..., R, S), and ``rows d state' / d x`` of shape
            (..., R, I).
        """
        state, x = saved
        leading = torch.broadcast_shapes(state.shape[:-1], rows.shape[:-2])
        flat_state = state.expand(*leading, self.n_state).reshape(-1, self.n_state)
        flat_x = x.expand(*leading, self.n_inputs).reshape(-1, self.n_inputs)
        flat_rows = rows.expand(*leading, *rows.shape[-2:]).reshape(-1, *rows.shape[-2:])
        # One sample's step depends on no other sample, so a product for all samples at once is exact.
        product = torch.func.vjp(self.step, flat_state, flat_x)[1]
        by_state, by_x = torch.func.vmap(product, in_dims=1, out_dims=1)(flat_rows)
        return by_state.reshape(*leading, -1, self.n_state), by_x.reshape(*leading, -1, self.n_inputs)

    def to(self, target: torch.dtype | torch.device) -> Cell:  # noqa: ARG002 - subclasses use it
        """Return the cell on another device or in another dtype; a cell without tensors is itself."""
        return self


class FunctionCell(Cell):
    """A cell given as a function ``(state, input) -> state``.

    Parameters
    ----------
    function : callable
        Takes a state (..., S) and an input (..., I), returns the next state (..., S); plain tensor
        operations that torch.func can differentiate.
    n_inputs, n_state : int
        Sizes I and S.
    label : str, default "user cell"
    """

    def __init__(
        self, function: Callable[[Tensor, Tensor], Tensor], *, n_inputs: int, n_state: int, label: str = ""
    ) -> None:
        super().__init__(n_inputs, n_state, label=label or getattr(function, "__name__", "user cell"))
        self.function = function

    def step(self, state: Tensor, x: Tensor) -> Tensor:
        """Apply the function."""
        new = self.function(state, x)
        if not isinstance(new, Tensor) or new.shape != state.shape:
            came = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise ShapeError(
                f"a cell must return the next state in the shape of the state, {tuple(state.shape)}, got "
                f"{came}; concatenate several states into one"
            )
        return new


class _WeightCell(Cell):
    """A cell of PyTorch: gates times hidden weights, biases folded where that is exact."""

    gates = 1

    def __init__(
        self, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None, *, label: str
    ) -> None:
        hidden = w_ih.shape[0] // self.gates
        if w_ih.dim() != 2 or w_hh.dim() != 2 or w_ih.shape[0] != w_hh.shape[0] or w_ih.shape[0] % self.gates:
            raise ShapeError(
                f"{label} needs weights ({self.gates} H, I) and ({self.gates} H, H), got {tuple(w_ih.shape)} "
                f"and {tuple(w_hh.shape)}"
            )
        super().__init__(w_ih.shape[1], hidden, label=label)
        zero = w_ih.new_zeros(w_ih.shape[0])
        self.hidden = hidden
        self.w_ih, self.w_hh = w_ih, w_hh
        self.b_ih = zero if b_ih is None else b_ih
        self.b_hh = zero if b_hh is None else b_hh

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
        self.leak = torch.as_tensor(leak, dtype=w_ih.dtype, device=w_ih.device)
        self.leaky = bool((self.leak != 1).any())

    def _activation(self, state: Tensor, x: Tensor) -> Tensor:
        z = x @ self.w_ih.mT + state @ self.w_hh.mT + (self.b_ih + self.b_hh)
        if self.nonlinearity == "tanh":
            return z.tanh()
        return z.relu() if self.nonlinearity == "relu" else z

    def step(self, state: Tensor, x: Tensor) -> Tensor:
        """Take one step."""
        new = self._activation(state, x)
        return (1 - self.leak) * state + self.leak * new if self.leaky else new

    def raw(self) -> tuple[Tensor, Tensor]:
        """Return ``(1 - a) I + a W_hh`` and ``a W_ih``: f replaced by the identity."""
        if not self.leaky:
            return self.w_hh, self.w_ih
        stay = torch.diag_embed((1 - self.leak).expand(self.hidden))
        leak = self.leak.expand(self.hidden)[:, None]
        return stay + leak * self.w_hh, leak * self.w_ih

    def save(self, state: Tensor, x: Tensor) -> Saved:
        """Return a times the slope of f at each unit."""
        new = self._activation(state, x)
        if self.nonlinearity == "tanh":
            slope = 1 - new * new
        else:
            slope = (new > 0).to(new) if self.nonlinearity == "relu" else torch.ones_like(new)
        return (self.leak * slope if self.leaky else slope,)

    def pull(self, saved: Saved, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply rows by the Jacobians."""
        inner = rows * saved[0].unsqueeze(-2)
        by_state = inner @ self.w_hh
        if self.leaky:
            by_state = by_state + rows * (1 - self.leak)
        return by_state, inner @ self.w_ih

    def to(self, target: torch.dtype | torch.device) -> RnnCell:
        """Return the cell on another device or in another dtype."""
        return RnnCell(
            *self._arguments(target),
            nonlinearity=self.nonlinearity,
            leak=self.leak.to(target),
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
        """Take one step."""
        _, z, n, _ = self._gates(state, x)
        return n + z * (state - n)

    def save(self, state: Tensor, x: Tensor) -> Saved:
        """Return d h' / d (gate before its nonlinearity) for r, z, n, (..., 3, H), with r and z."""
        r, z, n, h_n = self._gates(state, x)
        by_n = (1 - z) * (1 - n * n)
        slopes = torch.stack([by_n * h_n * r * (1 - r), (state - n) * z * (1 - z), by_n], dim=-2)
        return slopes, r, z

    def pull(self, saved: Saved, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply rows by the Jacobians."""
        slopes, r, z = saved
        inner = rows.unsqueeze(-2) * slopes.unsqueeze(-3)  # (..., R, 3, H)
        by_x = inner.flatten(-2) @ self.w_ih
        # the reset gate scales what the candidate sees of the state, not of the input
        seen = torch.cat([inner[..., :2, :].flatten(-2), inner[..., 2, :] * r.unsqueeze(-2)], dim=-1)
        return seen @ self.w_hh + rows * z.unsqueeze(-2), by_x

    def to(self, target: torch.dtype | torch.device) -> GruCell:
        """Return the cell on another device or in another dtype."""
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
        super().__init__(w_ih, w_hh, b_ih, b_hh, label=label)
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
        """Return h."""
        return state[..., : self.shown]

    def _gates(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        h, c = state.split([self.shown, self.hidden], dim=-1)
        z = x @ self.w_ih.mT + h @ self.w_hh.mT + (self.b_ih + self.b_hh)
        z_i, z_f, z_g, z_o = z.chunk(4, dim=-1)
        i, f, o = torch.sigmoid(z_i), torch.sigmoid(z_f), torch.sigmoid(z_o)
        g = torch.tanh(z_g)
        return i, f, g, o, c, f * c + i * g

    def step(self, state: Tensor, x: Tensor) -> Tensor:
        """Take one step."""
        *_, o, _, new = self._gates(state, x)
        h = o * new.tanh()
        return torch.cat([h if self.w_hr is None else h @ self.w_hr.mT, new], dim=-1)

    def save(self, state: Tensor, x: Tensor) -> Saved:
        """Return the slopes of c' by the gates i, f, g (..., 3, H), of o tanh(c') by c' and o, and f."""
        i, f, g, o, c, new = self._gates(state, x)
        squashed = new.tanh()
        slopes = torch.stack([g * i * (1 - i), c * f * (1 - f), i * (1 - g * g)], dim=-2)
        return slopes, o * (1 - squashed * squashed), squashed * o * (1 - o), f

    def pull(self, saved: Saved, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply rows by the Jacobians."""
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
        """Return the cell on another device or in another dtype."""
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


__all__ = ["Cell", "FunctionCell", "GruCell", "LstmCell", "RnnCell", "leak_of"]
