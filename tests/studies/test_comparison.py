"""Studies that compare methods, from their files to their tables: tiny ones of tasks and of data sets."""

from __future__ import annotations

import re
import shutil
import sqlite3
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from in_process import hoplens
from tiny_studies import tiny_paper, tiny_real

import hoplens as hl
from hoplens import recipes
from hoplens.analysis.hops import hop_maps
from hoplens.cli.commands.report import write_folder_report
from hoplens.data.registry import motions, vowels
from hoplens.data.tasks import make
from hoplens.errors import FileError, ParameterError, UnknownNameError
from hoplens.plots.real_study import PANELS, plot_real_summary
from hoplens.reports import render_study_report
from hoplens.studies.comparison import load_results, package_study, run_study, study_text
from hoplens.studies.comparison.anchors import compare_with_paper
from hoplens.studies.comparison.markdown import to_markdown
from hoplens.studies.comparison.results import StudyResults
from hoplens.studies.comparison.running import claim_folder
from hoplens.studies.comparison.tables import ABLATION, REACH
from hoplens.studies.statistics.purposes import BEST, LEAN, PRUNED, rows_at
from hoplens.studies.sweeps import open_store, parse_study, run_sweep, running
from hoplens.studies.sweeps import plan as plan_module
from hoplens.studies.sweeps.executors import InProcess
from hoplens.studies.sweeps.plan import MAIN
from hoplens.studies.sweeps.settings import TaskSetting
from hoplens.studies.sweeps.status import status
from hoplens.training.settings import Network, Settings
from hoplens.training.training import train_networks

PACKAGE = ("paper", "paper-quick", "real", "real-quick")
TINY = {"paper": tiny_paper, "real": tiny_real}


@pytest.fixture(scope="module", autouse=True)
def _small_shards():
    """Several shards a stage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "MOST_NETWORKS", 8)
        yield


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper") / "out"
    return folder, run_study(tiny_paper(), folder, workers=1)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real") / "out"
    return folder, run_study(tiny_real(), folder, workers=1)


@pytest.fixture(params=["paper", "real"])
def whole(request):
    """A tiny study, its folder and its results."""
    return TINY[request.param], *request.getfixturevalue(request.param)


# the study files


@pytest.mark.parametrize("name", PACKAGE)
def test_files_choose_on_some_seeds_and_report_others(name):
    study = package_study(name)
    assert study.name == name
    assert study.aims == name.removesuffix("-quick")
    assert {m.role for m in study.plan().members} == {"validation"}
    assert not set(study.seeds.validation) & set(study.seeds.report)
    names = [method.build().name for method in study.methods]
    assert len(set(names)) == len(names)
    assert {"none", "L1", "paper", "recommended"} <= set(names)
    again = parse_study(hoplens("sweep", "--example", name).stdout)
    assert again.plan().id == study.plan().id


def test_study_file_of_another_name_is_refused():
    with pytest.raises(UnknownNameError, match="paper, paper-quick"):
        study_text("papers")


def members(part, tasks, compared, settings, seeds):
    """Return what a part trains, in order, written out."""
    return [
        (part, task.label, Network(recipe, strength, seed), role, task, settings)
        for task, (recipe, strengths) in product(tasks, compared)
        for strength in strengths
        for role, own in seeds
        for seed in own
    ]


def test_the_paper_file_trains_twelve_tasks_ablation_and_reach():
    patterns = ({"signal": "every"}, {"signal": "on-off"}, {"signal": "sparse", "lag": 8})
    names = ("averaging", "subtraction", "addition", "multiplication")
    tasks = [make(name, length=10, **pattern) for name, pattern in product(names, patterns)]
    shown = [make(name, length=10, signal="sparse", lag=8) for name in ("subtraction", "multiplication")]
    far = [make("subtraction", signal="sparse", modules=2, length=30, lag=lag) for lag in (8, 12, 16, 28)]
    all_four, short, ours = (3e-5, 1e-4, 3e-4, 1e-3), (1e-4, 5e-4), (3e-4, 1e-3, 3e-3)
    none, l1, paper, best = recipes.none(), recipes.l1(), recipes.paper(), recipes.recommended()
    main = [(none, (0.0,)), *((r, all_four) for r in (l1, recipes.l2(), paper, recipes.hops()))]
    main += [(best, (1e-4, *ours)), (recipes.recommended(sparse=0.9), ours)]
    started = [
        (r.with_start(name=f"{r.name} + start", init="delay"), short if r.terms else (0.0,))
        for r in (none, l1, paper)
    ]
    ablation = [
        *started,
        (best, ours),
        (best.with_start(name="recommended - start", init="orthogonal"), ours),
    ]
    reach = [(none, (0.0,)), (l1, short), (paper, short), (best, ours)]
    settings, seeds = Settings(hidden=48, steps=2000), (("validation", range(8)), ("report", range(100, 120)))
    wanted = [
        *members(MAIN, tasks, main, settings, seeds),
        *members(ABLATION, shown, ablation, settings, seeds),
        *members(REACH, far, reach, settings, seeds),
    ]
    plan = package_study("paper").grid
    found = [(m.part, m.task, m.network, m.role, m.setting.task, m.setting.settings) for m in plan.members]
    assert found == wanted
    assert len(plan.by_key) == len(found) - 2 * 3 * 28  # the recipe of the ablation is that of the main part
    assert {m.setting.weights for m in plan.members} == {(100,)}


def test_the_real_file_has_four_cells_and_every_set_that_is_quick_enough():
    study = package_study("real")
    settings = study.settings_of(MAIN)
    assert {s.settings.cell for s in settings.values()} == {"tanh", "leaky", "gru", "lstm"}
    assert set(settings) == set(hl.data.names()) - {"chorales", "appliances"}
    assert len(study.seeds.report) >= 20
    assert study.seeds.report[:4] == study.followed
    for label, load in (("motions", motions), ("vowels", vowels)):
        more = {"every": 4} if label == "motions" else {}
        wanted = load(fractions=(0.35, 0.25, 0.4), **more)
        assert torch.equal(settings[label].source.test.inputs, wanted.test.inputs)
    built = {method.build().name: method.build() for method in study.methods}
    ours = recipes.recommended(sparse=0.9)
    assert built["L1 + pruning"] == recipes.l1().always_pruned(name="L1 + pruning", like=ours)
    assert built["recommended, sparse"] == ours


def test_who_is_followed_beside_it_does_not_make_another_network():
    one, more = tiny_real().grid, tiny_real(followed=[100, 101]).grid
    changed = [a.network.seed for a, b in zip(one.members, more.members, strict=True) if a.key != b.key]
    assert set(changed) == {101}


@pytest.mark.parametrize(
    ("make_tiny", "changes", "says"),
    [
        (tiny_paper, {"methods": [{"recipe": "none"}]}, "the methods lack L1"),
        (tiny_real, {"aims": "paper"}, "those of tasks that are built in"),
        (tiny_paper, {"aims": "real"}, "those of data sets"),
        (tiny_real, {"report": ["best"]}, "need report ="),
        (tiny_real, {"report": ["worst"]}, r"report\[1\] must be 'best', 'pruned' or 'lean', got 'worst'"),
    ],
)
def test_aims_that_a_study_cannot_be_held_to_are_refused(make_tiny, changes, says):
    with pytest.raises(ParameterError, match=says):
        make_tiny(**changes)


# tiny ones from end to end


def test_report_seeds_are_trained_at_the_chosen_strengths_only(whole):
    tiny, folder, results = whole
    report = results.networks[results.networks["role"] == "report"]
    trained = set(report[["task", "method", "strength"]].itertuples(index=False, name=None))
    assert trained == set(results.choices.drop(columns="pick").itertuples(index=False, name=None))
    assert set(results.summary["pick"]) == set(tiny().purposes)
    assert (results.summary["n"] == 3).all()
    for row in results.summary.to_dict("records"):
        chosen = report[
            (report[["task", "method", "strength"]] == [row[n] for n in ("task", "method", "strength")]).all(
                axis=1
            )
        ]
        assert row["test_error"] == pytest.approx(chosen["test_error"].mean())
    with open_store(folder) as store:
        assert store.studies()["name"].tolist() == [f"{tiny().name}, choosing", tiny().name]
        keys = store.query("SELECT key FROM networks")["key"]
    assert len(keys) == results.settings["networks"] < len(tiny().grid.by_key)


def test_tables_of_the_papers_study(paper):
    _, results = paper
    assert len(results.networks) == 2 * (5 * 2 + 4 * 3)
    assert not {"part", "key"} & set(results.networks.columns)
    assert set(results.reach["lag"]) == {1, 3}
    assert len(results.ablation) == 3
    assert list(results.tasks) == ["subtraction, sparse (lag 2)", "averaging, every"]
    assert set(results.examples) == {"target", "none", "L1", "paper", "recommended"}
    assert len(results.aims) == 6  # there is no sparse recipe
    assert results.aims["met"].dtype == bool
    assert set(results.anchors["agrees"]) <= {"yes", "no", "direction only"}
    assert results.settings["report seeds"] == "100 .. 102 (3)"
    assert results.settings["torch"] == torch.__version__


def test_tables_of_the_real_study(real):
    _, results = real
    assert len(results.aims) == 3
    assert results.anchors.empty
    assert results.reach.empty
    assert results.ablation.empty
    gap = results.at(BEST).paired.query("reference == 'none' and measure == 'test_error'").iloc[0]
    report = results.networks[results.networks["role"] == "report"]
    wide = rows_at(results.choices, report, BEST).pivot(index="seed", columns="method", values="test_error")
    assert gap["difference"] == pytest.approx((wide["recommended"] - wide["none"]).mean())
    followed = results.networks["explained"].notna()
    assert set(results.networks.loc[followed, "seed"]) == {100}


def test_example_maps_are_those_of_a_network_at_the_chosen_strength(paper):
    _, results = paper
    study, task = tiny_paper(), make("subtraction", signal="sparse", lag=2, length=4)
    strength = results.summary.query("method == 'L1' and task == @task.label")["strength"].iloc[0]
    report = results.networks.query("role == 'report' and task == @task.label")
    built = {method.build().name: method.build() for method in study.methods}
    networks = [
        Network(built[m], s, seed) for m, s, seed in report[["method", "strength", "seed"]].to_numpy()
    ]
    trained = train_networks(task, networks, study.settings_of(MAIN)[task.label].settings)
    n = networks.index(Network(recipes.l1(), strength, 101))
    label, maps = results.examples["L1"]
    assert label == task.label
    torch.testing.assert_close(maps.values, hop_maps(trained.pathways[n], 4).values, rtol=1e-4, atol=1e-6)


def test_study_without_kept_weights_has_the_task_as_its_only_example(tmp_path):
    results = run_study(tiny_paper(weights="none", parts=[]), tmp_path, workers=1)
    assert set(results.examples) == {"target"}
    assert "distance of the flow" in results.aims["aim"].tolist()[-1]  # no reach, no aim of it


def test_finished_study_is_read_back_as_it_was(whole):
    _, folder, results = whole
    again = load_results(folder)
    for name, frame in results.tables().items():
        pd.testing.assert_frame_equal(again.tables()[name], frame, check_exact=True)
    assert set(again.examples) == set(results.examples)
    for method in set(results.examples) - {"target"}:
        assert again.examples[method][0] == results.examples[method][0]
        assert torch.equal(again.examples[method][1].values, results.examples[method][1].values)
    assert again.settings == {k: v for k, v in results.settings.items() if k != "seconds in this run"}


def test_page_of_a_results_folder_and_of_a_sweep_is_the_same(paper, tmp_path):
    folder, _ = paper
    page = write_folder_report(folder, tmp_path / "page.html").read_text(encoding="utf-8")
    (tmp_path / "tiny.toml").write_text("")
    run_sweep(tiny_paper(), tmp_path / "tiny.store", executor="in-process").close()
    swept = write_folder_report(tmp_path / "tiny.store", tmp_path / "swept.html")
    assert swept.read_text(encoding="utf-8") == page
    assert "Means over validation seeds" in page  # curves over strength
    assert "tiny (" in page


def test_interrupted_study_goes_on_and_ends_the_same(whole, tmp_path, monkeypatch):
    tiny, _, undisturbed = whole
    real_run, left = running.run_shard, [1]

    def run_some_then_stop(shard):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return real_run(shard)

    first = len(tiny().plan().shards())
    monkeypatch.setattr(running, "run_shard", run_some_then_stop)
    with pytest.raises(KeyboardInterrupt):
        run_study(tiny(), tmp_path, workers=1)
    with open_store(tmp_path) as store:
        assert store.studies()["name"].tolist() == [f"{tiny().name}, choosing"]
    left[0] = first - 1  # the rest of the choosing; the report is cut off before its first shard
    with pytest.raises(KeyboardInterrupt):
        run_study(tiny(), tmp_path, workers=1)
    unfinished = load_results(tmp_path)
    assert "unfinished" in unfinished.settings
    assert unfinished.aims.empty
    assert set(unfinished.networks["role"]) == {"validation"}
    monkeypatch.setattr(running, "run_shard", real_run)
    seen = []
    resumed = run_study(tiny(), tmp_path, workers=1, progress=seen.append)
    assert [(p.stage, p.done == p.total) for p in (seen[0], seen[-1])] == [
        ("choosing", True),
        ("report", True),
    ]
    for name, frame in undisturbed.tables().items():
        pd.testing.assert_frame_equal(resumed.tables()[name], frame, check_exact=True)
    for method in set(undisturbed.examples) - {"target"}:
        assert torch.equal(undisturbed.examples[method][1].values, resumed.examples[method][1].values)


def test_workers_are_asked_for_in_both_stages(real, tmp_path, monkeypatch):
    asked = []

    def connect(kind, *, workers, folder):
        asked.append((kind, workers))
        return InProcess()

    monkeypatch.setattr("hoplens.studies.sweeps.executors.connect", connect)
    monkeypatch.setattr(running, "SHORT", 0.0)  # so little work would stay in this process
    found = run_study(tiny_real(), tmp_path, workers=2)
    assert asked == [("processes", 2)] * 2
    pd.testing.assert_frame_equal(real[1].networks, found.networks, rtol=1e-4, atol=1e-5)


def test_failed_shards_are_an_error_and_are_tried_again(real, tmp_path, monkeypatch):
    real_run = TaskSetting.run

    def fail(self, networks):
        raise MemoryError("no room")

    monkeypatch.setattr(TaskSetting, "run", fail)
    with pytest.raises(FileError, match=r"12 networks of the study are missing .* MemoryError: no room"):
        run_study(tiny_real(), tmp_path, workers=1)
    with open_store(tmp_path) as store:
        assert len(store.studies()) == 1  # nothing is chosen by what is not there
    monkeypatch.setattr(TaskSetting, "run", real_run)
    again = run_study(tiny_real(), tmp_path, workers=1)
    pd.testing.assert_frame_equal(real[1].networks, again.networks, check_exact=True)


def test_other_report_seeds_go_into_the_same_folder(real, tmp_path):
    folder, done = shutil.copytree(real[0], tmp_path / "copy"), []
    fewer = tiny_real(seeds={"validation": [0, 1], "report": [100, 101]})
    found = run_study(fewer, folder, workers=1, progress=lambda p: done.append((p.done, p.total)))
    assert all(a == b for a, b in done)  # nothing was trained again
    shared = real[1].networks.query("seed < 102").reset_index(drop=True)
    pd.testing.assert_frame_equal(found.networks, shared, check_exact=True)
    back = run_study(tiny_real(), folder, workers=1)  # not the latest in the store
    pd.testing.assert_frame_equal(back.networks, real[1].networks, check_exact=True)


def test_a_missing_package_is_said_before_anything_is_trained(monkeypatch):
    def missing(self):
        raise ParameterError("the vowels come with aeon; pip install 'hoplens[data]'")

    monkeypatch.setattr("hoplens.studies.sweeps.settings.DataSource.load", missing)
    with pytest.raises(ParameterError, match="aeon"):
        package_study("real")


def test_the_command_prints_and_writes_the_study(whole, tmp_path, monkeypatch):
    tiny, folder, results = whole
    monkeypatch.setattr("hoplens.cli.commands.reproduce.package_study", lambda name: tiny())
    out = shutil.copytree(folder, tmp_path / "out")
    suite = "real" if results.anchors.empty else "synthetic"
    shown = hoplens("reproduce", "--quick", "--suite", suite, "--out", out, "--workers", "1")
    assert shown.returncode == 0, shown.stderr
    assert "Each method at its own best strength; means over 3 report seeds" in shown.stdout
    assert "Aims of the recommended recipe" in shown.stdout
    for name in ("report.html", "summary.csv", "summary.md", "networks.csv", "aims.csv"):
        assert (out / name).is_file()
    figures = {path.stem for path in (out / "figures").iterdir()}
    assert ({"real", "strengths-cartpole"} if suite == "real" else {"reach", "hops-target"}) < figures


def test_dry_run_says_that_more_follows(real, tmp_path, monkeypatch):
    (tmp_path / "file.toml").write_text("")
    monkeypatch.setattr("hoplens.cli.commands.sweep.load_study", lambda file: tiny_real())
    shown = hoplens("sweep", tmp_path / "file.toml", "--dry-run", "--store", tmp_path / "new").stdout
    assert "real tiny, choosing: 12 networks, 0 of them" in shown
    assert "then the report seeds" in shown
    shown = hoplens("sweep", tmp_path / "file.toml", "--dry-run", "--store", real[0]).stdout
    assert re.search(r"real tiny: (\d+) networks, \1 of them", shown)
    assert "then the report seeds" not in shown


def test_a_sweep_that_was_stopped_while_choosing_goes_on_from_its_store_alone(real, tmp_path):
    run_sweep(tiny_real().plan(), tmp_path, executor="in-process").close()
    shown = hoplens("sweep", "--resume", "--store", tmp_path, "--workers", "1")
    assert shown.returncode == 0, shown.stderr
    assert "27 of 27 networks" in shown.stdout
    pd.testing.assert_frame_equal(load_results(tmp_path).networks, real[1].networks, check_exact=True)


# folders


def test_folder_of_another_study_is_refused(paper):
    folder, _ = paper
    claim_folder(folder, tiny_paper().plan())
    before = (folder / "runs.sqlite").read_bytes()
    other = tiny_paper(training={"hidden": 8, "steps": 21, "batch": 8})
    with pytest.raises(FileError, match=r"holds another study \(tiny, choosing, id .*another --out"):
        run_study(other, folder, workers=1)
    assert (folder / "runs.sqlite").read_bytes() == before


def test_folder_of_an_older_version_is_refused(tmp_path):
    (tmp_path / "study.json").write_text("{}")
    for use in (lambda: run_study(tiny_paper(), tmp_path, workers=1), lambda: load_results(tmp_path)):
        with pytest.raises(FileError, match=r"results of an older version of hoplens \(study.json\)"):
            use()
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


def test_damaged_store_is_refused(tmp_path):
    (tmp_path / "runs.sqlite").write_bytes(b"no database" * 100)
    for use in (lambda: run_study(tiny_paper(), tmp_path, workers=1), lambda: load_results(tmp_path)):
        with pytest.raises(FileError, match="cannot use the run store"):
            use()


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "results").write_text("mine")
    with pytest.raises(FileError, match="cannot make the results folder"):
        run_study(tiny_paper(), tmp_path / "results", workers=1)
    assert (tmp_path / "results").read_text() == "mine"


def change(folder: Path, tmp_path: Path, sql: str) -> Path:
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
        ("DELETE FROM networks", "holds no network of the study tiny yet"),
        ("UPDATE networks SET metrics = '{}'", "have no test_error"),
        ("UPDATE networks SET metrics = json_remove(metrics, '$.kept_70')", "have no number"),
        (
            "UPDATE members SET method = 'mine' WHERE role = 'report' AND method = 'L1'",
            "its rows are not those of the",
        ),
        ("UPDATE studies SET source = '[]'", "the study is no JSON object"),
    ],
)
def test_studies_that_have_no_page(paper, tmp_path, sql, says):
    with pytest.raises(FileError, match=says):
        load_results(change(paper[0], tmp_path, sql))


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE studies SET source = ''",  # made in Python
        "UPDATE studies SET source = '{}'",  # of another version
        "UPDATE studies SET source = replace(source, 'paper', 'l2')",
        'UPDATE studies SET source = json_set(source, \'$.plugins\', json(\'[{"path":"x","text":"1/0"}]\'))',
    ],
)
def test_a_study_that_is_not_held_to_aims_is_shown_from_its_tables(paper, tmp_path, sql):
    complete, found = paper[1], load_results(change(paper[0], tmp_path, sql))
    assert found.anchors.empty
    assert found.aims.empty
    own = found.summary[~found.summary["task"].str.contains(":")]  # of the other parts: "part: task"
    pd.testing.assert_frame_equal(own[complete.summary.columns].reset_index(drop=True), complete.summary)
    text = render_study_report(found)
    assert "least mean test error has" in text or "has a lower test error" in text


def test_a_folder_of_a_real_study_has_a_page_and_a_status_without_its_data(real, monkeypatch):
    def load(self):
        raise AssertionError("a page needs no data, which may be large or not there")

    monkeypatch.setattr("hoplens.studies.sweeps.settings.DataSource.load", load)
    folder, results = real
    page = render_study_report(load_results(folder))
    for name in ("cartpole", "recommended"):
        assert name in page
    found = status(folder)
    assert found.name == "real tiny"
    assert found.done == found.total == len(results.networks)


# documents


def test_markdown_shows_the_numbers_of_the_tables(whole):
    _, _, results = whole
    text = to_markdown(results)
    ours = results.summary.query("method == 'recommended' and pick == 'best'")
    for row in ours.to_dict("records"):
        interval = f"[{row['test_error_low']:.4f}, {row['test_error_high']:.4f}]"
        assert f"| {row['test_error']:.4f} {interval} |" in text
    shown = ("Ablation", "Reach", "Structure", "Beside the paper")
    if results.anchors.empty:
        shown = (
            "At equal sparsity",
            "Active hops",
            "With 8-bit",
            "Closed loop",
            "What graphs say of the flow",
        )
    for title in (*shown, "Aims"):
        assert f"## {title}" in text
    for section in text.split("## ")[1:]:
        lines = [line for line in section.splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
        assert set(lines[1]) == set("| -")


def test_figure_shows_the_numbers_of_the_tables(real):
    _, results = real
    figure = plot_real_summary(results.summary)
    marks = [line.get_xdata()[0] for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    base = results.summary.query("method == 'L1' and pick == 'best'")["test_error"].iloc[0]
    wanted = results.summary.query("pick == 'best'")["test_error"] / base
    assert sorted(marks) == pytest.approx(sorted(wanted))
    assert [axes.get_xlabel() for axes in figure.axes] == [label for _, _, label, _ in PANELS]


def test_paper_table_interval_is_over_seeds():
    measured = (
        "test_error",
        "accuracy",
        "resolvent_corr",
        "weight_corr",
        "active_hops",
        "alignment",
        "kept_70",
    )
    rows = []
    for task, level in (("averaging, sparse", 0.0), ("addition, sparse", 1.0)):  # tasks differ, seeds do not
        for method, seed in product(("L1", "paper"), range(5)):
            role = "validation" if seed < 2 else "report"
            rows.append({"task": task, "method": method, "strength": 1.0, "seed": seed, "role": role})
            rows[-1].update(dict.fromkeys(measured, level), diverged_at=-1)
    networks = pd.DataFrame(rows)
    choices = networks[["task", "method", "strength"]].drop_duplicates().assign(pick=BEST)
    table = compare_with_paper(StudyResults(networks, pd.DataFrame(), choices)).set_index("claim")
    row = table.loc["corr(R_io, optimal map), paper"]
    assert (row["ours"], row["low"], row["high"]) == (0.5, 0.5, 0.5)


def test_results_at_a_purpose_are_its_rows_alone(real):
    _, results = real
    for pick in (BEST, PRUNED, LEAN):
        own = results.at(pick)
        assert set(own.summary["pick"]) == set(own.paired["pick"]) == {pick}
        assert not own.summary.duplicated(["task", "method"]).any()
    assert np.isfinite(results.summary["test_error_90"]).all()
