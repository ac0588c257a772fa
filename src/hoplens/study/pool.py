"""Run the shards of a study on all cores and keep each as it finishes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TypeVar

import pandas as pd
import torch
from torch import Tensor

from hoplens.errors import check_count
from hoplens.study.store import AnyShard, ShardStore

S = TypeVar("S", bound=AnyShard)
Finished = tuple[pd.DataFrame, dict[str, Tensor]]
Progress = Callable[[AnyShard, int, int], None]


def run_shards(
    shards: Sequence[S],
    store: ShardStore,
    work: Callable[[S], Finished],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    done: int = 0,
    total: int | None = None,
) -> int:
    """Do the work of all shards that the store does not hold yet; return the number of networks done.

    Parameters
    ----------
    shards : sequence of AnyShard
    store : ShardStore
    work : callable
        Trains and measures a shard; a function of a module, so that other processes find it.
    workers : int, optional
        Processes, one thread each; default one a core. 1 runs in this process.
    progress : callable, optional
        Called as ``progress(shard, networks done, networks in all)`` after every shard.
    done, total : int
        Networks done before, and in all, for ``progress``.
    """
    here = sum(len(shard.networks) for shard in shards)
    total = done + here if total is None else total
    missing = [shard for shard in shards if store.load(shard) is None]
    done += here - sum(len(shard.networks) for shard in missing)
    if progress is not None and missing and done:
        progress(missing[0], done, total)
    count = min(check_count("workers", workers or os.cpu_count() or 1), max(1, len(missing)))
    for shard, (frame, maps) in _finished(missing, work, count):
        store.save(shard, frame, maps)
        done += len(shard.networks)
        if progress is not None:
            progress(shard, done, total)
    return done


def _finished(shards: list[S], work: Callable[[S], Finished], workers: int) -> Iterator[tuple[S, Finished]]:
    """Yield shards as they get done, in any order."""
    if workers == 1:
        for shard in shards:
            yield shard, work(shard)
        return
    # One thread a process: small batched products gain nothing from threads, and two busy thread pools on
    # the same cores slow each other down. Spawned, not forked: PyTorch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        running: dict[Future[Finished], S] = {pool.submit(work, shard): shard for shard in shards}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    pool.shutdown()


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the workers
    torch.set_num_threads(1)


__all__ = ["Finished", "Progress", "run_shards"]
