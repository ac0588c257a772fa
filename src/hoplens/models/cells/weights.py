"""Cells of weights: linear projections of input and state, then equations element by element.

`Equations` are written once a cell. `WeightCell` makes of them what readers need: the step, and its exact
linear map at a point or between two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hoplens.errors import ShapeError
from hoplens.graph.parts import numbered
from hoplens.models.cells.algebra import CHANGES, TENSORS, Change, Ops, V, leaf
from hoplens.models.cells.base import Cell, Saved
from hoplens.models.tensors import check_weight


class Operator(NamedTuple):
    """The operator of ONNX that runs a cell over time.

    Attributes
    ----------
    name : str
    gates : tuple of int
        Block of ``W_ih`` and ``W_hh`` at each place of ONNX's order.
    attributes : dict
        Of one direction; what is a list has one entry a direction.
    """

    name: str
    gates: tuple[int, ...]
    attributes: dict[str, Any] = {}  # noqa: RUF012 - never changed


class Equations:
    """What a cell computes, element by element, of the blocks of its projections.

    Attributes
    ----------
    from_input, from_state : tuple of int or None
        For each row that `update` takes, the block of ``W_ih x + b_ih`` and of ``W_hh s + b_hh`` that make
        it up; None where it has none.
    parts : tuple of str
        Names of the parts of the state, H units each.
        The first is passed on.
    fed : tuple of int
        Parts that ``W_hh`` sees, one after another.
    """

    from_input: tuple[int | None, ...] = (0,)
    from_state: tuple[int | None, ...] = (0,)
    parts: tuple[str, ...] = ("h",)
    fed: tuple[int, ...] = (0,)

    def update(self, ops: Ops[V], rows: Sequence[V], state: Sequence[V]) -> tuple[V, ...]:
        """Return the next parts of the state.

        Parameters
        ----------
        ops : Ops
            Operations on the values.
        rows : sequence
            One value a row, in the order of ``from_input``.
        state : sequence
            One value a part.
        """
        raise NotImplementedError

    @classmethod
    def block_counts(cls) -> tuple[int, int]:
        """Return how many blocks of H units ``W_ih`` and ``W_hh`` have."""
        return (
            sum(place is not None for place in cls.from_input),
            sum(place is not None for place in cls.from_state),
        )

    @classmethod
    def join(cls, ops: Ops[V], by_x: V, by_h: V | None) -> list[V]:
        """Return the rows of what inputs and states contribute, or of their sum."""
        of_x, of_h = cls.block_counts()
        if cls.from_input == cls.from_state:
            found = ops.split(by_x if by_h is None else ops.add(by_x, by_h), of_x)
            return [found[place] for place in cls.from_input if place is not None]
        entered = ops.split(by_x, of_x)
        seen = [] if by_h is None or not of_h else ops.split(by_h, of_h)
        rows = []
        for n, m in zip(cls.from_input, cls.from_state, strict=True):
            if n is None or m is None:
                assert n is not None or m is not None
                rows.append(entered[n] if n is not None else seen[m or 0])
            else:
                rows.append(ops.add(entered[n], seen[m]))
        return rows


class _Leaves(NamedTuple):
    """What the equations start from, numbered: the rows, then the parts of the state."""

    order: list[int]  # as slopes are stored: rows by block of W_ih, other rows, parts kept
    input: slice | list[int]  # places in `order` of the blocks of W_ih
    state: slice | list[int]  # and of those of W_hh
    kept: tuple[int, ...]  # parts of the state that `update` reads beside what W_hh sees


class WeightCell(Equations, Cell):
    """A cell of PyTorch's kind: ``W_ih x + b_ih`` and ``W_hh s + b_hh``, then the equations.

    Parameters
    ----------
    w_ih : Tensor, shape (blocks H, I)
    w_hh : Tensor, shape (blocks H, P)
        P = H a part that is fed back, or the size of a projection.
    b_ih, b_hh : Tensor, shape (blocks H,), optional
    w_hr : Tensor, shape (P, H), optional
        Projection of the first part of the state.
    label : str
    """

    def __init__(
        self,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None,
        b_hh: Tensor | None,
        w_hr: Tensor | None = None,
        *,
        label: str,
    ) -> None:
        check_weight(f"weight_ih of the {label}", w_ih)
        check_weight(f"weight_hh of the {label}", w_hh)
        of_x, of_h = self.block_counts()
        rows = w_ih.shape[0] if w_ih.dim() == 2 else 0
        hidden = rows // of_x
        width = hidden * len(self.fed) if w_hr is None else w_hh.shape[-1]
        if not rows or rows % of_x or w_hh.shape != (of_h * hidden, width) or 0 in (w_ih.shape[1], width):
            letter = "H" if w_hr is None else "P"
            times = "" if len(self.fed) == 1 else f"{len(self.fed)} "
            raise ShapeError(
                f"{label} needs weights ({of_x} H, I) and ({of_h} H, {times}{letter}), "
                f"none of these sizes 0, got {tuple(w_ih.shape)} and {tuple(w_hh.shape)}"
            )
        for name, bias, size in (("bias_ih", b_ih, rows), ("bias_hh", b_hh, w_hh.shape[0])):
            if bias is not None:
                check_weight(f"{name} of the {label}", bias, (size,))
        if w_hr is not None:
            check_weight(f"weight_hr of the {label}", w_hr, (width, hidden))
        _check_one_kind(label, [block for block in (w_ih, w_hh, b_ih, b_hh, w_hr) if block is not None])
        self.hidden, self.w_hr = hidden, w_hr
        self.sizes = (hidden if w_hr is None else width, *[hidden] * (len(self.parts) - 1))
        super().__init__(w_ih.shape[1], sum(self.sizes), label=label)
        self.w_ih, self.w_hh = w_ih, w_hh
        self.b_ih = w_ih.new_zeros(rows) if b_ih is None else b_ih
        self.b_hh = w_ih.new_zeros(w_hh.shape[0]) if b_hh is None else b_hh

    def operator(self) -> Operator | None:
        """Return the operator of ONNX that is this cell; None where a loop over its equations is written."""
        return None

    def torch_kernel(self) -> Callable[..., Any] | None:
        """Return PyTorch's own run over time of cells with one part, where it has one."""
        return None

    @property
    def shown(self) -> int:
        """Number of values that are passed on."""
        return self.sizes[0]

    @property
    def unit_names(self) -> tuple[str, ...]:
        """Names ``h0, h1, ...`` of the units of each part."""
        if len(self.parts) == 1:
            return numbered(self.parts[0], self.sizes[0])
        named = zip(self.parts, self.sizes, strict=True)
        return tuple(name for part, size in named for name in numbered(part, size))

    def emission(self) -> Tensor | None:
        """Return the selection of the part that is passed on; None where it is all there is."""
        if len(self.parts) == 1:
            return None
        return torch.eye(self.shown, self.n_state, dtype=self.w_ih.dtype, device=self.w_ih.device)

    def emit(self, state: Tensor) -> Tensor:
        """Return the part that is passed on.

        Parameters
        ----------
        state : Tensor, shape (..., S)
        """
        return state if len(self.parts) == 1 else state[..., : self.shown]

    def _split(self, state: Tensor) -> Sequence[Tensor]:
        return (state,) if len(self.sizes) == 1 else state.split_with_sizes(self.sizes, dim=-1)

    def feed(self, state: Tensor) -> Tensor:
        """Return what ``W_hh`` sees of the state (..., S)."""
        if len(self.fed) == len(self.parts):
            return state
        parts = self._split(state)
        return parts[self.fed[0]] if len(self.fed) == 1 else torch.cat([parts[n] for n in self.fed], dim=-1)

    def rows(self, state: Tensor, x: Tensor) -> list[Tensor]:
        """Return the rows that `update` takes, (..., H) each."""
        by_h = self.feed(state) @ self.w_hh.mT
        if self.from_input == self.from_state:
            return self.join(TENSORS, x @ self.w_ih.mT, by_h + (self.b_ih + self.b_hh))
        return self.join(TENSORS, x @ self.w_ih.mT + self.b_ih, by_h + self.b_hh)

    def step(self, state: Tensor, x: Tensor) -> Tensor:
        """Take one step.

        Parameters
        ----------
        state : Tensor, shape (..., S)
        x : Tensor, shape (..., I)
        """
        new = self.update(TENSORS, self.rows(state, x), self._split(state))
        first = new[0] if self.w_hr is None else new[0] @ self.w_hr.mT
        return first if len(new) == 1 else torch.cat([first, *new[1:]], dim=-1)

    @cached_property
    def _leaves(self) -> _Leaves:
        one, count = self.w_ih.new_zeros(1), len(self.from_input)
        rows = [leaf(n, one) for n in range(count)]
        new = self.update(CHANGES, rows, [leaf(count + n, one) for n in range(len(self.parts))])
        kept = tuple(n for n in range(len(self.parts)) if any(count + n in part.by for part in new))
        of_x, of_h = _inverse(self.from_input), _inverse(self.from_state)
        order = [*of_x, *(row for row in of_h if row not in of_x), *(count + n for n in kept)]
        return _Leaves(order, _places(order, of_x), _places(order, of_h), kept)

    def save(self, state: Tensor, x: Tensor) -> Saved:
        """Return the slopes of all parts by the rows and by the state.

        Parameters
        ----------
        state : Tensor, shape (..., S)
        x : Tensor, shape (..., I)
        """
        rows = self.rows(state, x)
        parts = self._split(state.expand(*rows[0].shape[:-1], -1))
        return self.linear_map([(row,) for row in rows], [(part,) for part in parts])

    def linear_map(self, rows: Sequence[tuple[Tensor, ...]], state: Sequence[tuple[Tensor, ...]]) -> Saved:
        """Return what `pull_rows` needs: slopes at a point of rows and state, or secants between two.

        Parameters
        ----------
        rows, state : sequence of tuple of Tensor, shape (..., H)
            One value, or the two between which the map is taken.
        """
        count = len(rows)
        new = self.update(
            CHANGES,
            [leaf(n, *ends) for n, ends in enumerate(rows)],
            [leaf(count + n, *ends) for n, ends in enumerate(state)],
        )
        zeros = torch.zeros_like(rows[0][0])
        found = [_coefficient(part, n, zeros) for part in new for n in self._leaves.order]
        return (torch.stack(found, dim=-2).unflatten(-2, (len(new), len(self._leaves.order))),)

    def pull_rows(self, saved: Saved, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply rows (..., R, S) by the map; return (..., R, S) by state and (..., R, blocks H) by W_ih x.

        Parameters
        ----------
        saved : tuple of Tensor
            Of `save` or `linear_map`.
        rows : Tensor, shape (..., R, S)
        """
        (slopes,) = saved
        parts = list(self._split(rows))
        if self.w_hr is not None:
            parts[0] = parts[0] @ self.w_hr
        total = parts[0].unsqueeze(-2) * slopes[..., 0, :, :].unsqueeze(-3)  # (..., R, leaves, H)
        for n in range(1, len(parts)):
            total = torch.addcmul(total, parts[n].unsqueeze(-2), slopes[..., n, :, :].unsqueeze(-3))
        leaves = self._leaves
        inner = total[..., leaves.input, :].flatten(-2)
        found: list[Tensor | None] = [None] * len(self.parts)
        if self.w_hh.numel():
            seen = total[..., leaves.state, :].flatten(-2) @ self.w_hh
            sizes = [self.sizes[n] for n in self.fed]
            for n, part in zip(self.fed, seen.split_with_sizes(sizes, dim=-1), strict=True):
                found[n] = part
        for k, n in enumerate(leaves.kept, len(leaves.order) - len(leaves.kept)):
            own, part = found[n], total[..., k, :]
            found[n] = part if own is None else own + part
        if len(found) == 1 and found[0] is not None:
            return found[0], inner
        whole = [
            rows.new_zeros(*inner.shape[:-1], size) if part is None else part
            for part, size in zip(found, self.sizes, strict=True)
        ]
        return torch.cat(whole, dim=-1), inner

    def pull(self, saved: Saved, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply rows by the Jacobians.

        Parameters
        ----------
        saved : tuple of Tensor
            What ``save`` returned for these points.
        rows : Tensor, shape (..., R, S)
        """
        by_state, inner = self.pull_rows(saved, rows)
        return by_state, inner @ self.w_ih

    def moved(self, target: torch.dtype | torch.device) -> list[Tensor | None]:
        """Return the weights elsewhere, as the constructor takes them."""
        blocks = (self.w_ih, self.w_hh, self.b_ih, self.b_hh, self.w_hr)
        return [None if block is None else block.to(target) for block in blocks]

    def to(self, target: torch.dtype | torch.device) -> WeightCell:
        """Return the cell on another device or in another dtype.

        Parameters
        ----------
        target : torch.dtype or torch.device
        """
        w_ih, w_hh, b_ih, b_hh, w_hr = self.moved(target)
        more = () if w_hr is None else (w_hr,)
        return type(self)(w_ih, w_hh, b_ih, b_hh, *more, label=self.label)  # type: ignore[arg-type]


def _check_one_kind(label: str, blocks: list[Tensor]) -> None:
    kinds = {(block.dtype, block.device) for block in blocks}
    if len(kinds) > 1:
        came = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise ShapeError(f"all weights of a {label} must have one dtype and device, got {came}")


def _inverse(places: tuple[int | None, ...]) -> list[int]:
    """Return the row of each block, in the order of blocks."""
    found = {place: row for row, place in enumerate(places) if place is not None}
    return [found[place] for place in sorted(found)]


def _coefficient(part: Change, number: int, zeros: Tensor) -> Tensor:
    if number not in part.by:
        return zeros
    value = part.by[number]
    return value.expand_as(zeros) if isinstance(value, Tensor) else zeros + (1.0 if value is None else value)


def _places(order: list[int], wanted: list[int]) -> slice | list[int]:
    """Return where leaves stand, as a slice where they stand together."""
    places = [order.index(n) for n in wanted]
    together = places == list(range(len(places)))
    return slice(len(places)) if together else places


__all__ = ["Equations", "Operator", "WeightCell"]
