"""Run a study into its results folder, and read one back: the folder is a run store that belongs to it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from hoplens.errors import FileError, check_choice
from hoplens.files import make_folder
from hoplens.studies.comparison.results import StudyResults
from hoplens.studies.comparison.tables import read_tables
from hoplens.studies.sweeps.config import Study, parse_study
from hoplens.studies.sweeps.plan import Plan
from hoplens.studies.sweeps.running import Progress, run_stages
from hoplens.studies.sweeps.store import DATABASE, open_store

OLD_MARK = "study.json"  # what hoplens wrote before results folders were run stores
STUDIES = ("paper", "paper-quick", "real", "real-quick")


def study_text(name: str) -> str:
    """Return a study file of the package: paper, paper-quick, real or real-quick."""
    check_choice("study of the package", name, STUDIES)
    return resources.files("hoplens.studies.comparison").joinpath(f"{name}.toml").read_text(encoding="utf-8")


def package_study(name: str) -> Study:
    """Return a study of the package; see `study_text`."""
    return parse_study(study_text(name), f"{name}.toml")


def run_study(
    study: Study,
    folder: Path,
    *,
    workers: int | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> StudyResults:
    """Train and measure everything of a study that the folder does not hold yet, and return its tables.

    The folder is a run store: every finished shard is kept at once, so that an interrupted study goes on
    where it stopped, and ends with the same numbers.
    """
    started = time.monotonic()
    claim_folder(folder, study.plan())
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*are missing as their shards failed", category=UserWarning
        )
        store, plan = run_stages(study, folder, workers=workers, progress=progress)
    with store:
        failures = store.failures(plan.id)
        if len(failures):
            raise FileError(
                f"{failures['networks'].sum()} networks of the study are missing in {folder}, the first as: "
                f"{failures['reason'].iloc[0]}; sweep.log in it says more, and another run tries them again"
            )
        results = read_tables(store, plan.id)
    results.settings["seconds in this run"] = round(time.monotonic() - started)
    return results


def load_results(folder: Path) -> StudyResults:
    """Read the tables of the latest study in a run store, finished or not; runs no code of it."""
    refuse_old(folder)
    with open_store(folder) as store:
        return read_tables(store, store.study_id())


def refuse_old(folder: Path) -> None:
    """Refuse a results folder of a version of hoplens whose results were kept otherwise."""
    if (folder / OLD_MARK).exists():
        raise FileError(
            f"{folder} holds results of an older version of hoplens ({OLD_MARK}), which this one does not "
            "read; choose another folder or move that one away"
        )


def claim_folder(folder: Path, plan: Plan) -> None:
    """Make a results folder, and refuse one that belongs to another study: the first one in its store."""
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


__all__ = ["claim_folder", "load_results", "package_study", "refuse_old", "run_study", "study_text"]
