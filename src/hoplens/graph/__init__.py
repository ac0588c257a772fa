"""`Pathways`, the one central value, with the products, solves and radii on it."""

from hoplens.graph.parts import Layer, Leak, LowRank
from hoplens.graph.pathways import Pathways
from hoplens.graph.radius import LeadingEigenvalue, leading_eigenvalue, rescale, spectral_radius
from hoplens.graph.scaled import ScaledMaps

__all__ = [
    "Layer", "LeadingEigenvalue", "Leak", "LowRank", "Pathways", "ScaledMaps", "leading_eigenvalue",
    "rescale", "spectral_radius",
]  # fmt: skip
