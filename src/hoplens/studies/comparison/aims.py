"""What the recommended recipe was meant to reach, checked against what it reached: a list of aims a study."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from hoplens.data.tasks import Task
from hoplens.studies.comparison.results import StudyResults
from hoplens.studies.statistics.comparing import paired_differences
from hoplens.studies.statistics.purposes import BEST, LEAN, OURS, PRUNED, REFERENCE, SPARSE, rows_at
from hoplens.studies.statistics.selection import choose_strengths

RIVALS = (REFERENCE, "paper")
OTHERS = ("none", *RIVALS, "L2", "weight decay", "dropout", "hops")
REACH = 28  # lag that should be learnt
REACHED = 0.1  # share of the target variance below which a lag counts as reached
SHARE = 6 / 8  # of the sets on which most aims of real data should hold
HALF = 0.5
LESS = 0.8


class Verdict(NamedTuple):
    """One row of the table of aims."""

    target: str
    measured: str
    met: bool
    where: str


@dataclass(frozen=True)
class Aim:
    """A sentence, and what says whether it holds; None where the study has nothing to judge it by."""

    aim: str
    judge: Callable[[StudyResults], Verdict | None]


def judge(results: StudyResults, aims: str) -> pd.DataFrame:
    """Return one row an aim: aim, target, measured, met, where it is missed."""
    verdicts = [(aim.aim, aim.judge(results)) for aim in AIMS[aims]]
    rows = [(text, *verdict) for text, verdict in verdicts if verdict is not None]
    return pd.DataFrame(rows, columns=["aim", "target", "measured", "met", "where"])


def method_rows(results: StudyResults, method: str, pick: str = BEST) -> pd.DataFrame:
    """Return the summary of one method at one purpose, one row a task, indexed by it."""
    summary = results.at(pick).summary
    return summary[summary["method"] == method].set_index("task")


# aims of tasks whose truth is known: the worst task must keep a bound


def _ratio(results: StudyResults) -> pd.Series[float]:
    """Return our test error over that of the better of L1 and the paper's recipe."""
    best = pd.concat([method_rows(results, name)["test_error"] for name in RIVALS], axis=1).min(axis=1)
    return method_rows(results, OURS)["test_error"] / best


def _hop_distance(results: StudyResults) -> pd.Series[float]:
    ours = method_rows(results, OURS)
    return (ours["flow_hops"] - ours["target_active_hops"]).abs()


def _ours(measure: str, method: str = OURS) -> Callable[[StudyResults], pd.Series[float]]:
    return lambda results: method_rows(results, method)[measure]


def _bound(
    aim: str,
    values: Callable[[StudyResults], pd.Series[float]],
    *,
    most: float = math.inf,
    least: float = -math.inf,
    tasks: Callable[[Task], bool] = lambda task: True,  # noqa: ARG005 - every task
) -> Aim:
    """Return the aim that a number keeps a bound on every task of a kind."""

    def verdict(results: StudyResults) -> Verdict | None:
        kept = [label for label, task in results.tasks.items() if tasks(task)]
        measured = values(results)
        if measured.empty:  # the study has no such method
            return None
        own = measured[kept]
        missed = own[~((own >= least) & (own <= most))]
        below = math.isfinite(most)
        worst, target = (own.max(), f"at most {most:g}") if below else (own.min(), f"at least {least:g}")
        where = "; ".join(f"{task}: {value:.3f}" for task, value in missed.items())
        return Verdict(target, f"worst {worst:.3f}", missed.empty, where)

    return Aim(aim, verdict)


def reach_means(reach: pd.DataFrame) -> pd.DataFrame:
    """Return mean test errors of the report seeds, one row a method and one column a lag.

    At every lag a method has its best strength, chosen on the validation seeds.
    """
    report = choose_strengths(reach).merge(
        reach[reach["role"] == "report"], on=["task", "method", "strength"]
    )
    return report.pivot_table(index="method", columns="lag", values="test_error", aggfunc="mean", sort=False)


def longest_lags(reach: pd.DataFrame) -> pd.Series[float]:
    """Return each method's reach: the longest lag learnt to below a tenth of the target variance, or 0."""
    means = reach_means(reach)
    lags = means.columns.to_numpy(dtype=float)
    longest = [max(lags[row < REACHED], default=0.0) for row in means.to_numpy(dtype=float)]
    return pd.Series(longest, index=means.index, dtype=float)


def _reaches(results: StudyResults) -> Verdict | None:
    if results.reach.empty:
        return None
    reached = longest_lags(results.reach)
    ours, l1, paper = (float(reached.get(name, np.nan)) for name in (OURS, *RIVALS))
    met = ours >= REACH
    measured = f"{ours:g} (L1 {l1:g}, paper {paper:g}, none {float(reached.get('none', np.nan)):g})"
    return Verdict(f"at least {REACH} steps", measured, met, "" if met else "reach part")


# aims of data sets: on how many of them something holds


def best_other(results: StudyResults) -> pd.DataFrame:
    """Return the row of the other method of least mean test error for every task, indexed by task."""
    summary = results.at(BEST).summary
    others = summary[summary["method"].isin(OTHERS)]
    least = others.sort_values("test_error", kind="stable").drop_duplicates("task")
    return least.set_index("task")


def _better(results: StudyResults) -> Verdict:
    """Return on how many sets our error is at most 0.8 times that of the best other method."""
    ours, others = method_rows(results, OURS)["test_error"], best_other(results)
    ratios = ours / others["test_error"]
    missed = [
        f"{task}: {ratio:.2f} x {method}"
        for task, ratio, method in zip(ratios.index, ratios, others["method"][ratios.index], strict=True)
        if not ratio <= LESS  # nor where there is none
    ]
    return _on_share(len(ratios), missed, HALF)


def _never_worse(results: StudyResults) -> Verdict:
    """Return whether our paired gap to the best other method lies clearly above 0 on no set."""
    paired, missed = results.at(BEST).paired, []
    for task, method in best_other(results)["method"].items():
        rows = paired[(paired["task"] == task) & (paired["reference"] == method)]
        row = rows[rows["measure"] == "test_error"].iloc[0]
        if not row["low"] <= 0:  # nor where every network was lost
            missed.append(
                f"{task}: {row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}] to {method}"
            )
    sets = len(best_other(results))
    return Verdict("on no set", f"{len(missed)} of {sets}", not missed, "; ".join(missed))


def _on_share(sets: int, missed: list[str], share: float) -> Verdict:
    wanted, count = math.ceil(share * sets), sets - len(missed)
    return Verdict(f"on {wanted} of {sets} sets", f"{count}", count >= wanted, "; ".join(missed))


def pruned_gaps(results: StudyResults) -> pd.DataFrame:
    """Return the gaps in error to L1 at 90 % zeros, one row a task, each at the strength chosen for that."""
    paired = results.at(PRUNED).paired
    return paired[(paired["reference"] == REFERENCE) & (paired["measure"] == "test_error_90")]


def _better_pruned(results: StudyResults) -> Verdict | None:
    """Return on how many sets our sparse recipe has less error than every other method with 90 % removed."""
    summary = results.at(PRUNED).summary
    ours = summary[summary["method"] == SPARSE].set_index("task")["test_error_90"]
    if ours.empty:
        return None
    others = summary[~summary["method"].isin([OURS, SPARSE])].sort_values("test_error_90", kind="stable")
    least = others.drop_duplicates("task").set_index("task")
    least = least.loc[ours.index]
    missed = [
        f"{task}: {error:.4f} against {method} {other:.4f}"
        for task, error, method, other in zip(
            ours.index, ours, least["method"], least["test_error_90"], strict=True
        )
        if not error < other
    ]
    return _on_share(len(ours), missed, SHARE)


def _half_the_hops(results: StudyResults) -> Verdict:
    """Return on how many sets our lean networks are as good as L1's best with at most half of their hops."""
    report = results.networks[results.networks["role"] == "report"]
    lean, best = (rows_at(results.choices, report, pick) for pick in (LEAN, BEST))
    both = pd.concat([lean[lean["method"] == OURS], best[best["method"] == REFERENCE]])
    gaps = paired_differences(both, OURS, [REFERENCE], ["test_error"]).set_index("task")
    ours, theirs = method_rows(results, OURS, LEAN), method_rows(results, REFERENCE)
    missed = []
    for task in ours.index:
        ratio = ours["flow_hops"][task] / theirs["flow_hops"][task]
        worse = not bool(gaps["low"][task] <= 0)
        if not np.isfinite(ratio) or ratio > HALF or worse:
            missed.append(f"{task}: {ratio:.2f} of its hops" + (", error above it" if worse else ""))
    return _on_share(len(ours), missed, SHARE)


RATIO = "test error / better of L1 and the paper's recipe"
AIMS = {
    "paper": (
        _bound(f"{RATIO}, sparse and on-off tasks", _ratio, most=0.7, tasks=lambda t: t.signal != "every"),
        _bound(f"{RATIO}, every task", _ratio, most=1.0),
        _bound("accuracy, sparse tasks", _ours("accuracy"), least=0.97, tasks=lambda t: t.signal == "sparse"),
        _bound("alignment of the flow, every task", _ours("flow_alignment"), least=0.98),
        _bound(
            "distance of the flow's active hops from the task's own count, linear tasks",
            _hop_distance,
            most=0.1,
            tasks=lambda t: t.is_linear,
        ),
        _bound(
            "sparse: performance kept, 70 % of recurrent weights removed",
            _ours("kept_70", SPARSE),
            least=0.99,
        ),
        _bound(
            "sparse: performance kept, 90 % of recurrent weights removed",
            _ours("kept_90", SPARSE),
            least=0.95,
        ),
        Aim("reach: longest lag learnt", _reaches),
    ),
    "real": (
        Aim(f"test error at most {LESS} x that of the best other method", _better),
        Aim("test error clearly above that of the best other method", _never_worse),
        Aim("as good as L1 at its best with at most half of its active hops of the flow", _half_the_hops),
        Aim(
            "sparse: less error than every other method, 90 % of the recurrent weights removed",
            _better_pruned,
        ),
    ),
}


__all__ = [
    "AIMS",
    "OTHERS",
    "RIVALS",
    "Aim",
    "best_other",
    "judge",
    "longest_lags",
    "method_rows",
    "pruned_gaps",
    "reach_means",
]
