"""Turn a study's frames into the points of curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hoplens.errors import ParameterError, unknown_name
from hoplens.plots.methods import method_order
from hoplens.studies.statistics import best_strength, bootstrap_mean

if TYPE_CHECKING:
    import pandas as pd


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
            (float(column.removeprefix("kept_")), interval(own[column].to_numpy(dtype=float)))
            for column in columns
        ]
        for method in method_order(rows["method"])
        for own in [rows[rows["method"] == method]]
    }


def at_best_strength(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the report rows of each group at the strength that is best on validation seeds.

    See `hoplens.statistics.best_strength`. A group of one strength needs no choice; without roles all rows
    serve to choose and to show.
    """
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
    points: dict[str, list[tuple[float, Interval]]] = {}
    for method in method_order(rows["method"]):
        own = rows[rows["method"] == method]
        points[method] = [
            (value, interval(own.loc[own[x] == value, measure].to_numpy(dtype=float)))
            for value in sorted(set(own[x].astype(float)))
        ]
    return points
