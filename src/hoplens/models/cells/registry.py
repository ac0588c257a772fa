"""The cells that ensembles train and the modules that they become, by name: one line a cell."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from hoplens.models.cells.gru import GruKernel
from hoplens.models.cells.kernels import Kernel
from hoplens.models.cells.lru import LruKernel
from hoplens.models.cells.lstm import LstmKernel
from hoplens.models.cells.mingru import MinGruKernel
from hoplens.models.cells.module import CellModule
from hoplens.models.cells.rnn import LeakyRNN, RnnKernel

MAKERS: dict[str, Callable[[float], Kernel]] = {
    "tanh": RnnKernel,
    "relu": lambda leak: RnnKernel(leak, "relu"),
    "linear": lambda leak: RnnKernel(leak, "linear"),
    "leaky": RnnKernel,
    "gru": lambda _: GruKernel(),
    "lstm": lambda _: LstmKernel(),
    "mingru": lambda _: MinGruKernel(),
    "lru": lambda _: LruKernel(),
}
CELLS = tuple(MAKERS)
OWN = [make(1.0).module for make in MAKERS.values()]
# what a saved model calls its core
CORES: dict[str, type[nn.Module]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM, "leaky": LeakyRNN}
CORES |= {module.kind: module for module in OWN if issubclass(module, CellModule)}


def make_cell(name: str, leak: float = 1.0) -> Kernel:
    """Return the cell of this name; ``leak`` is that of a cell without gates."""
    return MAKERS[name](leak)


__all__ = ["CELLS", "CORES", "Kernel", "make_cell"]
