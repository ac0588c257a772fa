"""Recurrent cells: each described once, for readers and for ensembles."""

from hoplens.models.cells.algebra import CHANGES, TENSORS, Ops, V
from hoplens.models.cells.base import Cell, FunctionCell, Saved, computes_in
from hoplens.models.cells.gru import GruCell
from hoplens.models.cells.kernels import Kernel, Slopes, tanh_
from hoplens.models.cells.lstm import LstmCell
from hoplens.models.cells.registry import CELLS, make_cell
from hoplens.models.cells.rnn import NONLINEARITIES, RnnCell, leak_of
from hoplens.models.cells.weights import WeightCell

__all__ = [
    "CELLS",
    "CHANGES",
    "NONLINEARITIES",
    "TENSORS",
    "Cell",
    "FunctionCell",
    "GruCell",
    "Kernel",
    "LstmCell",
    "Ops",
    "RnnCell",
    "Saved",
    "Slopes",
    "V",
    "WeightCell",
    "computes_in",
    "leak_of",
    "make_cell",
    "tanh_",
]
