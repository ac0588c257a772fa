"""What a report needs to know about a study, and the comparisons drawn from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from hoplens.plots.measures import OURS, REFERENCES

if TYPE_CHECKING:
    import pandas as pd


class StudyLike(Protocol):
    """The attributes of a study's results that a report is made of; any frame may be empty.

    Attributes
    ----------
    networks : DataFrame
        One row a trained network: task, method, strength, seed, role ("validation" or "report"), the
        measures, ``kept_10`` .. ``kept_90``, diverged_at.
    summary : DataFrame
        One row a (task, method): strength, n, and each measure with ``_low`` and ``_high``.
    paired : DataFrame
        Differences by seed: task, method, reference, measure, difference, low, high, p, n.
    reach : DataFrame
        method, lag, strength, seed, role, test_mse.
    ablation : DataFrame
        Like ``summary``; the methods are the arms of the ablation.
    anchors : DataFrame
        Against the paper: claim, paper, ours, low, high, agrees (bool or words), note.
    aims : DataFrame
        aim, target, measured, met (bool), where.
    examples : mapping
        method -> (task label, HopMaps of one network), and "target" -> HopMaps.
    settings : mapping
        Printable values by name.
    """

    @property
    def networks(self) -> pd.DataFrame: ...
    @property
    def summary(self) -> pd.DataFrame: ...
    @property
    def paired(self) -> pd.DataFrame: ...
    @property
    def reach(self) -> pd.DataFrame: ...
    @property
    def ablation(self) -> pd.DataFrame: ...
    @property
    def anchors(self) -> pd.DataFrame: ...
    @property
    def aims(self) -> pd.DataFrame: ...
    @property
    def examples(self) -> Mapping[str, Any]: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Duel:
    """The recommended recipe against the better of L1 and R-RNN on one task, by test error.

    Attributes
    ----------
    task, reference : str
        Where, and against which method.
    ours, theirs, ratio : float
        Mean test errors and ours / theirs.
    difference, low, high, p : float
        Ours minus theirs, paired by seed, with its 95 % interval and p value (corrected for many tests
        where the study gives that); NaN where no pair was given.
    n : int
        Pairs of networks.
    outcome : {"better", "worse", "unclear", "untested"}
        What the paired interval says of ours: all below 0, all above 0, or 0 inside.
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
    n: int
    outcome: Literal["better", "worse", "unclear", "untested"]


def duels(results: StudyLike) -> list[Duel]:
    """Return one comparison for every task that has a finite error of ours and of a reference."""
    summary = results.summary
    if not len(summary) or "test_mse" not in summary.columns:
        return []
    found = []
    for task in dict.fromkeys(summary["task"]):
        errors = {
            str(method): float(error)
            for method, error in summary.loc[summary["task"] == task, ["method", "test_mse"]].itertuples(
                index=False
            )
            if math.isfinite(error)
        }
        references = [name for name in REFERENCES if name in errors]
        if OURS in errors and references:
            best = min(references, key=lambda name: errors[name])
            found.append(_duel(results.paired, str(task), best, errors[OURS], errors[best]))
    return found


def _duel(paired: pd.DataFrame, task: str, reference: str, ours: float, theirs: float) -> Duel:
    ratio = ours / theirs if theirs else math.nan
    row: dict[str, Any] = {}
    if len(paired):
        wanted = {"task": task, "method": OURS, "reference": reference, "measure": "test_mse"}
        rows = paired[(paired[list(wanted)] == list(wanted.values())).all(axis=1)]
        row = rows.iloc[0].to_dict() if len(rows) else {}
    p = float(row.get("p_holm", row.get("p", math.nan)))
    difference, low, high = (float(row.get(name, math.nan)) for name in ("difference", "low", "high"))
    outcome: Literal["better", "worse", "unclear", "untested"] = "untested"
    if math.isfinite(low) and math.isfinite(high):
        outcome = "better" if high < 0 else "worse" if low > 0 else "unclear"
    return Duel(task, reference, ours, theirs, ratio, difference, low, high, p, int(row.get("n", 0)), outcome)


def mean_over_tasks(summary: pd.DataFrame, method: str, measure: str) -> float:
    """Return a method's mean of a measure over the tasks for which it has one; NaN if there is none."""
    if not len(summary) or measure not in summary.columns:
        return math.nan
    values = [v for v in summary.loc[summary["method"] == method, measure].astype(float) if math.isfinite(v)]
    return sum(values) / len(values) if values else math.nan


def with_targets(summary: pd.DataFrame, networks: pd.DataFrame) -> pd.DataFrame:
    """Return a summary with each task's own number of active hops, taken from the networks if need be."""
    name = "target_active_hops"
    if not len(summary) or name in summary.columns or name not in networks.columns:
        return summary
    return summary.assign(**{name: summary["task"].map(networks.groupby("task")[name].first())})


def agreement(value: object) -> str:
    """Say whether a number agrees with the paper's: "agrees", "disagrees", or the study's own words."""
    words = {"True": "agrees", "yes": "agrees", "False": "disagrees", "no": "disagrees"}
    return words.get(str(value), str(value))
