"""Explain single predictions: how much each (time step, input) contributed, over which hops and units."""

from hoplens.explanations.explaining import explain
from hoplens.explanations.explanation import Explanation

__all__ = ["Explanation", "explain"]
