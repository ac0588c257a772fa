"""The results folder of a study: a run store that belongs to it, with tables, figures and pages beside."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from hoplens.errors import FileError
from hoplens.files import make_folder
from hoplens.studies.sweeps.plan import Plan
from hoplens.studies.sweeps.running import Progress, run_sweep
from hoplens.studies.sweeps.store import DATABASE, RunStore, open_store

OLD_MARK = "study.json"  # what hoplens wrote before results folders were run stores


def open_folder(folder: Path) -> tuple[RunStore, str]:
    """Open the run store of a results folder; also return the id of its study, the first in the store.

    Raises
    ------
    FileError
        If there is none, or it is damaged, or of another version of hoplens.
    """
    refuse_old(folder)
    store = open_store(folder)
    try:
        return store, first_study(store)
    except BaseException:
        store.close()
        raise


def first_study(store: RunStore) -> str:
    """Return the id of the study that a results folder belongs to: the first one in its store.

    Raises
    ------
    FileError
        If there is none yet.
    """
    studies = store.studies()
    if studies.empty:
        raise FileError(f"{store.folder} holds no study yet; `hoplens reproduce --out` runs one into it")
    return str(studies["id"].iloc[0])


def refuse_old(folder: Path) -> None:
    """Refuse a results folder of a version of hoplens whose results were kept otherwise."""
    if (folder / OLD_MARK).exists():
        raise FileError(
            f"{folder} holds results of an older version of hoplens ({OLD_MARK}), which this one does not "
            "read; choose another folder or move that one away"
        )


def claim_folder(folder: Path, plan: Plan) -> None:
    """Make a results folder, and refuse one that belongs to another study.

    Raises
    ------
    FileError
        If the folder cannot be made, or holds something else.
    """
    make_folder(folder, "results folder")
    refuse_old(folder)
    if not (folder / DATABASE).exists():
        return
    with open_store(folder) as store:
        studies = store.studies()
    if len(studies) and studies["id"].iloc[0] != plan.id:
        raise FileError(
            f"{folder} holds another study ({studies['name'].iloc[0]}, id {studies['id'].iloc[0]}); choose "
            "another --out or move that folder away"
        )


def run_plan(
    plan: Plan,
    folder: Path,
    *,
    workers: int | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> RunStore:
    """Train and measure all of a plan that the folder does not hold yet; return its store, opened.

    Parameters
    ----------
    plan : Plan
    folder : Path
    workers, progress
        As in `run_sweep`.

    Raises
    ------
    FileError
        If networks are missing as their shards failed.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*are missing as their shards failed", category=UserWarning
        )
        store = run_sweep(plan, folder, workers=workers, progress=progress)
    failures = store.failures(plan.id)
    if len(failures):
        store.close()
        raise FileError(
            f"{failures['networks'].sum()} networks of the study are missing in {folder}, the first as: "
            f"{failures['reason'].iloc[0]}; sweep.log in it says more, and another run tries them again"
        )
    return store


def versions_in(store: RunStore, study: str) -> dict[str, str]:
    """Return which versions of PyTorch and Python computed a study."""
    rows = store.networks(study, details=True)
    columns = {name: f"version_{name}" for name in ("torch", "python")}
    return {
        name: ", ".join(sorted({str(version) for version in rows[column]}))
        for name, column in columns.items()
        if column in rows.columns
    }


__all__ = ["OLD_MARK", "claim_folder", "first_study", "open_folder", "refuse_old", "run_plan", "versions_in"]
