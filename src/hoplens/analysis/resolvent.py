"""The resolvent: all hops of a network summed into one input-output map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hoplens.analysis.hops import hop_maps
from hoplens.display import Shown
from hoplens.errors import RangeError, UnstableError, check_count, check_number
from hoplens.graph.chain import widen
from hoplens.graph.implicit import takes_models
from hoplens.graph.parts import Leak, LowRank
from hoplens.graph.pathways import Pathways, replace_blocks
from hoplens.graph.radius import exact_radius
from hoplens.graph.solves import Solved, merge, narrow, solve_certified, sum_walks
from hoplens.lookup import look_up

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class Resolvent(Shown):
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
        Whether every block was divided by the spectral radius (by 1 where that is 0).
    input_names, output_names : tuple of str
        Names of the inputs and outputs.
    error_bound : Tensor, shape (..., O, I), or None
        No entry of ``value`` is further from the truth (at the damping and spectral radius used) than this,
        rounding to the dtype of ``value`` included; None where a horizon was given and nothing was solved.
        With A = I - aW, X and Y the solutions from the input and the output side and R and S their
        residuals, ``a^2 (W_out X + Y^T R)`` is off by at most ``a^2 |S[:, o]| |A^-1| |R[:, i]|``, and that
        plus rounding is the bound. Infinite where no bound on ``|A^-1|`` was found.
    bound_kind : str
        What the bound rests on.
    method : str
        How the value was computed.
    """

    value: Tensor
    spectral_radius: Tensor
    residual: Tensor
    damping: float
    horizon: int | None
    normalised: bool
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    error_bound: Tensor | None = None
    bound_kind: str = ""
    method: str = ""

    @property
    def resolved(self) -> Tensor:
        """Which pathways are certainly not zero, ``|value| > error_bound``; bool, shape (..., O, I)."""
        if self.error_bound is None:
            return self.value != 0
        return self.value.abs() > self.error_bound

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
        axes: Axes = look_up("hoplens.plots:plot_map")(self.value, self.input_names, self.output_names, ax=ax)
        return axes


@takes_models
def resolvent(
    net: Pathways,
    *,
    damping: float = 0.8,
    horizon: int | None = None,
    normalise: bool = True,
    radius: float | None = None,
    dtype: torch.dtype | None = None,
) -> Resolvent:
    """Sum all hops from input to output with geometric damping.

    ``R_io = sum_k (damping W*)^k`` restricted to (output, input), with ``W* = W / rho`` where
    ``normalise`` is true (all three blocks are divided by the spectral radius rho), else ``W* = W``. The
    sum runs over k = 2 .. horizon + 1, or over all k >= 2, where it equals
    ``a^2 W_out (I - a W_rec)^-1 W_in`` with a = damping / rho (or damping): a linear solve, no inverse.
    Dense matrices are solved by LU or by Krylov iterations, the cheaper by a cost model; sparse ones by
    preconditioned Krylov iterations; a diagonal plus low rank by Woodbury's identity. A network whose
    spectral radius is 0 (see `spectral_radius`) has no walk of more than H + 1 hops and no W*: its walks are
    added up as they are.

    Parameters
    ----------
    net : Pathways
        Any leading axes.
    damping : float, default 0.8
        Factor on every hop, the first and the last too; above 0, and below 1 where normalised.
    horizon : int, optional
        Number of time steps; None sums all hops.
    normalise : bool, default True
        Divide the graph by its spectral radius first, where that is above 0.
    radius : float, optional
        The spectral radius, where it is known; computed by default, which is the dear part for large
        networks without a leading eigenvalue that stands out (see `leading_eigenvalue`).
    dtype : torch.dtype, optional
        Of the value; default that of the weights. Half precision is computed in float32.

    Returns
    -------
    Resolvent
        With a certified ``error_bound`` where all hops are summed. Differentiable.

    Raises
    ------
    UnstableError
        If all hops are summed and damping times spectral radius is 1 or more.
    RangeError
        If a finite sum leaves the range of the numbers.
    ConvergenceError
        If a solver does not converge.

    Notes
    -----
    Source: arXiv:2605.03598, the resolvent of the normalised adjacency matrix and its truncation. Up to
    the identity term it is networkx's and Katz's centrality kernel.
    """
    factor = check_number("damping", damping, above=0.0, **({"below": 1.0} if normalise else {}))
    length = None if horizon is None else check_count("horizon", horizon)
    asked = dtype or net.w_in.dtype
    size = given_radius(net, radius)  # float64: the certificate leaves errors of the scale out
    scale = normalising_scale(size) if normalise else torch.ones_like(size)
    if length is not None:
        value = _finite_sum(net, factor / scale, length)
        residual = torch.zeros_like(size, dtype=net.w_in.dtype)
        names = (net.input_names, net.output_names)
        own = size.to(net.w_in.dtype)
        return Resolvent(
            narrow(value, asked), own, residual, factor, length, normalise, *names, method="hop maps"
        )
    check_converges(factor, size / scale)
    found = _all_hops(net, factor / scale, factor * size / scale)
    return Resolvent(
        narrow(found.value, asked),
        size.to(net.w_in.dtype),
        found.residual,
        factor,
        length,
        normalise,
        net.input_names,
        net.output_names,
        error_bound=round_bound(found.bound, found.value, asked),
        bound_kind=found.kind,
        method=found.method,
    )


def _all_hops(net: Pathways, damping: Tensor, contraction: Tensor) -> Solved:
    """Solve for the networks with cycles, add up the walks of those without; arguments (...,)."""
    ends = contraction.detach() == 0
    if not bool(ends.any()):
        return solve_certified(net, damping, contraction)
    if bool(ends.all()):
        return sum_walks(net, damping)
    solved = solve_certified(net[~ends], damping[~ends], contraction[~ends])
    summed = sum_walks(net[ends], damping[ends])
    return Solved(
        merge(ends, summed.value, solved.value),
        merge(ends, summed.residual, solved.residual),
        merge(ends, summed.bound, solved.bound),
        f"{solved.kind}; {summed.kind}",
        f"{solved.method}; {summed.method}",
    )


def _finite_sum(net: Pathways, factor: Tensor, length: int) -> Tensor:
    """Return ``sum_k factor**k H_k`` over ``length`` time steps, (..., O, I); factor one a network."""
    scaled = scale_blocks(net, factor.to(net.w_in.dtype))  # first, so that only what is asked must fit
    maps = hop_maps(scaled, length, dtype=widen(net.w_in[..., :1, :1]).dtype)
    if maps.shift is not None:
        raise RangeError(
            f"the damped sum over {length} steps overflows; use a smaller damping, normalise=True or float64"
        )
    return maps.values.sum(dim=-3)


def given_radius(net: Pathways, radius: float | None) -> Tensor:
    """Return the spectral radius in float64, (...,): the one given, or computed."""
    if radius is None:
        return exact_radius(net)
    net.check_finite()
    known = check_number("radius", radius, least=0.0)
    return net.w_in.new_full(net.batch_shape, known, dtype=torch.float64)


def normalising_scale(radius: Tensor) -> Tensor:
    """Return what W* is divided by: the spectral radius, or 1 where that is 0 and all walks end."""
    return torch.where(radius > 0, radius, torch.ones_like(radius))


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


def round_bound(bound: Tensor, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an error bound in another dtype, widened by what rounding the value and the bound adds."""
    eps = torch.finfo(dtype).eps
    return ((bound.double() + eps * value.detach().double().abs()) * (1.0 + 2 * eps)).to(dtype)


def scale_blocks(net: Pathways, factor: Tensor) -> Pathways:
    """Multiply every block by a factor a network, shape (...,)."""
    by = factor[..., None, None]
    skip = None if net.w_skip is None else net.w_skip * by
    if net.factors is not None:
        u, v, own = net.factors
        w_rec: Tensor | LowRank = LowRank(u * by, v, None if own is None else own * factor[..., None])
    else:
        w_rec = net.w_rec * float(factor) if net.is_sparse else net.w_rec * by
    leak = None if net.leak is None else Leak(*(part * factor[..., None] for part in net.leak))
    return replace_blocks(net, net.w_in * by, w_rec, net.w_out * by, skip, leak=leak)
