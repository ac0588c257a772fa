"""How much a method's strength matters: area under its curve, and the range that is nearly best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from hoplens.errors import check_choice, check_number
from hoplens.studies.statistics.selection import BETTER, ROLES, Better, check_networks, groups, values_of


def robustness(
    networks: pd.DataFrame,
    metric: str = "test_error",
    *,
    better: Better = "lower",
    within: float = 0.05,
    role: str = "report",
    by: Sequence[str] | None = None,
    lost: float | None = None,
) -> pd.DataFrame:
    """Say how much the choice of strength matters to each method.

    Parameters
    ----------
    networks : DataFrame
        One row a network, as for `compare`.
    metric : str, default "test_error"
        Column to look at.
    better : {"lower", "higher"}, default "lower"
        Which values are good.
    within : float, default 0.05
        How much worse than its own best a method may be, as a share.
    role : {"report", "validation"}, default "report"
        Whose means make the curves; this describes curves, and chooses nothing.
    by : sequence of str, optional
        Columns whose combinations are looked at by themselves; default task, where there is that column.
    lost : float, optional
        What a network without a value (it diverged) counts as. Default None: a strength that lost one
        has no value, is never near the best, and leaves the area NaN.

    Returns
    -------
    DataFrame
        One row a method: columns of ``by``, method, area (mean over log strength on the range of strengths
        that all methods of the group share; NaN where they share none), best_strength, best, low, high (the
        range within that share of the best), decades (log10 of high / low), low_open, high_open (whether
        the range reaches the end of what was tried, so that it may be wider). A method of strength 0 only
        has its mean as area and no range.
    """
    keys = check_networks(networks, metric, by)
    check_choice("role", role, ROLES)
    check_choice("better", better, BETTER)
    check_number("within", within, least=0.0)
    rows = networks[networks["role"] == role]
    values = values_of(rows[metric], lost)
    means = (
        values.groupby([rows[name] for name in (*keys, "method", "strength")], sort=False)
        .agg(lambda own: own.mean(skipna=False))
        .reset_index()
    )
    found = []
    for key, group in groups(means, keys):
        curves = {
            method: own[own["strength"] > 0].sort_values("strength")
            for method, own in group.groupby("method", sort=False)
        }
        span = _shared([own["strength"] for own in curves.values() if len(own)])
        for method, own in curves.items():
            if len(own):
                entry = _describe(own["strength"].to_numpy(), own[metric].to_numpy(), span, better, within)
            else:
                level = float(group.loc[group["method"] == method, metric].iloc[0])
                entry = {"area": level, "best_strength": 0.0, "best": level}
            found.append({**key, "method": method, **entry})
    columns = ["area", "best_strength", "best", "low", "high", "decades", "low_open", "high_open"]
    return pd.DataFrame(found).reindex(columns=[*keys, "method", *columns])


def _describe(
    strengths: NDArray[np.float64],
    values: NDArray[np.float64],
    span: tuple[float, float] | None,
    better: Better,
    within: float,
) -> dict[str, object]:
    low, high = near_best(strengths, values, better=better, within=within)
    area = float("nan") if span is None else curve_area(strengths, values, span)
    entry: dict[str, object] = {"area": area, "low": low, "high": high, "decades": np.log10(high / low)}
    entry |= {"low_open": low == strengths[0], "high_open": high == strengths[-1]}
    if np.isnan(values).all():
        return {**entry, "best_strength": np.nan, "best": np.nan}
    best = int(np.nanargmin(values) if better == "lower" else np.nanargmax(values))
    return {**entry, "best_strength": float(strengths[best]), "best": float(values[best])}


def curve_area(
    strengths: NDArray[np.float64], values: NDArray[np.float64], span: tuple[float, float]
) -> float:
    """Return the mean over log strength of a curve that is linear between its rising points, within a span.

    Where the span is one point that is the value itself, and NaN where a value inside is NaN.
    """
    x, (low, high) = np.log10(strengths), np.log10(span)
    inside = (x > low) & (x < high)
    nodes = np.concatenate([[low], x[inside], [high]])
    heights = np.interp(nodes, x, values)
    return float(heights[0]) if high == low else float(trapezoid(heights, nodes) / (high - low))


def near_best(
    strengths: NDArray[np.float64], values: NDArray[np.float64], *, better: Better, within: float
) -> tuple[float, float]:
    """Return the range of rising strengths around the best one whose values are within a share of it.

    Where the curve, linear in log strength, crosses that level on either side of the best point; the first
    or last strength where it does not. NaN counts as bad.
    """
    x, cost = np.log10(strengths), values if better == "lower" else -values
    if np.isnan(cost).all():
        return float("nan"), float("nan")
    best = int(np.nanargmin(cost))
    level = cost[best] + within * abs(cost[best])
    ends = [_crossing(x[best::side], cost[best::side], level) for side in (-1, 1)]
    return float(10 ** ends[0]), float(10 ** ends[1])


def _shared(grids: list[pd.Series[float]]) -> tuple[float, float] | None:
    """Return the range of strengths that all grids cover, or None."""
    if not grids:
        return None
    low, high = max(float(grid.min()) for grid in grids), min(float(grid.max()) for grid in grids)
    return (low, high) if low <= high else None


def _crossing(x: NDArray[np.float64], cost: NDArray[np.float64], level: float) -> float:
    """Return where a curve that starts at its best leaves the level, else its last point."""
    for n in range(1, len(x)):
        if not cost[n] <= level:
            if np.isnan(cost[n]):
                return float(x[n - 1])
            share = (level - cost[n - 1]) / (cost[n] - cost[n - 1])
            return float(x[n - 1] + share * (x[n] - x[n - 1]))
    return float(x[-1])


__all__ = ["curve_area", "near_best", "robustness"]
