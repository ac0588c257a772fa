"""hoplens: see and train the multi-hop pathways of recurrent networks."""

import typing

from hoplens import analysis, compress, data, errors, export, graph, models, penalties
from hoplens.analysis import (
    Analysis,
    Explanation,
    Fidelity,
    HopMaps,
    Interactions,
    LagMaps,
    Resolvent,
    TrajectoryMaps,
    ablate,
    active_hops,
    alignment,
    analyze,
    dynamics,
    explain,
    fidelity,
    flow,
    hop_maps,
    interactions,
    lag_maps,
    lesion,
    nulls,
    resolvent,
    top_paths,
    trajectory_maps,
)
from hoplens.analysis.nulls import NullComparison, compare_to_null
from hoplens.compress import effective_window, prune, quantise, reduce, truncate
from hoplens.data import tasks
from hoplens.errors import HoplensError
from hoplens.export import export_int8, export_nir, export_onnx
from hoplens.graph import Pathways, spectral_radius
from hoplens.lookup import look_up
from hoplens.models import (
    Cell,
    Ensemble,
    LeakyRNN,
    ModelInfo,
    RecurrentModel,
    Stack,
    read,
)
from hoplens.penalties import (
    FlowPenalty,
    GradualPruning,
    PathwayPenalty,
    Penalty,
    WeightPenalty,
    schedules,
)
from hoplens.storing import load, save
from hoplens.studies import extensions
from hoplens.training import callbacks, recipes
from hoplens.training.recipes import Recipe
from hoplens.training.result import TrainingResult
from hoplens.training.training import train
from hoplens.version import __version__ as __version__

if typing.TYPE_CHECKING:
    from hoplens import plots
    from hoplens.reports import report
    from hoplens.studies import statistics, sweeps, testing
    from hoplens.studies.sweeps import run_sweep


__all__ = [
    "Analysis",
    "Cell",
    "Ensemble",
    "Explanation",
    "Fidelity",
    "FlowPenalty",
    "GradualPruning",
    "HopMaps",
    "HoplensError",
    "Interactions",
    "LagMaps",
    "LeakyRNN",
    "ModelInfo",
    "NullComparison",
    "PathwayPenalty",
    "Pathways",
    "Penalty",
    "Recipe",
    "RecurrentModel",
    "Resolvent",
    "Stack",
    "TrainingResult",
    "TrajectoryMaps",
    "WeightPenalty",
    "ablate",
    "active_hops",
    "alignment",
    "analysis",
    "analyze",
    "callbacks",
    "compare_to_null",
    "compress",
    "data",
    "dynamics",
    "effective_window",
    "errors",
    "explain",
    "export",
    "export_int8",
    "export_nir",
    "export_onnx",
    "extensions",
    "fidelity",
    "flow",
    "graph",
    "hop_maps",
    "interactions",
    "lag_maps",
    "lesion",
    "load",
    "models",
    "nulls",
    "penalties",
    "plots",
    "prune",
    "quantise",
    "read",
    "recipes",
    "reduce",
    "report",
    "resolvent",
    "run_sweep",
    "save",
    "schedules",
    "spectral_radius",
    "statistics",
    "sweeps",
    "tasks",
    "testing",
    "top_paths",
    "train",
    "trajectory_maps",
    "truncate",
]

_LAZY = {  # loaded when used: pandas, pydantic, matplotlib and jinja2 take a while
    "plots": "hoplens.plots",
    "report": "hoplens.reports:report",
    "run_sweep": "hoplens.studies.sweeps:run_sweep",
    "statistics": "hoplens.studies.statistics",
    "sweeps": "hoplens.studies.sweeps",
    "testing": "hoplens.studies.testing",
}


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


if not typing.TYPE_CHECKING:  # a checker shall see the names above, and no others

    def __getattr__(name: str) -> object:
        if name in _LAZY:
            return look_up(_LAZY[name])
        raise AttributeError(f"module 'hoplens' has no attribute {name!r}")
