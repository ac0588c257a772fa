"""Write a run store: one driver at a time, each shard in one transaction."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from hoplens.errors import FileError
from hoplens.files import make_folder, write_atomically
from hoplens.sweeps.plan import Member, Plan
from hoplens.sweeps.schema import bring_up_to_date, version_of
from hoplens.sweeps.store import DATABASE, PATIENCE, TENSORS, encode, readable
from hoplens.sweeps.work import Finished, Shard, versions

LOCK = "sweep.lock"
DRIVER = "driver.json"
FULL = ("full", "disk I/O error")  # what SQLite says when it cannot write


class StoreWriter:
    """The one writer of a run store.

    It holds a lock that the operating system drops when the process ends, however it ends; a second
    writer is refused.

    Parameters
    ----------
    folder : Path
        Made where it is missing.

    Raises
    ------
    FileError
        If the folder cannot be written, another sweep is writing to it, or the store is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder, "store")
        self._lock = _take_lock(folder)
        try:
            write_atomically(folder / DRIVER, json.dumps(_driver()).encode())
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
        found = self._connection.execute("SELECT key FROM networks")
        return {key for (key,) in found if key in plan.by_key}

    def errors(self, plan: Plan) -> dict[str, float | None]:
        """Return the test errors of the networks of a plan that the store holds, by key."""
        found = self._connection.execute(
            "SELECT key, json_extract(metrics, '$.test_mse') FROM networks WHERE key IN "
            "(SELECT key FROM members WHERE study = ?)",
            [plan.id],
        )
        return dict(found.fetchall())

    def add(self, plan: Plan, *, workers: int) -> None:
        """Enter a study, and what of it is to be run, unless it is there."""
        if self._connection.execute("SELECT 1 FROM studies WHERE id = ?", [plan.id]).fetchone():
            return
        shards = plan.shards(self.known(plan), workers=workers)
        with self._transaction() as connection:
            row = (plan.id, plan.name, plan.source, time.time(), json.dumps(versions()))
            connection.execute("INSERT INTO studies VALUES (?, ?, ?, ?, ?)", row)
            connection.executemany(
                "INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(plan.id, n, *member.row) for n, member in enumerate(plan.members)],
            )
            connection.executemany(
                "INSERT INTO shards VALUES (?, ?, ?, 'open', 0, '', 0, NULL)",
                [(plan.id, n, json.dumps(shard.keys)) for n, shard in enumerate(shards)],
            )

    def begin(self, plan: Plan) -> None:
        """Enter a study that `grow` adds to; one that is there gets the plan's source."""
        row = (plan.id, plan.name, plan.source, time.time(), json.dumps(versions()))
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO studies VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
                "SET name = excluded.name, source = excluded.source",
                row,
            )

    def grow(self, plan: Plan, members: Sequence[Member], shard: Shard | None) -> int | None:
        """Add rows to a study, and a shard that they need, unless they are there.

        Parameters
        ----------
        plan : Plan
            That the store holds.
        members : sequence of Member
        shard : Shard or None
            Those of their networks that the store does not hold.

        Returns
        -------
        int or None
            Position of the shard.
        """
        keys = None if shard is None else json.dumps(shard.keys)
        with self._transaction() as connection:
            rows, position = (
                connection.execute(
                    f"SELECT coalesce(max(position) + 1, 0) FROM {table} WHERE study = ?", [plan.id]
                )
                for table in ("members", "shards")
            )
            (first,), (place,) = rows.fetchone(), position.fetchone()
            known = (
                "SELECT 1 FROM members WHERE study = ? AND part = ? AND task = ? AND method = ? AND key = ?"
            )
            new = [
                member.row
                for member in members
                if not connection.execute(known, [plan.id, *member.row[:3], member.key]).fetchone()
            ]
            connection.executemany(
                "INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(plan.id, first + n, *row) for n, row in enumerate(new)],
            )
            if keys is None:
                return None
            again = "SELECT position FROM shards WHERE study = ? AND keys = ? AND state != 'done'"
            found = connection.execute(again, [plan.id, keys]).fetchone()
            if found is not None:
                return int(found[0])
            connection.execute(
                "INSERT INTO shards VALUES (?, ?, ?, 'open', 0, '', 0, NULL)", [plan.id, place, keys]
            )
        return int(place)

    def errors_of(self, keys: Sequence[str]) -> dict[str, float | None]:
        """Return the test errors of those of these networks that the store holds; None is NaN."""
        marks = ",".join("?" * len(keys))
        found = self._connection.execute(
            f"SELECT key, json_extract(metrics, '$.test_mse') FROM networks WHERE key IN ({marks})", keys
        )
        return dict(found.fetchall())

    def to_run(self, plan: Plan) -> dict[int, Shard]:
        """Return the shards of a study that are not done, by position; failed ones get another chance.

        The cut is the one of the first time: a shard that is run again is the same batch of networks, and
        so gives the same numbers to the last bit. Only networks that another study has run meanwhile drop
        out.
        """
        known = self.known(plan)
        rows = self._connection.execute(
            "SELECT position, keys FROM shards WHERE study = ? AND state != 'done' ORDER BY position",
            [plan.id],
        ).fetchall()
        left: dict[int, Shard] = {}
        elsewhere = []
        for position, keys in rows:
            members = [plan.by_key[key] for key in json.loads(keys) if key not in known]
            if members:
                left[position] = Shard(members[0].setting, tuple(m.network for m in members))
            else:
                elsewhere.append((plan.id, position))
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE shards SET state = 'done', reason = '' WHERE study = ? AND position = ?", elsewhere
            )
            connection.execute(
                "UPDATE shards SET state = 'open', attempts = 0, reason = '' WHERE study = ? AND "
                "state = 'failed'",
                [plan.id],
            )
        return left

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
        except sqlite3.OperationalError as error:
            _roll_back(connection)
            why = "the disk is full" if any(word in str(error) for word in FULL) else str(error)
            raise FileError(
                f"cannot write to the store {self.folder} ({why}); all finished shards are kept: make room "
                "and run it again"
            ) from None
        except BaseException:
            _roll_back(connection)
            raise


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


def _driver() -> dict[str, Any]:
    return {"process": os.getpid(), "host": socket.gethostname(), "started": time.time()}


def _take_lock(folder: Path) -> sqlite3.Connection:
    """Return a held lock: an exclusive transaction of an empty database, which ends with its process."""
    lock: sqlite3.Connection | None = None
    try:
        lock = sqlite3.connect(folder / LOCK, isolation_level=None, timeout=0.0)
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if lock is not None:
            lock.close()
        if "locked" in str(error):
            who = driver(folder)
            named = f"process {who['process']} on {who['host']}" if who else "another process"
            raise FileError(
                f"a sweep ({named}) is writing to {folder}; wait for it, stop it, or choose another folder"
            ) from None
        raise FileError(f"cannot write to the store {folder} ({error}); choose another folder") from None
    return lock


def driver(folder: Path) -> dict[str, Any] | None:
    """Return who wrote to a store last: process, host, started; None if that is not known."""
    try:
        found = json.loads((folder / DRIVER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"process", "host", "started"} <= set(found) else None


def is_running(folder: Path) -> bool:
    """Return whether a sweep is writing to a store now."""
    path = folder / LOCK
    if not path.is_file():
        return False
    try:
        lock = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.0)
    except sqlite3.OperationalError:
        return False
    try:
        lock.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    finally:
        lock.close()
    return False


__all__ = ["DRIVER", "LOCK", "StoreWriter", "driver", "is_running"]
