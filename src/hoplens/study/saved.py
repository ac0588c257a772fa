"""Read what `reproduce` and `train` left in a folder, and keep what `train` made."""

from __future__ import annotations

import dataclasses
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
from hoplens.files import make_folder, write_atomically
from hoplens.pathways import Pathways
from hoplens.study.plan import full_plan, quick_plan
from hoplens.study.results import StudyResults
from hoplens.study.runner import assemble
from hoplens.study.store import MARK, ShardStore
from hoplens.training import TrainingResult

RUN_MARK = "run.json"
RUN_FORMAT = 1
LABELS = ("input_names", "output_names", "input_modules", "output_modules")
# what a page cannot do without in each table of a study that has rows
NEEDED = {
    "networks": ("task", "method", "strength", "seed"),
    "summary": ("task", "method", "strength"),
    "paired": ("task", "method", "reference", "measure"),
    "reach": ("method", "lag", "strength", "seed", "test_mse"),
    "ablation": ("task", "method"),
    "anchors": ("claim", "paper", "ours", "agrees"),
    "aims": ("aim", "target", "measured", "met"),
}
MAY_LACK = ("reach", "ablation")  # parts that a study may leave out
IN_WORDS = ("anchors", "aims")  # shown as they are
WORDS = ("task", "method", "role", "reference", "measure")  # columns of the other tables that hold no numbers


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
        return int(np.where(np.isnan(errors), np.inf, errors).argmin())


def load_study(folder: Path) -> StudyResults:
    """Read a finished study without running anything.

    Raises
    ------
    FileError
        If it is damaged, unfinished, or of another version of hoplens.
    """
    mark = _read_json(folder / MARK)
    if str(mark.get("plan")).startswith("real"):
        raise FileError(
            f"{folder} holds a study on real sequences, which has no page; read summary.md and figures/ in it"
        )
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
    try:
        frames: dict[str, Any] = {name: _table(folder / f"{name}.csv") for name in NEEDED}
    except (OSError, ValueError) as error:
        raise FileError(
            f"{folder} holds a study that this version of hoplens does not know ({mark.get('plan')}), and "
            f"its tables cannot be read ({_short(error)}); run `hoplens reproduce` into another folder"
        ) from None
    plan = f"{mark.get('plan')} (key {mark.get('key')}, read from its tables)"
    return StudyResults(**frames, settings={"plan": plan})


def _table(path: Path) -> pd.DataFrame:
    """Return a table of a study; ValueError where a page cannot be made of it."""
    name = path.stem
    if name in MAY_LACK and not path.exists():
        return pd.DataFrame()
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
    lacking = [column for column in NEEDED[name] if column not in frame.columns]
    if lacking:
        raise ValueError(f"{path.name} has no column {lacking[0]}")
    if not len(frame):
        return frame
    if name == "aims" and not pd.api.types.is_bool_dtype(frame["met"]):
        raise ValueError(f"{path.name} has other words than True and False in column met")
    if name in IN_WORDS:
        return frame
    texts = [c for c in frame.columns if c not in WORDS and not pd.api.types.is_numeric_dtype(frame[c])]
    for column in texts:
        if column in NEEDED[name]:
            raise ValueError(f"{path.name} has other things than numbers in column {column}")
    return frame.drop(columns=texts)  # nothing that a page could draw


def save_run(folder: Path, result: TrainingResult, networks: pd.DataFrame, title: str) -> None:
    """Keep the networks of a training run and their measures in a folder, made where it is missing."""
    net = result.pathways
    make_folder(folder)
    (folder / RUN_MARK).unlink(missing_ok=True)  # of an older run: it would vouch for a mixture of both
    tensors = {name: getattr(net, name).detach().cpu().contiguous() for name in ("w_in", "w_rec", "w_out")}
    write_atomically(folder / "pathways.safetensors", save_tensors(tensors))
    write_atomically(folder / "networks.csv", networks.to_csv(index=False, float_format="%.17g").encode())
    # the mark comes last and says that the run is whole
    mark = {"format": RUN_FORMAT, "title": title, "horizon": result.task.length}
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
        networks["test_mse"] = networks["test_mse"].astype(float)
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
