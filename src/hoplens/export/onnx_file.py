"""Write ONNX files that were compared with the model before anybody sees them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoplens.errors import ExportError, ParameterError
from hoplens.export.onnx_graph import OPSET, build_graph
from hoplens.export.source import Source, read_source
from hoplens.files import write_atomically
from hoplens.models.recurrent_model import ModelInfo
from hoplens.models.tensors import as_sequences
from hoplens.seeds import generator
from hoplens.version import __version__

TOLERANCE = 1e-5  # of outputs, absolute up to 1, then relative to the largest
CHECKED = ((2, 5), (3, 12))  # (batch, time) of the comparison; nothing in the graph knows these sizes


@dataclass(frozen=True)
class OnnxExport:
    """A written ONNX file, and what was checked.

    Attributes
    ----------
    path : Path
    n_bytes : int
        Size of the file.
    opset : int
    shapes : tuple of tuple of int
        (batch, time, inputs) at which the file was run in onnxruntime.
    difference : float
        Largest difference from the model there, divided by max(1, largest output).
    """

    path: Path
    n_bytes: int
    opset: int
    shapes: tuple[tuple[int, ...], ...]
    difference: float


def export_onnx(
    model: Any,
    path: str | Path,
    *,
    readout: Any = None,
    info: ModelInfo | None = None,
    lengths: bool = False,
    stateful: bool = False,
    inputs: Any = None,
) -> OnnxExport:
    """Write a recurrent network as ONNX, after running it in onnxruntime and comparing.

    The file takes ``inputs`` (batch, time, I) in float32, batch and time free, whatever layout the module
    itself has, and gives ``outputs`` (batch, O), or (batch, time, O) with ``info.every_step``. Its opset is
    17; weights with many zeros are stored without them. It is run at two shapes that nothing in it knows,
    (2, 5) and (3, 12) or the window and more, on random inputs, and must agree with the module to 1e-5.

    Parameters
    ----------
    model : RecurrentModel, Quantised, nn.RNN, nn.GRU, nn.LSTM, a cell, LeakyRNN, Stack, Ensemble of one, ...
        All that `hoplens.read` takes as a module, with RNN, leaky, GRU or LSTM cells; stacked, bidirectional
        and projected ones too. The weights of a `Quantised` lie in the file in their few bits, but it
        computes in float32; for integer products see `export_int8`.
    path : str or Path
        Where to.
    readout : nn.Linear, 1-wide nn.Conv1d or matrix (O, H), optional
        Without one, and without one in the model, the hidden units are the outputs.
    info : ModelInfo, optional
        Names, normalisation, window, ``every_step``; default that of a RecurrentModel. A window becomes part
        of the graph: only the last steps are run. All of it is written into the file's metadata.
    lengths : bool, default False
        Add an input ``lengths`` (batch,) of int64: valid steps of each sequence, padded at its end.
    stateful : bool, default False
        Add inputs ``h_l0`` (``c_l0``), ... (batch, H) and outputs ``next_h_l0``, ...: the state before and
        after, for streams that come piece by piece.
    inputs : Tensor, shape (B, L, I), optional
        Sequences to compare on as well.

    Returns
    -------
    OnnxExport

    Raises
    ------
    ExportError
        If the file does not agree with the model. Nothing is written then.
    UnsupportedModelError, ParameterError, ShapeError, NonFiniteError
        If the model, or the combination of options, cannot be exported.
    FileError
        If the file cannot be written.
    """
    session_of = runtime()
    source = read_source(model, readout, info)
    _check_options(source, lengths, stateful)
    proto = build_graph(source, lengths=lengths, stateful=stateful)
    describe(proto, source, lengths=lengths, stateful=stateful)
    data = proto.SerializeToString()
    session = session_of(data)
    samples = samples_for(source, inputs)
    difference = max(_difference(session, source, x, lengths, stateful) for x in samples)
    if not difference <= TOLERANCE:
        raise ExportError(
            f"the ONNX file differs from the model by {difference:.2g}, more than {TOLERANCE:g}, so it was "
            "not written; a network that amplifies rounding (large recurrent weights) cannot agree in float32"
        )
    return OnnxExport(
        write_atomically(path, data),
        len(data),
        OPSET,
        tuple(tuple(x.shape) for x in samples),
        difference,
    )


def runtime() -> Any:
    """Return the function that loads a model; complain if onnx or onnxruntime is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        raise ParameterError('ONNX files need onnx and onnxruntime: pip install "hoplens[onnx]"') from None

    def load(data: bytes) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: they come as exceptions too
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    return load


def _check_options(source: Source, lengths: bool, stateful: bool) -> None:
    for name, wanted in (("lengths", lengths), ("stateful", stateful)):
        if wanted and source.stack.bidirectional:
            raise ParameterError(f"{name} is for networks that run one way; leave it out")
    if stateful and lengths:
        raise ParameterError("stateful and lengths exclude each other; pass pieces without padding")
    if stateful and source.info.window is not None:
        raise ParameterError("a network with a window starts afresh each time; leave one of the two out")


def describe(proto: Any, source: Source, **more: Any) -> None:
    """Write into the file what it is, how it is fed, and ``more``."""
    from onnx import helper

    info = source.info
    proto.producer_version = __version__
    proto.doc_string = f"{source.stack.label}, {source.stack.n_inputs} inputs, {source.n_outputs} outputs"
    told: dict[str, Any] = {
        "hoplens_version": __version__,
        "opset": OPSET,
        "network": source.stack.label,
        "layout": "inputs (batch, time, input)",
        "every_step": info.every_step,
        "window": info.window,
        "input_names": info.input_names,
        "output_names": info.output_names,
        "input_mean": info.input_mean,
        "input_scale": info.input_scale,
        "assumed": info.assumed,
        **more,
    }
    helper.set_model_props(
        proto, {key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}
    )


def samples_for(source: Source, given: Any) -> list[Tensor]:
    """Return the sequences to compare on; drawn from a generator of their own."""
    draw = generator("samples", 0)
    further = source.info.window or 0
    shapes = [CHECKED[0], (CHECKED[1][0], CHECKED[1][1] + further)]
    samples = [torch.randn(*shape, source.stack.n_inputs, generator=draw) for shape in shapes]
    if given is not None:
        own = as_sequences(given, source.stack.n_inputs).cpu().to(torch.float32)
        samples.append(own)
    return samples


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Return the largest difference over max(1, largest magnitude); infinite if something is not a number."""
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    found = float((a - b).abs().max() / b.abs().max().clamp(min=1.0))
    return found if np.isfinite(found) else float("inf")


def _difference(session: Any, source: Source, x: Tensor, lengths: bool, stateful: bool) -> float:
    if lengths:
        valid = 1 + torch.arange(len(x)) * (x.shape[1] - 1) // max(1, len(x) - 1)
        (shown,) = session.run(["outputs"], {"inputs": x.numpy(), "lengths": valid.numpy()})
        return relative_difference(torch.from_numpy(shown), source.outputs(x, valid))
    return relative_difference(outputs_of(session, x, stateful, source.info.every_step), source.outputs(x))


def outputs_of(session: Any, x: Tensor, stateful: bool, every_step: bool) -> Tensor:
    """Run a file; a stateful one in two pieces, the state handed on, which must be the same as in one."""
    if not stateful:
        return torch.from_numpy(session.run(["outputs"], {"inputs": x.numpy()})[0])
    states = {put.name: np.zeros((len(x), put.shape[1]), np.float32) for put in session.get_inputs()[1:]}
    shown = []
    for piece in x.tensor_split(2, dim=1):
        names = ["outputs", *(f"next_{name}" for name in states)]
        outputs, *after = session.run(names, {"inputs": piece.numpy(), **states})
        shown.append(torch.from_numpy(outputs))
        states = dict(zip(states, after, strict=True))
    return torch.cat(shown, dim=1) if every_step else shown[-1]
