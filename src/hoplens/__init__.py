"""hoplens: see and train the multi-hop pathways of recurrent networks."""

import importlib
import typing

from hoplens import data
from hoplens.analysis.approximate import approximate_resolvent
from hoplens.analysis.attribution import Explanation, explain
from hoplens.analysis.dynamics import (
    StateSpace,
    controllability_gramian,
    hankel_singular_values,
    memory_capacity,
    memory_function,
    observability_gramian,
    state_space,
    transfer_function,
)
from hoplens.analysis.fidelity import Fidelity, fidelity
from hoplens.analysis.fixed_points import FixedPoints, fixed_points
from hoplens.analysis.hops import HopMaps, hop_maps
from hoplens.analysis.lags import LagMaps, lag_maps
from hoplens.analysis.lesions import ablate, lesion, lesion_edges, lesion_estimate
from hoplens.analysis.measures import (
    active_hops,
    alignment,
    dominant_hop,
    map_correlation,
    signal_share,
    temporal_sparsity,
    weight_map,
)
from hoplens.analysis.modularity import Blocks, blocks
from hoplens.analysis.null_models import null_network, shuffle_lags, strength_error, strengths
from hoplens.analysis.null_tests import NullComparison, compare_to_null
from hoplens.analysis.resolvent import Resolvent, resolvent
from hoplens.analysis.spectra import (
    Pseudospectrum,
    henrici_departure,
    pseudospectrum,
    spectrum,
    transient_growth,
)
from hoplens.analysis.summary import Analysis, analyze
from hoplens.analysis.trajectories import TrajectoryMaps, trajectory_maps
from hoplens.analysis.walks import flow, module_flow, top_paths
from hoplens.compress.balanced import BalancedTruncation, balanced_truncation
from hoplens.compress.pruned import Pruned, PrunedEnsemble
from hoplens.compress.pruning import prune
from hoplens.compress.quantisation import Quantised, quantise
from hoplens.compress.reduction import Reduced, low_rank, reduce_balanced
from hoplens.compress.removal import remove_units
from hoplens.compress.window import EffectiveWindow, effective_window, truncate
from hoplens.data import tasks
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
from hoplens.export import (
    EventCost,
    NirExport,
    OnnxExport,
    event_cost,
    export_nir,
    export_onnx,
    simulate_nir,
)
from hoplens.export.int8_onnx import Int8Export, export_int8
from hoplens.graph.pathways import Layer, Leak, LowRank, Pathways
from hoplens.graph.radius import LeadingEigenvalue, leading_eigenvalue, spectral_radius
from hoplens.graph.rescaling import rescale
from hoplens.graph.scaled import ScaledMaps
from hoplens.graph.scores import saliency, top_mask
from hoplens.models.cells import LRU, Cell, FunctionCell, GruCell, LeakyRNN, LstmCell, MinGRU, RnnCell
from hoplens.models.connectome import celegans
from hoplens.models.ensemble import Ensemble
from hoplens.models.readers import load_stack, read, register_reader
from hoplens.models.readers.opening import read_model
from hoplens.models.readers.saved import load_model, save_model
from hoplens.models.recurrent_model import ModelInfo, RecurrentModel
from hoplens.models.stack import Stack
from hoplens.penalties.costs import PenaltyCost
from hoplens.penalties.gradual_pruning import GradualPruning
from hoplens.penalties.pathway import PathwayPenalty, Penalty, PenaltySum, WeightPenalty
from hoplens.penalties.schedules import Schedule, ScheduledPenalty, constant, switch, warm_up, window
from hoplens.studies import extensions
from hoplens.studies.compression.latency import measure_latency
from hoplens.studies.extensions import register_measure, register_recipe, register_task
from hoplens.training import recipes
from hoplens.training.callbacks import HopLogger, HopRecord, TensorBoardSink, lightning_callback
from hoplens.training.recipes import Recipe
from hoplens.training.sequences import SequenceEnsemble, SequenceResult, TrajectoryPenalty, train_sequences
from hoplens.training.training import TrainingResult, train
from hoplens.version import __version__ as __version__

if typing.TYPE_CHECKING:
    from hoplens.studies import statistics, sweeps, testing
    from hoplens.studies.sweeps import run_sweep


__all__ = [
    "LRU",
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
    "GradualPruning",
    "GruCell",
    "HopLogger",
    "HopMaps",
    "HopRecord",
    "HoplensError",
    "Int8Export",
    "LagMaps",
    "Layer",
    "LeadingEigenvalue",
    "Leak",
    "LeakyRNN",
    "LowRank",
    "LstmCell",
    "MinGRU",
    "ModelInfo",
    "NirExport",
    "NonFiniteError",
    "NullComparison",
    "OnnxExport",
    "ParameterError",
    "PathwayPenalty",
    "Pathways",
    "Penalty",
    "PenaltyCost",
    "PenaltySum",
    "Pruned",
    "PrunedEnsemble",
    "Pseudospectrum",
    "Quantised",
    "RangeError",
    "Recipe",
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
    "StateSpace",
    "TensorBoardSink",
    "TrainingResult",
    "TrajectoryMaps",
    "TrajectoryPenalty",
    "UnknownNameError",
    "UnstableError",
    "UnsupportedModelError",
    "WeightPenalty",
    "ablate",
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
    "henrici_departure",
    "hop_maps",
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
    "saliency",
    "save_model",
    "shuffle_lags",
    "signal_share",
    "simulate_nir",
    "spectral_radius",
    "spectrum",
    "state_space",
    "statistics",
    "strength_error",
    "strengths",
    "sweeps",
    "switch",
    "tasks",
    "temporal_sparsity",
    "testing",
    "top_mask",
    "top_paths",
    "train",
    "train_sequences",
    "trajectory_maps",
    "transfer_function",
    "transient_growth",
    "truncate",
    "warm_up",
    "weight_map",
    "window",
]

_LAZY = ("run_sweep", "statistics", "sweeps", "testing")  # loaded when used: pandas and pydantic take a while

if not typing.TYPE_CHECKING:  # a checker shall see the names above, and no others

    def __getattr__(name: str) -> object:
        if name == "run_sweep":
            return importlib.import_module("hoplens.studies.sweeps").run_sweep
        if name in _LAZY:
            return importlib.import_module(f"hoplens.studies.{name}")
        raise AttributeError(f"module 'hoplens' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LAZY})
