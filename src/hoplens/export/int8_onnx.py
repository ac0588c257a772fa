"""ONNX files of integer products, compared with the simulation in onnxruntime before anybody sees them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hoplens.compress.quantisation import Quantised
from hoplens.compress.simulation import run_model
from hoplens.errors import ExportError, ParameterError, UnsupportedModelError
from hoplens.export.onnx_file import (
    TOLERANCE,
    describe,
    outputs_of,
    relative_difference,
    runtime,
    samples_for,
)
from hoplens.export.onnx_graph import build_graph
from hoplens.export.onnx_integers import count_products
from hoplens.export.source import read_source
from hoplens.files import write_atomically

SHARE = 0.25  # of the change that quantising makes: how far the file may be from the simulation
EXACT = 1e-5  # and this much in any case: the last bits of tanh, which may tip a rounding


@dataclass(frozen=True)
class Int8Export:
    """A written int8 ONNX file, and what was checked.

    Attributes
    ----------
    path : Path
    n_bytes : int
        Size of the file; int4 and ternary weights lie in it as int8, since no integer product takes fewer
        bits.
    int8_products, products : int
        Matrix products in integers, out of all in the graph.
    difference : float
        Root mean squared difference between the file in onnxruntime and the simulation.
    rounding : float
        The same between the simulation and the model with unrounded activations.
    shapes : tuple of tuple of int
        (batch, time, inputs) at which they were compared.
    """

    path: Path
    n_bytes: int
    int8_products: int
    products: int
    difference: float
    rounding: float
    shapes: tuple[tuple[int, ...], ...]


def export_int8(
    quantised: Quantised, path: str | Path, *, stateful: bool = False, inputs: Tensor | None = None
) -> Int8Export:
    """Write a quantised model as ONNX that computes with integers, after comparing it in onnxruntime.

    The file takes ``inputs`` (batch, time, I) in float32, batch and time free, and gives ``outputs``, like
    those of `export_onnx`.

    Parameters
    ----------
    quantised : Quantised
        From `quantise` with calibration data.
    path : str or Path
    stateful : bool, default False
        Add inputs ``h_l0`` (``c_l0``), ... (batch, H) and outputs ``next_h_l0``, ...: for streams.
    inputs : Tensor, shape (B, L, I), optional
        Sequences to compare on as well.

    Returns
    -------
    Int8Export

    Raises
    ------
    ExportError
        If the simulation, without its rounding, is not the model; or if the file is further from the
        simulation than a quarter of what quantising changed. Nothing is written then.
    ParameterError
        Without calibrated activations, or for streams of a bidirectional or truncated model.
    """
    session_of = runtime()
    if not isinstance(quantised, Quantised):
        raise UnsupportedModelError(
            f"export_int8 takes what hl.quantise returns, got a {type(quantised).__name__}; quantise it first"
        )
    model = quantised.model
    if not quantised.grids:
        raise ParameterError("integer products need 8-bit activations; call quantise with inputs=")
    if stateful and (model.core.bidirectional or model.info.window is not None):
        raise ParameterError("a stream needs a model that runs one way and carries its state; drop stateful")
    source = read_source(quantised)
    proto = build_graph(source, stateful=stateful, quantised=quantised)
    describe(proto, source, stateful=stateful, weights=quantised.form, activations="int8")
    data = proto.SerializeToString()
    session = session_of(data)
    samples = samples_for(source, inputs)
    difference, rounding = 0.0, 0.0
    for x in samples:
        got = outputs_of(session, x, stateful, model.info.every_step)
        with torch.no_grad():
            simulated, floats = quantised.simulate(x), model(x)
            plain = run_model(model, dict(model.state_dict()), x)
        # what the file is held against is itself held against the model, or both could be wrong alike
        own = relative_difference(plain, floats)
        if not own <= TOLERANCE:
            raise ExportError(
                f"without rounding, the simulation differs from the model by {own:.2g}, so the file was not "
                "written"
            )
        difference = max(difference, _rms(got - simulated))
        rounding = max(rounding, _rms(simulated - floats))
    if not difference <= SHARE * rounding + EXACT:
        raise ExportError(
            f"the int8 file differs from the simulation by {difference:.2g}, quantising itself by "
            f"{rounding:.2g}, so it was not written; a network that amplifies rounding cannot agree"
        )
    integers, products = count_products(proto.graph)
    shapes = tuple(tuple(x.shape) for x in samples)
    return Int8Export(
        write_atomically(path, data), len(data), integers, products, difference, rounding, shapes
    )


def _rms(difference: Tensor) -> float:
    return float(difference.double().square().mean().sqrt())
