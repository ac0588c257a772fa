"""Hierarchically modular tasks whose ground-truth hop maps are known."""

from hoplens.data.tasks.base import Batch, Task
from hoplens.data.tasks.functions import FUNCTIONS, ModuleFunction
from hoplens.data.tasks.registry import make, names
from hoplens.data.tasks.signals import SIGNALS

__all__ = ["FUNCTIONS", "SIGNALS", "Batch", "ModuleFunction", "Task", "make", "names"]
