"""What strengths are chosen for, on the validation seeds: the least error, pruning, or few hops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hoplens.studies.statistics.selection import best_strength, choosing_columns, standing

BEST, PRUNED, LEAN = "best", "pruned", "lean"
PURPOSES = (BEST, PRUNED, LEAN)
OURS = "recommended"
REFERENCE = "L1"  # whose error a lean network must match
SPARSE = f"{OURS}, sparse"  # with 90 % of the recurrent weights removed while it trains
LEAN_METHODS = (REFERENCE, "paper", "hops", OURS)  # with a strength of their own for few hops


def choose(rows: pd.DataFrame, purposes: Sequence[str] = PURPOSES) -> pd.DataFrame:
    """Return the strengths that validation networks choose for each method on each task.

    * "best": by the error of `choosing_columns`; of equal ones by the loss.
    * "pruned": by that error with 90 % of the recurrent weights removed.
    * "lean": fewest active hops among the strengths whose mean error is within one standard error of the
      best one of L1 (Breiman's rule); "best" where there is none, or no L1, and for methods that do not
      penalise hops (`LEAN_METHODS`): their networks are reported once.

    All by `best_strength`: a strength at which a network diverged is chosen only where there is no other.
    Columns task, method, pick, strength.
    """
    choices = []
    for task, group in rows.groupby("task", sort=False):
        error = choosing_columns(group)
        group = group.assign(error_90=_pruned_error(group))
        limit = _limit(group[group["method"] == REFERENCE], error[0])
        for method, own in group.groupby("method", sort=False):
            best = best_strength(own, error)
            picks = {BEST: best}
            if PRUNED in purposes:
                picks[PRUNED] = best_strength(own, ["error_90", *error])
            if LEAN in purposes:
                within = _within(own, error[0], limit) if method in LEAN_METHODS else own.iloc[:0]
                hops = (
                    "flow_hops"
                    if "flow_hops" in within and within["flow_hops"].notna().any()
                    else "active_hops"
                )
                picks[LEAN] = best_strength(within, hops) if len(within) else best
            choices += [(task, method, pick, picks[pick]) for pick in purposes]
    return pd.DataFrame(choices, columns=["task", "method", "pick", "strength"]).astype({"strength": float})


def _pruned_error(rows: pd.DataFrame) -> pd.Series[float]:
    """Return the error with 90 % of the recurrent weights removed, where that was measured, else NaN."""
    if "validation_error_90" in rows and rows["validation_error_90"].notna().any():
        return rows["validation_error_90"]
    if "kept_90" in rows:
        return 1 - rows["kept_90"] * (1 - rows["test_error"])
    return pd.Series(np.nan, index=rows.index)


def _within(rows: pd.DataFrame, error: str, limit: float) -> pd.DataFrame:
    """Return the rows of the strengths that lost no network and have at most this mean error."""
    order = {strength: standing(own[error]) for strength, own in rows.groupby("strength")}
    return rows[[order[strength] <= (0.0, limit) for strength in rows["strength"]]]


def _limit(reference: pd.DataFrame, error: str) -> float:
    """Return the best mean error of the reference plus its standard error."""
    if reference.empty:
        return -np.inf
    best = best_strength(reference)
    errors = reference.loc[reference["strength"] == best, error].to_numpy(dtype=float)
    spread = float(np.std(errors, ddof=1)) / np.sqrt(len(errors)) if len(errors) > 1 else 0.0
    return float(errors.mean()) + spread


def rows_at(choices: pd.DataFrame, networks: pd.DataFrame, pick: str) -> pd.DataFrame:
    """Return the networks at every method's strength for one purpose."""
    chosen = choices[choices["pick"] == pick].drop(columns="pick")
    return chosen.merge(networks, on=["task", "method", "strength"], how="left")


__all__ = ["BEST", "LEAN", "OURS", "PRUNED", "PURPOSES", "REFERENCE", "SPARSE", "choose", "rows_at"]
