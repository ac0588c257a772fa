"""How many seeds it takes to see a difference."""

from __future__ import annotations

import math
from typing import Literal

from scipy import optimize, stats

from hoplens.errors import ParameterError, check_choice, check_count, check_number

Design = Literal["t", "wilcoxon", "sign-flip"]
DESIGNS = ("t", "wilcoxon", "sign-flip")
WILCOXON_EFFICIENCY = 3 / math.pi  # against t on normal data; on heavy tails it is above 1
MOST_SEEDS = 10_000_000


def power(effect: float, seeds: int, *, alpha: float = 0.05) -> float:
    """Return the chance that a paired t test of so many seeds finds an effect, see `paired_d`.

    Exact for normal differences: t is noncentral with ``seeds - 1`` degrees of freedom and noncentrality
    ``effect sqrt(seeds)``, its square noncentral F.
    """
    d = abs(check_number("effect", effect))
    n = check_count("seeds", seeds, least=2)
    level = check_number("alpha", alpha, above=0.0, below=1.0)
    if d == 0:
        return level
    bound = float(stats.t.isf(level / 2, n - 1))
    # both tails at once, as t squared; SciPy's noncentral t is NaN far out in the tails, its F is not
    return float(stats.ncf.sf(bound**2, 1, n - 1, d**2 * n))


def seeds_needed(
    effect: float,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    comparisons: int = 1,
    test: Design = "wilcoxon",
) -> int:
    """Return the least number of seeds at which a paired test finds a difference with a given chance.

    Parameters
    ----------
    effect : float
        Mean difference over the standard deviation of the differences, not 0.
    power : float, default 0.8
        Chance to find it.
    alpha : float, default 0.05
        Two-sided level of the whole table.
    comparisons : int, default 1
        Tests in the table; Holm tests the smallest p value at ``alpha / comparisons``.
    test : {"wilcoxon", "sign-flip", "t"}, default "wilcoxon"
        The test. "t" is exact for normal differences; "sign-flip" needs as many, "wilcoxon" pi / 3 as many,
        and neither can reach a level below ``2 / 2^seeds``, which is the bound where effects are large.

    Returns
    -------
    int
    """
    check_choice("test", test, DESIGNS)
    goal = check_number("power", power, above=0.0, below=1.0)
    level = check_number("alpha", alpha, above=0.0, below=1.0) / check_count("comparisons", comparisons)
    d = abs(check_number("effect", effect))
    if d == 0 or goal <= level:
        raise ParameterError(
            f"effect must not be 0 and power must exceed alpha / comparisons = {level:g}, got effect "
            f"{effect!r} and power {power!r}"
        )
    seeds = _least_seeds(d, goal, level)
    if test == "t":
        return seeds
    if test == "wilcoxon":
        seeds = math.ceil(seeds / WILCOXON_EFFICIENCY)
    return max(seeds, math.ceil(1 - math.log2(level)))


def _least_seeds(d: float, goal: float, level: float) -> int:
    below, enough = 1, 2
    while power(d, enough, alpha=level) < goal:
        below, enough = enough, 2 * enough
        if enough > MOST_SEEDS:
            raise ParameterError(
                f"an effect of {d:g} takes more than {MOST_SEEDS} seeds; is it worth seeing?"
            )
    while enough - below > 1:
        middle = (below + enough) // 2
        below, enough = (below, middle) if power(d, middle, alpha=level) >= goal else (middle, enough)
    return enough


def detectable_effect(seeds: int, *, power: float = 0.8, alpha: float = 0.05, comparisons: int = 1) -> float:
    """Return the smallest effect that a paired t test of so many seeds finds with a given chance."""
    n = check_count("seeds", seeds, least=2)
    goal = check_number("power", power, above=0.0, below=1.0)
    level = check_number("alpha", alpha, above=0.0, below=1.0) / check_count("comparisons", comparisons)
    if goal <= level:
        raise ParameterError(f"power must exceed alpha / comparisons = {level:g}, got {power!r}")
    high = 1.0
    while _power(high, n, alpha=level) < goal:
        high *= 2
    return float(optimize.brentq(lambda d: _power(d, n, alpha=level) - goal, 0.0, high, xtol=1e-10))


def power_note(seeds: int, *, comparisons: int = 1, alpha: float = 0.05) -> str:
    """Return two sentences that say what a table of so many seeds could see.

    Parameters
    ----------
    seeds : int
        Report seeds.
    comparisons : int, default 1
        Tests in the table, corrected after Holm.
    alpha : float, default 0.05
        Two-sided level of the whole table.
    """
    effect = detectable_effect(seeds, alpha=alpha, comparisons=comparisons)
    needed = seeds_needed(0.5, alpha=alpha, comparisons=comparisons)
    many = "1 comparison" if comparisons == 1 else f"{comparisons} comparisons (Holm, the strictest of them)"
    return (
        f"With {seeds} seeds and {many}, a difference of {effect:.2f} standard deviations of the paired "
        f"differences is seen with 80 % chance at level {alpha:g}. A difference of 0.5 takes {needed} seeds."
    )


_power = power  # the parameter of the same name hides it

__all__ = ["detectable_effect", "power", "power_note", "seeds_needed"]
