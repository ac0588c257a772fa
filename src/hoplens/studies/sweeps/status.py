"""How far a store is, whether or not somebody is writing to it."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hoplens.studies.statistics import standing
from hoplens.studies.sweeps.lock import driver, is_running
from hoplens.studies.sweeps.store import RunStore

if TYPE_CHECKING:
    import pandas as pd

RECENT = 50  # finished shards from which the rate is taken


@dataclass(frozen=True, eq=False)
class Status:
    """What a store holds of a study, and whether a sweep is at work."""

    study: str
    name: str
    total: int
    done: int
    open: int
    failed: int
    running: bool
    driver: str
    rate: float | None
    left: float | None
    # One row a task: task, method, strength, test_error (mean of the networks that did not diverge; NaN where
    # all did), seeds, lost (networks that diverged); the best over the validation seeds that are there.
    best: pd.DataFrame
    failures: pd.DataFrame


def status(folder: str | os.PathLike[str], study: str | None = None) -> Status:
    """Return how far a store is; works while a sweep writes, after it, and after it was killed."""
    with RunStore(folder) as store:
        ident = store.study_id(study)
        counts = store.query(
            "SELECT s.name, count(DISTINCT m.key) AS total, count(DISTINCT n.key) AS done FROM studies s "
            "JOIN members m ON m.study = s.id LEFT JOIN networks n ON n.key = m.key WHERE s.id = ?",
            [ident],
        ).iloc[0]
        shards, failures = store.shards(ident), store.failures(ident)
        best = _best(store, ident)
    running = is_running(Path(folder))
    rate = _rate(shards)
    left = (int(counts["total"]) - int(counts["done"])) / rate if running and rate else None
    states = shards["state"].value_counts()
    return Status(
        study=ident,
        name=str(counts["name"]),
        total=int(counts["total"]),
        done=int(counts["done"]),
        open=int(states.get("open", 0)),
        failed=int(states.get("failed", 0)),
        running=running,
        driver=_driver(Path(folder)),
        rate=rate,
        left=left,
        best=best,
        failures=failures,
    )


def _rate(shards: pd.DataFrame) -> float | None:
    """Return networks a second between the first and the last of the shards that finished last."""
    done = shards[(shards["state"] == "done") & shards["finished"].notna()].sort_values("finished")
    recent = done.tail(RECENT + 1)
    if len(recent) < 2:
        return None
    seconds = float(recent["finished"].iloc[-1] - recent["finished"].iloc[0])
    return float(recent["networks"].iloc[1:].sum()) / seconds if seconds > 0 else None


def _best(store: RunStore, study: str) -> pd.DataFrame:
    import pandas as pd

    rows = store.query(
        "SELECT m.part, m.task, m.method, m.strength, COALESCE("
        "json_extract(n.metrics, '$.validation_error'), json_extract(n.metrics, '$.test_error'), "
        "json_extract(n.metrics, '$.test_mse')) AS test_error "  # as `choosing_error`, and of older stores
        "FROM members m JOIN networks n ON n.key = m.key WHERE m.study = ? AND m.role = 'validation'",
        [study],
    )
    found: dict[str, tuple[tuple[float, float], dict[str, object]]] = {}
    for (_, name, method, strength), own in rows.groupby(["part", "task", "method", "strength"], sort=False):
        task = str(name)
        share, mean = order = standing(pd.to_numeric(own["test_error"], errors="coerce"))
        if task not in found or order < found[task][0]:
            error, lost = mean if share < 1 else math.nan, round(share * len(own))
            row = {"task": task, "method": method, "strength": strength}
            found[task] = order, {**row, "test_error": error, "seeds": len(own), "lost": lost}
    columns = ["task", "method", "strength", "test_error", "seeds", "lost"]
    return pd.DataFrame([row for _, row in found.values()], columns=columns)


def _driver(folder: Path) -> str:
    found = driver(folder)
    if found is None:
        return "unknown"
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(found["started"]))
    return f"process {found['process']} on {found['host']}, begun {began}"


def clock(seconds: float) -> str:
    """Return a time for people: 45 s, 12 min, 3 h 05 min, 2 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


__all__ = ["Status", "clock", "status"]
