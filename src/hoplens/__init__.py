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
from hoplens.lesions import lesion, without
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
from hoplens.modularity import Blocks, blocks
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
from hoplens.walks import flow, module_flow, top_paths

__version__ = "0.1.0"

__all__ = [
    "Blocks",
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
    "blocks",
    "constant",
    "dominant_hop",
    "fidelity",
    "flow",
    "hop_maps",
    "keep_mask",
    "lag_maps",
    "lesion",
    "load_stack",
    "map_correlation",
    "module_flow",
    "read",
    "recipes",
    "register_reader",
    "resolvent",
    "signal_share",
    "spectral_radius",
    "switch",
    "tasks",
    "temporal_sparsity",
    "top_paths",
    "train",
    "trajectory_maps",
    "warm_up",
    "weight_map",
    "weight_scores",
    "window",
    "without",
]
