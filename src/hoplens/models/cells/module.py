"""What the recurrent modules of hoplens share: PyTorch's have the same face."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from hoplens.errors import check_count
from hoplens.models.cells.weights import WeightCell


class CellModule(nn.Module):
    """A recurrent module of one level that runs forward over batch-first sequences.

    Attributes
    ----------
    kind : str
        What files call it.
    options : tuple of str
        Attributes that the constructor takes beside the sizes.
    input_size, hidden_size : int
        I, and H, the units that it shows.
    """

    kind: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    batch_first = True
    num_layers = 1
    bidirectional = False

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size = check_count("input_size", input_size)
        self.hidden_size = check_count("hidden_size", hidden_size)

    def to_hoplens(self) -> WeightCell:
        """Return the cell that `hoplens.read` sees."""
        raise NotImplementedError

    def draw(self, *shape: int) -> nn.Parameter:
        """Return a parameter drawn as PyTorch's recurrent modules draw theirs."""
        bound = self.hidden_size**-0.5
        return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the units shown (B, L, H) and the last state (1, B, S) for inputs (B, L, I)."""
        cell = self.to_hoplens()
        state, shown = inputs.new_zeros(inputs.shape[0], cell.n_state), []
        for x in inputs.unbind(1):
            state = cell.step(state, x)
            shown.append(cell.emit(state))
        return torch.stack(shown, dim=1), state[None]


__all__ = ["CellModule"]
