"""Whether the tensors that a store's networks should have are there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hoplens.errors import FileError
from hoplens.studies.sweeps.checked import read_object
from hoplens.studies.sweeps.store import RunStore
from hoplens.studies.sweeps.storefiles import WEIGHTS, open_tensors


def lost_networks(folder: Path, rows: Iterable[tuple[str, str, int, str | None]]) -> dict[str, str]:
    """Return the networks whose tensors cannot be read, by key, with the reason.

    A file is read as far as its list of tensors, which also says how long it must be: that finds files that
    are gone, cut short or replaced, but no changed numbers.

    Parameters
    ----------
    folder : Path
        Of the store.
    rows : iterable of tuple
        Key, configuration, slot and file of each network; a network of which nothing is kept has no file.
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


def check_store(folder: str | os.PathLike[str], study: str | None = None) -> dict[str, str]:
    """Return which finished networks of a study lost their tensors, by key, with the reason.

    ``hoplens sweep --resume`` trains them again.

    Parameters
    ----------
    folder : path
        The store.
    study : str, optional
        Id or name; the latest by default.

    Raises
    ------
    FileError
        If there is no store, or its tables are damaged.
    """
    with RunStore(folder) as store:
        rows = store.files(study)
    values = rows[["key", "config", "slot", "tensors"]].itertuples(index=False, name=None)
    return lost_networks(Path(folder), values)


def _names(folder: Path, file: str) -> set[str] | str:
    try:
        with open_tensors(folder, file) as opened:
            return set(opened.keys())
    except FileError as error:
        return str(error)


def _keeps(config: dict[str, Any]) -> bool:
    setting = config.get("setting")
    return isinstance(setting, dict) and setting.get("weights") == "all"


__all__ = ["check_store", "lost_networks"]
