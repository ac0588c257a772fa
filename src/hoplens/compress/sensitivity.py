"""How every row sum of a network reaches its outputs: what scores and reconstruction are made of."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hoplens.models.readers.models import to_stack
from hoplens.models.recurrent_model import RecurrentModel, last_steps
from hoplens.models.stack import Stack
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
    x = inputs.to(work.readout.weight)
    if work.info.window is not None and not work.info.every_step:
        x, _ = last_steps(x, work.info.window)
    stack = to_stack(work.core, work.readout)
    assert isinstance(stack, Stack)
    with torch.enable_grad():
        tape = _Tape(x.shape[0])
        shown = _run(stack, x, tape)
        taken = shown if work.info.every_step else shown[-1:]
        outputs = torch.stack([tape.add("readout.weight", state, work.readout(state)) for state in taken], 1)
        outputs = outputs if work.info.every_step else outputs[:, 0]
        goals = _goals(outputs, seed) if objective is None else [objective(outputs)]
        grads = [
            torch.autograd.grad(
                goal, tape.leaves, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for goal in goals
        ]
    return tape.matrices(work.state_dict(), grads)


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

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.leaves: list[Tensor] = []
        self.entries: dict[str, list[tuple[int, Tensor]]] = {}

    def leaf(self, name: str, seen: Tensor, rows: int) -> Tensor:
        zeros = seen.new_zeros(self.samples, rows, requires_grad=True)
        self.entries.setdefault(name, []).append((len(self.leaves), seen.detach()))
        self.leaves.append(zeros)
        return zeros

    def add(self, name: str, seen: Tensor, value: Tensor) -> Tensor:
        return value + self.leaf(name, seen, value.shape[-1])

    def matrices(self, weights: dict[str, Tensor], grads: list[tuple[Tensor, ...]]) -> dict[str, Matrix]:
        found = {}
        for name, entries in self.entries.items():
            adjoint = torch.stack([torch.stack([g[at] for at, _ in entries], 1) for g in grads])
            seen = torch.stack([seen for _, seen in entries], 1)
            block = block_of(name)
            assert block is not None
            found[name] = Matrix(name, block, weights[name].detach(), seen, adjoint)
        return found


def _run(stack: Stack, inputs: Tensor, tape: _Tape) -> list[Tensor]:
    """Return what the last level shows after every step."""
    x = list(inputs.unbind(1))
    for level, cells in enumerate(stack.levels):
        shown = []
        for direction, cell in enumerate(cells):
            suffix = f"_l{level}" + ("_reverse" if direction else "")
            shown.append(_run_cell(cell, x, bool(direction), suffix, tape))
        x = [torch.cat(parts, dim=-1) for parts in zip(*shown, strict=True)]
    return x


def _run_cell(cell: Any, inputs: list[Tensor], reverse: bool, suffix: str, tape: _Tape) -> list[Tensor]:
    state = inputs[0].new_zeros(tape.samples, cell.n_state)
    shown: list[Tensor] = []
    step = copy.copy(cell)
    for x in reversed(inputs) if reverse else inputs:
        # biases enter where the row sums do, a GRU's b_hn inside the reset gate like W_hn h
        step.b_ih = cell.b_ih + tape.leaf(f"core.weight_ih{suffix}", x, cell.w_ih.shape[0])
        step.b_hh = cell.b_hh + tape.leaf(f"core.weight_hh{suffix}", cell.feed(state), cell.w_hh.shape[0])
        state = step.step(state, x)
        shown.append(cell.emit(state))
    return shown[::-1] if reverse else shown
