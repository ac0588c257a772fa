"""Paired comparison of methods: differences, tests, effect sizes, one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from hoplens.errors import ShapeError, check_choice, check_number, unknown_name
from hoplens.seeds import numpy_generator
from hoplens.studies.statistics.intervals import LEVEL, bootstrap_mean
from hoplens.studies.statistics.selection import (
    Better,
    check_networks,
    choose_strengths,
    groups,
    values_of,
)

Test = Literal["wilcoxon", "sign-flip"]
TESTS = ("wilcoxon", "sign-flip")
COLUMNS = (
    "method", "strength", "n", "lost", "mean", "low", "high",
    "difference", "difference_low", "difference_high", "pairs", "p", "p_holm", "d", "superiority",
)  # fmt: skip
FLIPS = 2**14  # sign patterns: all of them up to 14 pairs, a random sample beyond

Numbers = Sequence[float] | NDArray[np.floating]


def paired_test(differences: Numbers, *, test: Test = "wilcoxon") -> float:
    """Return the two-sided p value of paired differences against "centred on zero".

    Parameters
    ----------
    differences : sequence of float
        One a seed, method minus reference. NaN is left out.
    test : {"wilcoxon", "sign-flip"}, default "wilcoxon"
        * ``"wilcoxon"``: signed ranks. A few networks that failed do not decide; exact up to 50 pairs
          without ties.
        * ``"sign-flip"``: permutation test of the mean. Asks about the very mean that tables show; exact up
          to 14 pairs, else 16384 random sign patterns of a fixed seed.

        Both take the differences to be symmetric under the null, as they are where two methods are
        exchangeable on a seed, and ask no normality.

    Returns
    -------
    float
        1 where all differences are zero; NaN where there are none.

    Notes
    -----
    Source: Wilcoxon 1945; Fisher 1935; both through SciPy.
    """
    check_choice("test", test, TESTS)
    gap = _finite(differences)
    if len(gap) == 0:
        return float("nan")
    if not np.any(gap != 0):
        return 1.0
    if test == "wilcoxon":
        return float(stats.wilcoxon(gap).pvalue)
    found = stats.permutation_test(
        (gap,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=FLIPS,
        rng=numpy_generator("permutations", 0),
    )
    return float(found.pvalue)


def paired_d(differences: Numbers) -> float:
    """Return the paired effect size: mean of the differences over their standard deviation.

    Parameters
    ----------
    differences : sequence of float
        One a seed. NaN is left out.

    Returns
    -------
    float
        0 where all are zero, infinite where all are one other number, NaN where there are fewer than two.

    Notes
    -----
    Source: Cohen 1988 (d_z); standard deviation with n - 1.
    """
    gap = _finite(differences)
    if len(gap) < 2:
        return float("nan")
    mean, spread = float(gap.mean()), float(gap.std(ddof=1))
    if spread <= 1e-12 * abs(mean):
        return float(np.copysign(np.inf, mean)) if mean else 0.0
    return mean / spread if spread else 0.0


def cliffs_delta(first: Numbers, second: Numbers) -> float:
    """Return ``P(first > second) - P(first < second)`` over all pairs of one of each, -1 to 1.

    Parameters
    ----------
    first, second : sequence of float
        Two samples, not paired. NaN is left out; NaN is returned where one is then empty.

    Notes
    -----
    Source: Cliff 1993.
    """
    a, b = _finite(first), _finite(second)
    if not len(a) or not len(b):
        return float("nan")
    return float(np.sign(a[:, None] - b[None, :]).mean())


def superiority(first: Numbers, second: Numbers) -> float:
    """Return ``P(first > second) + P(equal) / 2``, Vargha and Delaney's A12, 0 to 1.

    Parameters
    ----------
    first, second : sequence of float
        Two samples, not paired.

    Notes
    -----
    Source: Vargha and Delaney 2000; equals ``(cliffs_delta + 1) / 2``.
    """
    return (cliffs_delta(first, second) + 1) / 2


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p values corrected for many comparisons (Holm 1979).

    Parameters
    ----------
    p : array, shape (n,)
        Raw p values; NaN (no test was done) stays NaN and does not count.

    Returns
    -------
    array, shape (n,)
        In the same order, not below the raw ones and at most 1.
    """
    raw = np.asarray(p, dtype=float)
    corrected = np.full(len(raw), np.nan)
    done = np.flatnonzero(~np.isnan(raw))
    order = done[np.argsort(raw[done], kind="stable")]
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(order), 0, -1))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def compare(
    networks: pd.DataFrame,
    metric: str = "test_error",
    *,
    better: Better = "lower",
    reference: str | None = None,
    choose_by: str | None = None,
    by: Sequence[str] | None = None,
    test: Test = "wilcoxon",
    lost: float | None = None,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Compare methods, each at its own best strength, in one table.

    Every method's strength is chosen on the validation seeds and reported on the others; networks of the
    same seed are paired with the reference's.

    Parameters
    ----------
    networks : DataFrame
        One row a network: method, strength, seed, role ("validation" or "report", see `assign_roles`), the
        metric, and task or the columns of ``by``.
    metric : str, default "test_error"
        Column to compare.
    better : {"lower", "higher"}, default "lower"
        Which values are good.
    reference : str, optional
        Method that the others are compared with; default "none" where there is one, else the first.
    choose_by : str, optional
        Column, good where it is low, that strengths are chosen by; default the metric itself.
    by : sequence of str, optional
        Columns whose combinations are compared by themselves; default task, where there is that column.
    test : {"wilcoxon", "sign-flip"}, default "wilcoxon"
        See `paired_test`.
    lost : float, optional
        What a network without a value (it diverged) counts as in means and pairs. Default None: it is left
        out of them; column ``lost`` counts them. The choice of strengths does not depend on it: those that
        lost networks are chosen last, see `best_strength`.
    level : float, default 0.95
        Coverage of the intervals.

    Returns
    -------
    DataFrame
        One row a method: columns of ``by``, method, strength, n, lost, mean, low, high, then against the
        reference difference, difference_low, difference_high, pairs, p, p_holm (over all rows), d (paired,
        sign of the difference) and superiority (probability to be better than the reference). NaN in the
        reference's own row.

    Raises
    ------
    UnknownNameError
        For a column or reference that does not exist.
    ParameterError
        For a frame without roles, with a seed of both roles, or with several networks of the same method,
        strength and seed.
    """
    keys = check_networks(networks, metric, by)
    check_number("level", level, above=0.0, below=1.0)
    check_choice("test", test, TESTS)
    choice = metric if choose_by is None else choose_by
    if choice == metric:
        strengths = choose_strengths(networks, metric, better=better, by=keys)
    else:
        check_networks(networks, choice, by)
        strengths = choose_strengths(networks, choice, by=keys)
    named = _reference(networks, reference)
    report = networks[networks["role"] == "report"]
    chosen = strengths.merge(report[[*keys, "method", "strength", "seed", metric]], how="left")
    sign = 1.0 if better == "higher" else -1.0
    rows = []
    for key, group in groups(chosen, keys):
        samples = {method: _by_seed(own, metric) for method, own in group.groupby("method", sort=False)}
        used = group.drop_duplicates("method").set_index("method")["strength"]
        for method, own in samples.items():
            kept = values_of(own, lost)
            row = {
                **key,
                "method": method,
                "strength": used[method],
                "n": len(own),
                "lost": int((~np.isfinite(own)).sum()),
            }
            row |= dict(
                zip(("mean", "low", "high"), bootstrap_mean(kept.to_numpy(), level=level), strict=True)
            )
            if method != named and named in samples:
                other = values_of(samples[named], lost)
                row |= _against(kept, other, test, level)
                row["superiority"] = superiority(sign * kept.to_numpy(), sign * other.to_numpy())
            rows.append(row)
    table = pd.DataFrame(rows).reindex(columns=[*keys, *COLUMNS])
    table["p_holm"] = holm(table["p"].to_numpy(dtype=float))
    return table


def paired_differences(
    report: pd.DataFrame, method: str, references: Sequence[str], measures: Sequence[str]
) -> pd.DataFrame:
    """Return differences of one method to others, network by network of the same seed.

    Of rows that are those of each method's chosen strength: task, method, seed and the measures. Columns
    task, method, reference, measure, difference (method minus reference), low, high, p (Wilcoxon
    signed-rank, two-sided), n, p_holm (corrected over all rows of the same measure).
    """
    rows = []
    for task, group in report.groupby("task", sort=False):
        wide = {name: part.set_index("seed") for name, part in group.groupby("method")}
        for reference in references:
            if method not in wide or reference not in wide:
                continue
            for measure in measures:
                found = _against(wide[method][measure], wide[reference][measure], "wilcoxon", LEVEL)
                bounds = (found["difference"], found["difference_low"], found["difference_high"])
                rows.append((task, method, reference, measure, *bounds, found["p"], found["pairs"]))
    columns = ["task", "method", "reference", "measure", "difference", "low", "high", "p", "n"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["p_holm"] = frame.groupby("measure")["p"].transform(lambda p: holm(p.to_numpy()))
    return frame


def _against(own: pd.Series[float], other: pd.Series[float], test: Test, level: float) -> dict[str, float]:
    """Return what pairs of the same seed (the index) say: difference, its bounds, pairs, p, d."""
    gap = (own - other).dropna().to_numpy(dtype=float)
    mean, low, high = bootstrap_mean(gap, level=level)
    p = paired_test(gap, test=test)
    bounds = {"difference": mean, "difference_low": low, "difference_high": high}
    return {**bounds, "pairs": len(gap), "p": p, "d": paired_d(gap)}


def _by_seed(rows: pd.DataFrame, metric: str) -> pd.Series[float]:
    """Return a method's report values by seed; none where its strength was run on no report seed."""
    found = rows.dropna(subset="seed").set_index("seed")[metric].astype(float)
    return found.sort_index()  # resampling depends on the order, a table must not


def _reference(networks: pd.DataFrame, reference: str | None) -> str:
    methods = [str(name) for name in networks["method"].unique()]
    if reference is None:
        return "none" if "none" in methods else methods[0]
    if reference not in methods:
        raise unknown_name("reference", reference, methods)
    return reference


def _finite(values: Numbers) -> NDArray[np.float64]:
    data: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    if data.ndim != 1:
        raise ShapeError(f"expected one number a network, shape (n,), got shape {data.shape}")
    return data[np.isfinite(data)]
