"""How well the weights-only hop maps predict the maps on given data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hoplens.analysis.lags import lag_maps
from hoplens.analysis.maps import HopMaps
from hoplens.analysis.mean_maps import mean_maps
from hoplens.analysis.trajectories import TrajectoryMaps
from hoplens.display import Shown
from hoplens.errors import NonFiniteError, ShapeError
from hoplens.graph.implicit import takes_models
from hoplens.graph.parts import Agreement
from hoplens.graph.pathways import Pathways
from hoplens.graph.timed import timed_maps
from hoplens.models.rollout import Batch
from hoplens.models.stack import Stack

if TYPE_CHECKING:
    import pandas as pd


COMPARED, FEW = 256, 16  # samples that a graph along data is held against, and how many at least
PRODUCTS = 1 << 38  # multiplications that this may take: some seconds on a few cores
FAITHFUL, LOOSE = 0.9, 0.5  # explained share from which weights can be believed, and below which not


@dataclass(frozen=True, eq=False, repr=False)
class Fidelity(Shown):
    """Agreement of weights-only maps with the exact maps on some inputs.

    Attributes
    ----------
    correlation : Tensor, shape (B,)
        Pearson correlation over all (hop, output, input) cells of each sample.
    relative_error : Tensor, shape (B,)
        ``|exact - predicted| / |exact|`` (Frobenius) of each sample; NaN where nothing flows.
    explained : Tensor, shape (B,)
        ``1 - relative_error^2``: the share of the flow's energy that the weights predict. Below 0 where
        predicting nothing at all would be closer, without a lower end: where little flows, as in saturated
        units, it is far below, so that a mean over samples says little. NaN where nothing flows.
    gain : Tensor, shape (B,)
        Factor, 0 or more, by which the prediction comes closest: how much of the predicted size flows. 1
        where that is right; NaN where nothing flows or is predicted.
    pattern : Tensor, shape (B,)
        The share of the flow's energy explained with that factor, in 0 .. 1: whether the weights say right
        which pathways flow in proportion, whatever their size. Never below ``explained``.
    pooled_explained, pooled_gain, pooled_pattern : float
        The same of all samples as one: ``1 - sum |exact - predicted|^2 / sum |exact|^2``, and with one factor
        for all.
    per_hop : Tensor, shape (K,)
        Correlation over the (output, input) cells of each hop, mean over samples; NaN where a hop has
        fewer than two distinct cells or nothing flows.
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
    gain: Tensor
    pattern: Tensor
    pooled_explained: float
    pooled_gain: float
    pooled_pattern: float
    per_hop: Tensor
    per_hop_spread: Tensor
    per_hop_error: Tensor
    per_hop_error_spread: Tensor
    hops: Tensor
    label: str
    provenance: str

    @property
    def median_explained(self) -> float:
        """Median of ``explained`` over the samples in which something flows; NaN without one."""
        return float(self.explained.nanmedian())

    def verdict(self) -> str:
        """Return what can be believed: the pattern and the size, one, or neither; "nothing flows" if so.

        One of "both", "partly", "pattern", "neither", "nothing flows".
        """
        if math.isnan(self.pooled_explained):
            return "nothing flows"
        share = min(self.pooled_explained, self.median_explained)
        if share >= FAITHFUL:
            return "both"
        if share >= LOOSE:
            return "partly"
        return "pattern" if self.pooled_pattern >= LOOSE else "neither"

    def summary(self) -> str:
        """Return the sentence to print beside any claim that is made from weights only."""
        size = len(self.correlation)
        samples = f"{size} sample{'s' if size > 1 else ''}"
        verdict = self.verdict()
        if verdict == "nothing flows":
            return f"nothing flows on these inputs ({samples}): no input changes an output"
        rho = float(self.correlation.nanmean())
        found = (
            f"{_share(self.pooled_explained)} of all flow on these inputs pooled, "
            f"{_share(self.median_explained)} in the median of {samples} (correlation {rho:.2f})"
        )
        if verdict in ("both", "partly"):
            return f"weights explain {found}"
        if verdict == "pattern":
            scaled = f"{self.pooled_pattern:.2f} of it with their size times {self.pooled_gain:.2g}"
            return f"weights have the pattern of the flow, not its size: they explain {found}, but {scaled}"
        more = f"; no more than {self.pooled_pattern:.2f} of it at any size"
        return f"weights explain {found}{more}"

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
    error, gain, pattern = _agreement(exact.flatten(1), guess.flatten(1))
    all_error, all_gain, all_pattern = (float(x) for x in _agreement(exact.flatten(), guess.flatten()))
    whole = _correlation(exact.flatten(1), guess.flatten(1), cells.flatten(1))
    by_hop = _correlation(exact.flatten(2), guess.flatten(2), cells.flatten(2))  # (B, L)
    error_by_hop, _, _ = _agreement(exact.flatten(2), guess.flatten(2))
    nothing = torch.full_like(by_hop, torch.nan)
    by_hop, error_by_hop = (torch.where(valid, part, nothing) for part in (by_hop, error_by_hop))
    levels = 1 if net.layers is None else net.layers[-1].level + 1
    return Fidelity(
        whole,
        error,
        1 - error**2,
        gain,
        pattern,
        1 - all_error**2,
        all_gain,
        all_pattern,
        *_mean_and_spread(by_hop),
        *_mean_and_spread(error_by_hop),
        torch.arange(steps, device=exact.device) + levels + 1,
        trajectory.label,
        net.provenance,
    )


def agreement_along(net: Pathways, stack: Stack, batch: Batch) -> Agreement:
    """Return how well the maps of a graph predict the exact mean maps of a network along sequences.

    Along `COMPARED` samples at most, spread over the batch; of large networks along fewer, and for a spread
    of the outputs, so that reading a graph stays a matter of seconds.
    """
    steps = batch.inputs.shape[1]
    row = steps * sum(cell.n_state * (cell.n_state + cell.n_inputs) for cell in stack.cells)
    affordable = max(1, PRODUCTS // row)  # rows, one an output of a sample
    outputs = _spread(net.n_outputs, max(1, affordable // FEW))
    samples = _spread(len(batch.inputs), min(COMPARED, max(1, affordable // len(outputs))))
    chosen = batch.inputs[samples]
    w_out = stack.readout(batch.inputs)[outputs]
    some = Stack(stack.levels, w_out, stack.label, batch_first=True)
    part = Pathways(net.w_in, net.w_rec, net.w_out[..., outputs, :], layers=net.layers, steps=net.steps)
    return agreement(part, mean_maps(some, chosen, lengths=batch.lengths[samples]))


def _spread(count: int, most: int) -> list[int]:
    """Return places of 0 .. count - 1, evenly spread, ``most`` at most."""
    return list(range(0, count, -(-count // most)))


@takes_models(steps=True)
def agreement(net: Pathways, exact: HopMaps) -> Agreement:
    """Return how well the maps of a graph predict exact mean maps.

    Parameters
    ----------
    net : Pathways
        Static, or a graph of each step.
    exact : HopMaps, values of shape (L, O, I)
        Of a model along data, see `hop_maps`; any of its lags.

    Raises
    ------
    ShapeError
        If the two differ in inputs, outputs or leading axes.
    """
    sizes = tuple(exact.values.shape[-2:])
    if exact.batch_shape or (net.batch_shape and not net.steps) or (net.n_outputs, net.n_inputs) != sizes:
        raise ShapeError(
            f"agreement compares one network with one set of maps (L, O, I), got {net!r} and maps of shape "
            f"{tuple(exact.values.shape)}; index their leading axes, and read with the same readout"
        )
    lags = exact.lags
    steps = int(lags.max()) + 1
    wide = net.detach().to(torch.float64)
    if net.steps:
        guess = timed_maps(wide, steps)
    else:
        maps = lag_maps(wide, steps)
        guess = maps.values[maps.lags >= 0]
    values = exact.values.double()
    flat, predicted = values.flatten(), guess.to(values)[lags].flatten()
    error, gain, _ = (float(x) for x in _agreement(flat, predicted))
    rho = float(_correlation(flat, predicted, torch.ones_like(flat, dtype=torch.bool)))
    return Agreement(rho, 1 - error**2, gain)


def _agreement(exact: Tensor, guess: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return |exact - guess| / |exact|, the best factor, and the share explained with it, over the last axis.

    NaN where nothing flows; the factor also where nothing is predicted.
    """
    missed, size, predicted = (torch.linalg.vector_norm(x, dim=-1) for x in (exact - guess, exact, guess))
    none = torch.full_like(size, torch.nan)
    size = torch.where(size > 0, size, none)
    units = [x / torch.where(s > 0, s, 1.0)[..., None] for x, s in ((exact, size), (guess, predicted))]
    cosine = (units[0] * units[1]).sum(-1).clamp(0, 1)
    gain = cosine * size / torch.where(predicted > 0, predicted, none)
    # rounding must not leave the best factor behind the factor 1
    pattern = torch.maximum(cosine**2, 1 - (missed / size) ** 2)
    return missed / size, gain, pattern


def _share(value: float) -> str:
    return f"{value:.2f}" if value > 0 else "none"


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


__all__ = ["Fidelity", "agreement", "agreement_along", "fidelity"]
