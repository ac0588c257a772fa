"""Turn modules and functions into a `Stack` of cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hoplens.cells import Cell
from hoplens.errors import ParameterError, ShapeError, UnsupportedModelError
from hoplens.parts import Leak
from hoplens.pathways import Pathways, as_tensor
from hoplens.readers.weights import effective_weight
from hoplens.registries import Registry, owner_of
from hoplens.stack import Stack
from hoplens.torch_cells import GruCell, LstmCell, RnnCell, leak_of

SUPPORTED = (
    "nn.RNN, nn.GRU, nn.LSTM (stacked, bidirectional, projected), nn.RNNCell, nn.GRUCell, nn.LSTMCell, a "
    "hoplens Cell or Stack, a triple (w_in, w_rec, w_out) of arrays, a networkx DiGraph or square "
    "SciPy/NumPy adjacency matrix with inputs= and outputs=, a .safetensors or state_dict file"
)
HOW_TO = (
    "for a module of your own, define to_hoplens(self) returning a hoplens.Cell (or a list of them, or a "
    "Pathways), or call hoplens.register_reader(YourModule, function)"
)

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
Reading = Cell | Pathways | Stack | list[Cell] | tuple[Cell, ...]
# by "module.Class": a package's reader is loaded only when its class is met
READERS: Registry[Callable[[Any], Reading]] = Registry("reader", "hoplens.readers", {})


def register_reader(kind: type, reader: Callable[[Any], Reading]) -> None:
    """Teach `read` a class of modules.

    Parameters
    ----------
    kind : type
        The class; subclasses without a reader of their own use it too.
    reader : callable
        Takes an instance and returns a `Cell`, a list of cells (a stack, lowest first), a `Stack`, or a
        `Pathways`. A class may define a method ``to_hoplens(self)`` instead.

    Raises
    ------
    ParameterError
        If another function reads that class already; the same function, defined again, replaces itself.
    """
    if not isinstance(kind, type) or not callable(reader):
        raise ParameterError(
            f"register_reader takes a class and a function, got {type(kind).__name__} and "
            f"{type(reader).__name__}"
        )
    name = f"{kind.__module__}.{kind.__qualname__}"
    READERS.add(name, reader, owner=owner_of(reader))


def find_reader(model: object) -> Callable[[Any], Reading] | None:
    """Return the reader registered for the model's class or the nearest class above it."""
    for kind in type(model).__mro__:
        if (reader := READERS.find(f"{kind.__module__}.{kind.__qualname__}")) is not None:
            return reader
    method = getattr(type(model), "to_hoplens", None)
    return method if callable(method) else None


def to_stack(model: Any, readout: Any = None, *, dt: Any = None, tau: Any = None) -> Stack | Pathways:
    """Return a module, cell or own class as a Stack (or the Pathways that its own reader returns).

    Raises
    ------
    UnsupportedModelError
        If the model cannot be read; says what can and how to write a reader.
    """
    own = find_reader(model)
    reading: Any = model if own is None else own(model)
    if isinstance(reading, Pathways):
        return reading
    w_out = readout_matrix(readout)
    if isinstance(reading, Stack):
        stack = reading if w_out is None else Stack(reading.levels, w_out, reading.label, reading.batch_first)
    elif isinstance(reading, Cell):
        stack = Stack(((reading,),), w_out, reading.label)
    elif isinstance(reading, list | tuple) and reading and all(isinstance(c, Cell) for c in reading):
        stack = Stack(tuple((cell,) for cell in reading), w_out, type(model).__name__)
    elif isinstance(model, nn.RNNBase):
        stack = _read_rnn_base(model, w_out)
    elif isinstance(model, nn.RNNCellBase):
        stack = Stack(((_cell(model, ""),),), w_out, f"nn.{type(model).__name__}")
    else:
        raise UnsupportedModelError(
            f"cannot read a {type(model).__name__}{' module' if isinstance(model, nn.Module) else ''}; "
            f"{_inside(model)}supported: {SUPPORTED}; {HOW_TO}"
        )
    return stack if dt is None and tau is None else _leaky(stack, dt, tau)


def _inside(model: object) -> str:
    """Return the advice to pass the recurrent part of a module, where it has one."""
    if not isinstance(model, nn.Module):
        return ""
    kinds = nn.RNNBase | nn.RNNCellBase
    parts = [name for name, part in model.named_modules() if isinstance(part, kinds) or find_reader(part)]
    names = " or ".join(f"model.{name}" if not name[0].isdigit() else f"model[{name}]" for name in parts[:3])
    return f"pass its recurrent part, {names}, and its read-out as readout=; " if parts else ""


def readout_matrix(readout: Any) -> Tensor | None:
    """Return the effective weight of a read-out: a Linear, a 1-wide convolution, or a matrix (O, H)."""
    if readout is None:
        return None
    if isinstance(readout, nn.Linear | nn.Conv1d):
        weight = effective_weight(readout, "weight")
    elif isinstance(readout, nn.Module):
        weight = None
    else:
        weight = as_tensor(readout)
    if weight is not None and weight.dim() == 3 and weight.shape[-1] == 1:
        weight = weight[..., 0]
    if weight is None or weight.dim() != 2:
        came = type(readout).__name__ if weight is None else f"{type(readout).__name__} {tuple(weight.shape)}"
        raise UnsupportedModelError(f"readout must be an nn.Linear, a matrix (O, H) or None, got {came}")
    return weight


def _read_rnn_base(module: nn.RNNBase, w_out: Tensor | None) -> Stack:
    levels = []
    for level in range(module.num_layers):
        directions = ("", "_reverse") if module.bidirectional else ("",)
        levels.append(tuple(_cell(module, f"_l{level}{suffix}") for suffix in directions))
    name = f"nn.{module.mode.split('_')[0]}"
    label = f"{name} ({module.nonlinearity})" if isinstance(module, nn.RNN) else name
    return Stack(tuple(levels), w_out, label, module.batch_first)


def _cell(module: nn.Module, suffix: str) -> Cell:
    kind = "gru" if isinstance(module, (nn.GRU, nn.GRUCell)) else "rnn"
    kind = "lstm" if isinstance(module, (nn.LSTM, nn.LSTMCell)) else kind
    parts = PARTS if kind == "lstm" else PARTS[:-1]
    blocks = {part: effective_weight(module, part + suffix) for part in parts}
    return cell_from_blocks(blocks, kind, str(getattr(module, "nonlinearity", "tanh")))


def cell_from_blocks(blocks: dict[str, Tensor | None], kind: str, nonlinearity: str = "tanh") -> Cell:
    """Return the cell of a kind ("rnn", "gru", "lstm") with torch's blocks of weights."""
    w_ih, w_hh = blocks["weight_ih"], blocks["weight_hh"]
    if w_ih is None or w_hh is None:
        raise UnsupportedModelError("a recurrent module needs the tensors weight_ih and weight_hh")
    b_ih, b_hh = blocks.get("bias_ih"), blocks.get("bias_hh")
    if kind == "gru":
        return GruCell(w_ih, w_hh, b_ih, b_hh)
    if kind == "lstm":
        return LstmCell(w_ih, w_hh, b_ih, b_hh, blocks.get("weight_hr"))
    return RnnCell(w_ih, w_hh, b_ih, b_hh, nonlinearity=nonlinearity, label="RNN")


def _leaky(stack: Stack, dt: Any, tau: Any) -> Stack:
    leak = leak_of(1.0 if dt is None else dt, 1.0 if tau is None else tau)
    levels = []
    for level in stack.levels:
        cells = []
        for cell in level:
            if not isinstance(cell, RnnCell) or cell.leaky:
                raise ParameterError(f"dt= and tau= go with plain recurrent cells, not with a {cell.label}")
            if leak.dim() > 1 or (leak.dim() == 1 and leak.shape[0] != cell.hidden):
                raise ShapeError(
                    f"tau must be one number or one a unit, shape ({cell.hidden},), got {tuple(leak.shape)}"
                )
            cells.append(
                RnnCell(
                    cell.w_ih, cell.w_hh, cell.b_ih, cell.b_hh,
                    nonlinearity=cell.nonlinearity, leak=leak, label="leaky RNN",
                )
            )  # fmt: skip
        levels.append(tuple(cells))
    return Stack(tuple(levels), stack.w_out, f"leaky {stack.label}", stack.batch_first)


def leaky_blocks(w_in: Any, w_rec: Any, dt: Any, tau: Any) -> tuple[Tensor, Tensor, Leak]:
    """Return ``a W_in``, ``(1 - a) I + a W_rec`` and the leak of arrays; a = dt / tau, one or one a unit."""
    w_in, w_rec = as_tensor(w_in), as_tensor(w_rec)
    if w_rec.layout != torch.strided:
        raise UnsupportedModelError(
            "dt= and tau= need a dense w_rec; add the leak to the sparse matrix first"
        )
    leak = leak_of(1.0 if dt is None else dt, 1.0 if tau is None else tau).to(w_rec)
    if leak.dim() > 1 or (leak.dim() == 1 and leak.shape[0] != w_rec.shape[-1]):
        raise ShapeError(f"tau must be one number or one a unit, shape ({w_rec.shape[-1]},)")
    leak = leak.expand(w_rec.shape[-1])
    kept = 1 - leak
    return leak[:, None] * w_in, torch.diag_embed(kept) + leak[:, None] * w_rec, Leak(kept, leak)


__all__ = [
    "SUPPORTED",
    "cell_from_blocks",
    "find_reader",
    "leaky_blocks",
    "readout_matrix",
    "register_reader",
    "to_stack",
]
