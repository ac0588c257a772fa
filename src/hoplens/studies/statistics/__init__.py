"""Statistics of many networks: choose on some seeds, report on others, with intervals, tests and power."""

from hoplens.studies.statistics.comparing import (
    cliffs_delta,
    compare,
    holm,
    paired_d,
    paired_test,
    superiority,
)
from hoplens.studies.statistics.curves import robustness
from hoplens.studies.statistics.fronts import hypervolume, pareto_front
from hoplens.studies.statistics.intervals import Interval, bootstrap_mean
from hoplens.studies.statistics.seeds import power_note, seeds_needed
from hoplens.studies.statistics.selection import assign_roles, best_strength, standing

__all__ = [
    "Interval",
    "assign_roles",
    "best_strength",
    "bootstrap_mean",
    "cliffs_delta",
    "compare",
    "holm",
    "hypervolume",
    "paired_d",
    "paired_test",
    "pareto_front",
    "power_note",
    "robustness",
    "seeds_needed",
    "standing",
    "superiority",
]
