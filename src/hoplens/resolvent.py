"""The resolvent: all hops of a network summed into one input-output map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hoplens.errors import ParameterError, UnstableError, check_count, check_number
from hoplens.hops import hop_maps
from hoplens.pathways import Pathways, replace_blocks

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# The eigenvalue solver fails to converge where products of entries underflow. An entry this far below the
# largest one changes the matrix by far less than rounding does, so that nothing is lost without it.
NEGLIGIBLE = 1e-60


@dataclass(frozen=True, eq=False)
class Resolvent:
    """The input-output block of a resolvent, with its numerical quality.

    Attributes
    ----------
    value : Tensor, shape (..., O, I)
        ``sum_k damping**k H_k`` of the (normalised) network.
    spectral_radius : Tensor, shape (...,)
        Largest eigenvalue modulus of the given ``w_rec``, before normalisation.
    residual : Tensor, shape (...,)
        Relative residual of the linear solve, ``|(I - aW)X - W_in| / |W_in|`` (Frobenius); 0 where the sum
        is finite and nothing was solved.
    damping : float
        The damping given.
    horizon : int or None
        Time steps covered, or None for all hops.
    normalised : bool
        Whether every block was divided by the spectral radius.
    input_names, output_names : tuple of str
        Names of the inputs and outputs.
    """

    value: Tensor
    spectral_radius: Tensor
    residual: Tensor
    damping: float
    horizon: int | None
    normalised: bool
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row per (network, output, input) with the weight."""
        import pandas as pd

        batch = self.value.shape[:-2]
        names = ["network"] if len(batch) == 1 else [f"axis{j}" for j in range(len(batch))]
        levels = [*(range(n) for n in batch), self.output_names, self.input_names]
        index = pd.MultiIndex.from_product(levels, names=[*names, "output", "input"])
        values = self.value.detach().to("cpu", torch.float64).numpy().reshape(-1)
        return pd.DataFrame({"weight": values}, index=index).reset_index()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the map as an output-by-input matrix; see `hoplens.plots.plot_map`.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        """
        from hoplens.plots import plot_map

        return plot_map(self.value, self.input_names, self.output_names, ax=ax)


def spectral_radius(net: Pathways) -> Tensor:
    """Return the largest eigenvalue modulus of the graph, shape (...,), which is that of ``w_rec``.

    Computed in float64 from all eigenvalues; returned in the dtype of the weights. A defective matrix
    (a pure delay line) has eigenvalues that no algorithm finds more exactly than ``eps**(1/H)``.

    Parameters
    ----------
    net : Pathways
        Any leading axes; a sparse w_rec is made dense for it.

    Raises
    ------
    NonFiniteError
        If a weight is NaN or infinite.
    UnstableError
        If the eigenvalue solver finds no solution.
    """
    net.check_finite()
    w_rec = (net.w_rec.to_dense() if net.is_sparse else net.w_rec).double()
    largest = w_rec.detach().abs().amax(dim=(-2, -1), keepdim=True)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    relative = w_rec / scale
    relative = torch.where(relative.abs() < NEGLIGIBLE, torch.zeros_like(relative), relative)
    try:
        eigenvalues: Tensor = torch.linalg.eigvals(relative)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise UnstableError(
            f"the eigenvalues of w_rec could not be found ({error}); "
            "rescale its rows and columns to similar sizes"
        ) from None
    return (eigenvalues.abs().amax(dim=-1) * scale[..., 0, 0]).to(net.w_in.dtype)


def resolvent(
    net: Pathways, *, damping: float = 0.8, horizon: int | None = None, normalise: bool = True
) -> Resolvent:
    """Sum all hops from input to output with geometric damping.

    ``R_io = sum_k (damping W*)^k`` restricted to (output, input), with ``W* = W / rho`` where
    ``normalise`` is true (all three blocks are divided by the spectral radius rho), else ``W* = W``. The
    sum runs over k = 2 .. horizon + 1, or over all k >= 2, where it equals
    ``a^2 W_out (I - a W_rec)^-1 W_in`` with a = damping / rho (or damping): a linear solve, no inverse.

    Parameters
    ----------
    net : Pathways
        Any leading axes.
    damping : float, default 0.8
        Factor on every hop, the first and the last too; above 0, and below 1 where normalised.
    horizon : int, optional
        Number of time steps; None sums all hops.
    normalise : bool, default True
        Divide the graph by its spectral radius first.

    Returns
    -------
    Resolvent

    Raises
    ------
    UnstableError
        If all hops are summed and damping times spectral radius is 1 or more, or if normalisation is
        asked of a network whose spectral radius is 0.

    Notes
    -----
    Source: arXiv:2605.03598, the resolvent of the normalised adjacency matrix and its truncation. Up to
    the identity term it is networkx's and Katz's centrality kernel.
    """
    factor = check_number("damping", damping, above=0.0, **({"below": 1.0} if normalise else {}))
    length = None if horizon is None else check_count("horizon", horizon)
    radius = spectral_radius(net)
    scale = normalising_scale(radius) if normalise else torch.ones_like(radius)
    if length is None:
        check_converges(factor, radius / scale)
        value, residual = solve_resolvent(net, factor / scale)
    else:
        scaled = scale_blocks(net, 1.0 / scale)
        value = hop_maps(scaled, length).damped(factor).sum(dim=-3)
        residual = torch.zeros_like(radius)
    return Resolvent(value, radius, residual, factor, length, normalise, net.input_names, net.output_names)


def normalising_scale(radius: Tensor) -> Tensor:
    """Return the spectral radius, or raise where it is zero and W* does not exist."""
    if bool((radius <= 0).any()):
        raise UnstableError(
            "normalise=True divides by the spectral radius, which is 0 here (no recurrent cycle); "
            "pass normalise=False"
        )
    return radius


def check_converges(damping: float, radius: Tensor) -> None:
    """Raise unless damping times the largest spectral radius is below 1."""
    if not radius.numel():  # an ensemble of no network
        return
    largest = float(radius.detach().max())
    if damping * largest >= 1.0:
        raise UnstableError(
            f"the full resolvent needs damping * spectral radius < 1, got {damping:g} * {largest:.6g} = "
            f"{damping * largest:.6g}; use a damping below {1.0 / largest:.6g}, normalise=True, or a finite "
            "horizon"
        )


def scale_blocks(net: Pathways, factor: Tensor) -> Pathways:
    """Multiply every block by a factor a network, shape (...,)."""
    by = factor[..., None, None]
    skip = None if net.w_skip is None else net.w_skip * by
    w_rec = net.w_rec * float(factor) if net.is_sparse else net.w_rec * by
    return replace_blocks(net, net.w_in * by, w_rec, net.w_out * by, skip)


def solve_resolvent(net: Pathways, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``sum_k damping^k H_k`` over all k, (..., O, I), and the solve's relative residual, (...,).

    ``damping`` has shape (...,): one a network.
    """
    if net.is_sparse:
        raise ParameterError("the full resolvent of a sparse w_rec is not supported; pass a finite horizon")
    given = net.w_in.dtype
    working = torch.promote_types(given, torch.float32)  # no solver takes half precision
    if working != given:
        value, residual = solve_resolvent(net.to(working), damping.to(working))
        return value.to(given), residual.to(given)
    by = damping[..., None, None]
    system = torch.eye(net.n_hidden, dtype=given, device=net.w_in.device) - by * net.w_rec
    solution = torch.linalg.solve(system, net.w_in)
    with torch.no_grad():
        missing = torch.linalg.matrix_norm(system @ solution - net.w_in)
        size = torch.linalg.matrix_norm(net.w_in)
        residual = missing / torch.where(size > 0, size, torch.ones_like(size))
    value = by**2 * (net.w_out @ solution)
    if net.w_skip is not None:
        value = value + by * net.w_skip
    return value, residual
