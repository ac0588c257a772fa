"""What a network routes: hop maps, resolvents, walks, lesions, null models, dynamics, explanations."""

from hoplens.analysis import dynamics, nulls
from hoplens.analysis.analysing import analyze
from hoplens.analysis.approximate import approximate_resolvent
from hoplens.analysis.attribution import Explanation, explain
from hoplens.analysis.fidelity import Fidelity, agreement, fidelity
from hoplens.analysis.hops import HopMaps, hop_maps
from hoplens.analysis.interactions import Interactions, interactions
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
from hoplens.analysis.resolvent import Resolvent, resolvent
from hoplens.analysis.summary import Analysis
from hoplens.analysis.trajectories import TrajectoryMaps, trajectory_maps
from hoplens.analysis.walks import flow, module_flow, top_paths

__all__ = [
    "Analysis", "Blocks", "Explanation", "Fidelity", "HopMaps", "Interactions", "LagMaps", "Resolvent",
    "TrajectoryMaps", "ablate", "active_hops", "agreement", "alignment", "analyze", "approximate_resolvent",
    "blocks", "dominant_hop", "dynamics", "explain", "fidelity", "flow", "hop_maps", "interactions",
    "lag_maps", "lesion", "lesion_edges", "lesion_estimate", "map_correlation", "module_flow", "nulls",
    "resolvent", "signal_share", "temporal_sparsity", "top_paths", "trajectory_maps", "weight_map",
]  # fmt: skip
