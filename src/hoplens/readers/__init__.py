"""Read networks, arrays, graphs and files as `Pathways`."""

from hoplens.readers.files import load_stack
from hoplens.readers.modules import register_reader
from hoplens.readers.reading import read

__all__ = ["load_stack", "read", "register_reader"]
