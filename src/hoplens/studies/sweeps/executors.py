"""Where shards run: in this process, in a pool of processes, on a dask cluster, or by Slurm."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from typing import Any, TypeVar

import torch

from hoplens.errors import FileError, ParameterError, check_count

T = TypeVar("T")

PATIENCE = 10.0  # seconds in which a scheduler must answer
AHEAD = 2  # shards handed to a remote worker at once, so that it never waits for the driver
KINDS = ("in-process", "processes", "dask://HOST:PORT", "slurm://?OPTIONS")


class InProcess(Executor):
    """Run everything at once in this process."""

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a function now."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # an interrupt shall go through
            future.set_exception(error)
        return future


class ProcessLanes(Executor):
    """Single-process pools side by side.

    When a process dies, just its own shard is lost, and it is known which; its lane gets a new process.
    Processes end with the driver, even if that is killed.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = cores() if workers is None else check_count("workers", workers)
        self._lanes: list[ProcessPoolExecutor | None] = [None] * self.workers
        self._busy: dict[int, Future[Any]] = {}

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a function in a free lane, or in line behind another if there is none."""
        free = (n for n in range(self.workers) if n not in self._busy or self._busy[n].done())
        lane = next(free, 0)
        pool = self._lanes[lane] or self._start(lane)
        try:
            future = pool.submit(function, *args, **kwargs)
        except BrokenExecutor:
            future = self._start(lane).submit(function, *args, **kwargs)
        self._busy[lane] = future
        return future

    def _start(self, lane: int) -> ProcessPoolExecutor:
        old = self._lanes[lane]
        if old is not None:
            old.shutdown(wait=False)
        # spawned, not forked: PyTorch's threads do not survive a fork
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(1, mp_context=context, initializer=start_worker)
        self._lanes[lane] = pool
        return pool

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End all processes."""
        for pool in filter(None, self._lanes):
            processes = list((getattr(pool, "_processes", None) or {}).values())
            pool.shutdown(wait=wait, cancel_futures=cancel_futures)
            if not wait:
                for process in processes:
                    process.terminate()
        self._lanes = [None] * self.workers


def start_worker() -> None:
    """Make this process a worker: one thread, deaf to Ctrl-C, ended with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends the workers
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def connect(kind: str, *, workers: int | None, folder: str | os.PathLike[str]) -> Executor:
    """Return the executor that one of `KINDS` names, e.g. ``slurm://?slurm_partition=short&timeout_min=60``."""
    if kind == "in-process":
        return InProcess()
    if kind == "processes":
        return ProcessLanes(workers)
    if kind.startswith("dask://"):
        return _dask(kind)
    if kind.startswith("slurm://"):
        from hoplens.studies.sweeps.slurm import connect_slurm

        return connect_slurm(kind, workers=workers, folder=folder)
    raise ParameterError(f"unknown executor {kind!r}; known: {', '.join(KINDS)}")


def _dask(kind: str) -> Executor:
    try:
        from distributed import Client
    except ImportError:
        raise ParameterError(f"{kind} needs dask.distributed: pip install 'hoplens[dask]'") from None
    address = kind.removeprefix("dask://")
    try:
        client = Client(f"tcp://{address}", timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(
            f"no dask scheduler answers at {address} ({reason}); start one with `dask scheduler` and workers "
            "with `dask worker`"
        ) from None
    # not pure: dask must not answer from its memory; tasks that a lost worker held it runs again by itself
    executor: Executor = client.get_executor(pure=False)
    return executor


def is_local(executor: Executor | str | None) -> bool:
    """Return whether shards run on this machine, as far as is known: dask and Slurm have their own."""
    if isinstance(executor, str):
        return executor in ("in-process", "processes")
    return executor is None or isinstance(executor, InProcess | ProcessLanes)


def slots(executor: Executor, workers: int | None) -> int:
    """Return how many shards an executor shall hold at once."""
    if isinstance(executor, InProcess):
        return 1
    if isinstance(executor, ProcessLanes):
        return executor.workers
    client = getattr(executor, "_client", None)  # dask's; its workers come and go
    if client is not None:
        try:
            threads: dict[str, int] = client.nthreads()
        except (OSError, AttributeError):  # the latter from a client that was closed
            return 0
        return AHEAD * max(1, sum(threads.values()))
    known: int | None = workers or getattr(executor, "_max_workers", None)
    return known or int(getattr(executor, "workers", cores()))


def stands_in_line(executor: Executor, future: Future[Any]) -> bool:
    """Return whether a shard was handed out and is known not to run yet; dask does not say."""
    return not hasattr(executor, "_client") and not future.running() and not future.done()


def end(executor: Executor, *, at_once: bool) -> None:
    """Close an executor that `connect` opened, after what runs or at once."""
    client = getattr(executor, "_client", None)
    if client is None:
        executor.shutdown(wait=not at_once, cancel_futures=at_once)
        return
    if at_once and client.status == "running":
        executor.shutdown(wait=False)  # takes the shards back from the workers
    client.close(timeout=PATIENCE if client.status == "running" else 0.5)


def is_lost(executor: Executor) -> bool:
    """Return whether an executor as a whole is gone, as a dask scheduler that does not answer is."""
    client = getattr(executor, "_client", None)
    return client is not None and client.status not in ("running", "connecting")
