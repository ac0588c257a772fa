"""hoplens: see and train the multi-hop pathways of recurrent networks."""

from hoplens import recipes, tasks
from hoplens.cells import Cell, FunctionCell, GruCell, LstmCell, RnnCell
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
from hoplens.fidelity import Fidelity, fidelity
from hoplens.hops import HopMaps, hop_maps
from hoplens.lags import LagMaps, lag_maps
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
from hoplens.pathways import Layer, LowRank, Pathways
from hoplens.penalties import PathwayPenalty, Penalty, PenaltySum, WeightPenalty
from hoplens.readers import load_stack, read, register_reader
from hoplens.recipes import Recipe
from hoplens.resolvent import Resolvent, resolvent, spectral_radius
from hoplens.schedules import Schedule, ScheduledPenalty, constant, switch, warm_up, window
from hoplens.stack import Stack
from hoplens.thinning import Thinning, keep_mask, weight_scores
from hoplens.training import TrainingResult, train
from hoplens.trajectories import TrajectoryMaps, trajectory_maps

__version__ = "0.1.0"

__all__ = [
    "Cell",
    "Ensemble",
    "Fidelity",
    "FileError",
    "FunctionCell",
    "GruCell",
    "HopMaps",
    "HoplensError",
    "LagMaps",
    "Layer",
    "LowRank",
    "LstmCell",
    "NonFiniteError",
    "ParameterError",
    "PathwayPenalty",
    "Pathways",
    "Penalty",
    "PenaltySum",
    "Recipe",
    "Resolvent",
    "RnnCell",
    "Schedule",
    "ScheduledPenalty",
    "ShapeError",
    "Stack",
    "Thinning",
    "TrainingResult",
    "TrajectoryMaps",
    "UnknownNameError",
    "UnstableError",
    "UnsupportedModelError",
    "WeightPenalty",
    "active_hops",
    "alignment",
    "constant",
    "dominant_hop",
    "fidelity",
    "hop_maps",
    "keep_mask",
    "lag_maps",
    "load_stack",
    "map_correlation",
    "read",
    "recipes",
    "register_reader",
    "resolvent",
    "signal_share",
    "spectral_radius",
    "switch",
    "tasks",
    "temporal_sparsity",
    "train",
    "trajectory_maps",
    "warm_up",
    "weight_map",
    "weight_scores",
    "window",
]
