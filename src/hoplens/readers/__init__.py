"""Read networks, arrays, graphs and files as `Pathways`."""

from hoplens.readers.opening import load_stack
from hoplens.readers.own import register_reader
from hoplens.readers.reading import read

__all__ = ["load_stack", "read", "register_reader"]
