"""Statistics of many networks: choose on some seeds, report on others, with intervals, tests and power."""

from hoplens.studies.statistics.comparing import (
    cliffs_delta,
    compare,
    holm,
    pair_chosen,
    paired_d,
    paired_differences,
    paired_test,
    superiority,
)
from hoplens.studies.statistics.curves import curve_area, near_best, robustness
from hoplens.studies.statistics.fronts import dominates, front_points, hypervolume, pareto_front, undominated
from hoplens.studies.statistics.intervals import Interval, bootstrap_mean
from hoplens.studies.statistics.seeds import detectable_effect, power, power_note, seeds_needed
from hoplens.studies.statistics.selection import (
    assign_roles,
    best_strength,
    choose_strengths,
    chosen_report,
    standing,
    summarise,
    summarise_chosen,
)

__all__ = [
    "Interval",
    "assign_roles",
    "best_strength",
    "bootstrap_mean",
    "choose_strengths",
    "chosen_report",
    "cliffs_delta",
    "compare",
    "curve_area",
    "detectable_effect",
    "dominates",
    "front_points",
    "holm",
    "hypervolume",
    "near_best",
    "pair_chosen",
    "paired_d",
    "paired_differences",
    "paired_test",
    "pareto_front",
    "power",
    "power_note",
    "robustness",
    "seeds_needed",
    "standing",
    "summarise",
    "summarise_chosen",
    "superiority",
    "undominated",
]
