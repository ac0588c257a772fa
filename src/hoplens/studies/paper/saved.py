"""Read what `reproduce` and `train` left in a folder, and keep what `train` made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from hoplens.errors import FileError, HoplensError, check_count
from hoplens.files import csv_bytes, make_folder, write_atomically
from hoplens.graph.pathways import Pathways
from hoplens.studies.paper.aims import OURS, RIVALS
from hoplens.studies.paper.folder import first_study, refuse_old
from hoplens.studies.paper.plan import full_plan, quick_plan
from hoplens.studies.paper.results import StudyResults
from hoplens.studies.paper.runner import MEASURES, assemble
from hoplens.studies.paper.tables import read_tables
from hoplens.studies.sweeps.checked import damaged, read_object
from hoplens.studies.sweeps.config import Study
from hoplens.studies.sweeps.plan import MAIN, Plan
from hoplens.studies.sweeps.store import RunStore, open_store
from hoplens.training.result import TrainingResult

RUN_MARK = "run.json"
RUN_FORMAT = 1
LABELS = ("input_names", "output_names", "input_modules", "output_modules")


@dataclass(frozen=True, eq=False)
class Run:
    """What ``hoplens train --out`` kept.

    Attributes
    ----------
    title : str
    pathways : Pathways
        All networks, one leading axis E.
    networks : DataFrame
        Their measures, one row a network.
    horizon : int
        Time steps of the task.
    """

    title: str
    pathways: Pathways
    networks: pd.DataFrame
    horizon: int

    @property
    def best(self) -> int:
        """The network of least test error; the first where all diverged."""
        errors = self.networks["test_error"].to_numpy(dtype=float)
        return int(np.where(np.isnan(errors), np.inf, errors).argmin())


def load_study(folder: Path) -> StudyResults:
    """Read the tables of the study in a run store, without running anything that the store holds.

    A finished study that compares `L1`, `paper` and `recommended`, as `reproduce` runs it, is set against the
    paper and the aims; any other one, the latest in the store, is shown as far as it is.

    Raises
    ------
    FileError
        If it is damaged, has no network yet, or is an unfinished one of `reproduce`.
    """
    refuse_old(folder)
    with open_store(folder) as store:
        plan = _paper_plan(store)
        if plan is None:
            return read_tables(store, store.study_id())
        about = store.studies().set_index("id").loc[plan.id]
        if about["done"] < about["rows"]:
            flag = " --quick" if plan.id == quick_plan().id else ""
            again = f"`hoplens reproduce{flag} --out {folder}` runs just these"
            if not flag and plan.id != full_plan().id:
                again = f"`hoplens sweep --resume --store {folder}` runs just these"
            raise FileError(
                f"{folder} lacks {about['rows'] - about['done']} of {about['rows']} networks; {again}"
            )
        rows = store.networks(plan.id)
        lacking = [
            name for name in MEASURES if name not in rows or not pd.api.types.is_numeric_dtype(rows[name])
        ]
        if lacking:
            raise damaged(folder, f"its networks have no number {lacking[0]}")
        return assemble(plan, store, plan.id)


def _paper_plan(store: RunStore) -> Plan | None:
    """Return the plan of the first study in a store if it can be set against the paper, else None."""
    first = first_study(store)
    source = store.source(first)
    found = read_object(source, store.folder, "the study") if source else {}
    if not source or "study" in found or found.get("plugins"):
        return None
    try:
        plan = Study.model_validate_json(source).plan()
    except (ValueError, RecursionError, HoplensError):
        return None  # of another version of hoplens: its tables can still be shown
    methods = {member.network.recipe.name for member in plan.members if member.part == MAIN}
    if plan.id != first or not {OURS, *RIVALS} <= methods:
        return None
    if store.members(first) != [member.row for member in plan.members]:
        raise damaged(store.folder, f"its rows are not those of the study {plan.name}")
    return plan


def save_run(folder: Path, result: TrainingResult, networks: pd.DataFrame, title: str) -> None:
    """Keep the networks of a training run and their measures in a folder, made where it is missing."""
    net = result.pathways
    make_folder(folder)
    (folder / RUN_MARK).unlink(missing_ok=True)  # of an older run: it would vouch for a mixture of both
    tensors = {name: getattr(net, name).detach().cpu().contiguous() for name in ("w_in", "w_rec", "w_out")}
    write_atomically(folder / "pathways.safetensors", save_tensors(tensors))
    write_atomically(folder / "networks.csv", csv_bytes(networks))
    # the mark comes last and says that the run is whole
    mark = {"format": RUN_FORMAT, "title": title, "horizon": result.length}
    mark |= {name: getattr(net, name) for name in LABELS}
    write_atomically(folder / RUN_MARK, json.dumps(mark, indent=2).encode())


def load_run(folder: Path) -> Run:
    """Read a training run.

    Raises
    ------
    FileError
        If a file of it is missing or damaged.
    """
    mark = _read_json(folder / RUN_MARK)
    try:
        tensors = load_tensors((folder / "pathways.safetensors").read_bytes())
        networks = pd.read_csv(folder / "networks.csv")
        networks["test_error"] = networks["test_error"].astype(float)
        labels: dict[str, Any] = {name: mark.get(name) for name in LABELS}
        net = Pathways(tensors["w_in"], tensors["w_rec"], tensors["w_out"], **labels)
        horizon = check_count("horizon", mark["horizon"])
        if mark.get("format") != RUN_FORMAT or net.batch_shape != (len(networks),):
            raise ValueError("its files do not fit together")
    except KeyError as error:
        raise FileError(f"the run in {folder} is damaged (it lacks {error}); train it again") from None
    except (OSError, SafetensorError, ValueError, TypeError, HoplensError) as error:
        raise FileError(f"the run in {folder} is damaged ({_short(error)}); train it again") from None
    return Run(str(mark.get("title")), net, networks, horizon)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FileError(f"{path} is damaged; give another folder, or run it again")
    return found


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


__all__ = ["RUN_MARK", "Run", "load_run", "load_study", "save_run"]
