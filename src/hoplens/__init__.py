"""hoplens: see and train the multi-hop pathways of recurrent networks."""

from hoplens import recipes, tasks
from hoplens.approximate import approximate_resolvent
from hoplens.errors import (
    FileError,
    HoplensError,
    NonFiniteError,
    ParameterError,
    ShapeError,
    UnknownNameError,
    UnstableError,
    UnsupportedModelError,
)
from hoplens.hops import HopMaps, hop_maps
from hoplens.lowrank import LowRankPathways
from hoplens.measures import (
    active_hops,
    alignment,
    dominant_hop,
    map_correlation,
    signal_share,
    temporal_sparsity,
    weight_map,
)
from hoplens.models import Ensemble
from hoplens.pathways import Pathways
from hoplens.penalties import PathwayPenalty, Penalty, PenaltySum, WeightPenalty
from hoplens.plans import PenaltyPlan
from hoplens.radius import LeadingEigenvalue, leading_eigenvalue, spectral_radius
from hoplens.readers import read
from hoplens.recipes import Recipe
from hoplens.resolvent import Resolvent, resolvent
from hoplens.scaled import ScaledMaps
from hoplens.schedules import Schedule, ScheduledPenalty, constant, switch, warm_up, window
from hoplens.thinning import Thinning, keep_mask, weight_scores
from hoplens.training import TrainingResult, train

__version__ = "0.1.0"

__all__ = [
    "Ensemble",
    "FileError",
    "HopMaps",
    "HoplensError",
    "LeadingEigenvalue",
    "LowRankPathways",
    "NonFiniteError",
    "ParameterError",
    "PathwayPenalty",
    "Pathways",
    "Penalty",
    "PenaltyPlan",
    "PenaltySum",
    "Recipe",
    "Resolvent",
    "ScaledMaps",
    "Schedule",
    "ScheduledPenalty",
    "ShapeError",
    "Thinning",
    "TrainingResult",
    "UnknownNameError",
    "UnstableError",
    "UnsupportedModelError",
    "WeightPenalty",
    "active_hops",
    "alignment",
    "approximate_resolvent",
    "constant",
    "dominant_hop",
    "hop_maps",
    "keep_mask",
    "leading_eigenvalue",
    "map_correlation",
    "read",
    "recipes",
    "resolvent",
    "signal_share",
    "spectral_radius",
    "switch",
    "tasks",
    "temporal_sparsity",
    "train",
    "warm_up",
    "weight_map",
    "weight_scores",
    "window",
]
