"""Hierarchically modular tasks whose ground-truth hop maps are known."""

from hoplens.tasks.base import Batch, Task
from hoplens.tasks.functions import FUNCTIONS, ModuleFunction
from hoplens.tasks.registry import make, names
from hoplens.tasks.signals import SIGNALS

__all__ = ["FUNCTIONS", "SIGNALS", "Batch", "ModuleFunction", "Task", "make", "names"]
