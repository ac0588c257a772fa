# ruff: noqa: E501
"""Stores and study files that are damaged, or made to harm: one clear error, nothing run or waited for."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import warnings
from contextlib import closing, suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import command
from size import few

from hoplens.cli.commands.report import write_folder_report
from hoplens.errors import FileError, HoplensError, ParameterError
from hoplens.studies.extensions import kinds
from hoplens.studies.sweeps import load_study, make_study, open_store, parse_study, run_sweep
from hoplens.studies.sweeps.status import status
from hoplens.studies.sweeps.store import DATABASE
from hoplens.studies.sweeps.stored import read_stored

STUDY = """\
name = "tiny"
strengths = [1e-3, 1e-2]
weights = "all"
seeds = { validation = [0], report = [1] }
training = { hidden = 3, steps = 2, batch = 2 }

[[tasks]]
name = "averaging"
length = 2
modules = 2
module_size = 1

[[methods]]
recipe = "none"

[[methods]]
recipe = "l1"
"""
PLUGIN = """
import os
with open(os.environ["HOPLENS_TEST_MARK"], "a") as file:
    file.write("ran\\n")
import hoplens as hl

@hl.extensions.register_measure("mass of the test")
def mass(net, task):
    return hl.hop_maps(net, task.length).values.abs().sum((-3, -2, -1))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished store of six networks."""
    folder = tmp_path_factory.mktemp("whole") / "store"
    run_sweep(parse_study(STUDY), folder, executor="in-process").close()
    return folder


@pytest.fixture
def store(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "store")


def change(folder: Path, sql: str, values: tuple[object, ...] = ()) -> None:
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.execute(sql, values)
        connection.commit()


# -- reading runs nothing


@pytest.fixture
def sent(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A store with code that came from elsewhere, and the file that the code writes to when it is run."""
    mark = tmp_path / "mark"
    monkeypatch.setenv("HOPLENS_TEST_MARK", str(mark))
    # from the start: what is put back at the end must not hold the code that is loaded here
    monkeypatch.setattr("hoplens.studies.extensions.files._sources", {})
    (tmp_path / "code.py").write_text(PLUGIN)
    text = 'plugins = ["code.py"]\nmeasures = ["mass of the test"]\n' + STUDY
    folder = tmp_path / "store"
    # what runs here is noted in another user's state
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "sender"))
    run_sweep(parse_study(text, folder=tmp_path), folder, executor="in-process").close()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "own"))
    for registry in kinds.ALL:
        registry.forget(str(tmp_path / "code.py"))
    monkeypatch.setattr("hoplens.studies.extensions.files._sources", {})
    mark.unlink()
    yield folder, mark
    for registry in kinds.ALL:
        registry.forget(str(tmp_path / "code.py"))


def test_reading_reporting_and_status_run_nothing(sent, tmp_path):
    folder, mark = sent
    assert command("status", folder, "--table", tmp_path / "rows.csv") == 0
    assert command("report", folder, "-o", tmp_path / "page.html") == 0
    assert "mass of the test" in (tmp_path / "page.html").read_text()
    with open_store(folder) as found:
        assert len(found.networks()) == 6
        found.tensors(found.networks()["key"].iloc[0])
    assert not mark.exists()


@pytest.mark.parametrize("file", [True, False])
def test_going_on_with_code_of_others_shows_it_and_asks(sent, tmp_path, capsys, file):
    """Also where a file of that text lies at the path that the store names: it may have come with it."""
    folder, mark = sent
    if not file:
        (tmp_path / "code.py").unlink()
    assert command("sweep", "--resume", "--store", folder) == 2
    shown = capsys.readouterr()
    assert 'open(os.environ["HOPLENS_TEST_MARK"]' in shown.out
    assert "--trust-code" in shown.err
    assert shown.err.strip().count("\n") == 0
    for more in ([], ["--trust-code"]):
        assert command("sweep", "--resume", "--store", folder, "--dry-run", *more) == 0
        assert "nothing was run" in capsys.readouterr().out
    assert not mark.exists()
    assert command("sweep", "--resume", "--store", folder, "--trust-code") == 0
    assert mark.exists()
    mark.unlink()
    assert command("sweep", "--resume", "--store", folder) == 0  # now it is known
    change(folder, "UPDATE studies SET source = replace(source, 'import os', 'import os; 1')")
    assert command("sweep", "--resume", "--store", folder) == 2  # and another text is not


def test_code_that_is_shown_cannot_act_on_the_terminal(sent, capsys):
    folder, _ = sent
    change(folder, "UPDATE studies SET source = replace(source, 'import os', 'import os #\\u001b[2J\\u202e')")
    assert command("sweep", "--resume", "--store", folder) == 2
    shown = capsys.readouterr()
    assert "\x1b[2J" not in shown.out + shown.err
    assert "\\x1b[2J\\u202e" in shown.out


def test_names_with_escapes_do_not_reach_the_terminal(store, capsys):
    evil = "a\x1b[31m\u202e[/b]"
    change(store, "UPDATE members SET task = ?, method = ?", (evil, evil + "m"))
    change(store, "UPDATE studies SET name = ?", (evil,))
    change(store, "UPDATE shards SET state = 'failed', reason = ? WHERE position = 0", (evil,))
    (store / "driver.json").write_text(json.dumps({"process": 1, "host": evil, "started": 5}))
    for arguments in (("status", store), ("status", store, "--study", evil + "x"), ("report", store)):
        command(*arguments, *(["-o", store / "page.html"] if arguments[0] == "report" else []))
        shown = capsys.readouterr()
        assert "\x1b[31m" not in shown.out + shown.err
        assert "\u202e" not in shown.out + shown.err


# -- what is lost


@pytest.mark.parametrize("how", ["gone", "cut", "other", "folder", "column", "outside"])
def test_lost_tensors_are_found_and_trained_again(whole, store, how):
    with open_store(whole) as before:
        table = before.networks()
        tensors = {key: before.tensors(key) for key in table["key"]}
    file = next(iter((store / "tensors").iterdir()))
    if how in ("gone", "folder"):
        file.unlink()
    if how == "folder":
        file.mkdir()
        shutil.rmtree(file)
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    if how == "other":
        from safetensors.torch import save_file

        save_file({"x": torch.zeros(1)}, file)
    if how == "column":
        change(store, "UPDATE networks SET tensors = NULL WHERE slot = 0")
    if how == "outside":
        change(store, "UPDATE networks SET tensors = '../../../etc/passwd'")
    assert command("sweep", "--resume", "--store", store) == 0
    assert "is trained again: " in (store / "sweep.log").read_text()
    with open_store(store) as after:
        found = after.networks()
        assert found.drop(columns="key").equals(table.drop(columns="key"))
        if how != "column":  # there a batch is trained in two parts
            for key, kept in tensors.items():
                again = after.tensors(key)
                assert all(again[name].equal(value) for name, value in kept.items())


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM networks WHERE slot = 0",
        "DELETE FROM networks",
        "DELETE FROM shards; DELETE FROM networks",
    ],
)
def test_lost_rows_are_trained_again(store, sql):
    for one in sql.split(";"):
        change(store, one)
    assert status(store).done < 6
    assert command("sweep", "--resume", "--store", store) == 0
    assert status(store).done == 6


# -- damage at random

TABLES = {
    "studies": ["id", "name", "source", "created", "versions"],
    "members": ["part", "task", "method", "strength", "seed", "role", "key"],
    "shards": ["position", "keys", "attempts", "reason", "seconds", "finished"],
    "networks": [
        "key", "config", "seed", "metrics", "seconds", "versions", "device", "worker", "finished", "slot", "tensors",
    ],
}  # fmt: skip
NASTY = st.sampled_from(
    ["", "x", "{}", "[]", "null", "{", "[" * 20_000, '{"a": [1]}', '{"test_error": "x"}', '{"test_error": 9e999}',
     '{"task": 1}', '{"setting": 3}', '{"setting": {"settings": [], "task": {"length": "x"}, "weights": "all"}}',
     "1" * 5000, "\x1b[31m", "a\x00b", b"\xff\xfe", b"", 0, -1, 2**62, 1.5, float("inf"), -1e300, None]
)  # fmt: skip
CELL = st.sampled_from([(table, column) for table, columns in TABLES.items() for column in columns])
DAMAGE = st.one_of(
    st.tuples(st.just("cell"), CELL, NASTY, st.booleans()),
    st.tuples(st.just("sql"), st.sampled_from(
        ["DROP TABLE networks", "DROP TABLE shards", "DELETE FROM members", "DELETE FROM shards", "DELETE FROM studies",
         "CREATE TRIGGER t AFTER INSERT ON networks BEGIN DELETE FROM networks; END",
         "CREATE VIEW v AS SELECT 1", "ALTER TABLE networks DROP COLUMN metrics", "PRAGMA user_version = 99",
         "PRAGMA user_version = 1", "PRAGMA application_id = 3", "UPDATE networks SET config = metrics",
         "UPDATE members SET key = 'x'", "UPDATE shards SET keys = '[\"x\"]', state = 'open'",
         "UPDATE studies SET source = replace(source, 'averaging', 'addition')",
         "UPDATE studies SET source = replace(source, '1e-3', '2')"])),
    st.tuples(st.just("bytes"), st.integers(0, 40_000), st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("cut"), st.integers(0, 40_000)),
    st.tuples(st.just("file"), st.sampled_from(["driver.json", "sweep.log", "sweep.lock", "runs.sqlite-wal"]),
              st.one_of(st.binary(max_size=50), st.sampled_from(
                  [b"{}", b"[" * 50_000, b'{"process": "x", "host": [], "started": 1e400}',
                   b'{"process": 1, "host": "h", "started": 1e18}', b'{"process": 1, "host": "h", "started": "now"}',
                   b'{"process": 1, "host": "h", "started": NaN}', b"1" * 5000]))),
)  # fmt: skip


def damage(folder: Path, kind: str, *how: object) -> None:
    place = folder / DATABASE
    if kind == "cell":
        (table, column), value, everywhere = how
        where = "" if everywhere else f" WHERE {column} = (SELECT {column} FROM {table} LIMIT 1)"
        with suppress(sqlite3.Error):  # what SQLite itself refuses cannot be there
            change(folder, f"UPDATE {table} SET {column} = ?{where}", (value,))
    elif kind == "sql":
        change(folder, str(how[0]))
    elif kind == "bytes":
        data = bytearray(place.read_bytes())
        start = int(how[0]) % len(data)
        data[start : start + len(how[1])] = how[1]
        place.write_bytes(bytes(data))
    elif kind == "cut":
        place.write_bytes(place.read_bytes()[: int(how[0])])
    else:
        (folder / str(how[0])).write_bytes(how[1])


@settings(max_examples=few(25))
@given(damages=st.lists(DAMAGE, min_size=1, max_size=2))
def test_nothing_but_our_own_errors_leaves_a_damaged_store(whole, tmp_path_factory, damages):
    folder = shutil.copytree(whole, tmp_path_factory.mktemp("damaged") / "store")
    with suppress(sqlite3.Error):  # the second damage may find no database
        for one in damages:
            damage(folder, *one)
    page = folder / "page.html"
    for use in (
        lambda: status(folder),
        lambda: open_store(folder).export(folder / "rows.csv"),
        lambda: [open_store(folder).ensemble(key) for key in open_store(folder).networks()["key"]],
        lambda: write_folder_report(folder, page),
        lambda: read_stored(folder).load(),
    ):
        with suppress(HoplensError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            use()
    assert command("status", folder) in (0, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert command("sweep", "--resume", "--store", folder, "--executor", "in-process") in (0, 1, 2)
    shutil.rmtree(folder)


# -- study files


LINES = STUDY.splitlines()
VALUES = st.sampled_from(
    ["-1", "0", "1", "10000000000000000000000000", "1" * 5000, "0x" + "f" * 5000, "1e400", "nan", "inf", '""', '"\\u0000"',
     '"\\u001b[31m"', "[]", "[[]]", "{}", "[" * 3000 + "]" * 3000, "true", "1979-05-27", "2000000000",
     "{ count = 1000000000 }", "{ first = 9223372036854775807, count = 3 }", "{ count = 1.5 }", '"a"', "[0, 0]"]
)  # fmt: skip
KEYS = st.sampled_from(
    ["name", "strengths", "weights", "seeds", "seeds.validation", "seeds.report", "training.hidden", "training.steps",
     "training.batch", "training.lr", "training.device", "tasks", "methods", "parts", "plugins", "measures",
     "report", "aims", "followed"]
)  # fmt: skip
TASK_KEYS = st.sampled_from(
    ["length", "modules", "module_size", "outputs_per_module", "lag", "steps", "noise", "options"]
)


@settings(max_examples=few(25))
@given(
    top=st.dictionaries(KEYS, VALUES, max_size=3),
    task=st.dictionaries(TASK_KEYS, VALUES, max_size=2),
    noise=st.text(max_size=5),
)
def test_nothing_but_our_own_errors_leaves_a_study_file(tmp_path_factory, top, task, noise):
    base = [line for line in LINES if line.split(" =")[0] not in {key.split(".")[0] for key in top}]
    if 'name = "averaging"' not in base:
        base.insert(base.index("[[tasks]]") + 1, 'name = "averaging"')
    place = base.index('name = "averaging"') + 1
    text = "\n".join(
        [*(f"{key} = {value}" for key, value in top.items()), *base[:place],
         *(f"{key} = {value}" for key, value in task.items()), *base[place:], noise]
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.toml").write_bytes(text.encode("utf-8", "replace"))
    with suppress(HoplensError):
        load_study(folder / "study.toml").plan()
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("validation = [0]", "validation = { count = 1000000000 }", "at most 200,000"),
        ("strengths = [1e-3, 1e-2]", f"strengths = {list(range(1, 300_001))}", "at most 200,000"),
        ("length = 2", "length = 1000000000", "GiB of hop maps"),
        ("module_size = 1", "module_size = 1000000000", "GiB of hop maps"),
        ("modules = 2", "modules = 100000000", "GiB of hop maps"),
        ("hidden = 3", "hidden = 2000000", "GiB while they are trained"),
        ("batch = 2", "batch = 100000000000", "GiB while they are trained"),
        ("steps = 2", "steps = 1000000000000", "GiB while they are trained"),
        ('name = "tiny"', f"x = {'[' * 100_000}{']' * 100_000}", "nested too deeply"),
        ('name = "tiny"', f"x = {'{a=' * 100_000}1{'}' * 100_000}", "nested too deeply|no TOML"),
        ('name = "tiny"', f"x = {'1' * 5000}", "no TOML"),
    ],
)
def test_studies_that_are_too_large_are_refused_in_one_line(tmp_path, monkeypatch, capsys, old, new, says):
    monkeypatch.chdir(tmp_path)
    assert old in STUDY
    Path("study.toml").write_text(STUDY.replace(old, new, 1))
    for more in ([], ["--dry-run"]):
        assert command("sweep", "study.toml", *more) == 2
        shown = capsys.readouterr()
        assert shown.err.strip().count("\n") == 0
        assert re.search(says, shown.err)


def odd_paths() -> list[str]:
    return ["a" * 5000, "a/" * 3000, "a\x00b", "", "/dev/null", "/dev/zero", "\udcff", "~"]


@pytest.mark.parametrize("path", odd_paths(), ids=lambda path: repr(path[:6]))
@pytest.mark.parametrize("arguments", [["sweep"], ["status"], ["report"], ["sweep", "--resume", "--store"]])
def test_odd_paths_are_one_line(tmp_path, monkeypatch, capsys, path, arguments):
    monkeypatch.chdir(tmp_path)
    assert command(*arguments, path) == 2
    shown = capsys.readouterr()
    assert shown.err.strip()
    assert "Traceback" not in shown.err
    Path("study.toml").write_text(STUDY)
    if path not in ("", "~", "\udcff"):
        assert command("sweep", "study.toml", "--store", path) == 2
        Path("study.toml").write_text(f"plugins = [{json.dumps(path)}]\n{STUDY}")
        assert command("sweep", "study.toml") == 2


def test_pipes_are_not_waited_for(store, tmp_path, capsys):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert command("sweep", pipe) == 2
    for name in ("runs.sqlite-wal", "sweep.lock", "sweep.log", "driver.json", "runs.sqlite"):
        copy = shutil.copytree(store, tmp_path / name)
        (copy / name).unlink(missing_ok=True)
        os.mkfifo(copy / name)
        assert command("status", copy) == 2, name
        assert command("sweep", "--resume", "--store", copy) == 2, name
    file = next(iter((store / "tensors").iterdir()))
    file.unlink()
    os.mkfifo(file)
    with open_store(store) as found, pytest.raises(FileError, match="is not there"):
        [found.tensors(key) for key in found.networks()["key"]]


def test_a_study_made_of_a_plugin_text_runs_nothing():
    values = {
        "name": "x",
        "plugins": [{"path": "x.py", "text": "raise SystemExit"}],
        "seeds": {"validation": [0], "report": [1]},
        "tasks": [{"name": "averaging"}],
        "methods": [{"recipe": "none"}],
    }
    with pytest.raises(ParameterError, match="reading a study runs none"):
        make_study(values)
    with pytest.raises(FileError):
        open_store("nowhere")
