"""Shards as Slurm jobs, through submitit."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
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


class JobExecutor(ThreadPoolExecutor):
    """Threads, each of which hands in a job of a submitit executor and waits for its result."""

    def __init__(self, jobs: Any, workers: int) -> None:
        super().__init__(check_count("workers", workers))
        self._hand_in, self._mutex, self._stopped = jobs.submit, threading.Lock(), threading.Event()

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queue a job."""
        return super().submit(self._result, function, args, kwargs)

    def _result(self, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        with self._mutex:
            job = self._hand_in(function, *args, **kwargs)
        ended = None  # since when it is over without a result
        while not job.paths.result_pickle.exists():
            if job.done():
                ended = ended or time.monotonic()
                if time.monotonic() - ended > GRACE:
                    raise RuntimeError(f"job {job.job_id} ended without a result, in state {job.state}")
            if self._stopped.wait(POLL):
                job.cancel()
                raise CancelledError
        result: T = job.result()
        return result

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for all jobs, or for those that have begun, or for none: then they are cancelled."""
        if not wait:
            self._stopped.set()
        super().shutdown(wait=True, cancel_futures=cancel_futures)


def connect_slurm(kind: str, *, workers: int | None, folder: str | os.PathLike[str]) -> JobExecutor:
    """Return an executor of Slurm jobs, by submitit's options; ``cluster=local`` needs no Slurm."""
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
