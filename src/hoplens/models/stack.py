"""A recurrent network as levels of cells: run it, and linearise it at a point."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hoplens.display import Shown
from hoplens.errors import ShapeError, UnsupportedModelError
from hoplens.graph.parts import Layer, Leak, numbered
from hoplens.graph.pathways import Pathways
from hoplens.models.cells import Cell, computes_in

Point = list[tuple[Tensor, Tensor]]  # (state, input) of every cell, in the order of Stack.cells


@dataclass(frozen=True, eq=False, repr=False)
class Stack(Shown):
    """Levels of cells, each one direction or (forward, backward), and the read-out on top.

    Attributes
    ----------
    levels : tuple of tuple of Cell
        Level 0 sees the inputs, each further level all that the level below passes on.
    w_out : Tensor or None, shape (O, n)
        Read-out of the n values that the last level passes on; None: these are the outputs.
    label : str
        What was read, e.g. ``nn.LSTM``.
    batch_first : bool, default True
        Layout of the inputs that the module itself takes.
    """

    levels: tuple[tuple[Cell, ...], ...]
    w_out: Tensor | None
    label: str
    batch_first: bool = True

    def __post_init__(self) -> None:
        if not self.levels or any(len(level) not in (1, 2) for level in self.levels):
            raise UnsupportedModelError(
                "a stack needs levels of one cell, or of a forward and a backward one"
            )
        for below, level in zip(self.levels, self.levels[1:], strict=False):
            given = sum(cell.n_outputs for cell in below)
            for cell in level:
                if cell.n_inputs != given:
                    raise ShapeError(
                        f"a level that passes on {given} values must be followed by cells that take "
                        f"{given} inputs, got {cell.n_inputs}"
                    )
        shown = sum(cell.n_outputs for cell in self.levels[-1])
        if self.w_out is not None and self.w_out.shape[-1] != shown:
            raise ShapeError(
                f"readout must take the {shown} hidden units of the network, but it takes "
                f"{self.w_out.shape[-1]} features; pass the nn.Linear({shown}, O) that follows this "
                f"{self.label}"
            )

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, level by level, forward before backward."""
        return tuple(cell for level in self.levels for cell in level)

    @property
    def n_inputs(self) -> int:
        """Number of inputs, I."""
        return self.levels[0][0].n_inputs

    @property
    def bidirectional(self) -> bool:
        """Whether some level runs both ways."""
        return any(len(level) == 2 for level in self.levels)

    def like(self, given: Tensor) -> Tensor:
        """Return an empty tensor of the dtype and device that the network computes in.

        Parameters
        ----------
        given : Tensor
            Whose dtype and device are taken where the cells compute in any.
        """
        for cell in self.cells:
            weight = getattr(cell, "w_ih", None)
            if isinstance(weight, Tensor):
                return weight.detach().new_empty(0)
        return computes_in(self.cells[0], given)

    def readout(self, like: Tensor) -> Tensor:
        """Return the read-out matrix, shape (O, n).

        Parameters
        ----------
        like : Tensor
            Of the dtype and device wanted.
        """
        if self.w_out is not None:
            return self.w_out.to(like)
        shown = sum(cell.n_outputs for cell in self.levels[-1])
        return torch.eye(shown, dtype=like.dtype, device=like.device)

    def to(self, target: torch.dtype | torch.device) -> Stack:
        """Return the network on another device or in another dtype; the model it was read from stays.

        Parameters
        ----------
        target : torch.dtype or torch.device
        """
        levels = tuple(tuple(cell.to(target) for cell in level) for level in self.levels)
        w_out = None if self.w_out is None else self.w_out.to(target)
        return Stack(levels, w_out, self.label, self.batch_first)

    def raw(self) -> Pathways | None:
        """Return the graph of the bare weights; None where some cell (a gated one) has no single matrix."""
        blocks = [cell.raw() for cell in self.cells]
        found = [block for block in blocks if block is not None]
        if len(found) < len(blocks):
            return None
        return assemble(self, found, f"raw weights of {self.label}")

    def advance(self, states: Sequence[Tensor], x: Tensor) -> tuple[list[Tensor], Point]:
        """Take one step of a network that runs forward only; return the new states and the points.

        Parameters
        ----------
        states : sequence of Tensor, shape (..., S)
            One a cell.
        x : Tensor, shape (..., I)
        """
        if self.bidirectional:
            raise UnsupportedModelError(
                "a bidirectional network has no single step; linearise it at the origin or along a trajectory"
            )
        new, point = [], []
        for (cell,), state in zip(self.levels, states, strict=True):
            point.append((state, x))
            new.append(cell.step(state, x))
            x = cell.emit(new[-1])
        return new, point

    def pull_back(self, pull: Callable[[int, slice, Tensor | None], Tensor]) -> Tensor:
        """Return what reaches the inputs when adjoint rows go from the read-out down through the levels.

        Parameters
        ----------
        pull : callable
            Takes the place of a cell in ``cells``, the part of its level's outputs that is the cell's, and
            the rows from the level above that enter there, shape (..., n) (None at the top); returns the
            rows (..., cell.n_inputs) that leave the cell, which are added up over directions.
        """
        rows: Tensor | None = None
        done = len(self.cells)
        for level in reversed(self.levels):
            done -= len(level)
            reached: Tensor | None = None
            column = 0
            for direction, cell in enumerate(level):
                part = slice(column, column + cell.n_outputs)
                column = part.stop
                own = pull(done + direction, part, None if rows is None else rows[..., part])
                reached = own if reached is None else reached.add_(own)
            rows = reached
        assert rows is not None
        return rows

    @property
    def backward_cells(self) -> frozenset[int]:
        """Places in ``cells`` of those that run from the last step to the first."""
        places = itertools.accumulate(len(level) for level in self.levels)
        return frozenset(stop - 1 for stop, level in zip(places, self.levels, strict=True) if len(level) == 2)

    def linearise(self, point: Point, provenance: str) -> Pathways:
        """Return the graph of the exact step Jacobians at a point of every cell; leading axes are kept.

        Parameters
        ----------
        point : list of (Tensor, Tensor)
            State and input of every cell.
        provenance : str
        """
        blocks = []
        for cell, (state, x) in zip(self.cells, point, strict=True):
            rows = torch.eye(cell.n_state, dtype=state.dtype, device=state.device)
            blocks.append(cell.pull(cell.save(state, x), rows.expand(*state.shape[:-1], *rows.shape)))
        return assemble(self, blocks, provenance)

    def origin(self, like: Tensor) -> Point:
        """Return the point where every state and input of the network is zero.

        A level above the first sees what the level below passes on after one step from zero; in a
        bidirectional network both directions do.

        Parameters
        ----------
        like : Tensor
            Of the dtype and device wanted.
        """
        point: Point = []
        x = like.new_zeros(self.n_inputs)
        for level in self.levels:
            here = [(x.new_zeros(cell.n_state), x) for cell in level]
            point += here
            x = torch.cat([c.emit(c.step(*at)) for c, at in zip(level, here, strict=True)], dim=-1)
        return point


def assemble(stack: Stack, blocks: Sequence[tuple[Tensor, Tensor]], provenance: str) -> Pathways:
    """Put the blocks (S, S) and (S, I) of every cell into one graph.

    Within a level, states feed states one time step later; between levels, what a level passes on feeds
    the next one in the same step. So with E_l the emission of level l and B_l its input block, the edges
    from level l - 1 to level l are ``B_l E_(l-1)``, the read-out is ``W_out E_D``.
    """
    cells = stack.cells
    first = blocks[0][0]
    if len(cells) == 1:
        emission = cells[0].emission()
        w_out = stack.readout(first)
        w_out = w_out if emission is None else w_out @ emission.to(first)
        leading = first.shape[:-2]
        names = cells[0].unit_names
        plain = tuple(names) == numbered("h", len(names))
        return Pathways(
            blocks[0][1],
            first,
            w_out.expand(*leading, *w_out.shape) if leading else w_out,
            hidden_names=names,
            hidden_modules=None if plain else [name.rstrip("0123456789") for name in names],
            leak=cells[0].leaking(),
            provenance=provenance,
        )
    return _assemble_levels(stack, blocks, provenance)


def _assemble_levels(stack: Stack, blocks: Sequence[tuple[Tensor, Tensor]], provenance: str) -> Pathways:
    first = blocks[0][0]
    leading = first.shape[:-2]
    layers = _layers(stack)
    hidden = layers[-1].stop
    w_rec = first.new_zeros(*leading, hidden, hidden)
    w_in = first.new_zeros(*leading, hidden, stack.n_inputs)
    below: list[tuple[Layer, Tensor]] = []  # layers of the level below, with their emissions
    current: list[tuple[Layer, Tensor]] = []
    for cell, layer, (own, entering) in zip(stack.cells, layers, blocks, strict=True):
        if current and layer.level != current[0][0].level:
            below, current = current, []
        rows = slice(layer.start, layer.stop)
        w_rec[..., rows, rows] = own
        if layer.level == 0:
            w_in[..., rows, :] = entering
        column = 0
        for source, emission in below:
            width = emission.shape[0]
            w_rec[..., rows, source.start : source.stop] = entering[..., column : column + width] @ emission
            column += width
        passed = cell.emission()
        eye = torch.eye(cell.n_state, dtype=first.dtype, device=first.device)
        current.append((layer, eye if passed is None else passed.to(first)))
    readout = stack.readout(first)
    w_out = first.new_zeros(*leading, readout.shape[0], hidden)
    column = 0
    for source, emission in current:
        width = emission.shape[0]
        w_out[..., source.start : source.stop] = readout[:, column : column + width] @ emission
        column += width
    names = [f"{a.name}.{n}" for a, cell in zip(layers, stack.cells, strict=True) for n in cell.unit_names]
    modules = [a.name for a in layers for _ in range(a.start, a.stop)]
    return Pathways(
        w_in,
        w_rec,
        w_out,
        hidden_names=names,
        hidden_modules=modules,
        layers=layers,
        leak=_leak(stack.cells, first),
        provenance=provenance,
    )


def _leak(cells: Sequence[Cell], like: Tensor) -> Leak | None:
    """Return the leak of all cells side by side, or None where none leaks."""
    each = [cell.leaking() for cell in cells]
    if all(one is None for one in each):
        return None
    kept, gain = [], []
    for cell, one in zip(cells, each, strict=True):
        kept.append(like.new_zeros(cell.n_state) if one is None else one.kept.to(like))
        gain.append(like.new_ones(cell.n_state) if one is None else one.gain.to(like))
    return Leak(torch.cat(kept), torch.cat(gain))


def _layers(stack: Stack) -> list[Layer]:
    layers: list[Layer] = []
    start = 0
    for level, cells in enumerate(stack.levels):
        for direction, cell in enumerate(cells):
            name = f"l{level}" + ("r" if direction else "")
            layers.append(Layer(name, start, start + cell.n_state, level, bool(direction)))
            start += cell.n_state
    return layers


def one_direction(stack: Stack, direction: str) -> Stack:
    """Return the forward or the backward half of a bidirectional network of one level.

    The backward half reads the sequence in reversed time: its lag n is the input n steps AFTER the
    position that is read out.
    """
    if len(stack.levels) != 1 or len(stack.levels[0]) != 2:
        raise UnsupportedModelError(
            f'direction="{direction}" needs a bidirectional network of one layer (in a deeper one each layer '
            'hears both directions of the layer below); use direction="both"'
        )
    forward, backward = stack.levels[0]
    cell = forward if direction == "forward" else backward
    note = "" if direction == "forward" else " in reversed time"
    split, part = forward.n_outputs, stack.w_out  # None: the units of this direction are the outputs
    if part is not None:
        part = part[:, :split] if direction == "forward" else part[:, split:]
    return Stack(((cell,),), part, f"{stack.label}, {direction} direction{note}", stack.batch_first)


__all__ = ["Point", "Stack", "assemble", "one_direction"]
