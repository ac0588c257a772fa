"""The cells that ensembles train, by name."""

from __future__ import annotations

from collections.abc import Callable

from hoplens.models.cells.gru import GruKernel
from hoplens.models.cells.kernels import Kernel
from hoplens.models.cells.lstm import LstmKernel
from hoplens.models.cells.rnn import RnnKernel

MAKERS: dict[str, Callable[[float], Kernel]] = {
    "tanh": RnnKernel,
    "relu": lambda leak: RnnKernel(leak, "relu"),
    "linear": lambda leak: RnnKernel(leak, "linear"),
    "leaky": RnnKernel,
    "gru": lambda _: GruKernel(),
    "lstm": lambda _: LstmKernel(),
}
CELLS = tuple(MAKERS)


def make_cell(name: str, leak: float = 1.0) -> Kernel:
    """Return the cell of this name; ``leak`` is that of a cell without gates."""
    return MAKERS[name](leak)


__all__ = ["CELLS", "Kernel", "make_cell"]
