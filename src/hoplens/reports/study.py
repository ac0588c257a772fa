"""Comparisons drawn from a study's results for its page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hoplens.analysis.hops import HopMaps
from hoplens.plots.style import OURS, REFERENCES, method_label, method_order
from hoplens.studies.comparison.results import StudyResults

if TYPE_CHECKING:
    import pandas as pd


SIGNIFICANT = 0.05
TARGET = "target"


@dataclass(frozen=True)
class Duel:
    """The recommended recipe against the better of L1 and the paper's recipe on one task, by test error.

    The difference is ours minus theirs, paired by seed, NaN where not given. It is clear where its interval
    leaves out 0 and p, if given, is below 0.05: the interval of a handful of pairs is too narrow to be
    trusted alone. It is not clear where the side that it favours lost more of its networks: the means are
    those of the others.
    """

    task: str
    reference: str
    ours: float
    theirs: float
    ratio: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    n: int
    outcome: Literal["better", "worse", "unclear", "untested"]


def duels(results: StudyResults) -> list[Duel]:
    """Return one comparison for every task that has a finite error of ours and of a reference.

    The better reference is the one that lost the smaller share of its networks, then the one of less error.
    """
    summary = results.summary
    if not len(summary) or "test_error" not in summary.columns:
        return []
    found = []
    for task in dict.fromkeys(summary["task"]):
        rows = summary[summary["task"] == task].to_dict("records")
        sides = {str(row["method"]): (lost_share(row), float(row["test_error"])) for row in rows}
        sides = {name: side for name, side in sides.items() if math.isfinite(side[1])}
        references = [name for name in REFERENCES if name in sides]
        if OURS in sides and references:
            best = min(references, key=lambda name: sides[name])
            found.append(_duel(results.paired, str(task), best, sides[OURS], sides[best]))
    return found


def lost_share(row: Mapping[Any, Any]) -> float:
    """Return which share of its networks a row of a summary lost; 0 where the row does not say."""
    n, lost = (float(row.get(name, math.nan)) for name in ("n", "diverged"))
    return lost / n if math.isfinite(lost) and n > 0 else 0.0


def _duel(
    paired: pd.DataFrame, task: str, reference: str, own: tuple[float, float], other: tuple[float, float]
) -> Duel:
    (ours_lost, ours), (theirs_lost, theirs) = own, other
    ratio = ours / theirs if theirs else math.nan
    row: dict[Any, Any] = {}
    if len(paired):
        wanted = {"task": task, "method": OURS, "reference": reference, "measure": "test_error"}
        rows = paired[(paired[list(wanted)] == list(wanted.values())).all(axis=1)]
        row = rows.iloc[0].to_dict() if len(rows) else {}
    names = ("difference", "low", "high", "p", "p_holm")
    difference, low, high, p, p_holm = (float(row.get(name, math.nan)) for name in names)
    outcome: Literal["better", "worse", "unclear", "untested"] = "untested"
    if math.isfinite(low) and math.isfinite(high):
        chance = math.isfinite(p) and p >= SIGNIFICANT
        outcome = "unclear" if chance or low <= 0 <= high else "better" if high < 0 else "worse"
        if (outcome == "better" and ours_lost > theirs_lost) or (
            outcome == "worse" and theirs_lost > ours_lost
        ):
            outcome = "unclear"
    pairs = int(row.get("n", 0))
    return Duel(task, reference, ours, theirs, ratio, difference, low, high, p, p_holm, pairs, outcome)


def leaders(summary: pd.DataFrame) -> str:
    """Say which method has the least test error on how many tasks; empty where nothing is compared."""
    if not len(summary) or "test_error" not in summary.columns or summary["method"].nunique() < 2:
        return ""
    wins: dict[str, int] = {}
    for _, rows in summary.groupby("task", sort=False):
        sides = {
            str(row["method"]): (lost_share(row), float(row["test_error"])) for row in rows.to_dict("records")
        }
        sides = {name: side for name, side in sides.items() if math.isfinite(side[1])}
        if len(sides) > 1:
            best = min(sides, key=lambda name: sides[name])
            wins[best] = wins.get(best, 0) + 1
    if not wins:
        return ""
    tasks = sum(wins.values())
    where = "the one task" if tasks == 1 else f"{tasks} tasks"
    named = [f"{method_label(name)} on {n}" for name, n in sorted(wins.items(), key=lambda item: -item[1])]
    return (
        f"Over {where}, each method at its best strength, the least mean test error has {', '.join(named)}. "
        "This is an order of means: whether a difference is more than chance, the intervals below say."
    )


def means_over_tasks(summary: pd.DataFrame, measure: str) -> dict[str, float]:
    """Return the means of a measure for the recommended recipe, no penalty, L1 and the paper's recipe.

    Only tasks for which all of these have a number count, so that all means are over the same tasks; a
    method without any number is left out.
    """
    if not len(summary) or measure not in summary.columns:
        return {}
    wide = summary.pivot_table(index="task", columns="method", values=measure, aggfunc="first")
    methods = [m for m in (OURS, "none", *REFERENCES) if m in wide.columns and wide[m].notna().any()]
    common = wide[methods].dropna()
    return {m: float(common[m].mean()) for m in methods} if len(common) else {}


def with_targets(summary: pd.DataFrame, networks: pd.DataFrame) -> pd.DataFrame:
    """Return a summary with each task's own number of active hops, taken from the networks if need be."""
    name = "target_active_hops"
    if not len(summary) or name in summary.columns or name not in networks.columns:
        return summary
    return summary.assign(**{name: summary["task"].map(networks.groupby("task")[name].first())})


def example_maps(examples: Mapping[str, Any]) -> list[tuple[str, str, HopMaps]]:
    """Return (title, task label, maps of one network) of a study's examples, the task's own maps first."""
    found = dict(examples)
    target = found.pop(TARGET, None)
    rows = [] if target is None else [("the task itself", "", target)]
    rows += [(method_label(m), *found[m]) for m in method_order(found)]
    return [
        (title, str(task), maps[(0,) * len(maps.batch_shape)] if maps.batch_shape else maps)
        for title, task, maps in rows
    ]


def agreement(value: object) -> str:
    """Say whether a number agrees with the paper's: "agrees", "disagrees", or the study's own words."""
    words = {"True": "agrees", "yes": "agrees", "False": "disagrees", "no": "disagrees"}
    return words.get(str(value), str(value))
