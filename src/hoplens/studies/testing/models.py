"""The contracts of cells and readers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hoplens.analysis.trajectories import autograd_maps, trajectory_maps
from hoplens.models.cells import Cell
from hoplens.models.readers import read
from hoplens.studies.testing.requiring import (
    EXACT,
    F64,
    blocks_of,
    close,
    generator,
    keeps_randomness,
    name_of,
    require,
    what_came,
)


def check_cell(cell: Any, *, dtype: torch.dtype = torch.float32) -> None:
    """Raise unless a cell's step and Jacobian products fit each other.

    Parameters
    ----------
    cell : Cell
    dtype : torch.dtype, default float32
        Of the cell's own weights; in float64 the check is sharper.

    Raises
    ------
    ContractError
    """
    require(isinstance(cell, Cell), f"expected a hoplens.Cell, got {name_of(cell)}")
    tolerance = EXACT if dtype == F64 else 1e-4
    g, size, inputs = generator(6), cell.n_state, cell.n_inputs
    state = torch.randn(2, 3, size, generator=g, dtype=F64).to(dtype)
    x = torch.randn(2, 3, inputs, generator=g, dtype=F64).to(dtype)
    with keeps_randomness("the cell"), torch.no_grad():
        new = cell.step(state, x)
        require(
            isinstance(new, Tensor) and new.shape == state.shape,
            f"step must return the next state in the shape of the state, {tuple(state.shape)}, got "
            f"{what_came(new)}",
        )
        require(torch.equal(new, cell.step(state, x)), "step gave another state the second time")
        for place in ((0, 0), (1, 2)):
            alone = cell.step(state[place], x[place])
            close(new[place], alone, "a sample's step depends on the samples beside it", tolerance)
    emission = cell.emission()
    if emission is not None:
        require(
            tuple(emission.shape) == (cell.n_outputs, size),
            f"emission must have shape (n_outputs, {size}), got {tuple(emission.shape)}",
        )
        close(cell.emit(state), state @ emission.mT, "emit(state) is not state @ emission.mT", tolerance)
    by_state, by_x = cell.pull(cell.save(state[0, 0], x[0, 0]), torch.eye(size, dtype=dtype))
    for name, got, wanted in zip(
        ("state", "input"),
        (by_state, by_x),
        torch.autograd.functional.jacobian(cell.step, (state[0, 0], x[0, 0])),
        strict=True,
    ):
        close(got, wanted, f"pull is not the Jacobian of step by the {name}", tolerance)
    raw = cell.raw()
    if raw is not None:
        shapes = ((size, size), (size, inputs))
        require(tuple(tuple(block.shape) for block in raw) == shapes, f"raw must have shapes {shapes}")


def check_reader(
    model: Any,
    readout: Any = None,
    *,
    inputs: Tensor | None = None,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Raise unless `hoplens.read` understands a model and leaves it as it was.

    Parameters
    ----------
    model : object
        A module or whatever a reader of one's own is registered for.
    readout : nn.Linear or matrix, optional
        As for `hoplens.read`.
    inputs : Tensor, shape (B, L, I), optional
        Some sequences; with ``forward``, exact maps along them are compared with the model's own.
    forward : callable, optional
        Runs the model: inputs (B, L, I) to outputs (B, O) after the last step, differentiable. The proof that
        what is read is what runs.

    Raises
    ------
    ContractError
    """
    modules = [part for part in (model, readout) if isinstance(part, nn.Module)]
    before = snapshot(*modules)
    with keeps_randomness("reading"):
        net = read(model, readout)
        again = read(model, readout)
    require(same_snapshot(before, snapshot(*modules)), "reading changed the model")
    for a, b in zip(blocks_of(net), blocks_of(again), strict=True):
        require(bool(torch.isfinite(a).all()), "what was read is not finite")
        require(torch.equal(a, b), "reading a second time gave other weights")
    trained = [p for part in modules for p in part.parameters() if p.requires_grad]
    total = sum(block.square().sum() for block in blocks_of(net) if block.requires_grad)
    if trained:
        reached = isinstance(total, Tensor) and any(
            grad is not None for grad in torch.autograd.grad(total, trained, allow_unused=True)
        )
        require(
            reached, "no gradient flows from what was read to the model's parameters: no detach() in a reader"
        )
    if forward is not None:
        require(inputs is not None, "forward= needs inputs=, some sequences (B, L, I)")
        assert inputs is not None
        ours = trajectory_maps(model, inputs, readout=readout)
        # by autograd whatever it is: a module with a reader would be read, and compared with itself
        theirs = autograd_maps(forward, inputs)
        require(same_snapshot(before, snapshot(*modules)), "maps along inputs changed the model")
        tolerance = EXACT if inputs.dtype == F64 else 1e-4
        close(
            ours.values,
            theirs.values,
            "the cells that were read do not compute what the model runs",
            tolerance,
        )


def snapshot(*modules: nn.Module) -> list[Any]:
    """Return all of modules that analysis must leave alone.

    Weights and where they lie, gradients, flags, buffers, modes, hooks, names of attributes.
    """
    found: list[Any] = []
    for module in modules:
        for name, p in module.named_parameters():
            grad = None if p.grad is None else p.grad.clone()
            found.append((name, p.detach().clone(), p.requires_grad, grad, p.data_ptr()))
        found += [(name, buffer.clone()) for name, buffer in module.named_buffers()]
        for part in module.modules():
            hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks)
            found.append((part.training, *map(len, hooks), sorted(vars(part))))
    return found


def same_snapshot(before: list[Any], after: list[Any]) -> bool:
    """Return whether two snapshots of the same modules are equal."""
    return len(before) == len(after) and all(
        _equal(a, b) for one, two in zip(before, after, strict=True) for a, b in zip(one, two, strict=True)
    )


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and bool(torch.equal(a, b))
    return type(a) is type(b) and bool(a == b)


__all__ = ["check_cell", "check_reader", "same_snapshot", "snapshot"]
