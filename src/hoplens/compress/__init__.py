"""From a trained network to a smaller one: what `hoplens compress` is made of."""

from hoplens.compress.balanced import BalancedTruncation, balanced_truncation
from hoplens.compress.pruned import Pruned, PrunedEnsemble
from hoplens.compress.pruning import prune
from hoplens.compress.quantisation import Quantised, quantise
from hoplens.compress.reduction import Reduced, low_rank, reduce
from hoplens.compress.removal import remove_units
from hoplens.compress.window import EffectiveWindow, effective_window, truncate

__all__ = [
    "BalancedTruncation", "EffectiveWindow", "Pruned", "PrunedEnsemble", "Quantised", "Reduced",
    "balanced_truncation", "effective_window", "low_rank", "prune", "quantise", "reduce", "remove_units",
    "truncate",
]  # fmt: skip
