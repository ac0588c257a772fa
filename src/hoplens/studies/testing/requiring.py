"""What the contract tests share: networks to try, comparisons, and the error that says what is broken."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoplens import seeds
from hoplens.errors import ContractError
from hoplens.graph.pathways import Pathways

F64 = torch.float64
EXACT = 1e-9  # relative, of float64 results reached in two ways


def check_values(function: Callable[[Pathways], Any], net: Pathways, what: str, permutable: bool) -> Tensor:
    """Check one number a network, each by itself, the same twice, and the network left alone."""
    before = [block.clone() for block in blocks_of(net)]
    value = function(net)
    require(
        all(torch.equal(a, b) for a, b in zip(before, blocks_of(net), strict=True)),
        f"{what} changed the network",
    )
    require(
        isinstance(value, Tensor) and value.shape == net.batch_shape,
        f"{what} must give one number a network, shape {tuple(net.batch_shape)}, got {what_came(value)}",
    )
    require(bool(torch.isfinite(value).all()), f"{what} of a network of finite weights is not finite")
    require(torch.equal(value, function(net)), f"{what} of the same network differed the second time")
    if net.batch_shape:
        alone = [function(flat(net)[n]) for n in range(net.batch_shape.numel())]
        close(
            value.flatten(), torch.stack(alone), f"{what} of a network in an ensemble is not that of it alone"
        )
    if permutable:
        order = torch.randperm(net.n_hidden, generator=generator(3))
        moved = Pathways(net.w_in[..., order, :], net.w_rec[..., order, :][..., order], net.w_out[..., order])
        close(
            function(moved), value, f"{what} depends on the order of hidden units (permutable=False lets it)"
        )
    found: Tensor = value
    return found


def random_network(batch: tuple[int, ...], *, inputs: int = 3, hidden: int = 5, outputs: int = 2) -> Pathways:
    """Draw a float64 network with no weight near zero, where an absolute value has no slope."""
    g = generator(sum(batch) + 11)

    def block(rows: int, columns: int) -> Tensor:
        size = 0.1 + 0.3 * torch.rand(*batch, rows, columns, generator=g, dtype=F64)
        return size * (2.0 * torch.randint(2, size.shape, generator=g) - 1.0)

    return Pathways(block(hidden, inputs), block(hidden, hidden), block(outputs, hidden))


def flat(net: Pathways) -> Pathways:
    return Pathways(*(block.reshape(-1, *block.shape[-2:]) for block in blocks_of(net)))


def blocks_of(net: Pathways) -> list[Tensor]:
    return [net.w_in, net.w_rec, net.w_out]


def generator(seed: int) -> torch.Generator:
    return seeds.generator("checks", seed)


@contextmanager
def keeps_randomness(what: str) -> Iterator[None]:
    """Raise if the block draws from a global source of random numbers; put these back."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002 - to watch it
    yield
    after = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    same = torch.equal(before[0], after[0]) and repr(before[1:]) == repr(after[1:])
    torch.set_rng_state(before[0])
    np.random.set_state(before[1])  # noqa: NPY002
    random.setstate(before[2])
    require(
        same, f"{what} used global random numbers: draw from the generator given, or from one of its own seed"
    )


def close(got: Tensor, wanted: Tensor, message: str, tolerance: float = EXACT) -> None:
    require(got.shape == wanted.shape, f"{message}: shape {tuple(got.shape)} against {tuple(wanted.shape)}")
    gap = float((got - wanted).abs().max()) if got.numel() else 0.0
    scale = max(1.0, float(wanted.abs().max())) if got.numel() else 1.0
    require(gap <= tolerance * scale, f"{message}: off by {gap:.3g}")


def require(holds: bool, message: str) -> None:
    if not holds:
        raise ContractError(message)


def name_of(value: object) -> str:
    return value.__name__ if isinstance(value, type) else type(value).__name__


def what_came(value: object) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
