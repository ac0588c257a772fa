"""Explain single predictions: how much each (time step, input) contributed, over which hops and units."""

from hoplens.explain.explaining import explain
from hoplens.explain.explanation import Explanation

__all__ = ["Explanation", "explain"]
