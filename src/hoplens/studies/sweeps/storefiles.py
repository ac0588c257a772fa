"""The files of a run store, opened with care: what is there may be damaged, or not from hoplens."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from hoplens.errors import FileError, HoplensError
from hoplens.files import usable_path
from hoplens.studies.sweeps.checked import damaged, read_object
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
    """Return whether a folder holds a run store; a file of it that is a pipe, say, is refused."""
    for name in FILES:
        place = usable_path(folder / name)
        if place.exists() and not place.is_file():
            raise damaged(folder, f"{name} is no regular file")
    return (folder / DATABASE).is_file()


@contextmanager
def open_tensors(folder: Path, name: object) -> Iterator[Any]:
    """Open a file of tensors by its name in the table, or raise: it may be gone, damaged or outside."""
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


def lost_networks(folder: Path, rows: Iterable[tuple[str, str, int, str | None]]) -> dict[str, str]:
    """Return the networks whose tensors cannot be read, by key, with the reason.

    A file is read as far as its list of tensors, which also says how long it must be: that finds files that
    are gone, cut short or replaced, but no changed numbers. Rows are key, configuration, slot and file of
    each network; a network of which nothing is kept has no file.
    """
    files: dict[str, set[str] | str] = {}  # names in each file, or why it cannot be read
    lost: dict[str, str] = {}
    for key, config, slot, file in rows:
        wanted = (
            {f"{slot}/{name}" for name in WEIGHTS}
            if _keeps(read_object(config, folder, "a configuration"))
            else set()
        )
        if file is None:
            if wanted:
                lost[key] = "its weights were not written"
            continue
        if file not in files:
            files[file] = _names(folder, file)
        found = files[file]
        if isinstance(found, str):
            lost[key] = found
        elif not wanted <= found:
            lost[key] = f"{file} lacks its weights"
    return lost


def _names(folder: Path, file: str) -> set[str] | str:
    try:
        with open_tensors(folder, file) as opened:
            return set(opened.keys())
    except FileError as error:
        return str(error)


def _keeps(config: dict[str, Any]) -> bool:
    setting = config.get("setting")
    return isinstance(setting, dict) and setting.get("weights") == "all"
