"""ONNX files that multiply integers: int8 weights times 8-bit activations, run and compared before writing.

onnxruntime has no int8 form of the operators RNN and GRU (its quantize_dynamic leaves them in float32), so
the recurrence is a Scan over time whose products are MatMulInteger. Activations and weights
are uint8, weights (and activations below 0) around 128: with signed activations onnxruntime has no fast
kernel, with signed weights its sums overflow on processors without VNNI. What the inputs contribute is
one product for all steps, outside the loop.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoplens.compress.quantisation import Quantised
from hoplens.compress.simulation import run_model
from hoplens.errors import ExportError, ParameterError, UnsupportedModelError
from hoplens.export.onnx_cells import add_scan
from hoplens.export.onnx_graph import IR_VERSION, OPSET
from hoplens.export.storage import Graph
from hoplens.files import write_atomically
from hoplens.models.cells import WeightCell
from hoplens.models.readers.modules import PARTS, weight_levels
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.models.tensors import as_sequences
from hoplens.seeds import generator
from hoplens.version import __version__

CHECKED = ((2, 5), (3, 12))  # (batch, time) of the comparison; nothing in the graph knows these sizes
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
    from hoplens.export.onnx_file import TOLERANCE, relative_difference, runtime

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
    proto = _build(quantised, stateful)
    data = proto.SerializeToString()
    session = session_of(data)
    samples = _samples(model, inputs)
    difference, rounding = 0.0, 0.0
    for x in samples:
        got = _run(session, model, x, stateful)
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


def count_products(graph: Any) -> tuple[int, int]:
    """Return how many matrix products of an ONNX graph are in integers, and how many there are.

    An operator RNN, GRU or LSTM counts as two a direction; subgraphs count once.
    """
    integers = products = 0
    for node in graph.node:
        ways = [a.s for a in node.attribute if a.name == "direction"]
        each = 4 if ways == [b"bidirectional"] else 2
        if node.op_type in ("MatMulInteger", "QLinearMatMul"):
            integers, products = integers + 1, products + 1
        elif node.op_type in ("MatMul", "Gemm"):
            products += 1
        elif node.op_type in ("RNN", "GRU", "LSTM"):
            products += each
        elif node.op_type == "DynamicQuantizeLSTM":
            integers, products = integers + each, products + each
        for attribute in node.attribute:
            if attribute.HasField("g"):
                inner = count_products(attribute.g)
                integers, products = integers + inner[0], products + inner[1]
    return integers, products


def _rms(difference: Tensor) -> float:
    return float(difference.double().square().mean().sqrt())


def _samples(model: RecurrentModel, given: Tensor | None) -> list[Tensor]:
    draw = generator("samples", 0)
    further = model.info.window or 0
    shapes = [CHECKED[0], (CHECKED[1][0], CHECKED[1][1] + further)]
    samples = [torch.randn(*shape, model.n_inputs, generator=draw) for shape in shapes]
    if given is not None:
        samples.append(as_sequences(given, model.n_inputs).float())
    return samples


def _run(session: Any, model: RecurrentModel, x: Tensor, stateful: bool) -> Tensor:
    if not stateful:
        return torch.from_numpy(session.run(["outputs"], {"inputs": x.numpy()})[0])
    states = {put.name: np.zeros((len(x), put.shape[1]), np.float32) for put in session.get_inputs()[1:]}
    shown = []
    for piece in x.tensor_split(2, dim=1):  # in two pieces, the state handed on
        found = session.run(
            ["outputs", *(f"next_{name}" for name in states)], {"inputs": piece.numpy(), **states}
        )
        shown.append(torch.from_numpy(found[0]))
        states = dict(zip(states, found[1:], strict=True))
    return torch.cat(shown, dim=1) if model.info.every_step else shown[-1]


class _Builder:
    """The graph of one quantised model."""

    def __init__(self, quantised: Quantised, stateful: bool) -> None:
        self.q, self.core, self.stateful = quantised, quantised.model.core, stateful
        self.tensors = quantised.model.state_dict()
        self.graph = Graph("dense")
        for taken in ("inputs", "outputs"):
            self.graph.name(taken)

    def floats(self, value: Tensor | float, stem: str) -> str:
        return self.graph.constant(np.asarray(torch.as_tensor(value).numpy()), np.float32, stem)

    def to_levels(self, graph: Graph, x: str, name: str) -> tuple[str, str]:
        """Round an operand to its grid; return its levels and their zero point."""
        grid = self.q.grids[name]
        zero = self.graph.constant(int(grid.zero), np.uint8, f"{name}_zero")
        return graph.node("QuantizeLinear", x, self.floats(grid.scale, f"{name}_scale"), zero), zero

    def product(self, graph: Graph, operand: tuple[str, str], name: str, weight: str, bias: str = "") -> str:
        """Return ``W x + b`` of an operand's levels: integers, then one scale a row, then the bias."""
        from onnx import TensorProto

        # weights as uint8 around 128: where a processor lacks VNNI, onnxruntime adds two products of uint8
        # by int8 in 16 bits, which overflow; both unsigned, all sums are exact
        levels = (self.q.levels[weight].mT.to(torch.int16) + 128).contiguous().numpy()
        zero = self.graph.constant(128, np.uint8, "weight_zero")
        whole = graph.node(
            "MatMulInteger", operand[0], self.graph.constant(levels, np.uint8, weight), operand[1], zero
        )
        scale = self.q.scales[weight][:, 0] * self.q.grids[name].scale
        y = graph.node("Mul", graph.node("Cast", whole, to=TensorProto.FLOAT), self.floats(scale, "scale"))
        if bias in self.tensors:
            y = graph.node("Add", y, self.floats(self.tensors[bias], bias))
        return str(y)

    def cell(self, x: tuple[str, str], cell: WeightCell, level: int, batch: str, reverse: bool) -> str:
        """Add one direction of one level; return its states (L, B, n)."""
        suffix = f"_l{level}" + ("_reverse" if reverse else "")
        w_ih, w_hh, b_ih, b_hh, w_hr = (f"core.{part}{suffix}" for part in PARTS)

        def product(body: Graph, part: str, operand: str) -> str:
            name, weight, bias = (f"p{suffix}", w_hr, "") if part == "w_hr" else (f"h{suffix}", w_hh, b_hh)
            return self.product(body, self.to_levels(body, operand, name), name, weight, bias)

        return add_scan(
            self.graph,
            cell,
            level,
            lambda: self.product(self.graph, x, f"x_l{level}", w_ih, b_ih),
            product,
            batch=batch,
            stateful=self.stateful,
            reverse=reverse,
        )


def _build(quantised: Quantised, stateful: bool) -> Any:
    from onnx import TensorProto, helper

    builder, model = _Builder(quantised, stateful), quantised.model
    graph, info = builder.graph, model.info
    width: list[str | int | None] = ["batch", "time", model.n_inputs]
    graph.inputs.append(helper.make_tensor_value_info("inputs", TensorProto.FLOAT, width))
    x = "inputs"
    if info.window is not None and not info.every_step:
        ends = [graph.constant([v]) for v in (-info.window, np.iinfo(np.int64).max, 1)]
        x = graph.node("Slice", x, *ends)
    x = graph.node("Transpose", x, perm=[1, 0, 2])
    batch = graph.node("Shape", x, start=1, end=2)
    for level, cells in enumerate(weight_levels(model.core)):
        operand = builder.to_levels(graph, x, f"x_l{level}")
        ways = [
            builder.cell(operand, cell, level, batch, bool(direction)) for direction, cell in enumerate(cells)
        ]
        x = ways[0] if len(ways) == 1 else graph.node("Concat", *ways, axis=2)
    shape: list[str | int | None] = ["batch", model.n_outputs]
    if info.every_step:
        x, shape = graph.node("Transpose", x, perm=[1, 0, 2]), ["batch", "time", model.n_outputs]
    else:
        x = graph.node("Gather", x, graph.constant(-1), axis=0)
    read = builder.product(
        graph, builder.to_levels(graph, x, "shown"), "shown", "readout.weight", "readout.bias"
    )
    graph.node("Identity", read, into="outputs")
    graph.outputs.insert(0, helper.make_tensor_value_info("outputs", TensorProto.FLOAT, shape))
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes, "hoplens_int8", graph.inputs, graph.outputs, initializer=graph.initialisers
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="hoplens",
        producer_version=__version__,
    )
    told = {
        "weights": quantised.form,
        "activations": "int8",
        "opset": OPSET,
        "stateful": stateful,
        **asdict(info),
    }
    helper.set_model_props(proto, {k: v if isinstance(v, str) else json.dumps(v) for k, v in told.items()})
    return proto
