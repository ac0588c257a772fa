"""Read networks, arrays, graphs and files as `Pathways`."""

from hoplens.models.readers.opening import load_stack
from hoplens.models.readers.own import register_reader
from hoplens.models.readers.reading import read

__all__ = ["load_stack", "read", "register_reader"]
