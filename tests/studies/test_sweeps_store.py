"""The run store: keys, queries, migration, readers beside a writer, and what goes wrong with disks."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sweep_toys import Toy, toy_plan

import hoplens
from hoplens import recipes, tasks
from hoplens.errors import FileError, ParameterError, UnknownNameError, UnsupportedModelError
from hoplens.studies.sweeps import open_store, run_sweep
from hoplens.studies.sweeps import store as store_module
from hoplens.studies.sweeps.describe import content_hash, describe
from hoplens.studies.sweeps.lock import is_running
from hoplens.studies.sweeps.plan import Plan
from hoplens.studies.sweeps.schema import VERSION
from hoplens.studies.sweeps.settings import TaskSetting
from hoplens.studies.sweeps.store import DATABASE, encode
from hoplens.studies.sweeps.writer import StoreWriter
from hoplens.training.recipes import PathwaySpec, Term
from hoplens.training.settings import Network, Settings


def sweep(plan: Plan, folder: Path):
    return run_sweep(plan, folder, executor="in-process")


def setting(**changes) -> TaskSetting:
    task = tasks.make("averaging", length=3, modules=2, module_size=1)
    return TaskSetting(**{"task": task, "settings": Settings(hidden=4, steps=3, batch=4), **changes})


# -- keys


def test_key_changes_with_all_that_changes_numbers_and_with_nothing_else():
    first = setting()
    l1 = recipes.l1()
    base = first.key(Network(l1, 0.1, 0))
    assert first.key(Network(l1, 0.1, 0)) == base
    assert first.key(Network(l1.with_start(name="another name"), 0.1, 0)) == base
    whole = setting(settings=Settings(hidden=4, steps=3, batch=4, leak=1, clip=1))
    assert whole.key(Network(l1, 0.1, 0)) == base
    assert first.key(Network(l1, 1, 0)) == first.key(Network(l1, 1.0, 0))
    others = [
        first.key(Network(l1, 0.2, 0)),
        first.key(Network(l1, 0.1, 1)),
        first.key(Network(recipes.l2(), 0.1, 0)),
        first.key(Network(l1.with_start(name="L1", init="delay"), 0.1, 0)),
        first.key(Network(recipes.Recipe("L1", (Term(PathwaySpec()),)), 0.1, 0)),
        setting(settings=Settings(hidden=5, steps=3, batch=4)).key(Network(l1, 0.1, 0)),
        setting(task=tasks.make("averaging", length=4)).key(Network(l1, 0.1, 0)),
        setting(dtype="float64").key(Network(l1, 0.1, 0)),
        setting(device="cuda").key(Network(l1, 0.1, 0)),
        setting(weights="all").key(Network(l1, 0.1, 0)),
    ]
    assert len({base, *others}) == 1 + len(others)


def test_kept_weights_change_the_key_of_their_own_network_only():
    some = setting(weights=(1,))
    assert some.key(Network(recipes.l1(), 0.1, 0)) == setting().key(Network(recipes.l1(), 0.1, 0))
    assert some.key(Network(recipes.l1(), 0.1, 1)) != setting().key(Network(recipes.l1(), 0.1, 1))


def test_key_stays_from_release_to_release():
    # a store of an earlier hoplens must be found again: change FORMAT, and this, if descriptions change
    assert setting().key(Network(recipes.paper(), 1e-3, 7)) == "24a60ba5e4da9301b03f"


def test_description_refuses_what_it_cannot_keep():
    with pytest.raises(UnsupportedModelError, match="frozen dataclass"):
        describe({"a": object()})
    assert describe(float("inf")) == "inf"


def test_code_outside_of_hoplens_is_described_with_its_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_code.py").write_text("def f():\n    return 1\n")
    import importlib

    module = importlib.import_module("own_code")
    first = describe(module.f)
    assert first["is"] == "own_code:f"
    (tmp_path / "own_code.py").write_text("def f():\n    return 22222\n")
    import linecache

    linecache.checkcache()
    assert describe(importlib.reload(module).f)["source"] != first["source"]


# -- rows


def test_rows_hold_configuration_measures_times_and_versions(tmp_path):
    plan = toy_plan()
    with sweep(plan, tmp_path) as store:
        frame = store.networks(details=True)
        assert list(frame.columns[:7]) == ["part", "task", "method", "strength", "seed", "role", "key"]
        assert len(frame) == 16
        np.testing.assert_array_equal(frame["test_error"], frame["strength"] + frame["seed"] / 7)
        assert frame["odd"].isna().all()
        assert frame["odd"].dtype == float
        assert (frame["big"] == np.inf).all()
        assert (frame["diverged_at"] == -1).all()
        assert (frame["version_torch"] == torch.__version__).all()
        assert (frame["version_hoplens"] == hoplens.__version__).all()
        assert frame["device"].str.startswith("cpu").all()
        assert (frame["seconds_total"] >= 0).all()
        row = frame.iloc[3]
        config = store.config(row["key"])
        assert content_hash(config) == row["key"]
        assert (config["strength"], config["seed"]) == (row["strength"], row["seed"])
        assert store.tensors(row["key"])["mark"].tolist() == [row["seed"]]
        assert store.studies()[["rows", "done"]].iloc[0].tolist() == [16, 16]


@pytest.mark.parametrize("value", [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, np.inf, -np.inf, np.nan])
def test_every_float_comes_back_to_the_bit(value):
    back = json.loads(encode({"x": value}))["x"]
    back = np.nan if back is None else back
    assert np.float64(back).tobytes() == np.float64(value).tobytes()
    assert json.loads(encode({"x": "Infinity, NaN"}))["x"] == "Infinity, NaN"


def test_nothing_is_computed_twice(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    toy = Toy(marks=str(marks))
    sweep(toy_plan(toy, seeds=4), tmp_path / "store").close()
    ran = len(list(marks.iterdir()))
    sweep(toy_plan(toy, seeds=4), tmp_path / "store").close()
    assert len(list(marks.iterdir())) == ran
    with sweep(toy_plan(toy, seeds=8), tmp_path / "store") as store:  # the same and four more seeds
        assert store.shards()["networks"].sum() == 2 * 4
        assert len(store.networks()) == 2 * 8
        assert len(store.studies()) == 2
        assert len(store.networks(store.studies()["id"][0])) == 2 * 4


def test_parts_share_networks(tmp_path):
    plan = toy_plan()
    import dataclasses

    again = [dataclasses.replace(member, part="again") for member in plan.members]
    both = Plan("both", (*plan.members, *again))
    with sweep(both, tmp_path) as store:
        assert len(store.networks()) == 32
        assert store.query("SELECT count(*) AS n FROM networks")["n"][0] == 16


def test_changed_configuration_never_overwrites(tmp_path):
    with sweep(toy_plan(Toy("a")), tmp_path) as store:
        first = store.networks(details=True)
    with sweep(toy_plan(Toy("b")), tmp_path) as store:
        pd.testing.assert_frame_equal(store.networks(store.studies()["id"][0], details=True), first)
        assert not set(store.networks()["key"]) & set(first["key"])


def test_queries_are_answered_and_mistakes_explained(tmp_path):
    with sweep(toy_plan(), tmp_path) as store:
        found = store.query(
            "SELECT seed, json_extract(metrics, '$.test_error') AS e FROM networks WHERE seed = ?", [3]
        )
        assert set(found["e"]) == {0.1 + 3 / 7, 0.2 + 3 / 7}
        with pytest.raises(ParameterError, match="no such table"):
            store.query("SELECT * FROM nowhere")
        with pytest.raises(ParameterError, match="SQLite cannot answer"):
            store.query("DELETE FROM networks")
        with pytest.raises(UnknownNameError, match="it holds: toys"):
            store.networks("toy")
        with pytest.raises(UnknownNameError, match="holds no network"):
            store.config("nothing")
        with pytest.raises(FileError, match="were not kept"):
            store.ensemble(store.networks()["key"][0])
        assert len(store.networks("toys")) == 16


def test_table_goes_to_parquet_and_csv_and_back(tmp_path):
    with sweep(toy_plan(), tmp_path / "store") as store:
        frame = store.networks(details=True)
        pd.testing.assert_frame_equal(pd.read_parquet(store.export(tmp_path / "t.parquet")), frame)
        back = pd.read_csv(store.export(tmp_path / "t.csv"))
        np.testing.assert_array_equal(back["test_error"], frame["test_error"])
        with pytest.raises(UnknownNameError, match="known: csv, parquet"):
            store.export(tmp_path / "t.xls")


def test_kept_weights_are_the_trained_ones(tmp_path):
    import dataclasses

    from hoplens.training.training import train_networks

    chosen = setting(weights=(1,))
    plan = toy_plan()
    plan = Plan("real", tuple(dataclasses.replace(m, setting=chosen, task="averaging") for m in plan.members))
    with sweep(plan, tmp_path) as store:
        rows = store.networks().set_index("seed")
        ensemble = store.ensemble(rows["key"][1].iloc[0])
        with pytest.raises(FileError, match="were not kept"):
            store.ensemble(rows["key"][2].iloc[0])
    networks = plan.shards()[0].networks
    alone = train_networks(chosen.task, networks, chosen.settings)
    n = next(n for n, network in enumerate(networks) if network.seed == 1)
    assert torch.equal(ensemble.weight[0], alone.ensemble.weight[n])
    assert ensemble.cell == "tanh"


# -- versions of the schema

VERSION_1 = """
PRAGMA application_id = 1752133740; PRAGMA user_version = 1;
CREATE TABLE studies (id TEXT PRIMARY KEY, name TEXT NOT NULL, source TEXT NOT NULL, created REAL NOT NULL,
  versions TEXT NOT NULL);
CREATE TABLE members (study TEXT NOT NULL REFERENCES studies (id), position INTEGER NOT NULL,
  part TEXT NOT NULL, task TEXT NOT NULL, method TEXT NOT NULL,
  strength REAL NOT NULL, seed INTEGER NOT NULL, role TEXT NOT NULL,
  key TEXT NOT NULL, PRIMARY KEY (study, position)) WITHOUT ROWID;
CREATE INDEX members_by_key ON members (key);
CREATE TABLE shards (study TEXT NOT NULL REFERENCES studies (id), position INTEGER NOT NULL,
  keys TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN ('open', 'done', 'failed')),
  attempts INTEGER NOT NULL, reason TEXT NOT NULL, seconds REAL NOT NULL, finished REAL,
  PRIMARY KEY (study, position)) WITHOUT ROWID;
CREATE TABLE networks (key TEXT PRIMARY KEY, config TEXT NOT NULL, seed INTEGER NOT NULL,
  metrics TEXT NOT NULL, seconds TEXT NOT NULL, versions TEXT NOT NULL, device TEXT NOT NULL,
  finished REAL NOT NULL,
  shard TEXT NOT NULL, slot INTEGER NOT NULL, tensors TEXT);
"""


@pytest.fixture
def old_store(tmp_path):
    """A store of schema version 1 with half of a study in it."""
    folder = tmp_path / "old"
    folder.mkdir()
    with sweep(toy_plan(), tmp_path / "new") as store:
        new = store.query("SELECT * FROM networks ORDER BY key").drop(columns="worker").head(4)
        tables = {n: store.query(f"SELECT * FROM {n}") for n in ("studies", "members", "shards")}
    kept = set(json.loads(tables["shards"]["keys"][0]))
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.executescript(VERSION_1)
        tables["shards"].loc[1:, "state"] = "open"
        with open_store(tmp_path / "new") as store:
            new = store.query("SELECT * FROM networks").drop(columns="worker")
        tables["networks"] = new[new["key"].isin(kept)]
        for name, rows in tables.items():
            rows.to_sql(name, connection, if_exists="append", index=False)
    shutil.copytree(tmp_path / "new" / "tensors", folder / "tensors")
    return folder, tables["networks"]


def schema(folder: Path) -> tuple[int, dict[str, list[tuple[str, str, int]]]]:
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        columns = {
            name: sorted((c[1], c[2], c[3]) for c in connection.execute(f"PRAGMA table_info({name})"))
            for name in names
        }
    return version, columns


def test_older_store_is_read_without_being_changed(old_store):
    folder, rows = old_store
    before = (folder / DATABASE).read_bytes()
    with open_store(folder) as store:
        frame = store.networks(details=True)
    assert set(frame["key"]) == set(rows["key"])
    assert (frame["worker"] == "").all()
    assert (folder / DATABASE).read_bytes() == before
    assert schema(folder)[0] == 1


def test_older_store_is_migrated_when_a_sweep_goes_on_in_it(old_store, tmp_path):
    folder, rows = old_store
    with sweep(toy_plan(), folder) as store:
        frame = store.networks(details=True)
    with open_store(tmp_path / "new") as store:
        pd.testing.assert_frame_equal(frame.iloc[:, :10], store.networks().iloc[:, :10])
    old = frame["key"].isin(rows["key"])
    assert (frame.loc[old, "worker"] == "").all()
    assert (frame.loc[~old, "worker"] != "").all()
    assert schema(folder) == schema(tmp_path / "new")  # as if it had been made today
    assert schema(folder)[0] == VERSION


def test_failed_migration_leaves_the_old_store(old_store, monkeypatch):
    folder, _ = old_store
    before = schema(folder)
    from hoplens.studies.sweeps import schema as schema_module

    steps = (
        "ALTER TABLE networks ADD COLUMN worker TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE nowhere ADD COLUMN x",
    )
    monkeypatch.setattr(schema_module, "MIGRATIONS", {1: steps})
    with pytest.raises(FileError):
        sweep(toy_plan(), folder)
    assert schema(folder) == before


def test_store_of_the_future_is_refused(tmp_path):
    sweep(toy_plan(), tmp_path).close()
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    for use in (open_store, lambda folder: sweep(toy_plan(), folder)):
        with pytest.raises(FileError, match="use a later hoplens"):
            use(tmp_path)


def test_foreign_and_damaged_databases_are_refused(tmp_path):
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    for use in (open_store, lambda folder: sweep(toy_plan(), folder)):
        with pytest.raises(FileError, match="another program"):
            use(tmp_path)
    (tmp_path / DATABASE).write_bytes(b"no database at all, but long enough to look like one" * 100)
    for use in (open_store, lambda folder: sweep(toy_plan(), folder)):
        with pytest.raises(FileError, match="not a database"):
            use(tmp_path)
    with pytest.raises(FileError, match="holds no run store"):
        open_store(tmp_path / "nowhere")


def test_damaged_tensors_are_refused(tmp_path):
    with sweep(toy_plan(), tmp_path) as store:
        for path in (tmp_path / "tensors").iterdir():
            path.write_bytes(b"x")
        with pytest.raises(FileError, match="cannot read"):
            store.tensors(store.networks()["key"][0])


# -- several processes


def test_readers_look_on_while_a_sweep_writes(tmp_path):
    plan, seen = toy_plan(), []
    with StoreWriter(tmp_path) as writer:
        writer.add(plan, workers=1)
        readers = [open_store(tmp_path) for _ in range(3)]
        from hoplens.studies.sweeps.work import run_shard

        for position, shard in writer.to_run(plan).items():
            writer.save(plan, position, shard, run_shard(shard))
            seen.append([len(reader.networks()) for reader in readers])
        for reader in readers:
            reader.close()
    assert seen == [[4] * 3, [8] * 3, [12] * 3, [16] * 3]


def test_second_sweep_on_a_store_is_refused_until_the_first_is_gone(tmp_path):
    with StoreWriter(tmp_path):
        assert is_running(tmp_path)
        with pytest.raises(FileError, match=rf"process {os.getpid()} on .* is writing to"):
            sweep(toy_plan(), tmp_path)
        code = (
            "from pathlib import Path; import sys\n"
            "from hoplens.studies.sweeps.writer import StoreWriter\n"
            "from hoplens.errors import FileError\n"
            "try: StoreWriter(Path(sys.argv[1]))\n"
            "except FileError as error: print(error)\n"
        )
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
        )
        assert "is writing to" in other.stdout
    assert not is_running(tmp_path)
    sweep(toy_plan(), tmp_path).close()


def test_two_sweeps_one_after_the_other_share_a_store(tmp_path):
    sweep(toy_plan(Toy("a")), tmp_path).close()
    sweep(toy_plan(Toy("b")), tmp_path).close()
    with open_store(tmp_path) as store:
        assert store.studies()["done"].tolist() == [16, 16]


# -- disks


def test_full_disk_stops_in_one_line_and_goes_on_when_there_is_room(tmp_path, monkeypatch):
    with sweep(toy_plan(seeds=24), tmp_path / "whole") as store:
        whole, pages = store.networks(), store.query("PRAGMA page_count").iloc[0, 0]
    real = store_module.sqlite3.connect
    from hoplens.studies.sweeps import writer as writer_module

    def connect(*arguments, **options):
        connection = real(*arguments, **options)
        if str(arguments[0]).endswith(DATABASE):
            connection.execute(f"PRAGMA max_page_count = {pages - 4}")  # SQLite's own "disk is full"
        return connection

    monkeypatch.setattr(writer_module.sqlite3, "connect", connect)
    with pytest.raises(FileError, match="the disk is full"):
        sweep(toy_plan(seeds=24), tmp_path / "full")
    monkeypatch.setattr(writer_module.sqlite3, "connect", real)
    with open_store(tmp_path / "full") as store:
        kept = store.networks()
    assert 0 < len(kept) < len(whole)
    assert len(kept) % 4 == 0  # whole shards
    with sweep(toy_plan(seeds=24), tmp_path / "full") as store:
        pd.testing.assert_frame_equal(store.networks(), whole, check_exact=True)


@contextmanager
def small_disk(size: str):
    """Mount a disk of a few hundred kilobytes, where this is allowed."""
    with tempfile.TemporaryDirectory() as place:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True
        )
        if made.returncode:
            pytest.skip("mounting a small disk is not allowed here")
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", "-l", place], check=True)


def test_really_full_disk(tmp_path):
    with sweep(toy_plan(seeds=24), tmp_path) as store:
        whole = store.networks()
    with small_disk("160k") as disk:
        folder = disk / "store"
        with pytest.raises(FileError, match=r"disk is full|No space left"):
            sweep(toy_plan(seeds=24), folder)
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        with open_store(folder) as store:
            if len(store.studies()):
                assert len(store.networks()) % 4 == 0
        with sweep(toy_plan(seeds=24), folder) as store:
            pd.testing.assert_frame_equal(store.networks(), whole, check_exact=True)


@contextmanager
def read_only(folder: Path):
    """Take away the right to write to a folder; root drops its own rights for that time."""
    places = [folder, *folder.rglob("*")]
    modes = {place: stat.S_IMODE(place.stat().st_mode) for place in places}
    for place in places:
        place.chmod(0o555 if place.is_dir() else 0o444)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for place, mode in modes.items():
            place.chmod(mode)


@pytest.fixture
def open_folder():
    """A folder that every user may look into."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place) / "store"


def test_read_only_store_is_read_but_not_written(open_folder):
    with sweep(toy_plan(), open_folder) as store:
        frame = store.networks()
    with read_only(open_folder):
        with open_store(open_folder) as store:
            pd.testing.assert_frame_equal(store.networks(), frame)
        with pytest.raises(FileError, match="cannot write"):
            sweep(toy_plan(), open_folder)


@pytest.mark.parametrize("with_index", [True, False])
def test_read_only_store_of_a_killed_sweep_is_read_whole_or_not_at_all(open_folder, tmp_path, with_index):
    with sweep(toy_plan(), tmp_path / "whole") as store:
        frame = store.networks()
    with sweep(toy_plan(), tmp_path / "store"):  # an open reader keeps the log from being tidied up
        open_folder.mkdir()
        for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm")[: 3 if with_index else 2]:
            (open_folder / name).write_bytes((tmp_path / "store" / name).read_bytes())
    with read_only(open_folder):
        if not with_index:  # what the log holds would be missing without a word
            with pytest.raises(FileError, match="copy it to read the copy"):
                open_store(open_folder)
            return
        with open_store(open_folder) as store:
            pd.testing.assert_frame_equal(store.networks(), frame)


def test_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileError, match="cannot make the store"):
        sweep(toy_plan(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
