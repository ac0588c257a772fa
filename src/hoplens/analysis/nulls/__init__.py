"""Null models: networks and maps drawn with some properties kept, and what exceeds them."""

from hoplens.analysis.nulls.comparison import NullComparison, compare_to_null
from hoplens.analysis.nulls.networks import null_network, shuffle_lags, strength_error, strengths

__all__ = [
    "NullComparison", "compare_to_null", "null_network", "shuffle_lags", "strength_error", "strengths",
]  # fmt: skip
