"""What the equations of a cell are written in: a few operations, for tensors and for all that follows them.

A cell's `update` is elementwise in its units, so that the same lines give a time step (tensors), its exact
linear map at a point or between two (`Change`) and the nodes of a file (ONNX), each by operations of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

V = TypeVar("V")


class Ops(Protocol[V]):
    """Operations on values of one kind, element by element."""

    def add(self, a: V, b: V) -> V:
        """Return a + b."""

    def mul(self, a: V, b: V) -> V:
        """Return a b."""

    def mix(self, share: Any, a: V, b: V) -> V:
        """Return ``share a + (1 - share) b``; the share, a value or a constant, lies in [0, 1]."""

    def apply(self, function: str, a: V) -> V:
        """Return "tanh", "sigmoid", "relu" or "linear" of a."""

    def split(self, a: V, count: int) -> Sequence[V]:
        """Return equal blocks along the units."""


class TensorOps:
    """Tensors, units along one axis."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a + b."""
        return a + b

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a b."""
        return a * b

    def mix(self, share: Tensor | float, a: Tensor, b: Tensor) -> Tensor:
        """Return ``share a + (1 - share) b``."""
        return torch.lerp(b, a, share)

    def apply(self, function: str, a: Tensor) -> Tensor:
        """Return a function of a."""
        return a if function == "linear" else getattr(a, function)()

    def split(self, a: Tensor, count: int) -> Sequence[Tensor]:
        """Return equal blocks."""
        return a.chunk(count, dim=self.axis)


class Change(NamedTuple):
    """A value at one point or at two, and how it changes with what the equations start from.

    At one point ``by`` holds slopes. Between two it holds secants: with products split evenly,
    ``p_b q_b - p_a q_a = mean(p) (q_b - q_a) + mean(q) (p_b - p_a)``, the change of the value is the sum of
    these times the changes of what it started from, without remainder.
    """

    values: tuple[Tensor, ...]
    by: dict[int, Tensor | None]  # by the number of the leaf; None: 1

    @property
    def mean(self) -> Tensor:
        """The value at the point, or the mean of both."""
        return self.values[0] if len(self.values) == 1 else (self.values[0] + self.values[1]).mul_(0.5)


def leaf(number: int, *values: Tensor) -> Change:
    """Return what equations start from, at one point or two."""
    return Change(values, {number: None})


class ChangeOps:
    """Values with their exact linear maps."""

    def add(self, a: Change, b: Change) -> Change:
        """Return a + b."""
        return Change(tuple(map(torch.add, a.values, b.values)), _sum(a.by, b.by))

    def mul(self, a: Change, b: Change) -> Change:
        """Return a b."""
        values = tuple(map(torch.mul, a.values, b.values))
        return Change(values, _sum(_scale(a.by, b.mean), _scale(b.by, a.mean)))

    def mix(self, share: Any, a: Change, b: Change) -> Change:
        """Return ``share a + (1 - share) b``."""
        if not isinstance(share, Change):
            values = tuple(torch.lerp(v, u, share) for u, v in zip(a.values, b.values, strict=True))
            return Change(values, _sum(_scale(a.by, share), _scale(b.by, 1 - share)))
        ends = zip(share.values, a.values, b.values, strict=True)
        values = tuple(torch.lerp(v, u, s) for s, u, v in ends)
        open_, apart = share.mean, a.mean - b.mean
        by = _sum(_scale(a.by, open_), _scale(b.by, 1 - open_))
        return Change(values, _sum(by, _scale(share.by, apart)))

    def apply(self, function: str, a: Change) -> Change:
        """Return a function of a."""
        if function == "linear":
            return a
        values, slope = _linearised(function, a.values)
        return Change(values, _scale(a.by, slope))

    def split(self, a: Change, count: int) -> Sequence[Change]:
        """Return equal blocks; of leaves only."""
        raise NotImplementedError


def _scale(by: dict[int, Tensor | None], factor: Any) -> dict[int, Tensor | None]:
    return {key: factor if value is None else value * factor for key, value in by.items()}


def _sum(a: dict[int, Tensor | None], b: dict[int, Tensor | None]) -> dict[int, Tensor | None]:
    both = {**a, **b}
    for key in a.keys() & b.keys():
        p, q = a[key], b[key]
        both[key] = (1.0 if p is None else p) + (1.0 if q is None else q)  # type: ignore[assignment]
    return both


def _linearised(function: str, ends: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the values of a function and its slope at a point, or its secant between two."""
    if len(ends) == 1:
        value = getattr(ends[0], function)()
        if function == "tanh":
            return (value,), 1 - value * value
        return (value,), value * (1 - value) if function == "sigmoid" else (value > 0).to(value)
    a, b = ends
    if function == "relu":
        gap = b - a
        same = gap == 0
        low, high = a.relu(), b.relu()
        return (low, high), torch.where(same, (a > 0).to(gap), (high - low) / torch.where(same, 1.0, gap))
    if function == "tanh":
        low, high = _tanh(a), _tanh(b)
        return (low, high), tanh_secant(b - a, low, high)
    # sigmoid z = (1 + tanh(z / 2)) / 2
    low, high = torch.sigmoid(a), torch.sigmoid(b)
    return (low, high), tanh_secant((b - a).mul_(0.5), 2 * low - 1, 2 * high - 1).mul_(0.25)


def tanh_secant(gap: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the slope of tanh between two arguments, exact to rounding at any distance, 0 included.

    ``tanh v - tanh u = tanh(v - u) (1 - tanh u tanh v)``, so that no two nearly equal numbers are subtracted.

    Parameters
    ----------
    gap : Tensor
        v - u.
    a, b : Tensor
        tanh u and tanh v.
    """
    # tanh(d) / d is even in d and 1 to rounding below these sizes, so that 0 needs no case of its own
    if gap.dtype == torch.float32:
        size = gap.abs().clamp_min_(3e-3)
        whole = _tanh(size)  # its rounding, of size 1e-7, counts for 1e-7 in the difference too
    else:
        size = gap.abs().clamp_min_(1e-12)
        whole = size.tanh()
    return whole.div_(size).mul_(torch.rsub(a * b, 1.0))


def _tanh(z: Tensor) -> Tensor:
    # many times the speed of tanh itself on CPUs, and as good where values, not slopes, are wanted
    return torch.sigmoid(2.0 * z).mul_(2.0).sub_(1.0)


TENSORS = TensorOps()
CHANGES = ChangeOps()

__all__ = ["CHANGES", "TENSORS", "Change", "ChangeOps", "Ops", "TensorOps", "leaf", "tanh_secant"]
