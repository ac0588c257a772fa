"""A network as a system in time: Gramians, transfer function, memory, spectra, fixed points."""

from hoplens.analysis.dynamics.fixed_points import FixedPoints, fixed_points
from hoplens.analysis.dynamics.linear import (
    StateSpace,
    controllability_gramian,
    hankel_singular_values,
    memory_capacity,
    memory_function,
    observability_gramian,
    state_space,
    transfer_function,
)
from hoplens.analysis.dynamics.spectra import (
    Pseudospectrum,
    henrici_departure,
    pseudospectrum,
    spectrum,
    transient_growth,
)

__all__ = [
    "FixedPoints", "Pseudospectrum", "StateSpace", "controllability_gramian", "fixed_points",
    "hankel_singular_values", "henrici_departure", "memory_capacity", "memory_function",
    "observability_gramian", "pseudospectrum", "spectrum", "state_space", "transfer_function",
    "transient_growth",
]  # fmt: skip
