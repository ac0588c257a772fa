"""What a study may ask for: refused in one line before anything of that size is made."""

from __future__ import annotations

from collections.abc import Iterable

from hoplens.errors import ParameterError
from hoplens.memory import memory_of
from hoplens.studies.sweeps.work import Shard

STUDY_BYTES = 4 << 20  # of a study file
MOST_NETWORKS = 200_000  # of a study: each takes a row, and about 2 kB while the study is planned
MOST_SEED = 2**63 - 1  # what SQLite keeps
MAPS_BYTES = 1 << 30  # of a task's own hop maps


def check_networks(count: int) -> None:
    """Refuse a study of too many networks."""
    if count > MOST_NETWORKS:
        raise ParameterError(
            f"the study has {count:,} networks, at most {MOST_NETWORKS:,} are taken: tasks x sizes x "
            "methods x strengths x seeds; take fewer, or several studies"
        )


def check_task(length: int, inputs: int, outputs: int) -> None:
    """Refuse a built-in task whose hop maps, one number a step, output and input, take too much memory."""
    size = 8 * length * inputs * outputs
    if size > MAPS_BYTES:
        raise ParameterError(
            f"a task of length {length:,}, {inputs:,} inputs and {outputs:,} outputs has {size / 2**30:,.1f} "
            f"GiB of hop maps, at most {MAPS_BYTES >> 30} GiB are taken; make it shorter or smaller"
        )


def check_memory(shards: Iterable[Shard]) -> None:
    """Refuse shards of which one alone takes more memory than this machine has."""
    local = (shard for shard in shards if getattr(shard.setting, "device", "cpu") == "cpu")
    largest = max(local, key=lambda shard: shard.bytes, default=None)
    there = memory_of()
    if largest is None or there is None or largest.bytes <= there:
        return
    setting = largest.setting
    raise ParameterError(
        f"{len(largest.networks)} networks of {setting.hidden:,} hidden units on {setting.label} take about "
        f"{largest.bytes / 2**30:,.0f} GiB while they are trained, but there are {there / 2**30:,.0f} GiB; "
        "make hidden, length, batch or steps smaller"
    )


__all__ = ["MOST_SEED", "STUDY_BYTES", "check_memory", "check_networks", "check_task"]
