"""What runs: cells, stacks, recurrent models, ensembles, their files; and the readers of all of them."""

from hoplens.models.cells import Cell, FunctionCell, GruCell, LstmCell, RnnCell
from hoplens.models.ensemble import Ensemble
from hoplens.models.readers import load_stack, read, register_reader
from hoplens.models.readers.opening import read_model
from hoplens.models.readers.saved import load_model, save_model
from hoplens.models.recurrent_model import LeakyRNN, ModelInfo, RecurrentModel
from hoplens.models.stack import Stack

__all__ = [
    "Cell", "Ensemble", "FunctionCell", "GruCell", "LeakyRNN", "LstmCell", "ModelInfo", "RecurrentModel",
    "RnnCell", "Stack", "load_model", "load_stack", "read", "read_model", "register_reader", "save_model",
]  # fmt: skip
