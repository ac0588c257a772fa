"""Sweeps on a dask cluster and as jobs of submitit, for real on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest
from places import TESTS
from size import full
from sweep_toys import Toy, toy_plan

from hoplens.errors import FileError, ParameterError
from hoplens.studies.sweeps import run_sweep
from hoplens.studies.sweeps.executors import connect

distributed = pytest.importorskip("distributed")
pytest.importorskip("submitit")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
PATIENCE = 60.0


@pytest.fixture
def whole(tmp_path):
    """The table that an undisturbed sweep of the toys gives."""
    with run_sweep(toy_plan(), tmp_path / "undisturbed", executor="in-process") as store:
        return store.networks().drop(columns="key")


@pytest.fixture
def paths(monkeypatch):
    """Let workers that are started by command find the tests and the package."""
    import hoplens

    places = [str(TESTS), str(Path(hoplens.__file__).parents[1])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))


def table(store) -> pd.DataFrame:
    with store:
        return store.networks().drop(columns="key")


def test_local_cluster_of_dask(tmp_path, whole):
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        found = run_sweep(toy_plan(), tmp_path / "own", executor=client.get_executor(pure=False))
        pd.testing.assert_frame_equal(table(found), whole)
        assert client.status == "running"  # who opened it closes it


def start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@full
def test_dask_scheduler_with_two_workers_of_which_one_is_killed(tmp_path, whole, paths, monkeypatch):
    marks = tmp_path / "marks"
    marks.mkdir()
    file = tmp_path / "scheduler.json"
    with ExitStack() as stack:
        scheduler = ["dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        worker = [
            "dask_worker",
            "--nthreads",
            "1",
            "--no-dashboard",
            "--no-nanny",
            "--scheduler-file",
            str(file),
        ]
        processes = [start(*scheduler, "--scheduler-file", str(file))]
        processes += [start(*worker, "--local-directory", str(tmp_path / f"w{n}")) for n in range(2)]
        for process in processes:
            stack.callback(process.wait)
            stack.callback(process.kill)
        deadline = time.monotonic() + PATIENCE
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with distributed.Client(scheduler_file=str(file), timeout=PATIENCE, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=PATIENCE)
            address = client.scheduler.address.removeprefix("tcp://")
        # the worker that first takes the shard of seed 0 dies over it; the other one finishes all
        toy = Toy(dies=((0, 1),), seconds=0.2, marks=str(marks))
        found = run_sweep(toy_plan(toy), tmp_path / "store", executor=f"dask://{address}")
        assert len(list(marks.glob("died-0-*"))) == 1
        assert sum(process.poll() is not None for process in processes[1:]) == 1
        details = found.networks(details=True)
        assert (details["worker"].str.rpartition(":")[2].astype(int) != os.getpid()).all()
        pd.testing.assert_frame_equal(table(found), whole)

        # without its scheduler a sweep stops in one line instead of waiting for ever
        def kill(progress):
            if progress.done == 4:
                processes[0].kill()

        plan = toy_plan(Toy("late", seconds=0.2))
        with pytest.raises(FileError, match="start it and this again"):
            run_sweep(plan, tmp_path / "late", executor=f"dask://{address}", progress=kill)
        monkeypatch.setattr("hoplens.studies.sweeps.executors.PATIENCE", 1.0)
        with pytest.raises(FileError, match="no dask scheduler answers"):
            connect(f"dask://{address}", workers=None, folder=tmp_path)
    late = table(run_sweep(plan, tmp_path / "late", executor="in-process"))
    pd.testing.assert_frame_equal(late.drop(columns="task"), whole.drop(columns="task"))


def test_jobs_of_submitit_one_of_which_dies(tmp_path, whole, paths, monkeypatch):
    marks = tmp_path / "marks"
    marks.mkdir()
    toy = Toy(dies=((0, 1),), size=16, marks=str(marks))
    monkeypatch.setattr("hoplens.studies.sweeps.slurm.GRACE", 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = run_sweep(
            toy_plan(toy), tmp_path / "store", executor="slurm://?cluster=local&timeout_min=2", workers=1
        )
    assert found.shards()["attempts"].tolist() == [1]
    assert (found.networks(details=True)["worker"].str.rpartition(":")[2].astype(int) != os.getpid()).all()
    pd.testing.assert_frame_equal(table(found), whole)
    assert list((tmp_path / "store" / "slurm").iterdir())  # logs of the jobs


def test_what_submitit_refuses_is_said(tmp_path):
    with pytest.raises(ParameterError, match="submitit refuses slurm://"):
        connect("slurm://?cluster=nowhere", workers=None, folder=tmp_path)
    with pytest.raises(ParameterError, match="submitit refuses slurm://"):
        connect("slurm://?cluster=local&no_such_option=1", workers=None, folder=tmp_path)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ParameterError, match=r"pip install 'hoplens\[dask\]'"):
        connect("dask://127.0.0.1:8786", workers=None, folder=tmp_path)
    with pytest.raises(ParameterError, match=r"pip install 'hoplens\[slurm\]'"):
        connect("slurm://", workers=None, folder=tmp_path)
