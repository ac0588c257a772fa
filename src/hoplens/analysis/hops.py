"""Hop maps: input-output influence split by the number of edges walked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hoplens.analysis.maps import HopMaps
from hoplens.errors import (
    ParameterError,
    check_count,
)
from hoplens.graph.implicit import pathways_of
from hoplens.graph.pathways import Pathways
from hoplens.graph.scaled import assemble, hop_products
from hoplens.graph.timed import timed_maps
from hoplens.lookup import look_up
from hoplens.progress import Progress

HORIZON = 20  # time steps, where neither data nor the user say how many


def hop_maps(
    net: Any,
    horizon: int | None = None,
    *,
    inputs: Any = None,
    lengths: Tensor | None = None,
    readout: Any = None,
    groups: Any = None,
    dtype: torch.dtype | None = None,
    progress: Progress = False,
) -> HopMaps:
    """Split the input-output influence of a network by hop length: along data, or of its bare weights.

    With ``inputs``: what flows. The mean over samples of the exact Jacobians ``d y_T / d x_t`` of the output
    after the last step, by lag T - t (see `hoplens.trajectory_maps`), in hops of as many time steps.

    Without: what the graph could route, ``H_k = W_out W_rec^(k-2) W_in`` for k = 2 .. horizon + 1, the
    Markov parameters of the linear system (W_in, W_rec, W_out); hop k carries the input seen k - 2 steps
    before the read-out. In a stack of D layers walks have D + 1 hops or more and hop k takes k - 1 - D steps
    (see `hoplens.lag_maps`). With direct edges (``w_skip``) a map ``H_1 = W_skip`` comes first.
    Differentiable. Costs one thin product per hop, from the smaller of the input and output side, never a
    power of W_rec. Maps that grow or fade beyond the range of the dtype are carried with exponents, see
    ``HopMaps.shift`` and `HopMaps.scaled`. Of a graph of each step (``read(at="steps")``) the factors are
    those of the steps that a walk takes.

    Parameters
    ----------
    net : Pathways, or a model
        Any leading axes. A model is read with `hoplens.read` first, as in all functions of networks. With
        ``inputs`` a model that can be run, anything that `hoplens.trajectory_maps` takes.
    horizon : int, optional
        Number of time steps L >= 1; default those of the inputs or of the graph of each step, else 20.
    inputs : Tensor (B, L, I) or PackedSequence, optional
        Sequences, in the layout that the model takes.
    lengths : Tensor of int64, shape (B,), optional
        Valid steps of sequences padded at the end. The mean of a lag is over the samples that have it.
    readout : nn.Linear or matrix (O, H), optional
        After a bare core.
    groups : sequence of B labels, optional
        Maps by group of samples, along a leading axis in the order of the sorted labels: where a unit
        saturates in half of the trials, the mean over all of them is that of none.
    dtype : torch.dtype, optional
        Of the maps; default that of the weights. Half precision is computed in float32.
    progress : bool or callable, default False
        Show a bar over samples, or call ``progress(done, samples)``.

    Returns
    -------
    HopMaps
        ``values`` of shape (..., K, O, I), K = horizon (+ 1 with direct edges); with inputs also
        ``absolute``, ``spread``, ``standard_error`` and ``samples``.

    Raises
    ------
    NonFiniteError
        If a weight, or a map along data, is NaN or infinite.
    RangeError
        If a single hop leaves the range of the dtype.
    ParameterError
        If data options come without ``inputs``, or inputs beside a graph.
    ShapeError
        If the inputs do not fit.

    Notes
    -----
    Source: arXiv:2605.03598, the thin form of the powers of the block adjacency matrix.
    """
    length = None if horizon is None else check_count("horizon", horizon)
    if inputs is not None:
        if isinstance(net, Pathways):
            raise ParameterError("inputs= needs a model that can be run; pass the module, not its Pathways")
        maps: HopMaps = look_up("hoplens.analysis.mean_maps:mean_maps")(
            net, inputs, lengths=lengths, readout=readout, horizon=length, groups=groups, progress=progress
        )
        return maps if dtype is None else maps.to(dtype)
    for name, given in (("lengths", lengths), ("groups", groups)):
        if given is not None:
            raise ParameterError(f"{name}= says something of inputs=; give those too")
    if not isinstance(net, Pathways):
        net = pathways_of(net, "hop_maps", readout)
    elif readout is not None:
        raise ParameterError("readout= goes with a bare core, not with a Pathways, which has its own")
    return _steps_maps(net, length, dtype) if net.steps else _graph_maps(net, length or HORIZON, dtype)


def _graph_maps(net: Pathways, length: int, dtype: torch.dtype | None) -> HopMaps:
    net.check_finite()
    levels = 1 if net.layers is None else net.layers[-1].level + 1
    maps, exponents = hop_products(net, length, levels)
    first = levels + 1
    hops = torch.arange(first, first + length, device=maps.device)
    if net.w_skip is not None:
        maps = torch.cat([net.w_skip.to(maps.dtype).unsqueeze(-3), maps], dim=-3)
        exponents = torch.cat([torch.zeros_like(exponents[..., :1]), exponents], dim=-1)
        hops = torch.cat([hops.new_ones(1), hops])
    values, shift, exact = assemble(maps, exponents, dtype or net.w_in.dtype)
    modules = net.input_modules, net.output_modules
    timed = net.layers is None or not any(layer.reverse for layer in net.layers)
    return HopMaps(values, hops, net.input_names, net.output_names, *modules, levels, shift, exact, timed)


def _steps_maps(net: Pathways, length: int | None, dtype: torch.dtype | None) -> HopMaps:
    net.check_finite()
    values = timed_maps(net, len(net.w_in) if length is None else length).to(dtype or net.w_in.dtype)
    levels = 1 if net.layers is None else net.layers[-1].level + 1
    hops = torch.arange(len(values), device=values.device) + levels + 1
    names = net.input_names, net.output_names, net.input_modules, net.output_modules
    return HopMaps(values, hops, *names, levels)


__all__ = ["HORIZON", "HopMaps", "hop_maps"]
