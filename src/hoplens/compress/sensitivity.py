"""How every row sum of a network reaches its outputs: what scores and reconstruction are made of."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hoplens.compress.simulation import run_model
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.seeds import generator

PROBES = 32  # outputs up to this count are followed one by one, more by as many random mixtures
CHUNK = 1 << 23  # numbers of a batch of per-sample gradients: 64 MiB

BLOCKS = ("in", "rec", "out")


@dataclass(frozen=True, eq=False)
class Matrix:
    """One weight matrix along a set of sequences, in float64.

    ``name``: its key in the model's state_dict. ``block``: edges from inputs, between hidden units (those
    from layer to layer too), to outputs. ``weight`` (R, C). ``seen`` (B, L, C): what the columns are
    multiplied with at each step. ``adjoint`` (Q, B, L, R): derivative of each output (or mixture of outputs)
    by each row sum at each step.
    """

    name: str
    block: str
    weight: Tensor
    seen: Tensor
    adjoint: Tensor

    def chunks(self) -> Iterator[slice]:
        """Yield slices of rows that are handled at once."""
        rows, columns = self.weight.shape
        samples = self.adjoint.shape[0] * self.adjoint.shape[1]
        size = max(1, CHUNK // (columns * max(samples, columns)))
        for start in range(0, rows, size):
            yield slice(start, min(rows, start + size))

    def jacobian(self, rows: slice) -> Tensor:
        """Return the derivative of every output by the weights of some rows, shape (r, Q * B, C).

        ``d y / d W[i, j] = sum_t adjoint[t, i] seen[t, j]``: all walks that use the edge, along the data.
        """
        adjoint = self.adjoint[..., rows].permute(1, 3, 0, 2)  # (B, r, Q, L)
        product = adjoint @ self.seen[:, None]  # (B, r, Q, C)
        return product.permute(1, 2, 0, 3).flatten(1, 2)


def block_of(name: str) -> str | None:
    """Return the block that a tensor of a model's state_dict belongs to; None for what is never pruned."""
    if name == "readout.weight":
        return "out"
    if name.startswith("core.weight_ih_l0"):
        return "in"
    return "rec" if name.startswith(("core.weight_ih", "core.weight_hh")) else None


def white_noise(model: RecurrentModel, samples: int, horizon: int, seed: int) -> Tensor:
    """Return independent standard normal inputs, shape (samples, horizon, I), float64.

    For a linear network the output's variance under them is ``sum_k |H_k|^2``: to weigh by them is to weigh
    by hop maps.
    """
    source = generator("white noise", seed)
    return torch.randn(samples, horizon, model.n_inputs, generator=source, dtype=torch.float64)


def sensitivities(
    model: RecurrentModel,
    inputs: Tensor,
    *,
    objective: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> dict[str, Matrix]:
    """Run a model and return all of its weight matrices with what they see and how they reach the outputs.

    ``model``: of plain parameters; left as it is. ``inputs`` (B, L, I). ``objective``: maps outputs to one
    number that is a sum over samples; then its derivatives take the place of the outputs' (Q = 1). ``seed``:
    of the mixtures that stand for more than `PROBES` outputs a sample: random signs, so that squared
    derivatives keep their mean.
    """
    work = copy.deepcopy(model).double().requires_grad_(False)
    weights, tape = work.state_dict(), _Tape()
    with torch.enable_grad():
        outputs = run_model(work, weights, inputs.to(work.readout.weight), add=tape.add)
        goals = _goals(outputs, seed) if objective is None else [objective(outputs)]
        grads = [
            torch.autograd.grad(
                goal, tape.leaves, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for goal in goals
        ]
    return tape.matrices(weights, grads)


def _goals(outputs: Tensor, seed: int) -> list[Tensor]:
    flat = outputs.flatten(1)
    if flat.shape[1] <= PROBES:
        return [column.sum() for column in flat.unbind(1)]
    source = generator("random probes", seed)
    shape = (PROBES, *flat.shape)
    signs = torch.randint(2, shape, generator=source).to(flat) * 2 - 1
    # the mean over mixtures estimates the sum over outputs; matrices add mixtures up
    return [(flat * sign).sum() / PROBES**0.5 for sign in signs]


class _Tape:
    """Zeros added to every row sum, by whose derivatives the adjoints are read."""

    def __init__(self) -> None:
        self.leaves: list[Tensor] = []
        self.entries: dict[str, list[tuple[int, Tensor]]] = {}

    def add(self, name: str, seen: Tensor, product: Tensor) -> Tensor:
        """Return a product with zeros added; one of a weight that is never pruned as it is."""
        if block_of(name) is None:
            return product
        # with the bias, where the row sums enter: a GRU's b_hn lies inside the reset gate like W_hn h
        self.entries.setdefault(name, []).append((len(self.leaves), seen.detach()))
        self.leaves.append(torch.zeros_like(product, requires_grad=True))
        return product + self.leaves[-1]

    def matrices(self, weights: dict[str, Tensor], grads: list[tuple[Tensor, ...]]) -> dict[str, Matrix]:
        matrices = {}
        for name, entries in self.entries.items():
            adjoint = torch.stack([torch.stack([g[at] for at, _ in entries], 1) for g in grads])
            seen = torch.stack([seen for _, seen in entries], 1)
            block = block_of(name)
            assert block is not None
            matrices[name] = Matrix(name, block, weights[name].detach(), seen, adjoint)
        return matrices
