"""Search: determined by its seed, resumed from the store, stopped without loss, and better than chance."""

from __future__ import annotations

import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

import hoplens as hl
from hoplens.errors import ParameterError
from hoplens.studies.sweeps import load_study, make_study, open_store, run_sweep, search, trial_table
from hoplens.studies.sweeps.searching import Search, run_search
from hoplens.studies.sweeps.settings import TaskSetting
from hoplens.studies.sweeps.status import status
from hoplens.studies.sweeps.work import Outcome

pytest.importorskip("optuna")

STUDY = """\
name = "mine"
seeds = { validation = [0, 1], report = [10, 11] }
training = { hidden = 4, steps = 6, batch = 8 }
tasks = [{ name = "averaging", length = 3, modules = 2, module_size = 1 }]
methods = [{ recipe = "none" }, { recipe = "l1" }]

[search]
strength = { low = 1e-4, high = 10.0, log = true }
lr = { low = 1e-3, high = 1e-1, log = true }
hidden = { low = 3, high = 5 }
"""


def study(**changes):
    values = {
        "name": "mine",
        "seeds": {"validation": [0, 1], "report": [10, 11]},
        "training": {"hidden": 4, "steps": 6, "batch": 8},
        "tasks": [{"name": "averaging", "length": 3, "modules": 2, "module_size": 1}],
        "methods": [{"recipe": "none"}, {"recipe": "l1"}],
        "search": {
            "strength": {"low": 1e-4, "high": 10.0, "log": True},
            "lr": {"low": 1e-3, "high": 1e-1, "log": True},
            "hidden": {"low": 3, "high": 5},
        },
    }
    return make_study(values | changes)


@pytest.fixture
def toy(monkeypatch):
    """Replace training by a known error: distances of the searched values from lr 0.01, strength 0.1."""
    ran: list[tuple[float, float, int]] = []

    def run(self, networks):
        lr = self.settings.lr
        ran.extend((lr, n.strength, n.seed) for n in networks)
        errors = [
            np.log10(lr / 0.01) ** 2
            + (np.log10(n.strength / 0.1) ** 2 if n.strength else 1.0)
            + (self.hidden - 5) ** 2
            + n.seed / 1000
            for n in networks
        ]
        return Outcome(pd.DataFrame({"test_error": errors}), {}, {"train": 0.0})

    monkeypatch.setattr(TaskSetting, "run", run)
    return ran


def searched(folder, trials=12, **options) -> pd.DataFrame:
    with search(study(), folder, trials=trials, **{"executor": "in-process"} | options) as store:
        return trial_table(store)


def test_it_finds_better_than_chance_and_trains_report_seeds_for_the_best_alone(tmp_path, toy):
    with search(study(), tmp_path, trials=40, executor="in-process") as store:
        trials, final = trial_table(store), store.networks()
        assert store.studies()["name"].tolist() == ["mine search", "mine"]
        rows = store.networks("mine search")
    assert len(trials) == 80
    for method, rest in trials.groupby("method"):
        best = rest.loc[rest["test_error"].idxmin()]
        # what it tries once it knows something is better than the ten random trials that it begins with
        assert rest["test_error"][20:].median() < 0.7 * rest["test_error"][:10].median()
        assert best["test_error"] < rest["test_error"][:10].min()
        mine = final[final["method"] == method]
        assert mine["role"].tolist() == ["validation"] * 2 + ["report"] * 2
        assert (mine["strength"] == best["strength"]).all()
        mean = mine.loc[mine["role"] == "validation", "test_error"].mean()
        assert mean == pytest.approx(best["test_error"], rel=1e-12)
    assert {seed for _, _, seed in toy if seed >= 10} == {10, 11}
    assert sum(seed >= 10 for _, _, seed in toy) == 4
    assert len(toy) == len(set(toy)) == rows["key"].nunique() + 4
    none = trials[trials["method"] == "none"]
    assert (none["strength"] == 0).all()


def test_real_training_beats_the_worst_point_of_a_grid(tmp_path):
    task = hl.tasks.make("averaging", length=3, modules=2, module_size=1)
    changes = {"training": {"hidden": 6, "steps": 60, "batch": 32}, "methods": [{"recipe": "l1"}]}
    changes["search"] = {"strength": {"low": 1e-4, "high": 10.0, "log": True}}
    with search(study(**changes), tmp_path, trials=8, executor="in-process") as store:
        best, final = trial_table(store)["test_error"].min(), store.networks()
    grid = hl.train(
        task,
        hl.recipes.l1(),
        seeds=[0, 1],
        strengths=[1e-4, 10.0],
        hidden=6,
        steps=60,
        batch=32,
    ).metrics
    worst = grid.groupby("strength")["test_error"].mean().max()
    assert best < 0.9 * worst
    chosen = final["strength"].iloc[0]
    again = hl.train(
        task, hl.recipes.l1(), seeds=[0, 1], strengths=[chosen], hidden=6, steps=60, batch=32
    ).metrics
    assert again["test_error"].mean() == pytest.approx(best, rel=1e-5)


def test_seed_determines_all_choices_whatever_runs_them(tmp_path, toy):
    first = searched(tmp_path / "a")
    with ThreadPoolExecutor(3) as pool:
        second = searched(tmp_path / "b", executor=pool)
    order = ["method", "part"]
    pd.testing.assert_frame_equal(
        first.sort_values(order, ignore_index=True), second.sort_values(order, ignore_index=True)
    )
    other = searched(tmp_path / "c", seed=1)
    assert not set(other["lr"]) & set(first["lr"])
    # a further method leaves the choices of the others as they are
    more = study(methods=[{"recipe": "none"}, {"recipe": "l2", "strengths": [0.1]}, {"recipe": "l1"}])
    with search(more, tmp_path / "d", trials=12, executor="in-process") as store:
        third = trial_table(store)
    assert third[third["method"] == "L1"]["lr"].tolist() == first[first["method"] == "L1"]["lr"].tolist()
    assert set(third[third["method"] == "L2"]["strength"]) == {0.1}


def test_interrupted_search_goes_on_to_the_same_trials_and_computes_nothing_twice(tmp_path, toy):
    whole = searched(tmp_path / "whole")
    count = len(toy)
    toy.clear()
    presses = []

    def press(progress):
        presses.append(progress.done)
        if len(presses) in (4, 9):
            signal.raise_signal(signal.SIGINT)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path / "cut", progress=press)
        kept = len(toy)
        with open_store(tmp_path / "cut") as store:
            assert len(store.query("SELECT key FROM networks")) == kept
    assert status(tmp_path / "cut").name == "mine search"
    assert 0 < kept < count
    cut = searched(tmp_path / "cut")
    assert len(toy) == len(set(toy)) == count
    order = ["method", "part"]
    pd.testing.assert_frame_equal(
        cut.sort_values(order, ignore_index=True), whole.sort_values(order, ignore_index=True)
    )
    found = status(tmp_path / "cut", "mine search")
    assert (found.open, found.failed, found.done) == (0, 0, found.total)


def test_more_trials_go_on_from_fewer(tmp_path, toy):
    few = searched(tmp_path, 5)
    before = len(toy)
    many = searched(tmp_path, 12)
    at_once = searched(tmp_path / "other", 12)
    assert before < len(toy)
    order = ["method", "part"]
    pd.testing.assert_frame_equal(
        many.sort_values(order, ignore_index=True), at_once.sort_values(order, ignore_index=True)
    )
    assert few["lr"].isin(many["lr"]).all()


def test_several_searches_share_a_store(tmp_path, toy):
    ids = set()
    for seed in (0, 1, 0):
        store, ident, best = run_search(
            Search(study=study(), trials=4, seed=seed),
            tmp_path,
            executor="in-process",
            workers=None,
            attempts=1,
        )
        with store:
            trials, found = trial_table(store, ident), store.networks(best)
        ids |= {(seed, ident)}
        for method, rows in trials.groupby("method"):
            least = rows.loc[rows["test_error"].idxmin(), "strength"]
            assert (found.loc[found["method"] == method, "strength"] == least).all()
    assert len(ids) == 2
    assert len(toy) == len(set(toy))


def test_a_method_named_twice_is_refused_before_anything_is_trained(tmp_path, toy):
    with pytest.raises(ParameterError, match="names a network twice"):
        search(study(methods=[{"recipe": "l1"}, {"recipe": "l1"}]), tmp_path, trials=2)
    assert not toy


def test_diverged_trials_count_as_infinite_and_failed_ones_are_told(tmp_path, monkeypatch, toy):
    run = TaskSetting.run

    def sometimes(self, networks):
        if 0.01 < self.settings.lr < 0.02:
            raise ArithmeticError("no luck")
        found = run(self, networks)
        if self.settings.lr >= 0.02:
            found.frame.loc[1, "test_error"] = float("nan")
        return found

    monkeypatch.setattr(TaskSetting, "run", sometimes)
    with pytest.warns(UserWarning, match="networks of trials are missing as their shards failed"):
        store = search(study(), tmp_path, trials=15, executor="in-process")
    with store:
        trials = trial_table(store)
        failures = store.failures("mine search")
        assert set(failures["reason"]) == {"ArithmeticError: no luck"}
        assert trials["test_error"].isna().equals(trials["lr"] >= 0.02)
        assert (store.networks()["test_error"].notna()).all()
        assert len(trials) + len(failures) == 30
    monkeypatch.setattr(TaskSetting, "run", lambda self, networks: 1 / 0)
    with (
        pytest.warns(UserWarning, match="missing"),
        pytest.raises(ParameterError, match="no trial of the search ended with a finite error"),
    ):
        search(study(), tmp_path / "none", trials=3, executor="in-process")


def test_time_ends_a_search(tmp_path, toy):
    trials = searched(tmp_path, 10**6, seconds=0.3)
    assert 2 <= len(trials) < 10**4
    assert trials["method"].nunique() == 2


def test_same_network_of_two_parts_is_trained_once(tmp_path, toy):
    task = {"name": "averaging", "length": 3}
    parts = [{"name": name, "tasks": [task], "methods": [{"recipe": "none"}]} for name in ("a", "b")]
    both = study(parts=parts, tasks=[], methods=[], search={"strength": [0.1, 0.2]})
    with ThreadPoolExecutor(2) as pool, search(both, tmp_path, trials=3, executor=pool) as store:
        assert trial_table(store)["part"].tolist() == ["a, trial 0", "b, trial 0"]
    assert len(toy) == 4


def test_lists_and_every_setting_may_be_searched(tmp_path, toy):
    values = {
        "strength": [0.1, 0.01],
        "hidden": [3, 5],
        "cell": ["tanh", "relu"],
        "batch": {"low": 2, "high": 64, "log": True},
        "steps": [1, 2],
        "leak": {"low": 0.5, "high": 1.0},
        "decay": {"low": 0.1, "high": 0.9},
        "clip": [0.5, 1.0],
    }
    with search(study(search=values), tmp_path, trials=8, executor="in-process") as store:
        trials = trial_table(store)
    assert set(trials["hidden"]) <= {3, 5}
    assert set(trials["cell"]) == {"tanh", "relu"}
    assert set(trials.loc[trials["method"] == "L1", "strength"]) == {0.1, 0.01}
    assert trials["leak"].between(0.5, 1.0).all()
    assert trials["batch"].between(2, 64).all()


def test_without_a_searched_size_each_size_is_a_search(tmp_path, toy):
    values = {"hidden": [3, 4], "steps": 6, "batch": 8}
    sizes = study(training=values, search={"lr": [0.01, 0.1]}, strengths=[0.1, 1.0])
    with search(sizes, tmp_path, trials=2, executor="in-process") as store:
        assert set(store.networks()["task"]) == {f"averaging, every, {n} hidden" for n in (3, 4)}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("low = 1e-4, high = 10.0", "low = 1e-4", "line 8: search.strength: a range has low and high"),
        ("low = 1e-4, high = 10.0", "low = 1.0, high = 1.0", "low must be below high, got 1 and 1"),
        ("low = 1e-4, high = 10.0", "low = 0, high = 1.0", "low must be above 0 where log = true, got 0"),
        ("low = 1e-4, high = 10.0, log = true", "low = -1, high = 1.0", "strength must be at least 0"),
        ("low = 1e-3, high = 1e-1", "loww = 1", "line 9: unknown key search.lr.loww; known here: low, high"),
        ("low = 3, high = 5", "low = 0, high = 5", "search: hidden[1] must be at least 1, got 0"),
        ("low = 3, high = 5", "low = 2.5, high = 5", "line 10: search.hidden.low must be a whole number"),
        ("hidden = {", "depth = {", "line 10: unknown key search.depth; known here: strength, hidden"),
        ("hidden = { low = 3, high = 5 }", 'cell = ["gelu"]', "unknown cell 'gelu'"),
        ("hidden = { low = 3, high = 5 }", "hidden = []", "search.hidden.choices must hold at least 1"),
        ("strength = {", "clip = {", "method L1 has no strengths"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_place(tmp_path, old, new, says):
    assert old in STUDY
    path = tmp_path / "study.toml"
    path.write_text(STUDY.replace(old, new))
    with pytest.raises(ParameterError) as caught:
        load_study(path)
    assert says in str(caught.value)
    assert str(caught.value).startswith("study.toml")
    assert "\n" not in str(caught.value)


def test_a_study_to_search_needs_strengths_only_where_it_is_swept(tmp_path, toy):
    with pytest.raises(ParameterError, match="method L1 has no strengths"):
        run_sweep(study(), tmp_path)
    with run_sweep(study(strengths=[0.1]), tmp_path, executor="in-process") as store:
        assert len(store.networks()) == 8
        with pytest.raises(ParameterError, match="holds no search"):
            trial_table(store)
    with pytest.raises(ParameterError, match=r"no \[search\]"):
        search(study(search=None, strengths=[0.1]), tmp_path)
    with pytest.raises(ParameterError, match="seconds must be a finite number above 0"):
        search(study(), tmp_path, seconds=0)


def test_missing_optuna_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ParameterError, match=r"a search needs optuna: pip install 'hoplens\[search\]'"):
        search(study(), tmp_path)


# -- the command


def command(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    from hoplens.cli import app as cli

    monkeypatch.setattr(sys, "argv", ["hoplens", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        cli.main()
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out, shown.err


def test_the_command_searches_and_goes_on(tmp_path, monkeypatch, capsys, toy):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text(STUDY)
    code, out, _ = command(monkeypatch, capsys, "sweep", "study.toml", "--search", "6", "--dry-run")
    assert (code, "mine search: 12 trials in 2 searches, at most 28 networks" in out) == (0, True)
    run = ("sweep", "study.toml", "--search", "6", "--executor", "in-process")
    code, out, _ = command(monkeypatch, capsys, *run)
    assert code == 0
    assert "Best found" in out
    assert "8 of 8 networks are in mine.store" in out
    before = len(toy)
    code, out, _ = command(monkeypatch, capsys, "sweep", "--resume", "--store", "mine.store")
    assert (code, len(toy)) == (0, before)
    code, out, _ = command(
        monkeypatch, capsys, "sweep", "--resume", "--store", "mine.store", "--search", "8", "--executor",
        "in-process",
    )  # fmt: skip
    assert len(toy) > before
    assert status("mine.store", "mine search").done > 24
    code, _, err = command(monkeypatch, capsys, "sweep", "study.toml", "--search", "0")
    assert (code, "--search must be a whole number of at least 1" in err) == (2, True)
    code, _, err = command(monkeypatch, capsys, "sweep", "study.toml", "--seconds", "3")
    assert (code, "--seed and --seconds go with --search" in err) == (2, True)
