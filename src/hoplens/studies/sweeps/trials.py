"""The driver of a search: runs the trials of all its cells side by side."""

from __future__ import annotations

import math
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property

from hoplens.studies.statistics import standing
from hoplens.studies.sweeps.counter import Best, Progress, ProgressCounter
from hoplens.studies.sweeps.describe import content_hash
from hoplens.studies.sweeps.method_search import MethodSearch
from hoplens.studies.sweeps.plan import Plan
from hoplens.studies.sweeps.running import Driver
from hoplens.studies.sweeps.work import Failed, Finished, Shard


@dataclass(frozen=True)
class SearchPlan(Plan):
    """The study that a search grows; its members are the first trials.

    Attributes
    ----------
    mark : str
        Hash of what else determines the search.
    """

    mark: str = ""

    @cached_property
    def id(self) -> str:
        """Content hash of the search, whatever the number of its trials."""
        return content_hash([self.mark, [member.row for member in self.members]])


@dataclass
class SearchDriver(Driver):
    """A driver to which every finished trial gives the next one of its cell."""

    _cells: dict[int, MethodSearch] = field(
        default_factory=dict
    )  # by position of the shard that its trial waits for
    _parked: list[MethodSearch] = field(default_factory=list)  # waiting for a network that another one trains
    _next: deque[int] = field(default_factory=deque)

    def search(self, cells: list[MethodSearch], trials: int, seconds: float | None) -> None:
        """Run the trials of cells whose first one is begun already."""
        self.trials = trials
        self.deadline = math.inf if seconds is None else time.monotonic() + seconds
        self.counter = _Trials(cells, trials)
        for cell in cells:
            self._advance(cell)
        self._next.clear()  # `run` begins with all shards that there are
        self.run()

    def _start(self) -> ProgressCounter:
        return self.counter

    def _advance(self, cell: MethodSearch) -> None:
        """Go on with a cell, over all trials that the store knows, to one that is to be trained."""
        while True:
            keys = [member.key for member in cell.networks]
            errors = self.writer.errors_of(keys)
            missing = [member for member in cell.networks if member.key not in errors]
            running = {key for n in self._cells for key in self.shards[n].keys}
            if any(member.key in running for member in missing):
                self._parked.append(cell)
                return
            shard = Shard(missing[0].setting, tuple(m.network for m in missing)) if missing else None
            position = self.writer.grow(self.plan, cell.networks, shard)
            if shard is not None and position is not None:
                self.shards[position], self._cells[position] = shard, cell
                self._next.append(position)
                return
            if not self._tell(cell, [errors[key] for key in keys]):
                return

    def _tell(self, cell: MethodSearch, errors: list[float] | None) -> bool:
        """End a cell's trial, and begin its next if there is one."""
        found = None
        if errors is not None:
            lost, mean = standing(errors)
            found = math.inf if lost else mean
        cell.tell(found)
        self.counter.note(cell)
        last = self.trials if cell.spans else 1
        if self.stop.asked or cell.asked >= last or time.monotonic() > self.deadline:
            return False
        cell.ask()
        return True

    def _take(self, future: Future[Finished | Failed], position: int, waiting: deque[int]) -> None:
        super()._take(future, position, waiting)
        waiting.extend(self._next)
        self._next.clear()

    def _keep(self, position: int, shard: Shard, found: Finished) -> None:
        super()._keep(position, shard, found)
        cell = self._cells.pop(position)
        errors = self.writer.errors_of([member.key for member in cell.networks])
        self._go_on(cell, [errors[member.key] for member in cell.networks])

    def _fail(self, position: int, attempts: int, reason: str) -> None:
        super()._fail(position, attempts, reason)
        self._go_on(self._cells.pop(position), None)

    def _go_on(self, cell: MethodSearch, errors: list[float] | None) -> None:
        parked, self._parked = self._parked, []
        if self._tell(cell, errors):
            parked.append(cell)
        for other in parked:
            self._advance(other)


class _Trials:
    """Counts the networks of trials, and knows the best."""

    def __init__(self, cells: list[MethodSearch], trials: int) -> None:
        self.cells, self.started, self.trained = cells, time.monotonic(), 0
        self.seeds = len(cells[0].study.seeds.validation)
        self.total = self.seeds * sum(trials if cell.spans else 1 for cell in cells)
        self.done = 0

    def note(self, cell: MethodSearch) -> None:  # noqa: ARG002 - which one does not matter
        """Count a trial."""
        self.done += self.seeds

    def add(self, shard: Shard, found: Finished) -> None:  # noqa: ARG002 - as in a sweep
        """Count a finished shard."""
        self.trained += len(shard.networks)

    def progress(self, failed: int, running: int) -> Progress:
        """Return how far the search is."""
        seconds = time.monotonic() - self.started
        rate = self.trained / seconds if seconds else 0.0
        left = (self.total - self.done) / rate if rate else None
        found = [(cell.best[0], cell, cell.best[1][0]) for cell in self.cells if cell.best is not None]
        best = None
        if found:
            error, cell, member = min(found, key=lambda item: item[0])
            best = Best(cell.label, cell.recipe.name, member.network.strength, error)
        return Progress(self.done, self.total, failed, running, rate, left, best)


__all__ = ["SearchDriver", "SearchPlan"]
