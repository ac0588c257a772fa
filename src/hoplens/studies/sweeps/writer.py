"""Write a run store: one driver at a time, each shard in one transaction."""

from __future__ import annotations

import json
import logging
import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from hoplens.errors import FileError
from hoplens.files import make_folder, write_atomically
from hoplens.studies.sweeps.checked import damaged, read_keys, read_measures
from hoplens.studies.sweeps.lock import take_lock, this_driver
from hoplens.studies.sweeps.plan import Plan
from hoplens.studies.sweeps.schema import bring_up_to_date, version_of
from hoplens.studies.sweeps.store import PATIENCE, encode
from hoplens.studies.sweeps.storefiles import (
    DATABASE,
    DRIVER,
    TENSORS,
    holds_store,
    lost_networks,
    readable,
)
from hoplens.studies.sweeps.work import Finished, Shard, versions
from hoplens.text import printable

NEW_SHARD = "INSERT INTO shards VALUES (?, ?, ?, 'open', 0, '', 0, NULL)"
FULL = ("full", "disk I/O error")  # what SQLite says when it cannot write

log = logging.getLogger("hoplens.sweeps")


class StoreWriter:
    """The one writer of a run store.

    It holds a lock that the operating system drops when the process ends, however it ends; a second
    writer is refused.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder, "store")
        holds_store(folder)  # no file of it is a pipe
        self._lock = take_lock(folder)
        try:
            write_atomically(folder / DRIVER, json.dumps(this_driver()).encode())
            make_folder(folder / TENSORS, "store")
            with readable(folder):
                self._connection = _connect(folder)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._lock.close()

    def known(self, plan: Plan) -> set[str]:
        """Return which networks of a plan the store holds."""
        return {key for (key,) in self._read("SELECT key FROM networks") if key in plan.by_key}

    def errors(self, plan: Plan) -> dict[str, float]:
        """Return the errors to choose by of those of a plan that the store holds, by key; NaN where lost."""
        found: dict[str, float] = {}
        sql = "SELECT key, metrics FROM networks WHERE key IN (SELECT key FROM members WHERE study = ?)"
        for key, text in self._read(sql, [plan.id]):
            measures = read_measures(text, self.folder)
            error = measures.get("validation_error", measures.get("test_error"))
            if isinstance(error, str):
                raise damaged(self.folder, f"the test error of a network is {printable(error, most=40)!r}")
            found[key] = math.nan if error is None else float(error)
        return found

    def _read(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with readable(self.folder):
            return self._connection.execute(sql, tuple(values)).fetchall()

    def add(self, plan: Plan, *, workers: int) -> None:
        """Enter a study, and what of it is to be run, unless it is there."""
        if self._read("SELECT 1 FROM studies WHERE id = ?", [plan.id]):
            return
        shards = plan.shards(self.known(plan), workers=workers)
        with self._transaction() as connection:
            row = (plan.id, plan.name, plan.source, time.time(), json.dumps(versions()))
            connection.execute("INSERT INTO studies VALUES (?, ?, ?, ?, ?)", row)
            connection.executemany(
                "INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(plan.id, n, *member.row) for n, member in enumerate(plan.members)],
            )
            connection.executemany(NEW_SHARD, [(plan.id, n, _keys(s)) for n, s in enumerate(shards)])

    def drop_lost(self, plan: Plan) -> int:
        """Forget the networks of a study whose tensors are not there or damaged; return how many.

        All networks of such a file go, so that their shard is trained again as the same batch.
        """
        sql = (
            "SELECT key, config, slot, tensors FROM networks WHERE key IN "
            "(SELECT key FROM members WHERE study = ?)"
        )
        lost = lost_networks(self.folder, self._read(sql, [plan.id]))
        for key, reason in lost.items():
            log.warning("network %s is trained again: %s", key, reason)
        with self._transaction() as connection:
            connection.executemany("DELETE FROM networks WHERE key = ?", [(key,) for key in lost])
        return len(lost)

    def to_run(self, plan: Plan) -> dict[int, Shard]:
        """Return the shards of a study whose networks are not all there, by position.

        Failed ones get another chance, and what was lost is trained again. The cut is the one of the first
        time: a shard that is run again is the same batch of networks, and so gives the same numbers to the
        last bit. Only networks that another study has run meanwhile drop out.
        """
        self.drop_lost(plan)
        known, covered = self.known(plan), set[str]()
        rows = self._read("SELECT position, keys FROM shards WHERE study = ? ORDER BY position", [plan.id])
        left: dict[int, Shard] = {}
        there = []
        for position, text in rows:
            keys = read_keys(text, self.folder)
            covered.update(keys)
            missing = [key for key in keys if key not in known]
            if missing:
                left[position] = self._shard(plan, missing)
            else:
                there.append((plan.id, position))
        more = plan.shards(known | covered)  # rows of shards may be lost too
        first = max((position for position, _ in rows), default=-1) + 1
        left |= {first + n: shard for n, shard in enumerate(more)}
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE shards SET state = 'done', reason = '' WHERE study = ? AND position = ? AND "
                "state != 'done'",
                there,
            )
            connection.executemany(
                "UPDATE shards SET state = 'open', attempts = 0, reason = '' WHERE study = ? AND "
                "position = ? AND state != 'open'",
                [(plan.id, position) for position in left],
            )
            connection.executemany(NEW_SHARD, [(plan.id, first + n, _keys(s)) for n, s in enumerate(more)])
        return left

    def _shard(self, plan: Plan, keys: Sequence[str]) -> Shard:
        members = [plan.by_key.get(key) for key in keys]
        found = [member for member in members if member is not None]
        if len(found) < len(members):
            raise damaged(self.folder, f"a shard of {plan.name} has a network that is not of the study")
        shard = Shard(found[0].setting, tuple(member.network for member in found))
        if shard.keys != list(keys):
            raise damaged(self.folder, f"a shard of {plan.name} has networks that do not go together")
        return shard

    def save(self, plan: Plan, position: int, shard: Shard, found: Finished) -> None:
        """Keep a finished shard: its tensors first, then all its rows in one transaction."""
        name = None
        if found.tensors:
            name = f"{TENSORS}/{shard.key}.safetensors"
            write_atomically(self.folder / name, found.tensors)
        now, share = time.time(), 1 / len(shard.networks)
        seconds = json.dumps({part: value * share for part, value in found.seconds.items()})
        rows = [
            (
                key,
                shard.setting.config(network),
                network.seed,
                encode(record),
                seconds,
                json.dumps(found.versions),
                found.device,
                found.worker,
                now,
                shard.key,
                slot,
                name,
            )
            for slot, (key, network, record) in enumerate(
                zip(shard.keys, shard.networks, found.records, strict=True)
            )
        ]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO networks (key, config, seed, metrics, seconds, versions, device, worker, "
                "finished, shard, slot, tensors) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            connection.execute(
                "UPDATE shards SET state = 'done', seconds = ?, finished = ? "
                "WHERE study = ? AND position = ?",
                [found.seconds["total"], now, plan.id, position],
            )

    def lost(self, plan: Plan, position: int, attempts: int) -> None:
        """Note that a worker was lost over a shard."""
        self._note(plan, position, "open", attempts, "")

    def failed(self, plan: Plan, position: int, attempts: int, reason: str) -> None:
        """Note that a shard failed for good."""
        self._note(plan, position, "failed", attempts, reason)

    def _note(self, plan: Plan, position: int, state: str, attempts: int, reason: str) -> None:
        with self._transaction() as connection:
            connection.execute(
                "UPDATE shards SET state = ?, attempts = ?, reason = ?, finished = ? "
                "WHERE study = ? AND position = ?",
                [state, attempts, reason, time.time(), plan.id, position],
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Run a block whose changes all happen, or none."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            _roll_back(connection)
            why = "the disk is full" if any(word in str(error) for word in FULL) else str(error)
            raise FileError(
                f"cannot write to the store {self.folder} ({why}); all finished shards are kept: make room "
                "and run it again"
            ) from None
        except BaseException:
            _roll_back(connection)
            raise


def _keys(shard: Shard) -> str:
    return json.dumps(shard.keys)


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _connect(folder: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(folder / DATABASE, isolation_level=None, timeout=PATIENCE)
    except sqlite3.OperationalError as error:
        raise FileError(f"cannot write to the store {folder} ({error}); choose another folder") from None
    try:
        version = version_of(connection, str(folder))
        # readers are not held up by a writer, and the last commits survive a power cut
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        bring_up_to_date(connection, version)
    except sqlite3.OperationalError as error:
        connection.close()
        raise FileError(f"cannot write to the store {folder} ({error}); choose another folder") from None
    except BaseException:
        connection.close()
        raise
    return connection


__all__ = ["StoreWriter"]
