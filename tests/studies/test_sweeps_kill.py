"""A sweep that is killed at any moment and resumed: nothing lost, nothing doubled, nothing half-written."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import pytest
from size import few, full

from hoplens.errors import FileError
from hoplens.studies.sweeps import make_study, open_store, run_sweep
from hoplens.studies.sweeps import plan as plan_module
from hoplens.studies.sweeps import writer as writer_module
from hoplens.studies.sweeps.store import DATABASE
from hoplens.studies.sweeps.writer import StoreWriter

TRIALS = few(20, 4)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(plan_module, "MOST_NETWORKS", 4)


def tiny_study():
    return make_study(
        {
            "name": "tiny",
            "strengths": [1e-3, 1e-2],
            "weights": "all",
            "seeds": {"validation": [0, 1], "report": [2, 3]},
            "training": {"hidden": 4, "steps": 4, "batch": 4},
            "tasks": [{"name": "averaging", "length": 3, "modules": 2, "module_size": 1}],
            "methods": [{"recipe": name} for name in ("none", "l1", "paper", "recommended")],
        }
    )


def sweep(folder: Path) -> None:
    run_sweep(tiny_study(), folder, executor="in-process").close()


def in_child(work) -> int:
    """Start a process that has everything imported; return its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads: the child is ours
        child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def everything(folder: Path) -> tuple[pd.DataFrame, dict[str, list[bytes]]]:
    """Return the table of a store and the bits of all its tensors."""
    with open_store(folder) as store:
        frame = store.networks()
        tensors = {key: store.tensors(key) for key in frame["key"]}
    return frame, {key: [t.numpy().tobytes() for t in found.values()] for key, found in tensors.items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "MOST_NETWORKS", 4)
        sweep(folder)
    return everything(folder)


def check_whole_shards(folder: Path, reference: pd.DataFrame) -> pd.DataFrame:
    """Check what a killed sweep left, and return its rows with their details."""
    if not (folder / DATABASE).is_file():
        return pd.DataFrame(columns=["key"])
    with open_store(folder) as store:
        assert store.query("PRAGMA integrity_check").iloc[0, 0] == "ok"
        if store.studies().empty:
            assert store.query("SELECT 1 FROM networks").empty
            return pd.DataFrame(columns=["key"])
        rows, keys = store.networks(details=True), store.query("SELECT keys, state FROM shards")
        there = set(rows["key"])
        for shard in keys.to_dict("records"):
            names = set(json.loads(shard["keys"]))
            assert names <= there if shard["state"] == "done" else not names & there
        for key in there:
            assert set(store.tensors(key)) == {"weight", "readout", "offset"}
    if rows.empty:
        return rows
    known = reference[reference["key"].isin(there)].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows[reference.columns], known, check_exact=True)
    return rows


def check_resumed(folder: Path, before: pd.DataFrame, undisturbed) -> None:
    """Resume, and compare every bit with a sweep that nobody disturbed."""
    sweep(folder)
    frame, tensors = everything(folder)
    pd.testing.assert_frame_equal(frame, undisturbed[0], check_exact=True)
    assert tensors == undisturbed[1]
    with open_store(folder) as store:
        assert store.query("SELECT count(*) FROM networks").iloc[0, 0] == len(frame)
        after = store.networks(details=True).set_index("key")
        assert (store.shards()["state"] == "done").all()
    for key, finished in zip(before["key"], before.get("finished", []), strict=True):
        assert after["finished"][key] == finished  # not trained a second time


def test_killed_at_random_moments(tmp_path, undisturbed):
    started = time.monotonic()
    os.waitpid(in_child(lambda: sweep(tmp_path / "timed")), 0)
    whole, draw, partial = time.monotonic() - started, random.Random(20260503), 0
    for trial in range(TRIALS):
        folder = tmp_path / f"trial-{trial}"
        child = in_child(lambda folder=folder: sweep(folder))
        time.sleep(draw.uniform(0.02, whole))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        before = check_whole_shards(folder, undisturbed[0])
        partial += 0 < len(before) < len(undisturbed[0])
        check_resumed(folder, before, undisturbed)
    assert partial >= TRIALS // 4  # else the kills came too early or too late to prove anything


class Deadly:
    """A connection that kills its process at a given statement of the transactions it sees."""

    def __init__(self, connection: sqlite3.Connection, left: list[int]) -> None:
        self.connection, self.left = connection, left

    def _count(self) -> None:
        self.left[0] -= 1
        if self.left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def execute(self, *arguments):
        self._count()
        return self.connection.execute(*arguments)

    def executemany(self, sql, rows):
        for row in rows:
            self._count()
            self.connection.execute(sql, row)


# 36 statements enter the study, one opens its shards, and five keep each of the seven
@pytest.mark.parametrize("statements", [0, 5, 36, 37, 40, 42, 60, 71, 72])
def test_killed_inside_a_transaction(tmp_path, undisturbed, statements):
    real = StoreWriter._transaction
    left = [statements]

    @contextmanager
    def deadly(self):
        with real(self) as connection:
            yield Deadly(connection, left)
            if left[0] == 0:  # all is said, but not committed
                os.kill(os.getpid(), signal.SIGKILL)

    def work():
        StoreWriter._transaction = deadly
        sweep(tmp_path / "store")

    _, status = os.waitpid(in_child(work), 0)
    assert os.WIFSIGNALED(status)
    before = check_whole_shards(tmp_path / "store", undisturbed[0])
    check_resumed(tmp_path / "store", before, undisturbed)


def test_killed_between_tensors_and_rows(tmp_path, undisturbed):
    folder = tmp_path / "store"

    def write_and_die(path, data):
        write(path, data)
        if str(path).endswith(".safetensors") and len(list((folder / "tensors").iterdir())) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    write = writer_module.write_atomically

    def work():
        writer_module.write_atomically = write_and_die
        sweep(folder)

    _, status = os.waitpid(in_child(work), 0)
    assert os.WIFSIGNALED(status)
    before = check_whole_shards(folder, undisturbed[0])
    assert len(before) == 2 * 4  # the third shard's tensors are there, its rows are not
    check_resumed(folder, before, undisturbed)


STUDY = """
strengths = [1e-3]
seeds = { validation = { count = 2 }, report = { first = 10, count = 4 } }
training = { hidden = [6, 7, 8], steps = 100, batch = 16 }
tasks = [{ name = "averaging", length = 5 }, { name = "addition", length = 5 }]
methods = [{ recipe = "l1" }, { recipe = "paper" }]
"""


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@full
def test_killed_command_leaves_no_workers_and_resumes(tmp_path):
    (tmp_path / "study.toml").write_text(STUDY)
    store = tmp_path / "store"
    command = [sys.executable, "-m", "hoplens.cli.app", "sweep"]
    pool = ["--executor", "processes", "--workers", "2", "--store", str(store)]
    driver = subprocess.Popen([*command, str(tmp_path / "study.toml"), *pool], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    seen = pd.DataFrame()
    while seen.empty and time.monotonic() < deadline:
        time.sleep(0.1)
        with suppress(FileError), open_store(store) as found:  # while it is being written
            seen = found.networks(details=True)
    driver.kill()
    driver.wait()
    workers = {int(worker.rpartition(":")[2]) for worker in seen["worker"]}
    assert workers
    while any(alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(worker) for worker in workers)
    here = ["--executor", "in-process", "--store", str(store)]
    resumed = subprocess.run([*command, "--resume", *here], capture_output=True, text=True, timeout=120)
    assert resumed.returncode == 0, resumed.stderr
    assert "72 of 72 networks" in resumed.stdout
    with open_store(store) as found:
        assert len(found.networks()) == 72
