"""Recurrent cells: each described once, for readers and for ensembles."""

from hoplens.models.cells.algebra import CHANGES, TENSORS, Ops, V
from hoplens.models.cells.base import Cell, FunctionCell, Saved, computes_in
from hoplens.models.cells.gru import GruCell
from hoplens.models.cells.kernels import Kernel, State, tanh_
from hoplens.models.cells.lru import LRU, LruCell
from hoplens.models.cells.lstm import LstmCell
from hoplens.models.cells.mingru import MinGRU, MinGruCell
from hoplens.models.cells.module import CellModule
from hoplens.models.cells.registry import CELLS, CORES, make_cell
from hoplens.models.cells.rnn import NONLINEARITIES, LeakyRNN, RnnCell, leak_of
from hoplens.models.cells.weights import WeightCell

__all__ = [
    "CELLS",
    "CHANGES",
    "CORES",
    "LRU",
    "NONLINEARITIES",
    "TENSORS",
    "Cell",
    "CellModule",
    "FunctionCell",
    "GruCell",
    "Kernel",
    "LeakyRNN",
    "LruCell",
    "LstmCell",
    "MinGRU",
    "MinGruCell",
    "Ops",
    "RnnCell",
    "Saved",
    "State",
    "V",
    "WeightCell",
    "computes_in",
    "leak_of",
    "make_cell",
    "tanh_",
]
