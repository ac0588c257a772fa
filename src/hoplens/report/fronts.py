"""Trade-offs: error against active hops, and against the number of recurrent weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hoplens.plots.frames import fair_rows
from hoplens.plots.measures import method_order
from hoplens.statistics import front_points

if TYPE_CHECKING:
    import pandas as pd

Front = list[list[float]]


def hop_front(networks: pd.DataFrame) -> tuple[list[dict[str, Any]], Front]:
    """Return each method's mean (active hops, error) by strength, and the points that nothing beats.

    Parameters
    ----------
    networks : DataFrame
        The networks of one task.

    Returns
    -------
    list of dict
        ``method`` and ``points``: rows of (active hops, error, strength).
    list
        The front: (active hops, error) by rising hops.
    """
    rows = fair_rows(networks, ["method", "strength"])
    means = rows.groupby(["method", "strength"], sort=True)[["active_hops", "test_mse"]].mean()
    lines: list[dict[str, Any]] = []
    for method in method_order(rows["method"]):
        own = means.loc[method].dropna()
        points: Front = own.reset_index()[["active_hops", "test_mse", "strength"]].to_numpy(float).tolist()
        lines.append({"method": method, "points": points})
    return lines, front_points([[x, y] for line in lines for x, y, _ in line["points"]])


def weight_front(networks: pd.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return, for each method, the least mean error at each share of recurrent weights left.

    The error after pruning follows from the share of performance kept: ``1 - kept (1 - error)``.

    Parameters
    ----------
    networks : DataFrame
        The networks of one task.
    columns : sequence of str
        ``kept_10 .. kept_90``.

    Returns
    -------
    list of dict
        ``method`` and ``points``: rows of (percent left, error, strength) by rising percentage.
    """
    rows = fair_rows(networks, ["method", "strength"])
    lines = []
    for method in method_order(rows["method"]):
        own = rows[rows["method"] == method]
        points = []
        for column in reversed(["kept_0", *columns]):
            kept = 1.0 if column == "kept_0" else own[column]
            errors = (1 - kept * (1 - own["test_mse"])).groupby(own["strength"]).mean().dropna()
            if len(errors):
                left = 100.0 - float(column.removeprefix("kept_"))
                points.append(
                    [left, float(errors.min()), float(errors.index.to_numpy()[int(errors.argmin())])]
                )
        lines.append({"method": method, "points": points})
    return lines


__all__ = ["hop_front", "weight_front"]
