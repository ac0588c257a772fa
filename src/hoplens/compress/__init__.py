"""From a trained network to a smaller one: what `hoplens compress` is made of."""

from hoplens.compress.gramians import BalancedTruncation, balanced_truncation
from hoplens.compress.pruning import Pruned, prune
from hoplens.compress.quantisation import Quantised, quantise
from hoplens.compress.reduction import Reduced, reduce
from hoplens.compress.removal import remove_units
from hoplens.compress.window import EffectiveWindow, effective_window, truncate

__all__ = [
    "BalancedTruncation", "EffectiveWindow", "Pruned", "Quantised", "Reduced", "balanced_truncation",
    "effective_window", "prune", "quantise", "reduce", "remove_units", "truncate",
]  # fmt: skip
