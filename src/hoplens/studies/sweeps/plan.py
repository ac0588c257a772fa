"""What a study trains, network by network, and how it is cut into shards."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from hoplens.errors import ParameterError, check_count
from hoplens.studies.extensions.files import SourceFile
from hoplens.studies.sweeps.describe import content_hash
from hoplens.studies.sweeps.work import Setting, Shard
from hoplens.training.settings import Network

MAIN = "main"
# States of the networks of a shard, in bytes: less leaves the processor waiting for the next call, more
# does not fit its cache. Measured by benchmarks/sweep_overhead.py.
SHARD_BYTES = 8 << 20
MOST_NETWORKS = 256  # of one shard: what is lost when it is lost
SHARD_SECONDS = 15.0  # on a busy core: how often progress shows, and how long Ctrl-C waits


@dataclass(frozen=True)
class Member:
    """One row of a study: a network and what the study calls it."""

    part: str
    task: str  # what tables call it
    network: Network
    role: str  # "validation" or "report": whether its seed chooses strengths or is reported
    setting: Setting

    @cached_property
    def key(self) -> str:
        """Content hash of the network."""
        return self.setting.key(self.network)

    @property
    def row(self) -> tuple[str, str, str, float, int, str, str]:
        """What the store keeps of it: part, task, method, strength, seed, role, key."""
        n = self.network
        return self.part, self.task, n.recipe.name, float(n.strength), n.seed, self.role, self.key


@dataclass(frozen=True)
class Plan:
    """Everything that a study trains."""

    name: str
    members: tuple[Member, ...]
    source: str = ""  # the study as JSON; empty for a plan made in Python
    plugins: tuple[SourceFile, ...] = ()

    def __post_init__(self) -> None:
        if not self.members:
            raise ParameterError("a study needs at least one network: a task, a method and a seed")
        seen: set[tuple[object, ...]] = set()
        for member in self.members:
            row = member.row[:5]
            if row in seen:
                part, task, method, strength, seed = row
                raise ParameterError(
                    f"the study names a network twice: {method} of strength {strength:g}, seed {seed}, on "
                    f"{task} in part {part}; give methods or tasks other names, or take one out"
                )
            seen.add(row)

    @cached_property
    def id(self) -> str:
        """Content hash of the study: of its rows, not of its name."""
        return content_hash([member.row for member in self.members])

    @cached_property
    def by_key(self) -> dict[str, Member]:
        """Return one member a network; several rows may share one."""
        return {member.key: member for member in reversed(self.members)}

    def shards(self, known: Collection[str] = (), *, workers: int = 1) -> list[Shard]:
        """Cut what is not known yet into shards, in multiples of the workers unless they would get small."""
        check_count("workers", workers)
        groups: dict[Setting, list[Network]] = {}
        seen = set(known)
        for member in self.members:
            if member.key not in seen:
                seen.add(member.key)
                groups.setdefault(member.setting, []).append(member.network)
        return [shard for setting, networks in groups.items() for shard in cut(setting, networks, workers)]


def shard_size(setting: Setting) -> int:
    """Return how many networks of a setting are best trained as one batch.

    So many that their states fit the cache, but no longer than `SHARD_SECONDS`, unless the calls alone take a
    good part of that: smaller batches would then only add calls.
    """
    size = min(MOST_NETWORKS, SHARD_BYTES // max(1, setting.state_bytes))
    batch, each = setting.rough_seconds
    if each > 0:
        size = min(size, int(max(SHARD_SECONDS - batch, batch) / each))
    return max(1, size)


def cut(setting: Setting, networks: Iterable[Network], workers: int = 1) -> list[Shard]:
    """Cut networks of one setting into shards of nearly equal size, whatever their penalty or strength.

    Networks of one seed come together: they share their data, which is then drawn once.
    """
    ordered = sorted(networks, key=lambda network: network.seed)
    size = shard_size(setting)
    pieces = -(-len(ordered) // size)
    rounded = -(-pieces // workers) * workers
    if len(ordered) >= rounded * max(2, size) / 2:  # else shards would get too small to be worth it
        pieces = rounded
    bounds = [len(ordered) * n // pieces for n in range(pieces + 1)]
    return [Shard(setting, tuple(ordered[start:stop])) for start, stop in pairwise(bounds)]
