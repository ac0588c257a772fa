"""Statistics: against SciPy, against slow twins, against theory, and by simulation on null data."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

import hoplens as hl
from hoplens.plots.frames import at_best_strength
from hoplens.studies.statistics import (
    assign_roles,
    best_strength,
    bootstrap_mean,
    cliffs_delta,
    compare,
    holm,
    hypervolume,
    paired_d,
    paired_test,
    pareto_front,
    power_note,
    robustness,
    seeds_needed,
    standing,
    superiority,
)
from hoplens.studies.statistics.comparing import paired_differences
from hoplens.studies.statistics.curves import curve_area, near_best
from hoplens.studies.statistics.fronts import undominated
from hoplens.studies.statistics.seeds import detectable_effect, power
from hoplens.studies.statistics.selection import choose_strengths, summarise

# intervals


def test_bootstrap_covers_at_its_level():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        interval = bootstrap_mean(rng.normal(1.0, 1.0, size=20))
        hits += interval.low <= 1.0 <= interval.high
    # 95 % nominal, a few percent less at n = 20; binomial spread at 300 is 1.3 %
    assert 0.89 <= hits / 300 <= 0.98


def test_bootstrap_of_degenerate_data():
    assert bootstrap_mean([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)
    assert bootstrap_mean([1.0, np.nan, 1.0]).mean == 1.0
    assert np.isnan(bootstrap_mean([1.0]).low)
    assert np.isnan(bootstrap_mean([]).mean)


def test_holm_equals_the_textbook_example():
    corrected = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(corrected, [0.03, 0.06, 0.06, 0.02])


def networks_frame(errors: dict[tuple[str, float], list[float]]) -> pd.DataFrame:
    rows = []
    for (method, strength), values in errors.items():
        for seed, value in enumerate(values):
            role = "validation" if seed < 2 else "report"
            rows.append(("t", method, strength, seed, role, value, -1))
    return pd.DataFrame(
        rows, columns=["task", "method", "strength", "seed", "role", "test_error", "diverged_at"]
    )


def test_strength_is_chosen_on_validation_seeds_only():
    frame = networks_frame({("a", 1.0): [0.1, 0.1, 9.0, 9.0, 9.0], ("a", 2.0): [0.2, 0.2, 0.0, 0.0, 0.0]})
    assert choose_strengths(frame)["strength"].tolist() == [1.0]
    report = choose_strengths(frame).merge(frame[frame["role"] == "report"])
    summary = summarise(report, ["test_error"])
    assert summary["n"].tolist() == [3]
    assert summary["test_error"].tolist() == [9.0]


def test_diverged_strength_is_not_chosen():
    frame = networks_frame({("a", 1.0): [np.nan, 0.0, 0, 0, 0], ("a", 2.0): [0.2, 0.2, 0.3, 0.3, 0.3]})
    assert choose_strengths(frame)["strength"].tolist() == [2.0]


def test_paired_difference_equals_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=12), rng.normal(size=12) + 0.5
    frame = networks_frame({("ours", 1.0): list(a), ("ref", 1.0): list(b)})
    report = frame[frame["role"] == "report"]
    row = paired_differences(report, "ours", ["ref"], ["test_error"]).iloc[0]
    assert row["difference"] == pytest.approx(np.mean(a[2:] - b[2:]))
    assert row["p"] == pytest.approx(stats.wilcoxon(a[2:], b[2:]).pvalue)
    assert row["low"] < row["difference"] < row["high"]


def test_interval_is_that_of_scipy():
    data = np.random.default_rng(3).exponential(size=15)
    found = bootstrap_mean(data, level=0.9)
    ref = stats.bootstrap(
        (data,), np.mean, confidence_level=0.9, n_resamples=20_000, rng=np.random.default_rng(1)
    )
    width = ref.confidence_interval.high - ref.confidence_interval.low
    assert found.low == pytest.approx(ref.confidence_interval.low, abs=0.05 * width)
    assert found.high == pytest.approx(ref.confidence_interval.high, abs=0.05 * width)
    assert found == bootstrap_mean(data, level=0.9)  # the same twice
    with pytest.raises(hl.errors.ParameterError, match="level"):
        bootstrap_mean(data, level=95)


# tests, correction, effect sizes


def slow_sign_flip(gap):
    means = np.array([np.mean(gap * signs) for signs in itertools.product((-1.0, 1.0), repeat=len(gap))])
    return np.mean(np.abs(means) >= abs(gap.mean()) * (1 - 1e-12))


def test_sign_flip_equals_all_patterns_one_by_one():
    rng = np.random.default_rng(0)
    for n in (3, 6, 9):
        gap = rng.normal(0.3, 1.0, size=n)
        assert paired_test(gap, test="sign-flip") == pytest.approx(slow_sign_flip(gap))
    many = rng.normal(0.4, 1.0, size=18)  # more patterns than are tried: close, and the same twice
    assert paired_test(many, test="sign-flip") == pytest.approx(slow_sign_flip(many), abs=0.01)
    assert paired_test(many, test="sign-flip") == paired_test(many, test="sign-flip")


def test_wilcoxon_is_scipys_and_ignores_the_lost():
    gap = np.random.default_rng(1).normal(0.5, 1.0, size=11)
    assert paired_test([*gap, np.nan]) == stats.wilcoxon(gap).pvalue
    assert paired_test([0.0, 0.0]) == 1.0
    assert math.isnan(paired_test([]))


def slow_holm(p):
    """Reject in order of size while p <= level / tests left; the corrected p is the least such level."""
    order = sorted(range(len(p)), key=lambda n: p[n])
    worst, corrected = 0.0, [0.0] * len(p)
    for rank, n in enumerate(order):
        worst = max(worst, (len(p) - rank) * p[n])
        corrected[n] = min(worst, 1.0)
    return corrected


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_holm_equals_its_slow_twin_and_lies_between_raw_and_bonferroni(p):
    raw = np.array(p)
    corrected = holm(raw)
    np.testing.assert_allclose(corrected, slow_holm(p))
    assert (corrected >= raw).all()
    assert (corrected <= np.minimum(1.0, raw * len(p)) + 1e-12).all()
    # weaker than controlling the false discovery rate, as it must be
    assert (corrected >= stats.false_discovery_control(raw) - 1e-12).all()
    with_gap = holm(np.array([*p, np.nan]))  # a test that was not done does not count
    np.testing.assert_array_equal(with_gap[:-1], corrected)
    assert np.isnan(with_gap[-1])


def test_effect_sizes_by_hand():
    assert paired_d([1.0, 2.0, 3.0]) == pytest.approx(2.0)
    assert paired_d([-1.0, -2.0, np.nan, -3.0]) == pytest.approx(-2.0)
    assert paired_d([0.0, 0.0]) == 0.0
    assert paired_d([0.5, 0.5]) == math.inf
    assert math.isnan(paired_d([1.0]))
    assert cliffs_delta([1, 2], [0, 2]) == pytest.approx((1 - 1 + 1 + 0) / 4)
    assert superiority([3, 4], [1, 2]) == 1.0
    assert math.isnan(superiority([], [1.0]))
    with pytest.raises(hl.errors.ShapeError, match=r"\(n,\)"):
        paired_d([[1.0, 2.0]])


samples = st.lists(st.integers(-5, 5), min_size=1, max_size=8)


@given(samples, samples)
def test_superiority_is_the_mann_whitney_statistic(a, b):
    u = sum((x > y) + 0.5 * (x == y) for x in a for y in b)
    assert superiority(a, b) == pytest.approx(u / (len(a) * len(b)))
    assert superiority(a, b) + superiority(b, a) == pytest.approx(1.0)


# selection


def test_selection_looks_at_the_side_that_is_good():
    frame = networks_frame({("a", 1.0): [0.1, 0.1, 0.0], ("a", 2.0): [0.2, 0.2, 0.0]})
    assert best_strength(frame) == 1.0
    assert best_strength(frame, better="higher") == 2.0
    assert choose_strengths(frame, better="higher")["strength"].tolist() == [2.0]


def test_a_strength_that_lost_networks_comes_last_and_equal_ones_by_the_next_column_then_the_least():
    frame = networks_frame({("a", 1.0): [np.nan, 0.0, 0, 0], ("a", 2.0): [9.0, 9.0, 0.3, 0.3]})
    assert best_strength(frame.query("role == 'validation'")) == 2.0
    some = networks_frame({("a", 1.0): [np.nan] * 2 + [1.0] * 2, ("a", 2.0): [np.inf] + [5.0] * 3})
    assert best_strength(some) == 2.0  # it lost fewer
    nothing = networks_frame({("a", 2.0): [np.nan] * 3, ("a", 1.0): [np.inf] * 3})
    assert best_strength(nothing) == 1.0
    equal = networks_frame({("a", 2.0): [0.5] * 3, ("a", 1.0): [0.5] * 3})
    assert best_strength(equal) == 1.0
    second = equal.assign(other=[0.1] * 3 + [0.2] * 3)
    assert best_strength(second, ["test_error", "other"]) == 2.0
    assert best_strength(second, ["test_error", "other"], better="higher") == 1.0
    with pytest.raises(hl.errors.ParameterError, match="no network to choose"):
        best_strength(equal.iloc[:0])


VALUES = st.lists(st.sampled_from([0.1, 0.5, 2.0, 1e9, np.nan, np.inf, -np.inf]), min_size=1, max_size=6)


@given(VALUES, VALUES)
def test_no_failure_ever_makes_a_choice_better(values, others):
    assert standing(values) < standing([*values, np.nan]) or not np.isfinite(values).any()
    both = np.isfinite(values).all(), np.isfinite(others).all()
    if both == (True, False):
        assert standing(values) < standing(others)
    if both == (True, True):
        assert (standing(values) < standing(others)) == (np.mean(values) < np.mean(others))
        assert (standing(values, better="higher") < standing(others, better="higher")) == (
            np.mean(values) > np.mean(others)
        )


@given(st.lists(st.tuples(st.sampled_from([0.1, 1.0, 3.0]), st.sampled_from([0.2, 0.4, np.nan])), min_size=1))
def test_every_place_that_names_a_best_strength_names_the_same(cells):
    """The rows of one method on one task: choice, curves' choice, running sweep and status agree."""
    rows = [("t", "m", strength, seed, "validation", error) for seed, (strength, error) in enumerate(cells)]
    frame = pd.DataFrame(rows, columns=["task", "method", "strength", "seed", "role", "test_error"])
    ranks = {s: standing(own["test_error"]) for s, own in frame.groupby("strength")}
    best = best_strength(frame)
    assert ranks[best] == min(ranks.values())
    assert choose_strengths(frame)["strength"].tolist() == [best]
    shown = frame.assign(role="report").assign(seed=frame["seed"] + 1000)
    drawn = at_best_strength(pd.concat([frame, shown]), ["method"])
    assert set(drawn["strength"]) == {best}


def test_a_single_strength_needs_no_validation_seed_but_several_do():
    frame = networks_frame(
        {("a", 1.0): [0.0, 0.0, 0.5, 0.5], ("b", 1.0): [0, 0, 1, 1], ("b", 2.0): [0, 0, 2, 2]}
    )
    alone = frame[(frame["method"] == "a") & (frame["role"] == "report")]
    assert choose_strengths(alone)["strength"].tolist() == [1.0]
    with pytest.raises(
        hl.errors.ParameterError, match="t, b has 2 strengths and no network of a validation seed"
    ):
        choose_strengths(frame[frame["role"] == "report"])


def test_roles_by_seed():
    frame = networks_frame({("a", 1.0): [0.0] * 4}).drop(columns="role")
    roles = assign_roles(frame, [0, 2])["role"].tolist()
    assert roles == ["validation", "report", "validation", "report"]
    assert "role" not in frame.columns
    for seeds, side in ((range(4), "report"), ([9], "validation")):
        with pytest.raises(hl.errors.ParameterError, match=f"no seed is left for the role '{side}'"):
            assign_roles(frame, seeds)


# the table


def drawn(rng, shift=0.0, strengths=(1e-4, 1e-3, 1e-2), validation=4, report=12):
    """Two methods of the same law, but for a shift of "b", with a common effect of the seed."""
    rows = []
    common = rng.normal(size=validation + report)
    for method in ("a", "b"):
        for strength in strengths:
            noise = rng.normal(size=validation + report)
            values = common + noise + (shift if method == "b" else 0.0)
            rows += [(method, strength, seed, value) for seed, value in enumerate(values)]
    frame = pd.DataFrame(rows, columns=["method", "strength", "seed", "score"])
    return assign_roles(frame, range(validation))


def test_the_table_says_what_its_parts_say():
    frame = drawn(np.random.default_rng(5), shift=-1.0)
    table = compare(frame, "score", reference="a").set_index("method")
    best = {m: best_strength(g, "score") for m, g in frame.query("role == 'validation'").groupby("method")}
    values = {
        m: frame.query("role == 'report' and method == @m and strength == @s").set_index("seed")["score"]
        for m, s in best.items()
    }
    assert table["strength"].to_dict() == best
    row, gap = table.loc["b"], values["b"] - values["a"]
    assert tuple(row[["mean", "low", "high"]]) == bootstrap_mean(values["b"])
    assert tuple(row[["difference", "difference_low", "difference_high"]]) == bootstrap_mean(gap)
    assert (row["n"], row["lost"], row["pairs"]) == (12, 0, 12)
    assert row["p"] == row["p_holm"] == paired_test(gap)
    assert row["d"] == paired_d(gap)
    assert row["superiority"] == superiority(-values["b"], -values["a"])  # low is good
    assert table.loc["a", ["difference", "p", "p_holm", "d", "superiority"]].isna().all()
    flipped = compare(frame, "score", reference="a", better="higher", test="sign-flip").set_index("method")
    assert flipped.loc["b", "superiority"] < 0.5 < row["superiority"]


def test_the_table_corrects_over_all_its_tests_and_pairs_seeds_in_any_order():
    rng = np.random.default_rng(6)
    parts = [drawn(rng, shift).assign(task=f"t{n}") for n, shift in enumerate((-1.0, 0.0, -0.5))]
    frame = pd.concat(parts)
    table = compare(frame, "score")
    tested = table.dropna(subset="p")
    assert len(tested) == 3
    np.testing.assert_allclose(tested["p_holm"], holm(tested["p"].to_numpy()))
    shuffled = compare(frame.sample(frac=1.0, random_state=1), "score", reference="a")
    both = [f.sort_values(["task", "method"]).reset_index(drop=True) for f in (table, shuffled)]
    pd.testing.assert_frame_equal(*both, rtol=1e-12)


def test_another_column_may_choose_the_strength():
    frame = networks_frame({("a", 1.0): [0.1] * 5, ("a", 2.0): [0.2] * 5})
    frame["hops"] = frame["strength"].map({1.0: 7.0, 2.0: 1.0})
    assert compare(frame, "hops", choose_by="test_error")["mean"].tolist() == [7.0]
    assert compare(frame, "hops")["mean"].tolist() == [1.0]


def test_lost_networks_are_counted_and_left_out_or_given_a_value():
    errors = {("none", 0.0): [0.5] * 6, ("a", 1.0): [0.2, 0.2, 0.2, np.nan, 0.2, 0.4]}
    row = compare(networks_frame(errors)).set_index("method").loc["a"]
    assert (row["n"], row["lost"], row["pairs"]) == (4, 1, 3)
    assert row["mean"] == pytest.approx(0.8 / 3)
    full = compare(networks_frame(errors), lost=1.0).set_index("method").loc["a"]
    assert (full["lost"], full["pairs"]) == (1, 4)
    assert full["mean"] == pytest.approx(1.8 / 4)


def test_a_strength_without_report_seeds_gives_an_empty_row():
    frame = networks_frame({("none", 0.0): [0.5] * 4, ("a", 1.0): [0.1] * 4, ("a", 2.0): [0.2] * 4})
    cut = frame[~((frame["strength"] == 1.0) & (frame["role"] == "report"))]
    row = compare(cut).set_index("method").loc["a"]
    assert (row["strength"], row["n"], row["pairs"]) == (1.0, 0, 0)
    assert math.isnan(row["mean"])
    assert math.isnan(row["p"])


def test_frames_that_cannot_be_compared_are_refused():
    frame = networks_frame({("a", 1.0): [0.1] * 4, ("b", 1.0): [0.2] * 4})
    with pytest.raises(hl.errors.UnknownNameError, match="did you mean 'test_error'"):
        compare(frame, "tests_mse")
    with pytest.raises(hl.errors.UnknownNameError, match="unknown reference 'c'"):
        compare(frame, reference="c")
    with pytest.raises(hl.errors.ParameterError, match="assign_roles"):
        compare(frame.drop(columns="role"))
    with pytest.raises(
        hl.errors.ParameterError, match=r"several networks have task t, method a, strength 1\.0, seed 0"
    ):
        compare(pd.concat([frame, frame.head(1)]))
    mixed = pd.concat([frame, frame.head(1).assign(role="report", strength=3.0)])
    with pytest.raises(hl.errors.ParameterError, match="chooses and reports"):
        compare(mixed)
    with pytest.raises(hl.errors.UnknownNameError, match="did you mean 'validation'"):
        compare(frame.assign(role="validate"))
    with pytest.raises(hl.errors.ParameterError, match="no rows"):
        compare(frame.head(0))
    for option in ({"better": "low"}, {"test": "t"}):
        with pytest.raises(hl.errors.UnknownNameError):
            compare(frame, **option)


# simulation: what the numbers promise


def within_binomial(hits, trials, rate, spread=0.999):
    low, high = stats.binom.interval(spread, trials, rate)
    return low <= hits <= high


@pytest.mark.parametrize("test", ["wilcoxon", "sign-flip"])
def test_false_positives_at_5_percent_are_5_percent_on_null_data(test):
    rng = np.random.default_rng(11)
    trials, n = 500, 10
    p = np.array([paired_test(rng.normal(size=n), test=test) for _ in range(trials)])
    # p values of ranks come in steps: the level that is meant is the largest step not above 5 %
    step = np.floor(0.05 * 2**n / 2) * 2 / 2**n if test == "sign-flip" else wilcoxon_level(n, 0.05)
    assert 0.04 < step <= 0.05
    assert within_binomial(int((p <= 0.05).sum()), trials, step)


def wilcoxon_level(n, level):
    """The chance of a p value of at most ``level``, by the distribution of the sum of ranks."""
    ways = np.array([1.0])
    for rank in range(1, n + 1):
        ways = np.convolve(ways, np.bincount([0, rank]))
    share = np.cumsum(ways) / ways.sum()
    return 2 * share[2 * share <= level].max()


def test_choosing_on_validation_seeds_keeps_the_error_rate_and_choosing_on_report_seeds_does_not():
    """With one strength against the best of eight, all of one law: the reason for the two roles."""
    rng = np.random.default_rng(12)
    trials, n, strengths = 250, 10, 8
    honest = flattered = 0
    for _ in range(trials):
        reference, own = rng.normal(size=(2, n)), rng.normal(size=(2, strengths, n))  # validation, report
        honest += paired_test(own[1][own[0].mean(axis=1).argmin()] - reference[1]) <= 0.05
        flattered += paired_test(own[1][own[1].mean(axis=1).argmin()] - reference[1]) <= 0.05
    assert within_binomial(honest, trials, wilcoxon_level(n, 0.05))
    assert not within_binomial(flattered, trials, wilcoxon_level(n, 0.05))


def test_the_whole_table_is_wrong_in_at_most_5_percent_of_null_studies(monkeypatch):
    monkeypatch.setattr(
        "hoplens.studies.statistics.intervals.RESAMPLES", 20
    )  # intervals are not looked at here
    rng = np.random.default_rng(13)
    trials, wrong, raw = 40, 0, 0
    for _ in range(trials):
        parts = [drawn(rng, strengths=(1e-3,), report=8).assign(task=n) for n in range(3)]
        table = compare(pd.concat(parts), "score")
        wrong += bool((table["p_holm"] <= 0.05).any())
        raw += bool((table["p"] <= 0.05).any())
    assert wrong <= stats.binom.ppf(0.999, trials, 0.05)
    assert raw > wrong  # the correction does something


# curves


def test_area_of_a_straight_line_in_log_strength_is_its_middle():
    strengths, line = np.array([1e-4, 1e-3, 1e-2]), np.array([1.0, 2.0, 3.0])
    assert curve_area(strengths, line, (1e-4, 1e-2)) == pytest.approx(2.0)
    assert curve_area(strengths, line, (1e-4, 1e-3)) == pytest.approx(1.5)
    assert curve_area(strengths, line, (10**-3.5, 10**-2.5)) == pytest.approx(2.0)
    assert curve_area(strengths, line, (1e-3, 1e-3)) == pytest.approx(2.0)
    assert math.isnan(curve_area(strengths, np.array([1.0, np.nan, 3.0]), (1e-4, 1e-2)))
    dense = np.geomspace(1e-5, 1.0, 4001)  # mean of x^2 over -5 .. 0
    assert curve_area(dense, np.log10(dense) ** 2, (1e-5, 1.0)) == pytest.approx(25 / 3, rel=1e-6)


def near(strengths, values, *, better="lower", within=0.05):
    return near_best(np.array(strengths), np.array(values), better=better, within=within)


def test_range_near_the_best_by_hand():
    strengths = [1e-4, 1e-3, 1e-2]
    # 0.1 -> 0.2 in a decade: 5 % of 0.1 is crossed a twentieth of the way on either side
    assert near(strengths, [0.2, 0.1, 0.2]) == pytest.approx((10**-3.05, 10**-2.95))
    assert near(strengths, [-0.2, -0.1, -0.2], better="higher", within=1.0) == pytest.approx((1e-4, 1e-2))
    assert near(strengths, [0.1, 0.1, 0.2], within=0.5) == pytest.approx((1e-4, 10**-2.5))
    assert near(strengths, [np.nan, 0.1, 0.1]) == pytest.approx((1e-3, 1e-2))
    assert near([1e-4, 1e-3, 1e-2, 1e-1], [0.1, 0.5, 0.1, 0.1])[1] == pytest.approx(10 ** (-4 + 0.0125))
    assert np.isnan(near(strengths, [np.nan] * 3)).all()


@given(
    hnp.arrays(float, 5, elements=st.floats(0.01, 10.0)),
    st.floats(0.0, 0.5),
    st.floats(0.0, 0.5),
)
def test_a_wider_tolerance_never_narrows_the_range(values, a, b):
    strengths = np.geomspace(1e-4, 1.0, 5)
    small, large = (near(strengths, values, within=share) for share in sorted((a, b)))
    assert large[0] <= small[0] * (1 + 1e-9)
    assert small[1] <= large[1] * (1 + 1e-9)
    assert small[0] * (1 - 1e-9) <= strengths[values.argmin()] <= small[1] * (1 + 1e-9)


def test_robustness_compares_methods_on_the_strengths_that_they_share():
    errors = {("none", 0.0): [9, 9, 0.5, 0.5]}
    errors |= {("a", s): [9, 9, e, e] for s, e in ((1e-4, 0.2), (1e-3, 0.1), (1e-2, 0.2))}
    errors |= {("b", s): [9, 9, e, e] for s, e in ((1e-3, 0.1), (1e-2, 0.1))}
    table = robustness(networks_frame(errors)).set_index("method")
    assert table.loc["none", ["area", "best"]].tolist() == [0.5, 0.5]
    assert math.isnan(table.loc["none", "low"])
    assert table.loc["a", "area"] == pytest.approx(0.15)  # on 1e-3 .. 1e-2 only
    assert table.loc["b", "area"] == pytest.approx(0.1)
    assert table.loc["a", "decades"] == pytest.approx(0.1)
    assert table.loc["a", ["best_strength", "low_open", "high_open"]].tolist() == [1e-3, False, False]
    assert table.loc["b", ["low_open", "high_open"]].tolist() == [True, True]
    assert (robustness(networks_frame(errors), role="validation").set_index("method")["best"] == 9).all()


def test_a_lost_network_spoils_its_strength_unless_it_has_a_value():
    errors = {("a", s): [0, 0, e, 0.1] for s, e in ((1e-4, 0.1), (1e-3, 0.1), (1e-2, np.nan))}
    row = robustness(networks_frame(errors)).iloc[0]
    assert math.isnan(row["area"])
    assert (row["low"], row["high"]) == pytest.approx((1e-4, 1e-3))
    assert not row["high_open"]
    row = robustness(networks_frame(errors), lost=1.0).iloc[0]
    assert row["area"] == pytest.approx((0.1 * 1 + 0.325 * 1) / 2)


# fronts


points_2d = hnp.arrays(float, st.tuples(st.integers(1, 7), st.just(2)), elements=st.integers(0, 5).map(float))
points_3d = hnp.arrays(float, st.tuples(st.integers(1, 6), st.just(3)), elements=st.integers(0, 4).map(float))


@given(points_3d)
def test_the_front_is_what_nothing_dominates(points):
    mask = undominated(points)
    for n, point in enumerate(points):
        beaten = ((points <= point).all(axis=1) & (points < point).any(axis=1)).any()
        assert mask[n] == (not beaten)


def slow_hypervolume(points, reference):
    """Inclusion and exclusion over all subsets."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            total -= (-1) ** size * np.prod(np.maximum(reference - np.max(chosen, axis=0), 0.0))
    return total


@given(points_2d)
def test_hypervolume_in_two_dimensions(points):
    assert hypervolume(points, [4.0, 5.0]) == pytest.approx(slow_hypervolume(points, np.array([4.0, 5.0])))


@given(points_3d)
def test_hypervolume_in_three_dimensions_comes_from_the_front_alone(points):
    reference = np.array([4.0, 4.0, 5.0])
    volume = hypervolume(points, reference)
    assert volume == pytest.approx(slow_hypervolume(points, reference))
    assert volume == pytest.approx(hypervolume(points[undominated(points)], reference))


def test_hypervolume_in_four_dimensions_and_of_nothing():
    assert hypervolume([[0, 0, 0, 0], [1, 1, 1, 1]], [1, 2, 3, 4]) == pytest.approx(24.0)
    assert hypervolume([[2.0, 0.0], [np.nan, 0.0]], [1.0, 1.0]) == 0.0
    assert hypervolume(np.empty((0, 2)), [1.0, 1.0]) == 0.0
    with pytest.raises(hl.errors.ShapeError, match="one number a measure"):
        hypervolume([[0.0, 0.0]], [1.0])
    with pytest.raises(hl.errors.NonFiniteError, match="finite reference"):
        hypervolume([[0.0, 0.0]], [1.0, np.inf])
    with pytest.raises(hl.errors.ShapeError, match="one row a point"):
        undominated([1.0, 2.0])


def test_pareto_front_of_a_frame():
    frame = pd.DataFrame({"m": list("abcd"), "err": [1.0, 2.0, 3.0, np.nan], "acc": [0.5, 0.9, 0.8, 1.0]})
    assert pareto_front(frame, {"err": "lower", "acc": "higher"})["m"].tolist() == ["a", "b"]
    assert pareto_front(frame, {"acc": "higher"})["m"].tolist() == ["d"]
    with pytest.raises(hl.errors.ParameterError, match="name the measures"):
        pareto_front(frame, {})
    with pytest.raises(hl.errors.UnknownNameError, match="unknown column 'hops'"):
        pareto_front(frame, {"hops": "lower"})


# power


def test_power_equals_published_sample_sizes():
    """Two-sided paired t test, alpha 5 %, power 80 %: 199, 34 and 15 pairs (Cohen's d 0.2, 0.5, 0.8)."""
    assert [seeds_needed(d, test="t") for d in (0.2, 0.5, 0.8)] == [199, 34, 15]
    assert power(0.5, 34) == pytest.approx(0.8078, abs=1e-4)
    assert power(0.0, 20, alpha=0.05) == pytest.approx(0.05)


def test_power_is_what_simulation_finds():
    rng = np.random.default_rng(14)
    trials, n, d = 4000, 12, 0.8
    gaps = rng.normal(d, 1.0, size=(trials, n))
    hits = int((stats.ttest_1samp(gaps, 0.0, axis=1).pvalue <= 0.05).sum())
    assert within_binomial(hits, trials, power(d, n))


def test_power_is_the_noncentral_t():
    for d, n in itertools.product((0.1, 0.5, 1.0), (2, 8, 30)):
        bound, shift = stats.t.isf(0.025, n - 1), d * math.sqrt(n)
        tails = stats.nct.sf(bound, n - 1, shift) + stats.nct.cdf(-bound, n - 1, shift)
        assert power(-d, n) == pytest.approx(tails, abs=1e-9)


@given(st.floats(0.2, 3.0), st.floats(0.3, 0.95), st.integers(1, 20))
def test_seeds_needed_is_the_least_that_is_enough(d, goal, tests):
    n = seeds_needed(d, power=goal, comparisons=tests, test="t")
    assert power(d, n, alpha=0.05 / tests) >= goal
    assert n == 2 or power(d, n - 1, alpha=0.05 / tests) < goal
    assert detectable_effect(n, power=goal, comparisons=tests) <= d + 1e-6


def test_rank_and_sign_tests_need_enough_patterns_to_reach_the_level():
    assert seeds_needed(50.0, test="t") == 2
    for test in ("wilcoxon", "sign-flip"):
        n = seeds_needed(50.0, test=test)
        assert n == 6
        assert (
            paired_test(np.arange(1.0, n + 1), test=test) <= 0.05 < paired_test(np.arange(1.0, n), test=test)
        )
    assert seeds_needed(0.5) == 36  # 34 pi / 3


def test_the_note_names_its_numbers():
    note = power_note(20, comparisons=8)
    assert f"{detectable_effect(20, comparisons=8):.2f} standard deviations" in note
    assert f"takes {seeds_needed(0.5, comparisons=8)} seeds" in note
    for bad in ({"seeds": 1}, {"seeds": 20, "comparisons": 0}, {"seeds": 20, "alpha": 0.9}):
        with pytest.raises(hl.errors.ParameterError):
            power_note(**bad)
    with pytest.raises(hl.errors.ParameterError, match="must not be 0"):
        seeds_needed(0.0)
    with pytest.raises(hl.errors.ParameterError, match="worth seeing"):
        seeds_needed(1e-6)
