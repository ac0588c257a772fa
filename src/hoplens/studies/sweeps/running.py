"""The driver of a sweep: hands out shards, keeps what comes back, and is the only one who writes."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hoplens.errors import FileError, ParameterError, check_count
from hoplens.studies.extensions.files import loaded_sources
from hoplens.studies.sweeps import executors
from hoplens.studies.sweeps.config import Study
from hoplens.studies.sweeps.counter import Best, Progress, SweepCounter
from hoplens.studies.sweeps.estimate import total_seconds
from hoplens.studies.sweeps.limits import check_memory
from hoplens.studies.sweeps.plan import Plan
from hoplens.studies.sweeps.store import RunStore, open_store
from hoplens.studies.sweeps.storefiles import LOG
from hoplens.studies.sweeps.trust import trust
from hoplens.studies.sweeps.work import (
    Failed,
    Finished,
    Shard,
    ShardPayload,
    run_payload,
    run_shard,
    versions,
)
from hoplens.studies.sweeps.writer import StoreWriter

if TYPE_CHECKING:
    from types import FrameType

POLL = 0.2  # seconds between looks at Ctrl-C
GRACE = 15.0  # seconds that Ctrl-C waits for running shards
ATTEMPTS = 3
SHORT = 20.0  # seconds of work below which starting processes does not pay
TRIALS = 3  # settings timed to guess how much work there is

log = logging.getLogger("hoplens.sweeps")


def run_sweep(
    study: Plan | Study,
    store: str | os.PathLike[str],
    *,
    executor: Executor | str | None = None,
    workers: int | None = None,
    attempts: int = ATTEMPTS,
    progress: Callable[[Progress], object] | None = None,
) -> RunStore:
    """Train and measure every network of a study that the store does not hold yet.

    Each finished shard is kept at once, in one transaction. An interrupted or killed sweep goes on where it
    stopped when it is called again, and ends with the same numbers to the last bit on the same machine.
    Ctrl-C waits up to 15 s for running shards and keeps them; a second one stops at once. Messages go to
    ``sweep.log`` in the store.

    Parameters
    ----------
    study : Study or Plan
        From `load_study`, or made in Python. Of a study whose ``report`` names purposes the validation seeds
        are trained first, and the report seeds at the strengths that they choose.
    store : path
        Folder of the run store; made where it is missing. It may hold other studies: networks that it
        knows are not trained again.
    executor : concurrent.futures.Executor or str, optional
        Where shards run; a text as in `connect`. Default: in this process where there is little to do, else
        one process a core, one thread each.
    workers : int, optional
        Processes or jobs at once; default one a core.
    attempts : int, default 3
        A shard over which so many workers were lost is recorded as failed, and the rest goes on.
    progress : callable, optional
        Called with a `Progress` whenever something changed.

    Returns
    -------
    RunStore
        Opened for reading.

    Raises
    ------
    FileError
        If the store cannot be written, another sweep is writing to it, or the executor is gone.
    KeyboardInterrupt
        After Ctrl-C, when all is kept.

    Warns
    -----
    UserWarning
        If shards failed; ``store.failures()`` says why.
    """
    found, _ = run_stages(
        study, Path(store), executor=executor, workers=workers, attempts=attempts, progress=progress
    )
    return found


def run_stages(
    study: Plan | Study,
    folder: Path,
    *,
    executor: Executor | str | None = None,
    workers: int | None = None,
    attempts: int = ATTEMPTS,
    progress: Callable[[Progress], object] | None = None,
) -> tuple[RunStore, Plan]:
    """Run a study as `run_sweep` does; return the store with the last plan that was run.

    Of a study in stages that is the choosing one as long as networks of it are missing.
    """
    check_count("attempts", attempts)
    if workers is not None:
        check_count("workers", workers)
    in_stages = isinstance(study, Study) and study.in_stages
    plan = study if isinstance(study, Plan) else study.plan()
    given = (folder, executor, workers, attempts, progress)
    failed = _run(plan, *given, stage="choosing" if in_stages else "")
    store = open_store(folder)
    if not failed and isinstance(study, Study) and in_stages:
        with store:
            plan = study.chosen_plan(store.networks(plan.id))
        failed = _run(plan, *given, stage="report")
        store = open_store(folder)
    if failed:
        warnings.warn(
            f"{failed} networks of {len(plan.by_key)} are missing as their shards failed; "
            "failures() of the store says why, and another run tries them again",
            stacklevel=3,
        )
    return store, plan


def _run(
    plan: Plan,
    folder: Path,
    executor: Executor | str | None,
    workers: int | None,
    attempts: int,
    progress: Callable[[Progress], object] | None,
    *,
    stage: str,
) -> int:
    """Run what the store lacks of a plan; return how many networks failed."""
    check_plugins(plan)
    with ExitStack() as stack:
        writer = stack.enter_context(StoreWriter(folder))
        stack.enter_context(logged(folder))
        parallel = workers or executors.cores()
        writer.add(plan, workers=1 if executor == "in-process" else parallel)
        shards = writer.to_run(plan)
        if executors.is_local(executor):
            check_memory(shards.values())
        if executor is None:
            executor = "processes" if _is_long(shards, parallel) else "in-process"
        log.info("study %s (%s): %d shards to run, %s", plan.name, plan.id, len(shards), executor)
        log.info("versions: %s", versions())
        if isinstance(executor, str):
            own = executors.connect(executor, workers=workers, folder=folder)
            executor = stack.enter_context(closed(own))
        stop = stack.enter_context(interrupts())
        driver = Driver(plan, writer, shards, executor, workers, attempts, progress, stop, stage)
        driver.run()
    return driver.failed


def check_plugins(plan: Plan) -> None:
    """Raise if a file of the study was loaded again with another text; else note that this user runs it."""
    for source in plan.plugins:
        if source not in loaded_sources():
            raise ParameterError(
                f"{source.path} has changed since the study was read and loaded; read the study again"
            )
    trust(plan.plugins)


@dataclass
class Stop:
    """Whether somebody pressed Ctrl-C."""

    asked: bool = False


@dataclass
class Driver:
    plan: Plan
    writer: StoreWriter
    shards: dict[int, Shard]
    executor: Executor
    workers: int | None
    attempts: int
    progress: Callable[[Progress], object] | None
    stop: Stop
    stage: str = ""
    failed: int = 0
    _running: dict[Future[Finished | Failed], int] = field(default_factory=dict)
    _lost: dict[int, int] = field(default_factory=dict)

    def run(self) -> None:
        """Hand out shards until none is left or somebody pressed Ctrl-C."""
        self._counter = SweepCounter(self.plan, self.writer, self.shards)
        waiting = deque(self.shards)
        self._report()
        told = False
        while waiting or self._running:
            if executors.is_lost(self.executor):
                raise FileError("the executor is gone; all finished shards are kept: start it and this again")
            if not self.stop.asked:
                self._hand_out(waiting)
            else:
                self._call_back()
                if not self._running:
                    break
                if not told:
                    told = True
                    self._report()
            done, _ = wait(self._running, timeout=POLL, return_when=FIRST_COMPLETED)
            for future in done:
                self._take(future, self._running.pop(future), waiting)
        if self.stop.asked:
            log.info("stopped by Ctrl-C, %d shards left", len(waiting))
            raise KeyboardInterrupt
        log.info("done, %d networks failed", self.failed)

    def _hand_out(self, waiting: deque[int]) -> None:
        places = executors.slots(self.executor, self.workers) - len(self._running)
        while waiting and places > 0 and not self.stop.asked:
            position = waiting.popleft()
            try:
                future = self._submit(self.shards[position])
            except RuntimeError as error:  # a pool that broke or was shut down
                raise FileError(
                    f"the executor takes no more work ({error}); all finished shards are kept: run it again"
                ) from None
            self._running[future] = position
            places -= 1

    def _submit(self, shard: Shard) -> Future[Finished | Failed]:
        """Hand out a shard, with the files of extensions if it may go to a process that lacks them."""
        if loaded_sources() and not isinstance(self.executor, executors.InProcess):
            return self.executor.submit(run_payload, ShardPayload.of(shard))
        return self.executor.submit(run_shard, shard)

    def _call_back(self) -> None:
        """Take back what no worker has begun."""
        for future in list(self._running):
            if executors.stands_in_line(self.executor, future) and future.cancel():
                del self._running[future]

    def _take(self, future: Future[Finished | Failed], position: int, waiting: deque[int]) -> None:
        """Keep what came back of a shard."""
        shard = self.shards[position]
        error = CancelledError("it was cancelled") if future.cancelled() else future.exception()
        if error is not None:  # not the shard's own: that comes back as a value
            self._take_lost(position, error, waiting)
            return
        found = future.result()
        if isinstance(found, Failed):
            log.error("shard %d failed: %s", position, found.trace)
            self._fail(position, self._lost.get(position, 0), found.reason)
            return
        self.writer.save(self.plan, position, shard, found)
        self._counter.add(shard, found)
        log.info(
            "shard %d: %d networks on %s in %.1f s (%s)",
            position,
            len(shard.networks),
            found.worker,
            found.seconds["total"],
            shard.setting.label,
        )
        self._report()

    def _take_lost(self, position: int, error: BaseException, waiting: deque[int]) -> None:
        lost = self._lost[position] = self._lost.get(position, 0) + 1
        reason = f"its worker was lost {lost} times ({type(error).__name__}: {error})"
        log.warning("shard %d: %s", position, reason)
        if lost >= self.attempts:
            self._fail(position, lost, reason)
        else:
            self.writer.lost(self.plan, position, lost)
            waiting.append(position)

    def _fail(self, position: int, attempts: int, reason: str) -> None:
        self.failed += len(self.shards[position].networks)
        self.writer.failed(self.plan, position, attempts, reason)
        self._report()

    def _report(self) -> None:
        if self.progress is not None:
            seen = self._counter.progress(self.failed, len(self._running))
            self.progress(replace(seen, stopping=self.stop.asked, stage=self.stage))


def _is_long(shards: dict[int, Shard], workers: int) -> bool:
    """Return whether processes pay: the work is long, by a short trial of its costliest settings."""
    if workers == 1 or len(shards) < 2:
        return False
    seconds = total_seconds(list(shards.values()), TRIALS)
    return seconds is None or seconds > SHORT


def _interrupt() -> None:
    """Send this process's main thread what Ctrl-C sends; a real signal ends a call that waits, too."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


@contextmanager
def interrupts() -> Iterator[Stop]:
    """Turn the first Ctrl-C into a flag; a second one, or `GRACE` seconds after the first, raises as ever."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    timer = threading.Timer(GRACE, _interrupt)  # as if somebody pressed Ctrl-C again
    timer.daemon = True

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the form of a handler
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        timer.start()
        log.warning("Ctrl-C: finishing running shards for at most %g s; once more stops at once", GRACE)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)


@contextmanager
def closed(executor: Executor) -> Iterator[Executor]:
    """End an executor: in peace if all went well, at once if not."""
    try:
        yield executor
    except BaseException:
        executors.end(executor, at_once=True)
        raise
    executors.end(executor, at_once=False)


class _LogFile(logging.FileHandler):
    """A log that keeps silent where it cannot be written: a full disk shows in the store soon enough."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the message."""


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Write the messages of a sweep to a file in its store."""
    handler = _LogFile(folder / LOG, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()


__all__ = ["ATTEMPTS", "LOG", "Best", "Progress", "run_stages", "run_sweep"]
