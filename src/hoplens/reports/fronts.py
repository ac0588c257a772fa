"""Trade-offs: error against active hops, and against the number of recurrent weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hoplens.plots.frames import fair_rows
from hoplens.plots.methods import method_order
from hoplens.studies.statistics import best_strength, standing
from hoplens.studies.statistics.fronts import front_points

if TYPE_CHECKING:
    import pandas as pd

Front = list[list[float]]


def hop_front(networks: pd.DataFrame) -> tuple[list[dict[str, Any]], Front]:
    """Return each method's mean (active hops, error) by strength, and the points that nothing beats.

    A strength at which a network diverged has no point: its mean would be that of the others alone.

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
    columns = ["active_hops", "test_error"]
    groups = rows.groupby(["method", "strength"], sort=True)[columns]
    means = groups.mean().where(groups.count().eq(groups.size(), axis=0))
    lines: list[dict[str, Any]] = []
    for method in method_order(rows["method"]):
        own = means.loc[method].dropna()
        points: Front = own.reset_index()[[*columns, "strength"]].to_numpy(float).tolist()
        lines.append({"method": method, "points": points})
    return lines, front_points([[x, y] for line in lines for x, y, _ in line["points"]])


def weight_front(networks: pd.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return, for each method, the error of its best strength at each share of recurrent weights left.

    Which is best says `hoplens.statistics.best_strength`; where a network diverged at all strengths there is
    no point. The error after pruning follows from the share of performance kept: ``1 - kept (1 - error)``.

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
            pruned = own.assign(error=1 - kept * (1 - own["test_error"]))
            best = best_strength(pruned, "error")
            lost, error = standing(pruned.loc[pruned["strength"] == best, "error"])
            if not lost:
                points.append([100.0 - float(column.removeprefix("kept_")), error, best])
        lines.append({"method": method, "points": points})
    return lines


__all__ = ["hop_front", "weight_front"]
