"""What pathway penalties were meant to reach on real sequences, checked against what they reached."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from hoplens.studies.paper.aims import OURS
from hoplens.studies.real.choosing import BEST, LEAN, PRUNED

L1 = "L1"
RIVALS = ("none", L1, "L2", "weight decay", "dropout", "paper")
SHARE = 5 / 7  # of the sets on which an aim should hold
HALF = 0.5

Row = tuple[str, str, str, bool, str]


def check(summary: pd.DataFrame, lean: pd.DataFrame, paired: pd.DataFrame) -> pd.DataFrame:
    """Return one row an aim.

    Parameters
    ----------
    summary : DataFrame
        Means of every (task, method, pick) with intervals.
    lean : DataFrame
        Paired differences of our lean networks to L1's best ones: task, difference, low, high.
    paired : DataFrame
        Paired differences of ours to each method, with column pick.
    """
    rows = [_as_good(summary), _better_pruned(paired), _half_the_hops(summary, lean)]
    return pd.DataFrame(rows, columns=["aim", "target", "measured", "met", "where"])


def best_rival(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the row of the rival of least mean test error for every task, indexed by task."""
    rivals = summary[(summary["pick"] == BEST) & summary["method"].isin(RIVALS)]
    least = rivals.sort_values("test_error", kind="stable").drop_duplicates("task")
    return least.set_index("task")


def _ours(summary: pd.DataFrame, pick: str) -> pd.DataFrame:
    return summary[(summary["method"] == OURS) & (summary["pick"] == pick)].set_index("task")


def _as_good(summary: pd.DataFrame) -> Row:
    """Return whether our mean lies within the best rival's 95 % interval, or below it, on every set."""
    ours, best = _ours(summary, BEST), best_rival(summary)
    missed = []
    for rival in best.reset_index().to_dict("records"):
        task = rival["task"]
        if not ours["test_error"][task] <= rival["test_error_high"]:
            least = f"{rival['method']} {rival['test_error']:.4f} (up to {rival['test_error_high']:.4f})"
            missed.append(f"{task}: {ours['test_error'][task]:.4f} against {least}")
    count = len(ours) - len(missed)
    aim = "test error within the 95 % interval of the best other method, or below"
    return aim, "on every set", f"{count} of {len(ours)}", not missed, "; ".join(missed)


def _better_pruned(paired: pd.DataFrame) -> Row:
    """Return on how many sets the paired interval of our error minus L1's lies below 0 at 90 % zeros."""
    seen = paired[
        (paired["pick"] == PRUNED) & (paired["reference"] == L1) & (paired["measure"] == "test_error_90")
    ]
    missed = [
        f"{row['task']}: {row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
        for row in seen.to_dict("records")
        if not row["high"] < 0
    ]
    wanted = math.ceil(SHARE * len(seen))
    count = len(seen) - len(missed)
    aim = "test error below that of L1 at equal sparsity (90 % of the recurrent weights removed from both)"
    return aim, f"on {wanted} of {len(seen)} sets", f"{count}", count >= wanted, "; ".join(missed)


def _half_the_hops(summary: pd.DataFrame, lean: pd.DataFrame) -> Row:
    """Return on how many sets our lean networks are as good as L1's best with at most half of their hops."""
    ours = _ours(summary, LEAN)
    theirs = summary[(summary["method"] == L1) & (summary["pick"] == BEST)].set_index("task")
    gaps = lean.set_index("task")
    missed = []
    for task in ours.index:
        ratio = ours["active_hops"][task] / theirs["active_hops"][task]
        worse = bool(gaps["low"][task] > 0)
        if not np.isfinite(ratio) or ratio > HALF or worse:
            missed.append(f"{task}: {ratio:.2f} of its hops" + (", error above it" if worse else ""))
    wanted = math.ceil(SHARE * len(ours))
    count = len(ours) - len(missed)
    aim = "as good as L1 at its best with at most half of its active hops"
    return aim, f"on {wanted} of {len(ours)} sets", f"{count}", count >= wanted, "; ".join(missed)


__all__ = ["best_rival", "check"]
