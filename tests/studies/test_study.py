"""The paper's study: its files, its folder, statistics, and a tiny one from end to end."""

from __future__ import annotations

import shutil
import sqlite3
from itertools import product

import pandas as pd
import pytest
import torch
from in_process import hoplens

from hoplens import recipes
from hoplens.analysis.hops import hop_maps
from hoplens.cli.commands.report import write_folder_report
from hoplens.data.tasks import make
from hoplens.errors import FileError, ParameterError, UnknownNameError
from hoplens.reports.page import render_study_report
from hoplens.studies.paper import anchors, full_plan, quick_plan, run_study
from hoplens.studies.paper.aims import check, longest_lags, reach_means
from hoplens.studies.paper.folder import claim_folder
from hoplens.studies.paper.markdown import to_markdown
from hoplens.studies.paper.plan import ABLATION, MAIN, REACH, study_text, tasks_of
from hoplens.studies.paper.saved import load_study
from hoplens.studies.sweeps import Plan, TaskSetting, make_study, open_store, parse_study, run_sweep, running
from hoplens.studies.sweeps.config import Study
from hoplens.training.settings import Network, Settings
from hoplens.training.training import train_networks

MEASURED = ("test_error", "accuracy", "resolvent_corr", "weight_corr", "active_hops", "alignment", "kept_70")


def tiny_plan(steps: int = 20) -> Plan:
    compared = [
        {"recipe": "l1", "strengths": [1e-4, 1e-3]},
        {"recipe": "paper", "strengths": [1e-4]},
        {"recipe": "recommended", "strengths": [1e-3]},
    ]
    methods = [{"recipe": "none"}, *compared]
    sparse = {"name": "subtraction", "signal": "sparse", "length": 4}
    tasks = [sparse | {"lag": 2}, {"name": "averaging", "length": 4}]
    reach = [sparse | {"modules": 2, "lag": lag} for lag in (1, 3)]
    study = {
        "name": "tiny",
        "seeds": {"validation": [0, 1], "report": [100, 101, 102]},
        "weights": [101],
        "training": {"hidden": 8, "steps": steps, "batch": 8},
        "tasks": tasks,
        "methods": methods,
        "parts": [
            {"name": ABLATION, "tasks": tasks[:1], "methods": compared},
            {"name": REACH, "tasks": reach, "methods": methods},
        ],
    }
    return make_study(study).plan()


def seeds_of(plan: Plan, role: str) -> set[int]:
    return {member.network.seed for member in plan.members if member.role == role}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "out"
    return folder, run_study(tiny_plan(), folder, workers=1)


# the study files


def test_plans_keep_validation_and_report_seeds_apart():
    for plan, least in ((quick_plan(), 8), (full_plan(), 20)):
        assert not seeds_of(plan, "validation") & seeds_of(plan, "report")
        assert len(seeds_of(plan, "report")) >= least
        names = {m.network.recipe.name for m in plan.members if m.part == MAIN}
        assert names == {"none", "L1", "L2", "paper", "recommended"}
        assert len(tasks_of(plan, MAIN)) >= 4


def methods(strengths, own):
    return [
        (recipes.none(), (0.0,)),
        (recipes.l1(), strengths),
        (recipes.l2(), strengths),
        (recipes.paper(), strengths),
        (recipes.recommended(), own),
    ]


def arms(strengths, own):
    """Others get the recipe's start, then also its pruning, at every strength; the recipe loses each."""
    ours, found = recipes.recommended(), []
    for base in (recipes.none(), recipes.l1(), recipes.paper()):
        each = strengths if base.terms else (0.0,)
        started = base.with_start(name=f"{base.name} + start", init=ours.init)
        found.append((started, each))
        found.append((started.always_pruned(name=f"{base.name} + start + pruning", like=ours), each))
    return [
        *found,
        (ours, own),
        (ours.with_start(name="recommended - start", init="orthogonal"), own),
        (ours.without_pruning(name="recommended - pruning"), own),
    ]


def members(part, tasks, compared, settings, seeds):
    """Return what a part trains, in order, written out."""
    return [
        (part, task.label, Network(recipe, strength, seed), role, task, settings)
        for task, (recipe, strengths) in product(tasks, compared)
        for strength in strengths
        for role, own in seeds
        for seed in own
    ]


def written(plan: Plan):
    return [
        (m.part, m.task, m.network, m.role, m.setting.task, m.setting.settings)
        for m in plan.members
        if isinstance(m.setting, TaskSetting)
    ]


def test_quick_file_trains_four_tasks():
    tasks = (
        make("averaging", signal="on-off", length=10),
        make("subtraction", signal="sparse", length=10, lag=8),
        make("addition", signal="every", length=10),
        make("multiplication", signal="sparse", length=10, lag=8),
    )
    seeds = (("validation", range(4)), ("report", range(100, 108)))
    compared = methods((1e-4, 3e-4, 1e-3), (3e-4, 1e-3))
    wanted = members(MAIN, tasks, compared, Settings(hidden=48, steps=1500), seeds)
    assert len(wanted) == 576
    assert written(quick_plan()) == wanted


def test_full_file_trains_twelve_tasks_ablation_and_reach():
    patterns = ({"signal": "every"}, {"signal": "on-off"}, {"signal": "sparse", "lag": 8})
    names = ("averaging", "subtraction", "addition", "multiplication")
    tasks = [make(name, length=10, **pattern) for name, pattern in product(names, patterns)]
    shown = [make(name, length=10, signal="sparse", lag=8) for name in ("subtraction", "multiplication")]
    far = [make("subtraction", signal="sparse", modules=2, length=30, lag=lag) for lag in (8, 12, 16, 28)]
    own, short = (3e-4, 1e-3), (1e-4, 5e-4)
    without_l2 = [pair for pair in methods(short, own) if pair[0].name != "L2"]
    settings, seeds = Settings(hidden=48, steps=2000), (("validation", range(8)), ("report", range(100, 120)))
    wanted = [
        *members(MAIN, tasks, methods((3e-5, 1e-4, 3e-4, 1e-3), own), settings, seeds),
        *members(ABLATION, shown, arms(short, own), settings, seeds),
        *members(REACH, far, without_l2, settings, seeds),
    ]
    plan = full_plan()
    assert len(wanted) == 6720
    assert written(plan) == wanted
    assert len(plan.by_key) == 6720 - 2 * 2 * 28  # the recipe of the ablation is that of the main part


def test_files_keep_the_weights_that_are_drawn():
    for plan in (quick_plan(), full_plan()):
        assert {m.setting.weights for m in plan.members if isinstance(m.setting, TaskSetting)} == {(100,)}
        assert 100 in seeds_of(plan, "report")


def test_study_file_of_another_name_is_refused():
    assert parse_study(study_text("paper-quick")).plan().id == quick_plan().id
    with pytest.raises(UnknownNameError, match="paper, paper-quick"):
        study_text("papers")


# a tiny one from end to end


def test_tiny_study_gives_every_table(tiny):
    _, results = tiny
    assert len(results.networks) == 2 * 5 * 5
    assert not {"part", "key"} & set(results.networks.columns)
    assert set(results.summary["method"]) == {"none", "L1", "paper", "recommended"}
    assert (results.summary["n"] == 3).all()
    assert set(results.reach["lag"]) == {1, 3}
    assert len(results.ablation) == 3
    assert {"subtraction, sparse (lag 2)", "averaging, every"} == set(results.networks["task"])
    assert set(results.examples) == {"target", "none", "L1", "paper", "recommended"}
    assert results.aims["met"].dtype == bool
    assert set(results.anchors["agrees"]) <= {"yes", "no", "direction only"}
    assert results.settings["networks"] == 2 * 5 * 5 + 2 * 5 * 5  # the ablation has none of its own
    assert results.settings["report seeds"] == "100 .. 102"
    assert results.settings["torch"] == torch.__version__


def test_example_maps_are_those_of_a_network_at_the_chosen_strength(tiny):
    _, results = tiny
    plan, task = tiny_plan(), make("subtraction", signal="sparse", lag=2, length=4)
    strength = results.summary.query("method == 'L1' and task == @task.label")["strength"].iloc[0]
    shown = [s for s in plan.shards() if s.setting.task == task]
    assert len(shown) == 1
    networks = shown[0].networks
    trained = train_networks(task, networks, plan.members[0].setting.settings)
    n = networks.index(Network(recipes.l1(), strength, 101))
    label, maps = results.examples["L1"]
    assert label == task.label
    wanted = hop_maps(trained.pathways[n], 4).values
    torch.testing.assert_close(maps.values, wanted, rtol=1e-4, atol=1e-6)


def test_study_without_kept_weights_has_the_task_as_its_only_example(tmp_path):
    whole = tiny_plan()
    text = whole.source.replace('"weights":[101]', '"weights":"none"')
    assert text != whole.source
    results = run_study(Study.model_validate_json(text).plan(), tmp_path, workers=1)
    assert set(results.examples) == {"target"}


def test_finished_study_is_read_back_as_it_was(tiny):
    folder, results = tiny
    again = load_study(folder)
    for name, frame in results.tables().items():
        pd.testing.assert_frame_equal(again.tables()[name], frame, check_exact=True)
    for method, (label, maps) in ((m, e) for m, e in results.examples.items() if m != "target"):
        assert again.examples[method][0] == label
        assert torch.equal(again.examples[method][1].values, maps.values)
    assert again.settings == {k: v for k, v in results.settings.items() if k != "seconds in this run"}


def test_page_of_a_results_folder_and_of_a_sweep_is_the_same(tiny, tmp_path):
    folder, _ = tiny
    page = write_folder_report(folder, tmp_path / "page.html").read_text(encoding="utf-8")
    run_sweep(tiny_plan(), tmp_path / "tiny.store", executor="in-process").close()
    swept = write_folder_report(tmp_path / "tiny.store", tmp_path / "swept.html")
    assert swept.read_text(encoding="utf-8") == page
    assert f"tiny (study {tiny_plan().id})" in page


def test_interrupted_study_goes_on_and_ends_the_same(tiny, tmp_path, monkeypatch):
    _, whole = tiny
    real, calls = running.run_shard, []

    def run_two_then_stop(shard):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(shard)
        return real(shard)

    monkeypatch.setattr(running, "run_shard", run_two_then_stop)
    with pytest.raises(KeyboardInterrupt):
        run_study(tiny_plan(), tmp_path, workers=1)
    monkeypatch.setattr(running, "run_shard", real)
    with pytest.raises(FileError, match=r"lacks .* networks; `hoplens sweep --resume --store"):
        load_study(tmp_path)
    seen = []
    resumed = run_study(tiny_plan(), tmp_path, workers=1, progress=seen.append)
    assert seen[0].done > 0  # the finished shards were not trained again
    assert seen[-1].done == seen[-1].total == whole.settings["networks"]
    for name, frame in whole.tables().items():
        pd.testing.assert_frame_equal(resumed.tables()[name], frame, check_exact=True)
    for method in set(whole.examples) - {"target"}:
        assert torch.equal(whole.examples[method][1].values, resumed.examples[method][1].values)


def test_processes_give_the_numbers_of_one(tiny, tmp_path, monkeypatch):
    _, one = tiny
    monkeypatch.setattr(running, "SHORT", 0.0)  # so little work would stay in this process
    two = run_study(tiny_plan(), tmp_path, workers=2)
    with open_store(tmp_path) as store:
        assert store.query("SELECT count(DISTINCT worker) FROM networks").iloc[0, 0] == 2
    pd.testing.assert_frame_equal(one.networks, two.networks, rtol=1e-4, atol=1e-5)


def test_failed_shards_are_an_error_and_are_tried_again(tiny, tmp_path, monkeypatch):
    real = TaskSetting.run

    def fail(self, networks):
        raise MemoryError("no room")

    monkeypatch.setattr(TaskSetting, "run", fail)
    with pytest.raises(FileError, match=r"100 networks of the study are missing .* MemoryError: no room"):
        run_study(tiny_plan(), tmp_path, workers=1)
    monkeypatch.setattr(TaskSetting, "run", real)
    again = run_study(tiny_plan(), tmp_path, workers=1)
    pd.testing.assert_frame_equal(tiny[1].networks, again.networks, check_exact=True)


# folders


def test_folder_of_another_study_is_refused(tiny):
    folder, _ = tiny
    claim_folder(folder, tiny_plan())
    before = {path: path.read_bytes() for path in folder.glob("runs.sqlite")}
    with pytest.raises(FileError, match=r"holds another study \(tiny, id .*another --out"):
        run_study(tiny_plan(steps=21), folder, workers=1)
    assert before == {path: path.read_bytes() for path in folder.glob("runs.sqlite")}


def test_folder_of_an_older_version_is_refused(tmp_path):
    (tmp_path / "study.json").write_text("{}")
    for use in (lambda: run_study(tiny_plan(), tmp_path, workers=1), lambda: load_study(tmp_path)):
        with pytest.raises(FileError, match=r"results of an older version of hoplens \(study.json\)"):
            use()
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


def test_damaged_store_is_refused(tmp_path):
    (tmp_path / "runs.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(FileError, match="cannot use the run store"):
        run_study(tiny_plan(), tmp_path, workers=1)
    with pytest.raises(FileError, match="cannot use the run store"):
        load_study(tmp_path)


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "results").write_text("mine")
    with pytest.raises(FileError, match="cannot make the results folder"):
        run_study(tiny_plan(), tmp_path / "results", workers=1)
    assert (tmp_path / "results").read_text() == "mine"


def change(folder, tmp_path, sql):
    """Return a copy of a folder whose store was changed."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    connection = sqlite3.connect(copy / "runs.sqlite")
    connection.executescript(sql)
    connection.commit()
    connection.close()
    return copy


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("DELETE FROM studies", "holds no study yet"),
        ("DELETE FROM networks", "lacks [0-9]+ of [0-9]+ networks"),
        ("DELETE FROM networks; UPDATE studies SET source = ''", "holds no network of the study tiny yet"),
        ("UPDATE networks SET metrics = '{}'", "no number test_error"),
        ("UPDATE networks SET metrics = '{}'; UPDATE studies SET source = ''", "have no test_error"),
        ("UPDATE members SET method = 'paper, mine' WHERE method = 'paper'", "its rows are not those of the"),
        ("UPDATE studies SET source = '[]'", "the study is no JSON object"),
    ],
)
def test_studies_that_have_no_page(tiny, tmp_path, sql, says):
    with pytest.raises(FileError, match=says):
        load_study(change(tiny[0], tmp_path, sql))


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE studies SET source = ''",  # made in Python
        "UPDATE studies SET source = '{}'",  # of another version
        "UPDATE studies SET source = replace(source, 'paper', 'l2')",
        'UPDATE studies SET source = json_set(source, \'$.plugins\', json(\'[{"path":"x","text":"1/0"}]\'))',
    ],
)
def test_a_study_that_is_not_set_against_the_paper_is_shown_from_its_tables(tiny, tmp_path, sql):
    whole = load_study(tiny[0])
    found = load_study(change(tiny[0], tmp_path, sql))
    assert found.anchors.empty
    assert found.aims.empty
    own = found.summary[~found.summary["task"].str.contains(":")]  # of the other parts: "part: task"
    pd.testing.assert_frame_equal(own[whole.summary.columns].reset_index(drop=True), whole.summary)
    text = render_study_report(found)
    assert "least mean test error has" in text or "has a lower test error" in text


def test_parts_of_other_settings_have_no_tasks():
    from hoplens.studies.real import quick_real_plan

    assert tasks_of(tiny_plan(), "nothing") == {}
    with pytest.raises(ParameterError, match="not one of synthetic tasks"):
        tasks_of(quick_real_plan().first_plan(), "validation")


# tables


def test_longest_lag_uses_report_seeds():
    rows = []
    for lag, error in ((4, 0.01), (8, 0.05), (12, 0.4)):
        for seed in range(4):
            role = "validation" if seed < 2 else "report"
            value = error if role == "report" else 0.0
            rows.append(("x", lag, 0.0, seed, role, value, f"lag {lag}", -1))
    columns = ["method", "lag", "strength", "seed", "role", "test_error", "task", "diverged_at"]
    assert longest_lags(pd.DataFrame(rows, columns=columns))["x"] == 8


def test_markdown_shows_the_numbers_of_the_tables(tiny):
    _, results = tiny
    text = to_markdown(results)
    ours = results.summary.query("method == 'recommended'")
    for error in ours["test_error"]:
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
    columns = ["method", "lag", "strength", "seed", "role", "test_error", "task", "diverged_at"]
    assert reach_means(pd.DataFrame(rows, columns=columns)).loc["x", 4] == 0.5


def test_paper_table_interval_is_over_seeds():
    rows = []
    for task, level in (("averaging, sparse", 0.0), ("addition, sparse", 1.0)):  # tasks differ, seeds do not
        for method in ("L1", "paper"):
            for seed in range(5):
                role = "validation" if seed < 2 else "report"
                rows.append({"task": task, "method": method, "strength": 1.0, "seed": seed, "role": role})
                rows[-1].update(dict.fromkeys(MEASURED, level), diverged_at=-1)
    table = anchors.compare(pd.DataFrame(rows)).set_index("claim")
    row = table.loc["corr(R_io, optimal map), paper"]
    assert (row["ours"], row["low"], row["high"]) == (0.5, 0.5, 0.5)


def test_aims_name_the_task_that_misses(tiny):
    plan, (_, results) = tiny_plan(), tiny
    summary = results.summary.copy()
    ours = summary["method"] == "recommended"
    summary.loc[ours, ["test_error", "accuracy", "alignment", "kept_70", "kept_90"]] = [
        0.0,
        1.0,
        1.0,
        1.0,
        1.0,
    ]
    summary.loc[ours, "active_hops"] = summary.loc[ours, "target_active_hops"]
    assert check(summary, results.reach.iloc[:0], plan)["met"].all()
    summary.loc[ours & (summary["task"] == "averaging, every"), "alignment"] = 0.5
    missed = check(summary, results.reach.iloc[:0], plan).query("not met")
    assert missed["aim"].tolist() == ["alignment, linear tasks"]
    assert "averaging, every: 0.500" in missed["where"].iloc[0]


def test_the_command_prints_and_writes_the_study(tmp_path, monkeypatch):
    monkeypatch.setattr("hoplens.cli.commands.reproduce.quick_plan", tiny_plan)
    shown = hoplens("reproduce", "--quick", "--out", tmp_path / "out", "--workers", "1")
    assert shown.returncode == 0, shown.stderr
    assert "Each method at its own best strength; means over 3 report seeds" in shown.stdout
    assert "Aims of the recommended recipe" in shown.stdout
    for name in ("report.html", "summary.csv", "networks.csv", "aims.csv"):
        assert (tmp_path / "out" / name).is_file()
