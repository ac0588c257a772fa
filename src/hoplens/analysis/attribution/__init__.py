"""Explain single predictions: how much each (time step, input) contributed, over which hops and units."""

from hoplens.analysis.attribution.explaining import explain
from hoplens.analysis.attribution.explanation import Explanation

__all__ = ["Explanation", "explain"]
