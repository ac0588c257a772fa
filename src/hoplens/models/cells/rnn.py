"""The plain and the leaky recurrent cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hoplens.errors import ParameterError, check_choice, check_number
from hoplens.graph.parts import Leak
from hoplens.models.cells.algebra import Ops, V
from hoplens.models.cells.kernels import Kernel
from hoplens.models.cells.module import CellModule
from hoplens.models.cells.weights import Equations, Operator, WeightCell

NONLINEARITIES = ("tanh", "relu", "linear")


class RnnEquations(Equations):
    """``h' = (1 - a) h + a f(z)``."""

    nonlinearity = "tanh"
    leak: float | Tensor = 1.0
    leaky = False

    def update(self, ops: Ops[V], rows: Sequence[V], state: Sequence[V]) -> tuple[V, ...]:
        """Return the next h."""
        new = ops.apply(self.nonlinearity, rows[0])
        return (ops.mix(self.leak, new, state[0]) if self.leaky else new,)


class RnnCell(RnnEquations, WeightCell):
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

    def operator(self) -> Operator | None:
        """Return ONNX's RNN, which knows no leak."""
        if self.leaky:
            return None
        name = {"tanh": "Tanh", "relu": "Relu", "linear": "Affine"}[self.nonlinearity]
        affine = {"activation_alpha": [1.0], "activation_beta": [0.0]} if name == "Affine" else {}
        return Operator("RNN", (0,), {"activations": [name], **affine})

    def torch_kernel(self) -> Callable[..., Any] | None:
        """Return PyTorch's run over time of plain tanh and relu units."""
        return None if self.leaky else {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu}.get(self.nonlinearity)

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

    def to(self, target: torch.dtype | torch.device) -> RnnCell:
        """Return the cell on another device or in another dtype.

        Parameters
        ----------
        target : torch.dtype or torch.device
        """
        return RnnCell(
            *self.moved(target)[:4],  # type: ignore[arg-type]
            nonlinearity=self.nonlinearity,
            leak=self.leak.to(target) if isinstance(self.leak, Tensor) else self.leak,
            label=self.label,
        )


class LeakyRNN(CellModule):
    """``h' = (1 - a) h + a f(W_hh h + W_ih x + b)`` with weights named as in ``nn.RNN``.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    leak : float
        a = dt / tau in (0, 1].
    nonlinearity : {"tanh", "relu", "linear"}, default "tanh"
        f.

    Raises
    ------
    ParameterError, UnknownNameError
        For sizes below 1, a leak outside (0, 1] or another nonlinearity.
    """

    kind = "leaky"
    options = ("leak", "nonlinearity")

    def __init__(self, input_size: int, hidden_size: int, leak: float, *, nonlinearity: str = "tanh") -> None:
        self.leak = check_number("leak", leak, above=0.0, most=1.0)
        super().__init__(input_size, hidden_size)
        self.nonlinearity = check_choice("nonlinearity", nonlinearity, NONLINEARITIES)
        self.weight_ih_l0, self.weight_hh_l0 = (
            self.draw(hidden_size, input_size),
            self.draw(hidden_size, hidden_size),
        )
        self.bias_ih_l0, self.bias_hh_l0 = self.draw(hidden_size), self.draw(hidden_size)

    def to_hoplens(self) -> RnnCell:
        """Return the cell that `hoplens.read` sees."""
        return RnnCell(
            self.weight_ih_l0,
            self.weight_hh_l0,
            self.bias_ih_l0,
            self.bias_hh_l0,
            nonlinearity=self.nonlinearity,
            leak=self.leak,
        )


class RnnKernel(RnnEquations, Kernel):
    """``h' = (1 - a) h + a f(z)``; an ensemble runs it by `hoplens.training.bptt.PlainRecurrence`.

    Parameters
    ----------
    leak : float, default 1
        a.
    nonlinearity : {"tanh", "relu", "linear"}
        f.
    """

    def __init__(self, leak: float = 1.0, nonlinearity: str = "tanh") -> None:
        self.leak: float = leak
        self.leaky = leak != 1
        self.nonlinearity = nonlinearity

    @property
    def module(self) -> type[nn.Module]:  # type: ignore[override]
        """The module that one network becomes."""
        return LeakyRNN if self.leaky or self.nonlinearity != "tanh" else nn.RNN


def leak_of(dt: Any, tau: Any) -> Tensor:
    """Return a = dt / tau after checking that it lies in (0, 1]."""
    leak = torch.as_tensor(dt, dtype=torch.float64) / torch.as_tensor(tau, dtype=torch.float64)
    if not bool(((leak > 0) & (leak <= 1)).all()):
        raise ParameterError(
            f"dt / tau must lie in (0, 1] for every unit, got {leak.min():g} .. {leak.max():g}; take a "
            "shorter dt"
        )
    return leak


__all__ = ["NONLINEARITIES", "LeakyRNN", "RnnCell", "RnnKernel", "leak_of"]
