"""Initial weights of ensembles of recurrent cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hoplens.errors import ParameterError, ShapeError
from hoplens.models import create_ensemble
from hoplens.sequences.ensemble import SequenceEnsemble

GATES_STREAM = 1 << 33  # added to a network's seed: gates must not share numbers with the candidate
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

    The recurrent matrix W of a tanh cell is drawn as in `hoplens.models.create_ensemble`; a gated cell has it
    as the weights of its candidate, beside gates.

    * "gaussian", "orthogonal": gates' weights are normal with variance 1/H and 1/I, biases 0 but for 1 on an
      LSTM's forget gate.
    * "delay": the cell *linearised at the origin* starts as delay lines. Gates start nearly constant (weights
      scaled by 0.1, biases of 2 or -2): GRU r = 0.88 and u = 0.12, LSTM i = o = 0.88 and f = 0.12. With D the
      matrix of lines (`hoplens.models.delay_lines`) the candidate's weights are then ``(D - u I) / ((1 - u)
      r)`` (GRU), ``(D - f I) / (i o)`` (LSTM), ``(D - (1 - a) I) / a`` (leaky), and those of the input are
      divided by 1 - u, i and a. So every cell starts with the hop maps of the tanh network of the same seed.

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
    base = create_ensemble(
        seeds,
        inits,
        n_inputs=n_inputs,
        hidden=hidden,
        n_outputs=n_outputs,
        length=length,
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
    lines = torch.tensor([init == "delay" for init in inits])[:, None, None]
    readout = base.readout
    if cell == "tanh":
        weight = base.weight
    elif cell == "leaky":
        weight = torch.where(lines, _rescaled(base.weight, hidden, keep=1 - leak, gain=leak), base.weight)
    else:
        weight, readout = _gated(base.weight, readout, seeds, lines, cell)
    weight, readout, offset = (t.to(device, dtype).contiguous() for t in (weight, readout, base.offset))
    return SequenceEnsemble(weight, readout, offset, cell, leak if cell == "leaky" else 1.0)


def _rescaled(weight: Tensor, hidden: int, *, keep: float, gain: float, gate: float = 1.0) -> Tensor:
    """Return the weights with which ``keep I + gain gate W`` and ``gain W_in`` are the given ones."""
    own = torch.diag_embed(weight.new_full((hidden,), keep))
    return torch.cat([(weight[:, :hidden] - own) / (gain * gate), weight[:, hidden:] / gain], dim=1)


def _gated(
    base: Tensor, readout: Tensor, seeds: Sequence[int], lines: Tensor, cell: str
) -> tuple[Tensor, Tensor]:
    """Return the weights (E, H + I + 1, 4 H) around a candidate (E, H + I + 1, H), and the read-out."""
    _, f, h = base.shape
    count = 2 if cell == "gru" else 3
    gates = torch.stack([_gate_weights(seed, f, h, count) for seed in seeds])
    plain_bias = torch.zeros(count * h, dtype=base.dtype)
    opened, closed = torch.full((h,), OPEN, dtype=base.dtype), torch.full((h,), -OPEN, dtype=base.dtype)
    wide, shut = torch.sigmoid(opened[0]).item(), torch.sigmoid(closed[0]).item()
    if cell == "gru":
        line_bias = torch.cat([opened, closed])  # r, u
        candidate = _rescaled(base, h, keep=shut, gain=1 - shut, gate=wide)
    else:
        plain_bias[h : 2 * h] = 1.0
        line_bias = torch.cat([opened, closed, opened])  # i, f, o
        candidate = _rescaled(base, h, keep=shut, gain=wide, gate=wide)
        readout = torch.where(lines, readout / wide, readout)
    gates = torch.where(lines, GATE_SCALE * gates, gates)
    gates[:, -1] = torch.where(lines[:, 0], line_bias, plain_bias)
    candidate = torch.where(lines, candidate, base)
    if cell == "lstm":
        return torch.cat([gates, candidate], dim=2), readout
    from_input, from_state = candidate.clone(), candidate.clone()
    from_input[:, :h] = 0.0
    from_state[:, h:] = 0.0
    return torch.cat([gates, from_input, from_state], dim=2), readout


def _gate_weights(seed: int, rows: int, hidden: int, count: int) -> Tensor:
    """Return the weights (H + I + 1, count H) of gates, biases 0."""
    source = torch.Generator().manual_seed(GATES_STREAM + seed)
    weights = torch.randn(rows, count * hidden, generator=source, dtype=torch.float64)
    weights[:hidden] *= hidden**-0.5
    weights[hidden:-1] *= (rows - hidden - 1) ** -0.5
    weights[-1] = 0.0
    return weights


__all__ = ["create_sequence_ensemble"]
