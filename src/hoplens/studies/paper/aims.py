"""What the recommended recipe was meant to reach, checked against what it reached."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from hoplens.data.tasks import Task
from hoplens.studies.paper.plan import MAIN, tasks_of
from hoplens.studies.statistics import choose_strengths
from hoplens.studies.sweeps.plan import Plan

OURS = "recommended"
RIVALS = ("L1", "paper")
REACHED = 0.1  # share of the target variance below which a lag counts as reached

Row = tuple[str, str, str, bool, str]


def check(summary: pd.DataFrame, reach: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Return one row an aim: aim, target, measured (the worst task), met, where it is missed.

    Parameters
    ----------
    summary : DataFrame
        Means of every (task, method) at its chosen strength.
    reach : DataFrame
        Networks of the reach part, or empty.
    plan : Plan
        Says which tasks are linear or sparse.
    """
    tasks = tasks_of(plan, MAIN)
    table = {name: rows.set_index("task") for name, rows in summary.groupby("method")}
    ours = table[OURS]
    best_rival = pd.concat([table[name]["test_error"] for name in RIVALS if name in table], axis=1).min(
        axis=1
    )
    ratio = ours["test_error"] / best_rival
    sparse_signal = _labels(tasks, lambda t: t.signal != "every")
    sparse = _labels(tasks, lambda t: t.signal == "sparse")
    linear = _labels(tasks, lambda t: t.is_linear)
    gap = (ours["active_hops"] - ours["target_active_hops"]).abs()
    rival = "test error / better of L1 and the paper's recipe"
    rows = [
        _at_most(f"{rival}, sparse and on-off tasks", ratio[sparse_signal], 0.7),
        _at_most(f"{rival}, every task", ratio, 1.0),
        _at_least("accuracy, sparse tasks", ours["accuracy"][sparse], 0.97),
        _at_least("alignment, linear tasks", ours["alignment"][linear], 0.98),
        _at_most("distance of active hops from the task's own count, linear tasks", gap[linear], 0.1),
        _at_least("performance kept, 70 % of recurrent weights removed", ours["kept_70"], 0.99),
        _at_least("performance kept, 90 % of recurrent weights removed", ours["kept_90"], 0.95),
    ]
    if len(reach):
        rows.append(_reach_row(longest_lags(reach)))
    return pd.DataFrame(rows, columns=["aim", "target", "measured", "met", "where"])


def _labels(tasks: dict[str, Task], keep: Callable[[Task], bool]) -> list[str]:
    return [label for label, task in tasks.items() if keep(task)]


def _at_most(aim: str, values: pd.Series[float], bound: float) -> Row:
    missed = values[~(values <= bound)]
    return aim, f"at most {bound:g}", f"worst {values.max():.3f}", missed.empty, _where(missed)


def _at_least(aim: str, values: pd.Series[float], bound: float) -> Row:
    missed = values[~(values >= bound)]
    return aim, f"at least {bound:g}", f"worst {values.min():.3f}", missed.empty, _where(missed)


def _where(missed: pd.Series[float]) -> str:
    return "; ".join(f"{task}: {value:.3f}" for task, value in missed.items())


def reach_means(reach: pd.DataFrame) -> pd.DataFrame:
    """Return mean test errors of the report seeds, one row a method and one column a lag.

    At every lag a method has its best strength, chosen on the validation seeds.
    """
    chosen = choose_strengths(reach)
    report = chosen.merge(reach[reach["role"] == "report"], on=["task", "method", "strength"])
    return report.pivot_table(index="method", columns="lag", values="test_error", aggfunc="mean", sort=False)


def longest_lags(reach: pd.DataFrame) -> pd.Series[float]:
    """Return each method's reach: the longest lag learnt to below a tenth of the target variance, or 0."""
    means = reach_means(reach)
    lags = means.columns.to_numpy(dtype=float)
    longest = [max(lags[row < REACHED], default=0.0) for row in means.to_numpy(dtype=float)]
    return pd.Series(longest, index=means.index, dtype=float)


def _reach_row(reached: pd.Series[float]) -> Row:
    ours, l1, paper = (float(reached.get(name, np.nan)) for name in (OURS, *RIVALS))
    met = ours >= 2 * l1 and ours > paper
    measured = f"{ours:g} (L1 {l1:g}, paper {paper:g}, none {float(reached.get('none', np.nan)):g})"
    where = "" if met else "reach part"
    return "reach: longest lag learnt", "twice that of L1, above the paper's recipe", measured, met, where
