"""The minimal GRU, whose gate and candidate see the input alone.

Feng et al. 2024, "Were RNNs all we needed?" (arXiv:2410.01201), the plain variant: no logarithms, and a
candidate without a nonlinearity. Given the gates a step is linear in the state, and diagonal.
"""

# ruff: noqa: ARG002 - all kernels share one signature
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hoplens.models.cells.algebra import Ops, V
from hoplens.models.cells.kernels import Kernel
from hoplens.models.cells.module import CellModule
from hoplens.models.cells.weights import Equations, WeightCell


class MinGruEquations(Equations):
    """``h' = (1 - z) h + z n``; rows z, n."""

    from_input = (0, 1)
    from_state = (None, None)

    def update(self, ops: Ops[V], rows: Sequence[V], state: Sequence[V]) -> tuple[V, ...]:
        """Return the next h."""
        return (ops.mix(ops.apply("sigmoid", rows[0]), rows[1], state[0]),)


class MinGruCell(MinGruEquations, WeightCell):
    """``h' = (1 - z) h + z n``, ``z = sigmoid(W_z x + b_z)``, ``n = W_n x + b_n``.

    Parameters
    ----------
    w_ih : Tensor, shape (2H, I)
        W_z, then W_n.
    w_hh : Tensor, shape (0, H)
        No input of a gate or candidate comes from the state.
    b_ih, b_hh : Tensor, shape (2H,) and (0,), optional
    label : str
    """

    def __init__(
        self,
        w_ih: Tensor,
        w_hh: Tensor | None = None,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
        *,
        label: str = "minGRU",
    ) -> None:
        none = w_ih.new_zeros(0, w_ih.shape[0] // 2) if w_hh is None else w_hh
        super().__init__(w_ih, none, b_ih, b_hh, label=label)


class MinGRU(CellModule):
    """``h' = (1 - z) h + z n``, ``z = sigmoid(W_z x + b_z)``, ``n = W_n x + b_n``: the minimal GRU.

    The plain variant of Feng et al. 2024 (arXiv:2410.01201): gate and candidate see the input alone, and the
    candidate has no nonlinearity. Units hear of each other only through a level above or the read-out.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.

    Raises
    ------
    ParameterError
        For sizes below 1.
    """

    kind = "mingru"

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.weight_ih_l0 = self.draw(2 * hidden_size, input_size)
        self.bias_ih_l0 = self.draw(2 * hidden_size)

    def to_hoplens(self) -> MinGruCell:
        """Return the cell that `hoplens.read` sees."""
        return MinGruCell(self.weight_ih_l0, b_ih=self.bias_ih_l0)


class MinGruKernel(MinGruEquations, Kernel):
    """The step of many minimal GRUs; rows z, n."""

    module = MinGRU
    mixes = False

    def start(self, weight: Tensor, sources: Sequence[torch.Generator], length: int) -> Tensor:
        """Return the weights before training: gates that keep things for 1 .. ``length`` steps.

        The candidate's weights are those of a plain cell's inputs, normal with variance 1 / I as the gates'
        are. Biases of gates are ``-log(u)``, u uniform between 1 and the length (Tallec & Ollivier 2018,
        "Can recurrent neural networks warp time?").
        """
        hidden = weight.shape[2]
        new, gate = weight.clone(), torch.zeros_like(weight)
        new[:, :hidden] = 0.0
        for part, source in zip(gate, sources, strict=True):
            rows = part[hidden:-1]
            rows.copy_(torch.randn(rows.shape, generator=source, dtype=weight.dtype) * len(rows) ** -0.5)
            keeps = 1 + (length - 1) * torch.rand(hidden, generator=source, dtype=weight.dtype)
            part[-1] = -keeps.log()
        return torch.cat([gate, new], dim=2)

    def forward(self, z: Tensor, h: Tensor, out: Tensor, memory: tuple[Tensor, ...]) -> None:
        """Turn the first row into the gate in place, and write the next h."""
        gate, new = z.chunk(2, dim=1)
        torch.lerp(h, new, gate.sigmoid_(), out=out)

    def backward(self, z: Tensor, h: Tensor, grad: Tensor, delta: Tensor, memory: tuple[Tensor, ...]) -> bool:
        """Write the gradient by the rows to ``delta`` and what goes past them to ``grad``."""
        gate, new = z.chunk(2, dim=1)
        d_gate, d_new = delta.chunk(2, dim=1)
        torch.sub(new, h, out=d_gate).mul_(grad)
        torch.ops.aten.sigmoid_backward.grad_input(d_gate, gate, grad_input=d_gate)
        torch.mul(grad, gate, out=d_new)
        grad.sub_(d_new)
        return True


__all__ = ["MinGRU", "MinGruCell", "MinGruKernel"]
