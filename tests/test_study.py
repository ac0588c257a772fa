"""The study: plan, store, statistics, and a tiny one from end to end."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from hoplens import recipes
from hoplens.errors import FileError
from hoplens.settings import Settings
from hoplens.study import StudyPlan, anchors, full_plan, quick_plan, run_study
from hoplens.study import runner as study_runner
from hoplens.study.aims import check, longest_lags, reach_means
from hoplens.study.markdown import to_markdown
from hoplens.study.plan import ABLATION, MAIN, REACH, Part, Shard
from hoplens.study.store import ShardStore
from hoplens.tasks import make

MEASURED = ("test_mse", "accuracy", "resolvent_corr", "weight_corr", "active_hops", "alignment", "kept_70")


def tiny_plan(steps: int = 20) -> StudyPlan:
    methods = (
        (recipes.none(), (0.0,)),
        (recipes.l1(), (1e-4, 1e-3)),
        (recipes.paper(), (1e-4,)),
        (recipes.recommended(), (1e-3,)),
    )
    tasks = (make("subtraction", signal="sparse", lag=2, length=4), make("averaging", length=4))
    parts = (
        Part(MAIN, tasks, methods),
        Part(ABLATION, tasks[:1], methods[1:]),
        Part(
            REACH,
            tuple(make("subtraction", signal="sparse", modules=2, lag=g, length=4) for g in (1, 3)),
            methods,
        ),
    )
    return StudyPlan("tiny", parts, (0, 1), (100, 101, 102), Settings(hidden=8, steps=steps, batch=8))


def test_plans_keep_validation_and_report_seeds_apart():
    for plan, least in ((quick_plan(), 8), (full_plan(), 20)):
        assert not set(plan.validation_seeds) & set(plan.report_seeds)
        assert len(plan.report_seeds) >= least
        assert {r.name for r, _ in plan.part(MAIN).methods} == {"none", "L1", "L2", "R-RNN", "recommended"}
        assert len(plan.part(MAIN).tasks) >= 4


def test_shards_cover_every_network_once():
    plan = tiny_plan()
    shards = [shard for shard in plan.shards() if shard.part == MAIN]
    seen = [(shard.task.label, n.recipe.name, n.strength, n.seed) for shard in shards for n in shard.networks]
    assert len(seen) == len(set(seen)) == 2 * (1 + 2 + 1 + 1) * 5


def test_key_changes_with_anything_that_changes_the_numbers():
    keys = {plan.key for plan in (tiny_plan(), tiny_plan(steps=21), quick_plan(), full_plan())}
    assert len(keys) == 4
    assert tiny_plan().key == tiny_plan().key


def test_tiny_study_gives_every_table(tmp_path):
    results = run_study(tiny_plan(), tmp_path / "out", workers=1)
    assert len(results.networks) == 2 * 5 * 5
    assert set(results.summary["method"]) == {"none", "L1", "R-RNN", "recommended"}
    assert (results.summary["n"] == 3).all()
    assert set(results.reach["lag"]) == {1, 3}
    assert len(results.ablation) == 3
    assert {"subtraction, sparse (lag 2)", "averaging, every"} == set(results.networks["task"])
    assert set(results.examples) == {"target", "none", "L1", "R-RNN", "recommended"}
    assert results.aims["met"].dtype == bool
    assert set(results.anchors["agrees"]) <= {"yes", "no", "direction only"}


def test_interrupted_study_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    whole = run_study(tiny_plan(), tmp_path / "whole", workers=1)
    real, calls = study_runner.run_shard, []

    def run_two_then_stop(shard: Shard, example_seed: int):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(shard)
        return real(shard, example_seed)

    monkeypatch.setattr(study_runner, "run_shard", run_two_then_stop)
    with pytest.raises(KeyboardInterrupt):
        run_study(tiny_plan(), tmp_path / "cut", workers=1)
    monkeypatch.setattr(study_runner, "run_shard", real)
    (tmp_path / "cut" / "shards" / "half.csv.tmp").write_text("left over")
    seen = []
    resumed = run_study(
        tiny_plan(), tmp_path / "cut", workers=1, progress=lambda s, done, total: seen.append(done)
    )
    assert seen[0] > 0  # the finished shards were not trained again
    pd.testing.assert_frame_equal(whole.networks, resumed.networks, check_exact=True)


def test_damaged_shard_is_run_again(tmp_path):
    first = run_study(tiny_plan(), tmp_path, workers=1)
    shard = tiny_plan().shards()[0]
    (tmp_path / "shards" / f"{shard.key}.csv").write_text("part,task\n")
    again = run_study(tiny_plan(), tmp_path, workers=1)
    pd.testing.assert_frame_equal(first.networks, again.networks, check_exact=True)


def test_processes_give_the_numbers_of_one(tmp_path):
    one = run_study(tiny_plan(), tmp_path / "one", workers=1)
    two = run_study(tiny_plan(), tmp_path / "two", workers=2)
    pd.testing.assert_frame_equal(one.networks, two.networks, rtol=1e-4, atol=1e-5)


def test_folder_of_another_study_is_refused(tmp_path):
    ShardStore(tmp_path, tiny_plan())
    with pytest.raises(FileError, match="holds another study"):
        ShardStore(tmp_path, tiny_plan(steps=21))
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(FileError, match="damaged"):
        ShardStore(tmp_path, tiny_plan())


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "results").write_text("mine")
    with pytest.raises(FileError, match="cannot make the results folder"):
        ShardStore(tmp_path / "results", tiny_plan())
    assert (tmp_path / "results").read_text() == "mine"


def test_mark_says_what_the_folder_holds(tmp_path):
    ShardStore(tmp_path, tiny_plan())
    assert json.loads((tmp_path / "study.json").read_text())["key"] == tiny_plan().key


def test_longest_lag_uses_report_seeds():
    rows = []
    for lag, error in ((4, 0.01), (8, 0.05), (12, 0.4)):
        for seed in range(4):
            role = "validation" if seed < 2 else "report"
            value = error if role == "report" else 0.0
            rows.append(("x", lag, 0.0, seed, role, value, f"lag {lag}", -1))
    columns = ["method", "lag", "strength", "seed", "role", "test_mse", "task", "diverged_at"]
    assert longest_lags(pd.DataFrame(rows, columns=columns))["x"] == 8


def test_markdown_shows_the_numbers_of_the_tables(tmp_path):
    results = run_study(tiny_plan(), tmp_path, workers=1)
    text = to_markdown(results)
    ours = results.summary.query("method == 'recommended'")
    for error in ours["test_mse"]:
        assert f"| {error:.4f} [" in text
    for value in reach_means(results.reach).loc["recommended"]:
        assert f" {value:.3f} |" in text
    for title in ("Ablation", "Reach", "Aims", "Beside the paper"):
        assert f"## {title}" in text
    widths = {line.count("|") for line in text.split("## ")[1].splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_reach_chooses_strengths_on_validation_seeds_only():
    rows = []
    for strength, validation, report in ((1.0, 0.1, 0.5), (2.0, 0.2, 0.0)):
        for seed in range(4):
            role, value = ("validation", validation) if seed < 2 else ("report", report)
            rows.append(("x", 4, strength, seed, role, value, "lag 4", -1))
    columns = ["method", "lag", "strength", "seed", "role", "test_mse", "task", "diverged_at"]
    assert reach_means(pd.DataFrame(rows, columns=columns)).loc["x", 4] == 0.5


def test_paper_table_interval_is_over_seeds():
    rows = []
    for task, level in (("averaging, sparse", 0.0), ("addition, sparse", 1.0)):  # tasks differ, seeds do not
        for method in ("L1", "R-RNN"):
            for seed in range(5):
                role = "validation" if seed < 2 else "report"
                rows.append({"task": task, "method": method, "strength": 1.0, "seed": seed, "role": role})
                rows[-1].update(dict.fromkeys(MEASURED, level), diverged_at=-1)
    table = anchors.compare(pd.DataFrame(rows)).set_index("claim")
    row = table.loc["corr(R_io, optimal map), R-RNN"]
    assert (row["ours"], row["low"], row["high"]) == (0.5, 0.5, 0.5)


def test_aims_name_the_task_that_misses(tmp_path):
    plan = tiny_plan()
    results = run_study(plan, tmp_path, workers=1)
    summary = results.summary.copy()
    ours = summary["method"] == "recommended"
    summary.loc[ours, ["test_mse", "accuracy", "alignment", "kept_70", "kept_90"]] = [0.0, 1.0, 1.0, 1.0, 1.0]
    summary.loc[ours, "active_hops"] = summary.loc[ours, "target_active_hops"]
    assert check(summary, results.reach.iloc[:0], plan)["met"].all()
    summary.loc[ours & (summary["task"] == "averaging, every"), "alignment"] = 0.5
    missed = check(summary, results.reach.iloc[:0], plan).query("not met")
    assert missed["aim"].tolist() == ["alignment, linear tasks"]
    assert "averaging, every: 0.500" in missed["where"].iloc[0]
