"""A store as TensorBoard runs: one a cell (part, task, method, strength), with settings and measures."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoplens.errors import FileError, ParameterError
from hoplens.files import make_folder
from hoplens.studies.sweeps.store import RunStore

if TYPE_CHECKING:
    import pandas as pd

CELL = ["part", "task", "method", "strength"]
LABELS = [*CELL, "seed", "role", "key"]  # columns that are no measures
Plain = bool | int | float | str


def export_tensorboard(
    store: RunStore | str | os.PathLike[str], folder: str | os.PathLike[str], study: str | None = None
) -> int:
    """Write a study as event files, for ``tensorboard --logdir FOLDER``.

    Each combination of part, task, method and strength becomes a run with its settings as hyper-parameters.
    Its scalars are ``mean/ROLE/MEASURE``, the mean over the seeds that are there, and ``ROLE/MEASURE``, whose
    step is the seed. What is NaN is left out.

    Parameters
    ----------
    store : RunStore or path
    folder : path
        New or empty.
    study : str, optional
        Id or name; the latest by default.

    Returns
    -------
    int
        Number of runs.

    Raises
    ------
    ParameterError
        If TensorBoard is missing.
    FileError
        If the folder holds something or cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams
    except ImportError:
        raise ParameterError("this export needs TensorBoard: pip install 'hoplens[tensorboard]'") from None
    if not isinstance(store, RunStore):
        with RunStore(store) as opened:
            return export_tensorboard(opened, folder, study)
    rows = store.networks(study, details=True)
    measures = [name for name in store.networks(study).columns if name not in LABELS]
    place = make_folder(Path(folder), "folder of the runs")
    if any(place.iterdir()):
        raise FileError(f"{place} holds files already; name a new folder, so that no run is shown twice")
    names: set[str] = set()
    cell: Any
    for cell, networks in rows.groupby(CELL, sort=False):
        settings = _settings(dict(zip(CELL, cell, strict=True)), networks["config"].iloc[0])
        writer = SummaryWriter(os.fspath(place / _name(cell, names)))  # type: ignore[no-untyped-call, unused-ignore]
        means = dict(_means(networks, measures))
        for summary in hparams(settings, means):  # type: ignore[no-untyped-call, unused-ignore]
            writer._get_file_writer().add_summary(summary)
        for tag, value in means.items():
            writer.add_scalar(tag, value)
        for row in networks.sort_values("seed").to_dict("records"):
            for measure in measures:
                if _is_finite(row[measure]):
                    tag = f"{row['role']}/{measure}"
                    writer.add_scalar(tag, row[measure], row["seed"], walltime=row["finished"])
        writer.close()
    return len(names)


def _name(cell: tuple[Any, ...], taken: set[str]) -> str:
    """Return a folder of its own for a cell."""
    words = [repr(part) if isinstance(part, float) else str(part) for part in cell]
    name = base = "/".join(re.sub(r"[^\w ,()+=.-]", "_", word).strip(". ") or "_" for word in words)
    while name in taken:
        name = f"{base} {len(taken)}"
    taken.add(name)
    return name


def _settings(labels: Mapping[str, Plain], config: str) -> dict[str, Plain]:
    return {**labels, **dict(_leaves(json.loads(config)["setting"]))}


def _leaves(data: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Plain]]:
    """Yield the numbers and texts of a configuration, with dotted names."""
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{start}{name}.")
        elif isinstance(value, bool | int | float | str) and name != "is":
            yield f"{start}{name}", value


def _means(networks: pd.DataFrame, measures: list[str]) -> Iterator[tuple[str, float]]:
    for role, rows in networks.groupby("role"):
        for measure in measures:
            if rows[measure].map(_is_finite).any():
                yield f"mean/{role}/{measure}", float(rows[measure][rows[measure].map(_is_finite)].mean())


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


__all__ = ["export_tensorboard"]
