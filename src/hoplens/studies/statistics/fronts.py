"""Trade-offs between measures: dominance, fronts, hypervolume."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hoplens.errors import NonFiniteError, ParameterError, ShapeError, check_choice, unknown_name
from hoplens.studies.statistics.selection import BETTER, Better


def undominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Return which points (N, D) no other dominates, shape (N,); low is good.

    A point with NaN is never on the front; equal points are on it together.
    """
    p = _points(points)
    below = (p[:, None] <= p[None]).all(axis=-1) & (p[:, None] < p[None]).any(axis=-1)  # (N, N): n beats m
    return np.asarray(~below.any(axis=0) & ~np.isnan(p).any(axis=1), dtype=np.bool_)


def front_points(points: ArrayLike) -> list[list[float]]:
    """Return the distinct points (N, D) that no other dominates, in rising order of the first measure."""
    distinct = np.unique(_points(points), axis=0)
    found: list[list[float]] = distinct[undominated(distinct)].tolist()
    return found


def pareto_front(frame: pd.DataFrame, better: Mapping[str, Better]) -> pd.DataFrame:
    """Return the rows that no other row dominates, by rising value of the first measure.

    Parameters
    ----------
    frame : DataFrame
        One row a candidate, e.g. means of a method at a strength.
    better : dict of str to {"lower", "higher"}
        The measures that count, and which values of each are good.
    """
    if not better:
        raise ParameterError(
            'name the measures that count, e.g. {"test_error": "lower", "active_hops": "lower"}'
        )
    signs = [1.0 if check_choice("better", side, BETTER) == "lower" else -1.0 for side in better.values()]
    for name in better:
        if name not in frame.columns:
            raise unknown_name("column", name, map(str, frame.columns))
    front = frame[undominated(frame[list(better)].to_numpy(dtype=float) * signs)]
    return front.sort_values(next(iter(better)))


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Return the volume that points dominate, up to a reference point; large is good.

    Exact in any number of dimensions, by slices along the last one; fast in two or three.

    Parameters
    ----------
    points : array, shape (N, D)
        Low is good. A point that is not below the reference everywhere adds nothing.
    reference : array, shape (D,)
        The worst that still counts, e.g. (1, number of hops).

    Notes
    -----
    Source: Zitzler and Thiele 1998.
    """
    p, worst = _points(points), np.asarray(reference, dtype=float)
    if worst.shape != p.shape[1:]:
        raise ShapeError(f"reference must have shape {p.shape[1:]}, one number a measure, got {worst.shape}")
    if not np.isfinite(worst).all() or np.isneginf(p).any():
        raise NonFiniteError("a hypervolume needs a finite reference and points above minus infinity")
    return _volume(p[(p < worst).all(axis=1)], worst)


def _volume(points: NDArray[np.float64], worst: NDArray[np.float64]) -> float:
    if not len(points):
        return 0.0
    if len(worst) == 1:
        return float(worst[0] - points[:, 0].min())
    levels = np.unique(points[:, -1])
    tops = np.append(levels[1:], worst[-1])
    return sum(
        _volume(points[points[:, -1] <= level, :-1], worst[:-1]) * float(top - level)
        for level, top in zip(levels, tops, strict=True)
    )


def _points(points: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(points, dtype=float)
    if p.ndim != 2 or p.shape[1] < 1:
        raise ShapeError(f"points must have shape (N, D), one row a point, got {p.shape}")
    return p


__all__ = ["front_points", "hypervolume", "pareto_front", "undominated"]
