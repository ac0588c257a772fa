"""Aims: each names where it is missed, and judges by the seeds and purposes that it should."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from hoplens.data.tasks import make
from hoplens.studies.comparison.aims import judge, longest_lags, reach_means
from hoplens.studies.comparison.results import StudyResults
from hoplens.studies.statistics.purposes import BEST, LEAN, PRUNED

TASKS = {
    task.label: task
    for task in (make("subtraction", signal="sparse", lag=2, length=4), make("averaging", length=4))
}


@pytest.fixture
def perfect() -> StudyResults:
    """The summary of a study of tasks in which the recipe reaches everything."""
    rows = [
        {"task": task, "method": method, "pick": BEST, "test_error": error, "accuracy": 1.0, "alignment": 1.0}
        | {"active_hops": 1.0, "target_active_hops": 1.0, "kept_70": 1.0, "kept_90": 1.0}
        for task in TASKS
        for method, error in (("L1", 0.5), ("paper", 0.4), ("recommended", 0.1))
    ]
    return StudyResults(pd.DataFrame(), pd.DataFrame(rows), tasks=TASKS)


def test_aims_of_tasks_name_the_task_that_misses(perfect):
    assert judge(perfect, "paper")["met"].all()
    summary = perfect.summary.copy()
    ours = (summary["method"] == "recommended") & (summary["task"] == "averaging, every")
    summary.loc[ours, "alignment"] = 0.5
    missed = judge(dataclasses.replace(perfect, summary=summary), "paper").query("not met")
    assert missed["aim"].tolist() == ["alignment, linear tasks"]
    assert "averaging, every: 0.500" in missed["where"].iloc[0]
    summary.loc[ours, ["alignment", "test_error"]] = [1.0, float("nan")]  # what is no number is not reached
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


def test_aims_of_data_sets_name_the_sets_that_miss():
    rows, networks = [], []
    for task, error, own, hops in (("a", 0.2, 0.205, 4.0), ("b", 0.3, 0.32, 8.0)):
        for pick in (BEST, LEAN):
            rows.append((task, "L1", pick, error, error + 0.01, 10.0))
            rows.append((task, "none", pick, error + 0.1, error + 0.2, 9.0))
            rows.append((task, "recommended", pick, own, 0.4, hops))
        for seed in range(6):  # on "a" no difference, on "b" ours is worse, seed by seed
            shift = 0.1 * (-1) ** seed
            networks.append((task, "L1", 1.0, seed, "report", error + shift))
            worse = 0.0 if task == "a" else 0.01
            networks.append((task, "recommended", 1.0, seed, "report", error + shift + worse))
    columns = ["task", "method", "pick", "test_error", "test_error_high", "active_hops"]
    paired = pd.DataFrame({"task": ["a", "b"], "low": -0.2, "high": [-0.05, 0.01], "difference": -0.1})
    paired = paired.assign(pick=PRUNED, reference="L1", measure="test_error_90")
    picks = [(t, m, p, 1.0) for t in "ab" for m in ("L1", "recommended") for p in (BEST, LEAN)]
    results = StudyResults(
        networks=pd.DataFrame(networks, columns=["task", "method", "strength", "seed", "role", "test_error"]),
        summary=pd.DataFrame(rows, columns=columns),
        choices=pd.DataFrame(picks, columns=["task", "method", "pick", "strength"]),
        paired=paired,
    )
    found = judge(results, "real")
    assert found["measured"].tolist() == ["1 of 2", "1", "1"]
    assert not found["met"].any()
    where = found["where"].tolist()
    assert where[0] == "b: 0.3200 against L1 0.3000 (up to 0.3100)"
    assert where[1] == "b: -0.1000 [-0.2000, +0.0100]"
    assert where[2] == "b: 0.80 of its hops, error above it"
    alone = {
        name: getattr(results, name).query("task == 'a'")
        for name in ("networks", "summary", "choices", "paired")
    }
    assert judge(dataclasses.replace(results, **alone), "real")["met"].all()
