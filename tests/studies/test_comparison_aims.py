"""Aims: each names where it is missed, and judges by the seeds and purposes that it should."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from hoplens.data.tasks import make
from hoplens.studies.comparison.aims import judge, longest_lags, reach_means
from hoplens.studies.comparison.results import StudyResults
from hoplens.studies.statistics.purposes import BEST, LEAN, OURS, PRUNED, SPARSE

TASKS = {
    task.label: task
    for task in (make("subtraction", signal="sparse", lag=2, length=4), make("averaging", length=4))
}


@pytest.fixture
def perfect() -> StudyResults:
    """The summary of a study of tasks in which the recipe reaches everything."""
    rows = [
        {"task": task, "method": method, "pick": BEST, "test_error": error, "accuracy": 1.0}
        | {"flow_alignment": 1.0, "flow_hops": 1.0, "target_active_hops": 1.0, "kept_70": 1.0, "kept_90": 1.0}
        for task in TASKS
        for method, error in (("L1", 0.5), ("paper", 0.4), (OURS, 0.1), (SPARSE, 0.2))
    ]
    return StudyResults(pd.DataFrame(), pd.DataFrame(rows), tasks=TASKS)


def test_aims_of_tasks_name_the_task_that_misses(perfect):
    assert judge(perfect, "paper")["met"].all()
    summary = perfect.summary.copy()
    ours = (summary["method"] == OURS) & (summary["task"] == "averaging, every")
    summary.loc[ours, "flow_alignment"] = 0.5
    missed = judge(dataclasses.replace(perfect, summary=summary), "paper").query("not met")
    assert missed["aim"].tolist() == ["alignment of the flow, every task"]
    assert "averaging, every: 0.500" in missed["where"].iloc[0]
    summary.loc[ours, ["flow_alignment", "test_error"]] = [
        1.0,
        float("nan"),
    ]  # what is no number is not reached
    missed = judge(dataclasses.replace(perfect, summary=summary), "paper").query("not met")
    assert missed["aim"].tolist() == ["test error / better of L1 and the paper's recipe, every task"]


def reach_rows(cells: list[tuple[int, float, float, float]]) -> pd.DataFrame:
    """Rows of lag, strength, and the errors of validation and report seeds."""
    rows = [
        (
            "x",
            lag,
            strength,
            seed,
            *(("validation", seen) if seed < 2 else ("report", error)),
            f"lag {lag}",
            -1,
        )
        for lag, strength, seen, error in cells
        for seed in range(4)
    ]
    columns = ["method", "lag", "strength", "seed", "role", "test_error", "task", "diverged_at"]
    return pd.DataFrame(rows, columns=columns)


def test_longest_lag_uses_report_seeds():
    rows = reach_rows([(4, 0.0, 0.0, 0.01), (8, 0.0, 0.0, 0.05), (12, 0.0, 0.0, 0.4)])
    assert longest_lags(rows)["x"] == 8


def test_reach_chooses_strengths_on_validation_seeds_only():
    assert reach_means(reach_rows([(4, 1.0, 0.1, 0.5), (4, 2.0, 0.2, 0.0)])).loc["x", 4] == 0.5


@pytest.fixture
def sets() -> StudyResults:
    """Two data sets: on "a" the recipe has half the error of the others, on "b" it is worse, seed by seed."""
    rows, networks, paired = [], [], []
    for task, own, hops in (("a", 0.15, 4.0), ("b", 0.32, 8.0)):
        for pick in (BEST, LEAN, PRUNED):
            rows.append((task, "L1", pick, 0.3, 0.5, 10.0))
            rows.append((task, "none", pick, 0.4, 0.6, 9.0))
            rows.append((task, OURS, pick, own, 0.7, hops))
            rows.append((task, SPARSE, pick, own, 0.1 if task == "a" else 0.55, hops))
        for seed in range(6):
            shift = 0.001 * (-1) ** seed
            networks.append((task, "L1", 1.0, seed, "report", 0.3))
            networks.append((task, OURS, 1.0, seed, "report", own + shift))
        gap = own - 0.3
        paired.append((task, BEST, "L1", "test_error", gap, gap - 0.01, gap + 0.01))
    labels = ["task", "method", "pick", "test_error", "test_error_90", "flow_hops"]
    gaps = ["task", "pick", "reference", "measure", "difference", "low", "high"]
    picks = [(t, m, p, 1.0) for t in "ab" for m in ("L1", OURS) for p in (BEST, LEAN)]
    return StudyResults(
        networks=pd.DataFrame(networks, columns=["task", "method", "strength", "seed", "role", "test_error"]),
        summary=pd.DataFrame(rows, columns=labels),
        choices=pd.DataFrame(picks, columns=["task", "method", "pick", "strength"]),
        paired=pd.DataFrame(paired, columns=gaps),
    )


def test_aims_of_data_sets_name_the_sets_that_miss(sets):
    found = judge(sets, "real")
    assert found["measured"].tolist() == ["1", "1 of 2", "1", "1"]
    assert found["met"].tolist() == [True, False, False, False]
    assert found["where"].tolist() == [
        "b: 1.07 x L1",
        "b: +0.0200 [+0.0100, +0.0300] to L1",
        "b: 0.80 of its hops, error above it",
        "b: 0.5500 against L1 0.5000",
    ]
    alone = {
        name: getattr(sets, name).query("task == 'a'")
        for name in ("networks", "summary", "choices", "paired")
    }
    assert judge(dataclasses.replace(sets, **alone), "real")["met"].all()


def test_where_every_network_was_lost_no_aim_is_met(sets):
    summary, networks, paired = sets.summary.copy(), sets.networks.copy(), sets.paired.copy()
    summary.loc[summary["method"].isin([OURS, SPARSE]), ["test_error", "test_error_90", "flow_hops"]] = np.nan
    networks.loc[networks["method"] == OURS, "test_error"] = np.nan
    paired[["difference", "low", "high"]] = np.nan
    lost = dataclasses.replace(sets, summary=summary, networks=networks, paired=paired)
    assert not judge(lost, "real")["met"].any()
