"""Shards as Slurm jobs, through submitit."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from hoplens.errors import ParameterError, check_count
from hoplens.files import make_folder

T = TypeVar("T")

POLL = 0.2  # seconds between looks at local jobs; submitit itself asks Slurm far less often
GRACE = 10.0  # seconds in which a file system must show the result of a job that is over
IN_QUEUE = 64  # jobs in the queue at once unless the user says otherwise
NUMBERS = ("timeout_min", "cpus_per_task", "mem_gb", "nodes", "gpus_per_node", "tasks_per_node")


class JobExecutor(Executor):
    """A `concurrent.futures.Executor` whose workers are jobs of a submitit executor.

    Parameters
    ----------
    jobs : submitit.Executor
        Where to submit to.
    workers : int
        Jobs in the queue at once.
    """

    def __init__(self, jobs: Any, workers: int) -> None:
        self.workers = check_count("workers", workers)
        self._submit = jobs.submit
        self._jobs: dict[Future[Any], Any] = {}
        self._mutex = threading.Lock()
        self._stopped = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queue a job.

        Parameters
        ----------
        function : callable
            Of a module.
        args, kwargs
            For it.
        """
        if self._stopped.is_set():
            raise RuntimeError("cannot submit to an executor that was shut down")
        future: Future[T] = Future()
        job = self._submit(function, *args, **kwargs)
        with self._mutex:
            self._jobs[future] = job
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End all jobs but those to wait for.

        Parameters
        ----------
        wait : bool, default True
            Wait for the jobs; else they are cancelled.
        cancel_futures : bool, default False
            Cancel the jobs that have not started.
        """
        with self._mutex:
            left = dict(self._jobs)
        for future, job in left.items():
            if not wait or (cancel_futures and future.cancel()):
                job.cancel()
        while wait and any(not future.done() for future in left):
            self._stopped.wait(POLL)
        self._stopped.set()
        self._watcher.join()

    def _watch(self) -> None:
        """Hand the results of jobs to their futures."""
        ended: dict[Future[Any], float] = {}  # since when a job is over without a result
        while not self._stopped.wait(POLL):
            with self._mutex:
                jobs = list(self._jobs.items())
            for future, job in jobs:
                if future.cancelled():
                    job.cancel()
                elif job.done():
                    waited = time.monotonic() - ended.setdefault(future, time.monotonic())
                    if not job.paths.result_pickle.exists() and waited < GRACE:
                        continue
                    _settle(future, job)
                else:
                    if not future.running() and job.state == "RUNNING":
                        future.set_running_or_notify_cancel()
                    continue
                ended.pop(future, None)
                with self._mutex:
                    del self._jobs[future]


def _settle(future: Future[Any], job: Any) -> None:
    if not future.running() and not future.set_running_or_notify_cancel():
        return  # cancelled
    if not job.paths.result_pickle.exists():
        error = RuntimeError(f"job {job.job_id} ended without a result, in state {job.state}")
        future.set_exception(error)
        return
    try:
        future.set_result(job.result())
    except Exception as error:  # whatever it is, it is of the job and not of the shard
        future.set_exception(error)


def connect_slurm(kind: str, *, workers: int | None, folder: str | os.PathLike[str]) -> JobExecutor:
    """Return an executor of Slurm jobs.

    Parameters
    ----------
    kind : str
        ``slurm://?`` and submitit's options, joined by ``&``; ``cluster=local`` needs no Slurm.
    workers : int or None
        Jobs in the queue at once.
    folder : path
        The store; the jobs' logs go to ``slurm`` in it.

    Raises
    ------
    ParameterError
        If submitit is missing, or does not take an option, or there is no Slurm.
    """
    try:
        import submitit
    except ImportError:
        raise ParameterError(f"{kind} needs submitit: pip install 'hoplens[slurm]'") from None
    options: dict[str, Any] = dict(parse_qsl(urlsplit(kind).query))
    cluster = options.pop("cluster", "slurm")
    logs = make_folder(Path(folder) / "slurm", "folder of the jobs")
    try:
        jobs = submitit.AutoExecutor(folder=logs, cluster=cluster)
        jobs.update_parameters(**{name: _number(name, value) for name, value in options.items()})
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise ParameterError(f"submitit refuses {kind} ({str(error).splitlines()[0]})") from None
    return JobExecutor(jobs, IN_QUEUE if workers is None else workers)


def _number(name: str, value: str) -> Any:
    return int(value) if name.removeprefix("slurm_") in NUMBERS and value.isdigit() else value


__all__ = ["JobExecutor", "connect_slurm"]
