"""Modules: hop maps between modules, and modular wiring against modular function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hoplens.analysis.hops import hop_maps
from hoplens.analysis.walks import flow
from hoplens.display import Shown
from hoplens.errors import ParameterError, ShapeError
from hoplens.graph.implicit import takes_models
from hoplens.graph.pathways import Pathways

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Blocks(Shown):
    """Hop maps between modules.

    Attributes
    ----------
    values : Tensor, shape (K, M_out, M_in)
        Summed ``|H_k|`` from each input module to each output module.
    hops : Tensor of int64, shape (K,)
    input_modules, output_modules : tuple of str
        The modules, in order of first appearance.
    function_modularity : float
        Modularity of the summed ``|H_k|`` as a bipartite graph from inputs to outputs (Barber 2007):
        the share of mass inside modules beyond what row and column sums alone give.
    wiring_modularity : float
        Modularity of ``|W|`` as a directed graph of all nodes (Leicht and Newman 2008).
    hidden_modules : tuple of str
        The module of each hidden unit that the wiring was judged by.
    """

    values: Tensor
    hops: Tensor
    input_modules: tuple[str, ...]
    output_modules: tuple[str, ...]
    function_modularity: float
    wiring_modularity: float
    hidden_modules: tuple[str, ...]

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row per (hop, output module, input module) with the mass."""
        import pandas as pd

        index = pd.MultiIndex.from_product(
            [self.hops.tolist(), self.output_modules, self.input_modules],
            names=["hop", "output_module", "input_module"],
        )
        return pd.DataFrame({"mass": self.values.cpu().numpy().reshape(-1)}, index=index).reset_index()


@takes_models
def blocks(net: Pathways, horizon: int) -> Blocks:
    """Return module-to-module hop matrices, and how modular function and wiring are.

    Parameters
    ----------
    net : Pathways
        One network with ``input_modules`` and ``output_modules``. Where ``hidden_modules`` is missing, or
        shares no name with them (the layers of a stack), each hidden unit is put into the module whose
        inputs and outputs send most mass through it within the horizon.
    horizon : int
        Number of time steps L, as in `hop_maps`.

    Returns
    -------
    Blocks

    Raises
    ------
    ParameterError
        If inputs or outputs have no modules.
    """
    if net.batch_shape:
        raise ShapeError(f"blocks takes one network, got leading axes {tuple(net.batch_shape)}; index them")
    if net.input_modules is None or net.output_modules is None:
        raise ParameterError("blocks needs input_modules= and output_modules=, the module of each terminal")
    groups = net.input_modules, net.output_modules
    net = net.detach().to(torch.float64)
    maps = hop_maps(net, horizon)
    ins, outs = (tuple(dict.fromkeys(group)) for group in groups)
    to_in, to_out = (
        _membership(groups[0], ins, net.w_in),
        _membership(groups[1], outs, net.w_in),
    )
    size = maps.values.abs()
    own = net.hidden_modules
    if own is None or not set(own) & {*ins, *outs}:
        own = _hidden_modules(net, groups, horizon)
    total = size.sum(0)
    same = torch.tensor([[a == b for b in groups[0]] for a in groups[1]])
    nodes = [*groups[0], *own, *groups[1]]
    alike = torch.tensor([[a == b for b in nodes] for a in nodes])
    return Blocks(
        to_out.mT @ size @ to_in,
        maps.hops,
        ins,
        outs,
        _modularity(total, same.to(total.device)),
        _modularity(net.adjacency().abs(), alike.to(total.device)),
        tuple(own),
    )


def _membership(labels: tuple[str, ...], modules: tuple[str, ...], like: Tensor) -> Tensor:
    return torch.tensor([[a == m for m in modules] for a in labels]).to(like)


def _hidden_modules(
    net: Pathways, groups: tuple[tuple[str, ...], tuple[str, ...]], horizon: int
) -> tuple[str, ...]:
    names = tuple(dict.fromkeys([*groups[0], *groups[1]]))
    to_in, to_out = (_membership(group, names, net.w_in) for group in groups)
    w_rec = net.w_rec.to_dense() if net.is_sparse else net.w_rec
    mass = []
    for column in range(len(names)):
        # what flows from a module's inputs to any output, plus what flows from any input to its outputs
        parts = []
        for w_in, w_out in (
            (net.w_in * to_in[:, column], net.w_out),
            (net.w_in, to_out[:, column, None] * net.w_out),
        ):
            part = Pathways(w_in, w_rec, w_out, layers=net.layers)
            weight = hop_maps(_magnitudes(part), horizon).values.sum((-2, -1))
            parts.append((flow(part, horizon) * weight[:, None]).sum(0))
        mass.append(parts[0] + parts[1])
    return tuple(names[j] for j in torch.stack(mass).argmax(0).tolist())


def _magnitudes(net: Pathways) -> Pathways:
    return Pathways(net.w_in.abs(), net.w_rec.abs(), net.w_out.abs(), layers=net.layers)


def _modularity(weights: Tensor, same: Tensor) -> float:
    """Return sum over pairs in one module of w_ij / m - k_i k_j / m^2; 0 for a graph without edges."""
    total = weights.sum()
    if float(total) == 0:
        return 0.0
    share = weights / total
    expected = share.sum(1, keepdim=True) * share.sum(0, keepdim=True)
    return float(((share - expected) * same).sum())


__all__ = ["Blocks", "blocks"]
