"""The driver: executors, lost workers, errors, Ctrl-C, progress, status and the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from size import full
from sweep_toys import Toy, toy_plan

import hoplens as hl
from hoplens.data.tasks import make
from hoplens.errors import FileError, ParameterError
from hoplens.studies.sweeps import open_store, parse_study, run_sweep
from hoplens.studies.sweeps import plan as plan_module
from hoplens.studies.sweeps.estimate import estimate
from hoplens.studies.sweeps.executors import InProcess, ProcessLanes, connect
from hoplens.studies.sweeps.running import LOG
from hoplens.studies.sweeps.settings import TaskSetting
from hoplens.studies.sweeps.status import clock, status
from hoplens.studies.sweeps.work import Failed, Shard, run_shard
from hoplens.studies.sweeps.writer import StoreWriter
from hoplens.training.settings import Settings


@pytest.fixture
def whole(tmp_path):
    """The table that an undisturbed sweep of the toys gives."""
    with run_sweep(toy_plan(), tmp_path / "undisturbed", executor="in-process") as store:
        return store.networks().drop(columns="key")


def table(store) -> pd.DataFrame:
    with store:
        return store.networks().drop(columns="key")


# -- executors


def test_any_executor_gives_the_same_table(tmp_path, whole):
    with ThreadPoolExecutor(2) as pool:
        pd.testing.assert_frame_equal(table(run_sweep(toy_plan(), tmp_path, executor=pool)), whole)


def test_own_executor_may_be_given_by_name_or_value_and_is_left_open(tmp_path, monkeypatch):
    monkeypatch.setattr("hoplens.studies.sweeps.executors.PATIENCE", 0.5)
    pool = InProcess()
    run_sweep(toy_plan(), tmp_path, executor=pool).close()
    assert pool.submit(len, "abc").result() == 3
    assert isinstance(connect("in-process", workers=None, folder=tmp_path), InProcess)
    with pytest.raises(
        ParameterError, match=r"unknown executor 'procesess'; known: in-process, processes, dask"
    ):
        run_sweep(toy_plan(), tmp_path, executor="procesess")
    with pytest.raises(FileError, match=r"no dask scheduler answers at 127\.0\.0\.1:1"):
        connect("dask://127.0.0.1:1", workers=None, folder=tmp_path)


@pytest.mark.parametrize("option", ["workers", "attempts"])
def test_counts_are_checked_before_anything_is_written(tmp_path, option):
    with pytest.raises(ParameterError, match=f"{option} must be a whole number of at least 1"):
        run_sweep(toy_plan(), tmp_path / "store", **{option: 0})
    assert not (tmp_path / "store").exists()


@full
def test_lost_shards_are_run_again_at_most_so_often_and_the_others_go_on(tmp_path, whole):
    marks = tmp_path / "marks"
    marks.mkdir()
    toy = Toy(dies=((0, 1), (3, 2)), marks=str(marks))  # in two of the four shards
    with pytest.warns(UserWarning, match="4 networks of 16 are missing"):
        store = run_sweep(toy_plan(toy), tmp_path / "store", executor="processes", workers=2, attempts=2)
    shards = store.shards()
    assert shards["attempts"].tolist() == [1, 2, 0, 0]
    assert shards["state"].tolist() == ["done", "failed", "done", "done"]
    assert store.failures()["reason"][0].startswith("its worker was lost 2 times (BrokenProcessPool")
    assert len(table(store)) == 12
    # it gets another chance when the sweep is run again
    pd.testing.assert_frame_equal(
        table(run_sweep(toy_plan(toy), tmp_path / "store", executor="in-process")), whole
    )


def test_shard_that_raises_fails_at_once_and_the_others_go_on(tmp_path):
    plan = toy_plan(Toy(fails=(3,)))
    for executor in ("in-process", InProcess()):
        with pytest.warns(UserWarning, match="4 networks of 16"):
            store = run_sweep(plan, tmp_path / "store", executor=executor)
        assert store.failures()["reason"].tolist() == ["ArithmeticError: seed 3"]
        assert store.failures()["attempts"].tolist() == [0]
        assert len(table(store)) == 12
    assert "raise ArithmeticError" in (tmp_path / "store" / LOG).read_text()


def test_wrong_number_of_rows_is_a_failure():
    shard = toy_plan().shards()[0]

    class Short(Toy):
        def run(self, networks):
            outcome = super().run(networks)
            return type(outcome)(outcome.frame.iloc[:-1])

    found = run_shard(Shard(Short(), shard.networks))
    assert isinstance(found, Failed)
    assert "a shard of 4 networks gave 3 rows" in found.reason


class Broken(Executor):
    """Loses every shard, then refuses more."""

    def __init__(self, last: int) -> None:
        self.left = last

    def submit(self, function, /, *args, **kwargs):
        if self.left == 0:
            raise RuntimeError("the pool is broken")
        self.left -= 1
        future = Future()
        future.set_exception(ConnectionError("gone"))
        return future


def test_executor_that_breaks_stops_the_sweep_in_one_line_and_nothing_is_lost(tmp_path, whole):
    with pytest.raises(FileError, match=r"takes no more work \(the pool is broken\).*run it again"):
        run_sweep(toy_plan(), tmp_path, executor=Broken(2), workers=1)
    pd.testing.assert_frame_equal(table(run_sweep(toy_plan(), tmp_path, executor="in-process")), whole)


def test_lost_worker_is_not_blamed_for_ever(tmp_path):
    with pytest.warns(UserWarning, match="16 networks of 16"):
        store = run_sweep(toy_plan(), tmp_path, executor=Broken(10**6), workers=2, attempts=3)
    assert store.failures()["reason"].tolist() == ["its worker was lost 3 times (ConnectionError: gone)"] * 4


@full
def test_pool_of_processes_starts_anew_where_one_died():
    with ProcessLanes(1) as lanes:
        first = lanes.submit(os.getpid).result()
        os.kill(first, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                second = lanes.submit(os.getpid).result()
                break
            except Exception:  # the pool has not noticed yet
                time.sleep(0.05)
        assert second != first
        assert lanes.submit(torch.get_num_threads).result() == 1


def test_threads_are_put_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run_shard(toy_plan().shards()[0])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_short_work_stays_in_this_process_and_long_work_gets_a_pool(tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setattr(
        "hoplens.studies.sweeps.executors.connect", lambda kind, **options: chosen.append(kind) or InProcess()
    )
    monkeypatch.setattr(Toy, "probe", lambda self, networks: float(self.name))
    run_sweep(toy_plan(Toy("1")), tmp_path, workers=2).close()
    run_sweep(toy_plan(Toy("10")), tmp_path, workers=2).close()
    run_sweep(toy_plan(Toy("11")), tmp_path, workers=1).close()
    assert chosen == ["in-process", "processes", "in-process"]


# -- Ctrl-C

STUDY = """
strengths = [1e-3]
seeds = { validation = { count = 2 }, report = { first = 10, count = 2 } }
training = { hidden = [6, 7, 8, 9], steps = 4000, batch = 8 }
tasks = [{ name = "averaging", length = 4 }]
methods = [{ recipe = "l1" }]
"""


def test_first_interrupt_finishes_the_running_shard_and_the_second_stops_at_once(tmp_path):
    plan = toy_plan(Toy(seconds=0.5))
    seen = []

    def press(progress):
        seen.append(progress.done)
        if len(seen) == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_sweep(plan, tmp_path / "once", executor="in-process", progress=press)
    assert seen == [0, 4]
    timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_sweep(plan, tmp_path / "during", executor="in-process")
    with open_store(tmp_path / "during") as store:
        assert len(store.networks()) == 4  # the shard that was running is kept
    timers = [threading.Timer(wait, lambda: os.kill(os.getpid(), signal.SIGINT)) for wait in (0.1, 0.2)]
    for timer in timers:
        timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_sweep(plan, tmp_path / "twice", executor="in-process")
    with open_store(tmp_path / "twice") as store:
        assert store.networks().empty
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert "stopped by Ctrl-C" in (tmp_path / "during" / LOG).read_text()


def hoplens(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "hoplens.cli.app", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **options)


@pytest.mark.parametrize("executor", ["in-process", "processes"])
def test_a_stop_waits_only_so_long_for_running_shards(tmp_path, monkeypatch, executor):
    monkeypatch.setattr("hoplens.studies.sweeps.running.GRACE", 0.5)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_sweep(toy_plan(Toy(seconds=30.0)), tmp_path, executor=executor, workers=1)
    assert time.monotonic() - started < 15
    assert status(tmp_path).done == 0
    assert not status(tmp_path).running


@full
def test_interrupted_command_says_how_to_go_on(tmp_path):
    (tmp_path / "study.toml").write_text(STUDY)
    store = tmp_path / "store"
    command = [
        sys.executable,
        "-m",
        "hoplens.cli.app",
        "sweep",
        str(tmp_path / "study.toml"),
        "--store",
        str(store),
    ]
    command += ["--executor", "in-process"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (store / LOG).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    while process.poll() is None and time.monotonic() < deadline:
        with open_store(store) as found:
            if found.query("SELECT 1 FROM networks LIMIT 1").shape[0]:
                break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stdout + stderr
    assert f"`hoplens sweep --resume --store {store}` goes on" in stdout
    with open_store(store) as found:
        assert 0 < len(found.networks()) < 16


# -- progress and status


def test_progress_counts_up_to_the_end_and_knows_the_best(tmp_path):
    seen = []
    run_sweep(toy_plan(), tmp_path, executor="in-process", progress=seen.append).close()
    assert [p.done for p in seen] == [0, 4, 8, 12, 16]
    assert all(p.total == 16 and p.failed == 0 for p in seen)
    assert seen[0].best is None
    best = seen[-1].best
    assert (best.task, best.method, best.strength) == ("toy", "L1", 0.1)
    assert best.test_error == pytest.approx(0.1 + (0 + 1) / 2 / 7)  # validation seeds 0 and 1
    assert seen[-1].left == pytest.approx(0.0)
    assert seen[-1].rate > 0
    again = []
    run_sweep(toy_plan(), tmp_path, executor="in-process", progress=again.append).close()
    assert [p.done for p in again] == [16]
    assert again[0].best == best


def test_status_of_a_running_a_failed_and_a_finished_store(tmp_path):
    plan = toy_plan(Toy(fails=(3,)))
    with StoreWriter(tmp_path) as writer:
        writer.add(plan, workers=1)
        for position, shard in list(writer.to_run(plan).items())[:2]:
            found = run_shard(shard)
            if isinstance(found, Failed):
                writer.failed(plan, position, 0, found.reason)
            else:
                writer.save(plan, position, shard, found)
        now = status(tmp_path)
        assert now.running
        assert f"process {os.getpid()}" in now.driver
    assert (now.total, now.done, now.open, now.failed) == (16, 4, 2, 1)
    assert now.failures["reason"].tolist() == ["ArithmeticError: seed 3"]
    assert not status(tmp_path).running
    run_sweep(toy_plan(), tmp_path, executor="in-process").close()
    done = status(tmp_path)
    assert (done.total, done.done, done.open, done.failed) == (16, 16, 0, 0)
    assert done.rate > 0
    assert done.best[["task", "method", "strength", "seeds"]].iloc[0].tolist() == ["toy", "L1", 0.1, 2]
    assert status(tmp_path, plan.id).done == 4


def test_a_method_does_not_win_because_its_failures_vanished(tmp_path, monkeypatch, capsys):
    """Strength 0.1 has the lower mean of those that are left, but one of its two networks diverged."""
    plan = toy_plan(Toy(diverges=((0.1, 0),)))
    seen = []
    run_sweep(plan, tmp_path, executor="in-process", progress=seen.append).close()
    row = status(tmp_path).best.iloc[0]
    assert row[["strength", "seeds", "lost"]].tolist() == [0.2, 2, 0]
    assert (seen[-1].best.strength, seen[-1].best.lost) == (0.2, 0)
    all_lost = toy_plan(Toy(diverges=((0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1))))
    run_sweep(all_lost, tmp_path, executor="in-process", progress=seen.append).close()
    row = status(tmp_path).best.iloc[0]
    assert row[["seeds", "lost"]].tolist() == [2, 2]
    assert np.isnan(row["test_error"])
    assert seen[-1].best is None
    assert "2, 2 diverged" in command(monkeypatch, capsys, "status", str(tmp_path))


def test_times_are_told_for_people():
    assert [clock(s) for s in (5, 89, 600, 6600, 90_000, 400_000)] == [
        "5 s", "89 s", "10 min", "1 h 50 min", "25 h 00 min", "4 d 15 h",
    ]  # fmt: skip


def test_estimate_is_near_what_training_takes():
    task = make("averaging", length=6)
    plan = toy_plan(TaskSetting(task, Settings(hidden=16, steps=300, batch=16)))
    shards = plan.shards()
    guess = estimate(plan, shards, workers=1)
    found = [run_shard(shard).seconds["train"] for shard in shards]
    assert (guess.networks, guess.known, guess.shards, guess.largest) == (16, 0, 1, 16)
    assert 0.25 < guess.seconds / sum(found) < 4  # a busy machine is off by two easily
    assert guess.bytes > shards[0].setting.network_bytes * 16
    half = estimate(plan, shards * 2, workers=2)
    assert half.bytes > guess.bytes
    assert estimate(plan, [], workers=2).seconds == 0.0
    assert estimate(toy_plan(), toy_plan().shards(), workers=2).seconds is None


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
@full
def test_estimated_memory_bounds_what_training_takes():
    setting = TaskSetting(make("averaging", length=10), Settings(hidden=32, steps=8, batch=512))
    code = (
        "import torch, pickle, sys\n"
        "from hoplens.studies.sweeps.work import run_shard\n"
        "torch.set_num_threads(1)\n"
        "def peak():  # KiB; ru_maxrss would count the parent process\n"
        "    return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])\n"
        "small, large = pickle.load(sys.stdin.buffer)\n"
        "run_shard(small); before = peak()\n"
        "found = run_shard(large); after = peak()\n"
        "print(after - before, before)\n"
    )
    import pickle

    networks = tuple(member.network for member in toy_plan(seeds=16).members)
    shards = pickle.dumps((Shard(setting, networks[:1]), Shard(setting, networks)))
    done = subprocess.run(
        [sys.executable, "-c", code], input=shards, capture_output=True, check=True, timeout=120
    )
    grown, base = (1024 * int(word) for word in done.stdout.split())
    assert grown / (31 * setting.network_bytes) == pytest.approx(1.0, abs=0.5)
    from hoplens.studies.sweeps.estimate import PROCESS_BYTES

    assert base / PROCESS_BYTES == pytest.approx(1.0, abs=0.5)


# -- the command line


def command(monkeypatch, capsys, *arguments: str) -> str:
    """Run a command in this process and return what it printed."""
    from hoplens.cli import app as cli

    monkeypatch.setattr(sys, "argv", ["hoplens", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    return capsys.readouterr().out


@full
def test_command_runs_the_example_and_tells_its_status(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("study.toml").write_text(command(monkeypatch, capsys, "sweep", "--example").replace("400", "20"))
    count = len(parse_study(Path("study.toml").read_text()).plan().by_key)
    dry = command(monkeypatch, capsys, "sweep", "study.toml", "--dry-run")
    assert f"{count} networks, 0 of them in example.store" in dry
    assert "memory: about" in dry
    assert not Path("example.store").exists()
    done = hoplens("sweep", "study.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{count} of {count} networks" in done.stdout
    assert "best so far" in done.stdout
    shown = command(monkeypatch, capsys, "status", "example.store", "--table", "t.csv")
    assert f"{count} of {count} networks (100%), done" in shown
    assert len(pd.read_csv("t.csv")) == count
    assert f"{count} of them in" in command(monkeypatch, capsys, "sweep", "study.toml", "--dry-run")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sweep",), "give a study file"),
        (("sweep", "nowhere.toml"), "cannot read the study nowhere.toml"),
        (("sweep", "--resume"), "--resume without a study file needs --store DIR"),
        (("sweep", "--resume", "--store", "nowhere"), "nowhere holds no run store"),
        (("sweep", "bad.toml"), "bad.toml: unknown key seedz"),
        (("sweep", "good.toml", "--resume"), "good.store holds no run store to go on with"),
        (("sweep", "good.toml", "--workers", "-1"), "--workers must be 0 or more"),
        (("sweep", "good.toml", "--attempts", "0"), "attempts must be a whole number of at least 1"),
        (("sweep", "good.toml", "--executor", "magic"), "unknown executor 'magic'"),
        (("sweep", "good.toml", "--store", "/dev/null/x"), "cannot make the store"),
        (("status", "nowhere"), "nowhere holds no run store"),
        (("status", "toys", "--study", "mine"), "holds no study 'mine'; it holds: toys"),
        (("status", "toys", "--table", "t.xls"), "unknown kind of table 'xls'"),
        (("sweep", "--resume", "--store", "toys"), "was made in Python"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, says):
    from hoplens.cli import app as cli

    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text("seedz = 1\n")
    Path("good.toml").write_text(STUDY)
    if "toys" in arguments:
        run_sweep(toy_plan(), "toys", executor="in-process").close()
    monkeypatch.setattr(sys, "argv", ["hoplens", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    message = capsys.readouterr().err.strip()
    assert says in message
    assert message.count("\n") == 0


def test_command_counts_failed_shards_and_returns_1(tmp_path, monkeypatch, capsys):
    from hoplens.cli import app as cli

    (tmp_path / "study.toml").write_text(STUDY.replace("4000", "2"))
    monkeypatch.setattr(TaskSetting, "run", lambda self, networks: 1 / 0)
    monkeypatch.setattr(
        sys, "argv", ["hoplens", "sweep", str(tmp_path / "study.toml"), "--store", str(tmp_path / "store")]
    )
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "4 shards failed, the first: ZeroDivisionError: division by zero; --resume tries them again" in said
    )


def test_names_are_public():
    assert hl.run_sweep is run_sweep
    assert hl.sweeps.load_study
    assert plan_module.SHARD_BYTES > 0
