"""The files of a run store, opened with care: what is there may be damaged, or not from hoplens."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from hoplens.errors import FileError, HoplensError
from hoplens.files import usable_path
from hoplens.studies.sweeps.checked import damaged
from hoplens.text import printable

DATABASE = "runs.sqlite"
TENSORS = "tensors"
LOCK = "sweep.lock"
LOG = "sweep.log"
DRIVER = "driver.json"
FILES = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", LOCK, LOG, DRIVER)
TENSOR_FILE = re.compile(rf"{TENSORS}/[0-9a-f]+\.safetensors")  # of a store; no way out of its folder
WEIGHTS = ("weight", "readout", "offset")  # tensors of a network whose weights are kept


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turn what SQLite says about a damaged or locked file into a FileError."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeError) as error:
        raise FileError(
            f"cannot use the run store {printable(folder)} ({printable(error)}); if a copy exists, take "
            "that, else sweep into another folder"
        ) from None


def holds_store(folder: Path) -> bool:
    """Return whether a folder holds a run store.

    Raises
    ------
    FileError
        If a file of it is no regular file: opening a pipe would wait for ever.
    """
    for name in FILES:
        place = usable_path(folder / name)
        if place.exists() and not place.is_file():
            raise damaged(folder, f"{name} is no regular file")
    return (folder / DATABASE).is_file()


@contextmanager
def open_tensors(folder: Path, name: object) -> Iterator[Any]:
    """Open a file of tensors of a store.

    Parameters
    ----------
    folder : Path
        Of the store.
    name : str
        As the table has it, e.g. ``tensors/0123.safetensors``.

    Raises
    ------
    FileError
        If it is not there, damaged, or outside of the store.
    """
    if not isinstance(name, str) or not TENSOR_FILE.fullmatch(name):
        raise damaged(folder, f"{printable(name)} is no file of tensors in it")
    path = folder / name
    try:
        if not path.is_file():
            raise FileError(f"cannot read {path} (it is not there); `hoplens sweep --resume` trains it again")
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, HoplensError):
            raise
        first = printable((str(error).splitlines() or [type(error).__name__])[0])
        raise FileError(
            f"cannot read {path} ({first}): it was damaged; `hoplens sweep --resume` trains it again"
        ) from None


__all__ = [
    "DATABASE",
    "DRIVER",
    "FILES",
    "LOCK",
    "LOG",
    "TENSORS",
    "WEIGHTS",
    "holds_store",
    "open_tensors",
    "readable",
]
