"""Read what `reproduce` and `train` left in a folder, and keep what `train` made."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from hoplens.errors import FileError, ShapeError
from hoplens.files import write_atomically
from hoplens.pathways import Pathways
from hoplens.study.plan import full_plan, quick_plan
from hoplens.study.results import StudyResults
from hoplens.study.runner import assemble
from hoplens.study.store import MARK, ShardStore
from hoplens.training import TrainingResult

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
        errors = self.networks["test_mse"].to_numpy(dtype=float)
        known = [n for n in range(len(errors)) if errors[n] == errors[n]]
        return min(known, key=lambda n: float(errors[n]), default=0)


def load_study(folder: Path) -> StudyResults:
    """Read a finished study without running anything.

    Raises
    ------
    FileError
        If it is damaged, unfinished, or of another version of hoplens.
    """
    mark = _read_json(folder / MARK)
    plans = {plan.name: plan for plan in (quick_plan(), full_plan())}
    plan = plans.get(str(mark.get("plan")))
    if plan is None or plan.key != mark.get("key"):
        return _from_tables(folder, mark)
    store = ShardStore(folder, plan)
    shards = plan.shards()
    missing = sum(store.load(shard) is None for shard in shards)
    if missing:
        flag = " --quick" if plan.name == "quick" else ""
        raise FileError(
            f"{folder} lacks {missing} of {len(shards)} parts of its study, or they are damaged; "
            f"`hoplens reproduce{flag} --out {folder}` runs just these"
        )
    results = assemble(plan, store, seconds=0.0)
    settings = {name: value for name, value in results.settings.items() if name != "seconds in this run"}
    return dataclasses.replace(results, settings=settings)


def _from_tables(folder: Path, mark: dict[str, Any]) -> StudyResults:
    """Read a study of another plan or version from its tables; its example maps cannot be known."""
    names = [
        field.name for field in dataclasses.fields(StudyResults) if field.name not in ("examples", "settings")
    ]
    try:
        frames = {name: _table(folder / f"{name}.csv") for name in names}
    except (OSError, ValueError) as error:
        raise FileError(
            f"{folder} holds a study that this version of hoplens does not know ({mark.get('plan')}), and "
            f"its tables cannot be read ({_short(error)}); run `hoplens reproduce` into another folder"
        ) from None
    known: dict[str, Any] = frames
    return StudyResults(
        **known, settings={"plan": f"{mark.get('plan')} (key {mark.get('key')}, read from its tables)"}
    )


def _table(path: Path) -> pd.DataFrame:
    """Read a table of a study; parts that a study leaves out have none."""
    if path.stem in ("reach", "ablation") and not path.exists():
        return pd.DataFrame()
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def save_run(folder: Path, result: TrainingResult, networks: pd.DataFrame, title: str) -> None:
    """Keep the networks of a training run and their measures in a folder, made where it is missing."""
    net = result.pathways
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {folder} ({error.strerror}); choose another --out") from None
    tensors = {name: getattr(net, name).detach().cpu().contiguous() for name in ("w_in", "w_rec", "w_out")}
    mark = {"format": RUN_FORMAT, "title": title, "horizon": result.task.length}
    write_atomically(folder / "pathways.safetensors", save_tensors(tensors))
    write_atomically(folder / "networks.csv", networks.to_csv(index=False, float_format="%.17g").encode())
    # the mark comes last and says that the run is whole
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
        labels: dict[str, Any] = {name: mark.get(name) for name in LABELS}
        net = Pathways(tensors["w_in"], tensors["w_rec"], tensors["w_out"], **labels)
        run = Run(str(mark["title"]), net, networks, int(mark["horizon"]))
        whole = (
            mark.get("format") == RUN_FORMAT and len(networks) == net.batch_shape.numel() and run.best >= 0
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, ShapeError) as error:
        raise FileError(f"the run in {folder} is damaged ({_short(error)}); train it again") from None
    if not whole:
        raise FileError(f"the run in {folder} is damaged (its files do not fit together); train it again")
    return run


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise FileError(f"{path} is damaged; give another folder, or run it again")
    return found


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


__all__ = ["RUN_MARK", "Run", "load_run", "load_study", "save_run"]
