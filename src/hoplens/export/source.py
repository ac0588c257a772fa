"""What an export needs of a model: its cells, its read-out with bias, and a way to run it as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from hoplens.compress.quantisation import Quantised
from hoplens.errors import NonFiniteError, ParameterError, ShapeError, UnsupportedModelError
from hoplens.export.storage import Levels
from hoplens.guard import untouched
from hoplens.models import Ensemble
from hoplens.pathways import Pathways
from hoplens.readers.modules import to_stack
from hoplens.recurrent_model import ModelInfo, RecurrentModel
from hoplens.running import Batch, run
from hoplens.stack import Stack
from hoplens.torch_cells import GruCell, LstmCell, RnnCell

READOUT = "readout"
Runner = Callable[[Tensor], Tensor]  # inputs (B, L, I) -> what the last level shows, (B, L, n)


@dataclass(frozen=True, eq=False)
class Source:
    """A network to export.

    Attributes
    ----------
    stack : Stack
        On the CPU, of RnnCell, GruCell and LstmCell.
    offset : Tensor or None, shape (O,)
        Bias of the read-out.
    info : ModelInfo
    levels : dict of str to Levels
        Weights that lie on a grid, by torch's names without their prefix; the read-out's is ``readout``.
    own : callable or None
        The user's module itself, (B, L, I) -> states (B, L, n); None where there is nothing but cells.
    """

    stack: Stack
    offset: Tensor | None
    info: ModelInfo
    levels: dict[str, Levels] = field(default_factory=dict)
    own: Runner | None = None

    @property
    def n_outputs(self) -> int:
        """Number of outputs, O."""
        return self.stack.readout(torch.zeros(())).shape[0]

    def outputs(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Run the network in PyTorch, its window and ``every_step`` honoured.

        Parameters
        ----------
        inputs : Tensor, shape (B, L, I)
        lengths : Tensor of int64, shape (B,), optional
            Valid steps; the read-out is then after the last valid one.

        Returns
        -------
        Tensor, shape (B, O), or (B, L, O) where ``info.every_step``
        """
        with torch.no_grad():
            if self.info.window is not None and lengths is not None:
                rows = zip(inputs, lengths.tolist(), strict=True)
                return torch.cat([self.outputs(row[None, :length]) for row, length in rows])
            if self.info.window is not None:
                inputs = inputs[:, -self.info.window :]
            states = self._states(inputs)
            if not self.info.every_step:
                last = torch.full((len(states),), states.shape[1]) if lengths is None else lengths
                states = states[torch.arange(len(states)), last - 1]
            states = states @ self.stack.readout(states).mT
            return states if self.offset is None else states + self.offset.to(states)

    def _states(self, inputs: Tensor) -> Tensor:
        if self.own is not None:
            return self.own(inputs)
        lengths = torch.full((len(inputs),), inputs.shape[1])
        weight = self.stack.readout(getattr(self.stack.cells[0], "w_ih", inputs))
        return run(self.stack, Batch(inputs.to(weight.dtype), lengths)).shown


def read_source(model: Any, readout: Any = None, info: ModelInfo | None = None) -> Source:
    """Return a model as a `Source`.

    Parameters
    ----------
    model : RecurrentModel, Quantised, Ensemble of one, nn.RNN, nn.GRU, nn.LSTM, LeakyRNN, Stack, ...
        Whatever `hoplens.read` takes as a module or cell.
    readout : nn.Linear, 1-wide nn.Conv1d or matrix (O, n), optional
        Not with a RecurrentModel or Ensemble, which have theirs.
    info : ModelInfo, optional
        Default: that of a RecurrentModel, else ``ModelInfo()``.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be read or has cells of another kind.
    NonFiniteError
        If weights are NaN or infinite.
    """
    levels: dict[str, Levels] = {}
    if isinstance(model, Quantised):
        levels, model = _levels(model), model.model
    if isinstance(model, RecurrentModel | Ensemble) and readout is not None:
        raise ParameterError(f"a {type(model).__name__} brings its own read-out; leave readout= out")
    own: Runner | None = None
    offset: Tensor | None
    core: Any
    if isinstance(model, RecurrentModel):
        info = model.info if info is None else info
        stack, offset, core = to_stack(model.core, model.readout), model.readout.bias, model.core
    elif isinstance(model, Ensemble):
        stack, offset, core = *_row(model), None
    else:
        stack, offset, core = to_stack(model, readout), getattr(readout, "bias", None), model
    if isinstance(stack, Pathways):
        raise UnsupportedModelError(
            "a graph of bare weights (Pathways) cannot be run; pass the module itself, or teach its reader "
            "to return cells"
        )
    for cell in stack.cells:
        if not isinstance(cell, RnnCell | GruCell | LstmCell):
            raise UnsupportedModelError(
                f"only RNN, leaky RNN, GRU and LSTM cells can be exported, got a {cell.label}; have "
                "to_hoplens return one of RnnCell, GruCell and LstmCell"
            )
    if isinstance(core, nn.Module) and hasattr(core, "batch_first"):
        own = _runner(core)
    stack = stack.to(torch.device("cpu"))
    source = Source(
        stack, None if offset is None else offset.detach().cpu(), _fitting(info, stack), levels, own
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


def _row(ensemble: Ensemble) -> tuple[Stack, Tensor]:
    if ensemble.size != 1:
        raise ParameterError(
            f"an export holds one network, got an ensemble of {ensemble.size}; take one with "
            "ensemble.select(slice(n, n + 1))"
        )
    h = ensemble.n_hidden
    w_rec, w_in, bias = (block[0] for block in ensemble.weight.split([h, ensemble.n_inputs, 1], dim=1))
    label = f"{ensemble.activation} network"
    cell = RnnCell(
        w_in.mT, w_rec.mT, bias[0], nonlinearity=ensemble.activation, leak=ensemble.leak, label=label
    )
    return Stack(((cell,),), ensemble.readout[0], label), ensemble.offset[0, :, 0]


def _runner(core: nn.Module) -> Runner:
    weight = next(core.parameters())

    def states(inputs: Tensor) -> Tensor:
        x = inputs.to(weight)
        with untouched(core):
            shown = core(x if core.batch_first else x.transpose(0, 1))[0]
        return (shown if core.batch_first else shown.transpose(0, 1)).cpu()  # type: ignore[no-any-return]

    return states


def _fitting(info: ModelInfo | None, stack: Stack) -> ModelInfo:
    info = ModelInfo() if info is None else info
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


__all__ = ["Source", "read_source"]
