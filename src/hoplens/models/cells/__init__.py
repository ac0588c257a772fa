"""Recurrent cells: each described once, for readers and for ensembles."""

from hoplens.models.cells.base import Cell, FunctionCell, Saved, computes_in
from hoplens.models.cells.gru import GruCell
from hoplens.models.cells.kernels import Slopes, tanh_
from hoplens.models.cells.lstm import LstmCell
from hoplens.models.cells.registry import CELLS, Kernel, make_cell
from hoplens.models.cells.rnn import NONLINEARITIES, RnnCell, leak_of

__all__ = [
    "CELLS",
    "NONLINEARITIES",
    "Cell",
    "FunctionCell",
    "GruCell",
    "Kernel",
    "LstmCell",
    "RnnCell",
    "Saved",
    "Slopes",
    "computes_in",
    "leak_of",
    "make_cell",
    "tanh_",
]
