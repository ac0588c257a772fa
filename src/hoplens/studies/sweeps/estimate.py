"""What a study would take: networks, time and memory, from a short trial of every setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hoplens.studies.sweeps.plan import Plan
from hoplens.studies.sweeps.work import Shard, probe

PROCESS_BYTES = 512 << 20  # of a worker that has trained and measured something small; measured on Linux
TRIALS = 12  # settings tried; the time of others is taken to go with their cost


@dataclass(frozen=True)
class Estimate:
    """What is left to do of a study.

    Attributes
    ----------
    networks : int
        Networks of the study.
    known : int
        Those that the store holds.
    shards : int
        Batches that the others make.
    largest : int
        Networks in the largest batch.
    workers : int
    seconds : float or None
        On that many workers, without measuring; None if it cannot be tried.
    bytes : int
        Memory of all workers.
    """

    networks: int
    known: int
    shards: int
    largest: int
    workers: int
    seconds: float | None
    bytes: int


def estimate(plan: Plan, shards: Sequence[Shard], *, workers: int) -> Estimate:
    """Estimate a study by training each of its settings for some steps.

    Parameters
    ----------
    plan : Plan
    shards : sequence of Shard
        What is left to run.
    workers : int
        Processes, one thread each.
    """
    left = sum(len(shard.networks) for shard in shards)
    rows = [shard.bytes for shard in shards]
    at_once = sum(sorted(rows)[-workers:])
    return Estimate(
        networks=len(plan.by_key),
        known=len(plan.by_key) - left,
        shards=len(shards),
        largest=max((len(shard.networks) for shard in shards), default=0),
        workers=workers,
        seconds=_seconds(shards, workers),
        bytes=at_once + PROCESS_BYTES * min(workers, max(1, len(shards))),
    )


def _seconds(shards: Sequence[Shard], workers: int) -> float | None:
    kinds: dict[object, list[Shard]] = {}
    for shard in shards:
        kinds.setdefault(shard.setting, []).append(shard)
    tried: list[tuple[float, float]] = []  # cost of one shard, and its seconds
    total, rest = 0.0, 0.0
    for alike in kinds.values():
        cost = sum(shard.cost for shard in alike)
        seconds = probe(alike[0]) if len(tried) < TRIALS else None
        if seconds is None:
            rest += cost
            continue
        tried.append((alike[0].cost, seconds))
        total += seconds * cost / alike[0].cost
    if rest and not tried:
        return None
    if rest:
        total += rest * sum(seconds for _, seconds in tried) / sum(cost for cost, _ in tried)
    return total / min(workers, max(1, len(shards)))


__all__ = ["PROCESS_BYTES", "Estimate", "estimate"]
