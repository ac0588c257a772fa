"""hoplens: see and train the multi-hop pathways of recurrent networks."""

import importlib
import typing

from hoplens import data, extensions, recipes, tasks
from hoplens.analysis import Analysis, analyze
from hoplens.approximate import approximate_resolvent
from hoplens.callbacks import HopLogger, Record, TensorBoardSink, lightning_callback
from hoplens.cells import Cell, FunctionCell
from hoplens.comparison import NullComparison, compare_to_null
from hoplens.compress.balanced import BalancedTruncation, balanced_truncation
from hoplens.compress.int8_onnx import Int8Export, export_int8
from hoplens.compress.latency import measure_latency
from hoplens.compress.pruned import Pruned, PrunedEnsemble
from hoplens.compress.pruning import prune
from hoplens.compress.quantisation import Quantised, quantise
from hoplens.compress.reduction import Reduced, low_rank, reduce_balanced
from hoplens.compress.removal import remove_units
from hoplens.compress.window import EffectiveWindow, effective_window, truncate
from hoplens.connectome import celegans
from hoplens.dynamics import (
    TimeSystem,
    controllability_gramian,
    hankel_singular_values,
    memory_capacity,
    memory_function,
    observability_gramian,
    time_system,
    transfer_function,
)
from hoplens.errors import (
    ContractError,
    ConvergenceError,
    ExportError,
    ExtensionError,
    FileError,
    HoplensError,
    NonFiniteError,
    ParameterError,
    RangeError,
    ShapeError,
    UnknownNameError,
    UnstableError,
    UnsupportedModelError,
)
from hoplens.explanations import Explanation, explain
from hoplens.export import (
    EventCost,
    NirExport,
    OnnxExport,
    event_cost,
    export_nir,
    export_onnx,
    simulate_nir,
)
from hoplens.extensions import register_measure, register_recipe, register_task
from hoplens.fidelity import Fidelity, fidelity
from hoplens.fixed_points import FixedPoints, fixed_points
from hoplens.hops import HopMaps, hop_maps
from hoplens.lags import LagMaps, lag_maps
from hoplens.lesions import lesion, lesion_edges, lesion_estimate, without
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
from hoplens.nulls import null_network, shuffle_lags, strength_error, strengths
from hoplens.pathways import Layer, Leak, LowRank, Pathways
from hoplens.penalties import PathwayPenalty, Penalty, PenaltySum, WeightPenalty
from hoplens.plans import PenaltyPlan
from hoplens.radius import LeadingEigenvalue, leading_eigenvalue, spectral_radius
from hoplens.readers import load_stack, read, register_reader
from hoplens.readers.opening import read_model
from hoplens.readers.saved import load_model, save_model
from hoplens.recipes import Recipe
from hoplens.recurrent_model import LeakyRNN, ModelInfo, RecurrentModel
from hoplens.rescaling import rescale
from hoplens.resolvent import Resolvent, resolvent
from hoplens.scaled import ScaledMaps
from hoplens.schedules import Schedule, ScheduledPenalty, constant, switch, warm_up, window
from hoplens.sequences import SequenceEnsemble, SequenceResult, TrajectoryPenalty, train_sequences
from hoplens.spectra import Pseudospectrum, henrici, pseudospectrum, spectrum, transient_growth
from hoplens.stack import Stack
from hoplens.thinning import Thinning, keep_mask, weight_scores
from hoplens.torch_cells import GruCell, LstmCell, RnnCell
from hoplens.training import TrainingResult, train
from hoplens.trajectories import TrajectoryMaps, trajectory_maps
from hoplens.walks import flow, module_flow, top_paths

if typing.TYPE_CHECKING:
    from hoplens import statistics, sweeps, testing
    from hoplens.sweeps import run_sweep

__version__ = "0.1.0"

__all__ = [
    "Analysis",
    "BalancedTruncation",
    "Blocks",
    "Cell",
    "ContractError",
    "ConvergenceError",
    "EffectiveWindow",
    "Ensemble",
    "EventCost",
    "Explanation",
    "ExportError",
    "ExtensionError",
    "Fidelity",
    "FileError",
    "FixedPoints",
    "FunctionCell",
    "GruCell",
    "HopLogger",
    "HopMaps",
    "HoplensError",
    "Int8Export",
    "LagMaps",
    "Layer",
    "LeadingEigenvalue",
    "Leak",
    "LeakyRNN",
    "LowRank",
    "LstmCell",
    "ModelInfo",
    "NirExport",
    "NonFiniteError",
    "NullComparison",
    "OnnxExport",
    "ParameterError",
    "PathwayPenalty",
    "Pathways",
    "Penalty",
    "PenaltyPlan",
    "PenaltySum",
    "Pruned",
    "PrunedEnsemble",
    "Pseudospectrum",
    "Quantised",
    "RangeError",
    "Recipe",
    "Record",
    "RecurrentModel",
    "Reduced",
    "Resolvent",
    "RnnCell",
    "ScaledMaps",
    "Schedule",
    "ScheduledPenalty",
    "SequenceEnsemble",
    "SequenceResult",
    "ShapeError",
    "Stack",
    "TensorBoardSink",
    "Thinning",
    "TimeSystem",
    "TrainingResult",
    "TrajectoryMaps",
    "TrajectoryPenalty",
    "UnknownNameError",
    "UnstableError",
    "UnsupportedModelError",
    "WeightPenalty",
    "active_hops",
    "alignment",
    "analyze",
    "approximate_resolvent",
    "balanced_truncation",
    "blocks",
    "celegans",
    "compare_to_null",
    "constant",
    "controllability_gramian",
    "data",
    "dominant_hop",
    "effective_window",
    "event_cost",
    "explain",
    "export_int8",
    "export_nir",
    "export_onnx",
    "extensions",
    "fidelity",
    "fixed_points",
    "flow",
    "hankel_singular_values",
    "henrici",
    "hop_maps",
    "keep_mask",
    "lag_maps",
    "leading_eigenvalue",
    "lesion",
    "lesion_edges",
    "lesion_estimate",
    "lightning_callback",
    "load_model",
    "load_stack",
    "low_rank",
    "map_correlation",
    "measure_latency",
    "memory_capacity",
    "memory_function",
    "module_flow",
    "null_network",
    "observability_gramian",
    "prune",
    "pseudospectrum",
    "quantise",
    "read",
    "read_model",
    "recipes",
    "reduce_balanced",
    "register_measure",
    "register_reader",
    "register_recipe",
    "register_task",
    "remove_units",
    "rescale",
    "resolvent",
    "run_sweep",
    "save_model",
    "shuffle_lags",
    "signal_share",
    "simulate_nir",
    "spectral_radius",
    "spectrum",
    "statistics",
    "strength_error",
    "strengths",
    "sweeps",
    "switch",
    "tasks",
    "temporal_sparsity",
    "testing",
    "time_system",
    "top_paths",
    "train",
    "train_sequences",
    "trajectory_maps",
    "transfer_function",
    "transient_growth",
    "truncate",
    "warm_up",
    "weight_map",
    "weight_scores",
    "window",
    "without",
]

_LAZY = ("run_sweep", "statistics", "sweeps", "testing")  # loaded when used: pandas and pydantic take a while

if not typing.TYPE_CHECKING:  # a checker shall see the names above, and no others

    def __getattr__(name: str) -> object:
        if name == "run_sweep":
            return importlib.import_module("hoplens.sweeps").run_sweep
        if name in _LAZY:
            return importlib.import_module(f"hoplens.{name}")
        raise AttributeError(f"module 'hoplens' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LAZY})
