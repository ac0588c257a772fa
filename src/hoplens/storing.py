"""One function that saves whatever hoplens keeps in files, and one that loads it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as pack
from torch import Tensor

from hoplens.errors import FileError, HoplensError
from hoplens.files import regular_file, write_atomically
from hoplens.graph.parts import Agreement, Leak, LowRank
from hoplens.graph.pathways import Pathways
from hoplens.models.readers.files import is_safetensors
from hoplens.models.readers.opening import read_model
from hoplens.models.readers.saved import save_model
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.training.result import TrainingResult, is_result

KEY = "hoplens_pathways"  # of the description in a file's metadata
FORMAT = 1
NAMES = ("input_names", "output_names", "hidden_names", "input_modules", "output_modules", "hidden_modules")


def save(thing: Any, path: str | Path, *, readout: Any = None) -> Path:
    """Write a model, a graph or the result of `hoplens.train` into one safetensors file; `load` reads it.

    Parameters
    ----------
    thing : model, Pathways or TrainingResult
        A model as every function takes it, what `prune`, `quantise` and `reduce` return included (of a
        quantised one the weights are written in their few bits).
    path : str or Path
    readout : nn.Linear, optional
        After a bare core.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    UnsupportedModelError, ParameterError
        If a model cannot be described: another core, or no read-out.
    FileError
        If the file cannot be written.
    """
    if isinstance(thing, TrainingResult):
        return thing.save(path)
    if isinstance(thing, Pathways):
        return _save_pathways(thing, path)
    return save_model(thing, path, readout=readout)


def load(
    path: str | Path,
    *,
    rnn: str | None = None,
    readout: str | None = None,
    nonlinearity: str | None = None,
    every_step: bool | None = None,
) -> RecurrentModel | Pathways | TrainingResult:
    """Load what `save` wrote, or a safetensors or state_dict file of an RNN, GRU or LSTM and a read-out.

    Tensors only: a pickle that would run code is refused.

    Parameters
    ----------
    path : str or Path
    rnn, readout, nonlinearity, every_step : optional
        What a file of bare weights does not say; see `hoplens.models.read_model`.

    Returns
    -------
    RecurrentModel, Pathways or TrainingResult

    Raises
    ------
    FileError
        If the file is missing, damaged, of another version, or would run code.
    UnsupportedModelError, ParameterError
        If there is no recurrent module or no read-out in it, or several fit.
    """
    if isinstance(path, str | os.PathLike):  # what is none is refused by name below
        file = regular_file(path, "file that hoplens or torch saved")
        if is_safetensors(file) and is_result(file):
            return TrainingResult.load(file)
        if is_safetensors(file) and (described := _description(file)) is not None:
            return _load_pathways(file, described)
    return read_model(path, rnn=rnn, readout=readout, nonlinearity=nonlinearity, every_step=every_step)


def _save_pathways(net: Pathways, path: str | Path) -> Path:
    """Write a graph: its blocks as they are stored (dense, sparse or factored), names and layers."""
    tensors: dict[str, Tensor | None] = {"w_in": net.w_in, "w_out": net.w_out, "w_skip": net.w_skip}
    if net.factors is not None:
        tensors |= net.factors._asdict()
    elif net.is_sparse:
        rec = net.w_rec
        tensors |= {"rows": rec.crow_indices(), "columns": rec.col_indices(), "weights": rec.values()}
    else:
        tensors["w_rec"] = net.w_rec
    if net.leak is not None:
        tensors |= net.leak._asdict()
    described = {"format": FORMAT, "steps": net.steps, "agreement": net.agreement}
    described |= {name: getattr(net, name) for name in (*NAMES, "layers", "provenance")}
    # cloned: blocks may share memory, which safetensors refuses
    stored = {
        name: part.detach().cpu().contiguous().clone() for name, part in tensors.items() if part is not None
    }
    return write_atomically(path, pack(stored, metadata={KEY: json.dumps(described)}))


def _description(file: Path) -> Any:
    """Return what a file says of the graph that it holds; None where it holds none."""
    try:
        with safe_open(file, framework="pt") as opened:
            return json.loads((opened.metadata() or {}).get(KEY, "null"))
    except (SafetensorError, OSError, ValueError):
        return None  # the reader of models says what is wrong


def _load_pathways(file: Path, described: Any) -> Pathways:
    try:
        if described["format"] != FORMAT:
            raise FileError(f"{str(file)!r} has format {described['format']!r}, this version reads {FORMAT}")
        parts = load_tensors(file.read_bytes())
        w_rec: Any = parts.get("w_rec")
        if "u" in parts:
            w_rec = LowRank(parts["u"], parts["v"], parts.get("diagonal"))
        elif "rows" in parts:
            csr = parts["rows"], parts["columns"], parts["weights"]
            w_rec = torch.sparse_csr_tensor(*csr, size=2 * parts["w_in"].shape[:1], check_invariants=True)
        leak = Leak(parts["kept"], parts["gain"]) if "kept" in parts else None
        names = {name: described[name] for name in (*NAMES, "layers", "provenance")}
        agreement = described.get("agreement")
        along = {
            "steps": described.get("steps", False),
            "agreement": None if agreement is None else Agreement(*map(float, agreement)),
        }
        return Pathways(
            parts["w_in"], w_rec, parts["w_out"], parts.get("w_skip"), leak=leak, **names, **along
        )
    except FileError:
        raise
    except (HoplensError, SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())[:120]
        raise FileError(f"the graph in {str(file)!r} is damaged ({why}); save it again") from None


__all__ = ["load", "save"]
