"""ONNX nodes that multiply integers: int8 weights times 8-bit activations.

onnxruntime has no int8 form of the operators RNN and GRU (its quantize_dynamic leaves them in float32), so
the recurrence is a Scan over time whose products are MatMulInteger. Activations and weights are uint8,
weights (and activations below 0) around 128: with signed activations onnxruntime has no fast kernel, with
signed weights its sums overflow on processors without VNNI. What the inputs contribute is one product for
all steps, outside the loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoplens.compress.quantisation import Quantised
from hoplens.export.onnx_cells import add_scan
from hoplens.export.storage import Graph
from hoplens.models.cells import Cell, WeightCell
from hoplens.models.readers.modules import PARTS


class IntegerWriter:
    """Adds the levels and the read-out of a quantised model to a graph, all products in integers."""

    def __init__(self, graph: Graph, quantised: Quantised, stateful: bool) -> None:
        self.graph, self.q, self.stateful = graph, quantised, stateful
        self.tensors = quantised.model.state_dict()

    def level(self, cells: tuple[Cell, ...], number: int, x: str) -> str:
        """Add a level of one cell, or of a forward and a backward one; return what it shows."""
        batch = self.graph.node("Shape", x, start=1, end=2)
        operand = self._to_levels(self.graph, x, f"x_l{number}")
        known = [cell for cell in cells if isinstance(cell, WeightCell)]
        ways = [self._cell(operand, cell, number, batch, bool(way)) for way, cell in enumerate(known)]
        return ways[0] if len(ways) == 1 else str(self.graph.node("Concat", *ways, axis=2))

    def read_out(self, x: str) -> str:
        """Add the read-out of what the last level shows; return the outputs."""
        operand = self._to_levels(self.graph, x, "shown")
        return self._product(self.graph, operand, "shown", "readout.weight", "readout.bias")

    def _floats(self, value: Tensor | float, stem: str) -> str:
        return self.graph.constant(np.asarray(torch.as_tensor(value).numpy()), np.float32, stem)

    def _to_levels(self, graph: Graph, x: str, name: str) -> tuple[str, str]:
        """Round an operand to its grid; return its levels and their zero point."""
        grid = self.q.grids[name]
        zero = self.graph.constant(int(grid.zero), np.uint8, f"{name}_zero")
        return graph.node("QuantizeLinear", x, self._floats(grid.scale, f"{name}_scale"), zero), zero

    def _product(self, graph: Graph, operand: tuple[str, str], name: str, weight: str, bias: str = "") -> str:
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
        y = graph.node("Mul", graph.node("Cast", whole, to=TensorProto.FLOAT), self._floats(scale, "scale"))
        if bias in self.tensors:
            y = graph.node("Add", y, self._floats(self.tensors[bias], bias))
        return str(y)

    def _cell(self, x: tuple[str, str], cell: WeightCell, level: int, batch: str, reverse: bool) -> str:
        """Add one direction of one level; return its states (L, B, n)."""
        suffix = f"_l{level}" + ("_reverse" if reverse else "")
        w_ih, w_hh, b_ih, b_hh, w_hr = (f"core.{part}{suffix}" for part in PARTS)

        def product(body: Graph, part: str, operand: str) -> str:
            name, weight, bias = (f"p{suffix}", w_hr, "") if part == "w_hr" else (f"h{suffix}", w_hh, b_hh)
            return self._product(body, self._to_levels(body, operand, name), name, weight, bias)

        return add_scan(
            self.graph,
            cell,
            level,
            lambda: self._product(self.graph, x, f"x_l{level}", w_ih, b_ih),
            product,
            batch=batch,
            stateful=self.stateful,
            reverse=reverse,
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
