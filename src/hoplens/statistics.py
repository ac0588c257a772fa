"""Choosing strengths on validation seeds, and intervals and paired differences on the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
RESAMPLES = 4000
SEED = 20260503  # of the bootstrap, so that a table comes out the same twice


class Interval(NamedTuple):
    """A mean with its bootstrap confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Sequence[float] | NDArray[np.floating], *, level: float = LEVEL) -> Interval:
    """Return the mean with its bias-corrected and accelerated bootstrap interval.

    Parameters
    ----------
    values : sequence of float
        One a network; NaN (a network that diverged) is left out.
    level : float, default 0.95
        Coverage.

    Returns
    -------
    Interval
        All equal where the values are; NaN bounds where there are fewer than two.

    Notes
    -----
    Source: Efron 1987, through ``scipy.stats.bootstrap``.
    """
    data = np.asarray(values, dtype=float)
    data = data[np.isfinite(data)]
    if len(data) == 0:
        return Interval(np.nan, np.nan, np.nan)
    mean = float(data.mean())
    if len(data) < 2:
        return Interval(mean, np.nan, np.nan)
    if np.ptp(data) <= 1e-12 * max(1.0, abs(mean)):  # BCa divides by the spread of the jackknife
        return Interval(mean, mean, mean)
    found = stats.bootstrap(
        (data,),
        np.mean,
        confidence_level=level,
        n_resamples=RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(SEED),
        vectorized=True,
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def choose_strengths(networks: pd.DataFrame) -> pd.DataFrame:
    """Return each method's best strength on each task, by mean test error of the validation seeds.

    Parameters
    ----------
    networks : DataFrame
        Columns task, method, strength, role, test_mse. A strength at which a network diverged counts as
        error 1 there.

    Returns
    -------
    DataFrame
        Columns task, method, strength.
    """
    seen = networks[networks["role"] == "validation"]
    groups = seen.groupby(["task", "method"], sort=False)
    rows = [(task, method, best_strength(group)) for (task, method), group in groups]
    return pd.DataFrame(rows, columns=["task", "method", "strength"])


def best_strength(rows: pd.DataFrame) -> float:
    """Return the strength with the least mean test error; a network that diverged counts as error 1.

    Parameters
    ----------
    rows : DataFrame
        Networks of one method on one task that may be used to choose: columns strength, test_mse.
    """
    errors = (
        rows.assign(test_mse=rows["test_mse"].fillna(1.0)).groupby("strength", sort=False)["test_mse"].mean()
    )
    return float(errors.index[int(errors.to_numpy().argmin())])


def chosen_report(networks: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the report seeds at each method's chosen strength."""
    chosen = choose_strengths(networks)
    report = networks[networks["role"] == "report"]
    return chosen.merge(report, on=["task", "method", "strength"], how="left")


def summarise(networks: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Return, for every task and method, mean and interval of every measure at the chosen strength.

    Parameters
    ----------
    networks : DataFrame
        One row a network, both roles.
    measures : sequence of str
        Columns to summarise.

    Returns
    -------
    DataFrame
        Columns task, method, strength, n, diverged, and for each measure m: m, m_low, m_high.
    """
    return summarise_chosen(chosen_report(networks), measures)


def summarise_chosen(report: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Return what `summarise` does for rows that are already those of each method's chosen strength.

    Parameters
    ----------
    report : DataFrame
        One row a network: task, method, strength, diverged_at and the measures.
    measures : sequence of str
    """
    rows = []
    for (task, method), group in report.groupby(["task", "method"], sort=False):
        row: dict[str, object] = {"task": task, "method": method, "strength": group["strength"].iloc[0]}
        row["n"] = len(group)
        row["diverged"] = int((group["diverged_at"] >= 0).sum())
        for measure in measures:
            row[measure], row[f"{measure}_low"], row[f"{measure}_high"] = bootstrap_mean(
                group[measure].to_numpy()
            )
        rows.append(row)
    return pd.DataFrame(rows)


def paired_differences(
    networks: pd.DataFrame, method: str, references: Sequence[str], measures: Sequence[str]
) -> pd.DataFrame:
    """Return differences of one method to others, network by network of the same seed.

    Parameters
    ----------
    networks : DataFrame
        One row a network, both roles.
    method : str
        The method whose differences are taken (method minus reference).
    references : sequence of str
        Methods compared with.
    measures : sequence of str
        Columns compared.

    Returns
    -------
    DataFrame
        Columns task, method, reference, measure, difference, low, high, p (Wilcoxon signed-rank,
        two-sided), n, p_holm (corrected over all rows of the same measure).
    """
    return pair_chosen(chosen_report(networks), method, references, measures)


def pair_chosen(
    report: pd.DataFrame, method: str, references: Sequence[str], measures: Sequence[str]
) -> pd.DataFrame:
    """Return what `paired_differences` does for rows that are those of each method's chosen strength.

    Parameters
    ----------
    report : DataFrame
        One row a network: task, method, seed and the measures.
    method : str
    references : sequence of str
    measures : sequence of str
    """
    rows = []
    for task, group in report.groupby("task", sort=False):
        wide = {name: part.set_index("seed") for name, part in group.groupby("method")}
        for reference in references:
            if method not in wide or reference not in wide:
                continue
            for measure in measures:
                gap = (wide[method][measure] - wide[reference][measure]).dropna().to_numpy()
                mean, low, high = bootstrap_mean(gap)
                p = float(stats.wilcoxon(gap).pvalue) if np.any(gap != 0) else 1.0
                rows.append((task, method, reference, measure, mean, low, high, p, len(gap)))
    columns = ["task", "method", "reference", "measure", "difference", "low", "high", "p", "n"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["p_holm"] = frame.groupby("measure")["p"].transform(lambda p: holm(p.to_numpy()))
    return frame


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p values corrected for many comparisons (Holm 1979).

    Parameters
    ----------
    p : array, shape (n,)
        Raw p values.

    Returns
    -------
    array, shape (n,)
        In the same order, not below the raw ones and at most 1.
    """
    order = np.argsort(p)
    stepped = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected
