"""Bootstrap intervals of a mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hoplens.errors import check_number
from hoplens.seeds import numpy_generator

LEVEL = 0.95
RESAMPLES = 4000
SEED = 20260503  # of all resampling, so that a table comes out the same twice


class Interval(NamedTuple):
    """A mean with its bootstrap confidence interval.

    Attributes
    ----------
    mean, low, high : float
    """

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Sequence[float] | NDArray[np.floating], *, level: float = LEVEL) -> Interval:
    """Return the mean with its bias-corrected and accelerated bootstrap interval.

    BCa rather than percentile: errors of networks are skewed (a few networks that did not learn), which
    shifts the percentile interval towards zero error; BCa corrects that to second order and stays inside
    the range of the data.

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
    Source: Efron 1987, through ``scipy.stats.bootstrap``. With fewer than about ten values it covers less
    than it says, as every bootstrap does.
    """
    check_number("level", level, above=0.0, below=1.0)
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
        rng=numpy_generator("bootstrap", 0),
        vectorized=True,
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


__all__ = ["LEVEL", "RESAMPLES", "SEED", "Interval", "bootstrap_mean"]
