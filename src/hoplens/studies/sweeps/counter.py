"""How far a sweep is, how fast, and which method is best so far."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from hoplens.studies.statistics import standing
from hoplens.studies.sweeps.plan import Plan
from hoplens.studies.sweeps.work import Finished, Shard
from hoplens.studies.sweeps.writer import StoreWriter


@dataclass(frozen=True)
class Best:
    """The best strength of a method over the validation seeds so far, by `hoplens.statistics.standing`."""

    task: str
    method: str
    strength: float
    test_error: float  # mean of the networks that did not diverge
    lost: int = 0  # networks that diverged


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
    stage : str
        "choosing" or "report" of a study in stages.
    """

    done: int
    total: int
    failed: int
    running: int
    rate: float
    left: float | None
    best: Best | None
    stopping: bool = False
    stage: str = ""


class SweepCounter:
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
            self._note(key, record.get("validation_error", record.get("test_error")))

    def _note(self, key: str, error: object) -> None:
        member = self.plan.by_key.get(key)
        if member is None:  # of rows of a study that somebody changed
            return
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


__all__ = ["Best", "Progress", "SweepCounter"]
