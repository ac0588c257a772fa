"""Ensembles of recurrent networks, stored and run as one batch of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hoplens.errors import check_choice
from hoplens.pathways import Pathways

ACTIVATIONS = ("tanh", "relu", "linear")
INITS = ("gaussian", "orthogonal", "delay")


@dataclass
class Ensemble:
    """E networks ``h_t = f(W_rec h_(t-1) + W_in x_t + b)``, ``y = W_out h_L + c``.

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
    """

    weight: Tensor
    readout: Tensor
    offset: Tensor
    activation: str = "tanh"

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

    def pathways(self) -> Pathways:
        """Return the graph of all networks, leading axis E; views of the weights, no copies."""
        h, i = self.n_hidden, self.n_inputs
        w_in = self.weight[:, h : h + i].mT
        return Pathways(
            w_in, self.recurrent().mT, self.readout, provenance=f"raw weights ({self.activation})"
        )

    def clone(self) -> Ensemble:
        """Return a copy with its own memory."""
        return Ensemble(*(tensor.detach().clone() for tensor in self.tensors), self.activation)

    def predict(self, inputs: Tensor) -> Tensor:
        """Run all networks on the same sequences.

        Parameters
        ----------
        inputs : Tensor, shape (B, L, I), or (E, B, L, I) for own sequences a network

        Returns
        -------
        Tensor, shape (E, B, O)
            Read-out after the last time step. Plain PyTorch, differentiable.
        """
        h, i = self.n_hidden, self.n_inputs
        w_rec, w_in, bias = self.weight.split([h, i, 1], dim=1)
        steps = inputs.unbind(dim=-2)
        state = self.weight.new_zeros(self.size, inputs.shape[-3], h)
        for x in steps:
            state = activate(torch.baddbmm(x @ w_in + bias, state, w_rec), self.activation)
        return state @ self.readout.mT + self.offset.mT


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
        ``delay``: W_rec a bundle of delay lines, each as long as the horizon where H allows (see
        `delay_lines`).
    n_inputs, hidden, n_outputs, length : int
        Sizes I, H, O and L.
    activation : {"tanh", "relu", "linear"}
    dtype, device
        Of the weights. Numbers are drawn on the CPU, so that they do not depend on the device.
    """
    check_choice("activation", activation, ACTIVATIONS)
    weights, readouts = [], []
    for seed, init in zip(seeds, inits, strict=True):
        check_choice("init", init, INITS)
        source = torch.Generator().manual_seed(seed)
        # always drawn in this order, so that networks of one seed share W_in and W_out over inits
        w_in = torch.randn(hidden, n_inputs, generator=source, dtype=torch.float64) / math.sqrt(n_inputs)
        w_out = torch.randn(n_outputs, hidden, generator=source, dtype=torch.float64) / math.sqrt(hidden)
        w_rec = torch.randn(hidden, hidden, generator=source, dtype=torch.float64)
        if init == "gaussian":
            w_rec = w_rec / math.sqrt(hidden)
        elif init == "orthogonal":
            q, r = torch.linalg.qr(w_rec)
            w_rec = q * r.diagonal().sign()  # makes the rotation uniform (Mezzadri 2007)
        else:
            w_rec, entries = delay_lines(hidden, length)
            w_in = w_in * entries[:, None]
        weights.append(torch.cat([w_rec.mT, w_in.mT, torch.zeros(1, hidden, dtype=torch.float64)]))
        readouts.append(w_out)
    return Ensemble(
        torch.stack(weights).to(device, dtype),
        torch.stack(readouts).to(device, dtype),
        torch.zeros(len(weights), n_outputs, 1, dtype=dtype, device=device),
        activation,
    )


def delay_lines(hidden: int, length: int) -> tuple[Tensor, Tensor]:
    """Return a recurrent matrix made of delay lines, and which units are their entries.

    The H units are cut into as many chains of ``length`` units as fit (at least one; left-over units
    lengthen the last). A chain hands its content on by one unit a time step with gain 1, so that unit d
    of a chain holds what entered it d steps ago: nothing fades, and no two lags share a unit.

    Returns
    -------
    w_rec : Tensor, shape (H, H), float64
    entries : Tensor, shape (H,), float64
        1 for the first unit of each chain, else 0.
    """
    chains = max(1, hidden // length)
    w_rec = (
        torch.diag(torch.ones(hidden - 1, dtype=torch.float64), -1)
        if hidden > 1
        else torch.zeros(1, 1).double()
    )
    starts = torch.arange(chains) * min(length, hidden)
    entries = torch.zeros(hidden, dtype=torch.float64)
    entries[starts] = 1.0
    w_rec[starts] = 0.0
    return w_rec, entries
