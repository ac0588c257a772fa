"""Turn modules and functions into a `Stack` of cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hoplens.errors import ParameterError, ShapeError, UnsupportedModelError
from hoplens.graph.parts import Leak, as_tensor
from hoplens.graph.pathways import Pathways
from hoplens.models.cells import Cell, GruCell, LstmCell, RnnCell, WeightCell, leak_of
from hoplens.models.readers.own import HOW_TO, SUPPORTED, find_reader
from hoplens.models.readers.weights import effective_weight
from hoplens.models.stack import Stack
from hoplens.models.tensors import check_weight

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


def read_core(core: Any, readout: Any = None) -> Stack | Pathways:
    """Return a recurrent module, cell or own class as a Stack (or the Pathways that its own reader returns).

    Raises
    ------
    UnsupportedModelError
        If it cannot be read; says what can and how to write a reader.
    ParameterError
        If there is a read-out beside one that the reader returns.
    """
    own = find_reader(core)
    reading: Any = core if own is None else own(core)
    brings = isinstance(reading, Pathways) or (isinstance(reading, Stack) and reading.w_out is not None)
    if brings and readout is not None:
        raise has_readout(core)
    if isinstance(reading, Pathways):
        if reading is core:
            raise UnsupportedModelError("a Pathways holds weights only; pass the model that it was read from")
        return reading
    w_out = readout_matrix(readout)
    if isinstance(reading, Stack):
        return reading if w_out is None else Stack(reading.levels, w_out, reading.label, reading.batch_first)
    if isinstance(reading, Cell):
        return Stack(((reading,),), w_out, reading.label)
    if isinstance(reading, list | tuple) and reading and all(isinstance(c, Cell) for c in reading):
        return Stack(tuple((cell,) for cell in reading), w_out, type(core).__name__)
    if own is not None:
        raise UnsupportedModelError(
            f"the reader of {type(core).__name__} must return a Cell, a list of cells, a Stack or a "
            f"Pathways, got {type(reading).__name__}"
        )
    if isinstance(core, nn.RNNBase):
        return _read_rnn_base(core, w_out)
    if isinstance(core, nn.RNNCell | nn.GRUCell | nn.LSTMCell):
        return Stack(((_cell(core, ""),),), w_out, f"nn.{type(core).__name__}")
    raise unreadable(core)


def weight_levels(core: nn.Module) -> list[list[WeightCell]]:
    """Return the cells of a core by level and direction.

    Raises
    ------
    UnsupportedModelError
        If some are known by their step alone.
    """
    stack = read_core(core)
    cells = [] if isinstance(stack, Pathways) else [list(level) for level in stack.levels]
    found = [[cell for cell in level if isinstance(cell, WeightCell)] for level in cells]
    if not cells or list(map(len, found)) != list(map(len, cells)):
        raise UnsupportedModelError(f"a {type(core).__name__} has no cells of weights")
    return found


def has_readout(model: object) -> ParameterError:
    """Return the error for a read-out beside a model that has one."""
    return ParameterError(f"this {type(model).__name__} brings its own read-out; leave readout= out")


def unreadable(model: object, why: str = "") -> UnsupportedModelError:
    """Return the error for a model that is none, with what can be read and how to teach the rest."""
    kind = f"{type(model).__name__}{' module' if isinstance(model, nn.Module) else ''}"
    return UnsupportedModelError(f"cannot read a {kind}; {why}supported: {SUPPORTED}; {HOW_TO}")


def leaky(stack: Stack | Pathways, dt: Any, tau: Any) -> Stack | Pathways:
    """Return a network of plain cells as the Euler step of one in continuous time; see `hoplens.read`."""
    if (dt is None and tau is None) or isinstance(stack, Pathways):
        return stack
    return _leaky(stack, dt, tau)


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
    if weight is not None:
        check_weight("readout", weight)
    if weight is None or weight.dim() != 2 or 0 in weight.shape:
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
    # by mode, which a bare nn.RNNBase has too
    mode = module.mode if isinstance(module, nn.RNNBase) else type(module).__name__.upper()
    kind = next(kind for kind in ("gru", "lstm", "rnn") if str(mode).startswith(kind.upper()))
    parts = PARTS if kind == "lstm" else PARTS[:-1]
    blocks = {part: effective_weight(module, part + suffix) for part in parts}
    lost = [part + suffix for part in ("bias_ih", "bias_hh") if blocks[part] is None]
    if lost and getattr(module, "bias", False):
        raise UnsupportedModelError(f"a {mode} made with biases lacks {lost[0]}; make it with bias=False")
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
    "cell_from_blocks",
    "has_readout",
    "leaky",
    "leaky_blocks",
    "read_core",
    "readout_matrix",
    "unreadable",
    "weight_levels",
]
