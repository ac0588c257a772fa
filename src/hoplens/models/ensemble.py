"""Ensembles of recurrent networks, stored and run as one batch of tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hoplens.errors import ShapeError, check_choice, check_number
from hoplens.graph.parts import Leak
from hoplens.graph.pathways import Pathways
from hoplens.graph.scores import saliency, top_mask
from hoplens.seeds import generator

ACTIVATIONS = ("tanh", "relu", "linear")
INITS = ("gaussian", "orthogonal", "delay")


@dataclass(eq=False)
class Ensemble:
    """E networks ``h_t = (1 - a) h_(t-1) + a f(W_rec h_(t-1) + W_in x_t + b)``, ``y_t = W_out h_t + c``.

    Attributes
    ----------
    weight : Tensor, shape (E, H + I + 1, H)
        Rows: from hidden units, from inputs, bias; columns: to hidden units. One block, so that a time
        step is one matrix product.
    readout : Tensor, shape (E, O, H)
        W_out.
    offset : Tensor, shape (E, O, 1)
        c.
    activation : {"tanh", "relu", "linear"}
        f.
    leak : float, default 1
        a, above 0 and at most 1: how much of the state is renewed each time step (dt / tau).
    """

    weight: Tensor
    readout: Tensor
    offset: Tensor
    activation: str = "tanh"
    leak: float = 1.0

    def __post_init__(self) -> None:
        check_choice("activation", self.activation, ACTIVATIONS)
        check_number("leak", self.leak, above=0.0, most=1.0)
        weight, readout, offset = (tuple(tensor.shape) for tensor in self.tensors)
        fits = len(weight) == 3 and len(readout) == 3 and weight[1] > weight[2] + 1
        if not fits or readout[::2] != weight[::2] or offset != (*readout[:2], 1):
            raise ShapeError(
                "an ensemble needs weight (E, H + I + 1, H), readout (E, O, H) and offset (E, O, 1), "
                f"got {weight}, {readout} and {offset}"
            )

    @property
    def size(self) -> int:
        """Number of networks, E."""
        return self.weight.shape[0]

    @property
    def n_hidden(self) -> int:
        """Number of hidden units, H."""
        return self.weight.shape[-1]

    @property
    def n_inputs(self) -> int:
        """Number of inputs, I."""
        return self.weight.shape[-2] - self.n_hidden - 1

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The trained tensors."""
        return self.weight, self.readout, self.offset

    def recurrent(self) -> Tensor:
        """Return W_rec transposed, as stored: a view of shape (E, H from, H to)."""
        return self.weight[:, : self.n_hidden]

    def keep(self, rows: slice, share: Tensor, *, by: str = "magnitude", horizon: int = 1) -> Tensor:
        """Return which recurrent weights stay when each network loses the share with the lowest scores.

        Parameters
        ----------
        rows : slice
            Which networks.
        share : Tensor, shape (rows,)
            Share of all H * H weights.
        by : {"magnitude", "pathway"}
            See `hoplens.graph.saliency`.
        horizon : int
            Time steps, for "pathway".

        Returns
        -------
        Tensor of bool, shape (rows, H from, H to)
            As ``recurrent()`` lies.
        """
        return top_mask(self.select(rows).scores(by, horizon=horizon), share).mT

    def scores(self, by: str = "magnitude", *, horizon: int | None = None) -> Tensor:
        """Return the scores of all recurrent weights, shape (E, H to, H from); see `hoplens.graph.saliency`.

        Parameters
        ----------
        by : {"magnitude", "pathway"}
        horizon : int, optional
            Time steps, for "pathway".
        """
        own = self.leak * self.blocks()[1]  # the self-loops of a leak are no weights
        return saliency(self.pathways(), by, horizon=horizon, removable=own)

    def pathways(self) -> Pathways:
        """Return the graph of all networks, leading axis E: W_rec and W_in as views of the weights.

        With a leak a below 1 the graph is that of the linearised update, ``(1 - a) I + a W_rec`` and
        ``a W_in``: each unit has a self-loop.
        """
        w_in, w_rec, _ = self.blocks()
        leak, provenance = None, "raw weights"
        if self.leak < 1:
            leak = Leak(*(w_rec.new_full((self.n_hidden,), part) for part in (1 - self.leak, self.leak)))
            w_in, w_rec = self.leak * w_in, torch.diag_embed(leak.kept) + self.leak * w_rec
            provenance = f"leak {self.leak:g}"
        return Pathways(w_in, w_rec, self.readout, leak=leak, provenance=f"{provenance} ({self.activation})")

    def blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return views of the weights without leak: W_in (E, H, I), W_rec (E, H, H), W_out (E, O, H)."""
        h, i = self.n_hidden, self.n_inputs
        return self.weight[:, h : h + i].mT, self.recurrent().mT, self.readout

    def clone(self) -> Ensemble:
        """Return a copy with its own memory."""
        weight, readout, offset = (tensor.detach().clone() for tensor in self.tensors)
        return replace(self, weight=weight, readout=readout, offset=offset)

    def select(self, rows: slice | Tensor) -> Ensemble:
        """Return some of the networks.

        Parameters
        ----------
        rows : slice or Tensor of int64
            Which ones, in the wanted order.
        """
        weight, readout, offset = (tensor[rows] for tensor in self.tensors)
        return replace(self, weight=weight, readout=readout, offset=offset)

    def predict(self, inputs: Tensor) -> Tensor:
        """Run all networks on the same sequences.

        Parameters
        ----------
        inputs : Tensor, shape (B, L, I), or (E, B, L, I) for own sequences a network

        Returns
        -------
        Tensor, shape (E, B, O)
            Read-out after the last time step. Plain PyTorch, differentiable.

        Raises
        ------
        ShapeError
            If the inputs do not fit the networks.
        """
        *_, state = self._states(inputs)
        return state @ self.readout.mT + self.offset.mT

    def predict_steps(self, inputs: Tensor) -> Tensor:
        """Run all networks on the same sequences and read out after every time step.

        Parameters
        ----------
        inputs : Tensor, shape (B, L, I), or (E, B, L, I) for own sequences a network

        Returns
        -------
        Tensor, shape (E, B, L, O)
            Plain PyTorch, differentiable.

        Raises
        ------
        ShapeError
            If the inputs do not fit the networks.
        """
        reads = [state @ self.readout.mT + self.offset.mT for state in self._states(inputs)]
        return torch.stack(reads, dim=2)

    def _states(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield the hidden states (E, B, H) after every time step."""
        h, i = self.n_hidden, self.n_inputs
        own = inputs.dim() == 4 and inputs.shape[0] == self.size
        if not (own or inputs.dim() == 3) or inputs.shape[-1] != i or inputs.dtype != self.weight.dtype:
            raise ShapeError(
                f"inputs must be {self.weight.dtype} of shape (B, L, I={i}) or (E={self.size}, B, L, I={i}), "
                f"got {inputs.dtype} of shape {tuple(inputs.shape)}"
            )
        w_rec, w_in, bias = self.weight.split([h, i, 1], dim=1)
        state = self.weight.new_zeros(self.size, inputs.shape[-3], h)
        for x in inputs.unbind(dim=-2):
            renewed = activate(torch.baddbmm(x @ w_in + bias, state, w_rec), self.activation)
            state = renewed if self.leak == 1 else torch.lerp(state, renewed, self.leak)
            yield state


def activate(z: Tensor, activation: str) -> Tensor:
    """Apply a named activation."""
    if activation == "tanh":
        return z.tanh()
    return z.relu() if activation == "relu" else z


def create_ensemble(
    seeds: Sequence[int],
    inits: Sequence[str],
    *,
    n_inputs: int,
    hidden: int,
    n_outputs: int,
    length: int,
    activation: str = "tanh",
    leak: float = 1.0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Ensemble:
    """Draw the initial weights of an ensemble; each network depends on its own seed and init only.

    Parameters
    ----------
    seeds : sequence of int
        One a network.
    inits : sequence of {"gaussian", "orthogonal", "delay"}
        One a network. ``gaussian``: W_rec ~ N(0, 1/H). ``orthogonal``: W_rec a random rotation.
        ``delay``: delay lines as long as the horizon in one half of the units, a rotation in the other
        (see `delay_lines`).
    n_inputs, hidden, n_outputs, length : int
        Sizes I, H, O and L.
    activation : {"tanh", "relu", "linear"}
    leak : float, default 1
        See `Ensemble`.
    dtype, device
        Of the weights. Numbers are drawn on the CPU, so that they do not depend on the device.
    """
    check_choice("activation", activation, ACTIVATIONS)
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
            w_rec, entries = delay_lines(w_rec, length)
            w_in = w_in * entries[:, None]
        weights.append(torch.cat([w_rec.mT, w_in.mT, torch.zeros(1, hidden, dtype=torch.float64)]))
        readouts.append(w_out)
    return Ensemble(
        torch.stack(weights).to(device, dtype),
        torch.stack(readouts).to(device, dtype),
        torch.zeros(len(weights), n_outputs, 1, dtype=dtype, device=device),
        activation,
        leak,
    )


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
