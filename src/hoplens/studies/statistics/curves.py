"""How much a method's strength matters: area under its curve, and the range that is nearly best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import trapezoid

from hoplens.errors import ParameterError, ShapeError, check_choice, check_number
from hoplens.studies.statistics.selection import BETTER, ROLES, Better, check_networks, groups, values_of


def curve_area(strengths: ArrayLike, values: ArrayLike, span: tuple[float, float] | None = None) -> float:
    """Return the mean of a curve over log strength: its area over the width of the range.

    The curve is linear in log strength between its points. In the unit of the values, so that curves of
    several methods compare as their values do.

    Parameters
    ----------
    strengths : array, shape (n,)
        Rising, above 0.
    values : array, shape (n,)
    span : (float, float), optional
        Range of strengths, inside that of the points; default all of it.

    Returns
    -------
    float
        The value itself where the range is one point; NaN where a value inside the range is NaN.
    """
    x, y = _curve(strengths, values)
    low, high = (x[0], x[-1]) if span is None else np.log10([_strength(end) for end in span])
    if not x[0] - 1e-9 <= low <= high <= x[-1] + 1e-9:
        raise ParameterError(
            f"span must lie inside the strengths {10 ** x[0]:g} to {10 ** x[-1]:g}, got {span}"
        )
    inside = (x > low) & (x < high)
    nodes = np.concatenate([[low], x[inside], [high]])
    heights = np.interp(nodes, x, y)
    return float(heights[0]) if high == low else float(trapezoid(heights, nodes) / (high - low))


def near_best(
    strengths: ArrayLike, values: ArrayLike, *, better: Better = "lower", within: float = 0.05
) -> tuple[float, float]:
    """Return the range of strengths around the best one whose values are within a share of it.

    Parameters
    ----------
    strengths : array, shape (n,)
        Rising, above 0.
    values : array, shape (n,)
        One a strength; NaN counts as bad.
    better : {"lower", "higher"}, default "lower"
        Which values are good.
    within : float, default 0.05
        How much worse than the best is still good, as a share of the best's size.

    Returns
    -------
    (float, float)
        Where the curve, linear in log strength, crosses that level on either side of the best point; the
        first or last strength where it does not.
    """
    x, y = _curve(strengths, values)
    share = check_number("within", within, least=0.0)
    cost = y if check_choice("better", better, BETTER) == "lower" else -y
    if np.isnan(cost).all():
        return float("nan"), float("nan")
    best = int(np.nanargmin(cost))
    level = cost[best] + share * abs(cost[best])
    ends = [_crossing(x[best::side], cost[best::side], level) for side in (-1, 1)]
    return float(10 ** ends[0]), float(10 ** ends[1])


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


def _curve(strengths: ArrayLike, values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(strengths, dtype=float), np.asarray(values, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ShapeError(
            f"expected one value a strength, got shapes {x.shape} and {y.shape}; give two lists of one length"
        )
    if not (np.isfinite(x).all() and x[0] > 0 and (np.diff(x) > 0).all()):
        raise ParameterError(f"strengths must rise and lie above 0, got {x.tolist()}")
    return np.log10(x), y


def _strength(value: float) -> float:
    return check_number("an end of span", value, above=0.0)


__all__ = ["curve_area", "near_best", "robustness"]
