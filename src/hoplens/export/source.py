"""What an export needs of a model: its cells, its read-out with bias, and a way to run it as it is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from hoplens.compress.quantisation import Quantised
from hoplens.errors import NonFiniteError, ParameterError, ShapeError, UnsupportedModelError
from hoplens.export.storage import Levels
from hoplens.graph.pathways import Pathways
from hoplens.models.cells import WeightCell
from hoplens.models.readers.models import ModelParts, parts_of
from hoplens.models.recurrent_model import ModelInfo
from hoplens.models.rollout import Batch, run
from hoplens.models.stack import Stack

READOUT = "readout"


@dataclass(frozen=True, eq=False)
class Source:
    """A network to export.

    ``stack``: on the CPU, of cells of weights. ``offset`` (O,): bias of the read-out. ``levels``: weights
    that lie on a grid, by torch's names without their prefix; the read-out's is ``readout``. ``parts``: the
    model as the user gave it, which files are compared with; None: the cells are all there is.
    """

    stack: Stack
    offset: Tensor | None
    info: ModelInfo
    levels: dict[str, Levels] = field(default_factory=dict)
    parts: ModelParts | None = None

    @property
    def n_outputs(self) -> int:
        """Number of outputs, O."""
        return self.stack.readout(torch.zeros(())).shape[0]

    def outputs(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Run the model that the user gave in PyTorch, its window and ``every_step`` honoured.

        ``inputs`` (B, L, I). ``lengths`` (B,), optional: valid steps; the read-out is then after the last
        valid one. Returns (B, O), or (B, L, O) where ``info.every_step``.
        """
        with torch.no_grad():
            if self.info.window is not None and lengths is not None:
                rows = zip(inputs, lengths.tolist(), strict=True)
                return torch.cat([self.outputs(row[None, :length]) for row, length in rows])
            if self.info.window is not None:
                inputs = inputs[:, -self.info.window :]
            if self.parts is not None:
                states = self.parts.states(inputs)
            else:
                weight = self.stack.like(inputs)
                sizes = torch.full((len(inputs),), inputs.shape[1])
                states = run(self.stack, Batch(inputs.to(weight), sizes)).shown
            if not self.info.every_step:
                last = torch.full((len(states),), states.shape[1]) if lengths is None else lengths
                states = states[torch.arange(len(states)), last - 1]
            if self.parts is not None and self.parts.head is not None:
                return self.parts.read_out(states).cpu()
            states = (states @ self.stack.readout(states).mT).cpu()
            return states if self.offset is None else states + self.offset.to(states)


def read_source(model: Any, readout: Any = None, info: ModelInfo | None = None) -> Source:
    """Return a model as a `Source`."""
    parts = parts_of(model, readout)
    stack, offset = parts.stack(), parts.offset()
    if isinstance(stack, Pathways):
        raise UnsupportedModelError(
            "a graph of bare weights (Pathways) cannot be run; pass the module itself, or teach its reader "
            "to return cells"
        )
    for cell in stack.cells:
        if not isinstance(cell, WeightCell) or type(cell).step is not WeightCell.step:
            raise UnsupportedModelError(
                f"only cells of known equations can be exported, got a {cell.label}; have to_hoplens return "
                "one of RnnCell, GruCell and LstmCell"
            )
    stack = stack.to(torch.device("cpu"))
    source = Source(
        stack,
        None if offset is None else offset.detach().cpu(),
        _fitting(parts.info if info is None else info, stack),
        _levels(model) if isinstance(model, Quantised) else {},
        parts,
    )
    _check_finite(source)
    return source


def _levels(quantised: Quantised) -> dict[str, Levels]:
    found = {}
    for name, values in quantised.levels.items():
        own = READOUT if name.startswith("readout.") else name.removeprefix("core.")
        scales = quantised.scales[name].numpy().astype("float32")
        found[own] = Levels(values.numpy(), scales, quantised.form)
    return found


def _fitting(info: ModelInfo, stack: Stack) -> ModelInfo:
    if not isinstance(info, ModelInfo):
        raise ParameterError(f"info must be a ModelInfo, got {type(info).__name__}")
    n_outputs = stack.readout(torch.zeros(())).shape[0]
    for name, wanted in (
        ("input_names", stack.n_inputs),
        ("input_mean", stack.n_inputs),
        ("input_scale", stack.n_inputs),
        ("output_names", n_outputs),
    ):
        given = getattr(info, name)
        if given is not None and len(given) != wanted:
            raise ShapeError(f"info.{name} must have {wanted} entries, one for each, got {len(given)}")
    if info.every_step:
        info = replace(info, window=None)  # of no effect there
    if info.window is not None and stack.bidirectional:
        raise ParameterError("a window belongs to a network that runs one way; leave info.window at None")
    return info


def _check_finite(source: Source) -> None:
    blocks = [value for cell in source.stack.cells for value in vars(cell).values()]
    blocks += [source.stack.w_out, source.offset]
    if not all(bool(torch.isfinite(b).all()) for b in blocks if isinstance(b, Tensor)):
        raise NonFiniteError(
            "some weights are NaN or infinite; export a model whose training did not diverge"
        )
