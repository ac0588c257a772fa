"""Who writes to a run store: one process at a time, by a lock that ends with it."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

from hoplens.errors import FileError
from hoplens.files import read_text
from hoplens.studies.sweeps.storefiles import DRIVER, LOCK
from hoplens.text import printable

MOST_BYTES = 4096  # of the note that says who writes
LATEST = 253_402_300_800  # seconds since 1970: the end of the year 9999
LARGEST_PROCESS = 2**32


def this_driver() -> dict[str, Any]:
    return {"process": os.getpid(), "host": socket.gethostname(), "started": time.time()}


def take_lock(folder: Path) -> sqlite3.Connection:
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
        found = json.loads(read_text(folder / DRIVER, "note of the driver", most=MOST_BYTES))
    except (FileError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    process, host, started = found.get("process"), found.get("host"), found.get("started")
    if not isinstance(process, int) or not isinstance(host, str) or not isinstance(started, int | float):
        return None
    if not (0 <= started < LATEST and 0 <= process < LARGEST_PROCESS):
        return None
    return {"process": process, "host": printable(host, most=60), "started": float(started)}


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


__all__ = ["driver", "is_running", "take_lock", "this_driver"]
