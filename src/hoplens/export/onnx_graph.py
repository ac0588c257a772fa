"""Build the ONNX graph of a network, node by node: batch and time stay free.

PyTorch's exporter unrolls or freezes the length of some recurrent modules, so nothing is traced here. RNN,
GRU and LSTM become the operators of these names; what ONNX has no operator for (leaks, projected LSTMs)
becomes a Scan over time, as do all cells whose products are integers. Inside, time comes first: (L, B, n).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hoplens.compress.quantisation import Quantised
from hoplens.export.onnx_cells import CellWriter
from hoplens.export.onnx_integers import IntegerWriter
from hoplens.export.source import Source
from hoplens.export.storage import Graph

OPSET = 17  # read by onnxruntime 1.12 and later
IR_VERSION = 8
END = np.iinfo(np.int64).max


def build_graph(
    source: Source,
    *,
    lengths: bool = False,
    stateful: bool = False,
    quantised: Quantised | None = None,
) -> Any:
    """Return the ONNX model (a ModelProto without metadata) of a network.

    ``lengths``: add an input ``lengths`` (batch,) of int64. ``stateful``: add inputs ``h_l0`` (and ``c_l0``
    of an LSTM), ..., shape (batch, H), the state to start from, and outputs ``next_h_l0``, ..., for running
    a stream piece by piece. ``quantised``: multiply its integers.
    """
    from onnx import TensorProto, helper

    graph = Graph()
    stack, info = source.stack, source.info
    for taken in ("inputs", "lengths", "outputs"):
        graph.name(taken)
    graph.inputs.append(
        helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["batch", "time", stack.n_inputs])
    )
    x, valid = "inputs", ""
    if lengths:
        graph.inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"]))
        valid = "lengths"
    if info.window is not None:
        x, valid = _last_steps(graph, x, valid, info.window)
    x = graph.node("Transpose", x, perm=[1, 0, 2])
    writer: CellWriter | IntegerWriter
    if quantised is None:
        writer = CellWriter(graph, source, stateful)
    else:
        writer = IntegerWriter(graph, quantised, stateful)
    for number, level in enumerate(stack.levels):
        x = writer.level(level, number, x)
    shape: list[str | int | None]
    if info.every_step:
        shape = ["batch", "time", source.n_outputs]
        x = graph.node("Transpose", x, perm=[1, 0, 2])
    else:
        shape = ["batch", source.n_outputs]
        x = _last(graph, x, valid)
    graph.node("Identity", writer.read_out(x), into="outputs")
    graph.outputs.insert(0, helper.make_tensor_value_info("outputs", TensorProto.FLOAT, shape))
    return helper.make_model(
        helper.make_graph(
            graph.nodes, "hoplens", graph.inputs, graph.outputs, initializer=graph.initialisers
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="hoplens",
    )


def _last_steps(graph: Graph, x: str, lengths: str, window: int) -> tuple[str, str]:
    """Keep the last ``window`` (valid) steps of (B, L, I)."""
    if not lengths:
        # Slice stops at the first step where a sequence is shorter than the window
        return graph.node(
            "Slice", x, graph.constant([-window]), graph.constant([END]), graph.constant([1])
        ), ""
    size = graph.constant(window)
    start = graph.node("Max", graph.node("Sub", lengths, size), graph.constant(0))
    start = graph.node("Unsqueeze", start, graph.constant([1]))
    steps = graph.node("Add", start, graph.constant(np.arange(window)))  # (B, w)
    length = graph.node("Shape", x, start=1, end=2)
    steps = graph.node("Min", steps, graph.node("Sub", length, graph.constant([1])))
    places = graph.node("Unsqueeze", steps, graph.constant([2]))
    return graph.node("GatherND", x, places, batch_dims=1), graph.node("Min", lengths, size)


def _last(graph: Graph, x: str, lengths: str) -> str:
    """Return the last (valid) step of (L, B, n), shape (B, n)."""
    if not lengths:
        return str(graph.node("Gather", x, graph.constant(-1), axis=0))
    one = graph.constant(1)
    step = graph.node("Sub", lengths, one)
    size = graph.node("Squeeze", graph.node("Shape", lengths))
    row = graph.node("Range", graph.constant(0), size, one)
    axis = graph.constant([1])
    places = graph.node(
        "Concat", graph.node("Unsqueeze", step, axis), graph.node("Unsqueeze", row, axis), axis=1
    )
    return str(graph.node("GatherND", x, places))
