"""Choosing strengths on validation seeds, to report on the others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from hoplens.errors import ParameterError, check_choice, check_count, check_number, unknown_name
from hoplens.studies.statistics.intervals import bootstrap_mean

Better = Literal["lower", "higher"]
BETTER = ("lower", "higher")
ROLES = ("validation", "report")


def assign_roles(networks: pd.DataFrame, validation: Iterable[int]) -> pd.DataFrame:
    """Return the frame with a column ``role``: "validation" for these seeds and "report" for the others.

    Parameters
    ----------
    networks : DataFrame
        One row a network, with a column ``seed``.
    validation : iterable of int
        Seeds that may choose strengths; all others report.

    Raises
    ------
    ParameterError
        If no seed would be left on one of the two sides.
    """
    _check_columns(networks, ["seed"])
    seeds = {check_count("a validation seed", seed, least=0) for seed in validation}
    chooses = networks["seed"].isin(seeds)
    if not chooses.any() or chooses.all():
        side = "report" if chooses.any() else "validation"
        raise ParameterError(
            f"no seed is left for the role {side!r}: seeds of the frame {_few(networks['seed'])}, validation "
            f"{_few(sorted(seeds))}; split them"
        )
    return networks.assign(role=np.where(chooses, "validation", "report"))


def standing(values: ArrayLike, *, better: Better = "lower") -> tuple[float, float]:
    """Return how good the networks of one choice are, as a pair to compare: the smaller is better.

    This is the one order by which hoplens calls anything best: a strength, a trial, a method so far.

    Parameters
    ----------
    values : sequence of float
        One a network. One without a finite value diverged: it failed, whatever the others reach.
    better : {"lower", "higher"}, default "lower"
        Which values are good.

    Returns
    -------
    tuple of float
        The share of networks that failed, then the mean of the others (minus it where "higher" is better;
        infinite where all failed). So a choice that lost a network is worse than any that lost none.
    """
    sign = 1.0 if check_choice("better", better, BETTER) == "lower" else -1.0
    found = np.asarray(values, dtype=float)
    kept = found[np.isfinite(found)]
    lost = (len(found) - len(kept)) / len(found) if len(found) else 1.0
    return lost, sign * float(kept.mean()) if len(kept) else math.inf


def choosing_columns(rows: pd.DataFrame) -> list[str]:
    """Return what to choose by: error and loss of the validation split if there is one, else the test error.

    Of a task both are drawn anew, so that seeds alone keep choice and report apart; a data set has one test
    split, which may not choose.
    """
    own = [
        name for name in ("validation_error", "validation_loss") if name in rows and rows[name].notna().any()
    ]
    return own if "validation_error" in own else ["test_error"]


def best_strength(
    rows: pd.DataFrame, metric: str | Sequence[str] | None = None, *, better: Better = "lower"
) -> float:
    """Return the best strength, by `standing`: the fewest networks lost, then the best mean of the others.

    Parameters
    ----------
    rows : DataFrame
        Networks of one method on one task that may be used to choose: columns strength and the metric.
    metric : str or sequence of str, optional
        Column to choose by, default see `choosing_columns`; a further one decides between strengths that are
        equal in those before. Where all are equal, the least strength is taken.
    better : {"lower", "higher"}, default "lower"
        Which values are good.

    Raises
    ------
    ParameterError
        If there are no rows.
    """
    if not len(rows):
        raise ParameterError("there is no network to choose a strength by; train some on validation seeds")
    given = choosing_columns(rows) if metric is None else metric
    columns = [given] if isinstance(given, str) else list(given)
    ranks = {
        float(str(strength)): [standing(own[name], better=better) for name in columns]
        for strength, own in rows.groupby("strength")
    }
    return min(ranks, key=lambda strength: (ranks[strength], strength))


def values_of(values: pd.Series[float], lost: float | None) -> pd.Series[float]:
    """Return a metric with NaN, or ``lost``, where it is not finite."""
    found = values.astype(float)
    return found.where(np.isfinite(found), np.nan if lost is None else check_number("lost", lost))


def choose_strengths(
    networks: pd.DataFrame,
    metric: str | None = None,
    *,
    better: Better = "lower",
    by: Sequence[str] = ("task",),
) -> pd.DataFrame:
    """Return each method's best strength on each task over its validation seeds, see `best_strength`.

    A method of one strength has no choice and needs no validation seed; one of several raises without.
    Columns of ``by``, whose combinations choose by themselves, method, strength.
    """
    keys = [*by, "method"]
    rows = []
    for key, group in networks.groupby(keys, sort=False):
        tried, seen = group["strength"].unique(), group[group["role"] == "validation"]
        if not len(seen) and len(tried) > 1:
            raise ParameterError(
                f"{', '.join(map(str, key))} has {len(tried)} strengths and no network of a validation seed "
                "to choose one by; train some, or keep one strength"
            )
        chosen = best_strength(seen, metric, better=better) if len(seen) else float(tried[0])
        rows.append((*key, chosen))
    return pd.DataFrame(rows, columns=[*keys, "strength"])


def summarise(report: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Return mean and interval of every measure for every task and method.

    Of rows that are those of each method's chosen strength: task, method, strength, diverged_at and the
    measures. Columns task, method, strength, n, diverged, and for each measure m: m, m_low, m_high.
    """
    rows = []
    for (task, method), group in report.groupby(["task", "method"], sort=False):
        row: dict[str, object] = {"task": task, "method": method, "strength": group["strength"].iloc[0]}
        row["n"] = len(group)
        row["diverged"] = int((group["diverged_at"] >= 0).sum())
        for name in measures:
            row[name], row[f"{name}_low"], row[f"{name}_high"] = bootstrap_mean(group[name].to_numpy())
        rows.append(row)
    return pd.DataFrame(rows)


def check_networks(networks: pd.DataFrame, metric: str, by: Sequence[str] | None) -> list[str]:
    """Raise unless the frame can be compared; return the grouping columns (default: task, if any)."""
    keys = [name for name in ("task",) if name in networks.columns] if by is None else list(by)
    _check_columns(networks, [*keys, "method", "strength", "seed", metric])
    if "role" not in networks.columns:
        raise ParameterError(
            "the frame has no column role, which says which seeds choose strengths and which report; add it "
            "with hl.statistics.assign_roles(frame, validation=range(8))"
        )
    for role in networks["role"].unique():
        check_choice("role", role, ROLES)
    both = networks.groupby([*keys, "seed"], sort=False)["role"].nunique() > 1
    if both.any():
        raise ParameterError(
            f"seed {both.index[both][0]} chooses and reports; a seed must have one role, or the choice "
            "flatters what is reported"
        )
    cell = [*keys, "method", "strength", "seed"]
    doubled = networks[networks.duplicated(cell)]
    if len(doubled):
        what = ", ".join(f"{name} {doubled[name].iloc[0]}" for name in cell)
        raise ParameterError(
            f"several networks have {what}; they differ in a column that is not compared: select one "
            "setting, or name that column in by="
        )
    return keys


def groups(frame: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """Yield the values of the grouping columns and their rows; all rows at once where there is no column."""
    if not keys:
        yield {}, frame
        return
    for key, group in frame.groupby(list(keys), sort=False):
        yield dict(zip(keys, key, strict=True)), group


def _check_columns(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    for column in columns:
        if column not in frame.columns:
            raise unknown_name("column", column, map(str, frame.columns))
    if not len(frame):
        raise ParameterError("there is nothing to compare: the frame has no rows")


def _few(values: Iterable[object]) -> str:
    shown = list(dict.fromkeys(values))
    return ", ".join(str(value) for value in shown[:5]) + (", ..." if len(shown) > 5 else "")
