"""Initial weights of ensembles of recurrent cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hoplens.errors import ParameterError, ShapeError, check_choice
from hoplens.models.cells import CELLS, make_cell
from hoplens.models.ensemble import Ensemble
from hoplens.seeds import generator

INITS = ("gaussian", "orthogonal", "delay")
OPEN = 2.0  # bias of a gate that starts open (sigmoid 0.88); closed with the other sign
GATE_SCALE = 0.1  # of gate weights beside delay lines: gates that start nearly constant


def create_ensemble(
    seeds: Sequence[int],
    inits: Sequence[str],
    *,
    n_inputs: int,
    hidden: int,
    n_outputs: int,
    length: int,
    cell: str = "tanh",
    leak: float = 1.0,
    w_rec: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Ensemble:
    """Draw the initial weights of an ensemble; each network depends on its own seed and init only.

    The recurrent matrix W of a plain cell is drawn so; a gated cell has it as the weights of its candidate,
    beside gates.

    * "gaussian": W ~ N(0, 1/H); "orthogonal": a random rotation. Gates' weights are normal with variance 1/H
      and 1/I, biases 0 but for 1 on an LSTM's forget gate.
    * "delay": delay lines as long as ``length`` in one half of the units, a rotation in the other (see
      `delay_lines`). Units of lines (of a leaky or gated cell at most half of the units, in lines that may be
      shorter than the sequences) hand on what they hold in the cell *linearised at the origin*. Their gates
      start nearly constant (weights scaled by 0.1, biases of 2 or -2): GRU r = 0.88 and u = 0.12, LSTM
      i = o = 0.88 and f = 0.12. With D the lines, their candidate's weights are ``(D - u I) / ((1 - u) r)``
      (GRU), ``(D - f I) / (i o)`` (LSTM), ``(D - (1 - a) I) / a`` (leaky), and those of the input are divided
      by 1 - u, i and a. All other units start as in "orthogonal", free to keep things with their gates.

    Cells whose units do not hear of each other ("mingru", "lru") know one start, whatever the name: see
    `hoplens.models.cells.mingru` and `hoplens.models.cells.lru`.

    Parameters
    ----------
    seeds, inits : sequence
        One a network.
    n_inputs, hidden, n_outputs, length : int
        Sizes I, H, O, and the time steps that a delay line should hold.
    cell : str, default "tanh"
        See `Ensemble`.
    leak : float, default 1
        Of a cell without gates.
    w_rec : Tensor, shape (H, H) or (E, H, H), optional
        Recurrent matrix to start from, in torch's orientation, in place of a drawn one; of a gated cell that
        of the candidate.
    dtype, device
        Of the weights. Numbers are drawn on the CPU, so that they do not depend on the device.
    """
    check_choice("cell", cell, CELLS)
    kernel = make_cell(cell, leak)
    plain = kernel.blocks == 1
    if not kernel.mixes:
        inits = ["gaussian"] * len(inits)
    # cells that hold things by themselves keep half of their units free of lines, however long sequences are
    holds = cell == "leaky" or not plain
    span = min(length, max(1, hidden // 2)) if holds else length
    weight, readout = _drawn(seeds, inits, n_inputs, hidden, n_outputs, span)
    if w_rec is not None:
        check_mixes(cell, "w_rec")
        weight[:, :hidden].copy_(_given(w_rec, len(seeds), hidden).mT)
    in_line = torch.zeros(len(seeds), 1, hidden, dtype=torch.bool)
    for n, init in enumerate(inits):
        in_line[n, :, : line_units(hidden, span) if init == "delay" else 0] = True
    own = kernel.start(weight, [generator("initial gates", seed) for seed in seeds], length)
    if own is not None:
        weight = own
    elif cell == "leaky":
        weight = torch.where(in_line, _rescaled(weight, hidden, keep=1 - leak, gain=leak), weight)
    elif not plain:
        weight, readout = _gated(weight, readout, seeds, in_line, cell)
    weight, readout = (t.to(device, dtype).contiguous() for t in (weight, readout))
    offset = readout.new_zeros(len(weight), n_outputs, 1)
    return Ensemble(weight, readout, offset, cell, leak if plain else 1.0)


def _drawn(
    seeds: Sequence[int], inits: Sequence[str], n_inputs: int, hidden: int, n_outputs: int, span: int
) -> tuple[Tensor, Tensor]:
    """Return weights (E, H + I + 1, H) of a plain cell and read-outs (E, O, H), float64."""
    weights, readouts = [], []
    for seed, init in zip(seeds, inits, strict=True):
        check_choice("init", init, INITS)
        source = generator("initial weights", seed)
        # always drawn in this order, so that networks of one seed share W_in and W_out over inits
        w_in = torch.randn(hidden, n_inputs, generator=source, dtype=torch.float64) / math.sqrt(n_inputs)
        w_out = torch.randn(n_outputs, hidden, generator=source, dtype=torch.float64) / math.sqrt(hidden)
        w_rec = torch.randn(hidden, hidden, generator=source, dtype=torch.float64)
        if init == "gaussian":
            w_rec = w_rec / math.sqrt(hidden)
        elif init == "orthogonal":
            w_rec = rotation(w_rec)
        else:
            w_rec, entries = delay_lines(w_rec, span)
            w_in = w_in * entries[:, None]
        weights.append(torch.cat([w_rec.mT, w_in.mT, torch.zeros(1, hidden, dtype=torch.float64)]))
        readouts.append(w_out)
    return torch.stack(weights), torch.stack(readouts)


def check_mixes(cell: str, option: str) -> None:
    """Raise where an option speaks of recurrent weights and the cell's units have none between them."""
    if not make_cell(cell).mixes:
        raise ParameterError(f"the units of a {cell} cell do not hear of each other, so leave {option}= out")


def _given(w_rec: Tensor, networks: int, hidden: int) -> Tensor:
    given = torch.as_tensor(w_rec).detach().to("cpu", torch.float64)
    shapes = ((hidden, hidden), (networks, hidden, hidden))
    if tuple(given.shape) not in shapes:
        raise ShapeError(f"w_rec must have shape {shapes[0]} or {shapes[1]}, got {tuple(given.shape)}")
    if not bool(torch.isfinite(given).all()):
        raise ParameterError("w_rec must be finite; it is what training starts from")
    return given


def delay_lines(noise: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return a recurrent matrix made half of delay lines, half of a random rotation.

    A delay line of ``length`` units hands its content on by one unit a time step with gain 1, so that its
    unit d holds what entered it d steps ago: nothing fades, and no two lags share a unit. As many lines as
    fit into half of the units are laid (at least one, which may take all of them); the units left over are
    linked by a random rotation, so that the network can also mix and combine.

    Parameters
    ----------
    noise : Tensor, shape (H, H)
        Standard normal numbers, the source of the rotation.
    length : int
        Time steps L that a line should hold.

    Returns
    -------
    w_rec : Tensor, shape (H, H)
        In torch's orientation.
    entries : Tensor, shape (H,)
        1 for the first unit of each line and for every unit of the rotation, else 0: who hears the input.
    """
    hidden = noise.shape[-1]
    span, taken = min(length, hidden), line_units(hidden, length)
    w_rec = torch.diag(noise.new_ones(hidden - 1), -1) if hidden > 1 else noise.new_zeros(1, 1)
    w_rec[taken:] = 0.0
    w_rec[taken:, taken:] = rotation(noise[taken:, taken:])
    w_rec[:taken:span] = 0.0
    entries = noise.new_ones(hidden)
    entries[:taken] = 0.0
    entries[:taken:span] = 1.0
    return w_rec, entries


def line_units(hidden: int, length: int) -> int:
    """Return how many units, the first ones, delay lines take; see `delay_lines`."""
    span = min(length, hidden)
    return max(1, hidden // (2 * span)) * span


def rotation(noise: Tensor) -> Tensor:
    """Return a uniformly random orthogonal matrix made from standard normal numbers (Mezzadri 2007)."""
    if noise.numel() == 0:
        return noise
    factors: tuple[Tensor, Tensor] = torch.linalg.qr(noise)
    q, r = factors
    return q * r.diagonal().sign()


def _rescaled(weight: Tensor, hidden: int, *, keep: float, gain: float, gate: float = 1.0) -> Tensor:
    """Return the weights with which ``keep I + gain gate W`` and ``gain W_in`` are the given ones."""
    own = torch.diag_embed(weight.new_full((hidden,), keep))
    return torch.cat([(weight[:, :hidden] - own) / (gain * gate), weight[:, hidden:] / gain], dim=1)


def _gated(
    base: Tensor, readout: Tensor, seeds: Sequence[int], in_line: Tensor, cell: str
) -> tuple[Tensor, Tensor]:
    """Return the weights (E, H + I + 1, 4 H) around a candidate (E, H + I + 1, H), and the read-out."""
    _, f, h = base.shape
    # biases of the gates: of units in a line, and of the others
    biases = [(OPEN, 0.0), (-OPEN, 0.0)] if cell == "gru" else [(OPEN, 0.0), (-OPEN, 1.0), (OPEN, 0.0)]
    drawn = torch.stack([_gate_weights(seed, f, h, len(biases)) for seed in seeds])
    gates = []
    for gate, (line, other) in zip(drawn.split(h, dim=2), biases, strict=True):
        part = torch.where(in_line, GATE_SCALE * gate, gate)
        part[:, -1] = torch.where(in_line[:, 0], line, other).to(part)
        gates.append(part)
    wide, shut = (torch.sigmoid(torch.tensor(bias, dtype=base.dtype)).item() for bias in (OPEN, -OPEN))
    gain = 1 - shut if cell == "gru" else wide
    candidate = torch.where(in_line, _rescaled(base, h, keep=shut, gain=gain, gate=wide), base)
    if cell == "lstm":
        return torch.cat([*gates, candidate], dim=2), torch.where(in_line, readout / wide, readout)
    from_input, from_state = candidate.clone(), candidate.clone()
    from_input[:, :h] = 0.0
    from_state[:, h:] = 0.0
    return torch.cat([*gates, from_input, from_state], dim=2), readout


def _gate_weights(seed: int, rows: int, hidden: int, count: int) -> Tensor:
    """Return the weights (H + I + 1, count H) of gates, biases 0."""
    source = generator("initial gates", seed)
    weights = torch.randn(rows, count * hidden, generator=source, dtype=torch.float64)
    weights[:hidden] *= hidden**-0.5
    weights[hidden:-1] *= (rows - hidden - 1) ** -0.5
    weights[-1] = 0.0
    return weights


__all__ = ["INITS", "check_mixes", "create_ensemble", "delay_lines", "line_units", "rotation"]
