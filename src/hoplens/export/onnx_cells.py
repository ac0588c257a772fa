"""The ONNX nodes of each kind of recurrent cell; time comes first, (L, B, n)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoplens.export.storage import Graph, Levels
from hoplens.models.cells import Cell, GruCell, LstmCell, RnnCell

GATES = {"gru": (1, 0, 2), "lstm": (0, 3, 1, 2), "rnn": (0,)}  # ONNX's z r n and i o f g, from torch's order
OPERATORS = {"gru": "GRU", "lstm": "LSTM", "rnn": "RNN"}
ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu", "linear": "Affine"}
NAMES = {"w_ih": "weight_ih", "w_hh": "weight_hh", "w_hr": "weight_hr"}


def as_array(tensor: Tensor) -> Any:
    """Return a tensor as a float32 array."""
    return tensor.detach().to(torch.float32).numpy()


def transposed(graph: Graph, levels: Mapping[str, Levels], name: str, weight: Tensor, stem: str) -> str:
    """Add a weight (n, m) as (m, n); by its levels where it has some."""
    if name in levels:
        return str(graph.node("Transpose", graph.levels(levels[name], stem), perm=[1, 0]))
    return graph.weight(as_array(weight.mT), stem)


class CellWriter:
    """Adds the cells of a network to a graph, level by level.

    Parameters
    ----------
    graph : Graph
    levels : mapping of str to Levels
        Quantised weights by torch's names, e.g. ``weight_hh_l0_reverse``.
    stateful : bool
        Whether states are inputs and outputs of the graph.
    """

    def __init__(self, graph: Graph, levels: Mapping[str, Levels], stateful: bool) -> None:
        self.graph, self.levels, self.stateful = graph, levels, stateful

    def level(self, cells: tuple[Cell, ...], number: int, x: str) -> str:
        """Add a level of one cell, or of a forward and a backward one; return what it shows."""
        alike = len({(type(cell), cell.n_state) for cell in cells}) == 1
        if alike and all(_has_operator(cell) for cell in cells):
            return self._operator(cells, number, x, reverse=False)
        shown = [
            self._operator((cell,), number, x, reverse=bool(direction))
            if _has_operator(cell)
            else self._scan(cell, number, x, bool(direction))
            for direction, cell in enumerate(cells)
        ]
        return shown[0] if len(shown) == 1 else str(self.graph.node("Concat", *shown, axis=2))

    def _state(self, part: str, number: int, size: int) -> str:
        """Add a state (batch, size) as graph input and output; return the name of the input."""
        from onnx import TensorProto, helper

        name = self.graph.name(f"{part}_l{number}")
        shape: list[str | int | None] = ["batch", size]
        self.graph.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        self.graph.outputs.append(helper.make_tensor_value_info(f"next_{name}", TensorProto.FLOAT, shape))
        return name

    def _stacked(self, cells: tuple[Cell, ...], part: str, number: int, reverse: bool) -> str:
        """Add a weight of all directions, (directions, gates * H, ...), its gates in ONNX's order."""
        stem = f"l{number}_{part}"
        names = [_name(part, number, reverse or bool(n)) for n in range(len(cells))]
        if not all(name in self.levels for name in names):
            return self.graph.weight(_in_order(cells, part), stem)
        kind, parts = _kind(cells[0]), []
        for name in names:
            found = self.levels[name]
            order = _order(kind, len(found.values))
            whole = self.graph.levels(Levels(found.values[order], found.scales[order], found.form), stem)
            parts.append(self.graph.node("Unsqueeze", whole, self.graph.constant([0])))
        return str(parts[0] if len(parts) == 1 else self.graph.node("Concat", *parts, axis=0))

    def _operator(self, cells: tuple[Cell, ...], number: int, x: str, *, reverse: bool) -> str:
        """Add an RNN, GRU or LSTM node of one or two directions; return the states (L, B, n)."""
        graph, kind, hidden = self.graph, _kind(cells[0]), cells[0].n_outputs
        inputs = [x, *(self._stacked(cells, part, number, reverse) for part in ("w_ih", "w_hh"))]
        bias = np.concatenate([_in_order(cells, "b_ih"), _in_order(cells, "b_hh")], axis=1)
        inputs.append(graph.constant(bias, np.float32, f"l{number}_b") if bias.any() else "")
        parts = ("h", "c") if kind == "lstm" else ("h",)
        if self.stateful:
            axis = graph.constant([0])
            states = [self._state(part, number, hidden) for part in parts]
            inputs += ["", *(graph.node("Unsqueeze", state, axis) for state in states)]
        while not inputs[-1]:
            inputs.pop()
        attributes = _attributes(cells, kind, reverse)
        more = len(parts) if self.stateful else 0
        outputs = graph.node(OPERATORS[kind], *inputs, outputs=1 + more, hidden_size=hidden, **attributes)
        if self.stateful:
            shown, *after = outputs
            for part, state in zip(parts, after, strict=True):
                graph.node("Squeeze", state, axis, into=f"next_{part}_l{number}")
        else:
            shown = outputs
        if len(cells) == 1:  # (L, 1, B, H)
            return str(graph.node("Squeeze", shown, graph.constant([1])))
        both = graph.node("Transpose", shown, perm=[0, 2, 1, 3])
        return str(graph.node("Reshape", both, graph.constant([0, 0, -1])))

    def _scan(self, cell: Cell, number: int, x: str, reverse: bool) -> str:
        """Add a Scan over time of a leaky cell or a projected LSTM; return the states (L, B, n)."""
        from onnx import TensorProto, helper

        assert isinstance(cell, RnnCell | LstmCell)
        graph, stem = self.graph, f"l{number}" + ("r" if reverse else "")
        # what the inputs contribute is computed for all steps at once, outside the loop
        entering = graph.node("MatMul", x, self._transposed(cell, "w_ih", number, reverse))
        bias = graph.constant(as_array(cell.b_ih + cell.b_hh), np.float32, f"{stem}_b")
        entering = graph.node("Add", entering, bias)
        recurrent = self._transposed(cell, "w_hh", number, reverse)
        sizes = {"h": cell.n_outputs, "c": cell.hidden} if isinstance(cell, LstmCell) else {"h": cell.n_state}
        starts = [self._start(part, number, size, x) for part, size in sizes.items()]
        body = Graph(taken=graph.taken)
        before = [body.name(f"{stem}_{part}") for part in sizes]
        drive = body.name(f"{stem}_drive")
        z = body.node("Add", drive, body.node("MatMul", before[0], recurrent))
        if isinstance(cell, LstmCell):
            after = _lstm_body(body, z, before[1])
            if cell.w_hr is not None:
                projection = self._transposed(cell, "w_hr", number, reverse)
                after[0] = body.node("MatMul", after[0], projection)
        else:
            after = [self._leaky_body(body, cell, z, before[0])]
        shown = body.node("Identity", after[0])

        def values(names: list[str]) -> list[Any]:
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]

        step = values([*before, drive]), values([*after, shown])
        inner = helper.make_graph(body.nodes, f"{stem}_step", *step, initializer=body.initialisers)
        found = graph.node(
            "Scan",
            *starts,
            entering,
            outputs=len(starts) + 1,
            body=inner,
            num_scan_inputs=1,
            scan_input_directions=[int(reverse)],
            scan_output_directions=[int(reverse)],
        )
        if self.stateful:
            for part, state in zip(sizes, found, strict=False):
                graph.node("Identity", state, into=f"next_{part}_l{number}")
        return str(found[-1])

    def _start(self, part: str, number: int, size: int, x: str) -> str:
        if self.stateful:
            return self._state(part, number, size)
        batch = self.graph.node("Shape", x, start=1, end=2)
        shape = self.graph.node("Concat", batch, self.graph.constant([size]), axis=0)
        return str(self.graph.node("ConstantOfShape", shape))

    def _transposed(self, cell: Cell, part: str, number: int, reverse: bool) -> str:
        name = _name(part, number, reverse)
        return transposed(self.graph, self.levels, name, getattr(cell, part), f"l{number}_{part}")

    def _leaky_body(self, body: Graph, cell: RnnCell, z: str, before: str) -> str:
        """``h' = (1 - a) h + a f(z)``."""
        new = z if cell.nonlinearity == "linear" else body.node(ACTIVATIONS[cell.nonlinearity], z)
        leak = as_array(torch.as_tensor(cell.leak))
        kept = body.node("Mul", before, self.graph.constant(1 - leak, np.float32, "kept"))
        new = body.node("Mul", new, self.graph.constant(leak, np.float32, "leak"))
        return str(body.node("Add", kept, new))


def _lstm_body(body: Graph, z: str, c: str) -> list[str]:
    """Return ``o tanh c'`` and ``c' = f c + i g``."""
    gates = body.node("Split", z, outputs=4, axis=1)  # torch's order: i, f, g, o
    i, f, o = (body.node("Sigmoid", gates[n]) for n in (0, 1, 3))
    g = body.node("Tanh", gates[2])
    new = body.node("Add", body.node("Mul", f, c), body.node("Mul", i, g))
    return [body.node("Mul", o, body.node("Tanh", new)), new]


def _attributes(cells: tuple[Cell, ...], kind: str, reverse: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if len(cells) == 2 or reverse:
        found["direction"] = "bidirectional" if len(cells) == 2 else "reverse"
    if kind == "gru":
        found["linear_before_reset"] = 1
    if kind == "rnn":
        names = [ACTIVATIONS[cell.nonlinearity] for cell in cells if isinstance(cell, RnnCell)]
        found["activations"] = names
        if "Affine" in names:  # alpha x + beta, the identity
            found["activation_alpha"] = [1.0] * len(names)
            found["activation_beta"] = [0.0] * len(names)
    return found


def _kind(cell: Cell) -> str:
    return "gru" if isinstance(cell, GruCell) else "lstm" if isinstance(cell, LstmCell) else "rnn"


def _has_operator(cell: Cell) -> bool:
    if isinstance(cell, LstmCell):
        return cell.w_hr is None
    return not (isinstance(cell, RnnCell) and cell.leaky)


def _order(kind: str, rows: int) -> Any:
    """Return torch's row numbers in ONNX's order of gates."""
    gates = np.split(np.arange(rows), len(GATES[kind]))
    return np.concatenate([gates[n] for n in GATES[kind]])


def _in_order(cells: tuple[Cell, ...], part: str) -> Any:
    arrays = [as_array(getattr(cell, part)) for cell in cells]
    return np.stack([array[_order(_kind(cells[0]), len(array))] for array in arrays])


def _name(part: str, number: int, reverse: bool) -> str:
    return f"{NAMES[part]}_l{number}" + ("_reverse" if reverse else "")


__all__ = ["CellWriter", "as_array", "transposed"]
