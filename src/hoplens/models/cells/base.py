"""Recurrent cells: one step forward, and exact rows of its Jacobian.

The protocol that readers speak. A cell that only defines `Cell.step` gets its Jacobian products from
torch.func; the cells of PyTorch have theirs written out, which is faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hoplens.errors import ShapeError, UnsupportedModelError, check_count
from hoplens.graph.parts import Leak, numbered

Saved = tuple[Tensor, ...]


class Cell:
    """One recurrent layer: ``state_t = step(state_(t-1), x_t)`` with a flat state of S numbers.

    To teach hoplens a layer of your own, subclass and define ``step`` (plain tensor operations, any
    leading axes); the rest is derived by torch.func. Where the next layer or the read-out sees only part
    of the state, or a projection of it, override ``emission``.

    Parameters
    ----------
    n_inputs, n_state : int
        Sizes I and S.
    label : str
        What messages and provenance call it.
    """

    n_inputs: int
    n_state: int
    label: str

    def __init__(self, n_inputs: int, n_state: int, *, label: str = "user cell") -> None:
        self.n_inputs = check_count("n_inputs", n_inputs)
        self.n_state = check_count("n_state", n_state)
        self.label = label

    @property
    def n_outputs(self) -> int:
        """Number of values that the next layer or the read-out sees."""
        emission = self.emission()
        return self.n_state if emission is None else emission.shape[0]

    @property
    def unit_names(self) -> tuple[str, ...]:
        """Names of the S numbers of the state."""
        return numbered("h", self.n_state)

    def step(self, state: Tensor, x: Tensor) -> Tensor:
        """Return the next state, shape (..., S), from the state (..., S) and the input (..., I).

        Parameters
        ----------
        state : Tensor, shape (..., S)
        x : Tensor, shape (..., I)
        """
        raise NotImplementedError(f"{type(self).__name__} must define step(state, x)")

    def emission(self) -> Tensor | None:
        """Return the matrix from state to what is passed on, shape (n_outputs, S); None: all of it."""
        return None

    def emit(self, state: Tensor) -> Tensor:
        """Return what is passed on, shape (..., n_outputs).

        Parameters
        ----------
        state : Tensor, shape (..., S)
        """
        emission = self.emission()
        return state if emission is None else state @ emission.mT

    def raw(self) -> tuple[Tensor, Tensor] | None:
        """Return the blocks (S, S) and (S, I) read off the bare weights; None where there are none."""
        return None

    def leaking(self) -> Leak | None:
        """Return what of every step's Jacobian is the leak of the units; None where nothing is."""
        return None

    def save(self, state: Tensor, x: Tensor) -> Saved:
        """Return all that ``pull`` needs of the points (..., S) and (..., I), leading axes kept.

        Parameters
        ----------
        state : Tensor, shape (..., S)
        x : Tensor, shape (..., I)
        """
        return (state, x)

    def pull(self, saved: Saved, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply rows (..., R, S) from the right by the step's two Jacobians.

        Parameters
        ----------
        saved : tuple of Tensor
            What ``save`` returned for these points.
        rows : Tensor, shape (..., R, S)

        Returns
        -------
        tuple of Tensor
            ``rows d state' / d state`` of shape (..., R, S), and ``rows d state' / d x`` of shape
            (..., R, I).
        """
        state, x = saved
        leading = torch.broadcast_shapes(state.shape[:-1], rows.shape[:-2])
        flat_state = state.expand(*leading, self.n_state).reshape(-1, self.n_state)
        flat_x = x.expand(*leading, self.n_inputs).reshape(-1, self.n_inputs)
        flat_rows = rows.expand(*leading, *rows.shape[-2:]).reshape(-1, *rows.shape[-2:])
        # One sample's step depends on no other sample, so a product for all samples at once is exact.
        product = torch.func.vjp(self.step, flat_state, flat_x)[1]
        by_state, by_x = torch.func.vmap(product, in_dims=1, out_dims=1)(flat_rows)
        return by_state.reshape(*leading, -1, self.n_state), by_x.reshape(*leading, -1, self.n_inputs)

    def to(self, target: torch.dtype | torch.device) -> Cell:
        """Return the cell on another device or in another dtype.

        A cell that computes in any dtype is itself; of one whose weights have another dtype every operation
        is given these weights in the dtype asked for.

        Parameters
        ----------
        target : torch.dtype or torch.device
        """
        if isinstance(target, torch.dtype) and not _runs_in(self, torch.empty(0, dtype=target)):
            return _Promoted(self, target)
        return self


class _Promoted(Cell):
    """A cell whose step computes in a dtype that its own weights do not have."""

    def __init__(self, cell: Cell, dtype: torch.dtype) -> None:
        super().__init__(cell.n_inputs, cell.n_state, label=cell.label)
        self.cell, self.dtype = cell, dtype

    @property
    def unit_names(self) -> tuple[str, ...]:
        return self.cell.unit_names

    def step(self, state: Tensor, x: Tensor) -> Tensor:
        with _Promotion(self.dtype):
            return self.cell.step(state, x)

    def emission(self) -> Tensor | None:
        emission = self.cell.emission()
        return None if emission is None else emission.to(self.dtype)

    def to(self, target: torch.dtype | torch.device) -> Cell:
        return self.cell.to(target) if isinstance(target, torch.dtype) else self


class _Promotion(TorchFunctionMode):
    """Gives every operation its floating-point tensors in one dtype; what is changed in place stays."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name.endswith("_") or "out" in (kwargs or {}):  # in place, or an attribute
            return func(*args, **(kwargs or {}))

        def wide(value: Any) -> Any:
            if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != self.dtype:
                return value.to(self.dtype)
            return type(value)(map(wide, value)) if type(value) in (list, tuple) else value

        return func(*map(wide, args), **{key: wide(value) for key, value in (kwargs or {}).items()})


def _runs_in(cell: Cell, like: Tensor) -> bool:
    try:
        with torch.no_grad():
            new = cell.step(like.new_zeros(1, cell.n_state), like.new_zeros(1, cell.n_inputs))
    except RuntimeError:  # torch refuses to mix dtypes or devices
        return False
    return new.dtype == like.dtype


def computes_in(cell: Cell, given: Tensor) -> Tensor:
    """Return an empty tensor of the dtype and device that a cell computes in; those of ``given`` if it can.

    Raises
    ------
    UnsupportedModelError
        If the cell's step takes no floating-point state at all.
    """
    wanted = given.dtype if given.is_floating_point() else torch.get_default_dtype()
    devices = [given.device, torch.device("cpu")]
    if torch.cuda.is_available():
        devices.append(torch.device("cuda"))
    for device in dict.fromkeys(devices):
        for dtype in dict.fromkeys((wanted, torch.float32, torch.float64, torch.bfloat16, torch.float16)):
            like = torch.empty(0, dtype=dtype, device=device)
            if _runs_in(cell, like):
                return like
    try:
        cell.step(torch.zeros(1, cell.n_state), torch.zeros(1, cell.n_inputs))
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
    else:
        said = "it returns another dtype than that of the state"
    raise UnsupportedModelError(
        f"the step of {cell.label} cannot be run on a state (1, {cell.n_state}) and an input "
        f"(1, {cell.n_inputs}) of zeros: {said}"
    )


class FunctionCell(Cell):
    """A cell given as a function ``(state, input) -> state``.

    Parameters
    ----------
    function : callable
        Takes a state (..., S) and an input (..., I), returns the next state (..., S); plain tensor
        operations that torch.func can differentiate.
    n_inputs, n_state : int
        Sizes I and S.
    label : str, default "user cell"
    """

    def __init__(
        self, function: Callable[[Tensor, Tensor], Tensor], *, n_inputs: int, n_state: int, label: str = ""
    ) -> None:
        super().__init__(n_inputs, n_state, label=label or getattr(function, "__name__", "user cell"))
        self.function = function

    def step(self, state: Tensor, x: Tensor) -> Tensor:
        """Apply the function.

        Parameters
        ----------
        state : Tensor, shape (..., S)
        x : Tensor, shape (..., I)
        """
        new = self.function(state, x)
        if not isinstance(new, Tensor) or new.shape != state.shape:
            came = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise ShapeError(
                f"a cell must return the next state in the shape of the state, {tuple(state.shape)}, got "
                f"{came}; concatenate several states into one"
            )
        return new


__all__ = ["Cell", "FunctionCell", "Saved", "computes_in"]
