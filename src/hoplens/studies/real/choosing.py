"""Choosing each method's strength on the validation split of the validation seeds, for three purposes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hoplens.studies.paper.aims import OURS
from hoplens.studies.statistics import best_strength, standing

BEST, PRUNED, LEAN = "best", "pruned", "lean"
REFERENCE = "L1"  # whose error a lean network must match
BY_ERROR = ("validation_error", "validation_loss")
LEAN_METHODS = (REFERENCE, "R-RNN", OURS, f"{OURS} - pruning")  # with a strength of their own for few hops


def choose(validation: pd.DataFrame) -> pd.DataFrame:
    """Return the chosen strengths.

    * "best": by validation error; of equal ones by validation loss.
    * "pruned": by validation error with 90 % of the recurrent weights removed.
    * "lean": fewest active hops among the strengths whose mean validation error is within one standard error
      of the best one of L1 (Breiman's rule); "best" where there is none, or no L1, and for methods that do
      not penalise hops (`LEAN_METHODS`): their networks are reported once.

    All by `hoplens.statistics.best_strength`: a strength at which a network diverged is chosen only where
    there is no other.

    Parameters
    ----------
    validation : DataFrame
        One row a network: task, method, strength, seed, validation_error, validation_loss,
        validation_error_90, active_hops.

    Returns
    -------
    DataFrame
        Columns task, method, pick, strength.
    """
    rows = []
    for task, group in validation.groupby("task", sort=False):
        limit = _limit(group[group["method"] == REFERENCE])
        for method, own in group.groupby("method", sort=False):
            best = best_strength(own, BY_ERROR)
            within = _within(own, limit) if method in LEAN_METHODS else own.iloc[:0]
            picks = {
                BEST: best,
                PRUNED: best_strength(own, ["validation_error_90", "validation_error"]),
                LEAN: best_strength(within, "active_hops") if len(within) else best,
            }
            rows += [(task, method, pick, strength) for pick, strength in picks.items()]
    return pd.DataFrame(rows, columns=["task", "method", "pick", "strength"])


def _within(rows: pd.DataFrame, limit: float) -> pd.DataFrame:
    """Return the rows of the strengths that lost no network and have at most this mean validation error."""
    order = {strength: standing(own["validation_error"]) for strength, own in rows.groupby("strength")}
    return rows[[order[strength] <= (0.0, limit) for strength in rows["strength"]]]


def _limit(reference: pd.DataFrame) -> float:
    """Return the best mean validation error of the reference plus its standard error."""
    if reference.empty:
        return -np.inf
    best = best_strength(reference, BY_ERROR)
    errors = reference.loc[reference["strength"] == best, "validation_error"].to_numpy(dtype=float)
    spread = float(np.std(errors, ddof=1)) / np.sqrt(len(errors)) if len(errors) > 1 else 0.0
    return float(errors.mean()) + spread


def pairs_of(choices: pd.DataFrame) -> dict[str, list[tuple[str, float]]]:
    """Return the distinct (method, strength) pairs of every task."""
    found: dict[str, list[tuple[str, float]]] = {}
    for row in choices.itertuples(index=False):
        pair = (str(row.method), float(row.strength))  # type: ignore[arg-type]
        own = found.setdefault(str(row.task), [])
        if pair not in own:
            own.append(pair)
    return found


def rows_of(choices: pd.DataFrame, networks: pd.DataFrame, pick: str) -> pd.DataFrame:
    """Return the report rows of every method's strength for one purpose."""
    chosen = choices[choices["pick"] == pick].drop(columns="pick")
    return chosen.merge(networks, on=["task", "method", "strength"], how="left")


__all__ = ["BEST", "LEAN", "PRUNED", "choose", "pairs_of", "rows_of"]
