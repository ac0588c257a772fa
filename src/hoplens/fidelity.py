"""How well the weights-only hop maps predict the maps on given data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hoplens.errors import NonFiniteError, ShapeError
from hoplens.implicit import takes_models
from hoplens.lags import lag_maps
from hoplens.pathways import Pathways
from hoplens.trajectories import TrajectoryMaps

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Fidelity:
    """Agreement of weights-only maps with the exact maps on some inputs.

    Attributes
    ----------
    correlation : Tensor, shape (B,)
        Pearson correlation over all (hop, output, input) cells of each sample.
    relative_error : Tensor, shape (B,)
        ``|exact - predicted| / |exact|`` (Frobenius) of each sample.
    explained : Tensor, shape (B,)
        ``1 - relative_error^2``: the share of the flow's energy that the weights predict. Below 0 where
        predicting nothing at all would be closer.
    per_hop : Tensor, shape (K,)
        Correlation over the (output, input) cells of each hop, mean over samples; NaN where a hop has
        fewer than two distinct cells.
    per_hop_spread : Tensor, shape (K,)
        Its standard deviation over samples (0 for one sample).
    per_hop_error, per_hop_error_spread : Tensor, shape (K,)
        Relative error of each hop, mean and standard deviation over samples.
    hops : Tensor of int64, shape (K,)
    label, provenance : str
        What was run, and where the prediction comes from.
    """

    correlation: Tensor
    relative_error: Tensor
    explained: Tensor
    per_hop: Tensor
    per_hop_spread: Tensor
    per_hop_error: Tensor
    per_hop_error_spread: Tensor
    hops: Tensor
    label: str
    provenance: str

    def summary(self) -> str:
        """Return the sentence to print beside any claim that is made from weights only."""
        share = float(self.explained.mean())
        spread = float(self.explained.std(correction=0))
        rho = float(self.correlation.nanmean())
        if share <= 0:
            error = float(self.relative_error.mean())
            return (
                f"weights explain none of the flow on these inputs: the error is {error:.2f} x the flow "
                f"itself (correlation {rho:.2f}, {len(self.correlation)} samples)"
            )
        return (
            f"weights explain {share:.2f} of the flow on these inputs (spread {spread:.2f} over "
            f"{len(self.correlation)} samples, correlation {rho:.2f})"
        )

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row a hop: correlation and relative error, mean and spread over samples."""
        import pandas as pd

        columns = {
            "hop": self.hops,
            "correlation": self.per_hop,
            "correlation_spread": self.per_hop_spread,
            "relative_error": self.per_hop_error,
            "relative_error_spread": self.per_hop_error_spread,
        }
        return pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})


@takes_models
def fidelity(net: Pathways, trajectory: TrajectoryMaps) -> Fidelity:
    """Compare weights-only maps with the exact maps along trajectories.

    Parameters
    ----------
    net : Pathways
        One network: bare weights, or a Jacobian at one point.
    trajectory : TrajectoryMaps
        Of the same network, from `trajectory_maps`.

    Returns
    -------
    Fidelity
        One number a sample, and one a hop with the spread over samples. Computed in float64.

    Raises
    ------
    ShapeError
        If inputs or outputs differ in number, or the net has leading axes.
    """
    _, steps, n_out, n_in = trajectory.values.shape
    if net.batch_shape or (net.n_outputs, net.n_inputs) != (n_out, n_in):
        raise ShapeError(
            f"fidelity compares one network of {n_out} outputs and {n_in} inputs, as in the trajectory, got "
            f"{net!r}; read it with the same readout, and index its leading axes"
        )
    if not bool(torch.isfinite(trajectory.values).all()):
        raise NonFiniteError(
            f"the maps of {trajectory.label} along these inputs are not finite; check its weights, or take "
            "shorter sequences or float64 where the network is unstable"
        )
    maps = lag_maps(net.detach().to(torch.float64), steps)
    predicted = maps.values[maps.lags >= 0].to(trajectory.values.device)  # (L, O, I)
    exact = trajectory.by_lag().double()
    valid = torch.arange(steps, device=exact.device) < trajectory.lengths[:, None]  # (B, L)
    cells = valid[..., None, None].expand_as(exact)
    guess = predicted.expand_as(exact) * cells
    whole = _correlation(exact.flatten(1), guess.flatten(1), cells.flatten(1))
    error = _relative(exact.flatten(1), guess.flatten(1))
    by_hop = _correlation(exact.flatten(2), guess.flatten(2), cells.flatten(2))  # (B, L)
    error_by_hop = _relative(exact.flatten(2), guess.flatten(2))
    nothing = torch.full_like(by_hop, torch.nan)
    by_hop, error_by_hop = (torch.where(valid, part, nothing) for part in (by_hop, error_by_hop))
    levels = 1 if net.layers is None else net.layers[-1].level + 1
    return Fidelity(
        whole,
        error,
        1 - error**2,
        *_mean_and_spread(by_hop),
        *_mean_and_spread(error_by_hop),
        torch.arange(steps, device=exact.device) + levels + 1,
        trajectory.label,
        net.provenance,
    )


def _relative(exact: Tensor, guess: Tensor) -> Tensor:
    """Return |exact - guess| / |exact| over the last axis; NaN where nothing flows."""
    missed = torch.linalg.vector_norm(exact - guess, dim=-1)
    share: Tensor = missed / torch.linalg.vector_norm(exact, dim=-1)
    return share


def _correlation(a: Tensor, b: Tensor, valid: Tensor) -> Tensor:
    """Return Pearson's correlation over the valid cells of the last axis; NaN where one is constant."""
    count = valid.sum(-1, keepdim=True).clamp_min(1)
    centred = [(x - (x * valid).sum(-1, keepdim=True) / count) * valid for x in (a, b)]
    size = [torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in centred]
    # a constant comes out of the subtraction as rounding noise, not as zero
    floor = [1e-13 * torch.linalg.vector_norm(x * valid, dim=-1, keepdim=True) for x in (a, b)]
    units = [
        x / torch.where(s > f, s, torch.full_like(s, torch.nan))
        for x, s, f in zip(centred, size, floor, strict=True)
    ]
    rho: Tensor = (units[0] * units[1]).sum(-1).clamp(-1, 1)
    return rho


def _mean_and_spread(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over samples (B, K) -> (K,), NaN left out."""
    mean = values.nanmean(dim=0)
    return mean, (values - mean).square().nanmean(dim=0).sqrt()


__all__ = ["Fidelity", "fidelity"]
