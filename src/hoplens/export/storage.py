"""How the weights of an ONNX file lie on disk: plain, in half precision, or without their zeros.

A packed weight is a bit mask and the values that are not zero, put together again by standard operators
(BitShift, NonZero, ScatterElements) which onnxruntime folds into a constant when it loads the file. ONNX's
own sparse initialisers need 8 bytes an index, and shape inference refuses them as weights of RNN, GRU, LSTM.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hoplens.errors import NonFiniteError

STORAGES = ("auto", "dense", "half")
PACKING = 700  # bytes that unpacking one weight adds to the graph


class Graph:
    """An ONNX graph in the making: nodes, weights, and names that are never given twice.

    Parameters
    ----------
    storage : {"auto", "dense", "half"}
        ``auto``: float32, packed where that makes the file smaller. ``dense``: float32. ``half``: float16,
        packed where that makes the file smaller; computed in float32.
    taken : dict, optional
        Names of the graph around it, which must not come twice.
    """

    def __init__(self, storage: str = "dense", taken: dict[str, int] | None = None) -> None:
        self.storage = storage
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
        """Add a weight, stored as the graph's ``storage`` says; return the name of its float32 form."""
        from onnx import TensorProto

        array = np.ascontiguousarray(value, dtype=np.float32)
        if self.storage == "half":
            with np.errstate(over="ignore"):
                array = array.astype(np.float16)
            if not np.isfinite(array).all():
                raise NonFiniteError(
                    f"{stem} has weights beyond the range of half precision (65504); use storage='auto'"
                )
        filled = np.count_nonzero(array)
        packed = filled * array.itemsize + array.size // 8 + PACKING
        if self.storage != "dense" and packed < array.nbytes:
            name = self._packed(array, stem)
        else:
            name = self.constant(array, array.dtype, stem)
        return name if array.dtype == np.float32 else str(self.node("Cast", name, to=TensorProto.FLOAT))

    def _packed(self, array: Any, stem: str) -> str:
        flat = array.ravel()
        bits = np.packbits(flat != 0, bitorder="little")
        mask = self.constant(bits[:, None], np.uint8, f"{stem}_mask")
        values = self.constant(flat[flat != 0], array.dtype, f"{stem}_values")
        shifts = self.constant(np.arange(8)[None], np.uint8)
        each = self.node("BitShift", mask, shifts, direction="RIGHT")  # (bytes, 8)
        each = self.node("Mod", each, self.constant(2, np.uint8))
        each = self.node("Reshape", each, self.constant([-1]))
        places = self.node("Reshape", self.node("NonZero", each), self.constant([-1]))
        zeros = self.node("Expand", self.constant([0], array.dtype), self.constant([flat.size]))
        whole = self.node("ScatterElements", zeros, places, values)
        return str(self.node("Reshape", whole, self.constant(array.shape)))


__all__ = ["STORAGES", "Graph"]
