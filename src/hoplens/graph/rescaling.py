"""The same graph with another gain a hop."""

from __future__ import annotations

import torch
from torch import Tensor

from hoplens.errors import ParameterError, check_number
from hoplens.graph.implicit import takes_models
from hoplens.graph.parts import Leak, LowRank
from hoplens.graph.pathways import Pathways, replace_blocks
from hoplens.graph.radius import spectral_radius


@takes_models
def rescale(net: Pathways, radius: float) -> Pathways:
    """Return the network with its recurrent weights divided so that they have a given spectral radius.

    All walks of one hop number change by one factor, so shares within a hop stay and only the balance
    between hops changes: H_k is multiplied by ``(radius / rho)^(k - 2)``. Needed where weights are counts,
    such as synapses: with their own radius of 30, each hop counts 30 times the one before.

    Parameters
    ----------
    net : Pathways
        Any leading axes; sparse and low-rank stay so.
    radius : float
        The spectral radius wanted, above 0.

    Returns
    -------
    Pathways
        ``provenance`` says what was done.

    Raises
    ------
    ParameterError
        If the network has no cycle, so that its spectral radius is 0 and nothing can be scaled to it.
    """
    wanted = check_number("radius", radius, above=0.0)
    own = spectral_radius(net).to(torch.float64)
    if not bool((own > 0).all()):
        raise ParameterError("w_rec has no cycle (spectral radius 0), so no factor gives it another radius")
    factor = (wanted / own).to(net.w_in.dtype)
    w_rec: Tensor | LowRank
    if net.factors is not None:
        u, v, kept = net.factors
        w_rec = LowRank(u * factor[..., None, None], v, None if kept is None else kept * factor[..., None])
    else:
        w_rec = net.w_rec * (factor if net.is_sparse else factor[..., None, None])
    leak = None if net.leak is None else Leak(*(part * factor[..., None] for part in net.leak))
    provenance = f"{net.provenance}, w_rec scaled to spectral radius {wanted:g}"
    return replace_blocks(net, net.w_in, w_rec, net.w_out, net.w_skip, leak=leak, provenance=provenance)
