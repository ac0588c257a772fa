"""Training runs in a folder: what `hoplens train --out` keeps, and how it is read back."""

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
from hoplens.training.result import TrainingResult

RUN_MARK = "run.json"
RUN_FORMAT = 1
LABELS = ("input_names", "output_names", "input_modules", "output_modules")


@dataclass(frozen=True, eq=False)
class Run:
    """What ``hoplens train --out`` kept."""

    title: str
    pathways: Pathways
    networks: pd.DataFrame
    horizon: int

    @property
    def best(self) -> int:
        """The network of least test error; the first where all diverged."""
        errors = self.networks["test_error"].to_numpy(dtype=float)
        return int(np.where(np.isnan(errors), np.inf, errors).argmin())


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
    """Read a training run."""
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


__all__ = ["RUN_MARK", "Run", "load_run", "save_run"]
