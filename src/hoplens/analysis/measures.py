"""Numbers that say what hop maps look like: how many hops, which ones, how close to a target."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from hoplens.analysis.hops import HopMaps
from hoplens.errors import ParameterError, ShapeError, check_choice, check_number
from hoplens.graph.implicit import takes_models
from hoplens.graph.pathways import Pathways


def active_hops(maps: HopMaps | Tensor, threshold: float = 0.1) -> Tensor:
    """Count, for every input-output pair, the hops that carry weight.

    A hop is active where ``|H_k[o, i]| > threshold * max |H|``, the maximum over all hops and pairs of
    the same network. A network without any pathway has no active hop.

    Parameters
    ----------
    maps : HopMaps or Tensor, shape (..., K, O, I)
        Hop maps.
    threshold : float, default 0.1
        Share of the network's largest entry, in [0, 1).

    Returns
    -------
    Tensor of int64, shape (..., O, I)
    """
    share = check_number("threshold", threshold, least=0.0, below=1.0)
    size = _values(maps).abs()
    largest = size.amax(dim=(-3, -2, -1), keepdim=True)
    return (size > share * largest).sum(dim=-3)


def dominant_hop(maps: HopMaps) -> Tensor:
    """Return, for every pair, the hop length with the largest ``|H_k|``; the shortest one on a tie.

    Parameters
    ----------
    maps : HopMaps
        Hop maps, shape (..., K, O, I).

    Returns
    -------
    Tensor of int64, shape (..., O, I)
        Number of hops; 0 for a pair without any pathway.
    """
    size = _values(maps).abs()
    largest = size.amax(dim=-3, keepdim=True)
    # argmax does not promise the first maximum; the first True of a comparison does
    first = (size == largest).to(torch.int8).argmax(dim=-3)
    hops = maps.hops.to(size.device)[first]
    return torch.where(largest.squeeze(-3) > 0, hops, torch.zeros_like(hops))


def temporal_sparsity(maps: HopMaps | Tensor, method: Literal["gini", "effective"] = "gini") -> Tensor:
    """Measure how concentrated each pair's pathway mass is over hop lengths.

    With shares ``p_k = |H_k| / sum_k |H_k|``:

    * ``"gini"``: the Gini coefficient of the shares, scaled by K / (K - 1) so that 0 means equal on all
      hops and 1 means one hop only;
    * ``"effective"``: the effective number of hops ``exp(-sum_k p_k log p_k)`` (Hill number of order 1),
      from 1 (one hop) to K (equal on all).

    Parameters
    ----------
    maps : HopMaps or Tensor, shape (..., K, O, I)
        Hop maps; "gini" needs K >= 2.
    method : {"gini", "effective"}
        Which measure.

    Returns
    -------
    Tensor, shape (..., O, I)
        NaN for a pair without any pathway: it has no mass to be concentrated.
    """
    check_choice("method", method, ("gini", "effective"))
    size = _values(maps).abs()
    total = size.sum(dim=-3)
    share = size / torch.where(total > 0, total, torch.ones_like(total)).unsqueeze(-3)
    count = size.shape[-3]
    if method == "effective":
        entropy = -torch.xlogy(share, share).sum(dim=-3)
        result = entropy.exp()
    else:
        if count < 2:
            raise ParameterError('method="gini" needs maps of at least two hops; use method="effective"')
        ordered = share.sort(dim=-3).values
        rank = torch.arange(1, count + 1, dtype=size.dtype, device=size.device)[:, None, None]
        result = ((2 * rank - count - 1) * ordered).sum(dim=-3) / (count - 1)
    return torch.where(total > 0, result, torch.full_like(result, torch.nan))


def signal_share(maps: HopMaps | Tensor, signal: Tensor) -> Tensor:
    """Return the part of the pathway mass ``sum |H_k|`` that lies on hops which carry signal.

    Parameters
    ----------
    maps : HopMaps or Tensor, shape (..., K, O, I)
        Hop maps.
    signal : Tensor of bool, shape (K,)
        Which hops carry signal, e.g. ``task.signal_hops``.

    Returns
    -------
    Tensor, shape (...,)
        Between 0 and 1; NaN for a network without any pathway.
    """
    size = _values(maps).abs()
    mask = torch.as_tensor(signal, device=size.device)
    if mask.dtype != torch.bool or mask.shape != size.shape[-3:-2]:
        raise ShapeError(
            f"signal must be a bool tensor with one entry a hop, shape ({size.shape[-3]},), "
            f"got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    per_hop = size.sum(dim=(-2, -1))
    return (per_hop * mask).sum(dim=-1) / per_hop.sum(dim=-1)


def alignment(maps: HopMaps | Tensor, target: HopMaps | Tensor, *, signed: bool = True) -> Tensor:
    """Correlate hop maps with a target over all (hop, output, input) cells.

    Parameters
    ----------
    maps : HopMaps or Tensor, shape (..., K, O, I)
        Hop maps of the networks.
    target : HopMaps or Tensor, shape (K, O, I)
        The maps wanted, e.g. ``task.target_maps``.
    signed : bool, default True
        Compare signed weights; False compares magnitudes.

    Returns
    -------
    Tensor, shape (...,)
        Pearson correlation; 0 for a network whose maps are constant (it routes nothing).
    """
    return correlate(_values(maps), _values(target), axes=3, signed=signed)


def map_correlation(value: Tensor, target: Tensor, *, signed: bool = True) -> Tensor:
    """Correlate input-output maps (..., O, I), e.g. a resolvent's value, with a target (O, I).

    Parameters
    ----------
    value : Tensor, shape (..., O, I)
        Maps of the networks.
    target : Tensor, shape (O, I)
        The map wanted.
    signed : bool, default True
        Compare signed weights; False compares magnitudes.

    Returns
    -------
    Tensor, shape (...,)
        Pearson correlation; 0 for a constant map.
    """
    return correlate(value, target, axes=2, signed=signed)


def correlate(values: Tensor, target: Tensor, *, axes: int, signed: bool) -> Tensor:
    """Return Pearson's correlation over the last ``axes`` axes, 0 where ``values`` is constant."""
    if values.shape[-axes:] != target.shape[-axes:]:
        raise ShapeError(
            f"maps and target must agree in their last {axes} axes, got {tuple(values.shape)} and "
            f"{tuple(target.shape)}; use the task's length as horizon"
        )
    target = target.to(values)
    if not signed:
        values, target = values.abs(), target.abs()
    values, target = values.flatten(-axes), target.flatten(-axes)
    if bool((target == target[..., :1]).all(dim=-1).any()):
        raise ParameterError("the target is constant, so no correlation with it exists")
    return (_standardise(values) * _standardise(target)).sum(dim=-1).clamp(-1, 1)


def _standardise(values: Tensor) -> Tensor:
    """Return values of mean 0 and norm 1 along the last axis; zeros where there is no deviation."""
    # By the largest first: squares of very small numbers would underflow, and a constant becomes exactly
    # 1, so that nothing of it is left to correlate (0.1 is not always the rounded mean of 0.1s).
    values = values / _norm_or_one(values, math.inf)
    values = values - values.mean(dim=-1, keepdim=True)
    return values / _norm_or_one(values, 2.0)


def _norm_or_one(values: Tensor, order: float) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(values, ord=order, dim=-1, keepdim=True)
    return torch.where(size > 0, size, torch.ones_like(size))


@takes_models
def weight_map(net: Pathways) -> Tensor:
    """Read an input-output map off single recurrent weights, as kindly as it can be done.

    Each hidden unit is assigned to the input that drives it most and to the output that it drives most;
    the recurrent weights between the units of an input and the units of an output are then added up:
    ``M[o, i] = sum over (a, b) of W_rec[a, b]`` with a assigned to output o and b to input i. This is what
    a reader of the bare W_rec could hope for; it does not depend on the numbering of the hidden units.

    Parameters
    ----------
    net : Pathways
        Dense, any leading axes.

    Returns
    -------
    Tensor, shape (..., O, I)
    """
    driver = net.w_in.abs().argmax(dim=-1)  # (..., H): input of each unit
    driven = net.w_out.abs().argmax(dim=-2)  # (..., H): output of each unit
    by_input = torch.nn.functional.one_hot(driver, net.n_inputs).to(net.w_rec.dtype)  # (..., H, I)
    by_output = torch.nn.functional.one_hot(driven, net.n_outputs).to(net.w_rec.dtype)  # (..., H, O)
    return by_output.mT @ net.w_rec @ by_input


def _values(maps: HopMaps | Tensor) -> Tensor:
    given: Any = maps
    values = given.values if isinstance(given, HopMaps) else given
    if not isinstance(values, Tensor):
        raise ParameterError(
            f"this takes hop maps, got {type(given).__name__}; make them with hoplens.hop_maps(net, horizon)"
        )
    if values.dim() < 3:
        raise ShapeError(f"hop maps must have shape (..., K, O, I), got {tuple(values.shape)}")
    return values
