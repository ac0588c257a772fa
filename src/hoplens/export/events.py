"""What a network costs on event-driven hardware: values that are not zero travel along weights that are not.

For one sequence of L steps, with s_j(t) = 1 where unit or input j sends a message at step t,

    messages = sum_t sum_j s_j(t)
    events   = sum_t sum_j s_j(t) n_j          n_j: weights that are not zero and start at j

over the inputs x(t) (into the first level), the hidden states h(t - 1) (back into their own level) and h(t)
(into the level above), and what the read-out reads: h(L) where it is not zero, or h(t) after every step.
Gates count as weights of their own: a GRU unit has up to 3 H recurrent ones, an LSTM unit 4 H (4 P + H with a
projection). Leaks, gate products and biases happen inside a unit and send nothing. Without a threshold j
sends whenever its value is not zero. With one, j sends when its value has moved by more than the threshold
since it last sent, and all others go on with the value last sent (a delta network: Neil et al. 2017, "Delta
networks for optimized recurrent network computation"); the outputs returned are those of that network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hoplens.errors import UnsupportedModelError, check_number
from hoplens.export.source import read_source
from hoplens.models.cells import Cell, WeightCell
from hoplens.models.recurrent_model import ModelInfo
from hoplens.models.rollout import as_batch


@dataclass(frozen=True, eq=False)
class EventCost:
    """Counts for each sequence; see `event_cost`.

    Attributes
    ----------
    events : Tensor, shape (B,)
        Synaptic events: one a message and weight that is not zero.
    messages : Tensor, shape (B,)
        Values sent.
    dense : Tensor, shape (B,)
        Multiplications of the same inference on hardware that skips nothing.
    hops : Tensor of int64, shape (B,)
        Edges on the longest walk from an input to the outputs: steps run plus levels.
    by_part : dict of str to Tensor (B,)
        The events by where they go: ``"in"``, ``"rec"``, ``"between"``, ``"out"``; they add up to ``events``.
    outputs : Tensor, shape (B, O) or (B, L, O)
        Of the network that was counted.
    """

    events: Tensor
    messages: Tensor
    dense: Tensor
    hops: Tensor
    by_part: dict[str, Tensor]
    outputs: Tensor

    @property
    def share(self) -> float:
        """Mean share of the dense multiplications that are events."""
        return float((self.events / self.dense).mean())


def event_cost(
    model: Any,
    inputs: Any,
    *,
    lengths: Tensor | None = None,
    readout: Any = None,
    info: ModelInfo | None = None,
    threshold: float = 0.0,
) -> EventCost:
    """Count the synaptic events and hops of each inference on event-driven hardware.

    ``events = sum_t sum_j s_j(t) n_j``: messages sent, times the weights that are not zero and start at their
    sender; see `hoplens.export.events` for every term. ``hops = steps + levels``; a window shortens both.

    Parameters
    ----------
    model : RecurrentModel, nn.RNN, nn.GRU, nn.LSTM, a cell, LeakyRNN, Stack, ...
        Running forward only; as `hoplens.export_onnx` takes it.
    inputs : Tensor, shape (B, L, I), or PackedSequence
        In the layout that the module takes.
    lengths : Tensor of int64, shape (B,), optional
        Valid steps of sequences padded at the end; default all.
    readout : nn.Linear, 1-wide nn.Conv1d or matrix (O, H), optional
    info : ModelInfo, optional
        Default that of a RecurrentModel: its window and ``every_step`` are honoured.
    threshold : float, default 0
        0: every value that is not zero is sent. Above: only changes larger than this since the last message.

    Returns
    -------
    EventCost

    Raises
    ------
    UnsupportedModelError
        For a bidirectional network, or cells of another kind.
    ShapeError, NonFiniteError, ParameterError
        If the inputs or options do not fit.
    """
    check_number("threshold", threshold, least=0.0)
    source = read_source(model, readout, info)
    if source.stack.bidirectional:
        raise UnsupportedModelError("events are counted forward in time; pass a network that runs one way")
    for cell in source.stack.cells:
        if isinstance(cell, WeightCell) and cell.fed != (0,):
            raise UnsupportedModelError(
                f"events are what units send each other; the states of a {cell.label} are not what it shows"
            )
    batch = as_batch(source.stack, inputs, lengths)
    x, lengths, window = batch.inputs, batch.lengths, source.info.window
    first = torch.zeros_like(lengths) if window is None else (lengths - window).clamp(min=0)
    counter = _Counter(source.stack.cells, source.stack.readout(x), x, threshold)
    with torch.no_grad():
        shown = []
        for t in range(x.shape[1]):
            running = (first <= t) & (t < lengths)
            last = running if source.info.every_step else lengths == t + 1
            shown.append(counter.step(x[:, t], running, last, source.info.every_step))
        states = torch.stack(shown, dim=1)
        if not source.info.every_step:
            states = states[torch.arange(len(x)), lengths - 1]
        outputs = states @ source.stack.readout(x).mT
        if source.offset is not None:
            outputs = outputs + source.offset.to(outputs)
    steps = lengths - first
    reads = steps if source.info.every_step else torch.ones_like(steps)
    return EventCost(
        torch.stack(list(counter.by_part.values())).sum(dim=0),
        counter.messages,
        (steps * counter.dense_step + reads * counter.dense_read).double(),
        steps + len(source.stack.levels),
        counter.by_part,
        outputs,
    )


class _Line:
    """Values that many receivers hear: what was sent last, and how often each sender sent."""

    def __init__(self, size: int, width: int, like: Tensor, threshold: float) -> None:
        self.held = like.new_zeros(size, width)
        self.threshold = threshold

    def send(self, values: Tensor, running: Tensor) -> Tensor:
        """Return who sends, (B, n) of bool; afterwards ``held`` is what the receivers know."""
        if self.threshold == 0:
            sent = (values != 0) & running[:, None]
            self.held = values
        else:
            sent = ((values - self.held).abs() > self.threshold) & running[:, None]
            self.held = torch.where(sent, values, self.held)
        return sent


class _Counter:
    def __init__(self, cells: tuple[Cell, ...], readout: Tensor, like: Tensor, threshold: float) -> None:
        size = len(like)
        self.cells = [cell for cell in cells if isinstance(cell, WeightCell)]
        self.states = [like.new_zeros(size, cell.n_state) for cell in self.cells]
        self.entry = _Line(size, like.shape[-1], like, threshold)
        self.lines = [_Line(size, cell.n_outputs, like, threshold) for cell in self.cells]
        self.inner = [_Line(size, cell.hidden, like, threshold) for cell in self.cells]
        self.sent = [torch.zeros(size, cell.n_outputs, dtype=torch.bool) for cell in self.cells]
        self.readout = readout
        weights = [w for c in self.cells for w in (c.w_ih, c.w_hh, c.w_hr) if w is not None]
        self.dense_step, self.dense_read = sum(w.numel() for w in weights), readout.numel()
        zeros = torch.zeros(size, dtype=torch.float64)
        self.messages = zeros
        self.by_part = dict.fromkeys(("in", "rec", "between", "out"), zeros)

    def step(self, x: Tensor, running: Tensor, read: Tensor, every_step: bool) -> Tensor:
        """Take one step of the sequences in ``running``, read out those in ``read``; return what is read."""
        sent = self.entry.send(x, running)
        self._message(sent)
        heard = self.entry.held
        for n, cell in enumerate(self.cells):
            self._events("between" if n else "in", sent, cell.w_ih)
            self._events("rec", self.sent[n] & running[:, None], cell.w_hh)  # sent after the step before
            state = self._advance(n, heard, running)
            self.states[n] = torch.where(running[:, None], state, self.states[n])
            sent = self.sent[n] = self.lines[n].send(cell.emit(self.states[n]), running)
            self._message(sent)
            heard = self.lines[n].held
        # a read-out after every step goes on with what it knows; one at the end hears all that is not zero
        self._events("out", (sent if every_step else heard != 0) & read[:, None], self.readout)
        return heard

    def _advance(self, n: int, heard: Tensor, running: Tensor) -> Tensor:
        """Return the new state of a cell whose weights see what was sent, its leaks and gates all of it."""
        cell, state = self.cells[n], self.states[n]
        local = copy.copy(cell)
        # the weights' own product is corrected by a bias of each sequence
        local.b_hh = cell.b_hh + (self.lines[n].held - cell.emit(state)) @ cell.w_hh.mT
        if local.w_hr is None:
            return local.step(state, heard)
        projection, local.w_hr = local.w_hr, None
        inner, c = local.step(state, heard).split(cell.hidden, dim=-1)
        sent = self.inner[n].send(inner, running)
        self._message(sent)
        self._events("rec", sent, projection)
        return torch.cat([self.inner[n].held @ projection.mT, c], dim=-1)

    def _message(self, sent: Tensor) -> None:
        self.messages = self.messages + sent.sum(dim=-1)

    def _events(self, part: str, sent: Tensor, weight: Tensor) -> None:
        fan = (weight != 0).sum(dim=0).double()  # weights that are not zero and start at each sender
        self.by_part[part] = self.by_part[part] + sent.double() @ fan
