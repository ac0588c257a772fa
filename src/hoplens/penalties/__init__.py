"""Differentiable penalties on pathways, weights and flow, and what changes them over training."""

from hoplens.penalties import schedules
from hoplens.penalties.base import Penalty, PenaltySum, WeightPenalty
from hoplens.penalties.costs import PenaltyCost
from hoplens.penalties.flow import FlowPenalty
from hoplens.penalties.gradual_pruning import GradualPruning
from hoplens.penalties.pathway import PathwayPenalty
from hoplens.penalties.schedules import Schedule, ScheduledPenalty

__all__ = [
    "FlowPenalty", "GradualPruning", "PathwayPenalty", "Penalty", "PenaltyCost", "PenaltySum", "Schedule",
    "ScheduledPenalty", "WeightPenalty", "schedules",
]  # fmt: skip
