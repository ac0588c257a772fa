"""Lag maps: input-output influence split by time steps instead of by edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hoplens.analysis.hops import HopMaps, hop_maps
from hoplens.display import Shown
from hoplens.errors import UnsupportedModelError, check_count
from hoplens.graph.implicit import takes_models
from hoplens.graph.pathways import Pathways
from hoplens.graph.timed import split_time

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class LagMaps(Shown):
    """Maps by lag: how an output responds to the input of n time steps before.

    Attributes
    ----------
    values : Tensor, shape (..., N, O, I)
        ``values[..., n, o, i]`` sums all walks from input i to output o that take ``lags[n]`` time steps.
    lags : Tensor of int64, shape (N,)
        0 .. horizon - 1; from -(horizon - 1) on where a backward direction reads later inputs too.
    input_names, output_names : tuple of str
    """

    values: Tensor
    lags: Tensor
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row per (network, lag, output, input) with the weight."""
        import pandas as pd

        batch = self.values.shape[:-3]
        names = ["network"] if len(batch) == 1 else [f"axis{j}" for j in range(len(batch))]
        levels: list[Any] = [*(range(n) for n in batch), self.lags.tolist()]
        levels += [self.output_names, self.input_names]
        index = pd.MultiIndex.from_product(levels, names=[*names, "lag", "output", "input"])
        values = self.values.detach().to("cpu", torch.float64).numpy().reshape(-1)
        return pd.DataFrame({"weight": values}, index=index).reset_index()


@takes_models
def lag_maps(net: Pathways, horizon: int) -> LagMaps:
    """Split the input-output influence of a network by time steps.

    A hop is one edge walked, a lag one time step walked. An edge inside a layer takes a step forward in
    time (backward in a reversed layer), an edge from a layer to the next takes none. Every walk through a
    stack of D layers crosses D - 1 of these, so a walk of k hops takes k - 1 - D steps, and for networks
    that run forward only the lag maps are the hop maps under another name. In a bidirectional network a
    walk may go both ways; its lag is the steps forward minus the steps backward.

    Parameters
    ----------
    net : Pathways
        Any leading axes.
    horizon : int
        L: walks of up to L - 1 time steps are summed, as in ``hop_maps(net, horizon)``.

    Returns
    -------
    LagMaps
        Lag n is the input n steps before the read-out (after it, for n < 0). The sum over lags equals the
        sum over hops of ``hop_maps(net, horizon)``.

    Raises
    ------
    UnsupportedModelError
        If edges skip levels, so that they do not fit the layers given.

    Notes
    -----
    The maps of a bidirectional stack are those of an endless sequence; near its ends some walks of two
    layers or more would leave the sequence and do not exist.

    Examples
    --------
    Two layers of one unit: input to h0 2, h0 to itself 0.5, h0 to h1 3, h1 to itself 0.25, h1 to output 1.

    >>> import hoplens as hl
    >>> layers = [hl.graph.Layer("l0", 0, 1, 0), hl.graph.Layer("l1", 1, 2, 1)]
    >>> net = hl.Pathways([[2.0], [0.0]], [[0.5, 0.0], [3.0, 0.25]], [[0.0, 1.0]], layers=layers)
    >>> hl.hop_maps(net, 2).hops.tolist(), hl.hop_maps(net, 2).lags.tolist()
    ([3, 4], [0, 1])

    Three edges, no time: x, h0, h1, y, product 6. Four edges, one step: either x, h0, h0, h1, y, product 3,
    or x, h0, h1, h1, y, product 1.5.

    >>> hl.lag_maps(net, 2).values.flatten().tolist()
    [6.0, 4.5]
    """
    length = check_count("horizon", horizon)
    check_levels(net)
    if net.layers is None or not any(layer.reverse for layer in net.layers):
        return _from_hops(hop_maps(net, length))
    net.check_finite()
    forward, backward, same = split_time(net)
    levels = net.layers[-1].level + 1
    state = net.w_in.new_zeros(2 * length - 1, *net.w_in.shape)  # (N, ..., H, I), lag 0 in the middle
    state[length - 1] = net.w_in
    total = torch.zeros_like(net.w_out @ state)
    for _ in range(length + levels - 1):
        total = total + net.w_out @ state
        later, earlier = forward @ state, backward @ state
        state = same @ state
        state[1:] += later[:-1]
        state[:-1] += earlier[1:]
    values = total.movedim(0, -3)
    if net.w_skip is not None:
        values[..., length - 1, :, :] += net.w_skip
    lags = torch.arange(1 - length, length, device=values.device)
    return LagMaps(values, lags, net.input_names, net.output_names)


def _from_hops(maps: HopMaps) -> LagMaps:
    values, lags = maps.values, maps.lags
    if int(maps.hops[0]) == 1:  # a direct edge takes no time, like the shortest walk through the layers
        values = torch.cat([values[..., :1, :, :] + values[..., 1:2, :, :], values[..., 2:, :, :]], dim=-3)
        lags = lags[1:]
    return LagMaps(values, lags, maps.input_names, maps.output_names)


def check_levels(net: Pathways) -> None:
    """Raise unless inputs enter the first level, outputs leave the last, and edges climb one level."""
    if net.layers is None:
        return
    level = torch.zeros(net.n_hidden, dtype=torch.int64, device=net.w_in.device)
    own = torch.zeros_like(level)
    for number, layer in enumerate(net.layers):
        level[layer.start : layer.stop] = layer.level
        own[layer.start : layer.stop] = number
    w_rec = net.w_rec.to_dense() if net.is_sparse else net.w_rec
    legal = (level[:, None] == level + 1) | (own[:, None] == own)
    last = int(level.max())
    stray = (
        bool((w_rec * ~legal != 0).any())
        or bool((net.w_in[..., level > 0, :] != 0).any())
        or bool((net.w_out[..., level < last] != 0).any())
    )
    if stray:
        raise UnsupportedModelError(
            "edges must go from inputs to level 0, inside a layer, from a level to the next, and from the "
            "last level to outputs; leave layers= out to count one time step an edge"
        )


__all__ = ["LagMaps", "check_levels", "lag_maps"]
