"""The ONNX nodes of each kind of recurrent cell; time comes first, (L, B, n)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoplens.export.source import READOUT, Source
from hoplens.export.storage import Graph, Levels
from hoplens.models.cells import Cell, WeightCell

NAMES = {"w_ih": "weight_ih", "w_hh": "weight_hh", "w_hr": "weight_hr"}


def as_array(tensor: Tensor) -> Any:
    """Return a tensor as a float32 array."""
    return tensor.detach().to(torch.float32).numpy()


def transposed(graph: Graph, levels: Mapping[str, Levels], name: str, weight: Tensor, stem: str) -> str:
    """Add a weight (n, m) as (m, n); by its levels where it has some."""
    if name in levels:
        return str(graph.node("Transpose", graph.levels(levels[name], stem), perm=[1, 0]))
    return graph.weight(as_array(weight.mT), stem)


class Nodes:
    """The equations of a cell as nodes of a graph; constants go to the graph around it."""

    def __init__(self, body: Graph, graph: Graph) -> None:
        self.body, self.graph = body, graph

    def add(self, a: str, b: str) -> str:
        """Return a + b."""
        return str(self.body.node("Add", a, b))

    def mul(self, a: str, b: str) -> str:
        """Return a b."""
        return str(self.body.node("Mul", a, b))

    def mix(self, share: Any, a: str, b: str) -> str:
        """Return ``share a + (1 - share) b``."""
        if isinstance(share, str):
            return self.add(b, self.mul(share, str(self.body.node("Sub", a, b))))
        leak = as_array(torch.as_tensor(share))
        kept = self.mul(b, self.graph.constant(1 - leak, np.float32, "kept"))
        return self.add(kept, self.mul(a, self.graph.constant(leak, np.float32, "leak")))

    def apply(self, function: str, a: str) -> str:
        """Return a function of a."""
        return a if function == "linear" else str(self.body.node(function.capitalize(), a))

    def split(self, a: str, count: int) -> list[str]:
        """Return equal blocks."""
        return [a] if count == 1 else list(self.body.node("Split", a, outputs=count, axis=1))


Product = Callable[[Graph, str, str], str]  # graph of a step, "w_hh" or "w_hr", operand -> its product


def add_scan(
    graph: Graph,
    cell: WeightCell,
    number: int,
    entering: Callable[[], str],
    product: Product,
    *,
    batch: str,
    stateful: bool,
    reverse: bool,
) -> str:
    """Add a Scan of a cell's equations over time; return what it shows, (L, B, n).

    ``number``: of the level. ``entering``: adds what the inputs contribute at all steps, outside the loop,
    biases included. ``product``: adds a product with a recurrent weight. ``batch``: shape (1,) that holds
    the size of the batch. ``stateful``: whether states are inputs and outputs of the graph.
    """
    from onnx import TensorProto, helper

    stem = f"l{number}" + ("r" if reverse else "")
    drive_in = entering()
    sizes = list(zip(cell.parts, cell.sizes, strict=True))
    starts = [
        add_state(graph, part, number, size)
        if stateful
        else str(graph.node("ConstantOfShape", graph.node("Concat", batch, graph.constant([size]), axis=0)))
        for part, size in sizes
    ]
    body = Graph(taken=graph.taken)
    before = [body.name(f"{stem}_{part}") for part in cell.parts]
    drive = body.name(f"{stem}_drive")
    by_h = None
    if cell.w_hh.numel():
        fed = [before[n] for n in cell.fed]
        by_h = product(body, "w_hh", fed[0] if len(fed) == 1 else body.node("Concat", *fed, axis=1))
    nodes = Nodes(body, graph)
    after = list(cell.update(nodes, cell.join(nodes, drive, by_h), before))
    if cell.w_hr is not None:
        after[0] = product(body, "w_hr", after[0])
    outputs = [body.node("Identity", name) for name in (*after, after[0])]

    def values(names: list[str]) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]

    step = values([*before, drive]), values(outputs)
    inner = helper.make_graph(body.nodes, f"{stem}_step", *step, initializer=body.initialisers)
    found = graph.node(
        "Scan",
        *starts,
        drive_in,
        outputs=len(starts) + 1,
        body=inner,
        num_scan_inputs=1,
        scan_input_directions=[int(reverse)],
        scan_output_directions=[int(reverse)],
    )
    if stateful:
        for part, state in zip(cell.parts, found, strict=False):
            graph.node("Identity", state, into=f"next_{part}_l{number}")
    return str(found[-1])


def add_state(graph: Graph, part: str, number: int, size: int) -> str:
    """Add a state (batch, size) as graph input and output; return the name of the input."""
    from onnx import TensorProto, helper

    name = graph.name(f"{part}_l{number}")
    shape: list[str | int | None] = ["batch", size]
    graph.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    graph.outputs.append(helper.make_tensor_value_info(f"next_{name}", TensorProto.FLOAT, shape))
    return name


class CellWriter:
    """Adds the cells of a network to a graph, level by level."""

    def __init__(self, graph: Graph, source: Source, stateful: bool) -> None:
        self.graph, self.source, self.levels, self.stateful = graph, source, source.levels, stateful

    def read_out(self, x: str) -> str:
        """Add the read-out, if there is one, of what the last level shows; return the outputs."""
        graph, offset = self.graph, self.source.offset
        if self.source.stack.w_out is not None:
            weight = transposed(graph, self.levels, READOUT, self.source.stack.w_out, "readout")
            x = str(graph.node("MatMul", x, weight))
        if offset is not None:
            x = str(graph.node("Add", x, graph.constant(as_array(offset), np.float32, "readout_bias")))
        return x

    def level(self, cells: tuple[Cell, ...], number: int, x: str) -> str:
        """Add a level of one cell, or of a forward and a backward one; return what it shows."""
        known = [cell for cell in cells if isinstance(cell, WeightCell)]
        operators = [cell.operator() for cell in known]
        alike = {(one.name, *one.attributes) for one in operators if one is not None}
        same_size = len({cell.n_state for cell in known}) == 1
        if same_size and len(alike) == 1 and None not in operators:
            return self._operator(known, number, x, reverse=False)
        shown = [
            self._scan(cell, number, x, bool(direction))
            if cell.operator() is None
            else self._operator([cell], number, x, reverse=bool(direction))
            for direction, cell in enumerate(known)
        ]
        return shown[0] if len(shown) == 1 else str(self.graph.node("Concat", *shown, axis=2))

    def _stacked(self, cells: Sequence[WeightCell], part: str, number: int, reverse: bool) -> str:
        """Add a weight of all directions, (directions, gates * H, ...), its gates in ONNX's order."""
        stem = f"l{number}_{part}"
        names = [_name(part, number, reverse or bool(n)) for n in range(len(cells))]
        if not all(name in self.levels for name in names):
            return self.graph.weight(_in_order(cells, part), stem)
        parts = []
        for name in names:
            found = self.levels[name]
            order = _order(cells[0], len(found.values))
            whole = self.graph.levels(Levels(found.values[order], found.scales[order], found.form), stem)
            parts.append(self.graph.node("Unsqueeze", whole, self.graph.constant([0])))
        return str(parts[0] if len(parts) == 1 else self.graph.node("Concat", *parts, axis=0))

    def _operator(self, cells: Sequence[WeightCell], number: int, x: str, *, reverse: bool) -> str:
        """Add an RNN, GRU or LSTM node of one or two directions; return the states (L, B, n)."""
        graph, hidden, parts = self.graph, cells[0].n_outputs, cells[0].parts
        inputs = [x, *(self._stacked(cells, part, number, reverse) for part in ("w_ih", "w_hh"))]
        bias = np.concatenate([_in_order(cells, "b_ih"), _in_order(cells, "b_hh")], axis=1)
        inputs.append(graph.constant(bias, np.float32, f"l{number}_b") if bias.any() else "")
        if self.stateful:
            axis = graph.constant([0])
            states = [add_state(graph, part, number, hidden) for part in parts]
            inputs += ["", *(graph.node("Unsqueeze", state, axis) for state in states)]
        while not inputs[-1]:
            inputs.pop()
        operators = [operator for cell in cells if (operator := cell.operator()) is not None]
        attributes = dict(operators[0].attributes)
        if len(cells) == 2:  # lists hold one entry a direction
            attributes |= {
                k: v + operators[1].attributes[k] for k, v in attributes.items() if type(v) is list
            }
        if len(cells) == 2 or reverse:
            attributes["direction"] = "bidirectional" if len(cells) == 2 else "reverse"
        more = len(parts) if self.stateful else 0
        outputs = graph.node(operators[0].name, *inputs, outputs=1 + more, hidden_size=hidden, **attributes)
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

    def _scan(self, cell: WeightCell, number: int, x: str, reverse: bool) -> str:
        """Add a Scan over time of a cell without an operator of its own; return the states (L, B, n)."""
        graph, joined = self.graph, cell.from_input == cell.from_state

        def entering() -> str:
            moved = graph.node("MatMul", x, self._transposed(cell, "w_ih", number, reverse))
            bias = cell.b_ih + cell.b_hh if joined else cell.b_ih
            return str(graph.node("Add", moved, graph.constant(as_array(bias), np.float32, f"l{number}_b")))

        def product(body: Graph, part: str, operand: str) -> str:
            moved = body.node("MatMul", operand, self._transposed(cell, part, number, reverse))
            if part == "w_hr" or joined or not cell.b_hh.any():
                return str(moved)
            return str(body.node("Add", moved, graph.constant(as_array(cell.b_hh), np.float32, "b_hh")))

        batch = graph.node("Shape", x, start=1, end=2)
        return add_scan(
            graph, cell, number, entering, product, batch=batch, stateful=self.stateful, reverse=reverse
        )

    def _transposed(self, cell: Cell, part: str, number: int, reverse: bool) -> str:
        name = _name(part, number, reverse)
        return transposed(self.graph, self.levels, name, getattr(cell, part), f"l{number}_{part}")


def _order(cell: WeightCell, rows: int) -> Any:
    """Return torch's row numbers in ONNX's order of gates."""
    operator = cell.operator()
    assert operator is not None
    gates = np.split(np.arange(rows), len(operator.gates))
    return np.concatenate([gates[n] for n in operator.gates])


def _in_order(cells: Sequence[WeightCell], part: str) -> Any:
    arrays = [as_array(getattr(cell, part)) for cell in cells]
    return np.stack([array[_order(cells[0], len(array))] for array in arrays])


def _name(part: str, number: int, reverse: bool) -> str:
    return f"{NAMES[part]}_l{number}" + ("_reverse" if reverse else "")
