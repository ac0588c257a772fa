"""Fixed points of the non-linear network under a constant input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hoplens.display import Shown
from hoplens.errors import ShapeError, UnsupportedModelError, check_count, check_number
from hoplens.graph.pathways import Pathways
from hoplens.models.readers.models import to_stack
from hoplens.models.stack import Stack
from hoplens.seeds import generator

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class FixedPoints(Shown):
    """States that a step leaves where they are.

    Attributes
    ----------
    states : Tensor of float64, shape (P, S)
        The distinct fixed points, states of all layers side by side; best first.
    residual : Tensor, shape (P,)
        ``|F(h) - h|``, the quality of each.
    spectral_radius : Tensor, shape (P,)
        Of the step's Jacobian at each point; below 1 the point attracts.
    eigenvalues : Tensor of complex128, shape (P, S)
    starts : Tensor of int64, shape (P,)
        How many starting states led to each.
    failed : int
        Starting states that led to no fixed point within the tolerance.
    """

    states: Tensor
    residual: Tensor
    spectral_radius: Tensor
    eigenvalues: Tensor
    starts: Tensor
    failed: int

    @property
    def stable(self) -> Tensor:
        """Whether each point attracts, bool, shape (P,)."""
        return self.spectral_radius < 1

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row a fixed point: residual, spectral radius, stable, starts."""
        import pandas as pd

        return pd.DataFrame(
            {
                "residual": self.residual.numpy(),
                "spectral_radius": self.spectral_radius.numpy(),
                "stable": self.stable.numpy(),
                "starts": self.starts.numpy(),
            }
        )


def fixed_points(
    model: Any,
    *,
    inputs: Any = None,
    starts: Any = None,
    n: int = 32,
    seed: int = 0,
    tolerance: float = 1e-9,
    dt: Any = None,
    tau: Any = None,
) -> FixedPoints:
    """Find fixed points ``F(h, x) = h`` from many starts, by Powell's hybrid method of SciPy.

    Parameters
    ----------
    model : module, cell or Stack
        What `read` takes, one direction only.
    inputs : Tensor, shape (I,), optional
        The constant input x; zero by default.
    starts : Tensor, shape (n, S), optional
        Starting states, layers side by side (an LSTM's as [h, c]); for example states that the network
        visits. Default: normal numbers of standard deviation 1.
    n, seed : int
        Number and seed of the default starts.
    tolerance : float, default 1e-9
        Largest residual accepted, and 1000 times this the distance below which two points are one.
    dt, tau : float or array, optional
        As in `read`.

    Returns
    -------
    FixedPoints
        Computed in float64. Not finding a point is no proof that there is none.
    """
    from scipy.optimize import root

    stack = to_stack(model, dt=dt, tau=tau)
    if isinstance(stack, Pathways) or stack.bidirectional:
        raise UnsupportedModelError(
            "fixed points need a network with a step of its own, running forward only"
        )
    stack = stack.to(torch.float64)
    sizes = [cell.n_state for cell in stack.cells]
    x = torch.zeros(stack.n_inputs) if inputs is None else torch.as_tensor(inputs)
    if x.shape != (stack.n_inputs,):
        raise ShapeError(
            f"inputs must have shape ({stack.n_inputs},), one constant input, got {tuple(x.shape)}"
        )
    x = x.detach().cpu().double()
    limit = check_number("tolerance", tolerance, above=0.0)
    begin = _starts(starts, sum(sizes), n, seed)
    found: list[Tensor] = []
    failed = 0
    with torch.no_grad():
        system = _System(stack.to(torch.device("cpu")), x, sizes)
        for start in begin:
            solution = root(
                system.gap, start.numpy(), jac=system.slope, method="hybr", options={"xtol": 1e-13}
            )
            state = torch.from_numpy(np.array(solution.x))
            if float(np.linalg.norm(system.gap(solution.x))) <= limit:
                found.append(state)
            else:
                failed += 1
        return _gather(system, found, failed, 1000 * limit)


@dataclass(frozen=True, eq=False)
class _System:
    stack: Stack
    x: Tensor
    sizes: list[int]

    def gap(self, flat: np.ndarray) -> np.ndarray:
        state = torch.from_numpy(np.array(flat))
        new, _ = self.stack.advance(list(state.split(self.sizes)), self.x)
        moved: np.ndarray = (torch.cat(new) - state).numpy()
        return moved

    def slope(self, flat: np.ndarray) -> np.ndarray:
        jacobian: np.ndarray = (self.jacobian(torch.from_numpy(np.array(flat)))).numpy()
        return jacobian - np.eye(len(jacobian))

    def jacobian(self, state: Tensor) -> Tensor:
        """Return d F / d h of all layers, (S, S): what each layer passes on reaches the next in the step."""
        _, point = self.stack.advance(list(state.split(self.sizes)), self.x)
        rows: list[Tensor] = []
        shown: Tensor | None = None  # d (what the level below passes on) / d h, (n, S)
        start = 0
        for cell, (before, x) in zip(self.stack.cells, point, strict=True):
            eye = torch.eye(cell.n_state, dtype=state.dtype)
            own, entering = cell.pull(cell.save(before, x), eye)
            block = state.new_zeros(cell.n_state, len(state))
            block[:, start : start + cell.n_state] = own
            block = block if shown is None else block + entering @ shown
            emission = cell.emission()
            shown = block if emission is None else emission.to(block) @ block
            rows.append(block)
            start += cell.n_state
        return torch.cat(rows)


def _starts(starts: Any, size: int, n: int, seed: int) -> Tensor:
    if starts is None:
        source = generator("starts of the search", seed)
        return torch.randn(check_count("n", n), size, generator=source, dtype=torch.float64)
    given = torch.as_tensor(starts).detach().cpu().double()
    if given.dim() != 2 or given.shape[1] != size:
        raise ShapeError(f"starts must have shape (n, {size}), got {tuple(given.shape)}")
    return given


def _gather(system: _System, found: list[Tensor], failed: int, distance: float) -> FixedPoints:
    distinct: list[Tensor] = []
    counts: list[int] = []
    quality = [float(np.linalg.norm(system.gap(state.numpy()))) for state in found]
    for place in sorted(range(len(found)), key=lambda j: quality[j]):
        near = [k for k, other in enumerate(distinct) if float((other - found[place]).norm()) <= distance]
        if near:
            counts[near[0]] += 1
        else:
            distinct.append(found[place])
            counts.append(1)
    size = sum(system.sizes)
    states = torch.stack(distinct) if distinct else torch.zeros(0, size, dtype=torch.float64)
    values = [torch.linalg.eigvals(system.jacobian(state)) for state in distinct]
    eigenvalues = torch.stack(values) if values else torch.zeros(0, size, dtype=torch.complex128)
    residual = [float(np.linalg.norm(system.gap(state.numpy()))) for state in distinct]
    return FixedPoints(
        states,
        torch.tensor(residual, dtype=torch.float64),
        eigenvalues.abs().amax(-1) if values else torch.zeros(0, dtype=torch.float64),
        eigenvalues,
        torch.tensor(counts, dtype=torch.int64),
        failed,
    )


__all__ = ["FixedPoints", "fixed_points"]
