"""How the weights of an ONNX file lie on disk: plain, in few bits, or without their zeros.

A packed weight is a bit mask and the values that are not zero, put together again by standard operators
(BitShift, CumSum, Gather) which onnxruntime folds into a constant when it loads the file. ONNX's
own sparse initialisers need 8 bytes an index, and shape inference refuses them as weights of RNN, GRU, LSTM.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from hoplens.models.grids import LARGEST, pack

PACKING = 700  # bytes that unpacking one weight adds to the graph
DIGITS = {
    "int4": (16, 2),
    "ternary": (3, 5),
}  # base, and levels a byte, as `hoplens.models.grids.pack` has it


class Levels(NamedTuple):
    """A quantised weight: ``values * scales``.

    ``values`` (R, C); ``scales`` (R, 1).
    """

    values: Any
    scales: Any
    form: str


class Graph:
    """An ONNX graph in the making: nodes, weights, and names that are never given twice."""

    def __init__(self, taken: dict[str, int] | None = None) -> None:
        self.nodes: list[Any] = []
        self.initialisers: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.taken: dict[str, int] = {} if taken is None else taken

    def name(self, stem: str) -> str:
        """Return a new name."""
        number = self.taken.get(stem, 0)
        self.taken[stem] = number + 1
        return stem if number == 0 else f"{stem}_{number}"

    def node(self, op: str, *inputs: str, outputs: int = 1, into: str = "", **attributes: Any) -> Any:
        """Add a node; return the name of its output, or the names of several."""
        from onnx import helper

        names = [into] if into else [self.name(op.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names[0] if len(names) == 1 else names

    def constant(self, value: Any, dtype: Any = np.int64, stem: str = "c") -> str:
        """Add a small constant and return its name."""
        from onnx import numpy_helper

        name = self.name(stem)
        self.initialisers.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def weight(self, value: Any, stem: str) -> str:
        """Add a weight, without its zeros where that makes the file smaller; return its name."""
        array = np.ascontiguousarray(value, dtype=np.float32)
        packed = np.count_nonzero(array) * array.itemsize + array.size // 8 + PACKING
        return self._packed(array, stem) if packed < array.nbytes else self.constant(array, array.dtype, stem)

    def levels(self, weight: Levels, stem: str) -> str:
        """Add a quantised weight, packed into bytes; return the name of its float32 form (R, C)."""
        from onnx import TensorProto

        flat = weight.values.ravel()
        filled = _filled(flat)
        whole = len(_bytes(flat, weight.form))
        sparse = len(_bytes(filled, weight.form)) + flat.size // 8 + PACKING < whole
        given = self._integers(filled if sparse else flat, weight.form, stem)
        given = self.node("Cast", given, to=TensorProto.FLOAT)
        if sparse:
            given = self._spread(given, flat, stem)
        matrix = self.node("Reshape", given, self.constant(weight.values.shape))
        return str(self.node("Mul", matrix, self.constant(weight.scales, np.float32, f"{stem}_scales")))

    def _integers(self, flat: Any, form: str, stem: str) -> str:
        """Add levels as bytes, and the nodes that take the bytes apart."""
        from onnx import TensorProto

        if form == "int8":
            return self.constant(flat, np.int8, stem)
        base, each = DIGITS[form]
        data = self.constant(_bytes(flat, form)[:, None], np.uint8, stem)
        data = self.node("Cast", data, to=TensorProto.INT32)
        data = self.node("Div", data, self.constant([base**n for n in range(each)], np.int32))
        data = self.node("Mod", data, self.constant(base, np.int32))
        data = self.node("Reshape", data, self.constant([-1]))
        data = self.node("Slice", data, self.constant([0]), self.constant([flat.size]))
        return str(self.node("Sub", data, self.constant(LARGEST[form], np.int32)))

    def _packed(self, array: Any, stem: str) -> str:
        flat = array.ravel()
        values = self.constant(_filled(flat), array.dtype, f"{stem}_values")
        whole = self._spread(values, flat, stem)
        return str(self.node("Reshape", whole, self.constant(array.shape)))

    def _spread(self, values: str, flat: Any, stem: str) -> str:
        """Put values, a zero before them, in the places where ``flat`` is not zero."""
        from onnx import TensorProto

        bits = np.packbits(flat != 0, bitorder="little")
        mask = self.constant(bits[:, None], np.uint8, f"{stem}_mask")
        shifts = self.constant(np.arange(8)[None], np.uint8)
        each = self.node("BitShift", mask, shifts, direction="RIGHT")  # (bytes, 8)
        each = self.node("Mod", each, self.constant(2, np.uint8))
        each = self.node("Cast", each, to=TensorProto.INT32)
        each = self.node("Reshape", each, self.constant([-1]))
        each = self.node("Slice", each, self.constant([0]), self.constant([flat.size]))
        # the n-th filled place takes value n, all others take number 0, the zero. NonZero and Scatter would
        # be shorter, but onnxruntime does not fold NonZero: it would unpack at every run
        number = self.node("Mul", self.node("CumSum", each, self.constant(0)), each)
        return str(self.node("Gather", values, number))


def _filled(flat: Any) -> Any:
    return np.concatenate([np.zeros(1, flat.dtype), flat[flat != 0]])


def _bytes(flat: Any, form: str) -> Any:
    return pack(torch.from_numpy(np.ascontiguousarray(flat)), form).numpy()
