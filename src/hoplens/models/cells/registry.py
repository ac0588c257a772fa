"""The cells that ensembles train, by name."""

from __future__ import annotations

from hoplens.models.cells.gru import GruKernel
from hoplens.models.cells.kernels import Kernel
from hoplens.models.cells.lstm import LstmKernel
from hoplens.models.cells.rnn import RnnKernel

CELLS = ("tanh", "leaky", "gru", "lstm")


def make_cell(name: str, leak: float) -> Kernel:
    """Return the cell of this name."""
    if name == "gru":
        return GruKernel()
    return LstmKernel() if name == "lstm" else RnnKernel(leak if name == "leaky" else 1.0)


__all__ = ["CELLS", "Kernel", "make_cell"]
