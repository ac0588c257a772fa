"""Build the ONNX graph of a network, node by node: batch and time stay free.

PyTorch's exporter unrolls or freezes the length of some recurrent modules, so nothing is traced here. RNN,
GRU and LSTM become the operators of these names; what ONNX has no operator for (leaks, projected LSTMs)
becomes a Scan over time. Inside, time comes first: (L, B, n).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoplens.cells import Cell
from hoplens.export.source import Source
from hoplens.export.storage import Graph
from hoplens.torch_cells import GruCell, LstmCell, RnnCell

OPSET = 17  # read by onnxruntime 1.12 and later
IR_VERSION = 8
GATES = {"gru": (1, 0, 2), "lstm": (0, 3, 1, 2), "rnn": (0,)}  # ONNX's z r n and i o f g, from torch's order
OPERATORS = {"gru": "GRU", "lstm": "LSTM", "rnn": "RNN"}
ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu", "linear": "Affine"}
END = np.iinfo(np.int64).max


def build_graph(
    source: Source, *, lengths: bool = False, stateful: bool = False, storage: str = "dense"
) -> Any:
    """Return the ONNX model (a ModelProto without metadata) of a network.

    Parameters
    ----------
    source : Source
    lengths : bool, default False
        Add an input ``lengths`` (batch,) of int64.
    stateful : bool, default False
        Add inputs ``h_l0`` (and ``c_l0`` of an LSTM), ..., shape (batch, H), the state to start from, and
        outputs ``next_h_l0``, ..., for running a stream piece by piece.
    storage : {"dense", "auto", "half"}
        See `Graph`.
    """
    from onnx import TensorProto, helper

    graph = Graph(storage)
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
    for number, level in enumerate(stack.levels):
        x = _level(graph, level, x, number, stateful)
    shape: list[str | int | None]
    if info.every_step:
        shape = ["batch", "time", source.n_outputs]
        x = graph.node("Transpose", x, perm=[1, 0, 2])
    else:
        shape = ["batch", source.n_outputs]
        x = _last(graph, x, valid)
    _read_out(graph, source, x)
    graph.outputs.insert(0, helper.make_tensor_value_info("outputs", TensorProto.FLOAT, shape))
    return helper.make_model(
        helper.make_graph(
            graph.nodes, "hoplens", graph.inputs, graph.outputs, initializer=graph.initialisers
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="hoplens",
    )


def _array(tensor: Tensor) -> Any:
    return tensor.detach().to(torch.float32).numpy()


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


def _read_out(graph: Graph, source: Source, x: str) -> None:
    if source.stack.w_out is not None:
        last = "" if source.offset is not None else "outputs"
        x = graph.node("MatMul", x, graph.weight(_array(source.stack.w_out.mT), "readout"), into=last)
    if source.offset is not None:
        x = graph.node(
            "Add", x, graph.constant(_array(source.offset), np.float32, "readout_bias"), into="outputs"
        )
    if x != "outputs":
        graph.node("Identity", x, into="outputs")


def _kind(cell: Cell) -> str:
    return "gru" if isinstance(cell, GruCell) else "lstm" if isinstance(cell, LstmCell) else "rnn"


def _has_operator(cell: Cell) -> bool:
    if isinstance(cell, LstmCell):
        return cell.w_hr is None
    return not (isinstance(cell, RnnCell) and cell.leaky)


def _level(graph: Graph, level: tuple[Cell, ...], x: str, number: int, stateful: bool) -> str:
    alike = len({(type(cell), cell.n_state) for cell in level}) == 1
    if alike and all(_has_operator(cell) for cell in level):
        return _operator(graph, level, x, number, stateful)
    shown = [
        _operator(graph, (cell,), x, number, stateful, reverse=bool(direction))
        if _has_operator(cell)
        else _scan(graph, cell, x, number, stateful, bool(direction))
        for direction, cell in enumerate(level)
    ]
    return shown[0] if len(shown) == 1 else str(graph.node("Concat", *shown, axis=2))


def _state(graph: Graph, part: str, number: int, size: int) -> str:
    """Add a state (batch, size) as graph input and output; return the name of the input."""
    from onnx import TensorProto, helper

    name = f"{part}_l{number}"
    graph.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]))
    graph.outputs.append(helper.make_tensor_value_info(f"next_{name}", TensorProto.FLOAT, ["batch", size]))
    return graph.name(name)


def _operator(
    graph: Graph, cells: tuple[Cell, ...], x: str, number: int, stateful: bool, *, reverse: bool = False
) -> str:
    """Add an RNN, GRU or LSTM node of one or two directions; return the states (L, B, n)."""
    kind = _kind(cells[0])
    hidden = cells[0].n_outputs
    stem = f"l{number}" + ("r" if reverse else "")

    def stacked(part: str) -> Any:  # (directions, gates * H, ...), gates in ONNX's order
        rows = [np.split(_array(getattr(cell, part)), len(GATES[kind])) for cell in cells]
        return np.stack([np.concatenate([gates[g] for g in GATES[kind]]) for gates in rows])

    bias = np.concatenate([stacked("b_ih"), stacked("b_hh")], axis=1)
    inputs = [x, graph.weight(stacked("w_ih"), f"{stem}_w"), graph.weight(stacked("w_hh"), f"{stem}_r")]
    inputs.append(graph.constant(bias, np.float32, f"{stem}_b") if bias.any() else "")
    parts = ("h", "c") if kind == "lstm" else ("h",)
    if stateful:
        axis = graph.constant([0])
        states = [_state(graph, part, number, hidden) for part in parts]
        inputs += ["", *(graph.node("Unsqueeze", state, axis) for state in states)]
    while not inputs[-1]:
        inputs.pop()
    attributes: dict[str, Any] = {"hidden_size": hidden}
    if len(cells) == 2 or reverse:
        attributes["direction"] = "bidirectional" if len(cells) == 2 else "reverse"
    if kind == "gru":
        attributes["linear_before_reset"] = 1
    if kind == "rnn":
        names = [ACTIVATIONS[cell.nonlinearity] for cell in cells if isinstance(cell, RnnCell)]
        attributes["activations"] = names
        if "Affine" in names:  # alpha x + beta, the identity
            attributes["activation_alpha"] = [1.0] * len(names)
            attributes["activation_beta"] = [0.0] * len(names)
    outputs = graph.node(OPERATORS[kind], *inputs, outputs=1 + (len(parts) if stateful else 0), **attributes)
    if stateful:
        shown, *after = outputs
        for part, state in zip(parts, after, strict=True):
            graph.node("Squeeze", state, axis, into=f"next_{part}_l{number}")
    else:
        shown = outputs
    if len(cells) == 1:  # (L, 1, B, H)
        return str(graph.node("Squeeze", shown, graph.constant([1])))
    both = graph.node("Transpose", shown, perm=[0, 2, 1, 3])
    return str(graph.node("Reshape", both, graph.constant([0, 0, -1])))


def _scan(graph: Graph, cell: Cell, x: str, number: int, stateful: bool, reverse: bool) -> str:
    """Add a Scan over time of a leaky cell or a projected LSTM; return the states (L, B, n)."""
    from onnx import TensorProto, helper

    assert isinstance(cell, RnnCell | LstmCell)
    stem = f"l{number}" + ("r" if reverse else "")
    # what the inputs contribute is computed for all steps at once, outside the loop
    entering = graph.node("MatMul", x, graph.weight(_array(cell.w_ih.mT), f"{stem}_w"))
    bias = graph.constant(_array(cell.b_ih + cell.b_hh), np.float32, f"{stem}_b")
    entering = graph.node("Add", entering, bias)
    recurrent = graph.weight(_array(cell.w_hh.mT), f"{stem}_r")
    sizes = {"h": cell.n_outputs, "c": cell.hidden} if isinstance(cell, LstmCell) else {"h": cell.n_state}
    body = Graph(taken=graph.taken)
    starts = []
    for part, size in sizes.items():
        if stateful:
            starts.append(_state(graph, part, number, size))
        else:
            batch = graph.node("Shape", x, start=1, end=2)
            shape = graph.node("Concat", batch, graph.constant([size]), axis=0)
            starts.append(graph.node("ConstantOfShape", shape))
    before = [body.name(f"{stem}_{part}") for part in sizes]
    drive = body.name(f"{stem}_drive")
    z = body.node("Add", drive, body.node("MatMul", before[0], recurrent))
    if isinstance(cell, LstmCell):
        after = _lstm_body(graph, body, cell, z, before[1], stem)
    else:
        after = [_leaky_body(graph, body, cell, z, before[0])]
    shown = body.node("Identity", after[0])

    def values(names: list[str]) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]

    inner = helper.make_graph(body.nodes, f"{stem}_step", values([*before, drive]), values([*after, shown]))
    inner.initializer.extend(body.initialisers)
    flags = [int(reverse)]
    found = graph.node(
        "Scan",
        *starts,
        entering,
        outputs=len(starts) + 1,
        body=inner,
        num_scan_inputs=1,
        scan_input_directions=flags,
        scan_output_directions=flags,
    )
    if stateful:
        for part, state in zip(sizes, found, strict=False):
            graph.node("Identity", state, into=f"next_{part}_l{number}")
    return str(found[-1])


def _leaky_body(graph: Graph, body: Graph, cell: RnnCell, z: str, before: str) -> str:
    """``h' = (1 - a) h + a f(z)``."""
    new = z if cell.nonlinearity == "linear" else body.node(ACTIVATIONS[cell.nonlinearity], z)
    leak = _array(torch.as_tensor(cell.leak))
    kept = body.node("Mul", before, graph.constant(1 - leak, np.float32, "kept"))
    return str(body.node("Add", kept, body.node("Mul", new, graph.constant(leak, np.float32, "leak"))))


def _lstm_body(graph: Graph, body: Graph, cell: LstmCell, z: str, c: str, stem: str) -> list[str]:
    """Return h' = W_hr (o tanh c') and c' = f c + i g."""
    gates = body.node("Split", z, outputs=4, axis=1)  # torch's order: i, f, g, o
    i, f, o = (body.node("Sigmoid", gates[n]) for n in (0, 1, 3))
    g = body.node("Tanh", gates[2])
    new = body.node("Add", body.node("Mul", f, c), body.node("Mul", i, g))
    h = body.node("Mul", o, body.node("Tanh", new))
    if cell.w_hr is not None:
        h = body.node("MatMul", h, graph.weight(_array(cell.w_hr.mT), f"{stem}_p"))
    return [h, new]


__all__ = ["IR_VERSION", "OPSET", "build_graph"]
