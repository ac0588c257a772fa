"""Readers of classes that hoplens does not know by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hoplens.errors import ParameterError
from hoplens.graph.pathways import Pathways
from hoplens.models.cells import Cell
from hoplens.models.stack import Stack
from hoplens.registry import Registry, owner_of

SUPPORTED = (
    "nn.RNN, nn.GRU, nn.LSTM (stacked, bidirectional, projected), nn.RNNCell, nn.GRUCell, nn.LSTMCell, a "
    "hoplens Cell or Stack, a triple (w_in, w_rec, w_out) of arrays, a networkx DiGraph or square "
    "SciPy/NumPy adjacency matrix with inputs= and outputs=, a .safetensors or state_dict file"
)
HOW_TO = (
    "for a module of your own, define to_hoplens(self) returning a hoplens.Cell (or a list of them, or a "
    "Pathways), or call hoplens.extensions.register_reader(YourModule, function)"
)

Reading = Cell | Pathways | Stack | list[Cell] | tuple[Cell, ...]
# by "module.Class": a package's reader is loaded only when its class is met
READERS: Registry[Callable[[Any], Reading]] = Registry("reader", "hoplens.readers", {})


def register_reader(kind: type, reader: Callable[[Any], Reading]) -> None:
    """Teach `read` a class of modules.

    Parameters
    ----------
    kind : type
        The class; subclasses without a reader of their own use it too.
    reader : callable
        Takes an instance and returns a `Cell`, a list of cells (a stack, lowest first), a `Stack`, or a
        `Pathways`. A class may define a method ``to_hoplens(self)`` instead.

    Raises
    ------
    ParameterError
        If another function reads that class already; the same function, defined again, replaces itself.
    """
    if not isinstance(kind, type) or not callable(reader):
        raise ParameterError(
            f"register_reader takes a class and a function, got {type(kind).__name__} and "
            f"{type(reader).__name__}"
        )
    name = f"{kind.__module__}.{kind.__qualname__}"
    READERS.add(name, reader, owner=owner_of(reader))


def find_reader(model: object) -> Callable[[Any], Reading] | None:
    """Return the reader registered for the model's class or the nearest class above it."""
    for kind in type(model).__mro__:
        if (reader := READERS.find(f"{kind.__module__}.{kind.__qualname__}")) is not None:
            return reader
    method = getattr(type(model), "to_hoplens", None)
    return method if callable(method) else None


__all__ = ["HOW_TO", "READERS", "SUPPORTED", "Reading", "find_reader", "register_reader"]
