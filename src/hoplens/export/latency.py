"""Latency, measured: contestants take turns, round by round, on one thread."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from hoplens.compress.quantisation import Quantised
from hoplens.errors import ParameterError, check_choice, check_number
from hoplens.export.int8_onnx import export_int8
from hoplens.export.onnx_file import export_onnx
from hoplens.models.cells import CellModule
from hoplens.models.readers.models import parts_of
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.models.tensors import as_sequences
from hoplens.threads import threads

if TYPE_CHECKING:
    import pandas as pd

RUNTIMES = ("eager", "onnx")
STEPS = 32  # of a stream in one measurement
LEAST_ROUNDS = 5
Run = Callable[[], object]
Key = TypeVar("Key")


def measure_latency(
    models: Any,
    inputs: Tensor,
    *,
    readout: nn.Linear | None = None,
    runtimes: tuple[str, ...] = RUNTIMES,
    reference: str | None = None,
    seconds: float = 2.0,
) -> pd.DataFrame:
    """Time models side by side: batch 1 step by step, and the whole batch at once.

    A model runs in PyTorch (eager) and, exported to float32, in onnxruntime; a `Quantised` runs as integers
    in onnxruntime. All take turns, one measurement a round, so that a drift of the machine hits all alike;
    PyTorch and onnxruntime get one thread each.

    Parameters
    ----------
    models : model, or dict of str to models
        Contestants, by name: what `hoplens.prune`, `hoplens.quantise` and others take and return.
    inputs : Tensor, shape (B, L, I)
        What is run: all at once in the mode "batch"; the first sequence, one step a call, with the state
        carried from call to call, in the mode "stream". A model with a window carries no state: each of its
        outputs runs the last ``window`` steps. A bidirectional model has no stream.
    readout : nn.Linear, optional
        After a single bare core.
    runtimes : tuple of {"eager", "onnx"}, default both
        For all but a Quantised.
    reference : str, optional
        Contestant that ratios are taken to, within the same runtime family and mode, round by round;
        default the first.
    seconds : float, default 2
        About how long to measure, each mode.

    Returns
    -------
    pandas.DataFrame
        Columns mode ("stream", "batch"), model, runtime ("eager", "onnx", "int8"), ms, ms_low, ms_high
        (median and quartiles: of one step in a stream, of the batch otherwise), ratio, ratio_low, ratio_high
        (to the reference in the same runtime; "int8" to the reference in "onnx"), rounds.

    Raises
    ------
    ParameterError
        If onnxruntime is missing though needed, or the reference is none of the models.
    """
    import pandas as pd

    if isinstance(models, Mapping) and readout is not None:
        raise ParameterError("readout= goes with a single bare core; make a RecurrentModel of each")
    given = dict(models) if isinstance(models, Mapping) else {"model": models}
    named = {
        name: one if isinstance(one, Quantised) and readout is None else parts_of(one, readout).model()
        for name, one in given.items()
    }
    check_number("seconds", seconds, above=0.0)
    for runtime in runtimes:
        check_choice("runtime", runtime, RUNTIMES)
    first = next(iter(named)) if reference is None and named else reference
    if first not in named:
        raise ParameterError(f"reference must be one of {', '.join(named)}, got {reference!r}")
    for model in named.values():
        own = model.model if isinstance(model, Quantised) else model
        inputs = as_sequences(inputs, own.n_inputs)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder, threads(1):
        for mode in ("stream", "batch"):
            runs = {}
            for name, model in named.items():
                runs.update(_contestants(name, model, inputs, mode, runtimes, Path(folder)))
            times = _take_turns(runs, seconds)
            rows += _rows(times, mode, str(first), STEPS if mode == "stream" else 1)
    return pd.DataFrame(rows)


def time_runs(runs: Mapping[str, Run], seconds: float) -> dict[str, float]:
    """Return the median milliseconds of every run by name; they take turns, one measurement a round."""
    with threads(1):
        times = _take_turns(runs, check_number("seconds", seconds, above=0.0))
    return {name: float(np.median(each)) * 1e3 for name, each in times.items()}


def _contestants(
    name: str,
    model: RecurrentModel | Quantised,
    inputs: Tensor,
    mode: str,
    runtimes: tuple[str, ...],
    folder: Path,
) -> dict[tuple[str, str], Run]:
    own = model.model if isinstance(model, Quantised) else model
    if mode == "stream" and own.core.bidirectional:
        return {}
    window = own.info.window if not own.info.every_step else None
    carried = mode == "stream" and window is None
    x = _stream(inputs, window) if mode == "stream" else [inputs]
    found: dict[tuple[str, str], Run] = {}
    if isinstance(model, Quantised):
        export_int8(model, folder / "model.onnx", stateful=carried)
        return {(name, "int8"): _onnx(folder / "model.onnx", x, carried)}
    if "eager" in runtimes:
        found[name, "eager"] = _eager(own, x, carried)
    if "onnx" in runtimes:
        export_onnx(own, folder / "model.onnx", stateful=carried)
        found[name, "onnx"] = _onnx(folder / "model.onnx", x, carried)
    return found


def _stream(inputs: Tensor, window: int | None) -> list[Tensor]:
    """Return what each call of a stream gets: one step, or the last steps up to it."""
    steps = inputs[:1, torch.arange(STEPS + (window or 1) - 1) % inputs.shape[1]]
    return [steps[:, t : t + (window or 1)] for t in range(STEPS)]


def _eager(model: RecurrentModel, inputs: list[Tensor], carried: bool) -> Run:
    weight = model.readout.weight
    x = [part.to(weight) for part in inputs]
    core, readout = model.core, model.readout
    with torch.no_grad():
        model(x[0])  # complains about what does not fit
    cell = core.to_hoplens() if isinstance(core, CellModule) else None

    def run() -> object:
        with torch.no_grad():
            if not carried:
                return [model(part) for part in x]
            if cell is not None:
                h = weight.new_zeros(1, cell.n_state)
                for part in x:
                    h = cell.step(h, part[:, 0])
                    readout(cell.emit(h))
                return h
            state = None
            for part in x:
                shown, state = core(part, state)
                readout(shown[:, -1])
            return state

    return run


def _onnx(path: Path, inputs: list[Tensor], carried: bool) -> Run:
    from hoplens.export.onnx_file import runtime

    session = runtime()(path.read_bytes())
    x = [part.to(torch.float32).numpy() for part in inputs]
    names = [put.name for put in session.get_inputs()[1:]]
    outputs = ["outputs", *(f"next_{name}" for name in names)]
    zeros = [np.zeros((1, put.shape[1]), np.float32) for put in session.get_inputs()[1:]]

    def run() -> object:
        if not carried:
            return [session.run(outputs, {"inputs": part}) for part in x]
        states: list[Any] = zeros
        for part in x:
            _, *states = session.run(outputs, {"inputs": part, **dict(zip(names, states, strict=True))})
        return states

    return run


def _take_turns(runs: Mapping[Key, Run], seconds: float) -> dict[Key, list[float]]:
    """Return the seconds of every contestant in every round."""
    times: dict[Key, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    stop = time.perf_counter() + seconds
    rounds = 0
    while runs and (rounds < LEAST_ROUNDS or time.perf_counter() < stop):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)
        rounds += 1
    return times


def _rows(
    times: Mapping[tuple[str, str], list[float]], mode: str, reference: str, calls: int
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for (name, runtime), own in times.items():
        low, middle, high = np.quantile(np.asarray(own) * 1e3 / calls, (0.25, 0.5, 0.75))
        row: dict[str, object] = {"mode": mode, "model": name, "runtime": runtime}
        row |= {"ms": middle, "ms_low": low, "ms_high": high}
        peer = times.get((reference, "onnx" if runtime == "int8" else runtime))
        ratios = (
            [np.nan] * 3
            if peer is None
            else np.quantile(np.asarray(own) / np.asarray(peer), (0.25, 0.5, 0.75))
        )
        row |= dict(zip(("ratio_low", "ratio", "ratio_high"), ratios, strict=True))
        rows.append(row | {"rounds": len(own)})
    return rows
