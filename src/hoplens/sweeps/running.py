"""The driver of a sweep: hands out shards, keeps what comes back, and is the only one who writes."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hoplens.errors import FileError, ParameterError, check_count
from hoplens.extensions import loaded_sources
from hoplens.statistics import standing
from hoplens.sweeps import executors
from hoplens.sweeps.plan import Plan
from hoplens.sweeps.store import RunStore, open_store
from hoplens.sweeps.work import Failed, Finished, Parcel, Shard, probe, run_parcel, run_shard, versions
from hoplens.sweeps.writer import StoreWriter

if TYPE_CHECKING:
    from types import FrameType

LOG = "sweep.log"
POLL = 0.2  # seconds between looks at Ctrl-C
ATTEMPTS = 3
SHORT = 20.0  # seconds of work below which starting processes does not pay
TRIALS = 3  # settings timed to guess how much work there is

log = logging.getLogger("hoplens.sweeps")


class Study(Protocol):
    """What can be swept: it has a plan."""

    def plan(self) -> Plan:
        """Return everything that the study trains."""
        ...


@dataclass(frozen=True)
class Best:
    """The best strength of a method over the validation seeds seen so far, by `hoplens.statistics.standing`.

    Attributes
    ----------
    task, method : str
    strength : float
    test_mse : float
        Mean test error of the networks that did not diverge.
    lost : int
        Networks that diverged.
    """

    task: str
    method: str
    strength: float
    test_mse: float
    lost: int = 0


@dataclass(frozen=True)
class Progress:
    """How far a sweep is.

    Attributes
    ----------
    done, total : int
        Networks in the store, and networks of the study.
    failed : int
        Networks of shards that failed.
    running : int
        Shards handed out.
    rate : float
        Networks a second in this run; 0 before the first.
    left : float or None
        Estimated seconds to the end.
    best : Best or None
        The best method so far.
    stopping : bool
        Somebody pressed Ctrl-C: no more shards are handed out.
    """

    done: int
    total: int
    failed: int
    running: int
    rate: float
    left: float | None
    best: Best | None
    stopping: bool = False


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
    Ctrl-C lets running shards finish; a second one stops at once. Messages go to ``sweep.log`` in the store.

    Parameters
    ----------
    study : Study or Plan
        From `load_study`, or made in Python.
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
    plan = study if isinstance(study, Plan) else study.plan()
    check_count("attempts", attempts)
    if workers is not None:
        check_count("workers", workers)
    check_plugins(plan)
    folder = Path(store)
    with ExitStack() as stack:
        writer = stack.enter_context(StoreWriter(folder))
        stack.enter_context(logged(folder))
        parallel = workers or executors.cores()
        writer.add(plan, workers=1 if executor == "in-process" else parallel)
        shards = writer.to_run(plan)
        if executor is None:
            executor = "processes" if _is_long(shards, parallel) else "in-process"
        log.info("study %s (%s): %d shards to run, %s", plan.name, plan.id, len(shards), executor)
        log.info("versions: %s", versions())
        if isinstance(executor, str):
            own = executors.connect(executor, workers=workers, folder=folder)
            executor = stack.enter_context(closed(own))
        stop = stack.enter_context(interrupts())
        driver = Driver(plan, writer, shards, executor, workers, attempts, progress, stop)
        driver.run()
    if driver.failed:
        warnings.warn(
            f"{driver.failed} networks of {len(plan.by_key)} are missing as their shards failed; "
            "failures() of the store says why, and another run tries them again",
            stacklevel=2,
        )
    return open_store(folder)


def check_plugins(plan: Plan) -> None:
    """Raise if a file of the study was loaded again with another text: workers would get that one."""
    for source in plan.plugins:
        if source not in loaded_sources():
            raise ParameterError(
                f"{source.path} has changed since the study was read and loaded; read the study again"
            )


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
    failed: int = 0
    _running: dict[Future[Finished | Failed], int] = field(default_factory=dict)
    _lost: dict[int, int] = field(default_factory=dict)

    def run(self) -> None:
        """Hand out shards until none is left or somebody pressed Ctrl-C."""
        self._tally = self._start()
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

    def _start(self) -> Tally:
        return _Tally(self.plan, self.writer, self.shards)

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
            return self.executor.submit(run_parcel, Parcel.of(shard))
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
        self._keep(position, shard, found)
        log.info(
            "shard %d: %d networks on %s in %.1f s (%s)",
            position,
            len(shard.networks),
            found.worker,
            found.seconds["total"],
            shard.setting.label,
        )
        self._report()

    def _keep(self, position: int, shard: Shard, found: Finished) -> None:
        self.writer.save(self.plan, position, shard, found)
        self._tally.add(shard, found)

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
            seen = self._tally.progress(self.failed, len(self._running))
            self.progress(replace(seen, stopping=self.stop.asked))


class Tally(Protocol):
    """Counts what is done."""

    def add(self, shard: Shard, found: Finished) -> None:
        """Count a finished shard."""
        ...

    def progress(self, failed: int, running: int) -> Progress:
        """Return how far it is."""
        ...


class _Tally:
    """Counts what is done, how fast, and which method is best so far."""

    def __init__(self, plan: Plan, writer: StoreWriter, shards: dict[int, Shard]) -> None:
        self.plan, self.started = plan, time.monotonic()
        self.total = len(plan.by_key)
        self.done = self.before = self.total - sum(len(shard.networks) for shard in shards.values())
        self.cost_left = sum(shard.cost for shard in shards.values())
        self.cost_done = 0.0
        self.errors: dict[tuple[str, str, str, float], list[float]] = {}
        for key, error in writer.errors(plan).items():
            self._note(key, error)

    def add(self, shard: Shard, found: Finished) -> None:
        self.done += len(shard.networks)
        self.cost_done += shard.cost
        self.cost_left -= shard.cost
        for key, record in zip(shard.keys, found.records, strict=True):
            self._note(key, record.get("test_mse"))

    def _note(self, key: str, error: object) -> None:
        member = self.plan.by_key[key]
        if member.role == "validation":
            cell = (member.part, member.task, member.network.recipe.name, member.network.strength)
            number = float(error) if isinstance(error, int | float) else math.nan
            self.errors.setdefault(cell, []).append(number)

    def progress(self, failed: int, running: int) -> Progress:
        seconds = time.monotonic() - self.started
        rate = (self.done - self.before) / seconds if seconds else 0.0
        left = seconds * self.cost_left / self.cost_done if self.cost_done else None
        best = None
        if self.errors:
            cell, errors = min(self.errors.items(), key=lambda item: standing(item[1]))
            share, mean = standing(errors)
            best = Best(*cell[1:], mean, lost=round(share * len(errors))) if share < 1 else None
        return Progress(self.done, self.total, failed, running, rate, left, best)


def _is_long(shards: dict[int, Shard], workers: int) -> bool:
    """Return whether processes pay: the work is long, by a short trial of its costliest settings."""
    if workers == 1 or len(shards) < 2:
        return False
    settings = {shard.setting: shard for shard in shards.values()}
    seconds = 0.0
    for shard in sorted(settings.values(), key=lambda shard: -shard.setting.cost)[:TRIALS]:
        alike = sum(s.cost for s in shards.values() if s.setting == shard.setting)
        found = probe(shard)
        if found is None:
            return True
        seconds += found * alike / shard.cost
        if seconds > SHORT:
            return True
    return False


@contextmanager
def interrupts() -> Iterator[Stop]:
    """Turn the first Ctrl-C into a flag; the second raises as ever."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the form of a handler
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        log.warning("Ctrl-C: stopping after the running shards; once more stops at once")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
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


__all__ = ["ATTEMPTS", "LOG", "Best", "Progress", "run_sweep"]
