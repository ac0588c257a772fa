"""Spectrum, pseudospectrum and transient growth: how far eigenvalues can be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hoplens.analysis.dynamics.linear import state_space
from hoplens.display import Shown
from hoplens.errors import ShapeError, check_count, check_number
from hoplens.graph.implicit import takes_models
from hoplens.graph.pathways import Pathways
from hoplens.lookup import look_up

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class Pseudospectrum(Shown):
    """The smallest singular value of ``z I - a`` over a grid of the complex plane.

    Attributes
    ----------
    real, imag : Tensor, shape (P,)
        The grid.
    values : Tensor, shape (P imag, P real)
        The pseudospectrum of level e is where the value is at most e: the eigenvalues that some change
        of the weights of norm e can produce.
    eigenvalues : Tensor of complex128, shape (H,)
    """

    real: Tensor
    imag: Tensor
    values: Tensor
    eigenvalues: Tensor

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw contours of log10 of the values, the eigenvalues and the unit circle.

        Parameters
        ----------
        ax : Axes, optional
            Where to draw; a new figure by default.
        """
        axes: Axes = look_up("hoplens.plots.charts:plot_pseudospectrum")(self, ax=ax)
        return axes


@takes_models
def spectrum(net: Pathways) -> Tensor:
    """Return the eigenvalues of the time step, largest modulus first, complex128, shape (..., H).

    Parameters
    ----------
    net : Pathways
        Any leading axes.
    """
    values = torch.linalg.eigvals(state_space(net).a)
    ordered: Tensor = values.gather(-1, values.abs().argsort(dim=-1, descending=True))
    return ordered


@takes_models
def pseudospectrum(net: Pathways, *, points: int = 60, extent: float | None = None) -> Pseudospectrum:
    """Return the pseudospectrum of one network on a square grid around 0.

    ``min singular value of (z I - a)`` (Trefethen and Embree 2005).

    Parameters
    ----------
    net : Pathways
        One network.
    points : int, default 60
        Grid points a side.
    extent : float, optional
        The grid runs from -extent to extent; default 1.2 times the larger of spectral radius and 1.
    """
    a = _one(net)
    eigenvalues = torch.linalg.eigvals(a)
    reach = max(1.0, float(eigenvalues.abs().max())) * 1.2
    half = reach if extent is None else check_number("extent", extent, above=0.0)
    side = torch.linspace(-half, half, check_count("points", points, least=2), dtype=torch.float64)
    eye = torch.eye(len(a), dtype=torch.complex128, device=a.device)
    # a triangular form once, so that the rows of the grid share the costly part; one row at a time
    triangle = torch.as_tensor(_schur(a)).to(eye)
    rows = []
    for y in side.tolist():
        z = torch.complex(side, torch.full_like(side, y)).to(eye.device)[:, None, None]
        rows.append(torch.linalg.svdvals(z * eye - triangle)[:, -1])
    return Pseudospectrum(side, side.clone(), torch.stack(rows).cpu(), eigenvalues.cpu())


def _schur(a: Tensor) -> object:
    from scipy.linalg import schur

    return schur(a.cpu().numpy(), output="complex")[0]


@takes_models
def transient_growth(net: Pathways, horizon: int) -> Tensor:
    """Return ``|a^n|`` (spectral norm) for n = 0 .. horizon, shape (..., horizon + 1).

    Above 1 while all eigenvalues lie inside the unit circle: non-normal growth, a delay line's signature.

    Parameters
    ----------
    net : Pathways
        Any leading axes.
    horizon : int
        Number of time steps.
    """
    a = state_space(net).a
    power = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand_as(a)
    norms = [torch.ones(a.shape[:-2], dtype=a.dtype, device=a.device)]
    for _ in range(check_count("horizon", horizon)):
        power = a @ power
        norms.append(torch.linalg.matrix_norm(power, 2))
    return torch.stack(norms, dim=-1)


@takes_models
def henrici_departure(net: Pathways) -> Tensor:
    """Return Henrici's departure from normality, ``sqrt(|a|_F^2 - sum |lambda|^2) / |a|_F``, shape (...,).

    0 for a normal matrix (orthogonal eigenvectors), 1 for a nilpotent one (a pure delay line).

    Parameters
    ----------
    net : Pathways
        Any leading axes.
    """
    a = state_space(net).a
    size = torch.linalg.matrix_norm(a).square()
    inside = torch.linalg.eigvals(a).abs().square().sum(-1)
    share: Tensor = (size - inside).clamp_min(0) / torch.where(size > 0, size, torch.ones_like(size))
    return share.sqrt()


def _one(net: Pathways) -> Tensor:
    if net.batch_shape:
        raise ShapeError(f"pseudospectrum takes one network, got leading axes {tuple(net.batch_shape)}")
    return state_space(net.detach()).a


__all__ = ["Pseudospectrum", "henrici_departure", "pseudospectrum", "spectrum", "transient_growth"]
