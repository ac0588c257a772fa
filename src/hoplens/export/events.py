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

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hoplens.compress.simulation import READOUT, run_levels
from hoplens.errors import UnsupportedModelError, check_number
from hoplens.export.source import Source, read_source
from hoplens.models.cells import WeightCell
from hoplens.models.readers.modules import PARTS
from hoplens.models.recurrent_model import ModelInfo, last_steps
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
    stack, info = source.stack, source.info
    batch = as_batch(stack, inputs, lengths)
    x, lengths = batch.inputs, batch.lengths
    if info.window is not None:
        x, _ = last_steps(x, info.window, lengths)
        lengths = lengths.clamp(max=info.window)
    levels = [[cell for cell in level if isinstance(cell, WeightCell)] for level in stack.levels]
    weights = _weights(source, levels, x)
    messages = _Messages(threshold)
    with torch.no_grad():
        outputs = run_levels(levels, replace(info, every_step=True), weights, x, tap=messages)
    running = torch.arange(x.shape[1])[:, None] < lengths  # (L, B)
    ends = torch.arange(x.shape[1])[:, None] == lengths - 1
    by_part = dict.fromkeys(("in", "rec", "between", "out"), torch.zeros(len(x), dtype=torch.float64))
    sent = torch.zeros(len(x), dtype=torch.float64)
    for name, masks in messages.sent.items():
        part, weight = _receivers(name)
        mask = torch.stack(masks)  # (L, B, n)
        if not name.startswith("h"):  # what goes back into its own level was sent as what it shows
            sent = sent + (mask.sum(-1) * running).sum(0)
        if name == "shown" and not info.every_step:  # a read-out at the end hears all that is not zero
            mask = (torch.stack(messages.held) != 0) & ends[..., None]
        fan = (weights[weight] != 0).sum(0).double()  # weights that are not zero and start at each sender
        by_part[part] = by_part[part] + ((mask & running[..., None]).sum(0).double() @ fan)
    reads = lengths if info.every_step else torch.ones_like(lengths)
    step = sum(w.numel() for name, w in weights.items() if "core.weight" in name)
    return EventCost(
        torch.stack(list(by_part.values())).sum(dim=0),
        sent,
        (lengths * step + reads * weights[READOUT[0]].numel()).double(),
        lengths + len(levels),
        by_part,
        outputs if info.every_step else outputs[torch.arange(len(x)), lengths - 1],
    )


def _weights(source: Source, levels: list[list[WeightCell]], like: Tensor) -> dict[str, Tensor]:
    """Return the weights of one way under the names that the simulation asks for."""
    weights = {READOUT[0]: source.stack.readout(like)}
    if source.offset is not None:
        weights[READOUT[1]] = source.offset.to(like)
    for n, (cell,) in enumerate(levels):
        blocks = zip(PARTS, (cell.w_ih, cell.w_hh, cell.b_ih, cell.b_hh, cell.w_hr), strict=True)
        weights |= {f"core.{part}_l{n}": w for part, w in blocks if w is not None and w.numel()}
    return weights


def _receivers(operand: str) -> tuple[str, str]:
    """Return the part that messages of an operand count for, and the weight that they travel along."""
    kind, _, level = operand.partition("_")
    if kind == "shown":
        return "out", READOUT[0]
    if kind == "x":
        return "in" if level == "l0" else "between", f"core.weight_ih_{level}"
    return "rec", f"core.weight_{'hh' if kind == 'h' else 'hr'}_{level}"


class _Messages:
    """Who sends at each step, for every operand of a product; what is sent last is what the product sees."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.sent: dict[str, list[Tensor]] = {}
        self.last: dict[str, Tensor] = {}
        self.held: list[Tensor] = []  # what the read-out knows after every step

    def __call__(self, name: str, values: Tensor) -> Tensor:
        if self.threshold == 0:
            sends = values != 0
        else:
            known = self.last.get(name, torch.zeros_like(values))
            sends = (values - known).abs() > self.threshold
            values = self.last[name] = torch.where(sends, values, known)
        self.sent.setdefault(name, []).append(sends)
        if name == "shown":
            self.held.append(values)
        return values
