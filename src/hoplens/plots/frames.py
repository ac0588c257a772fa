"""Turn a study's frames into the points of curves and of trade-offs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hoplens.errors import ParameterError, unknown_name
from hoplens.plots.style import method_order
from hoplens.studies.statistics import best_strength, bootstrap_mean, standing
from hoplens.studies.statistics.fronts import front_points

if TYPE_CHECKING:
    import pandas as pd


Front = list[list[float]]


class Interval(NamedTuple):
    """A mean over networks with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int  # networks that have a number
    lost: int  # networks that have none, because they diverged


def interval(values: Sequence[float] | NDArray[np.float64]) -> Interval:
    """Return mean and 95 % bootstrap interval; NaN where there is no number, no bounds for a single one."""
    array = np.asarray(values, dtype=np.float64)
    kept = int(np.isfinite(array).sum())
    return Interval(*bootstrap_mean(array), kept, len(array) - kept)


def check_frame(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise unless the frame has rows and these columns."""
    for column in columns:
        if column not in frame.columns:
            raise unknown_name("column", column, map(str, frame.columns))
    if not len(frame):
        raise ParameterError(
            "there is nothing to draw: the frame has no rows; give one with at least one network"
        )


def one_task(frame: pd.DataFrame) -> None:
    """Raise where rows of several tasks would be mixed into one curve."""
    tasks = list(dict.fromkeys(frame["task"])) if "task" in frame.columns else []
    if len(tasks) > 1:
        raise ParameterError(
            f"a curve needs the networks of one task, got {len(tasks)} ({', '.join(map(str, tasks[:4]))}, "
            "...); select one, e.g. networks[networks.task == ...]"
        )


def fair_rows(networks: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the rows of report seeds, else of validation seeds, where these cover every point of a curve.

    Validation seeds chose the strengths, so they flatter; but a curve made half of the ones and half of
    the others would compare different seeds. Where neither covers it, all rows are returned.
    """
    if "role" not in networks.columns:
        return networks
    points = len(networks[list(keys)].drop_duplicates())
    for role in ("report", "validation"):
        rows = networks[networks["role"] == role]
        if len(rows[list(keys)].drop_duplicates()) == points:
            return rows
    return networks


def sweep_points(networks: pd.DataFrame, measure: str) -> dict[str, list[tuple[float, Interval]]]:
    """Return, for each method, (strength, interval of the measure) by rising strength."""
    check_frame(networks, ["method", "strength", measure])
    one_task(networks)
    return _points(fair_rows(networks, ["method", "strength"]), "strength", measure)


def reach_points(reach: pd.DataFrame) -> dict[str, list[tuple[float, Interval]]]:
    """Return, for each method, (lag, interval of test_error) at the strength best on validation seeds."""
    check_frame(reach, ["method", "lag", "strength", "test_error"])
    return _points(at_best_strength(reach, ["method", "lag"]), "lag", "test_error")


def pruning_points(networks: pd.DataFrame, columns: Sequence[str]) -> dict[str, list[tuple[float, Interval]]]:
    """Return, for each method, (percent removed, interval of the performance kept) at its best strength."""
    check_frame(networks, ["method", "strength", *columns])
    one_task(networks)
    rows = at_best_strength(networks, ["method"])
    return {
        method: [
            (float(name.removeprefix("kept_")), interval(of_method[name].to_numpy(float))) for name in columns
        ]
        for method, of_method in by_method(rows)
    }


def at_best_strength(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the report rows of each group at the strength best on validation seeds; see `best_strength`."""
    import pandas as pd

    return pd.concat([_best_strength(group) for _, group in frame.groupby(list(keys), sort=False)])


def _best_strength(rows: pd.DataFrame) -> pd.DataFrame:
    report, others = rows, rows
    if "role" in rows.columns and (rows["role"] == "report").any():
        report, others = rows[rows["role"] == "report"], rows[rows["role"] != "report"]
    tried = set(report["strength"])
    if len(tried) == 1:
        return report
    seen = others[others["strength"].isin(tried)]
    if not len(seen) or "test_error" not in seen.columns:
        raise ParameterError(
            f"{rows['method'].iloc[0]} has {len(tried)} strengths and no test_error of validation seeds to "
            'choose one by; add rows of role "validation", or keep one strength'
        )
    return report[report["strength"] == best_strength(seen)]


def _points(rows: pd.DataFrame, x: str, measure: str) -> dict[str, list[tuple[float, Interval]]]:
    return {
        method: [
            (value, interval(of_method.loc[of_method[x] == value, measure].to_numpy(dtype=float)))
            for value in sorted(set(of_method[x].astype(float)))
        ]
        for method, of_method in by_method(rows)
    }


def by_method(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of each method, in the order in which methods stand."""
    return [(method, rows[rows["method"] == method]) for method in method_order(rows["method"])]


def hop_front(networks: pd.DataFrame) -> tuple[list[dict[str, Any]], Front]:
    """Return each method's mean (active hops, error, strength) by strength, and the front of them.

    A strength at which a network diverged has no point: its mean would be that of the others alone.
    """
    rows = fair_rows(networks, ["method", "strength"])
    columns = ["active_hops", "test_error"]
    groups = rows.groupby(["method", "strength"], sort=True)[columns]
    means = groups.mean().where(groups.count().eq(groups.size(), axis=0))
    lines: list[dict[str, Any]] = []
    for method in method_order(rows["method"]):
        of_method = means.loc[method].dropna()
        points: Front = of_method.reset_index()[[*columns, "strength"]].to_numpy(float).tolist()
        lines.append({"method": method, "points": points})
    return lines, front_points([[x, y] for line in lines for x, y, _ in line["points"]])


def weight_front(networks: pd.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return each method's (percent left, error, strength), the best strength for each share left.

    Which is best says `hoplens.statistics.best_strength`; where a network diverged at all strengths there is
    no point. The error after pruning follows from the share of performance kept: ``1 - kept (1 - error)``.
    """
    rows = fair_rows(networks, ["method", "strength"])
    lines = []
    for method, of_method in by_method(rows):
        points = []
        for column in reversed(["kept_0", *columns]):
            kept = 1.0 if column == "kept_0" else of_method[column]
            pruned = of_method.assign(error=1 - kept * (1 - of_method["test_error"]))
            best = best_strength(pruned, "error")
            lost, error = standing(pruned.loc[pruned["strength"] == best, "error"])
            if not lost:
                points.append([100.0 - float(column.removeprefix("kept_")), error, best])
        lines.append({"method": method, "points": points})
    return lines
