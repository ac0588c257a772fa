"""Read a run store: an SQLite database and safetensors files in one folder."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hoplens.errors import FileError, HoplensError, ParameterError, UnknownNameError, check_choice
from hoplens.files import csv_bytes, usable_path, write_atomically
from hoplens.studies.sweeps.checked import check_rows, damaged, read_keys, read_object, spread
from hoplens.studies.sweeps.schema import VERSION, bring_up_to_date, version_of
from hoplens.studies.sweeps.storefiles import (
    DATABASE,
    TENSORS,
    WEIGHTS,
    holds_store,
    open_tensors,
    readable,
)
from hoplens.text import printable

if TYPE_CHECKING:
    import pandas as pd

    from hoplens.models.ensemble import Ensemble

NUMERIC = ("test_error", "diverged_at")  # measures that every store has, and that are numbers
PATIENCE = 20.0  # seconds to wait for a writer's commit

NETWORKS = """
SELECT m.part, m.task, m.method, m.strength, m.seed, m.role, m.key, n.metrics, n.seconds, n.versions,
    n.device, n.worker, n.finished, n.config
FROM members m JOIN networks n ON n.key = m.key
"""


class RunStore:
    """A run store, opened for reading; any number of readers may look on while a sweep writes.

    Parameters
    ----------
    folder : path
        What `run_sweep` wrote.

    Raises
    ------
    FileError
        If there is none, or it is damaged, or of a later version of hoplens.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = usable_path(folder)
        if not holds_store(self.folder):
            raise FileError(
                f"{printable(folder)} holds no run store ({DATABASE}); `hoplens sweep` writes one"
            )
        with readable(self.folder):
            self._connection = self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = _open(self._place())
        try:
            version = version_of(connection, str(self.folder))
            if version == VERSION:
                return connection
            # readers change nothing on disk: an older store is brought up to date in memory
            memory = sqlite3.connect(":memory:", isolation_level=None)
            connection.backup(memory)
            bring_up_to_date(memory, version)
        except BaseException:
            connection.close()
            raise
        connection.close()
        return memory

    def _place(self) -> str:
        """Return the database as an address for reading."""
        path = self.folder / DATABASE
        wal = path.with_name(f"{DATABASE}-wal")
        if os.access(self.folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            return f"{path.absolute().as_uri()}?mode=ro"
        if not wal.exists():  # SQLite would make files beside it; without a log nobody writes
            return f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        if path.with_name(f"{DATABASE}-shm").exists():
            return f"{path.absolute().as_uri()}?mode=ro"
        raise FileError(
            f"the sweep that wrote {printable(self.folder)} was killed, and the folder cannot be written: "
            "copy it to read the copy"
        )

    def __enter__(self) -> RunStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def query(self, sql: str, values: Sequence[object] = ()) -> pd.DataFrame:
        """Return the rows of an SQL question as a table.

        Parameters
        ----------
        sql : str
            One SELECT; the tables stand in `hoplens.sweeps.schema`.
        values : sequence, optional
            For its question marks.
        """
        import pandas as pd

        with readable(self.folder):
            try:
                cursor = self._connection.execute(sql, tuple(values))
            except (sqlite3.Error, sqlite3.Warning, OverflowError, ValueError) as error:
                if "locked" in str(error) or "disk" in str(error):
                    raise
                raise ParameterError(f"SQLite cannot answer {sql!r} ({error})") from None
            rows = cursor.fetchall()
        return pd.DataFrame(rows, columns=[column[0] for column in cursor.description or ()])

    def _rows(self, sql: str, values: Sequence[object] = (), *, numbers: Sequence[str] = ()) -> pd.DataFrame:
        """Return the rows of a question of our own; columns of the same name come once."""
        try:
            found = self.query(sql, values)
        except ParameterError as error:
            raise damaged(self.folder, str(error)) from None
        found = found.loc[:, ~found.columns.duplicated()]
        return check_rows(found, self.folder, numbers=numbers)

    def studies(self) -> pd.DataFrame:
        """Return the studies, oldest first: id, name, created, rows, done (rows whose networks are there)."""
        return self._rows(
            "SELECT s.id, s.name, s.created, count(m.key) AS rows, count(n.key) AS done "
            "FROM studies s JOIN members m ON m.study = s.id LEFT JOIN networks n ON n.key = m.key "
            "GROUP BY s.id ORDER BY s.created, s.rowid"
        )

    def study_id(self, study: str | None = None) -> str:
        """Return the id of a study by its id or name; the latest one by default.

        Parameters
        ----------
        study : str, optional
            Id or name; of several of one name the latest.
        """
        found = self.studies()
        if study is not None:
            matches = found[(found["id"] == study) | (found["name"] == study)]
            if matches.empty:
                known = ", ".join(dict.fromkeys(found["name"]))
                raise UnknownNameError(
                    f"{self.folder} holds no study {printable(study)!r}; it holds: {printable(known)}"
                )
            found = matches
        if found.empty:
            raise FileError(f"{self.folder} holds no study yet; `hoplens sweep` runs one into it")
        return str(found["id"].iloc[-1])

    def source(self, study: str | None = None) -> str:
        """Return a study (see `study_id`) as JSON, as `Study` reads it; empty if it was made in Python."""
        rows = self._rows("SELECT source FROM studies WHERE id = ?", [self.study_id(study)])
        return str(rows["source"].iloc[0])

    def networks(
        self, study: str | None = None, *, part: str | None = None, details: bool = False
    ) -> pd.DataFrame:
        """Return one row a finished network of a study, in the order of the study.

        Parameters
        ----------
        study : str, optional
            See `study_id`; the latest by default.
        part : str, optional
            Of this part of the study only.
        details : bool, default False
            Add what differs from run to run: time by part (``seconds_*``), device, worker, versions,
            finished (seconds since 1970), and the whole configuration as JSON.

        Returns
        -------
        DataFrame
            Columns part, task, method, strength, seed, role, key, then the measures.
        """
        where = "m.study = ?" if part is None else "m.study = ? AND m.part = ?"
        values = [self.study_id(study)] if part is None else [self.study_id(study), part]
        rows = self._rows(f"{NETWORKS} WHERE {where} ORDER BY m.position", values)
        columns = ["part", "task", "method", "strength", "seed", "role", "key"]
        parts = [rows[columns], spread(rows["metrics"], self.folder, numeric=NUMERIC)]
        if details:
            seconds, versions = (spread(rows[name], self.folder) for name in ("seconds", "versions"))
            parts += [
                seconds.add_prefix("seconds_"),
                rows[["device", "worker", "finished", "config"]],
                versions.add_prefix("version_"),
            ]
        import pandas as pd

        table = pd.concat(parts, axis=1)
        if table.columns.has_duplicates:
            twice = table.columns[table.columns.duplicated()][0]
            raise damaged(self.folder, f"a measure is called {printable(twice)}, as another column")
        return table

    def shards(self, study: str | None = None) -> pd.DataFrame:
        """Return the shards of a study (see `study_id`), with state, attempts, reason and times."""
        rows = self._rows(
            "SELECT position, keys, state, attempts, reason, seconds, finished FROM shards "
            "WHERE study = ? ORDER BY position",
            [self.study_id(study)],
            numbers=["seconds"],
        )
        rows.insert(1, "networks", [len(read_keys(text, self.folder)) for text in rows.pop("keys")])
        return rows

    def members(self, study: str | None = None) -> list[tuple[str, str, str, float, int, str, str]]:
        """Return the rows of a study (see `study_id`): part, task, method, strength, seed, role and key."""
        rows = self._rows(
            "SELECT part, task, method, strength, seed, role, key FROM members WHERE study = ? ORDER BY "
            "position",
            [self.study_id(study)],
        )
        return list(rows.astype(object).itertuples(index=False, name=None))

    def failures(self, study: str | None = None) -> pd.DataFrame:
        """Return the shards of a study (see `study_id`) that failed."""
        found = self.shards(study)
        return found[found["state"] == "failed"].reset_index(drop=True)

    def config(self, key: str) -> dict[str, Any]:
        """Return the whole configuration of a network.

        Parameters
        ----------
        key : str
            Its content hash, from ``networks()``.
        """
        return read_object(self._row(key)["config"], self.folder, "a network's configuration")

    def tensors(self, key: str) -> dict[str, Tensor]:
        """Return what is kept of a network beside its measures; empty if nothing is.

        Parameters
        ----------
        key : str
            Its content hash, from ``networks()``.
        """
        row = self._row(key)
        if row["tensors"] is None:
            return {}
        start = f"{row['slot']}/"
        with open_tensors(self.folder, row["tensors"]) as file:
            names = [name for name in file.keys() if name.startswith(start)]  # noqa: SIM118 - no dict
            return {name.removeprefix(start): file.get_tensor(name) for name in names}

    def ensemble(self, key: str) -> Ensemble:
        """Return a trained network as an ensemble of one.

        Parameters
        ----------
        key : str
            Its content hash, from ``networks()``.

        Raises
        ------
        FileError
            If its weights were not kept.
        """
        from hoplens.models.ensemble import Ensemble

        found, config = self.tensors(key), self.config(key)
        if "weight" not in found:
            raise FileError(
                f'the weights of network {printable(key)} were not kept; set weights = "all" in the study'
            )
        try:
            weight, readout, offset = (found[name][None] for name in WEIGHTS)
            settings = config["setting"]["settings"]
            cell = settings.get("cell") or settings["activation"]  # as older stores call it
            return Ensemble(weight, readout, offset, cell, settings["leak"])
        except (HoplensError, KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            reason = printable(f"{type(error).__name__}: {error}")
            raise damaged(self.folder, f"network {printable(key)} is no network: {reason}") from None

    def export(self, path: str | os.PathLike[str], study: str | None = None) -> Path:
        """Write ``networks(details=True)`` of a study as Parquet or CSV.

        Parameters
        ----------
        path : path
            File to write; its ending says which.
        study : str, optional
            See `study_id`; the latest by default.
        """
        kind = check_choice("kind of table", Path(path).suffix.lstrip("."), ("csv", "parquet"))
        frame = self.networks(study, details=True)
        if kind == "csv":  # 17 digits give back every bit
            return write_atomically(path, csv_bytes(frame))
        try:
            import pyarrow  # noqa: F401 - what pandas writes Parquet with
        except ImportError:
            raise ParameterError("Parquet needs pyarrow: pip install 'hoplens[parquet]'") from None
        return write_atomically(path, frame.to_parquet(index=False))

    def _row(self, key: str) -> dict[str, Any]:
        found = self._rows("SELECT config, slot, tensors FROM networks WHERE key = ?", [key])
        if found.empty:
            raise UnknownNameError(
                f"{self.folder} holds no network {printable(key)!r}; take a key from networks()"
            )
        return {str(name): value for name, value in found.astype(object).iloc[0].items()}


def open_store(folder: str | os.PathLike[str]) -> RunStore:
    """Open a run store for reading, also while a sweep writes into it.

    Parameters
    ----------
    folder : path
        What `run_sweep` or ``hoplens sweep`` wrote.

    Returns
    -------
    RunStore

    Raises
    ------
    FileError
        If there is none, or it is damaged, or of a later version of hoplens.
    """
    return RunStore(folder)


def _open(place: str) -> sqlite3.Connection:
    return sqlite3.connect(place, uri=True, isolation_level=None, timeout=PATIENCE, check_same_thread=False)


def encode(values: dict[str, Any]) -> str:
    """Return measures as JSON, to the last bit: NaN as null, infinity as a number too large for a float."""
    return "{" + ",".join(f"{json.dumps(name)}:{_literal(value)}" for name, value in values.items()) + "}"


def _literal(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "null" if math.isnan(value) else ("9e999" if value > 0 else "-9e999")
    return json.dumps(value)


__all__ = ["DATABASE", "PATIENCE", "TENSORS", "RunStore", "encode", "open_store", "readable"]
