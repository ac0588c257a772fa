"""Initial weights of ensembles of recurrent cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hoplens.errors import ParameterError, ShapeError
from hoplens.models.ensemble import create_ensemble, line_units
from hoplens.seeds import generator
from hoplens.training.sequences.ensemble import SequenceEnsemble

OPEN = 2.0  # bias of a gate that starts open (sigmoid 0.88); closed with the other sign
GATE_SCALE = 0.1  # of gate weights beside delay lines: gates that start nearly constant


def create_sequence_ensemble(
    seeds: Sequence[int],
    inits: Sequence[str],
    *,
    cell: str,
    n_inputs: int,
    hidden: int,
    n_outputs: int,
    length: int,
    leak: float = 1.0,
    w_rec: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> SequenceEnsemble:
    """Draw the initial weights of an ensemble; each network depends on its own seed and init only.

    The recurrent matrix W of a tanh cell is drawn as in `hoplens.models.ensemble.create_ensemble`; a gated
    cell has it as the weights of its candidate, beside gates.

    * "gaussian", "orthogonal": gates' weights are normal with variance 1/H and 1/I, biases 0 but for 1 on an
      LSTM's forget gate.
    * "delay": units of delay lines (`hoplens.models.ensemble.delay_lines`; of a leaky or gated cell at most
      half of the units, in lines that may be shorter than the sequences) hand on what they hold in the cell
      *linearised at the origin*. Their gates start nearly constant (weights scaled by 0.1, biases of 2 or
      -2): GRU r = 0.88 and u = 0.12, LSTM i = o = 0.88 and f = 0.12. With D the lines, their candidate's
      weights are ``(D - u I) / ((1 - u) r)`` (GRU), ``(D - f I) / (i o)`` (LSTM), ``(D - (1 - a) I) / a``
      (leaky), and those of the input are divided by 1 - u, i and a. All other units start as in
      "orthogonal", free to keep things with their gates.

    Parameters
    ----------
    seeds, inits : sequence
        One a network.
    cell : {"tanh", "leaky", "gru", "lstm"}
    n_inputs, hidden, n_outputs, length : int
        Sizes I, H, O and L.
    leak : float, default 1
        Of a leaky cell.
    w_rec : Tensor, shape (H, H) or (E, H, H), optional
        Recurrent matrix to start from, in torch's orientation, in place of a drawn one; of a gated cell that
        of the candidate.
    dtype, device
        Of the weights. Numbers are drawn on the CPU.
    """
    # cells that hold things by themselves keep half of their units free of lines, however long sequences are
    span = length if cell == "tanh" else min(length, max(1, hidden // 2))
    base = create_ensemble(
        seeds,
        inits,
        n_inputs=n_inputs,
        hidden=hidden,
        n_outputs=n_outputs,
        length=span,
        dtype=torch.float64,
    )
    if w_rec is not None:
        given = torch.as_tensor(w_rec).detach().to("cpu", torch.float64)
        if tuple(given.shape) not in ((hidden, hidden), (len(seeds), hidden, hidden)):
            raise ShapeError(
                f"w_rec must have shape ({hidden}, {hidden}) or ({len(seeds)}, {hidden}, {hidden}), got "
                f"{tuple(given.shape)}"
            )
        if not bool(torch.isfinite(given).all()):
            raise ParameterError("w_rec must be finite; it is what training starts from")
        base.recurrent().copy_(given.mT)
    in_line = torch.zeros(len(seeds), 1, hidden, dtype=torch.bool)
    for n, init in enumerate(inits):
        in_line[n, :, : line_units(hidden, span) if init == "delay" else 0] = True
    readout = base.readout
    if cell == "tanh":
        weight = base.weight
    elif cell == "leaky":
        weight = torch.where(in_line, _rescaled(base.weight, hidden, keep=1 - leak, gain=leak), base.weight)
    else:
        weight, readout = _gated(base.weight, readout, seeds, in_line, cell)
    weight, readout, offset = (t.to(device, dtype).contiguous() for t in (weight, readout, base.offset))
    return SequenceEnsemble(weight, readout, offset, cell, leak if cell == "leaky" else 1.0)


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


__all__ = ["create_sequence_ensemble"]
