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
    """What is left to do of a study."""

    networks: int
    known: int
    shards: int
    largest: int
    seconds: float | None  # on all workers, without measuring; None if it cannot be tried
    bytes: int  # of all workers


def estimate(plan: Plan, shards: Sequence[Shard], *, workers: int) -> Estimate:
    """Estimate a study by training each of its settings for some steps."""
    left = sum(len(shard.networks) for shard in shards)
    rows = [shard.bytes for shard in shards]
    at_once = sum(sorted(rows)[-workers:])
    busy = min(workers, max(1, len(shards)))
    seconds = total_seconds(shards)
    return Estimate(
        networks=len(plan.by_key),
        known=len(plan.by_key) - left,
        shards=len(shards),
        largest=max((len(shard.networks) for shard in shards), default=0),
        seconds=None if seconds is None else seconds / busy,
        bytes=at_once + PROCESS_BYTES * busy,
    )


def total_seconds(shards: Sequence[Shard], trials: int = TRIALS) -> float | None:
    """Return the time of all shards in a row, by trying the costliest settings; None if unknown."""
    kinds: dict[object, list[Shard]] = {}
    for shard in shards:
        kinds.setdefault(shard.setting, []).append(shard)
    tried: list[tuple[float, float]] = []  # cost of one shard, and its seconds
    total, rest = 0.0, 0.0
    for alike in sorted(kinds.values(), key=lambda alike: -alike[0].setting.cost):
        cost = sum(shard.cost for shard in alike)
        seconds = probe(alike[0]) if len(tried) < trials else None
        if seconds is None:
            rest += cost
            continue
        tried.append((alike[0].cost, seconds))
        total += seconds * cost / alike[0].cost
    if rest and not tried:
        return None
    if rest:
        total += rest * sum(seconds for _, seconds in tried) / sum(cost for cost, _ in tried)
    return total


__all__ = ["PROCESS_BYTES", "Estimate", "estimate", "total_seconds"]
